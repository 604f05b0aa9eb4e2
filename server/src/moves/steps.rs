//! Where tests stop a move, whoever has which part in it.

use triad_replica::configuration::{Configuration, Phase};
use triad_replica::member::Member;
use triad_replica::message::{PullPurpose, PullRequest, ShardReply, ShardRequest};
use triad_replica::transfer::{MoveInput, MoveOutput};
use triad_ring::ShardId;

use crate::failpoint::{Point, Role, hit_as};
use crate::node::Node;

/// The part of `me` in a move: exactly in its joint epoch; afterwards whoever is retired has left,
/// and of the members nobody remembers who came.
fn role_in(me: &Member, configuration: &Configuration) -> Option<Role> {
    let Phase::Joint { old, new } = &configuration.phase else {
        let retired = configuration.retired.contains(me);
        return Some(if retired { Role::Leaver } else { Role::Stayer });
    };
    match (old.contains(me), new.contains(me)) {
        (true, true) => Some(Role::Stayer),
        (true, false) => Some(Role::Leaver),
        (false, true) => Some(Role::Learner),
        (false, false) => None,
    }
}

/// A request that a store is about to answer. Nothing, unless this program is for tests.
pub(super) struct Visit(Option<(ShardRequest, Option<Configuration>)>);

/// Remembers what the store knew before it answers.
pub(super) fn begin(node: &Node, request: &ShardRequest) -> Visit {
    let wanted = cfg!(feature = "testing");
    Visit(wanted.then(|| (request.clone(), newest(node, request.shard()))))
}

/// A store answers a request about a shard, which may have brought it a step further. An error
/// when a test wants it not to answer.
pub(super) async fn answered(node: &Node, visit: Visit, reply: &ShardReply) -> Result<(), Stopped> {
    let Some((request, before)) = visit.0 else {
        return Ok(());
    };
    let me = node.member();
    if let (ShardRequest::Accept { value, .. }, ShardReply::Accepted { .. }) = (&request, reply) {
        let joint = before.iter().chain([value]).find(|one| one.is_joint());
        let role = || joint.and_then(|joint| role_in(&me, joint));
        return hit_as(Point::MoveFence, role).await.map_err(|_| Stopped);
    }
    let after = newest(node, request.shard());
    if before.as_ref().map(|one| one.epoch) == after.as_ref().map(|one| one.epoch) {
        return Ok(());
    }
    if let Some(joint) = after.filter(Configuration::is_joint) {
        return hit_as(Point::MoveJoint, || role_in(&me, &joint)).await.map_err(|_| Stopped);
    }
    match before.filter(Configuration::is_joint) {
        Some(joint) => hit_as(Point::MoveFinal, || role_in(&me, &joint)).await.map_err(|_| Stopped),
        None => Ok(()),
    }
}

/// A test wants no answer.
pub(crate) struct Stopped;

fn newest(node: &Node, shard: ShardId) -> Option<Configuration> {
    node.local.look(shard, |replica| replica.newest().cloned()).flatten()
}

/// The step that the proposer comes to by hearing this.
pub(super) fn of_input(input: &MoveInput) -> Option<Point> {
    match input {
        MoveInput::Reply { reply: ShardReply::Accepted { .. }, .. } => Some(Point::MoveFence),
        MoveInput::Reply { reply: ShardReply::Report(report), .. } => {
            report.declared.map(|_| Point::MoveMerge)
        }
        _ => None,
    }
}

/// The step that the proposer comes to by saying this.
pub(super) fn of_output(output: &MoveOutput) -> Option<Point> {
    match output {
        MoveOutput::Send { request: ShardRequest::Learn { configuration }, .. } => {
            Some(if configuration.is_joint() { Point::MoveJoint } else { Point::MoveFinal })
        }
        _ => None,
    }
}

/// A store answers another one that copies. An error when a test wants it not to answer.
pub(crate) async fn asked(node: &Node, request: &PullRequest) -> Result<(), Stopped> {
    let (point, shard) = match request {
        PullRequest::Tree { shard, purpose: PullPurpose::Merge, .. } => (Point::MoveMerge, *shard),
        PullRequest::Tree { shard, purpose: PullPurpose::Drain, .. }
        | PullRequest::Push { shard, .. } => (Point::MoveRetire, *shard),
        _ => return Ok(()),
    };
    at(node, point, shard).await
}

/// A store is about to do a step of its own.
pub(super) async fn at(node: &Node, point: Point, shard: ShardId) -> Result<(), Stopped> {
    let role = || newest(node, shard).and_then(|known| role_in(&node.member(), &known));
    hit_as(point, role).await.map_err(|_| Stopped)
}
