//! One lane to one node: a queue that empties into one long-lived stream, a message at a time.
//!
//! Whatever is queued when the stream can take a message goes into that message, so batches
//! grow by themselves under load and one request alone never waits. When the node cannot
//! be reached, requests fail at once with [`LinkError::NotSent`] (nothing happened there)
//! until a new dial succeeds; what was already on the wire fails with [`LinkError::Lost`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::debug;

use super::Direction;
use super::lanes::Route;

/// Requests that may wait for the stream.
const QUEUE: usize = 4_096;
/// Bytes that may wait for the stream; a single larger request waits alone.
const QUEUE_BYTES: usize = 64 << 20;
/// Requests in one message.
const BATCH_ITEMS: usize = 256;
/// Bytes in one message, unless a single request is larger.
const BATCH_BYTES: usize = 1 << 20;
/// Requests sent and not yet answered.
const IN_FLIGHT: usize = 16_384;
/// Longest pause between two dials.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    /// It never left this node: nothing happened at the other one.
    #[error("unreachable: {0}")]
    NotSent(String),
    /// It was sent and the connection broke: it may have taken effect.
    #[error("connection lost before the answer")]
    Lost,
    /// Too much is waiting already.
    #[error("too many requests are waiting for this node")]
    Full,
}

/// How one kind of stream packs its requests: data or control.
pub(crate) trait Lane: Send + Sync + 'static {
    type Request: Send + 'static;
    type Reply: Send + 'static;
    type Batch: Send + 'static;
    type ReplyBatch: Send + 'static;

    /// For logs.
    const NAME: &'static str;

    /// Where it goes.
    fn route(&self) -> &Route;
    /// Bytes a request takes on the wire, roughly.
    fn size(request: &Self::Request) -> usize;
    /// Whether an answer will come. For a message without one the caller is told nothing.
    fn expects_reply(request: &Self::Request) -> bool;
    /// Packs requests with their ids into one message.
    fn pack(&self, requests: Vec<(u64, Self::Request)>) -> Self::Batch;
    /// The replies of a message, with the ids of their requests. None: they count for nothing, and
    /// the stream is at its end.
    fn unpack(&self, batch: Self::ReplyBatch) -> Option<Vec<(u64, Self::Reply)>>;
    /// Dials and opens the stream.
    fn open(
        &self,
        outgoing: mpsc::Receiver<Self::Batch>,
    ) -> BoxFuture<'static, Result<Streaming<Self::ReplyBatch>, String>>;
}

struct Item<L: Lane> {
    request: L::Request,
    /// Its room among what waits, until it is sent or given up.
    _room: Room,
    reply: oneshot::Sender<Result<L::Reply, LinkError>>,
}

/// The sending end of one lane.
pub(crate) struct Link<L: Lane> {
    queue: mpsc::Sender<Item<L>>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl<L: Lane> Clone for Link<L> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), waiting_bytes: Arc::clone(&self.waiting_bytes) }
    }
}

/// So many bytes of what may wait.
struct Room {
    bytes: usize,
    waiting: Arc<AtomicUsize>,
}

impl Room {
    /// None when there is none left.
    fn take(waiting: &Arc<AtomicUsize>, bytes: usize) -> Option<Self> {
        let before = waiting.fetch_add(bytes, Ordering::Relaxed);
        let room = Self { bytes, waiting: Arc::clone(waiting) };
        (before == 0 || before.saturating_add(bytes) <= QUEUE_BYTES).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl<L: Lane> Link<L> {
    /// Makes the link and the task that serves it; the caller spawns the task.
    pub(crate) fn new(lane: L, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let worker = Worker { lane, waiting };
        let task = async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = worker.run() => {}
            }
        };
        (Self { queue, waiting_bytes: Arc::default() }, task)
    }

    /// Queues a request. The answer comes through the receiver; dropping the receiver
    /// does not take the request back.
    pub(crate) fn send(
        &self,
        request: L::Request,
    ) -> oneshot::Receiver<Result<L::Reply, LinkError>> {
        let (reply, answer) = oneshot::channel();
        let Some(room) = Room::take(&self.waiting_bytes, L::size(&request)) else {
            let _ = reply.send(Err(LinkError::Full));
            return answer;
        };
        if let Err(refused) = self.queue.try_send(Item { request, _room: room, reply }) {
            let (item, error) = match refused {
                mpsc::error::TrySendError::Full(item) => (item, LinkError::Full),
                mpsc::error::TrySendError::Closed(item) => {
                    (item, LinkError::NotSent("shutting down".to_owned()))
                }
            };
            let _ = item.reply.send(Err(error));
        }
        answer
    }
}

type Waiting<R> = oneshot::Sender<Result<R, LinkError>>;

/// Requests on the wire, by id.
struct Pending<R> {
    waiting: Mutex<BTreeMap<u64, Waiting<R>>>,
}

impl<R> Pending<R> {
    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<u64, Waiting<R>>) -> T) -> T {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// False when too many are on the wire; callers that have gone make room first.
    fn insert(&self, id: u64, reply: Waiting<R>) -> Result<(), Waiting<R>> {
        self.with(|waiting| {
            if waiting.len() >= IN_FLIGHT {
                waiting.retain(|_, reply| !reply.is_closed());
            }
            if waiting.len() >= IN_FLIGHT {
                return Err(reply);
            }
            waiting.insert(id, reply);
            Ok(())
        })
    }

    fn complete(&self, id: u64, answer: R) {
        if let Some(reply) = self.with(|waiting| waiting.remove(&id)) {
            let _ = reply.send(Ok(answer));
        }
    }

    fn lose_all(&self) {
        for (_, reply) in self.with(std::mem::take) {
            let _ = reply.send(Err(LinkError::Lost));
        }
    }
}

struct Worker<L: Lane> {
    lane: L,
    waiting: mpsc::Receiver<Item<L>>,
}

impl<L: Lane> Worker<L> {
    /// Serves the queue until every sender is gone.
    async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        while let Some(first) = self.waiting.recv().await {
            let (outgoing, batches) = mpsc::channel(1);
            match self.lane.open(batches).await {
                Ok(replies) => {
                    backoff = BACKOFF_MIN;
                    self.session(first, outgoing, replies).await;
                }
                Err(why) => {
                    debug!(lane = L::NAME, %why, "dial failed");
                    let error = LinkError::NotSent(why);
                    let _ = first.reply.send(Err(error.clone()));
                    self.refuse_for(backoff, &error).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Between two dials everything queued fails at once.
    async fn refuse_for(&mut self, pause: Duration, error: &LinkError) {
        let end = tokio::time::Instant::now() + pause;
        while let Ok(Some(item)) = tokio::time::timeout_at(end, self.waiting.recv()).await {
            let _ = item.reply.send(Err(error.clone()));
        }
    }

    /// One stream from its opening to its end.
    async fn session(
        &mut self,
        first: Item<L>,
        outgoing: mpsc::Sender<L::Batch>,
        replies: Streaming<L::ReplyBatch>,
    ) {
        let Route { to, faults, .. } = self.lane.route();
        let mut replies = faults.through(*to, Direction::Incoming, replies);
        let pending = Pending { waiting: Mutex::new(BTreeMap::new()) };
        let lane = &self.lane;
        let receive = async {
            while let Some(Ok(batch)) = replies.next().await {
                let Some(answers) = lane.unpack(batch) else {
                    return;
                };
                for (id, answer) in answers {
                    pending.complete(id, answer);
                }
            }
        };
        let send = send_batches(lane, &mut self.waiting, first, &outgoing, &pending);
        tokio::select! {
            biased;
            () = receive => {}
            () = send => {}
            () = faults.severed(*to) => {}
        }
        pending.lose_all();
    }
}

/// Moves everything queued into the stream, as few messages as possible.
async fn send_batches<L: Lane>(
    lane: &L,
    waiting: &mut mpsc::Receiver<Item<L>>,
    first: Item<L>,
    outgoing: &mpsc::Sender<L::Batch>,
    pending: &Pending<L::Reply>,
) {
    let mut next_id = 0_u64;
    let mut queued = vec![first];
    loop {
        let mut items = queued.drain(..).peekable();
        while items.peek().is_some() {
            let Ok(permit) = outgoing.reserve().await else {
                return;
            };
            let mut batch = Vec::new();
            let mut bytes = 0;
            while let Some(item) = items
                .next_if(|item| batch.is_empty() || bytes + L::size(&item.request) <= BATCH_BYTES)
            {
                bytes += L::size(&item.request);
                if !L::expects_reply(&item.request) {
                    batch.push((0, item.request));
                    continue;
                }
                next_id += 1;
                match pending.insert(next_id, item.reply) {
                    Ok(()) => batch.push((next_id, item.request)),
                    Err(reply) => drop(reply.send(Err(LinkError::Full))),
                }
            }
            permit.send(lane.pack(batch));
        }
        drop(items);
        if waiting.recv_many(&mut queued, BATCH_ITEMS).await == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_wait_are_bounded_and_a_large_request_waits_alone() {
        let waiting = Arc::new(AtomicUsize::new(0));
        let half = Room::take(&waiting, QUEUE_BYTES / 2).expect("it is empty");
        let rest = Room::take(&waiting, QUEUE_BYTES / 2).expect("it fits");
        assert!(Room::take(&waiting, 1).is_none());
        drop(half);
        assert!(Room::take(&waiting, 2 * QUEUE_BYTES).is_none());
        drop(rest);
        assert!(Room::take(&waiting, 2 * QUEUE_BYTES).is_some());
        assert_eq!(waiting.load(Ordering::Relaxed), 0);
    }
}
