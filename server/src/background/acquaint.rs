//! Knows in time whom this node would have to stand in for.
//!
//! Members tell their configuration to the nodes around them at each decision and every 30 s. A
//! node that is new, or has just started, would not know for whom it takes writes of
//! `any.` buckets if the network were cut now: so it asks for what it does not know.

use std::sync::Arc;
use std::time::Duration;

use triad_ring::ShardId;

use crate::coordinator::{FALLBACKS, refresh};
use crate::node::Node;

/// How often it is looked for what is not known.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Shards asked for at once.
const AT_ONCE: usize = 64;

/// Runs until the node stops.
pub(crate) async fn acquaint_task(node: Arc<Node>) {
    let mut from = 0;
    loop {
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(node.spread(LOOK_EVERY)) => {}
        }
        let unknown = unknown(&node, from);
        // Some may have no members that can be asked: they must not keep others waiting.
        from = unknown.last().map_or(0, |shard| shard.get() + 1);
        futures::future::join_all(unknown.iter().map(|shard| refresh(&node, *shard))).await;
    }
}

/// Shards behind `from` for which this node may have to stand in, and whose members it does not
/// know.
fn unknown(node: &Node, from: u32) -> Vec<ShardId> {
    let view = node.ring.view();
    let near = node.cluster.replication_factor as usize + FALLBACKS;
    let may_stand_in = |shard: &ShardId| {
        let list = view.preference_list(node.cluster.shards.end(*shard), near);
        list.is_none_or(|list| list.nodes().contains(&node.me()))
    };
    let shards = node.cluster.shards.iter().skip(from as usize);
    let unknown = shards.filter(|shard| node.directory.get(*shard).is_none());
    unknown.filter(may_stand_in).take(AT_ONCE).collect()
}
