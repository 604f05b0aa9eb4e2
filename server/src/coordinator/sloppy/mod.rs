//! Writes and reads of `any.` buckets, which nodes that are no members may serve in their stead.
//!
//! While members of a shard can be reached, one of them runs the request as in a strict bucket.
//! For each that cannot, the next living node clockwise from the shard's end stands in: it
//! *holds* the record and brings it to all members when they are back (`background::handoff`).
//! With no member in reach the first such node runs the request by itself. So both halves of a cut
//! cluster take writes; where they collided there are siblings after the heal.

mod read;
mod spread;

use std::sync::Arc;
use std::time::Duration;

use triad_proto::convert::BucketMode;
use triad_replica::configuration::Configuration;
use triad_replica::consistency::{Failure, Operation, ReplicaResult, Requirement};
use triad_replica::context::Context;
use triad_replica::member::ActorId;
use triad_replica::record::{Basis, Change, Updated};
use triad_replica::refusal::Refusal;
use triad_ring::{NodeId, ShardId};

use super::error::{Progress, RequestError};
use super::forward::{Forwardable, pass_on, queue_overloaded};
use super::locate::locate;
use super::put::{self, Mint, may_mint_soon, store_failed};
use super::room::pass_on_for_room;
use super::{Completed, HOPS_MAX, Outcome, Parcel, Write, Written, before_any_answer};
use crate::alarms::AlarmName;
use crate::book::NodeState;
use crate::deadline::Deadline;
use crate::liveness::Liveness;
use crate::local::{Address, HeldMint, Wanted, WriteError};
use crate::node::Node;
use crate::peers::data;
use crate::random;

pub(super) use read::get;
use spread::Spread;

/// Nodes that may stand in for members, at most: as many again as the largest shard has members.
pub(crate) const FALLBACKS: usize = 8;
/// How long a member may take to mint before its node holds the record instead: it may have
/// accepted a successor of its epoch, and be cut off from those who know the decision.
const MINT_PATIENCE: Duration = Duration::from_millis(500);

/// Whether the bucket takes writes whatever happens.
pub(super) fn is_sloppy(at: &Address) -> bool {
    BucketMode::of(&at.bucket) == BucketMode::Available
}

/// Runs a write, or has another node run it. Like a strict one it outlives its caller.
pub(super) async fn write(
    node: &Arc<Node>,
    write: Write,
    original: Forwardable,
    deadline: Deadline,
) -> Result<Completed<Written>, RequestError> {
    let running = node.tasks.spawn(run(Arc::clone(node), write, original, deadline));
    let broken = RequestError::Overdue { waited: deadline.waited(), write: true };
    running.await.unwrap_or(Err(broken))
}

async fn run(
    node: Arc<Node>,
    write: Write,
    original: Forwardable,
    deadline: Deadline,
) -> Result<Completed<Written>, RequestError> {
    let configuration = locate(&node, write.at.shard, deadline).await?;
    let as_member = may_mint_soon(&node, &configuration);
    if !as_member {
        let others = better_placed(&node, &configuration, original.hops);
        let passed = pass_on(&node, &configuration, write.level, &original, others, deadline);
        if let Some(reply) = passed.await? {
            return Ok(Completed::Elsewhere(Box::new(reply)));
        }
    }
    let recruits = recruit(&node, &write, &configuration, as_member, deadline).await?;
    let basis = write.context.clone().map_or(Basis::Overwrite, Basis::Causal);
    let sent = match mint(&node, &write, basis, &configuration, as_member, deadline).await {
        Err(RequestError::NoSpace(progress)) => {
            return pass_on_for_room(&node, &write, &original, progress, deadline).await;
        }
        minted => minted?,
    };
    let as_member = sent.own.is_some();
    let first = sent.updated.clone();
    let (outcome, uncovered) = Spread::run(&node, &write, sent, recruits, deadline).await?;
    let (updated, outcome) = match uncovered {
        Some(uncovered) if write.context.is_none() => {
            again(&node, &write, first, uncovered, outcome, as_member, deadline).await?
        }
        _ => (first, outcome),
    };
    let Updated { dot, client_context } = updated;
    Ok(Completed::Here(Box::new(Written { dot, client_context, outcome })))
}

/// The second attempt of an overwriting write, as in a strict bucket: a counted node held what the
/// write must replace and did not know.
async fn again(
    node: &Arc<Node>,
    write: &Write,
    first: Updated,
    uncovered: Context,
    outcome: Outcome,
    as_member: bool,
    deadline: Deadline,
) -> Result<(Updated, Outcome), RequestError> {
    let basis = Basis::OverwriteAgain { first, uncovered };
    let configuration = Arc::clone(&outcome.configuration);
    // By the record that holds the first attempt, or not at all.
    let sent = if as_member {
        mint_as_member(node, write, basis, deadline).await.ok().flatten()
    } else {
        hold(node, write, basis, &configuration).await.ok()
    };
    let Some(sent) = sent else {
        return Err(outcome.in_doubt());
    };
    let updated = sent.updated.clone();
    let (outcome, _) = Spread::run(node, write, sent, Vec::new(), deadline).await?;
    Ok((updated, outcome))
}

/// A minted write on its way.
struct Sent {
    configuration: Arc<Configuration>,
    parcel: Parcel,
    updated: Updated,
    /// Minted as a member: tells when it is durable here. None: it is held here, durably.
    own: Option<put::Durable>,
}

/// Mints the write as a member; as one who holds the record if that does not work out.
async fn mint(
    node: &Arc<Node>,
    write: &Write,
    basis: Basis,
    configuration: &Arc<Configuration>,
    as_member: bool,
    deadline: Deadline,
) -> Result<Sent, RequestError> {
    if as_member && let Some(sent) = mint_as_member(node, write, basis.clone(), deadline).await? {
        return Ok(sent);
    }
    hold(node, write, basis, configuration).await
}

/// None when this store does not mint now: nothing was written.
async fn mint_as_member(
    node: &Arc<Node>,
    write: &Write,
    basis: Basis,
    deadline: Deadline,
) -> Result<Option<Sent>, RequestError> {
    let soon = Deadline::after(deadline.left().min(MINT_PATIENCE));
    match put::mint(node, write, basis, false, soon).await {
        Ok(Mint::Here(configuration, minted)) => {
            let parcel = Parcel::new(minted.record, configuration.epoch);
            let (updated, own) = (minted.updated, Some(minted.durable));
            Ok(Some(Sent { configuration, parcel, updated, own }))
        }
        Ok(Mint::Full(progress)) => Err(RequestError::NoSpace(progress)),
        Ok(Mint::Elsewhere | Mint::Known(_))
        | Err(
            RequestError::Late { .. } | RequestError::NotLocated { .. } | RequestError::Damaged(_),
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Mints the write into a record that this node holds for the members.
async fn hold(
    node: &Arc<Node>,
    write: &Write,
    basis: Basis,
    configuration: &Arc<Configuration>,
) -> Result<Sent, RequestError> {
    let shard = write.at.shard;
    let configuration = node.directory.get(shard).unwrap_or_else(|| Arc::clone(configuration));
    let Ok(fresh) = random::bytes(&*node.platform) else {
        return Err(broken(node, "the operating system gives no random bytes"));
    };
    let begun = matches!(basis, Basis::OverwriteAgain { .. });
    let mint = HeldMint {
        at: write.at.clone(),
        change: write.change.clone(),
        basis,
        known: configuration.epoch,
        fresh: ActorId::new(u64::from_be_bytes(fresh)),
        now_ms: node.clock.now_ms(),
        wanted: if begun { Wanted::always() } else { write.wanted.clone() },
    };
    match node.local.mint_held(mint).await {
        Ok(minted) => {
            let parcel = Parcel::new(minted.record, minted.stamp);
            Ok(Sent { configuration, parcel, updated: minted.updated, own: None })
        }
        Err(WriteError::Refused(refusal)) => Err(refused(node, write, &configuration, &refusal)),
        Err(WriteError::Store(error)) => Err(store_failed(node, &error, true)),
        Err(WriteError::Known(_)) => Err(broken(node, "a held record knows no request ids")),
    }
}

/// Something that this node cannot do now, through no fault of the request.
fn broken(node: &Node, why: &str) -> RequestError {
    RequestError::Overloaded {
        node: node.identity.name.to_string(),
        why: why.to_owned(),
        limit: None,
        retry_after: node.door.retry_after(Duration::ZERO),
    }
}

/// This node holds nothing: nothing was written.
fn refused(
    node: &Node,
    write: &Write,
    configuration: &Configuration,
    refusal: &Refusal,
) -> RequestError {
    match refusal {
        Refusal::SiblingLimit { siblings, limit } => {
            RequestError::SiblingLimit { size: *siblings, limit: *limit }
        }
        Refusal::ContextLimit { entries, limit } => {
            RequestError::ContextLimit { size: *entries, limit: *limit }
        }
        Refusal::HintsFull => {
            hints_full(node);
            RequestError::HintsFull(nothing_written(node, write, configuration))
        }
        Refusal::NoSpace => RequestError::NoSpace(nothing_written(node, write, configuration)),
        Refusal::Damaged => RequestError::Damaged(nothing_written(node, write, configuration)),
        _ => queue_overloaded(node),
    }
}

/// This node has refused to hold something.
pub(crate) fn hints_full(node: &Node) {
    let totals = node.hints.with(|book| book.totals());
    let detail = format!(
        "{} held records; hints take {} of {} bytes (storage.hint_bytes)",
        totals.held, totals.bytes, node.config.storage.hint_bytes
    );
    node.alarms.raise(AlarmName::HintsFull, detail);
}

fn nothing_written(node: &Node, write: &Write, configuration: &Configuration) -> Progress {
    let requirement = Requirement::new(write.level, configuration, Operation::Write);
    before_any_answer(node, write.level, configuration, &requirement, |member| {
        if node.liveness(member.node) == Liveness::Alive {
            ReplicaResult::Pending
        } else {
            ReplicaResult::Failed(Failure::Unreachable)
        }
    })
}

/// Who should run the request rather than this node: a living member; without any, the nodes that
/// come before this one clockwise, so that writes to a key meet in one place.
fn better_placed(node: &Node, configuration: &Configuration, hops: u32) -> Vec<NodeId> {
    if hops >= HOPS_MAX {
        return Vec::new();
    }
    let mut nodes = living_members(node, configuration);
    if nodes.is_empty() && hops == 0 {
        let others = fallbacks(node, configuration);
        nodes.extend(others.into_iter().take_while(|other| *other != node.me()));
    }
    nodes
}

fn living_members(node: &Node, configuration: &Configuration) -> Vec<NodeId> {
    let members = configuration.read_set().iter().map(|member| member.node);
    members
        .filter(|other| *other != node.me() && node.liveness(*other) == Liveness::Alive)
        .collect()
}

/// The living nodes that may stand in for members, in ring order from the shard's end.
fn fallbacks(node: &Node, configuration: &Configuration) -> Vec<NodeId> {
    let members = configuration.members();
    let end = node.cluster.shards.end(configuration.shard);
    let mut nodes = node.ring.view().known_clockwise(end);
    if !nodes.contains(&node.me()) {
        nodes.push(node.me());
    }
    nodes.retain(|other| {
        members.iter().all(|member| member.node != *other)
            && node.liveness(*other) == Liveness::Alive
            // One that leaves would have to bring it home first.
            && node.book.get(*other).is_none_or(|known| known.state != NodeState::Leaving)
    });
    nodes.truncate(FALLBACKS);
    nodes
}

/// Before anything is written: finds so many nodes ready to stand in as are needed besides the
/// living members and this node.
async fn recruit(
    node: &Arc<Node>,
    write: &Write,
    configuration: &Configuration,
    as_member: bool,
    deadline: Deadline,
) -> Result<Vec<NodeId>, RequestError> {
    let requirement = Requirement::new(write.level, configuration, Operation::Write);
    let alive =
        |member: &triad_replica::member::Member| node.liveness(member.node) == Liveness::Alive;
    let members = requirement.members().iter().filter(|member| alive(member)).count();
    let sides = requirement.groups().iter();
    let strict = sides
        .clone()
        .all(|group| group.members.iter().filter(|member| alive(member)).count() >= group.needed);
    if strict && as_member {
        return Ok(Vec::new());
    }
    let here = usize::from(!as_member);
    let short = requirement.needed().saturating_sub(members + here);
    // Without a majority of members one holder at least has to bring it to them.
    let wanted = short.max(usize::from(as_member));
    if wanted == 0 {
        return Ok(Vec::new());
    }
    let mut others = fallbacks(node, configuration);
    others.retain(|other| *other != node.me());
    let (ready, full) = ready_to_hold(node, write, others, deadline).await;
    if ready.len() >= wanted {
        return Ok(ready);
    }
    let progress = nothing_written(node, write, configuration);
    Err(if full { RequestError::HintsFull(progress) } else { RequestError::QuorumNotMet(progress) })
}

/// Which of these nodes would hold the write, and whether any has no room for it.
async fn ready_to_hold(
    node: &Arc<Node>,
    write: &Write,
    others: Vec<NodeId>,
    deadline: Deadline,
) -> (Vec<NodeId>, bool) {
    let patience = Deadline::after(node.config.timeouts.peer.min(deadline.left() / 2));
    let bytes = write.at.key.len()
        + match &write.change {
            Change::Put { value, .. } => value.len(),
            Change::Delete => 0,
        };
    let questions = others.into_iter().map(|other| {
        let request = data::may_hold_request(&write.at, bytes as u64, patience);
        let answer = node.peers.data(other, request);
        async move { (other, data::merge_answer(answer.within(patience.left()).await).answer) }
    });
    let mut ready = Vec::new();
    let mut full = false;
    for (other, answer) in futures::future::join_all(questions).await {
        use triad_replica::put::PutAnswer;
        match answer {
            PutAnswer::Stored { .. } => ready.push(other),
            PutAnswer::Failed(failure) => full |= failure == Failure::NoSpace,
        }
    }
    (ready, full)
}

/// The shard's newest configuration as far as this node knows it.
fn newest(node: &Node, shard: ShardId, known: &Arc<Configuration>) -> Arc<Configuration> {
    node.directory.get(shard).unwrap_or_else(|| Arc::clone(known))
}
