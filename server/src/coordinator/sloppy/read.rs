//! Reads of `any.` buckets: the members that answer, and what other nodes hold for those that
//! do not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use triad_replica::configuration::Configuration;
use triad_replica::consistency::{Failure, ReplicaResult, Verdict};
use triad_replica::get::{GetAnswer, GetTally};
use triad_replica::record::{Record, RecordDigest};
use triad_replica::refusal::Refusal;
use triad_ring::NodeId;

use super::{fallbacks, living_members, newest};
use crate::coordinator::error::{Progress, RequestError};
use crate::coordinator::forward::{Forwardable, pass_on};
use crate::coordinator::get::{Answers, ask_others, may_read_soon};
use crate::coordinator::locate::{locate, refresh};
use crate::coordinator::put::store_failed;
use crate::coordinator::{
    Answered, Attempt, Completed, Found, HOPS_MAX, Outcome, Pauses, Read, Sloppy, heard_of,
};
use crate::deadline::Deadline;
use crate::liveness::Liveness;
use crate::local::WriteError;
use crate::node::Node;
use crate::peers::data;

/// How long those who seem to be there are waited for when enough have answered and not all
/// members are there: who answers late may be the one that knows.
const GRACE: Duration = Duration::from_millis(100);

/// Runs a read, or has a living member run it.
pub(in crate::coordinator) async fn get(
    node: &Arc<Node>,
    read: Read,
    original: Forwardable,
    deadline: Deadline,
) -> Result<Completed<Found>, RequestError> {
    let shard = read.at.shard;
    let mut configuration = locate(node, shard, deadline).await?;
    if !may_read_soon(node, &configuration) && original.hops < HOPS_MAX {
        let members = living_members(node, &configuration);
        let passed = pass_on(node, &configuration, read.level, &original, members, deadline);
        if let Some(reply) = passed.await? {
            return Ok(Completed::Elsewhere(Box::new(reply)));
        }
    }
    let mut pauses = Pauses::new();
    loop {
        configuration = newest(node, shard, &configuration);
        match Gathering::start(node, &read, &configuration, deadline)?.run().await {
            Ended::Found(found) => return Ok(Completed::Here(found)),
            Ended::Failed(error) => return Err(error),
            Ended::Stale => {
                pauses.pause(node, deadline).await;
                refresh(node, shard).await;
            }
        }
    }
}

/// How one attempt ended.
enum Ended {
    Found(Box<Found>),
    /// Members serve another epoch.
    Stale,
    Failed(RequestError),
}

/// One attempt in one epoch.
struct Gathering<'a> {
    node: &'a Arc<Node>,
    read: &'a Read,
    configuration: &'a Arc<Configuration>,
    deadline: Deadline,
    tally: GetTally,
    attempt: Attempt<'a>,
    digest: RecordDigest,
    /// What nodes hold that are no members, this one first.
    held: Record,
    members: Answers,
    holders: FuturesUnordered<BoxFuture<'static, (NodeId, GetAnswer)>>,
    asked: Vec<Answered>,
    fallbacks: VecDeque<NodeId>,
    absent: bool,
    stale: bool,
}

impl<'a> Gathering<'a> {
    fn start(
        node: &'a Arc<Node>,
        read: &'a Read,
        configuration: &'a Arc<Configuration>,
        deadline: Deadline,
    ) -> Result<Self, RequestError> {
        // One that cannot be read is nobody's answer; handoff counts it as lost.
        let held = node.local.held(&read.at).ok().flatten().map(|held| held.record);
        let (own, failure) = match node.local.read(&read.at, configuration.epoch) {
            Ok(record) => (Some(record), None),
            Err(WriteError::Refused(refusal)) => (None, Some(refusal)),
            Err(WriteError::Store(error)) => return Err(store_failed(node, &error, false)),
            Err(WriteError::Known(_)) => (None, None), // of writes only
        };
        let sent = own.clone().unwrap_or_default();
        let mut gathering = Self {
            node,
            read,
            configuration,
            deadline,
            attempt: Attempt::new(node, deadline),
            digest: sent.digest(),
            members: ask_others(node, read, configuration, &sent, deadline),
            tally: GetTally::new(read.level, configuration, sent),
            held: held.unwrap_or_default(),
            holders: FuturesUnordered::new(),
            asked: Vec::new(),
            fallbacks: fallbacks(node, configuration).into(),
            absent: false,
            stale: matches!(failure, Some(Refusal::StaleEpoch { .. })),
        };
        gathering.count_own(own.is_some(), failure.as_ref());
        let absent = gathering.absent_members();
        gathering.absent = absent > 0;
        let wanted = if absent > 0 { absent + 1 } else { 0 };
        (0..wanted).for_each(|_| gathering.ask_next_holder());
        Ok(gathering)
    }

    /// This node counts as a member, or as one who may hold something.
    fn count_own(&mut self, reads: bool, refusal: Option<&Refusal>) {
        let me = self.node.member();
        self.attempt.note(me);
        if reads {
            self.tally.record(me, GetAnswer::Same);
        } else if let Some(refusal) = refusal {
            self.tally.record(me, GetAnswer::Failed(Failure::from(refusal)));
        }
        self.fallbacks.retain(|other| *other != me.node);
        if !self.configuration.read_set().iter().any(|member| member.node == me.node) {
            let name = self.node.identity.name.to_string();
            let elapsed = Some(self.deadline.waited());
            self.asked.push(Answered { node: me.node, name, result: ReplicaResult::Ok, elapsed });
        }
    }

    fn absent_members(&self) -> usize {
        let members = self.configuration.read_set().iter();
        members.filter(|member| self.node.liveness(member.node) != Liveness::Alive).count()
    }

    fn ask_next_holder(&mut self) {
        let Some(other) = self.fallbacks.pop_front() else {
            return;
        };
        let request = data::read_held_request(&self.read.at, self.digest, self.deadline);
        let answer = self.node.peers.data(other, request);
        self.holders
            .push(Box::pin(async move { (other, data::read_answer(answer.wait().await).0) }));
        let name = self.node.book.name(other);
        let result = ReplicaResult::Pending;
        self.asked.push(Answered { node: other, name, result, elapsed: None });
    }

    fn answered(&self) -> usize {
        let ok = |asked: &&Answered| asked.result == ReplicaResult::Ok;
        self.tally.acknowledged() + self.asked.iter().filter(ok).count()
    }

    async fn run(mut self) -> Ended {
        let mut grace = None;
        loop {
            let home = self.tally.verdict() == Verdict::Enough;
            if home && !self.absent {
                return Ended::Found(Box::new(self.finish()));
            }
            let all_in = self.members.is_empty() && self.holders.is_empty();
            if self.answered() >= self.tally.needed() {
                let end = *grace.get_or_insert(Instant::now() + GRACE);
                // The grace may end behind the deadline, where there is nothing left to wait for.
                if all_in || Instant::now() >= end || self.deadline.passed() {
                    return Ended::Found(Box::new(self.finish()));
                }
            } else if all_in || self.deadline.passed() {
                return self.failed();
            }
            if self.next(grace.unwrap_or(self.deadline.at())).await {
                return Ended::Stale;
            }
        }
    }

    /// Takes one answer, or lets time pass. True when the members are others by now.
    async fn next(&mut self, until: Instant) -> bool {
        tokio::select! {
            biased;
            Some((member, answer, newest)) = self.members.next(), if !self.members.is_empty() => {
                self.attempt.note(member);
                let newer = newest
                    .is_some_and(|newest| heard_of(self.node, member, self.configuration, &newest));
                self.stale |= matches!(answer, GetAnswer::Failed(Failure::StaleEpoch));
                if matches!(answer, GetAnswer::Failed(_)) {
                    self.absent = true;
                    self.ask_next_holder();
                }
                return self.tally.record(member, answer) != Verdict::Enough && newer;
            }
            Some((holder, answer)) = self.holders.next(), if !self.holders.is_empty() => {
                let result = match answer {
                    GetAnswer::Same => ReplicaResult::Ok,
                    GetAnswer::Record(record) => {
                        self.held.merge(&record);
                        ReplicaResult::Ok
                    }
                    GetAnswer::Failed(failure) => {
                        self.ask_next_holder();
                        ReplicaResult::Failed(failure)
                    }
                };
                let waited = self.deadline.waited();
                for asked in self.asked.iter_mut().filter(|asked| asked.node == holder) {
                    asked.result = result;
                    asked.elapsed = Some(waited);
                }
            }
            () = sleep_until(until.min(self.deadline.at())) => {}
        }
        false
    }

    fn finish(self) -> Found {
        let mut record = self.tally.merged().clone();
        let behind = record.merge(&self.held);
        let acknowledged = self.answered() as u32;
        let mut replicas = self.attempt.answered(self.tally.results());
        replicas.extend(self.asked);
        let outcome = Outcome {
            level: self.read.level,
            needed: self.tally.needed() as u32,
            acknowledged,
            replicas,
            diverged: self.tally.diverged() || behind,
            repaired: 0,
            sloppy: Some(Sloppy {
                degraded: self.tally.verdict() != Verdict::Enough,
                home_acknowledged: self.tally.acknowledged() as u32,
            }),
            shard: self.configuration.shard,
            epoch: self.configuration.epoch,
            elapsed: self.deadline.waited(),
            configuration: Arc::clone(self.configuration),
        };
        Found { record, outcome }
    }

    fn failed(self) -> Ended {
        if self.stale && !self.deadline.passed() {
            return Ended::Stale;
        }
        let acknowledged = self.answered() as u32;
        let mut replicas = self.attempt.unfinished(self.tally.results());
        replicas.extend(self.asked);
        let progress = Progress {
            level: self.read.level,
            needed: self.tally.needed() as u32,
            acknowledged,
            replicas,
            shard: self.configuration.shard,
            epoch: Some(self.configuration.epoch),
        };
        Ended::Failed(if self.deadline.passed() {
            RequestError::DeadlineExceeded { progress, waited: self.deadline.waited() }
        } else {
            RequestError::ReadQuorumNotMet(progress)
        })
    }
}
