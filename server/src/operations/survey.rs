//! What all nodes that answer hold, for plans and for force.

use std::collections::BTreeSet;
use std::sync::Arc;

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
        };
        for (from, answer) in futures::future::join_all(asked).await {
            let Some(answer) = answer else { continue };
            survey.answered.insert(from);
            survey.table.add(&answer);
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
