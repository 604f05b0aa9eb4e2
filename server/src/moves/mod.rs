//! Shards change hands: the drivers around `triad_replica::transfer`.
//!
//! The machines decide; here are their clocks, messages and tasks. Whoever drives a move may
//! die: what was achieved is in durable rows, and [`placement`] of any member goes on.

mod aside;
mod copy;
mod drive;
mod placement;
mod publish;
mod registry;
mod steps;
mod target;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::control_reply::Reply;
use triad_proto::peer::v1::control_request::Request;
use triad_replica::configuration::Configuration;
use triad_replica::gc::GcDigest;
use triad_replica::member::Member;
use triad_replica::message::{Report, ShardReply, ShardRequest};
use triad_ring::{NodeId, ShardId};

use crate::book::{Contact, NodeState};
use crate::liveness::Liveness;
use crate::node::Node;
use crate::operations;
use crate::service::peer::seen_alive;

pub(crate) use copy::{call, page};
pub(crate) use placement::placement_task;
pub(crate) use publish::publish;
pub(crate) use publish::unknown_of_own;
pub(crate) use registry::Registry;
use registry::{Work, Working};
pub(crate) use steps::asked;
use target::{Facts, NodeFacts, preferred, unwanted};
pub(crate) use target::{Placement, misplaced};
pub(crate) use trust::{acts_as_member, handle_from, has_come, learn_from};

/// How long another node may take for a step of deciding; its fsync is in it.
const STEP_PATIENCE: Duration = Duration::from_secs(2);

/// What is known of all nodes, as far as placement is concerned.
pub(crate) fn facts(node: &Node) -> Facts {
    let facts = |contact: &Contact| {
        let liveness = node.liveness(contact.node);
        let dead = is_replaced(node, contact, liveness);
        let gone = contact.state == NodeState::Left;
        let leaving = gone || contact.state == NodeState::Leaving;
        NodeFacts { store: contact.store, liveness, dead, leaving, gone }
    };
    node.book.all().iter().map(|contact| (contact.node, facts(contact))).collect()
}

/// Whether a node's places go to others: it has been down too long, or an operator gave it up.
fn is_replaced(node: &Node, contact: &Contact, liveness: Liveness) -> bool {
    let is_other = contact.node != node.me() && contact.state != NodeState::Left;
    if is_other && node.is_down_for_good(contact.node) {
        node.operations.give_up(contact.node);
    }
    operations::is_given_up(node, contact.node, liveness)
}

/// The nodes that the ring wants a shard on, as far as the view reaches.
pub(crate) fn ideal_members(node: &Node, facts: &Facts, shard: ShardId) -> Vec<NodeId> {
    let wanted = node.cluster.replication_factor as usize;
    let unwanted = unwanted(facts);
    let end = node.cluster.shards.end(shard);
    let left_out = |node| unwanted.contains(&node);
    preferred(&node.ring.view(), end, wanted, left_out).unwrap_or_default()
}
/// Rounds of collection wait while so many moves are driven: they may, moves may not.
const COLLECTIONS: usize = 32;

/// Does a step of deciding here, durably, whoever asks. None when the store has failed.
async fn handle(node: &Arc<Node>, request: ShardRequest) -> Option<ShardReply> {
    let shard = request.shard();
    if shard.get() >= node.cluster.shards.get() {
        return None;
    }
    let learning =
        matches!(request, ShardRequest::StartLearning { .. } | ShardRequest::Progress { .. });
    if learning {
        node.moves.asked_about(shard, node.now());
        if let ShardRequest::StartLearning { base } = &request {
            // Whether what is here is of an ended lineage shows once this one is known.
            learn(node, base).await;
        }
        if aside::keep_aside(node, shard).await.is_err() {
            return None;
        }
    }
    let alive = seen_alive(node, &request);
    let visit = steps::begin(node, &request);
    let reply = node.local.shard(request, alive).await.ok()?;
    steps::answered(node, visit, &reply).await.ok()?;
    match reply {
        // Through the committer, because what is told must be durable; the copy's progress is not.
        ShardReply::Report(report) => {
            let difference = node.moves.difference(shard);
            Some(ShardReply::Report(Report { difference, ..report }))
        }
        reply => {
            after_change(node, shard);
            Some(reply)
        }
    }
}

/// Has the end of a round decided that every member vouched for. False when the shard is on the
/// move, by this node's doing.
pub(crate) async fn collect(node: &Arc<Node>, base: Configuration, digest: GcDigest) -> bool {
    let begun = Working::begin(node, Work::Move, base.shard, COLLECTIONS);
    let Some(working) = begun else {
        return false;
    };
    placement::run_move(Arc::clone(node), base, drive::Aim::Collect(digest), working).await;
    true
}

/// Takes in a decided configuration from whom it is believed: into the directory, and into the store if
/// the store is concerned.
pub(crate) async fn learn(node: &Arc<Node>, configuration: &Configuration) {
    node.directory.learn(configuration);
    let me = node.member();
    let concerns_store = node.local.look(configuration.shard, |replica| {
        let behind = replica.newest().is_none_or(|known| known.epoch < configuration.epoch);
        let involved = configuration.is_member(&me)
            || configuration.retired.contains(&me)
            || replica.newest().is_some();
        behind && involved
    });
    if concerns_store == Some(true) {
        let request = ShardRequest::Learn { configuration: configuration.clone() };
        let visit = steps::begin(node, &request);
        if let Ok(reply) = node.local.shard(request, Vec::new()).await {
            drop(steps::answered(node, visit, &reply).await);
            after_change(node, configuration.shard);
        }
    }
}

/// The store's newest configuration goes into the directory, and placement looks at the shard.
fn after_change(node: &Node, shard: triad_ring::ShardId) {
    if let Some(Some(newest)) = node.local.look(shard, |replica| replica.newest().cloned()) {
        node.directory.learn(&newest);
    }
    node.moves.wake();
}

/// Tells another node a decided configuration that it seems to have missed. Losing this is allowed.
pub(crate) fn teach(node: &Node, to: NodeId, configuration: &Configuration) {
    let request = ShardRequest::Learn { configuration: configuration.clone() };
    drop(node.peers.control(to, Request::Shard(request.into())));
}

/// Asks a member, be it this node, for a step. None: no answer in time, or the node has
/// another store by now, whose answers count for nothing.
pub(crate) async fn ask(node: &Arc<Node>, to: Member, request: ShardRequest) -> Option<ShardReply> {
    if to == node.member() {
        return handle(node, request).await;
    }
    if !node.shows_store(to) {
        return None;
    }
    let asked = node.peers.control(to.node, Request::Shard(wire::ShardRequest::from(request)));
    match asked.within(STEP_PATIENCE).await.ok()?.reply? {
        Reply::Shard(reply) => ShardReply::try_from(reply).ok(),
        _ => None,
    }
}
