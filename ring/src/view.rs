//! The ring as one node knows it: an immutable snapshot, and preference lists from it.

use std::collections::BTreeSet;

use crate::id::{ClusterSalt, NodeId, RingId, RingRange, VirtualNode};
use crate::mutant::{Mutant, left_out};

/// The first distinct nodes clockwise from a position: those the ring would choose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PreferenceList(pub Vec<NodeId>);

impl PreferenceList {
    /// The nodes, nearest first.
    pub fn nodes(&self) -> &[NodeId] {
        &self.0
    }
}

/// All virtual nodes that a node knows, and which stretches of the circle it knows completely.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RingView {
    /// Sorted by position.
    members: Vec<VirtualNode>,
    /// Where `members` leaves nobody out: disjoint closed intervals of plain numbers, ascending,
    /// never touching each other. A stretch over the zero position is two of them.
    complete: Vec<(u128, u128)>,
}

impl RingView {
    /// A view of `members` that is complete on `stretches`.
    pub fn new(
        members: BTreeSet<VirtualNode>,
        stretches: impl IntoIterator<Item = RingRange>,
    ) -> Self {
        let mut pieces = Vec::new();
        for RingRange { start, end } in stretches {
            let first = start.get().wrapping_add(1);
            let last = end.get();
            if start == end {
                pieces.push((0, u128::MAX));
            } else if first <= last {
                pieces.push((first, last));
            } else {
                pieces.push((first, u128::MAX));
                pieces.push((0, last));
            }
        }
        Self { members: members.into_iter().collect(), complete: join_pieces(pieces) }
    }

    /// The view of one who knows that exactly these nodes are in the ring, each with all its `v`
    /// virtual nodes: positions can be computed from node ids alone.
    pub fn of_nodes(nodes: impl IntoIterator<Item = NodeId>, salt: &ClusterSalt, v: u16) -> Self {
        let members = nodes
            .into_iter()
            .flat_map(|node| (0..v).map(move |index| VirtualNode::of(salt, node, index)))
            .collect();
        let everywhere = RingRange { start: RingId::new(0), end: RingId::new(0) };
        Self::new(members, [everywhere])
    }

    /// The first `count` distinct nodes at or after `id`, or all nodes if there are fewer. None
    /// when the circle is not known completely as far as that: then a lookup knows more.
    pub fn preference_list(&self, id: RingId, count: usize) -> Option<PreferenceList> {
        let mut nodes = Vec::with_capacity(count.min(16));
        if count == 0 {
            return Some(PreferenceList(nodes));
        }
        let reach = self.reach(id)?;
        for entry in self.clockwise(id) {
            if id.distance_to(entry.id) > reach {
                return None;
            }
            if !nodes.contains(&entry.node) || left_out(Mutant::CountsPositions) {
                nodes.push(entry.node);
                if nodes.len() == count {
                    return Some(PreferenceList(nodes));
                }
            }
        }
        // All round without `count` distinct nodes: that is all there are, if nobody is left out.
        (reach == u128::MAX).then_some(PreferenceList(nodes))
    }

    /// All nodes of the view in the order in which they come clockwise from `id`. Where the circle
    /// is not known completely, somebody may be left out.
    pub fn known_clockwise(&self, id: RingId) -> Vec<NodeId> {
        let mut seen = BTreeSet::new();
        let nodes = self.clockwise(id).map(|entry| entry.node);
        nodes.filter(|node| seen.insert(*node)).collect()
    }

    /// The first virtual node at or after `id`; None when that is not known.
    pub fn owner(&self, id: RingId) -> Option<VirtualNode> {
        let reach = self.reach(id)?;
        self.clockwise(id).next().copied().filter(|owner| id.distance_to(owner.id) <= reach)
    }

    /// All nodes in the view.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.members.iter().map(|entry| entry.node).collect()
    }

    /// All virtual nodes in the view, in order of position.
    pub fn virtual_nodes(&self) -> &[VirtualNode] {
        &self.members
    }

    /// Whether the whole circle is known completely.
    pub fn is_complete(&self) -> bool {
        self.complete == [(0, u128::MAX)]
    }

    fn clockwise(&self, id: RingId) -> impl Iterator<Item = &VirtualNode> {
        let first = self.members.partition_point(|entry| entry.id < id);
        self.members[first..].iter().chain(&self.members[..first])
    }

    /// How far clockwise from `id` the circle is known completely; `u128::MAX` = all round.
    fn reach(&self, id: RingId) -> Option<u128> {
        let position = id.get();
        let index = self.complete.partition_point(|(_, last)| *last < position);
        let (first, last) = *self.complete.get(index).filter(|(first, _)| *first <= position)?;
        let next = self.complete[0];
        Some(match (first, last) {
            (0, u128::MAX) => u128::MAX,
            (_, u128::MAX) if next.0 == 0 => {
                position.abs_diff(u128::MAX).saturating_add(1 + next.1)
            }
            (_, last) => last - position,
        })
    }
}

/// Sorts intervals and joins those that overlap or touch.
fn join_pieces(mut pieces: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    pieces.sort_unstable();
    let mut joined: Vec<(u128, u128)> = Vec::new();
    for (first, last) in pieces {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// The first `count` distinct nodes clockwise from `id` if exactly `nodes` were in the ring with
/// all their `v` virtual nodes: a shard's ideal members when `id` is its end (design §2, point 2).
/// For many positions make one [`RingView::of_nodes`] and ask it.
pub fn first_distinct(
    id: RingId,
    nodes: impl IntoIterator<Item = NodeId>,
    salt: &ClusterSalt,
    v: u16,
    count: usize,
) -> Vec<NodeId> {
    let everyone = RingView::of_nodes(nodes, salt, v);
    everyone.preference_list(id, count).map(|list| list.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(position: u128, node: u8) -> VirtualNode {
        VirtualNode { id: RingId::new(position), node: NodeId::from_bytes([node; 16]), index: 0 }
    }

    fn range(start: u128, end: u128) -> RingRange {
        RingRange { start: RingId::new(start), end: RingId::new(end) }
    }

    fn list(view: &RingView, id: u128, count: usize) -> Option<Vec<u8>> {
        let list = view.preference_list(RingId::new(id), count)?;
        Some(list.0.iter().map(|node| node.as_bytes()[0]).collect())
    }

    #[test]
    fn a_list_skips_further_positions_of_the_same_node_and_wraps() {
        let members = [entry(10, 1), entry(20, 1), entry(30, 2), entry(40, 3)].into();
        let view = RingView::new(members, [range(0, 0)]);
        assert_eq!(list(&view, 10, 2), Some(vec![1, 2]));
        assert_eq!(list(&view, 31, 3), Some(vec![3, 1, 2]));
        assert_eq!(list(&view, 41, 1), Some(vec![1]));
        assert_eq!(list(&view, 5, 9), Some(vec![1, 2, 3]), "all there are");
        let known = view.known_clockwise(RingId::new(31));
        assert_eq!(known.iter().map(|node| node.as_bytes()[0]).collect::<Vec<_>>(), [3, 1, 2]);
    }

    #[test]
    fn what_lies_beyond_the_known_stretch_is_not_guessed() {
        let members = [entry(10, 1), entry(20, 2), entry(30, 3)].into();
        let view = RingView::new(members, [range(5, 20)]);
        assert_eq!(list(&view, 6, 2), Some(vec![1, 2]));
        assert_eq!(list(&view, 6, 3), None);
        assert_eq!(list(&view, 5, 1), None, "5 itself is before the stretch");
        assert_eq!(view.owner(RingId::new(21)), None);
    }

    #[test]
    fn stretches_that_touch_or_wrap_are_one() {
        let members: BTreeSet<_> = [entry(10, 1), entry(u128::MAX - 5, 2)].into();
        let view = RingView::new(members.clone(), [range(u128::MAX - 9, 4), range(4, 10)]);
        assert_eq!(list(&view, u128::MAX - 8, 2), Some(vec![2, 1]));
        assert!(!view.is_complete());
        let circle = RingView::new(members, [range(10, u128::MAX - 5), range(u128::MAX - 5, 10)]);
        assert!(circle.is_complete());
    }

    #[test]
    fn an_empty_ring_prefers_nobody() {
        assert_eq!(list(&RingView::default(), 0, 3), None);
        let nobody = first_distinct(RingId::new(0), [], &ClusterSalt::from_bytes([0; 16]), 4, 3);
        assert!(nobody.is_empty());
    }
}
