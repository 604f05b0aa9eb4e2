//! Who holds a shard: from memory, else from the directory on the ring.

use std::sync::Arc;
use std::time::Duration;

use triad_proto::peer::v1 as wire;
use triad_replica::configuration::Configuration;
use triad_ring::{NodeId, Route, ShardId};

use super::error::RequestError;
use crate::deadline::Deadline;
use crate::node::Node;

/// How many nodes of the directory are asked.
const ASKED: usize = 2;
/// How long one of them may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// The newest configuration known here, or what the directory knows.
pub(crate) async fn locate(
    node: &Arc<Node>,
    shard: ShardId,
    deadline: Deadline,
) -> Result<Arc<Configuration>, RequestError> {
    loop {
        if let Some(known) = node.directory.get(shard) {
            return Ok(known);
        }
        ask_directory(node, shard).await;
        if node.directory.get(shard).is_none() {
            if deadline.left() < Duration::from_millis(50) {
                return Err(RequestError::NotLocated { shard });
            }
            tokio::time::sleep(node.spread(Duration::from_millis(50))).await;
        }
    }
}

/// Asks the directory even if something is known: what is known has proved to be old.
pub(crate) async fn refresh(node: &Arc<Node>, shard: ShardId) {
    ask_directory(node, shard).await;
}

/// Nodes that keep the shard's configuration: the first N+2 clockwise from its end, as the
/// ring view or a lookup tells.
async fn directory_nodes(node: &Node, shard: ShardId) -> Vec<NodeId> {
    let wanted = node.cluster.replication_factor as usize + 2;
    let end = node.cluster.shards.end(shard);
    if let Some(list) = node.ring.view().preference_list(end, wanted) {
        return list.nodes().to_vec();
    }
    let Some(route) = node.ring.lookup(end).await else {
        return Vec::new();
    };
    distinct_nodes(&route, wanted)
}

/// The ring's answer for a shard's end, for people who ask where a key lives.
pub(crate) async fn locate_by_ring(node: &Node, shard: ShardId) -> Option<Route> {
    node.ring.lookup(node.cluster.shards.end(shard)).await
}

fn distinct_nodes(route: &Route, wanted: usize) -> Vec<NodeId> {
    let mut nodes = Vec::with_capacity(wanted);
    for virtual_node in &route.list {
        if !nodes.contains(&virtual_node.node) {
            nodes.push(virtual_node.node);
        }
    }
    nodes.truncate(wanted);
    nodes
}

/// Asks two living nodes of the directory; whatever they know ends in this node's table.
async fn ask_directory(node: &Arc<Node>, shard: ShardId) {
    let keepers = directory_nodes(node, shard).await;
    let keepers = node.by_liveness(keepers.into_iter().filter(|keeper| *keeper != node.me()));
    let questions = keepers.into_iter().take(ASKED).map(|keeper| async move {
        let find =
            wire::control_request::Request::Find(wire::FindConfiguration { shard: shard.get() });
        (keeper, node.peers.control(keeper, find).within(PATIENCE).await)
    });
    for (keeper, reply) in futures::future::join_all(questions).await {
        if let Ok(Some(wire::control_reply::Reply::Found(found))) = reply.map(|reply| reply.reply)
            && let Some(newest) = found.newest
            && let Ok(configuration) = Configuration::try_from(newest)
        {
            crate::moves::learn_from(node, keeper, &configuration).await;
        }
    }
}
