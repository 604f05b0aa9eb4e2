//! A write that may have been tried before: its request id is looked for first (design rule D11).
//!
//! Whoever overwrites, replaces what the coordinator holds at that moment. A repetition must
//! therefore not simply be minted and then be recognised: by then it would have replaced what came
//! after the first attempt. So a majority is asked for its records before; if the first attempt
//! was ever acknowledged, one of them knows it. A client that says that it never sent the id
//! before saves that round.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use triad_replica::configuration::{Configuration, Phase};
use triad_replica::consistency::{Failure, Level, Operation, Requirement, Verdict};
use triad_replica::get::{GetAnswer, GetTally};
use triad_replica::member::Member;
use triad_replica::record::{Event, Known, Record, Request, Updated};
use triad_replica::refusal::Refusal;

use super::error::{Progress, RequestError};
use super::forward::tried_too_often;
use super::locate::{locate, refresh};
use super::put::{catch_up, may_mint_soon, replicate, store_failed};
use super::{Attempt, Pauses, Write, Written, refuse_hopeless};
use crate::deadline::Deadline;
use crate::local::{Wanted, WriteError};
use crate::node::Node;
use crate::peers::data;

/// How long the members beyond the majority may take.
const REST: Duration = Duration::from_millis(200);

/// The id that a client gave its write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    /// The client says that nobody has sent this id before.
    pub(crate) first_attempt: bool,
}

/// What was found of a request.
pub(super) enum Look {
    /// Nothing: it is new.
    New,
    /// It was done, and is acknowledged now at the level asked for.
    Done(Box<Written>),
    /// A first attempt reached a minority, and cannot have been acknowledged. This node holds now
    /// what it wrote; the write is to be done over that.
    Unfinished,
}

/// Looks for a request at a majority of the shard's members.
pub(super) async fn look(
    node: &Arc<Node>,
    write: &Write,
    request: Request,
    deadline: Deadline,
) -> Result<Look, RequestError> {
    let shard = write.at.shard;
    let mut pauses = Pauses::new();
    loop {
        if deadline.passed() {
            return Err(RequestError::Late { shard, waited: deadline.waited() });
        }
        let configuration = locate(node, shard, deadline).await?;
        if !may_mint_soon(node, &configuration) {
            return Ok(Look::New); // not the one to write it: whoever is will look
        }
        let requirement = Requirement::new(Level::Quorum, &configuration, Operation::Read);
        refuse_hopeless(node, Level::Quorum, &configuration, &requirement)
            .map_err(RequestError::QuorumNotMet)?;
        if let Some(seen) = ask(node, write, Some(request), &configuration, deadline).await? {
            return judge(node, write, request, configuration, seen, deadline).await;
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

/// What a majority holds of the key.
pub(super) struct Seen {
    pub(super) merged: Record,
    /// How many of them do not know the request.
    ignorant: usize,
}

impl Seen {
    /// Whether the first attempt may have been acknowledged, as far as is known.
    fn may_be_done(&self, write: &Write, configuration: &Configuration) -> bool {
        match &configuration.phase {
            Phase::Stable { members } => {
                let requirement = Requirement::new(write.level, configuration, Operation::Write);
                members.len() - self.ignorant >= requirement.needed()
            }
            // It may have been acknowledged in the epoch before, by others than these.
            Phase::Joint { .. } => true,
        }
    }
}

/// What is to be done about a request of which this is known.
async fn judge(
    node: &Arc<Node>,
    write: &Write,
    request: Request,
    configuration: Arc<Configuration>,
    seen: Seen,
    deadline: Deadline,
) -> Result<Look, RequestError> {
    let may_be_done = seen.may_be_done(write, &configuration);
    let mut merged = seen.merged;
    match merged.knows(&request) {
        Known::No => return Ok(Look::New),
        Known::Reused => return Err(RequestError::RequestIdReused),
        Known::Repeated => {}
    }
    merged.settle();
    let event = merged.event(&request);
    // What is deleted or replaced was seen by somebody; it is not done again.
    let undone = event.stands || event.dots.is_empty();
    if write.context.is_none() && undone && !may_be_done {
        let (epoch, wanted) = (configuration.epoch, Wanted::begun(deadline));
        return match node.local.merge(write.at.clone(), epoch, epoch, merged, wanted).await {
            Ok(_) => Ok(Look::Unfinished),
            Err(WriteError::Store(error)) => Err(store_failed(node, &error, true)),
            Err(_) => Err(RequestError::WriteInDoubt(before_writing(write, &configuration))),
        };
    }
    let Event { dots, dot, .. } = event;
    let client_context =
        write.context.clone().unwrap_or_default().joined(&dots.into_iter().collect());
    let updated = Updated { dot, client_context };
    let (outcome, _) =
        replicate(node, write, configuration, merged, &updated, None, deadline).await?;
    let Updated { dot, client_context } = updated;
    Ok(Look::Done(Box::new(Written { dot, client_context, outcome })))
}

/// The progress of a write of which an earlier attempt was found and nothing more was sent yet.
fn before_writing(write: &Write, configuration: &Configuration) -> Progress {
    let requirement = Requirement::new(write.level, configuration, Operation::Write);
    Progress {
        level: write.level,
        needed: requirement.needed() as u32,
        acknowledged: 0,
        replicas: Vec::new(),
        shard: configuration.shard,
        epoch: Some(configuration.epoch),
    }
}

type Answer = (Member, GetAnswer, Option<Configuration>);

/// Asks for the key's whole records in one epoch. None when the epoch is over.
pub(super) async fn ask(
    node: &Arc<Node>,
    write: &Write,
    request: Option<Request>,
    configuration: &Arc<Configuration>,
    deadline: Deadline,
) -> Result<Option<Seen>, RequestError> {
    let mut attempt = Attempt::new(node, deadline);
    let own = match node.local.read(&write.at, configuration.epoch) {
        Ok(record) => GetAnswer::Record(record),
        Err(WriteError::Refused(
            Refusal::StaleEpoch { newest } | Refusal::NotMember { newest: Some(newest) },
        )) => {
            catch_up(node, configuration, &Refusal::StaleEpoch { newest: newest.clone() }).await;
            node.directory.learn(&newest);
            return Ok(None);
        }
        Err(WriteError::Refused(refusal)) => GetAnswer::Failed(Failure::from(&refusal)),
        Err(WriteError::Store(error)) => return Err(store_failed(node, &error, true)),
        Err(WriteError::Known(_)) => return Ok(None),
    };
    let mut ignorant = 0;
    let mut tally = GetTally::new(Level::Quorum, configuration, Record::default());
    let mut answers = ask_others(node, write, configuration, deadline);
    let mut next: Option<Answer> = Some((node.member(), own, None));
    loop {
        let Some((member, answer, newest)) = next else {
            return Err(RequestError::QuorumNotMet(progress(
                write,
                configuration,
                &tally,
                &attempt,
            )));
        };
        attempt.note(member);
        let newer =
            newest.is_some_and(|newest| super::heard_of(node, member, configuration, &newest));
        let stale = matches!(answer, GetAnswer::Failed(Failure::StaleEpoch));
        ignorant += usize::from(is_ignorant(&answer, request));
        match tally.record(member, answer) {
            Verdict::Enough => break,
            Verdict::Pending if newer => return Ok(None),
            Verdict::Impossible if stale => return Ok(None),
            Verdict::Pending | Verdict::Impossible => {}
        }
        next = tokio::time::timeout_at(deadline.at(), answers.next()).await.map_err(|_| {
            let progress = progress(write, configuration, &tally, &attempt);
            RequestError::DeadlineExceeded { progress, waited: deadline.waited() }
        })?;
    }
    // Of a known request the rest may tell whether it can be done: that they do not know it.
    let is_known = request.is_some_and(|asked| tally.merged().knows(&asked) == Known::Repeated);
    if is_known && write.context.is_none() {
        let until = (Instant::now() + REST).min(deadline.at());
        while let Ok(Some((member, answer, _))) =
            tokio::time::timeout_at(until, answers.next()).await
        {
            ignorant += usize::from(is_ignorant(&answer, request));
            tally.record(member, answer);
        }
    }
    Ok(Some(Seen { merged: tally.merged().clone(), ignorant }))
}

fn is_ignorant(answer: &GetAnswer, request: Option<Request>) -> bool {
    let (GetAnswer::Record(record), Some(request)) = (answer, request) else {
        return false;
    };
    record.knows(&request) == Known::No
}

/// Asks for whole records: a digest would not show what is known of requests.
fn ask_others(
    node: &Arc<Node>,
    write: &Write,
    configuration: &Configuration,
    deadline: Deadline,
) -> FuturesUnordered<BoxFuture<'static, Answer>> {
    let answers = FuturesUnordered::<BoxFuture<'static, Answer>>::new();
    for &member in configuration.read_set().iter().filter(|member| **member != node.member()) {
        let request = data::whole_record_request(&write.at, configuration.epoch, deadline);
        let answer = node.peers.data(member.node, request);
        answers.push(Box::pin(async move {
            let (answer, newest) = data::read_answer(answer.wait().await);
            (member, answer, newest)
        }));
    }
    answers
}

fn progress(
    write: &Write,
    configuration: &Configuration,
    tally: &GetTally,
    attempt: &Attempt<'_>,
) -> Progress {
    Progress {
        level: write.level,
        needed: tally.needed() as u32,
        acknowledged: 0,
        replicas: attempt.unfinished(tally.results()),
        shard: configuration.shard,
        epoch: Some(configuration.epoch),
    }
}
