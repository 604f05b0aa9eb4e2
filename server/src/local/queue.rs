//! The queue between everybody and the committer, and who is turned away from it.
//!
//! What comes is judged by how long it would wait, not by how many wait: refused at once, a client
//! can go elsewhere or come back later; after its deadline the answer is worth nothing, and the work
//! for it has kept others waiting. Background work is refused first, then new writes. What other
//! stores already have is taken as long as there is room at all.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use triad_replica::commit_queue::{CommitLimits, CommitQueue};
use triad_replica::store::StoreError;

use super::operation::{Operation, WriteError};
use super::wanted::{Urgency, Wanted};
use crate::platform::Work;

/// Room that only decisions and milestones may use: a flood of writes must not keep a shard
/// from leaving the epoch in which it cannot serve them.
const RESERVE: CommitLimits =
    CommitLimits { group_ops: 0, group_bytes: 0, queue_ops: 4_096, queue_bytes: 4 << 20 };
/// Background work may add to a wait of this part of what new writes may wait.
const BACKGROUND_PART: u32 = 4;

/// The queue between everybody and the committer.
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Wake,
    /// The longest that a new write may have to wait.
    longest: Duration,
}

/// What rouses a committer that waits for work.
pub(super) enum Wake {
    Thread(Condvar),
    Task(Notify),
}

impl Wake {
    pub(super) fn of(work: &Work) -> Self {
        match work {
            Work::Threads => Self::Thread(Condvar::new()),
            Work::Tasks(_) => Self::Task(Notify::new()),
        }
    }

    fn up(&self) {
        match self {
            Self::Thread(wake) => wake.notify_one(),
            Self::Task(wake) => wake.notify_one(),
        }
    }
}

struct State {
    waiting: CommitQueue<Operation>,
    closed: bool,
    /// When the last group was taken.
    taken: Instant,
}

impl Queue {
    /// An empty queue in which a new write may expect to wait for so long.
    pub(super) fn new(longest: Duration, wake: Wake) -> Self {
        let data = CommitLimits::default();
        let limits = CommitLimits {
            queue_ops: data.queue_ops + RESERVE.queue_ops,
            queue_bytes: data.queue_bytes + RESERVE.queue_bytes,
            ..data
        };
        let waiting = CommitQueue::new(limits);
        let state = State { waiting, closed: false, taken: Instant::now() };
        Self { state: Mutex::new(state), wake, longest }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an operation; one without room, or that would wait too long, is answered
    /// "overloaded" at once.
    pub(super) fn push(&self, operation: Operation) {
        let bytes = operation.bytes();
        let mut state = self.lock();
        if state.closed {
            drop(state);
            let why = "the node is shutting down".to_owned();
            return operation.fail(&WriteError::Store(StoreError::Poisoned { why }));
        }
        if !operation.is_control() && self.refuses(&state, &operation.wanted(), bytes) {
            drop(state);
            return operation.overloaded();
        }
        let refused = state.waiting.push(operation, bytes).err();
        drop(state);
        match refused {
            Some(full) => full.op.overloaded(),
            None => self.wake.up(),
        }
    }

    /// Whether something that is no decision has to stay out.
    fn refuses(&self, state: &State, wanted: &Wanted, bytes: usize) -> bool {
        let (data, waiting) = (CommitLimits::default(), &state.waiting);
        let crowded = waiting.len() >= data.queue_ops
            || (waiting.bytes() + bytes > data.queue_bytes && !waiting.is_empty());
        let wait = waiting.expected_wait(bytes);
        let would_be_late = || wanted.is_over(Instant::now() + wait);
        crowded
            || match wanted.urgency {
                Urgency::New => wait > self.longest || would_be_late(),
                Urgency::Begun => wait > self.longest && would_be_late(),
                Urgency::Background => wait > self.longest / BACKGROUND_PART,
            }
    }

    /// How long a write that came now would wait.
    pub(super) fn expected_wait(&self) -> Duration {
        self.lock().waiting.expected_wait(0)
    }

    /// Lets nothing more in.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.up();
    }

    /// The next group; none once the queue is closed and drained. Waits for one if there is
    /// nothing else to do, and otherwise may return an empty one, as it does when nobody waits any
    /// more for what was in it.
    pub(super) fn next_group(&self, wait: bool) -> Option<Vec<Operation>> {
        let mut state = self.lock();
        loop {
            // Before it is taken: it would count as waited for.
            let behind = state.waiting.expected_wait(0) > self.longest;
            let group = state.waiting.take_group();
            if !group.is_empty() {
                state.taken = Instant::now();
                drop(state);
                return Some(without_the_forgotten(group, behind));
            }
            if state.closed {
                return None;
            }
            if !wait {
                return Some(group);
            }
            let Wake::Thread(wake) = &self.wake else { return Some(group) };
            state = wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until there is something to take, or nothing more will come. For a committer that is a task.
    pub(super) async fn filled(&self) {
        let Wake::Task(wake) = &self.wake else { return };
        while self.is_idle() {
            wake.notified().await;
        }
    }

    /// Nothing waits, but something may come.
    fn is_idle(&self) -> bool {
        let state = self.lock();
        !state.closed && state.waiting.is_empty()
    }

    /// Lets nothing more in, and answers all that waits with the failure.
    pub(super) fn fail_all(&self, failure: &StoreError) {
        self.close();
        self.synced();
        while let Some(group) = self.next_group(true) {
            group.into_iter().for_each(|op| op.fail(&WriteError::Store(failure.clone())));
            self.synced();
        }
    }

    /// The group that was taken is answered.
    pub(super) fn synced(&self) {
        let mut state = self.lock();
        let took = state.taken.elapsed();
        state.waiting.synced(took);
    }
}

/// What of a group is still to be done; the rest is answered, untouched. New writes go when nobody
/// waits for them any more; parts of begun ones only while the store is `behind`.
fn without_the_forgotten(group: Vec<Operation>, behind: bool) -> Vec<Operation> {
    let now = Instant::now();
    let (forgotten, wanted): (Vec<_>, Vec<_>) = group.into_iter().partition(|operation| {
        let wanted = operation.wanted();
        (behind || wanted.urgency == Urgency::New) && wanted.is_over(now)
    });
    forgotten.into_iter().for_each(Operation::overloaded);
    wanted
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::oneshot;
    use triad_replica::address::Address;
    use triad_replica::configuration::Epoch;
    use triad_replica::record::{Basis, Change, Record};
    use triad_replica::refusal::Refusal;
    use triad_replica::store::Batch;
    use triad_ring::ShardId;

    use super::*;
    use crate::deadline::Deadline;
    use crate::local::Caller;
    use crate::local::hints::HintOperation;

    const LONGEST: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_mins(1);

    fn at() -> Address {
        Address { shard: ShardId::new(0), bucket: "b".to_owned(), key: Bytes::from_static(b"k") }
    }

    /// True once it was answered "overloaded".
    type Answer = Box<dyn FnMut() -> bool>;

    fn answer<T: 'static>(mut answer: oneshot::Receiver<Result<T, WriteError>>) -> Answer {
        Box::new(move || {
            matches!(answer.try_recv(), Ok(Err(WriteError::Refused(Refusal::Overloaded))))
        })
    }

    fn new_write(wanted: Wanted) -> (Operation, Answer) {
        let (minted, told) = oneshot::channel();
        let (epoch, change, basis) = (Epoch::FIRST, Change::Delete, Basis::Overwrite);
        let write =
            Operation::Update { at: at(), epoch, change, basis, request: None, wanted, minted };
        (write, answer(told))
    }

    fn merge(wanted: Wanted) -> (Operation, Answer) {
        let (merged, told) = oneshot::channel();
        let (epoch, record) = (Epoch::FIRST, Record::default());
        let merge = Operation::Merge { at: at(), epoch, stamp: epoch, record, wanted, merged };
        (merge, answer(told))
    }

    fn note() -> (Operation, Answer) {
        let (done, told) = oneshot::channel();
        let rows = HintOperation::Rows { batch: Batch::new(), done };
        (Operation::Hint(rows), answer(told))
    }

    fn refused(queue: &Queue, (operation, mut answer): (Operation, Answer)) -> bool {
        queue.push(operation);
        answer()
    }

    /// A queue whose groups have taken so long each, with so many operations before a newcomer.
    fn behind(group: Duration, operations: usize) -> Queue {
        let queue = Queue::new(LONGEST, Wake::of(&Work::Threads));
        queue.push(merge(Wanted::always()).0);
        assert_eq!(queue.next_group(false).map(|group| group.len()), Some(1));
        queue.lock().waiting.synced(group);
        for _ in 0..operations {
            let pushed = queue.lock().waiting.push(merge(Wanted::always()).0, 1);
            assert!(pushed.is_ok(), "room");
        }
        queue
    }

    #[tokio::test]
    async fn background_work_is_refused_first_then_new_writes_and_never_what_others_have() {
        let (group, patient) = (CommitLimits::default().group_ops, Deadline::after(LONG));
        let caller = Caller::default();
        for (wait, background, new) in [(20, false, false), (60, true, false), (200, true, true)] {
            let queue = behind(Duration::from_millis(wait), group);
            assert_eq!(refused(&queue, note()), background, "{wait} ms");
            assert_eq!(refused(&queue, merge(Wanted::in_background())), background, "{wait} ms");
            assert_eq!(refused(&queue, new_write(caller.wants(patient))), new, "{wait} ms");
            assert!(!refused(&queue, merge(Wanted::begun(patient))), "{wait} ms");
        }
        assert!(!refused(&behind(LONG, 0), note()), "an empty queue takes everything");
    }

    #[tokio::test]
    async fn who_would_be_answered_too_late_is_refused_at_once() {
        let caller = Caller::default();
        let queue = behind(LONGEST / 2, CommitLimits::default().group_ops);
        assert!(refused(&queue, new_write(caller.wants(Deadline::after(LONGEST / 10)))));
        // Its other half is stored elsewhere: it is taken until the store is really behind.
        assert!(!refused(&queue, merge(Wanted::begun(Deadline::after(LONGEST / 10)))));
        let queue = behind(2 * LONGEST, CommitLimits::default().group_ops);
        assert!(refused(&queue, merge(Wanted::begun(Deadline::after(LONGEST / 10)))));
    }

    #[tokio::test]
    async fn a_write_whose_caller_has_gone_is_dropped_untouched() {
        let (queue, deadline) =
            (Queue::new(LONGEST, Wake::of(&Work::Threads)), Deadline::after(LONG));
        let (stays, goes) = (Caller::default(), Caller::default());
        let (first, mut first_told) = new_write(goes.wants(deadline));
        let (second, mut second_told) = new_write(stays.wants(deadline));
        queue.push(first);
        queue.push(second);
        drop(goes);
        assert_eq!(queue.next_group(false).map(|group| group.len()), Some(1));
        assert!(first_told() && !second_told());
    }
}
