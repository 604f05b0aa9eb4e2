//! Counting the nodes that have a write to an `any.` bucket: members, and holders in their stead.
//!
//! A sloppy quorum (`DeCandia` et al., *Dynamo*, SOSP 2007, §4.6) counts nodes, whoever they are. It
//! overlaps with no other quorum: what makes such a write last is that each holder brings it
//! to all members of the shard ([`hint`](crate::hint)). Members alone are enough only where
//! they would be in a strict bucket; as soon as a holder is needed, one holder's duty
//! covers every member that is missing.

use std::collections::BTreeSet;

use triad_ring::NodeId;

use crate::configuration::Configuration;
use crate::consistency::{Level, ReplicaResult, Verdict};
use crate::context::Context;
use crate::member::Member;
use crate::put::{PutAnswer, PutTally};

/// The count of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SloppyTally {
    level: Level,
    home: PutTally,
    held: BTreeSet<NodeId>,
    uncovered: Context,
}

impl SloppyTally {
    /// Starts at zero.
    pub fn new(level: Level, configuration: &Configuration) -> Self {
        let home = PutTally::new(level, configuration);
        Self { level, home, held: BTreeSet::new(), uncovered: Context::new() }
    }

    /// The members are others now: they are counted anew. Who holds the write goes on doing so.
    pub fn restart(&mut self, configuration: &Configuration) {
        self.home = PutTally::new(self.level, configuration);
    }

    /// A member's answer.
    pub fn record(&mut self, member: Member, answer: PutAnswer) {
        self.home.record(member, answer);
    }

    /// A node holds the write, durably.
    pub fn hold(&mut self, node: NodeId, uncovered: Option<&Context>) {
        self.held.insert(node);
        if let Some(uncovered) = uncovered {
            self.uncovered.join(uncovered);
        }
    }

    /// Whether the write may be acknowledged.
    pub fn is_enough(&self) -> bool {
        let nodes = !self.held.is_empty() && self.acknowledged() >= self.needed();
        nodes || !self.is_degraded()
    }

    /// Whether fewer members have it than a strict bucket would need.
    pub fn is_degraded(&self) -> bool {
        self.home.verdict() != Verdict::Enough
    }

    /// How many nodes must have it.
    pub fn needed(&self) -> usize {
        self.home.needed()
    }

    /// How many distinct nodes have it.
    pub fn acknowledged(&self) -> usize {
        let results = self.home.results();
        let member = |node: &NodeId| {
            results.iter().any(|(one, result)| one.node == *node && *result == ReplicaResult::Ok)
        };
        self.home.acknowledged() + self.held.iter().filter(|node| !member(node)).count()
    }

    /// How many of them are members.
    pub fn home_acknowledged(&self) -> usize {
        self.home.acknowledged()
    }

    /// The members, with what became of each.
    pub fn results(&self) -> Vec<(Member, ReplicaResult)> {
        self.home.results()
    }

    /// The members that do not have it yet.
    pub fn missing(&self) -> Vec<Member> {
        self.home.missing()
    }

    /// Whether any node holds it for the members.
    pub fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// What the counted nodes held that the write did not cover; `None` when nothing.
    pub fn uncovered(&self) -> Option<Context> {
        let home = self.home.uncovered().cloned().unwrap_or_default();
        let all = home.joined(&self.uncovered);
        (!all.is_empty()).then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consistency::Failure;
    use crate::consistency::twin::{joint, member, stable};

    const STORED: PutAnswer = PutAnswer::Stored { uncovered: None };

    fn node(n: u8) -> NodeId {
        member(n).node
    }

    #[test]
    fn nodes_count_whoever_they_are_and_each_once() {
        let mut tally = SloppyTally::new(Level::Quorum, &stable(&[1, 2, 3]));
        tally.hold(node(8), None);
        tally.hold(node(8), None);
        assert!(!tally.is_enough(), "one node of two");
        tally.hold(node(9), None);
        assert!(tally.is_enough() && tally.is_degraded());
        assert_eq!((tally.acknowledged(), tally.home_acknowledged()), (2, 0));
        tally.record(member(2), PutAnswer::Failed(Failure::Unreachable));
        tally.record(member(1), STORED);
        tally.record(member(3), STORED);
        assert!(!tally.is_degraded(), "the members alone are enough by now");
        assert_eq!((tally.acknowledged(), tally.home_acknowledged()), (4, 2));
        assert_eq!(tally.missing(), [member(2)]);
    }

    #[test]
    fn members_on_one_side_of_a_move_are_not_enough_without_a_holder() {
        let mut tally = SloppyTally::new(Level::Quorum, &joint(&[1, 2, 3], &[1, 4, 5]));
        (1..=3).for_each(|n| tally.record(member(n), STORED));
        assert_eq!((tally.needed(), tally.acknowledged()), (3, 3));
        assert!(!tally.is_enough(), "the new side lacks it, and nobody brings it there");
        tally.hold(node(9), None);
        assert!(tally.is_enough() && tally.is_degraded());
    }

    #[test]
    fn members_of_another_epoch_are_counted_anew_and_a_holder_among_them_once() {
        let mut tally = SloppyTally::new(Level::All, &stable(&[1, 2, 3]));
        tally.record(member(1), STORED);
        tally.hold(node(4), None);
        tally.restart(&stable(&[2, 3, 4]));
        assert_eq!(tally.acknowledged(), 1);
        tally.record(member(4), STORED);
        assert_eq!(tally.acknowledged(), 1, "one node, as holder and as member");
        tally.record(member(3), STORED);
        assert!(!tally.is_enough());
        tally.record(member(2), STORED);
        assert!(tally.is_enough() && !tally.is_degraded());
    }
}
