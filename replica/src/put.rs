//! Counting a write's acknowledgements.

use crate::configuration::Configuration;
use crate::consistency::{Failure, Level, Operation, ReplicaResult, Requirement, Results, Verdict};
use crate::context::Context;
use crate::member::Member;

/// A member's answer to a record sent for a Put or a Delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutAnswer {
    /// Merged and durable (fsynced) in the epoch of the request.
    Stored {
        /// What the member held that the record did not cover, asked before it merged
        /// ([`Record::uncovered_by`](crate::record::Record::uncovered_by)).
        uncovered: Option<Context>,
    },
    /// Not stored, as far as is known.
    Failed(Failure),
}

/// The count of **one attempt in one epoch**. A retry in another epoch, and the second attempt
/// of an overwriting write, start at zero with a new tally: acknowledgements of one
/// configuration or of another dot prove nothing for the next (design rule D3).
///
/// Only members of the configuration count, each once, whatever arrives how often.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PutTally {
    results: Results,
    uncovered: Context,
}

impl PutTally {
    /// Starts at zero; the coordinator's own store is counted like the others, by its answer.
    pub fn new(level: Level, configuration: &Configuration) -> Self {
        let requirement = Requirement::new(level, configuration, Operation::Write);
        Self { results: Results::new(requirement), uncovered: Context::new() }
    }

    /// Takes in one answer and says where the count stands. A failure can still be followed by
    /// a success of the same member (an answer after the timeout), but not the reverse.
    pub fn record(&mut self, member: Member, answer: PutAnswer) -> Verdict {
        match answer {
            PutAnswer::Failed(failure) => self.results.failed(member, failure),
            PutAnswer::Stored { uncovered } => {
                if self.results.ok(member)
                    && let Some(uncovered) = uncovered
                {
                    self.uncovered.join(&uncovered);
                }
            }
        }
        self.verdict()
    }

    /// Where the count stands.
    pub fn verdict(&self) -> Verdict {
        self.results.verdict()
    }

    /// What must be answered.
    pub fn requirement(&self) -> &Requirement {
        self.results.requirement()
    }

    /// What the counted members held that the attempt did not cover; `None` when nothing. An
    /// overwriting write must then be attempted again before it is acknowledged, once.
    pub fn uncovered(&self) -> Option<&Context> {
        (!self.uncovered.is_empty()).then_some(&self.uncovered)
    }

    /// Everybody asked, with what became of it: old members first, then newcomers.
    pub fn results(&self) -> Vec<(Member, ReplicaResult)> {
        self.results.in_order()
    }

    /// The number reported as needed, see [`Requirement::needed`].
    pub fn needed(&self) -> usize {
        self.requirement().needed()
    }

    /// How many distinct members stored the write. In a joint epoch this can reach
    /// [`needed`](Self::needed) while one side still lacks its count: only the verdict decides.
    pub fn acknowledged(&self) -> usize {
        self.results.acknowledged()
    }

    /// The members that have not stored the write (failed or pending), in the order of
    /// [`results`](Self::results): to be named in the error, and to be repaired or hinted.
    pub fn missing(&self) -> Vec<Member> {
        self.results.missing()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consistency::twin::{joint, member, stable};
    use crate::dot::Dot;
    use crate::member::ActorId;

    const STORED: PutAnswer = PutAnswer::Stored { uncovered: None };

    #[test]
    fn a_quorum_of_three_is_two_distinct_members() {
        let mut tally = PutTally::new(Level::Quorum, &stable(&[1, 2, 3]));
        assert_eq!(tally.record(member(1), STORED), Verdict::Pending);
        assert_eq!(tally.record(member(1), STORED), Verdict::Pending, "the same again");
        assert_eq!(tally.record(member(9), STORED), Verdict::Pending, "a stranger");
        assert_eq!(tally.record(member(3), STORED), Verdict::Enough);
        assert_eq!((tally.needed(), tally.acknowledged()), (2, 2));
        assert_eq!(tally.missing(), [member(2)]);
    }

    #[test]
    fn a_wiped_store_of_the_same_node_is_another_member() {
        let mut tally = PutTally::new(Level::One, &stable(&[1, 2, 3]));
        let wiped = Member { store: member(8).store, ..member(1) };
        assert_eq!(tally.record(wiped, STORED), Verdict::Pending);
    }

    #[test]
    fn it_is_impossible_as_soon_as_too_few_are_left() {
        let mut tally = PutTally::new(Level::Quorum, &stable(&[1, 2, 3]));
        let failed = |failure| PutAnswer::Failed(failure);
        assert_eq!(tally.record(member(1), failed(Failure::Unreachable)), Verdict::Pending);
        assert_eq!(tally.record(member(2), failed(Failure::Timeout)), Verdict::Impossible);
        let results = [
            (member(1), ReplicaResult::Failed(Failure::Unreachable)),
            (member(2), ReplicaResult::Failed(Failure::Timeout)),
            (member(3), ReplicaResult::Pending),
        ];
        assert_eq!(tally.results(), results);
        // An answer after its timeout still says that the member has stored the write.
        assert_eq!(tally.record(member(2), STORED), Verdict::Pending);
        assert_eq!(tally.record(member(2), failed(Failure::Unreachable)), Verdict::Pending);
        assert_eq!(tally.record(member(3), STORED), Verdict::Enough);
    }

    #[test]
    fn in_a_joint_epoch_both_sides_must_have_their_count() {
        let mut tally = PutTally::new(Level::Quorum, &joint(&[1, 2, 3], &[1, 4, 5]));
        assert_eq!(tally.needed(), 3, "1 counts on both sides");
        assert_eq!(tally.record(member(2), STORED), Verdict::Pending);
        assert_eq!(tally.record(member(3), STORED), Verdict::Pending);
        assert_eq!(tally.record(member(1), STORED), Verdict::Pending, "only one of the new");
        assert_eq!(tally.record(member(5), STORED), Verdict::Enough);
        assert_eq!(tally.missing(), [member(4)]);
    }

    #[test]
    fn what_counted_members_held_besides_is_collected() {
        let seen = |n| -> Context { [Dot::new(ActorId::new(n), 1)].into_iter().collect() };
        let stored = |n| PutAnswer::Stored { uncovered: Some(seen(n)) };
        let mut tally = PutTally::new(Level::Quorum, &stable(&[1, 2, 3]));
        assert_eq!(tally.uncovered(), None);
        tally.record(member(9), stored(9));
        assert_eq!(tally.uncovered(), None, "a stranger's answer counts for nothing");
        tally.record(member(1), stored(1));
        tally.record(member(2), stored(2));
        assert_eq!(tally.uncovered(), Some(&seen(1).joined(&seen(2))));
    }
}
