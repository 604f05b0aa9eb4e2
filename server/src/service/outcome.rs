//! How a request was answered, on the wire.

use prost_types::Duration as WireDuration;
use triad_proto::v1;
use triad_replica::configuration::{Configuration, Phase};
use triad_replica::consistency::Level;
use triad_replica::member::Member;

use crate::coordinator::{Answered, Outcome};
use crate::node::Node;

/// The `outcome` of a reply.
pub(crate) fn outcome(node: &Node, outcome: &Outcome, trace: String) -> v1::Outcome {
    v1::Outcome {
        level: v1::Level::from(outcome.level).into(),
        needed: outcome.needed,
        acknowledged: outcome.acknowledged,
        replicas: outcome.replicas.iter().map(replica).collect(),
        // ONE promises nothing about what a later read sees, or how fresh this one is.
        strict: outcome.sloppy.is_none() && outcome.level != Level::One,
        degraded: outcome.sloppy.is_some_and(|sloppy| sloppy.degraded),
        home_acknowledged: outcome
            .sloppy
            .map_or(outcome.acknowledged, |sloppy| sloppy.home_acknowledged),
        diverged: outcome.diverged,
        coordinator: node.identity.name.to_string(),
        shard: outcome.shard.get(),
        epoch: Some(outcome.epoch.into()),
        elapsed: wire_duration(outcome.elapsed),
        request_trace: trace,
        repaired: outcome.repaired,
    }
}

fn replica(answered: &Answered) -> v1::ReplicaAnswer {
    v1::ReplicaAnswer {
        node_id: answered.node.to_string(),
        node: answered.name.clone(),
        result: v1::ReplicaResult::from(answered.result).into(),
        elapsed: answered.elapsed.and_then(wire_duration),
    }
}

/// A duration on the wire.
pub(crate) fn wire_duration(duration: std::time::Duration) -> Option<WireDuration> {
    WireDuration::try_from(duration).ok()
}

/// A configuration for clients, with names and addresses.
pub(crate) fn route(node: &Node, configuration: &Configuration) -> v1::Route {
    let members = |members: &[Member]| members.iter().map(|one| member(node, *one)).collect();
    let (phase, old, new): (_, _, &[Member]) = match &configuration.phase {
        Phase::Stable { members } => (v1::Phase::Stable, members, &[]),
        Phase::Joint { old, new } => (v1::Phase::Joint, old, new),
    };
    v1::Route {
        shard: configuration.shard.get(),
        epoch: Some(configuration.epoch.into()),
        phase: phase.into(),
        members: members(old),
        next_members: members(new),
        gc_epoch: Some(configuration.gc_epoch.into()),
        retired: members(&configuration.retired),
        shard_count: node.cluster.shards.get(),
    }
}

fn member(node: &Node, member: Member) -> v1::Member {
    let contact = node.book.get(member.node);
    v1::Member {
        node_id: member.node.to_string(),
        node: node.book.name(member.node),
        store_id: member.store.to_string(),
        client_address: contact.map(|contact| contact.client_address.clone()).unwrap_or_default(),
    }
}
