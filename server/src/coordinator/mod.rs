//! One client request, from here to the replicas and back.
//!
//! A request is run by a member of its shard. Any other node finds the shard's configuration
//! and forwards the request one hop; if the configuration it knew was old, the answer of the
//! replicas carries the newer one, and the request goes on with that.

mod again;
pub(crate) mod error;
mod forward;
mod get;
mod locate;
mod missed;
mod put;
mod repair;
mod repeat;
mod reread;
mod room;
mod sloppy;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use triad_proto::peer::v1 as wire;
use triad_replica::configuration::{Configuration, Epoch};
use triad_replica::consistency::{Failure, Level, ReplicaResult, Requirement};
use triad_replica::context::Context;
use triad_replica::dot::Dot;
use triad_replica::member::Member;
use triad_replica::record::{Change, Record};
use triad_ring::{NodeId, ShardId};

use crate::deadline::Deadline;
use crate::liveness::Liveness;
use crate::local::{Address, Wanted};
use crate::node::Node;
use crate::peers::data;

pub(crate) use forward::{Forwardable, Reply, overloaded, to_wire};
pub(crate) use locate::{locate, locate_by_ring, refresh};
pub(crate) use repair::Repairs;
pub(crate) use repeat::Asked;
pub(crate) use room::Room;

pub(crate) use sloppy::{FALLBACKS, hints_full};

use error::{Progress, RequestError};

/// How often a request may be passed on before somebody must run it.
pub(crate) const HOPS_MAX: u32 = 2;

/// A Put or a Delete.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) at: Address,
    pub(crate) change: Change,
    /// None: overwrite.
    pub(crate) context: Option<Context>,
    pub(crate) level: Level,
    /// The request id, if it came with one.
    pub(crate) request: Option<Asked>,
    /// Until when it is worth beginning.
    pub(crate) wanted: Wanted,
}

/// A Get.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) at: Address,
    pub(crate) level: Level,
}

/// Runs a Put or a Delete as its bucket promises, here or at another node.
pub(crate) async fn write(
    node: &Arc<Node>,
    write: Write,
    original: Forwardable,
    deadline: Deadline,
) -> Result<Completed<Written>, RequestError> {
    if sloppy::is_sloppy(&write.at) {
        sloppy::write(node, write, original, deadline).await
    } else {
        put::write(node, write, original, deadline).await
    }
}

/// Runs a Get as its bucket promises, here or at another node.
pub(crate) async fn get(
    node: &Arc<Node>,
    read: Read,
    original: Forwardable,
    deadline: Deadline,
) -> Result<Completed<Found>, RequestError> {
    if sloppy::is_sloppy(&read.at) {
        sloppy::get(node, read, original, deadline).await
    } else {
        get::get(node, read, original, deadline).await
    }
}

/// What became of one member's part, with its name and its time.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) result: ReplicaResult,
    pub(crate) elapsed: Option<Duration>,
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.result)
    }
}

/// How a request was answered: the facts of the reply's `Outcome`.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) level: Level,
    pub(crate) needed: u32,
    pub(crate) acknowledged: u32,
    pub(crate) replicas: Vec<Answered>,
    pub(crate) diverged: bool,
    /// Replicas that a read at ALL found behind and brought level before it was answered.
    pub(crate) repaired: u32,
    /// In an `any.` bucket: what the answer is worth.
    pub(crate) sloppy: Option<Sloppy>,
    pub(crate) shard: ShardId,
    pub(crate) epoch: Epoch,
    pub(crate) elapsed: Duration,
    pub(crate) configuration: Arc<Configuration>,
}

impl Outcome {
    /// For a write that got so far and not to its end.
    pub(crate) fn in_doubt(self) -> RequestError {
        RequestError::WriteInDoubt(Progress {
            level: self.level,
            needed: self.needed,
            acknowledged: self.acknowledged,
            replicas: self.replicas,
            shard: self.shard,
            epoch: Some(self.epoch),
        })
    }
}

/// How an answer came about in an `any.` bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sloppy {
    /// Fewer members answered than a strict bucket would have needed.
    pub(crate) degraded: bool,
    /// How many members answered.
    pub(crate) home_acknowledged: u32,
}

/// A write that was acknowledged.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) dot: Option<Dot>,
    pub(crate) client_context: Context,
    pub(crate) outcome: Outcome,
}

/// A read that was answered.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) outcome: Outcome,
}

/// A request that this node ran, or the reply of the member that did.
#[derive(Debug)]
pub(crate) enum Completed<T> {
    /// Run here.
    Here(Box<T>),
    /// Run by another member.
    Elsewhere(Box<Reply>),
}

/// Times of the members' answers during one attempt.
struct Attempt<'a> {
    node: &'a Node,
    deadline: Deadline,
    times: Vec<(Member, Duration)>,
}

impl<'a> Attempt<'a> {
    fn new(node: &'a Node, deadline: Deadline) -> Self {
        Self { node, deadline, times: Vec::new() }
    }

    fn note(&mut self, member: Member) {
        self.times.push((member, self.deadline.waited()));
    }

    /// The same for an error: at the deadline, who has not answered has timed out.
    fn unfinished(&self, results: Vec<(Member, ReplicaResult)>) -> Vec<Answered> {
        self.answered(if self.deadline.passed() { timed_out(results) } else { results })
    }

    /// The members' results with names and times.
    fn answered(&self, results: Vec<(Member, ReplicaResult)>) -> Vec<Answered> {
        results
            .into_iter()
            .map(|(member, result)| Answered {
                node: member.node,
                name: self.node.book.name(member.node),
                result,
                elapsed: self
                    .times
                    .iter()
                    .find(|(known, _)| *known == member)
                    .map(|(_, time)| *time),
            })
            .collect()
    }
}

/// At the deadline, who has not answered has timed out.
fn timed_out(results: Vec<(Member, ReplicaResult)>) -> Vec<(Member, ReplicaResult)> {
    results
        .into_iter()
        .map(|(member, result)| match result {
            ReplicaResult::Pending => (member, ReplicaResult::Failed(Failure::Timeout)),
            other => (member, other),
        })
        .collect()
}

/// Refuses at once what liveness already shows to be impossible: nothing is sent then.
fn refuse_hopeless(
    node: &Node,
    level: Level,
    configuration: &Configuration,
    requirement: &Requirement,
) -> Result<(), Progress> {
    let expected = |member: &Member| expected_of(node, member);
    refuse_short(node, level, configuration, requirement, expected)
}

/// What liveness leaves to expect of a member.
fn expected_of(node: &Node, member: &Member) -> ReplicaResult {
    if node.liveness(member.node) == Liveness::Down {
        ReplicaResult::Failed(Failure::Unreachable)
    } else {
        ReplicaResult::Pending
    }
}

/// Refuses what too few members can do, by what is expected of each.
fn refuse_short(
    node: &Node,
    level: Level,
    configuration: &Configuration,
    requirement: &Requirement,
    expected: impl Fn(&Member) -> ReplicaResult,
) -> Result<(), Progress> {
    let possible = |member: &&Member| expected(member) == ReplicaResult::Pending;
    let short = |members: &[Member], needed| members.iter().filter(possible).count() < needed;
    if !requirement.groups().iter().any(|group| short(&group.members, group.needed)) {
        return Ok(());
    }
    Err(before_any_answer(node, level, configuration, requirement, expected))
}

/// The progress of a request that no replica has acknowledged.
fn before_any_answer(
    node: &Node,
    level: Level,
    configuration: &Configuration,
    requirement: &Requirement,
    result: impl Fn(&Member) -> ReplicaResult,
) -> Progress {
    let replicas = requirement
        .members()
        .into_iter()
        .map(|member| Answered {
            node: member.node,
            name: node.book.name(member.node),
            result: result(&member),
            elapsed: None,
        })
        .collect();
    Progress {
        level,
        needed: requirement.needed() as u32,
        acknowledged: 0,
        replicas,
        shard: configuration.shard,
        epoch: Some(configuration.epoch),
    }
}

/// A member refused and told the configuration it knows. True when that is newer than the one
/// used; a member that is behind is told what it missed.
fn heard_of(
    node: &Arc<Node>,
    member: Member,
    used: &Configuration,
    newest: &Configuration,
) -> bool {
    if newest.epoch < used.epoch && member.node == node.me() {
        let (node, used) = (Arc::clone(node), used.clone());
        let tasks = node.tasks.clone();
        tasks.spawn(async move { crate::moves::learn(&node, &used).await });
        return false;
    }
    if newest.epoch < used.epoch {
        crate::moves::teach(node, member.node, used);
        return false;
    }
    node.directory.learn(newest);
    newest.epoch > used.epoch
}

/// Pauses between attempts when a shard is between two configurations: the next is decided
/// within milliseconds, unless its proposer died.
struct Pauses {
    next: Duration,
}

impl Pauses {
    const FIRST: Duration = Duration::from_millis(2);
    const LONGEST: Duration = Duration::from_millis(100);

    fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// Sleeps, but not beyond the deadline.
    async fn pause(&mut self, node: &Node, deadline: Deadline) {
        let pause = node.spread(self.next).min(deadline.left());
        self.next = (self.next * 2).min(Self::LONGEST);
        tokio::time::sleep(pause).await;
    }
}

/// A record on its way to other replicas, encoded once.
#[derive(Clone, Debug)]
struct Parcel {
    encoded: Bytes,
    record: Record,
    /// The epoch in which it was minted. It stays when the record is sent again in a later one.
    stamp: Epoch,
}

impl Parcel {
    fn new(record: Record, stamp: Epoch) -> Self {
        Self { encoded: record.encode(), record, stamp }
    }

    /// Asks a replica that serves `epoch` to merge it.
    fn merge_request(&self, at: &Address, epoch: Epoch, deadline: Deadline) -> wire::DataRequest {
        data::merge_request(at, epoch, self.stamp, &self.encoded, deadline)
    }
}
