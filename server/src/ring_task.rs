//! Drives the ring: one loop, one closed set of events, around the sans-io [`RingNode`].
//!
//! The loop owns the node. Everybody else sees the ring through the published [`RingView`]
//! (a pointer to load) and may ask for a lookup when the view does not reach far enough.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use triad_proto::peer::v1::control_request::Request;
use triad_ring::{
    Input, LookupId, Message, NodeId, Output, RingId, RingNode, RingView, Route, Timer,
    VirtualNodeState,
};

use crate::liveness::Detector;
use crate::peers::Peers;
use crate::random::Jitter;

/// Events that may wait for the loop.
const QUEUE: usize = 4_096;
/// Lookups that may be under way; more are refused.
const LOOKUPS: usize = 1_024;

/// What the loop reacts to.
enum Event {
    Input(Input),
    Lookup { target: RingId, found: oneshot::Sender<Route> },
    Describe(oneshot::Sender<Vec<VirtualNodeState>>),
    Copy(oneshot::Sender<RingNode>),
}

/// How the ring's messages leave the node: on control streams. Losing one is allowed.
pub(crate) struct RingSender(Arc<Peers>);

impl RingSender {
    pub(crate) fn new(peers: Arc<Peers>) -> Self {
        Self(peers)
    }

    fn send(&self, to: NodeId, message: Message) {
        drop(self.0.control(to, Request::Ring(message.into())));
    }
}

/// The other parts' access to the ring.
#[derive(Clone)]
pub(crate) struct RingHandle {
    events: mpsc::Sender<Event>,
    inputs: mpsc::UnboundedSender<Input>,
    view: Arc<ArcSwap<RingView>>,
    joined: watch::Receiver<bool>,
}

impl RingHandle {
    /// The ring as this node knows it now.
    pub(crate) fn view(&self) -> Arc<RingView> {
        self.view.load_full()
    }

    /// True once all virtual nodes have entered the ring.
    pub(crate) fn joined(&self) -> watch::Receiver<bool> {
        self.joined.clone()
    }

    /// Hands in a message of another node. One that finds the queue full is lost, as messages may be.
    pub(crate) fn message(&self, from: NodeId, message: Message) {
        if self.events.try_send(Event::Input(Input::Message { from, message })).is_err() {
            debug!("ring message dropped: queue full");
        }
    }

    /// Hands in an input that must not be lost.
    pub(crate) fn input(&self, input: Input) {
        // Unbounded, but there are at most a few of these for each node that comes or goes.
        let _ = self.inputs.send(input);
    }

    /// Finds the owner of `target`, hop by hop. None when no answer came.
    pub(crate) async fn lookup(&self, target: RingId) -> Option<Route> {
        let (found, route) = oneshot::channel();
        self.events.send(Event::Lookup { target, found }).await.ok()?;
        route.await.ok()
    }

    /// This node's virtual nodes with their neighbours and fingers.
    pub(crate) async fn describe(&self) -> Vec<VirtualNodeState> {
        let (reply, states) = oneshot::channel();
        if self.events.send(Event::Describe(reply)).await.is_err() {
            return Vec::new();
        }
        states.await.unwrap_or_default()
    }

    /// The state machine as it is now.
    pub(crate) async fn copy(&self) -> Option<RingNode> {
        let (reply, copy) = oneshot::channel();
        self.events.send(Event::Copy(reply)).await.ok()?;
        copy.await.ok()
    }
}

/// Makes the handle and the loop; the caller spawns the loop.
pub(crate) fn ring_task(
    node: RingNode,
    transport: RingSender,
    beliefs: Arc<RwLock<Detector>>,
    jitter: Jitter,
    stop: CancellationToken,
) -> (RingHandle, impl Future<Output = ()> + Send) {
    let (events, queue) = mpsc::channel(QUEUE);
    let (inputs, certain) = mpsc::unbounded_channel();
    let view = Arc::new(ArcSwap::from_pointee(node.view()));
    let (tell_joined, joined) = watch::channel(false);
    let handle = RingHandle { events, inputs, view: Arc::clone(&view), joined };
    let task = RingLoop {
        node,
        transport,
        beliefs,
        jitter,
        view,
        tell_joined,
        timers: Timers::default(),
        lookups: BTreeMap::new(),
        next_lookup: 0,
        outputs: Vec::new(),
    };
    (handle, task.run(certain, queue, stop))
}

struct RingLoop {
    node: RingNode,
    transport: RingSender,
    /// Knows how long answers take.
    beliefs: Arc<RwLock<Detector>>,
    jitter: Jitter,
    view: Arc<ArcSwap<RingView>>,
    tell_joined: watch::Sender<bool>,
    timers: Timers,
    lookups: BTreeMap<LookupId, oneshot::Sender<Route>>,
    next_lookup: u64,
    outputs: Vec<Output>,
}

impl RingLoop {
    async fn run(
        mut self,
        mut certain: mpsc::UnboundedReceiver<Input>,
        mut queue: mpsc::Receiver<Event>,
        stop: CancellationToken,
    ) {
        loop {
            let due = self.timers.next_due();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // Before the messages of others: these may come without end.
                () = sleep_until(due) => {
                    for timer in self.timers.take_due(Instant::now()) {
                        self.handle(Input::Timer(timer));
                    }
                }
                Some(input) = certain.recv() => self.handle(input),
                event = queue.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => return,
                },
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Input(input) => self.handle(input),
            Event::Describe(reply) => drop(reply.send(self.node.describe())),
            Event::Copy(reply) => drop(reply.send(self.node.clone())),
            Event::Lookup { target, found } => {
                self.lookups.retain(|_, waiting| !waiting.is_closed());
                if self.lookups.len() >= LOOKUPS {
                    return; // dropping `found` tells the asker
                }
                self.next_lookup += 1;
                let lookup = LookupId::new(self.next_lookup);
                self.lookups.insert(lookup, found);
                self.handle(Input::Lookup { lookup, target });
            }
        }
    }

    /// One input, and everything that follows from it.
    fn handle(&mut self, input: Input) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.node.handle(input, &mut outputs);
        let mut view_changed = false;
        for output in outputs.drain(..) {
            view_changed |= self.on_output(output);
        }
        self.outputs = outputs;
        if view_changed {
            self.view.store(Arc::new(self.node.view()));
        }
    }

    /// True when the view has changed.
    fn on_output(&mut self, output: Output) -> bool {
        match output {
            Output::Send { to, message } => self.transport.send(to, message),
            Output::SetTimer(timer, after) => {
                let after = self.jitter.spread(after);
                self.timers.set(timer, Instant::now() + after);
            }
            Output::Await { query, of, at_most } => {
                let after = self.patience(of).map_or(at_most, |patience| patience.min(at_most));
                self.timers.set(Timer::Query(query), Instant::now() + after);
            }
            Output::Found { lookup, route } => {
                if let Some(found) = self.lookups.remove(&lookup) {
                    let _ = found.send(route);
                }
            }
            Output::LookupFailed { lookup, path } => {
                self.lookups.remove(&lookup);
                warn!(?path, "lookup failed: nobody on the way answered");
            }
            Output::Joined => {
                self.tell_joined.send_replace(true);
                return true;
            }
            Output::ViewChanged => return true,
        }
        false
    }
}

impl RingLoop {
    /// Twice as long as for a ping: more work goes before the answer.
    fn patience(&self, of: NodeId) -> Option<Duration> {
        let beliefs = self.beliefs.read().unwrap_or_else(PoisonError::into_inner);
        Some(2 * beliefs.patience(of)?)
    }
}

/// Named timers: setting one again replaces it.
#[derive(Default)]
struct Timers {
    by_time: BTreeSet<(Instant, Timer)>,
    by_name: BTreeMap<Timer, Instant>,
}

impl Timers {
    fn set(&mut self, timer: Timer, at: Instant) {
        if let Some(earlier) = self.by_name.insert(timer, at) {
            self.by_time.remove(&(earlier, timer));
        }
        self.by_time.insert((at, timer));
    }

    fn next_due(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    fn take_due(&mut self, now: Instant) -> Vec<Timer> {
        let mut due = Vec::new();
        while let Some(&(at, timer)) = self.by_time.first() {
            if at > now {
                break;
            }
            self.by_time.pop_first();
            self.by_name.remove(&timer);
            due.push(timer);
        }
        due
    }
}

/// Sleeps until `due`, for ever when nothing is due.
async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
