//! Runs one Get: read here, compare with the others, merge.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use triad_replica::configuration::Configuration;
use triad_replica::consistency::{Failure, Level, Operation, Requirement, Verdict};
use triad_replica::get::{GetAnswer, GetTally};
use triad_replica::member::Member;
use triad_replica::record::Record;
use triad_replica::refusal::Refusal;
use triad_replica::shard::Access;

use super::error::{Progress, RequestError};
use super::forward::{Forwardable, forward, tried_too_often};
use super::locate::{locate, refresh};
use super::put::{catch_up, store_failed};
use super::repair::{self, Finding};
use super::{Attempt, Completed, Found, Outcome, Pauses, Read, refuse_hopeless};
use crate::deadline::Deadline;
use crate::introduce::soon_introduced;
use crate::local::WriteError;
use crate::node::Node;
use crate::peers::data;

/// Runs a read, or has a member of its shard run it.
pub(crate) async fn get(
    node: &Arc<Node>,
    read: Read,
    original: Forwardable,
    deadline: Deadline,
) -> Result<Completed<Found>, RequestError> {
    let shard = read.at.shard;
    soon_introduced(node, shard).await;
    let mut pauses = Pauses::new();
    loop {
        if deadline.passed() {
            return Err(RequestError::Late { shard, waited: deadline.waited() });
        }
        let configuration = locate(node, shard, deadline).await?;
        if !may_read_soon(node, &configuration) {
            let passed = forward(node, shard, read.level, &original, may_read_soon, deadline);
            match passed.await? {
                Some(reply) => return Ok(Completed::Elsewhere(Box::new(reply))),
                None => continue,
            }
        }
        let requirement = Requirement::new(read.level, &configuration, Operation::Read);
        refuse_hopeless(node, read.level, &configuration, &requirement)
            .map_err(RequestError::ReadQuorumNotMet)?;
        if let Some(found) = attempt(node, &read, &configuration, deadline).await? {
            return Ok(Completed::Here(Box::new(found)));
        }
        if !node.may_try_again() {
            return Err(tried_too_often(node));
        }
        pauses.pause(node, deadline).await;
        let known = node.directory.get(shard);
        if known.is_none_or(|known| known.epoch <= configuration.epoch) {
            refresh(node, shard).await;
        }
    }
}

/// Whether this node may answer reads, in the epoch it knows or in one it is about to learn.
pub(super) fn may_read_soon(node: &Node, configuration: &Configuration) -> bool {
    let check = |replica: &triad_replica::shard::ShardReplica| {
        replica.check(Access::Read, configuration.epoch)
    };
    match node.local.look(configuration.shard, check) {
        Some(Ok(())) => true,
        Some(Err(Refusal::StaleEpoch { .. })) => configuration.read_set().contains(&node.member()),
        _ => false,
    }
}

/// One member's answer, and a newer configuration if it told one.
type Answer = (Member, GetAnswer, Option<Configuration>);
/// The answers of the members that were asked, as they come.
pub(super) type Answers = FuturesUnordered<BoxFuture<'static, Answer>>;

/// One attempt in one epoch. None when the epoch is over.
async fn attempt(
    node: &Arc<Node>,
    read: &Read,
    configuration: &Arc<Configuration>,
    deadline: Deadline,
) -> Result<Option<Found>, RequestError> {
    let mut attempt = Attempt::new(node, deadline);
    let (sent, own) = match node.local.read(&read.at, configuration.epoch) {
        Ok(record) => (record, GetAnswer::Same),
        Err(WriteError::Refused(
            Refusal::StaleEpoch { newest } | Refusal::NotMember { newest: Some(newest) },
        )) => {
            catch_up(node, configuration, &Refusal::StaleEpoch { newest: newest.clone() }).await;
            node.directory.learn(&newest);
            return Ok(None);
        }
        Err(WriteError::Refused(refusal)) => {
            (Record::default(), GetAnswer::Failed(Failure::from(&refusal)))
        }
        Err(WriteError::Store(error)) => return Err(store_failed(node, &error, false)),
        Err(WriteError::Known(_)) => return Ok(None), // of writes only
    };
    let mut tally = GetTally::new(read.level, configuration, sent.clone());
    attempt.note(node.member());
    let mut verdict = tally.record(node.member(), own);
    let mut answers = Answers::new();
    if verdict == Verdict::Pending {
        answers = ask_others(node, read, configuration, &sent, deadline);
    }
    let mut stale = false;
    loop {
        match verdict {
            Verdict::Enough => {
                let mut found = found(read, configuration, &tally, &attempt, deadline);
                let (at, configuration) = (read.at.clone(), Arc::clone(configuration));
                let finding = Finding { at, configuration, tally };
                if read.level == Level::All {
                    found.outcome.repaired = repair::mend(node, &finding, deadline).await;
                    found.outcome.elapsed = deadline.waited();
                } else {
                    repair::follow_up(node, finding, answers);
                }
                return Ok(Some(found));
            }
            Verdict::Impossible if stale => return Ok(None),
            Verdict::Impossible => return Err(failed(read, configuration, &tally, &attempt)),
            Verdict::Pending => {}
        }
        let Ok(next) = tokio::time::timeout_at(deadline.at(), answers.next()).await else {
            let progress = progress(read, configuration, &tally, &attempt);
            return Err(RequestError::DeadlineExceeded { progress, waited: deadline.waited() });
        };
        let Some((member, answer, newest)) = next else {
            return Err(failed(read, configuration, &tally, &attempt));
        };
        attempt.note(member);
        let newer =
            newest.is_some_and(|newest| super::heard_of(node, member, configuration, &newest));
        stale |= matches!(answer, GetAnswer::Failed(Failure::StaleEpoch));
        verdict = tally.record(member, answer);
        if newer && verdict == Verdict::Pending {
            return Ok(None);
        }
    }
}

/// Asks the other members of the set that reads ask.
pub(super) fn ask_others(
    node: &Arc<Node>,
    read: &Read,
    configuration: &Configuration,
    sent: &Record,
    deadline: Deadline,
) -> Answers {
    let digest = sent.digest();
    let answers = Answers::new();
    for &member in configuration.read_set().iter().filter(|member| **member != node.member()) {
        let request = data::read_request(&read.at, configuration.epoch, digest, deadline);
        let answer = node.peers.data(member.node, request);
        answers.push(Box::pin(async move {
            let (answer, newest) = data::read_answer(answer.wait().await);
            (member, answer, newest)
        }));
    }
    answers
}

fn found(
    read: &Read,
    configuration: &Arc<Configuration>,
    tally: &GetTally,
    attempt: &Attempt<'_>,
    deadline: Deadline,
) -> Found {
    let outcome = Outcome {
        level: read.level,
        needed: tally.needed() as u32,
        acknowledged: tally.acknowledged() as u32,
        replicas: attempt.answered(tally.results()),
        diverged: tally.diverged(),
        repaired: 0,
        sloppy: None,
        shard: configuration.shard,
        epoch: configuration.epoch,
        elapsed: deadline.waited(),
        configuration: Arc::clone(configuration),
    };
    let mut record = tally.merged().clone();
    record.settle();
    Found { record, outcome }
}

fn progress(
    read: &Read,
    configuration: &Configuration,
    tally: &GetTally,
    attempt: &Attempt<'_>,
) -> Progress {
    Progress {
        level: read.level,
        needed: tally.needed() as u32,
        acknowledged: tally.acknowledged() as u32,
        replicas: attempt.unfinished(tally.results()),
        shard: configuration.shard,
        epoch: Some(configuration.epoch),
    }
}

/// Too few can answer. Damage is named as what it is when it was the reason.
fn failed(
    read: &Read,
    configuration: &Configuration,
    tally: &GetTally,
    attempt: &Attempt<'_>,
) -> RequestError {
    use triad_replica::consistency::ReplicaResult;
    let damaged =
        |(_, result): &(Member, ReplicaResult)| *result == ReplicaResult::Failed(Failure::Damaged);
    let only_damage = tally.results().iter().all(|one| one.1 == ReplicaResult::Ok || damaged(one));
    let level_one = read.level == Level::One;
    let any_damage = tally.results().iter().any(damaged);
    let progress = progress(read, configuration, tally, attempt);
    if any_damage && (only_damage || level_one) {
        RequestError::Damaged(progress)
    } else {
        RequestError::ReadQuorumNotMet(progress)
    }
}
