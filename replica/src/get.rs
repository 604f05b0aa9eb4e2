//! Counting a read's answers, and merging them.

use std::collections::BTreeMap;

use triad_ring::mutant::{Mutant, left_out};

use crate::configuration::Configuration;
use crate::consistency::{Failure, Level, Operation, ReplicaResult, Requirement, Results, Verdict};
use crate::member::Member;
use crate::record::Record;

/// A member's answer to a Get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GetAnswer {
    /// Its record's digest is that of the record whose digest was sent.
    Same,
    /// Its record, which differs from what was sent.
    Record(Record),
    /// No answer that counts.
    Failed(Failure),
}

/// The count of one read in one epoch.
///
/// Only members of the set read count, each once: in a joint epoch the old side. The
/// coordinator counts by its own answer like the others, so if it is not in the set its
/// record contributes nothing (design rule D8).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GetTally {
    results: Results,
    /// The record whose digest the others compare with.
    sent: Record,
    /// Each counted member's record; `None` = the same as `sent`.
    held: BTreeMap<Member, Option<Record>>,
    merged: Record,
}

impl GetTally {
    /// Starts at zero. `sent` is the record whose digest goes to the other members: the
    /// coordinator's own, or the default (a key never written) if it has none to show. It
    /// counts once the coordinator records its own answer, [`GetAnswer::Same`].
    pub fn new(level: Level, configuration: &Configuration, sent: Record) -> Self {
        let requirement = Requirement::new(level, configuration, Operation::Read);
        Self {
            results: Results::new(requirement),
            sent,
            held: BTreeMap::new(),
            merged: Record::default(),
        }
    }

    /// Takes in one answer and says where the count stands. A member's first answer counts; a
    /// failure before it is forgotten, one after it ignored.
    pub fn record(&mut self, member: Member, answer: GetAnswer) -> Verdict {
        match answer {
            GetAnswer::Failed(failure) => self.results.failed(member, failure),
            GetAnswer::Same => {
                if self.results.ok(member) {
                    self.merged.merge(&self.sent);
                    self.held.insert(member, None);
                }
            }
            GetAnswer::Record(record) => {
                if self.results.ok(member) {
                    if !left_out(Mutant::ReadsShowOwnRecord) {
                        self.merged.merge(&record);
                    }
                    self.held.insert(member, Some(record));
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

    /// The merged record of the members counted so far: the answer once the verdict is
    /// [`Verdict::Enough`]. Its context is the client's.
    pub fn merged(&self) -> &Record {
        &self.merged
    }

    /// True when the members counted so far do not all hold the same.
    pub fn diverged(&self) -> bool {
        self.held.values().any(|held| self.is_behind(held.as_ref()))
    }

    /// The counted members whose record is behind the merged one, the coordinator included:
    /// sending them [`merged`](Self::merged) brings them level (read repair).
    pub fn repairs(&self) -> Vec<Member> {
        let held = self.held.iter();
        held.filter(|(_, held)| self.is_behind(held.as_ref())).map(|(member, _)| *member).collect()
    }

    /// Everybody asked, with what became of it, in ring order.
    pub fn results(&self) -> Vec<(Member, ReplicaResult)> {
        self.results.in_order()
    }

    /// The number reported as needed.
    pub fn needed(&self) -> usize {
        self.requirement().needed()
    }

    /// How many distinct members answered.
    pub fn acknowledged(&self) -> usize {
        self.results.acknowledged()
    }

    /// The members that have not answered (failed or pending), in ring order.
    pub fn missing(&self) -> Vec<Member> {
        self.results.missing()
    }

    /// The merged record holds all that any of them does, so different means behind.
    fn is_behind(&self, held: Option<&Record>) -> bool {
        !held.unwrap_or(&self.sent).same_content(&self.merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consistency::twin::{joint, member, stable};
    use crate::member::ActorId;
    use crate::record::{Basis, Change, Limits};
    use bytes::Bytes;

    fn put(mut record: Record, actor: u64, value: &'static str, basis: Basis) -> Record {
        let value = Bytes::from_static(value.as_bytes());
        let change = Change::Put { value, expires_at: None };
        record.update(ActorId::new(actor), change, basis, &Limits::default()).unwrap();
        record
    }

    fn values(record: &Record) -> Vec<&[u8]> {
        record.siblings().values().map(|sibling| &*sibling.value).collect()
    }

    #[test]
    fn equal_digests_are_enough_without_a_second_copy() {
        let own = put(Record::default(), 1, "v", Basis::Overwrite);
        let mut tally = GetTally::new(Level::Quorum, &stable(&[1, 2, 3]), own.clone());
        assert_eq!(tally.record(member(1), GetAnswer::Same), Verdict::Pending);
        assert_eq!(tally.record(member(2), GetAnswer::Same), Verdict::Enough);
        assert_eq!(tally.merged(), &own);
        assert!(!tally.diverged());
        assert!(tally.repairs().is_empty());
    }

    #[test]
    fn a_member_that_is_behind_is_found_even_if_it_is_the_coordinator() {
        let old = put(Record::default(), 1, "old", Basis::Overwrite);
        let new = put(old.clone(), 2, "new", Basis::Overwrite);
        let mut tally = GetTally::new(Level::All, &stable(&[1, 2, 3]), old);
        tally.record(member(1), GetAnswer::Same);
        tally.record(member(2), GetAnswer::Record(new));
        let absent = GetAnswer::Record(Record::default());
        assert_eq!(tally.record(member(3), absent), Verdict::Enough);
        assert_eq!(values(tally.merged()), [b"new"]);
        assert!(tally.diverged());
        assert_eq!(tally.repairs(), [member(1), member(3)]);
    }

    #[test]
    fn concurrent_values_come_back_together_and_both_sides_need_repair() {
        let left = put(Record::default(), 1, "left", Basis::Overwrite);
        let right = put(Record::default(), 2, "right", Basis::Overwrite);
        let mut tally = GetTally::new(Level::Quorum, &stable(&[1, 2, 3]), left);
        tally.record(member(1), GetAnswer::Same);
        tally.record(member(2), GetAnswer::Record(right));
        assert_eq!(values(tally.merged()), [&b"left"[..], b"right"]);
        assert_eq!(tally.repairs(), [member(1), member(2)]);
    }

    #[test]
    fn a_coordinator_outside_the_set_read_counts_for_nothing() {
        // 4 is a newcomer of a joint epoch and has taken a write that the old side lacks.
        let own = put(Record::default(), 4, "unfinished", Basis::Overwrite);
        let mut tally = GetTally::new(Level::Quorum, &joint(&[1, 2, 3], &[1, 2, 4]), own);
        assert_eq!(tally.record(member(4), GetAnswer::Same), Verdict::Pending);
        assert_eq!(tally.acknowledged(), 0);
        let absent = || GetAnswer::Record(Record::default());
        tally.record(member(1), absent());
        assert_eq!(tally.record(member(2), absent()), Verdict::Enough);
        assert!(tally.merged().is_absent());
        assert!(!tally.diverged());
    }

    #[test]
    fn a_damaged_row_is_no_answer() {
        let mut tally = GetTally::new(Level::All, &stable(&[1, 2]), Record::default());
        tally.record(member(1), GetAnswer::Same);
        let damaged = GetAnswer::Failed(Failure::Damaged);
        assert_eq!(tally.record(member(2), damaged), Verdict::Impossible);
        assert_eq!(tally.missing(), [member(2)]);
    }

    #[test]
    fn only_the_first_answer_of_a_member_counts() {
        let late = put(Record::default(), 1, "late", Basis::Overwrite);
        let mut tally = GetTally::new(Level::Quorum, &stable(&[1, 2, 3]), Record::default());
        tally.record(member(2), GetAnswer::Same);
        assert_eq!(tally.record(member(2), GetAnswer::Record(late)), Verdict::Pending);
        assert!(tally.merged().is_absent());
    }
}
