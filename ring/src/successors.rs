//! Successor lists: the next entries clockwise of one virtual node.
//!
//! A list is ordered clockwise, stops before its owner and leaves out nobody that it knows of
//! (Zave §III: ordered, no skipped principal). It holds `successor_entries` entries or, in a
//! smaller ring, all others: rule R1 counts *nodes*, and so many entries hold N + 2 distinct ones.
//! An empty list means that the virtual node is alone.

use std::collections::BTreeSet;

use crate::id::{NodeId, RingId, VirtualNode};

/// The next entries clockwise of one virtual node, nearest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SuccessorList(Vec<VirtualNode>);

impl SuccessorList {
    /// The list of `owner` from entries in clockwise order: cut where they come round to the owner
    /// or stop going forward, and at `limit` entries.
    pub fn build(
        owner: RingId,
        entries: impl IntoIterator<Item = VirtualNode>,
        limit: usize,
    ) -> Self {
        let mut list = Vec::new();
        let mut reached = 0;
        for entry in entries {
            let distance = owner.distance_to(entry.id);
            if distance <= reached || list.len() == limit {
                break;
            }
            reached = distance;
            list.push(entry);
        }
        Self(list)
    }

    /// The best successor: the first live entry (failed ones are removed at once).
    pub fn best(&self) -> Option<VirtualNode> {
        self.0.first().copied()
    }

    /// The farthest entry.
    pub fn last(&self) -> Option<VirtualNode> {
        self.0.last().copied()
    }

    /// All entries, nearest first.
    pub fn entries(&self) -> &[VirtualNode] {
        &self.0
    }

    /// How many entries of `owner`'s list lie strictly before `position`.
    pub fn count_before(&self, owner: RingId, position: RingId) -> usize {
        let span = owner.distance_to(position);
        self.0.partition_point(|entry| owner.distance_to(entry.id) < span)
    }

    /// Drops the entries that `keep` refuses; true when there was one.
    pub fn retain(&mut self, keep: impl FnMut(&VirtualNode) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(keep);
        self.0.len() != before
    }

    /// The distinct nodes of the list.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.0.iter().map(|entry| entry.node).collect()
    }
}

/// A digest of an answer to a state query, to ask "still so?" with. It need not resist anybody:
/// identifiers are hashes already, and the asker only spares itself a list it has.
pub(crate) fn digest_of_state(predecessor: Option<VirtualNode>, successors: &[VirtualNode]) -> u64 {
    let mut digest = successors.len() as u64;
    let mut mix = |word: u64| {
        digest = (digest.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    };
    mix(u64::from(predecessor.is_some()));
    for entry in predecessor.iter().chain(successors) {
        let id = entry.id.get();
        mix(id as u64);
        mix((id >> 64) as u64);
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(position: u128) -> VirtualNode {
        VirtualNode {
            id: RingId::new(position),
            node: NodeId::from_bytes(position.to_be_bytes()),
            index: 0,
        }
    }

    fn list(owner: u128, positions: &[u128], limit: usize) -> Vec<u128> {
        let list =
            SuccessorList::build(RingId::new(owner), positions.iter().map(|p| entry(*p)), limit);
        list.entries().iter().map(|entry| entry.id.get()).collect()
    }

    #[test]
    fn a_list_is_cut_at_its_owner_at_its_limit_and_where_it_turns_back() {
        assert_eq!(list(9, &[12, 0, 7, 9, 12], 8), [12, 0, 7]);
        assert_eq!(list(9, &[12, 0, 7], 2), [12, 0]);
        assert_eq!(list(9, &[12, 0, 12, 7], 8), [12, 0]);
        assert_eq!(list(9, &[12, 12, 0], 8), [12]);
        assert_eq!(list(9, &[9], 8), [] as [u128; 0]);
    }

    #[test]
    fn counting_before_a_position_goes_clockwise() {
        let owner = RingId::new(9);
        let list = SuccessorList::build(owner, [12, 0, 7].map(entry), 8);
        let before = |position| list.count_before(owner, RingId::new(position));
        assert_eq!(
            [before(10), before(12), before(13), before(0), before(5), before(8)],
            [0, 0, 1, 1, 2, 3]
        );
    }

    #[test]
    fn the_digest_sees_order_predecessor_and_length() {
        let [a, b] = [entry(1), entry(2)];
        let digests: BTreeSet<u64> = [
            digest_of_state(None, &[]),
            digest_of_state(None, &[a]),
            digest_of_state(Some(a), &[]),
            digest_of_state(None, &[a, b]),
            digest_of_state(None, &[b, a]),
            digest_of_state(Some(a), &[b]),
        ]
        .into();
        assert_eq!(digests.len(), 6);
    }
}
