//! Group commit without threads: who waits, who goes together, who must come back later.
//!
//! One committer per store takes what waits, applies it as one batch, syncs once and answers
//! all. There is no timer: while a sync runs, the next group gathers. A group is bounded, because
//! sled takes a process-wide lock while it applies a batch, and long batches stall
//! every reader (512 operations: 9 ms at the 99.9th percentile; 128: about 1 ms).
//!
//! The queue only counts and orders, so that a simulator can drive it:
//! [`push`](CommitQueue::push), [`take_group`](CommitQueue::take_group), then
//! [`synced`](CommitQueue::synced). It learns from the time that groups took how long an
//! operation that is pushed now would [wait](CommitQueue::expected_wait), so that its owner can
//! refuse what would wait too long: a length alone says little, for a full queue is minutes of
//! work on one disk and milliseconds on another.

mod pace;

use std::collections::VecDeque;
use std::time::Duration;

use pace::Pace;

/// Bounds of a commit queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitLimits {
    /// Operations in one group at most.
    pub group_ops: usize,
    /// Bytes in one group at most; a single larger operation goes alone.
    pub group_bytes: usize,
    /// Operations waiting or being committed at most.
    pub queue_ops: usize,
    /// Bytes waiting or being committed at most; a single larger operation is let in
    /// when nothing else is there.
    pub queue_bytes: usize,
}

impl Default for CommitLimits {
    fn default() -> Self {
        Self { group_ops: 128, group_bytes: 1 << 20, queue_ops: 4_096, queue_bytes: 64 << 20 }
    }
}

/// Operations on their way into the store, first in, first out.
#[derive(Debug)]
pub struct CommitQueue<T> {
    limits: CommitLimits,
    waiting: VecDeque<(T, usize)>,
    waiting_bytes: usize,
    /// Operations and bytes of the group that was taken and is not yet synced.
    taken: Option<(usize, usize)>,
    pace: Pace,
}

/// The queue has no room: shed the operation, which comes back unchanged.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the commit queue is full: {ops} operations, {bytes} bytes")]
pub struct Full<T> {
    /// The operation that was not taken.
    pub op: T,
    /// Operations in the queue.
    pub ops: usize,
    /// Bytes in the queue.
    pub bytes: usize,
}

impl<T> CommitQueue<T> {
    /// An empty queue.
    pub fn new(limits: CommitLimits) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            taken: None,
            pace: Pace::default(),
        }
    }

    /// Lets an operation of about `bytes` bytes wait for its commit.
    pub fn push(&mut self, op: T, bytes: usize) -> Result<(), Full<T>> {
        let (ops, queued) = (self.len(), self.bytes());
        let too_large = ops > 0 && queued.saturating_add(bytes) > self.limits.queue_bytes;
        if ops >= self.limits.queue_ops || too_large {
            return Err(Full { op, ops, bytes: queued });
        }
        self.waiting_bytes += bytes;
        self.waiting.push_back((op, bytes));
        Ok(())
    }

    /// Takes the next group, in the order of arrival. Empty when nothing waits, and while
    /// an earlier group is not [`synced`](Self::synced): there is one committer.
    pub fn take_group(&mut self) -> Vec<T> {
        if self.taken.is_some() || self.waiting.is_empty() {
            return Vec::new();
        }
        let (ops, bytes) = self.next_group();
        self.taken = Some((ops, bytes));
        self.waiting_bytes -= bytes;
        self.waiting.drain(..ops).map(|(op, _)| op).collect()
    }

    /// The taken group has been answered, well or badly, `took` after it was taken: its room is
    /// free. Answers how many operations it had.
    pub fn synced(&mut self, took: Duration) -> usize {
        let Some((ops, _)) = self.taken.take() else { return 0 };
        self.pace.group_took(took);
        ops
    }

    /// How long an operation of about `bytes` bytes, pushed now, would wait before its group is
    /// taken: for the group at work, and for those before its own. Nothing in an empty queue,
    /// however slow the last groups were, so that somebody finds out how fast it is now.
    pub fn expected_wait(&self, bytes: usize) -> Duration {
        let by_ops = self.waiting.len() / self.limits.group_ops.max(1);
        let by_bytes = self.waiting_bytes.saturating_add(bytes) / self.limits.group_bytes.max(1);
        let waiting = if self.waiting.is_empty() { 0 } else { by_ops.max(by_bytes) };
        self.pace.of_groups(waiting + usize::from(self.taken.is_some()))
    }

    /// Operations waiting or being committed.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.taken.map_or(0, |(ops, _)| ops)
    }

    /// True when nothing waits and nothing is being committed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes waiting or being committed.
    pub fn bytes(&self) -> usize {
        self.waiting_bytes + self.taken.map_or(0, |(_, bytes)| bytes)
    }

    /// True when [`take_group`](Self::take_group) would answer something.
    pub fn has_group(&self) -> bool {
        self.taken.is_none() && !self.waiting.is_empty()
    }

    /// Size of the next group: the longest head of the line within the limits, at least one.
    fn next_group(&self) -> (usize, usize) {
        let (mut ops, mut bytes) = (0, 0);
        for (_, size) in self.waiting.iter().take(self.limits.group_ops.max(1)) {
            if ops > 0 && bytes + size > self.limits.group_bytes {
                break;
            }
            ops += 1;
            bytes += size;
        }
        (ops, bytes)
    }
}

impl<T> Default for CommitQueue<T> {
    fn default() -> Self {
        Self::new(CommitLimits::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOOK: Duration = Duration::from_millis(10);
    const SMALL: CommitLimits =
        CommitLimits { group_ops: 3, group_bytes: 100, queue_ops: 5, queue_bytes: 250 };

    #[test]
    fn what_waits_while_a_sync_runs_is_the_next_group() {
        let mut queue = CommitQueue::default();
        queue.push("first", 10).unwrap();
        assert_eq!(queue.take_group(), ["first"]);
        queue.push("second", 10).unwrap();
        queue.push("third", 10).unwrap();
        assert!(queue.take_group().is_empty(), "one group at a time");
        assert_eq!(queue.synced(TOOK), 1);
        assert_eq!(queue.take_group(), ["second", "third"]);
    }

    #[test]
    fn a_large_operation_goes_alone() {
        let mut queue = CommitQueue::new(SMALL);
        for (op, bytes) in [("a", 60), ("large", 150), ("b", 30)] {
            queue.push(op, bytes).unwrap();
        }
        let mut groups = Vec::new();
        while queue.has_group() {
            groups.push(queue.take_group());
            queue.synced(TOOK);
        }
        assert_eq!(groups, [vec!["a"], vec!["large"], vec!["b"]]);
    }

    #[test]
    fn room_is_free_only_when_the_group_is_synced() {
        let mut queue = CommitQueue::new(SMALL);
        (0..5).for_each(|op| queue.push(op, 1).unwrap());
        assert_eq!(queue.push(5, 1), Err(Full { op: 5, ops: 5, bytes: 5 }));
        assert_eq!(queue.take_group(), [0, 1, 2]);
        assert!(queue.push(5, 1).is_err(), "taken operations still hold their room");
        queue.synced(TOOK);
        assert!(queue.push(5, 1).is_ok());
    }

    #[test]
    fn who_comes_now_waits_for_the_groups_before_its_own() {
        let mut queue = CommitQueue::new(SMALL);
        assert_eq!(queue.expected_wait(1), Duration::ZERO);
        queue.push(0, 1).unwrap();
        assert_eq!(queue.expected_wait(1), Duration::ZERO, "nothing is known of its speed yet");
        queue.take_group();
        queue.synced(TOOK);
        assert_eq!(queue.expected_wait(1), Duration::ZERO, "an empty queue lets everybody in");
        (0..3).for_each(|op| queue.push(op, 1).unwrap());
        assert_eq!(queue.expected_wait(1), TOOK, "a full group goes first");
        queue.take_group();
        assert_eq!(queue.expected_wait(1), TOOK, "it is at work");
        queue.push(3, 1).unwrap();
        assert_eq!(queue.expected_wait(1), TOOK, "the two would go together");
        assert_eq!(queue.expected_wait(99), 2 * TOOK, "a group has room for so many bytes only");
        queue.push(4, 1).unwrap();
        queue.synced(3 * TOOK);
        queue.take_group();
        assert!(queue.expected_wait(1) > TOOK, "it has become slower");
    }

    #[test]
    fn an_operation_larger_than_the_queue_waits_for_an_empty_one() {
        let mut queue = CommitQueue::new(SMALL);
        queue.push("small", 1).unwrap();
        assert!(queue.push("huge", 1_000).is_err());
        queue.take_group();
        queue.synced(TOOK);
        assert!(queue.push("huge", 1_000).is_ok());
        assert!(queue.push("small", 1).is_err());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_reordered_or_over_the_limits(steps in proptest::collection::vec((0u8..4, 0usize..160), 1..200)) {
            let mut queue = CommitQueue::new(SMALL);
            let (mut pushed, mut taken, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
            for (step, bytes) in steps {
                match step {
                    0 | 1 => {
                        let op = pushed.len();
                        if queue.push(op, bytes).is_ok() {
                            pushed.push(op);
                            sizes.push(bytes);
                        }
                    }
                    2 => {
                        let group = queue.take_group();
                        let total: usize = group.iter().map(|op| sizes[*op]).sum();
                        prop_assert!(group.len() <= SMALL.group_ops);
                        prop_assert!(total <= SMALL.group_bytes || group.len() == 1);
                        taken.extend(group);
                    }
                    _ => { queue.synced(TOOK); }
                }
                prop_assert!(queue.len() <= SMALL.queue_ops);
                prop_assert!(queue.bytes() <= SMALL.queue_bytes || queue.len() == 1);
            }
            loop {
                queue.synced(TOOK);
                let group = queue.take_group();
                if group.is_empty() { break }
                taken.extend(group);
            }
            prop_assert_eq!(taken, pushed);
            prop_assert!(queue.is_empty() && queue.bytes() == 0);
        }
    }
}
