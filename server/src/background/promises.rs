//! Asks all nodes whether they hold what the collection of tombstones would make worthless.

use std::sync::Arc;
use std::time::Duration;

use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::control_reply::Reply;
use triad_proto::peer::v1::control_request::Request;
use triad_replica::configuration::Epoch;
use triad_ring::{NodeId, ShardId};

use crate::book::{Contact, NodeState};
use crate::liveness::Liveness;
use crate::node::Node;

/// How long a node may take to promise; its fsync is in it.
const PATIENCE: Duration = Duration::from_secs(2);

impl Node {
    /// Whether every node of the cluster has promised to hold nothing of the shard that was made
    /// in `epoch` or before (design rule D10). To be asked when it is fixed which tombstones are
    /// to go: what is held for others later has newer dots than these cover. A node that does
    /// not answer may hold something.
    pub(crate) async fn hints_promised(self: &Arc<Self>, shard: ShardId, epoch: Epoch) -> bool {
        let contacts = self.book.all();
        // Who was removed is not waited for. Where another node lives now, the one before it is
        // gone, with all it held.
        let living = |other: &Arc<Contact>| self.liveness(other.node) == Liveness::Alive;
        let replaced = |one: &&Arc<Contact>| {
            let heir = |other: &&Arc<Contact>| {
                other.node != one.node && other.peer_address == one.peer_address && living(other)
            };
            !living(one) && contacts.iter().any(|other| heir(&other))
        };
        let removed = |one: &&Arc<Contact>| one.state == NodeState::Left;
        let there = contacts.iter().filter(|one| !removed(one) && !replaced(one));
        let asked = there.map(|contact| self.promised_by(contact.node, shard, epoch));
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
