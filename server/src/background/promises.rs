//! Asks all nodes whether they hold what the collection of tombstones would make worthless.

use std::sync::Arc;
use std::time::Duration;

use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::control_reply::Reply;
use triad_proto::peer::v1::control_request::Request;
use triad_replica::configuration::Epoch;
use triad_ring::{NodeId, ShardId};

use crate::book::{Contact, NodeState};
use crate::node::Node;

/// How long a node may take to promise; its fsync is in it.
const PATIENCE: Duration = Duration::from_secs(2);

/// All but those that were declared to be out of the cluster. That another node answers at the
/// address of a silent one says nothing: addresses are given anew, and what the silent one holds may
/// come back with it.
fn waited_for(contacts: &[Arc<Contact>]) -> impl Iterator<Item = NodeId> + '_ {
    contacts.iter().filter(|one| one.state != NodeState::Left).map(|one| one.node)
}

impl Node {
    /// Whether every node of the cluster has promised to hold nothing of the shard that was made
    /// in `epoch` or before (design rule D10). To be asked when it is fixed which tombstones are
    /// to go: what is held for others later has newer dots than these cover. A node that does
    /// not answer may hold something.
    pub(crate) async fn hints_promised(self: &Arc<Self>, shard: ShardId, epoch: Epoch) -> bool {
        let contacts = self.book.all();
        let asked = waited_for(&contacts).map(|id| self.promised_by(id, shard, epoch));
        futures::future::join_all(asked).await.into_iter().all(|promised| promised)
    }

    async fn promised_by(self: &Arc<Self>, node: NodeId, shard: ShardId, epoch: Epoch) -> bool {
        if node == self.me() {
            return self.local.promise_no_hints(shard, epoch).await.unwrap_or(false);
        }
        let question = wire::PromiseNoHints { shard: shard.get(), epoch: Some(epoch.into()) };
        let asked = self.peers.control(node, Request::PromiseNoHints(question));
        let reply = asked.within(PATIENCE).await.ok().and_then(|reply| reply.reply);
        matches!(reply, Some(Reply::HintsPromised(answer)) if answer.promised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::tests::contact;

    #[test]
    fn every_node_is_waited_for_that_was_not_declared_removed() {
        let contacts = [
            contact(1, 1, NodeState::Active),
            contact(2, 1, NodeState::Leaving),
            contact(3, 1, NodeState::Left),
            contact(4, 1, NodeState::Joining),
        ];
        // Whoever lives at an address now speaks for itself alone.
        let same = |one| Arc::new(Contact { peer_address: "10.0.0.1:7421".to_owned(), ..one });
        let contacts = contacts.map(same);
        let waited: Vec<NodeId> = waited_for(&contacts).collect();
        assert_eq!(waited, [0, 1, 3].map(|index: usize| contacts[index].node));
    }
}
