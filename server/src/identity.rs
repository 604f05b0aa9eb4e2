//! Who this node is and which cluster it belongs to: the rows written once.

use std::sync::Arc;

use triad_replica::member::{Member, StartNonce, StoreId};
use triad_replica::start::Start;
use triad_replica::token::ClusterSecret;
use triad_ring::{ClusterId, ClusterSalt, Incarnation, NodeId, ShardCount};

/// What all nodes of a cluster share, fixed when the cluster is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterIdentity {
    pub(crate) id: ClusterId,
    pub(crate) name: String,
    pub(crate) salt: ClusterSalt,
    pub(crate) secret: ClusterSecret,
    pub(crate) replication_factor: u32,
    pub(crate) virtual_nodes: u16,
    pub(crate) shards: ShardCount,
}

/// One process start of one node on one store.
#[derive(Clone, Debug)]
pub(crate) struct NodeIdentity {
    pub(crate) node: NodeId,
    pub(crate) name: Arc<str>,
    pub(crate) store: StoreId,
    pub(crate) incarnation: Incarnation,
    pub(crate) nonce: StartNonce,
    /// How many commits the store had made when it was opened.
    pub(crate) commits: u64,
}

impl NodeIdentity {
    /// This start, as it introduces itself once its store has made so many commits.
    pub(crate) fn start(&self, commits: u64) -> Start {
        let (member, incarnation, nonce) = (self.member(), self.incarnation, self.nonce);
        Start { member, incarnation, nonce, commits }
    }

    /// This node as a voter.
    pub(crate) fn member(&self) -> Member {
        Member { node: self.node, store: self.store }
    }
}
