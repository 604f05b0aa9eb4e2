//! Tells the directory: members publish what is decided to the nodes that keep it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::control_reply::Reply;
use triad_proto::peer::v1::control_request::Request;
use triad_replica::configuration::{Configuration, Epoch};
use triad_ring::{NodeId, ShardId};

use crate::node::Node;

/// Epochs in one message: its answer may bring as many configurations.
const DIGESTS: usize = 4_096;

/// The first N+2 nodes clockwise from a shard's end, as far as the view reaches.
pub(super) fn keepers(node: &Node, shard: ShardId) -> Vec<NodeId> {
    let wanted = node.cluster.replication_factor as usize + 2;
    let end = node.cluster.shards.end(shard);
    node.ring
        .view()
        .preference_list(end, wanted)
        .map(|list| list.nodes().to_vec())
        .unwrap_or_default()
}

/// Of the shards whose configurations this node keeps, how many it does not know yet.
pub(crate) fn unknown_of_own(node: &Node) -> usize {
    gaps(node).count()
}

/// The shards whose configurations this node should keep and does not know.
fn gaps(node: &Node) -> impl Iterator<Item = ShardId> {
    let unknown = node.cluster.shards.iter().filter(|shard| node.directory.get(*shard).is_none());
    unknown.filter(|shard| keepers(node, *shard).contains(&node.me()))
}

/// Sends configurations to the nodes that keep them.
pub(crate) async fn publish(node: &Arc<Node>, configurations: Vec<Configuration>) {
    let mut by_keeper: BTreeMap<NodeId, Vec<wire::Configuration>> = BTreeMap::new();
    for configuration in configurations {
        for keeper in keepers(node, configuration.shard) {
            by_keeper.entry(keeper).or_default().push((&configuration).into());
        }
    }
    by_keeper.remove(&node.me());
    for (keeper, configurations) in by_keeper {
        let publish = wire::PublishConfigurations { configurations };
        if let Ok(reply) =
            node.peers.control(keeper, Request::Publish(publish)).within(super::STEP_PATIENCE).await
            && let Some(Reply::Digests(difference)) = reply.reply
        {
            learn_newer(node, keeper, difference.newer).await;
        }
    }
}

/// Compares epochs with every keeper, and mends both sides.
pub(super) async fn publish_all(node: Arc<Node>) {
    let mut digests: BTreeMap<NodeId, Vec<wire::ConfigurationDigest>> = BTreeMap::new();
    let mut own = Vec::new();
    node.local.each_shard(|replica| {
        own.extend(replica.newest().filter(|_| replica.is_member()).cloned());
    });
    for configuration in &own {
        let digest = wire::ConfigurationDigest {
            shard: configuration.shard.get(),
            epoch: Some(configuration.epoch.into()),
        };
        let concerned = keepers(&node, configuration.shard)
            .into_iter()
            .chain(configuration.members().into_iter().map(|member| member.node))
            .chain(configuration.retired.iter().map(|member| member.node))
            .collect::<BTreeSet<_>>();
        for keeper in concerned {
            digests.entry(keeper).or_default().push(digest);
        }
    }
    // "I know of no epoch": whoever knows one tells it.
    for shard in gaps(&node) {
        let digest =
            wire::ConfigurationDigest { shard: shard.get(), epoch: Some(Epoch::NONE.into()) };
        for keeper in keepers(&node, shard) {
            digests.entry(keeper).or_default().push(digest);
        }
    }
    digests.remove(&node.me());
    let compared = digests.iter().map(|(keeper, digests)| compare_with(&node, *keeper, digests));
    futures::future::join_all(compared).await;
}

/// Compares epochs with one keeper; what either lacks is sent.
async fn compare_with(node: &Arc<Node>, keeper: NodeId, digests: &[wire::ConfigurationDigest]) {
    for digests in digests.chunks(DIGESTS) {
        let request = Request::Digests(wire::ConfigurationDigests { digests: digests.to_vec() });
        let reply = node.peers.control(keeper, request).within(super::STEP_PATIENCE).await;
        let Some(Reply::Digests(difference)) = reply.ok().and_then(|reply| reply.reply) else {
            return;
        };
        let wanted: Vec<wire::Configuration> = difference
            .wanted
            .iter()
            .filter_map(|shard| node.directory.get(ShardId::new(*shard)))
            .map(|known| wire::Configuration::from(&*known))
            .collect();
        if !wanted.is_empty() {
            let publish = Request::Publish(wire::PublishConfigurations { configurations: wanted });
            drop(node.peers.control(keeper, publish).within(super::STEP_PATIENCE).await);
        }
        learn_newer(node, keeper, difference.newer).await;
    }
}

async fn learn_newer(node: &Arc<Node>, from: NodeId, newer: Vec<wire::Configuration>) {
    let newer: Vec<Configuration> =
        newer.into_iter().filter_map(|one| Configuration::try_from(one).ok()).collect();
    // Side by side, so that they share the committer's syncs.
    futures::future::join_all(newer.iter().map(|one| super::learn_from(node, from, one))).await;
}
