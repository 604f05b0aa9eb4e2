//! Sends a minted write to the members, and to nodes that hold it for those who do not answer.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use triad_replica::configuration::Configuration;
use triad_replica::consistency::{Failure, ReplicaResult};
use triad_replica::context::Context;
use triad_replica::put::PutAnswer;
use triad_replica::sloppy::SloppyTally;
use triad_ring::NodeId;

use super::{Sent, fallbacks, newest};
use crate::coordinator::error::{Progress, RequestError};
use crate::coordinator::locate::refresh;
use crate::coordinator::missed::{self, Answers};
use crate::coordinator::{
    Answered, Attempt, Outcome, Parcel, Pauses, Sloppy, Write, heard_of, put,
};
use crate::deadline::Deadline;
use crate::liveness::Liveness;
use crate::node::Node;
use crate::peers::data;

/// How one write is getting on.
pub(super) struct Spread<'a> {
    node: &'a Arc<Node>,
    write: &'a Write,
    parcel: Parcel,
    deadline: Deadline,
    configuration: Arc<Configuration>,
    tally: SloppyTally,
    attempt: Attempt<'a>,
    members: Answers,
    holders: FuturesUnordered<BoxFuture<'static, (NodeId, PutAnswer)>>,
    /// Everybody asked to hold it, with what became of it.
    asked: Vec<Answered>,
    fallbacks: VecDeque<NodeId>,
    /// A member serves another epoch, or none at the moment.
    stale: bool,
}

/// What happened next.
enum Event {
    Answer,
    Silence,
}

impl<'a> Spread<'a> {
    /// Gets the write to as many nodes as its level asks for. Also returns what they held that it
    /// does not cover.
    pub(super) async fn run(
        node: &'a Arc<Node>,
        write: &'a Write,
        sent: Sent,
        recruits: Vec<NodeId>,
        deadline: Deadline,
    ) -> Result<(Outcome, Option<Context>), RequestError> {
        let Sent { configuration, parcel, own, .. } = sent;
        let mut others: VecDeque<NodeId> = recruits.into();
        let more = fallbacks(node, &configuration);
        let more: Vec<NodeId> = more.into_iter().filter(|one| !others.contains(one)).collect();
        others.extend(more);
        others.retain(|other| *other != node.me());
        let mut spread = Self {
            node,
            write,
            parcel,
            deadline,
            tally: SloppyTally::new(write.level, &configuration),
            configuration,
            attempt: Attempt::new(node, deadline),
            members: Answers::new(),
            holders: FuturesUnordered::new(),
            asked: Vec::new(),
            fallbacks: others,
            stale: false,
        };
        let held_here = own.is_none();
        spread.ask_members(own);
        if held_here {
            spread.tally.hold(node.me(), None);
            let name = node.identity.name.to_string();
            let elapsed = Some(deadline.waited());
            let result = ReplicaResult::Ok;
            spread.asked.push(Answered { node: node.me(), name, result, elapsed });
        }
        let absent = spread.absent().saturating_sub(usize::from(held_here));
        for _ in 0..absent {
            spread.ask_next_holder();
        }
        spread.count().await
    }

    async fn count(mut self) -> Result<(Outcome, Option<Context>), RequestError> {
        let timeout = self.node.config.timeouts.peer;
        let mut patience = Instant::now() + timeout.min(self.deadline.left() / 2);
        let mut pauses = Pauses::new();
        loop {
            if self.tally.is_enough() {
                return Ok(self.finish());
            }
            if self.members.is_empty() && self.holders.is_empty() && !self.ask_next_holder() {
                if !self.stale || self.deadline.passed() {
                    return Err(self.failed());
                }
                // Between two epochs, which is over soon unless its proposer died.
                pauses.pause(self.node, self.deadline).await;
                refresh(self.node, self.configuration.shard).await;
                self.restart();
            }
            match self.next(patience).await {
                Event::Answer => {}
                Event::Silence if self.deadline.passed() => return Err(self.failed()),
                Event::Silence => {
                    // Whoever is still silent is stood in for, as if it were gone.
                    patience = self.deadline.at();
                    let silent = self.members.len() + self.holders.len();
                    for _ in 0..silent {
                        self.ask_next_holder();
                    }
                }
            }
        }
    }

    async fn next(&mut self, patience: Instant) -> Event {
        let until = patience.min(self.deadline.at());
        tokio::select! {
            biased;
            Some((member, answer, newest)) = self.members.next(), if !self.members.is_empty() => {
                self.attempt.note(member);
                let heard = newest.as_ref();
                let newer =
                    heard.is_some_and(|newest| heard_of(self.node, member, &self.configuration, newest));
                self.stale |= matches!(answer, PutAnswer::Failed(Failure::StaleEpoch));
                let failed = matches!(answer, PutAnswer::Failed(_));
                self.tally.record(member, answer);
                if newer && !self.tally.is_enough() {
                    self.restart();
                } else if failed {
                    self.ask_next_holder();
                }
            }
            Some((holder, answer)) = self.holders.next(), if !self.holders.is_empty() => {
                let result = match answer {
                    PutAnswer::Stored { uncovered } => {
                        self.tally.hold(holder, uncovered.as_ref());
                        ReplicaResult::Ok
                    }
                    PutAnswer::Failed(failure) => {
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
            () = sleep_until(until) => return Event::Silence,
        }
        Event::Answer
    }

    /// Members that do not seem to be there.
    fn absent(&self) -> usize {
        let members = self.configuration.members();
        let absent = |member: &&triad_replica::member::Member| {
            self.node.liveness(member.node) != Liveness::Alive
        };
        members.iter().filter(absent).count()
    }

    fn ask_members(&mut self, own: Option<put::Durable>) {
        let Self { node, write, configuration, parcel, deadline, .. } = self;
        self.members = put::send(node, write, configuration, parcel, own, *deadline);
    }

    /// Who the members are has changed: they are asked anew, the dot stays.
    fn restart(&mut self) {
        self.configuration = newest(self.node, self.configuration.shard, &self.configuration);
        self.tally.restart(&self.configuration);
        self.stale = false;
        self.ask_members(None);
    }

    /// Asks one more node to hold it. False when there is none.
    fn ask_next_holder(&mut self) -> bool {
        let Some(other) = self.fallbacks.pop_front() else {
            return false;
        };
        let Parcel { encoded, stamp, .. } = &self.parcel;
        let request = data::hold_request(&self.write.at, *stamp, encoded, self.deadline);
        let answer = self.node.peers.data(other, request);
        self.holders
            .push(Box::pin(async move { (other, data::merge_answer(answer.wait().await).answer) }));
        let name = self.node.book.name(other);
        self.asked.push(Answered {
            node: other,
            name,
            result: ReplicaResult::Pending,
            elapsed: None,
        });
        true
    }

    /// Acknowledges; what is still out is followed without anybody waiting for it.
    fn finish(self) -> (Outcome, Option<Context>) {
        let mut results = self.tally.results();
        for (_, result) in &mut results {
            if matches!(result, ReplicaResult::Failed(_)) && self.tally.is_held() {
                *result = ReplicaResult::Failed(Failure::Hinted);
            }
        }
        let mut replicas = self.attempt.answered(results);
        replicas.extend(self.asked);
        let outcome = Outcome {
            level: self.write.level,
            needed: self.tally.needed() as u32,
            acknowledged: self.tally.acknowledged() as u32,
            replicas,
            diverged: self.tally.uncovered().is_some(),
            repaired: 0,
            sloppy: Some(Sloppy {
                degraded: self.tally.is_degraded(),
                home_acknowledged: self.tally.home_acknowledged() as u32,
            }),
            shard: self.configuration.shard,
            epoch: self.configuration.epoch,
            elapsed: self.deadline.waited(),
            configuration: self.configuration,
        };
        if !self.tally.is_held() {
            let missing = self.tally.missing();
            missed::follow(self.node, &self.write.at, missing, self.members, self.deadline);
        }
        (outcome, self.tally.uncovered())
    }

    /// Too few nodes have it, and some do.
    fn failed(self) -> RequestError {
        let mut replicas = self.attempt.unfinished(self.tally.results());
        replicas.extend(self.asked);
        let progress = Progress {
            level: self.write.level,
            needed: self.tally.needed() as u32,
            acknowledged: self.tally.acknowledged() as u32,
            replicas,
            shard: self.configuration.shard,
            epoch: Some(self.configuration.epoch),
        };
        if self.deadline.passed() {
            let waited = self.deadline.waited();
            return RequestError::WriteInDoubtAtDeadline { progress, waited };
        }
        RequestError::WriteInDoubt(progress)
    }
}
