//! A network in which time, loss and cuts are what the seed says.
//!
//! Machines are joined by links, one for each direction. A connection is a pair of pipes, one for each direction,
//! each a queue of segments with the time at which they arrive. As with TCP, nothing that was sent is out of order or
//! missing: a lost segment arrives later, after a retransmission, and holds up those behind it; what meets a cut link
//! waits for its end. A machine without power swallows everything; when it is back it answers segments of
//! connections that it does not know with a reset.
//!
//! The world runs in short steps. What a machine sends within a step arrives in a later one, so the order in which
//! machines run within a step decides nothing.

mod pipe;
mod wire;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::StreamExt;

use crate::clock::MachineClock;
use crate::rng::Rng;
use crate::trace::Trace;
use pipe::{Content, Pipe, PipeId};
pub use wire::SimWire;

/// First pause before what was lost is sent again, doubled with each further loss.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// A segment is not lost more often than this in a row.
const LOSSES: u32 = 4;
/// A segment that is later than this has met something wrong.
const NOTICEABLE: Duration = Duration::from_millis(50);
/// Pause before a connection is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A machine: its place in the list of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(pub u8);

/// How one direction between two machines behaves.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// How long a segment is on its way at least.
    pub delay: Duration,
    /// So much longer at most.
    pub jitter: Duration,
    /// So many segments in a thousand are lost.
    pub loss: u32,
    /// Nothing gets through.
    pub cut: bool,
    /// So many bytes a second get through; 0: any number.
    pub rate: u64,
}

impl Default for Link {
    fn default() -> Self {
        let (delay, jitter) = (Duration::from_micros(500), Duration::from_micros(500));
        Self { delay, jitter, loss: 0, cut: false, rate: 0 }
    }
}

/// What faults of the network have really done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Segments delivered.
    pub delivered: u64,
    /// Segments that were lost and sent again.
    pub lost: u64,
    /// Pipes that a cut has stopped, and connections that it kept from being made.
    pub stopped: u64,
    /// Segments that took longer than 50 ms because of their link's delay.
    pub delayed: u64,
    /// Segments that waited for a slow link.
    pub throttled: u64,
    /// Connections that were reset.
    pub resets: u64,
}

/// The network between all machines. Clones are handles on the same.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

struct State {
    now: Duration,
    seed: u64,
    trace: Trace,
    names: BTreeMap<String, MachineId>,
    links: BTreeMap<(MachineId, MachineId), Link>,
    pipes: BTreeMap<PipeId, Pipe>,
    next_pipe: u64,
    arrivals: BinaryHeap<Reverse<(Duration, u64, PipeId)>>,
    arrival: u64,
    listening: BTreeMap<(MachineId, u16), Listening>,
    dark: BTreeSet<MachineId>,
    /// How often something on a link was held up by what is wrong with it.
    felt: BTreeMap<(MachineId, MachineId), u64>,
    counts: NetworkCounts,
}

#[derive(Default)]
struct Listening {
    queue: VecDeque<SimWire>,
    waker: Option<Waker>,
    /// Distinguishes a port from the same one of an earlier process.
    generation: u64,
}

impl Network {
    /// A network without machines.
    pub fn new(mut rng: Rng, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(State {
            now: Duration::ZERO,
            seed: rng.draw(),
            trace,
            names: BTreeMap::new(),
            links: BTreeMap::new(),
            pipes: BTreeMap::new(),
            next_pipe: 0,
            arrivals: BinaryHeap::new(),
            arrival: 0,
            listening: BTreeMap::new(),
            dark: BTreeSet::new(),
            felt: BTreeMap::new(),
            counts: NetworkCounts::default(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a machine under a name by which others dial it.
    pub fn add(&self, name: &str, machine: MachineId) {
        self.lock().names.insert(name.to_owned(), machine);
    }

    /// What faults have done so far.
    pub fn counts(&self) -> NetworkCounts {
        self.lock().counts
    }

    /// How often something on these links was held up by what is wrong with them.
    pub fn felt(&self, links: &[(MachineId, MachineId)]) -> u64 {
        let state = self.lock();
        links.iter().filter_map(|link| state.felt.get(link)).sum()
    }

    /// Whether nothing is wrong with any link.
    pub fn is_well(&self) -> bool {
        let state = self.lock();
        let spoilt = |link: &Link| {
            link.cut || link.loss > 0 || link.rate > 0 || link.delay > Link::default().delay
        };
        state.dark.is_empty() && !state.links.values().any(spoilt)
    }

    /// The time of the current step.
    pub fn now(&self) -> Duration {
        self.lock().now
    }

    /// Changes one direction; what waited for the end of a cut is sent again.
    pub fn change(&self, from: MachineId, to: MachineId, change: impl FnOnce(&mut Link)) {
        let mut state = self.lock();
        let link = state.links.entry((from, to)).or_default();
        change(link);
        if !link.cut {
            state.resume(|pipe| pipe.from == from && pipe.to == to);
        }
    }

    /// All links as if nothing had ever been wrong with them.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.links.clear();
        state.resume(|_| true);
    }

    /// The machine's power fails: it says nothing any more, not even goodbye.
    pub fn darken(&self, machine: MachineId) {
        self.lock().dark.insert(machine);
    }

    /// The power is back.
    pub fn lighten(&self, machine: MachineId) {
        let mut state = self.lock();
        if state.dark.remove(&machine) {
            state.resume(|pipe| pipe.to == machine);
        }
    }

    /// Delivers what arrives until `now`, the beginning of the next step.
    pub fn advance(&self, now: Duration) {
        let mut state = self.lock();
        state.now = now;
        while let Some(Reverse((due, _, id))) = state.arrivals.peek().copied() {
            if due > now {
                return;
            }
            state.arrivals.pop();
            state.arrive(id);
        }
    }

    /// Opens a port.
    pub(crate) fn listen(
        &self,
        machine: MachineId,
        port: u16,
    ) -> futures::stream::BoxStream<'static, io::Result<SimWire>> {
        let mut state = self.lock();
        let listening = state.listening.entry((machine, port)).or_default();
        listening.generation += 1;
        let open = OpenPort {
            network: self.clone(),
            at: (machine, port),
            generation: listening.generation,
        };
        drop(state);
        futures::stream::poll_fn(move |cx| {
            let mut state = open.network.lock();
            let Some(listening) = state.listening.get_mut(&open.at) else {
                return Poll::Ready(None);
            };
            if let Some(wire) = listening.queue.pop_front() {
                return Poll::Ready(Some(Ok(wire)));
            }
            listening.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .boxed()
    }

    /// Connects to `address` (`name:port`), as patiently as TCP does.
    pub(crate) async fn dial(
        self,
        from: MachineId,
        clock: MachineClock,
        address: String,
    ) -> io::Result<SimWire> {
        let (name, port) = address.rsplit_once(':').unwrap_or((&address, ""));
        let port: u16 = port.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let to = self.lock().names.get(name).copied();
        let to = to.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such name"))?;
        loop {
            let asked = self.lock().passage(from, to, clock.now());
            let Some(there) = asked else {
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            };
            tokio::time::sleep(there).await;
            let back = self.lock().passage(to, from, clock.now());
            let Some(back) = back else {
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            };
            let connected = self.connect(from, to, port, &clock);
            tokio::time::sleep(back).await;
            return connected.ok_or_else(|| io::ErrorKind::ConnectionRefused.into());
        }
    }

    fn connect(
        &self,
        from: MachineId,
        to: MachineId,
        port: u16,
        clock: &MachineClock,
    ) -> Option<SimWire> {
        let mut state = self.lock();
        state.listening.get(&(to, port))?;
        let there = PipeId(state.next_pipe);
        let back = PipeId(state.next_pipe + 1);
        state.next_pipe += 2;
        state.pipes.insert(there, Pipe::new(from, to, back));
        state.pipes.insert(back, Pipe::new(to, from, there));
        let now = state.now;
        state.trace.count(now, [1, u64::from(from.0), u64::from(to.0)]);
        let ours = SimWire::new(self.clone(), back, there, Some(clock.clone()));
        let theirs = SimWire::new(self.clone(), there, back, None);
        let listening = state.listening.get_mut(&(to, port))?;
        listening.queue.push_back(theirs);
        if let Some(waker) = listening.waker.take() {
            waker.wake();
        }
        Some(ours)
    }
}

/// Closes the port with the process that opened it.
struct OpenPort {
    network: Network,
    at: (MachineId, u16),
    generation: u64,
}

impl Drop for OpenPort {
    fn drop(&mut self) {
        let mut state = self.network.lock();
        let ours = |listening: &Listening| listening.generation == self.generation;
        let open = state.listening.get(&self.at).is_some_and(ours);
        let closed = if open { state.listening.remove(&self.at) } else { None };
        drop(state);
        // The wires in its queue lock the network, too.
        drop(closed);
    }
}

impl State {
    fn link(&self, from: MachineId, to: MachineId) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Whether nothing gets from one machine to the other now.
    fn is_cut(&self, from: MachineId, to: MachineId) -> bool {
        self.dark.contains(&to) || self.link(from, to).cut
    }

    /// Chance for one thing at one time. It is no sequence: the transport's libraries look at the real clock here and
    /// there (h2 forgets streams that it has reset after a second), so that a run may have a segment of no meaning
    /// more or less, and that must not change what others meet.
    fn chance(&self, of: u64, at: Duration) -> Rng {
        let mut rng = Rng::new(self.seed ^ of.rotate_left(48));
        Rng::new(rng.draw() ^ at.as_micros() as u64)
    }

    /// How long one segment is on its way now; none when it does not arrive.
    fn passage(&mut self, from: MachineId, to: MachineId, at: Duration) -> Option<Duration> {
        if self.is_cut(from, to) {
            self.counts.stopped += 1;
            self.feel(from, to);
            return None;
        }
        let link = self.link(from, to);
        let mut rng = self.chance(u64::from(from.0) << 8 | u64::from(to.0), at);
        if rng.chance(link.loss.into()) {
            self.counts.lost += 1;
            self.feel(from, to);
            return None;
        }
        Some(link.delay + rng.between(Duration::ZERO, link.jitter))
    }

    /// Queues a segment that is sent at `at`.
    fn send(&mut self, id: PipeId, at: Duration, content: Content) {
        let Some(pipe) = self.pipes.get(&id) else { return };
        let link = self.link(pipe.from, pipe.to);
        let mut rng = self.chance(1 << 16 | id.0, at);
        let mut delay = link.delay + rng.between(Duration::ZERO, link.jitter);
        let mut held_up = delay > NOTICEABLE;
        self.counts.delayed += u64::from(held_up);
        for loss in 0..LOSSES {
            if !rng.chance(link.loss.into()) {
                break;
            }
            self.counts.lost += 1;
            held_up = true;
            delay += RETRANSMIT * 2_u32.pow(loss);
        }
        let length = content.length();
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        let mut due = (at + delay).max(pipe.last_due);
        if let Some(micros) = (length as u64 * 1_000_000).checked_div(link.rate) {
            self.counts.throttled += 1;
            due += Duration::from_micros(micros);
            held_up |= due > at + NOTICEABLE;
        }
        pipe.last_due = due;
        pipe.push(due, content);
        let (from, to) = (pipe.from, pipe.to);
        self.expect(due, id);
        if held_up {
            self.feel(from, to);
        }
    }

    fn feel(&mut self, from: MachineId, to: MachineId) {
        *self.felt.entry((from, to)).or_default() += 1;
    }

    fn expect(&mut self, due: Duration, id: PipeId) {
        self.arrival += 1;
        self.arrivals.push(Reverse((due, self.arrival, id)));
    }

    /// Everything of a pipe that is due arrives, unless nothing gets through.
    fn arrive(&mut self, id: PipeId) {
        loop {
            let Some(pipe) = self.pipes.get(&id) else { return };
            let (from, to, now) = (pipe.from, pipe.to, self.now);
            if pipe.stalled || pipe.next_due().is_none_or(|due| due > now) {
                return;
            }
            if self.is_cut(from, to) {
                self.counts.stopped += 1;
                self.feel(from, to);
                self.pipes.get_mut(&id).expect("it was there").stalled = true;
                return;
            }
            self.counts.delivered += 1;
            self.deliver(id);
        }
    }

    fn deliver(&mut self, id: PipeId) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        let Some(content) = pipe.pop() else { return };
        let other = pipe.other;
        match content {
            Content::Data(bytes) if !pipe.reader_gone => pipe.receive(bytes),
            // Nobody here knows the connection.
            Content::Data(_) => {
                let now = self.now;
                self.send(other, now, Content::Reset);
            }
            Content::End => pipe.end(),
            Content::Reset => {
                pipe.reset();
                self.counts.resets += 1;
                if let Some(other) = self.pipes.get_mut(&other) {
                    other.reset();
                }
            }
        }
        self.forget_if_over(id);
    }

    /// A side of a connection is gone with its process.
    fn leave(&mut self, reads: PipeId, writes: PipeId) {
        let Some(pipe) = self.pipes.get_mut(&reads) else { return };
        let here = pipe.to;
        pipe.reader_gone = true;
        pipe.drop_unread();
        if let Some(pipe) = self.pipes.get_mut(&writes) {
            pipe.writer_gone = true;
        }
        if !self.dark.contains(&here) {
            let now = self.now;
            self.send(writes, now, Content::End);
        }
        self.forget_if_over(reads);
    }

    fn forget_if_over(&mut self, id: PipeId) {
        let Some(other) = self.pipes.get(&id).map(|pipe| pipe.other) else { return };
        let over = |id| self.pipes.get(&id).is_none_or(Pipe::is_over);
        if over(id) && over(other) {
            self.pipes.remove(&id);
            self.pipes.remove(&other);
        }
    }

    /// What was stopped on these pipes is sent again.
    fn resume(&mut self, which: impl Fn(&Pipe) -> bool) {
        let stalled: Vec<PipeId> = self
            .pipes
            .iter()
            .filter(|(_, pipe)| pipe.stalled && which(pipe) && !self.is_cut(pipe.from, pipe.to))
            .map(|(id, _)| *id)
            .collect();
        for id in stalled {
            let mut rng = self.chance(1 << 17 | id.0, self.now);
            let again = self.now + rng.between(Duration::ZERO, RETRANSMIT);
            if let Some(due) = self.pipes.get_mut(&id).and_then(|pipe| pipe.resume(again)) {
                self.expect(due, id);
            }
        }
    }
}
