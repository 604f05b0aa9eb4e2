//! The ring as it should be: what stabilization arrives at when nothing changes any more. The
//! measure of the invariants, and a start for examples and the overlay laboratory.

use std::collections::BTreeSet;

use crate::id::{NodeId, RING_BITS, RingId, VirtualNode};
use crate::lookup::Step;
use crate::message::{Input, Output};
use crate::node::RingNode;
use crate::successors::SuccessorList;

/// All virtual nodes of a ring, sorted: the naive picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdealRing {
    members: Vec<VirtualNode>,
}

impl IdealRing {
    /// The ring of exactly these virtual nodes.
    pub fn new(members: impl IntoIterator<Item = VirtualNode>) -> Self {
        let members: BTreeSet<_> = members.into_iter().collect();
        Self { members: members.into_iter().collect() }
    }

    /// All virtual nodes, in order of position.
    pub fn members(&self) -> &[VirtualNode] {
        &self.members
    }

    /// The first at or after a position; None in an empty ring.
    pub fn owner(&self, id: RingId) -> Option<VirtualNode> {
        let first = self.members.partition_point(|member| member.id < id);
        self.members.get(first).or(self.members.first()).copied()
    }

    /// The last before a position that is not at it; None when there is no other.
    pub fn predecessor(&self, id: RingId) -> Option<VirtualNode> {
        let before = self.members.partition_point(|member| member.id < id);
        let found =
            before.checked_sub(1).map_or(self.members.last(), |index| self.members.get(index));
        found.copied().filter(|member| member.id != id)
    }

    /// The next up to `limit` after a position, without a member at it.
    pub fn successors(&self, id: RingId, limit: usize) -> SuccessorList {
        let after = self.members.partition_point(|member| member.id <= id);
        let clockwise = self.members[after..].iter().chain(&self.members[..after]);
        SuccessorList::build(id, clockwise.copied(), limit)
    }
}

impl RingNode {
    /// Makes this node a member of the ring of `nodes` (itself among them) that has nothing left
    /// to mend, fingers included, and appends what membership asks for (its timers).
    pub fn settle(&mut self, nodes: &BTreeSet<NodeId>, out: &mut Vec<Output>) {
        let count = self.config.virtual_nodes;
        let positions =
            nodes.iter().flat_map(|node| (0..count).map(|index| self.position_of(*node, index)));
        let ideal = IdealRing::new(positions);
        self.handle(Input::Create, out);
        for own in &mut self.own {
            own.successors = ideal.successors(own.this.id, self.config.successor_entries);
            own.predecessor = ideal.predecessor(own.this.id);
        }
        for slot in 0..self.own.len() {
            for power in 0..RING_BITS {
                let target = self.own[slot].this.id.plus_power(power);
                if !matches!(self.step(target), Step::Owner(..))
                    && let Some(owner) = ideal.owner(target)
                {
                    self.own[slot].fingers.insert(power, owner);
                }
            }
        }
    }
}
