//! What one node knows of the operations, and how the parts make a whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use triad_proto::peer::v1 as wire;
use triad_proto::v1;
use triad_proto::v1::OperationState;
use triad_replica::shard::ShardReplica;
use triad_ring::{NodeId, ShardId};

use super::{Watched, kind_of, remote, replace_id};
use crate::book::{Contact, NodeState};
use crate::host::Host;
use crate::liveness::Liveness;
use crate::moves::{facts, ideal_members};
use crate::node::Node;
use crate::service::outcome::wire_duration;

/// What this node knows of the operations.
pub(crate) fn own_parts(node: &Node) -> Vec<wire::OperationPart> {
    let mut parts = node.operations.ended();
    for contact in node.book.all() {
        let leaves = matches!(contact.state, NodeState::Leaving | NodeState::Left);
        if leaves && !contact.operation.is_empty() {
            parts.push(departure_part(node, &contact));
        }
    }
    parts.extend(node.operations.join().map(|id| join_part(node, &id)));
    for given_up in node.operations.given_up() {
        let remaining = shards_with(node, given_up);
        parts.push(progress(node, &replace_id(given_up), remaining));
    }
    node.operations.watch_only(&parts);
    parts
}

/// It ends when the node says that it has left, and not before.
fn departure_part(node: &Node, contact: &Contact) -> wire::OperationPart {
    let id = &contact.operation;
    let remaining = match contact.state {
        _ if contact.node == node.me() => super::departure::shards_held(node),
        // It tells by itself how far it is. Without its word the operation goes on all the same.
        NodeState::Leaving if node.liveness(contact.node) != Liveness::Down => 0,
        _ => shards_with(node, contact.node),
    };
    let mut part = progress(node, id, remaining);
    if contact.state == NodeState::Leaving {
        part.state = OperationState::Running.into();
    }
    part
}

/// A node that was given up is so no more: what is left of its places it keeps.
pub(super) fn end_replacement(node: &Node, other: NodeId, why: &str) {
    let mut part = progress(node, &replace_id(other), shards_with(node, other));
    if part.remaining > 0 {
        part.state = OperationState::Cancelled.into();
        why.clone_into(&mut part.error);
    }
    node.operations.remember(part);
}

/// Of how many shards of this node another one is a member, too.
fn shards_with(node: &Node, other: NodeId) -> u32 {
    let mut count = 0;
    node.local.each_shard(|replica| {
        let known = replica.newest().filter(|_| replica.is_member());
        let with =
            known.is_some_and(|known| known.members().iter().any(|member| member.node == other));
        count += u32::from(with);
    });
    count
}

/// How far this node is with an operation of which so many of its shards are left.
pub(super) fn progress(node: &Node, id: &str, remaining: u32) -> wire::OperationPart {
    let (now, moved) = (node.now(), node.throttle.moved());
    let ended = (remaining == 0).then_some(moved);
    let seen = Watched { since: now, shards: remaining, moved, ended };
    let watched = node.operations.watch(id, seen);
    let state = if remaining == 0 { OperationState::Done } else { OperationState::Running };
    wire::OperationPart {
        id: id.to_owned(),
        state: state.into(),
        total: watched.shards,
        remaining,
        moved_bytes: watched.ended.unwrap_or(moved).saturating_sub(watched.moved),
        error: String::new(),
        elapsed: wire_duration(now.saturating_sub(watched.since)),
    }
}

/// All operations, from what all nodes that answer know of them.
pub(crate) async fn list(node: &Arc<Node>) -> Vec<v1::Operation> {
    let mut all: BTreeMap<String, Vec<wire::OperationPart>> = BTreeMap::new();
    let asked = node
        .book
        .all()
        .into_iter()
        .filter(|contact| contact.node != node.me() && contact.state != NodeState::Left)
        .filter(|contact| node.liveness(contact.node) != Liveness::Down)
        .map(|contact| async move { remote::parts_of(node, contact.node).await });
    let told = futures::future::join_all(asked).await;
    for part in told.into_iter().flatten().chain(own_parts(node)) {
        all.entry(part.id.clone()).or_default().push(part);
    }
    all.into_iter().map(|(id, parts)| whole(&id, &parts)).collect()
}

/// How many operations this node knows to be running.
pub(crate) fn running(node: &Node) -> u32 {
    let is_running = |part: &wire::OperationPart| part.state() == OperationState::Running;
    own_parts(node).iter().filter(|part| is_running(part)).count() as u32
}

/// An operator has asked this process to join.
pub(crate) fn begin_join(host: &Host) -> v1::Operation {
    let id = format!("join-{}-{}", super::short(host.identity.node), host.identity.incarnation);
    host.operations.with(|state| state.join = Some(id.clone()));
    super::begun(&id)
}

/// The join that this process was asked for, while it is in no cluster. Later it is one of the parts.
pub(crate) fn own_join(host: &Host) -> Option<v1::Operation> {
    host.operations.join().filter(|_| host.node().is_none()).map(|id| super::begun(&id))
}

/// How far this node's join is; it ends when the node holds all that the ring gives it.
fn join_part(node: &Node, id: &str) -> wire::OperationPart {
    let facts = facts(node);
    let mine = |shard: &ShardId| ideal_members(node, &facts, *shard).contains(&node.me());
    let held = |shard| node.local.look(shard, ShardReplica::is_member).unwrap_or(false);
    let missing = node.cluster.shards.iter().filter(mine).filter(|shard| !held(*shard));
    let mut part = progress(node, id, missing.count() as u32);
    if node.book.own().state == NodeState::Joining {
        part.state = OperationState::Running.into();
    } else if part.remaining == 0 {
        node.operations.remember(part.clone());
    }
    part
}

/// One operation from its parts. Whoever ended it knows; else it runs as long as any part does.
fn whole(id: &str, parts: &[wire::OperationPart]) -> v1::Operation {
    let any = |state| parts.iter().any(|part| part.state() == state);
    let state = [OperationState::Failed, OperationState::Cancelled, OperationState::Running]
        .into_iter()
        .find(|state| any(*state))
        .unwrap_or(OperationState::Done);
    let total: u32 = parts.iter().map(|part| part.total).sum();
    let remaining: u32 = parts.iter().map(|part| part.remaining).sum();
    let done = total.saturating_sub(remaining);
    let percent = match state {
        OperationState::Done => 100.0,
        _ if total == 0 => 0.0,
        _ => 100.0 * f64::from(done) / f64::from(total),
    };
    let longest = parts.iter().filter_map(|part| Duration::try_from(part.elapsed?).ok()).max();
    let eta = longest
        .filter(|_| state == OperationState::Running && done > 0)
        .and_then(|elapsed| wire_duration(elapsed * remaining / done));
    v1::Operation {
        id: id.to_owned(),
        kind: kind_of(id),
        state: state.into(),
        percent,
        eta,
        moved_bytes: parts.iter().map(|part| part.moved_bytes).sum(),
        error: parts
            .iter()
            .map(|part| part.error.clone())
            .find(|e| !e.is_empty())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(state: OperationState, total: u32, remaining: u32) -> wire::OperationPart {
        wire::OperationPart {
            id: "leave-1".to_owned(),
            state: state.into(),
            total,
            remaining,
            moved_bytes: 10,
            error: String::new(),
            elapsed: wire_duration(Duration::from_secs(6)),
        }
    }

    #[test]
    fn an_operation_runs_as_long_as_any_part_of_it_does() {
        let one = whole(
            "leave-1",
            &[part(OperationState::Done, 10, 0), part(OperationState::Running, 30, 10)],
        );
        assert_eq!((one.kind.as_str(), one.state()), ("leave", OperationState::Running));
        assert_eq!((one.percent, one.moved_bytes), (75.0, 20));
        assert_eq!(one.eta, wire_duration(Duration::from_secs(2)));
        let one = whole("leave-1", &[part(OperationState::Done, 10, 0)]);
        assert_eq!((one.state(), one.percent, one.eta), (OperationState::Done, 100.0, None));
    }

    #[test]
    fn who_took_an_operation_back_knows_better_than_who_has_not_heard_of_it() {
        let parts = [part(OperationState::Running, 10, 5), part(OperationState::Cancelled, 0, 0)];
        assert_eq!(whole("leave-1", &parts).state(), OperationState::Cancelled);
    }
}
