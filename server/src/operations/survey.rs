//! What all nodes that answer hold, for plans and for force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use triad_proto::peer::v1 as wire;
use triad_replica::configuration::Configuration;
use triad_replica::member::Member;
use triad_ring::{NodeId, ShardId};

use crate::node::Node;
use crate::service::cluster::ask_status;
use crate::service::peer::ShardTable;

/// One look at the whole cluster.
pub(super) struct Survey {
    table: ShardTable,
    answered: BTreeSet<NodeId>,
    live_bytes: u64,
    places: u64,
    /// What absent nodes held for others, by the word of those that heard it.
    held: BTreeMap<NodeId, u64>,
}

/// The greatest word on each node counts: others have heard it earlier, when it held less.
fn add_absent(held: &mut BTreeMap<NodeId, u64>, told: &[wire::AbsentHints]) {
    for one in told {
        if let Ok(id) = <[u8; 16]>::try_from(one.node_id.as_ref()) {
            let most = held.entry(NodeId::from_bytes(id)).or_default();
            *most = one.held.max(*most);
        }
    }
}

impl Survey {
    /// Asks every node that may answer.
    pub(super) async fn take(node: &Arc<Node>) -> Self {
        let contacts = node.book.all();
        let asked = contacts
            .iter()
            .map(|contact| async { (contact.node, ask_status(node, contact.node).await) });
        let mut survey = Self {
            table: ShardTable::default(),
            answered: BTreeSet::new(),
            live_bytes: 0,
            places: 0,
            held: BTreeMap::new(),
        };
        for (from, answer) in futures::future::join_all(asked).await {
            let Some(answer) = answer else { continue };
            survey.answered.insert(from);
            survey.table.add(&answer);
            add_absent(&mut survey.held, &answer.absent_hints);
            let info = answer.node.unwrap_or_default();
            survey.live_bytes += info.live_bytes;
            survey.places += u64::from(info.shards);
        }
        // What this node has heard of shards that nobody who answered is a member of.
        for shard in node.cluster.shards.iter() {
            if let Some(known) = node.directory.get(shard) {
                survey.table.newer((*known).clone());
            }
        }
        survey
    }

    /// How many records a node that is absent held for others when it last said so.
    pub(super) fn held_by(&self, absent: NodeId) -> u64 {
        self.held.get(&absent).copied().unwrap_or_default()
    }

    /// The newest configuration of each shard that anybody knows.
    pub(super) fn configurations(&self) -> impl Iterator<Item = &Configuration> {
        self.table.newest.values()
    }

    /// That of one shard.
    pub(super) fn configuration(&self, shard: ShardId) -> Option<&Configuration> {
        self.table.newest.get(&shard.get())
    }

    /// Whether a member's node has answered just now, with the store that votes.
    pub(super) fn is_present(&self, node: &Node, member: &Member) -> bool {
        self.answered.contains(&member.node)
            && (*member == node.member() || node.shows_store(*member))
    }

    /// The records of a shard on one member, on the average.
    pub(super) fn bytes_per_shard(&self) -> u64 {
        self.live_bytes.checked_div(self.places).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_told_of_an_absent_node_the_most_counts() {
        let told = |id: u8, held| wire::AbsentHints { node_id: vec![id; 16].into(), held };
        let malformed = wire::AbsentHints { node_id: vec![1].into(), held: 9 };
        let mut held = BTreeMap::new();
        add_absent(&mut held, &[told(1, 3), told(2, 1)]);
        add_absent(&mut held, &[told(1, 2), malformed]);
        let of = |id: u8| held.get(&NodeId::from_bytes([id; 16])).copied();
        assert_eq!((of(1), of(2), held.len()), (Some(3), Some(1), 2));
    }
}
