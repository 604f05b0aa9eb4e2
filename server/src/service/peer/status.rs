//! One node's own part of the cluster's status.

use std::collections::BTreeMap;

use triad_proto::peer::v1 as wire;
use triad_proto::v1;
use triad_ring::ShardId;

use crate::alarms::AlarmName;
use crate::book::Contact;
use crate::liveness::Liveness;
use crate::moves::{Placement, facts, ideal_members};
use crate::node::Node;
use crate::peers::contact::wire_state;
use crate::peers::stamp;
use crate::service::outcome::wire_duration;

/// What this node knows of itself.
pub(crate) fn node_status(node: &Node) -> wire::NodeStatusResponse {
    let copying = node.moves.copying();
    let mut shards = Vec::new();
    let mut members = 0;
    node.local.each_shard(|replica| {
        let Some(newest) = replica.newest() else {
            return;
        };
        let is_member = replica.is_member();
        members += u32::from(is_member);
        let copies = copying.contains_key(&newest.shard);
        if !is_member && !copies {
            return;
        }
        let merged = replica.entered().is_some_and(|row| row.merged);
        shards.push(wire::ShardStatus {
            configuration: Some(newest.into()),
            learning: copies || !merged,
            merged,
            difference: copying.get(&newest.shard).copied().flatten().unwrap_or_default(),
        });
    });
    let stats = node.local.stats();
    node.alarms.follow(AlarmName::NoSpace, stats.full);
    let mut info = node_info(&node.book.own(), Liveness::Alive);
    info.virtual_nodes = u32::from(node.cluster.virtual_nodes);
    info.shards = members;
    info.ideal_shards = ideal_shards(node);
    info.keys = stats.records;
    info.live_bytes = stats.live_bytes;
    info.disk_bytes = stats.disk_bytes;
    let absent = node.hints.told().into_iter();
    let absent = absent.filter(|(id, _)| node.liveness(*id) != Liveness::Alive);
    wire::NodeStatusResponse {
        stamp: Some(stamp(node)),
        node: Some(info),
        shards,
        alarms: node.alarms.all(&node.identity.name),
        hints: Some(node.hints.counts()),
        uptime: wire_duration(node.now()),
        absent_hints: absent
            .map(|(id, held)| wire::AbsentHints { node_id: id.as_bytes().to_vec().into(), held })
            .collect(),
        trees_different: node.anti_entropy.different().iter().map(|shard| shard.get()).collect(),
    }
}

/// What is known here of another node: its contact, and how it answers.
pub(crate) fn node_seen(node: &Node, contact: &Contact) -> v1::NodeInfo {
    let id = contact.node;
    v1::NodeInfo {
        silent: (id != node.me()).then(|| wire_duration(node.silent_for(id))).flatten(),
        round_trip: node.rtt(id).and_then(wire_duration),
        ..node_info(contact, node.liveness(id))
    }
}

/// What a contact tells of a node.
fn node_info(contact: &Contact, liveness: Liveness) -> v1::NodeInfo {
    v1::NodeInfo {
        node_id: contact.node.to_string(),
        node: contact.name.clone(),
        store_id: contact.store.to_string(),
        incarnation: contact.incarnation.get(),
        liveness: match liveness {
            Liveness::Alive => v1::Liveness::Alive,
            Liveness::Suspect => v1::Liveness::Suspect,
            Liveness::Down => v1::Liveness::Down,
        }
        .into(),
        state: wire_state(contact.state).into(),
        client_address: contact.client_address.clone(),
        peer_address: contact.peer_address.clone(),
        admin_address: contact.admin_address.clone(),
        zone: contact.zone.clone(),
        version: contact.version.clone(),
        ..Default::default()
    }
}

/// How many shards the ring would give this node.
fn ideal_shards(node: &Node) -> u32 {
    let facts = facts(node);
    let mine = |shard: &ShardId| ideal_members(node, &facts, *shard).contains(&node.me());
    node.cluster.shards.iter().filter(mine).count() as u32
}

/// Where shards should be, for whoever compares.
pub(crate) fn placement(node: &Node) -> Placement {
    Placement::new(
        node.cluster.salt,
        node.cluster.virtual_nodes,
        node.cluster.shards,
        node.cluster.replication_factor as usize,
    )
}

/// The newest of what several nodes tell of each shard, and how many of them are learning it.
#[derive(Default)]
pub(crate) struct ShardTable {
    pub(crate) newest: BTreeMap<u32, triad_replica::configuration::Configuration>,
    pub(crate) learning: std::collections::BTreeSet<u32>,
}

impl ShardTable {
    /// Takes in one node's part.
    pub(crate) fn add(&mut self, status: &wire::NodeStatusResponse) {
        for shard in &status.shards {
            let Some(configuration) = shard.configuration.clone() else {
                continue;
            };
            if shard.learning {
                self.learning.insert(configuration.shard);
            }
            if let Ok(told) = triad_replica::configuration::Configuration::try_from(configuration) {
                self.newer(told);
            }
        }
    }

    /// Takes in what is known of one shard.
    pub(crate) fn newer(&mut self, told: triad_replica::configuration::Configuration) {
        let known = self.newest.entry(told.shard.get()).or_insert_with(|| told.clone());
        if known.epoch < told.epoch {
            *known = told;
        }
    }
}
