//! Runs one Put or Delete: mint here, send to the others, count.

use std::sync::Arc;

use futures::StreamExt;
use triad_replica::configuration::Configuration;
use triad_replica::consistency::{Failure, Operation, Requirement, Verdict};
use triad_replica::context::Context;
use triad_replica::member::Member;
use triad_replica::put::{PutAnswer, PutTally};
use triad_replica::record::{Basis, Known, Record, Updated};
use triad_replica::refusal::Refusal;
use triad_replica::shard::Access;
use triad_replica::store::StoreError;

use super::again::again;
use super::error::{Progress, RequestError};
use super::forward::{Forwardable, forward, queue_overloaded};
use super::locate::{locate, refresh};
use super::missed::{self, Answers};
use super::repeat::{self, Look};
use super::reread::{Reread, read_again};
use super::room::{pass_on_for_room, refuse_without_room};
use super::sloppy::is_sloppy;
use super::{
    Attempt, Completed, HOPS_MAX, Outcome, Parcel, Pauses, Write, Written, refuse_hopeless,
};
use crate::deadline::Deadline;
use crate::failpoint::{Point, hit};
use crate::introduce::soon_introduced;
use crate::liveness::Liveness;
use crate::local::{Minted, Remembered, Wanted, WriteError};
use crate::node::Node;
use crate::peers::data::{self, MergeAnswer};

/// Runs a write, or has a member of its shard run it. `original` is what is forwarded.
///
/// It runs as a task of its own: what was sent to replicas is followed up even when the
/// client has gone, so that they do not differ after each client's timeout.
pub(crate) async fn write(
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
    let (shard, level) = (write.at.shard, write.level);
    let (configuration, minted) = loop {
        let able = match begin(&node, &write, deadline).await {
            Ok(Begun::Minted(configuration, minted)) => break (configuration, minted),
            Ok(Begun::Done(written)) => return Ok(Completed::Here(written)),
            Ok(Begun::Elsewhere) => may_mint_soon,
            Ok(Begun::Full(progress)) => {
                return pass_on_for_room(&node, &write, &original, progress, deadline).await;
            }
            // Nothing was written, and another member's row may be whole.
            Err(RequestError::Damaged(_)) if may_pass_on(&node, &write, &original) => never,
            Err(error) => return Err(error),
        };
        let passed = forward(&node, shard, level, &original, able, deadline);
        if let Some(reply) = passed.await? {
            return Ok(Completed::Elsewhere(Box::new(reply)));
        }
    };
    let Minted { record, updated: first, durable } = minted;
    let (outcome, uncovered) =
        replicate(&node, &write, configuration, record, &first, Some(durable), deadline).await?;
    let (updated, outcome) = match uncovered {
        Some(uncovered) if write.context.is_none() => {
            again(&node, &write, (first, uncovered), outcome, deadline).await?
        }
        _ => (first, outcome),
    };
    let Updated { dot, client_context } = updated;
    Ok(Completed::Here(Box::new(Written { dot, client_context, outcome })))
}

/// Who has met a damaged row does not come to be able to run the write.
const fn never(_: &Node, _: &Configuration) -> bool {
    false
}

/// Whether another member is alive, and the write has not been passed on too often.
fn may_pass_on(node: &Node, write: &Write, original: &Forwardable) -> bool {
    let alive =
        |member: &Member| member.node != node.me() && node.liveness(member.node) == Liveness::Alive;
    let known = node.directory.get(write.at.shard);
    original.hops < HOPS_MAX && known.is_some_and(|known| known.read_set().iter().any(alive))
}

/// How a write began.
enum Begun {
    /// It was minted here.
    Minted(Arc<Configuration>, Minted),
    /// It was a repetition of one that was done.
    Done(Box<Written>),
    /// Another node is to run it.
    Elsewhere,
    /// The own store has no room for it: nothing was written, and another member may have some.
    Full(Progress),
}

/// Mints the write, unless it proves to be a repetition.
async fn begin(node: &Arc<Node>, write: &Write, deadline: Deadline) -> Result<Begun, RequestError> {
    let mut suspect = write.request.is_some_and(|asked| !asked.first_attempt);
    loop {
        let mut again = false;
        if let Some(asked) = write.request
            && suspect
        {
            match repeat::look(node, write, asked.request, deadline).await? {
                Look::New => {}
                Look::Done(written) => return Ok(Begun::Done(written)),
                Look::Unfinished => again = true,
            }
        }
        let basis = write.context.clone().map_or(Basis::Overwrite, Basis::Causal);
        match mint(node, write, basis, again, deadline).await? {
            Mint::Here(configuration, minted) => {
                return Ok(Begun::Minted(configuration, minted));
            }
            Mint::Elsewhere => return Ok(Begun::Elsewhere),
            Mint::Full(progress) => return Ok(Begun::Full(progress)),
            Mint::Known(Known::Reused) => return Err(RequestError::RequestIdReused),
            Mint::Known(_) => suspect = true,
        }
    }
}

/// What became of minting.
pub(super) enum Mint {
    Here(Arc<Configuration>, Minted),
    /// This node is not the one to do it.
    Elsewhere,
    /// The own store knows the request id.
    Known(Known),
    /// The own store has no room for it.
    Full(Progress),
}

/// Mints the write in the newest epoch; `again`: although its request id is known.
pub(super) async fn mint(
    node: &Arc<Node>,
    write: &Write,
    basis: Basis,
    again: bool,
    deadline: Deadline,
) -> Result<Mint, RequestError> {
    let shard = write.at.shard;
    soon_introduced(node, shard).await;
    let mut pauses = Pauses::new();
    loop {
        if deadline.passed() {
            return Err(RequestError::Late { shard, waited: deadline.waited() });
        }
        let configuration = locate(node, shard, deadline).await?;
        if !may_mint_soon(node, &configuration) {
            return Ok(Mint::Elsewhere);
        }
        if !is_sloppy(&write.at) {
            let requirement = Requirement::new(write.level, &configuration, Operation::Write);
            refuse_hopeless(node, write.level, &configuration, &requirement)
                .map_err(RequestError::QuorumNotMet)?;
            refuse_without_room(node, write, &configuration, &requirement)?;
        }
        let request = write.request.map(|asked| Remembered { request: asked.request, again });
        // The second attempt ends what is stored already.
        let begun = matches!(basis, Basis::OverwriteAgain { .. });
        let wanted = if begun { Wanted::begun(deadline) } else { write.wanted.clone() };
        let (at, change, basis) = (write.at.clone(), write.change.clone(), basis.clone());
        let minted =
            node.local.update(at, configuration.epoch, change, basis, request, wanted).await;
        match minted {
            Ok(minted) => return Ok(Mint::Here(configuration, minted)),
            Err(WriteError::Known(known)) => return Ok(Mint::Known(known)),
            Err(WriteError::Refused(Refusal::NoSpace)) => {
                let progress = alone(node, &configuration, write, Failure::NoSpace, deadline);
                return Ok(Mint::Full(progress));
            }
            Err(WriteError::Refused(refusal)) => {
                catch_up(node, &configuration, &refusal).await;
                mend(node, &configuration, &refusal, write, deadline)?;
                pauses.pause(node, deadline).await;
            }
            Err(WriteError::Store(error)) => return Err(store_failed(node, &error, true)),
        }
    }
}

/// The own store may have missed a decision that this node has heard of since.
pub(super) async fn catch_up(node: &Arc<Node>, used: &Configuration, refusal: &Refusal) {
    if let Refusal::StaleEpoch { newest } = refusal
        && newest.epoch < used.epoch
    {
        crate::moves::learn(node, used).await;
    }
}

/// Whether this node is a member that holds what it needs to mint, in the epoch it knows or
/// in one that it is about to learn.
pub(super) fn may_mint_soon(node: &Node, configuration: &Configuration) -> bool {
    let check = |replica: &triad_replica::shard::ShardReplica| {
        replica.check(Access::Mint, configuration.epoch)
    };
    match node.local.look(configuration.shard, check) {
        Some(Ok(())) => true,
        Some(Err(Refusal::StaleEpoch { .. })) => configuration.is_member(&node.member()),
        _ => false,
    }
}

/// Learns from a refusal of the own store; an error when trying again is of no use.
fn mend(
    node: &Node,
    configuration: &Configuration,
    refusal: &Refusal,
    write: &Write,
    deadline: Deadline,
) -> Result<(), RequestError> {
    let alone = |failure| alone(node, configuration, write, failure, deadline);
    match refusal {
        Refusal::StaleEpoch { newest } | Refusal::NotMember { newest: Some(newest) } => {
            node.directory.learn(newest);
            Ok(())
        }
        Refusal::NotMember { newest: None }
        | Refusal::NotIntroduced
        | Refusal::Learner
        | Refusal::NotMerged
        | Refusal::Collected => Ok(()),
        Refusal::Overloaded if deadline.passed() => {
            let (shard, waited) = (write.at.shard, deadline.waited());
            Err(RequestError::Late { shard, waited })
        }
        Refusal::Overloaded => Err(queue_overloaded(node)),
        Refusal::SiblingLimit { siblings, limit } => {
            Err(RequestError::SiblingLimit { size: *siblings, limit: *limit })
        }
        Refusal::ContextLimit { entries, limit } => {
            Err(RequestError::ContextLimit { size: *entries, limit: *limit })
        }
        Refusal::NoSpace | Refusal::HintsFull => {
            Err(RequestError::NoSpace(alone(Failure::NoSpace)))
        }
        Refusal::Damaged => Err(RequestError::Damaged(alone(Failure::Damaged))),
    }
}

/// The progress of a write that went no further than the own store.
fn alone(
    node: &Node,
    configuration: &Configuration,
    write: &Write,
    failure: Failure,
    deadline: Deadline,
) -> Progress {
    let mut tally = PutTally::new(write.level, configuration);
    tally.record(node.member(), PutAnswer::Failed(failure));
    progress(&Attempt::new(node, deadline), write, configuration, &tally)
}

/// The store has failed: the process is ending. Nothing was acknowledged, but what was on its
/// way to the disk may be there.
pub(super) fn store_failed(node: &Node, error: &StoreError, write: bool) -> RequestError {
    let node = node.identity.name.to_string();
    RequestError::StoreFailed { node, why: error.to_string(), write }
}

fn progress(
    attempt: &Attempt<'_>,
    write: &Write,
    configuration: &Configuration,
    tally: &PutTally,
) -> Progress {
    Progress {
        level: write.level,
        needed: tally.needed() as u32,
        acknowledged: tally.acknowledged() as u32,
        replicas: attempt.unfinished(tally.results()),
        shard: configuration.shard,
        epoch: Some(configuration.epoch),
    }
}

/// The progress of a write that was sent, and of which no answer counts.
fn nothing_heard(
    node: &Node,
    write: &Write,
    configuration: &Configuration,
    deadline: Deadline,
) -> Progress {
    let tally = PutTally::new(write.level, configuration);
    progress(&Attempt::new(node, deadline), write, configuration, &tally)
}

/// Tells when what was minted here is durable.
pub(super) type Durable = tokio::sync::oneshot::Receiver<Result<(), WriteError>>;

/// Gets a record acknowledged, in one epoch after the other if need be. Counting starts at zero
/// in each; the dot stays. `own`: the own store has it on its way already.
pub(super) async fn replicate(
    node: &Arc<Node>,
    write: &Write,
    mut configuration: Arc<Configuration>,
    record: Record,
    updated: &Updated,
    mut own: Option<Durable>,
    deadline: Deadline,
) -> Result<(Outcome, Option<Context>), RequestError> {
    let mut parcel = Parcel::new(record, configuration.epoch);
    let mut pauses = Pauses::new();
    loop {
        let counted = if parcel.stamp > configuration.gc_epoch {
            let answers = send(node, write, &configuration, &parcel, own.take(), deadline);
            let in_doubt = |_| {
                RequestError::WriteInDoubt(nothing_heard(node, write, &configuration, deadline))
            };
            hit(Point::PutSent).await.map_err(in_doubt)?;
            count(node, write, &configuration, answers, deadline).await
        } else {
            match read_again(node, &write.at, updated, &configuration).await {
                Reread::Found(record) => {
                    parcel = Parcel::new(record, configuration.epoch);
                    continue;
                }
                Reread::NotNow => Counted::Stale,
                Reread::Gone => {
                    let progress = nothing_heard(node, write, &configuration, deadline);
                    Counted::Failed(RequestError::WriteInDoubt(progress))
                }
            }
        };
        match counted {
            Counted::Enough(outcome, uncovered) => {
                let in_doubt = |_| {
                    RequestError::WriteInDoubt(nothing_heard(node, write, &configuration, deadline))
                };
                hit(Point::PutQuorum).await.map_err(in_doubt)?;
                return Ok((outcome, uncovered));
            }
            Counted::Failed(error) => return Err(error),
            Counted::Stale if deadline.passed() => {
                let progress = nothing_heard(node, write, &configuration, deadline);
                let waited = deadline.waited();
                return Err(RequestError::WriteInDoubtAtDeadline { progress, waited });
            }
            Counted::Stale if !node.may_try_again() => {
                let progress = nothing_heard(node, write, &configuration, deadline);
                return Err(RequestError::WriteInDoubt(progress));
            }
            Counted::Stale => {
                pauses.pause(node, deadline).await;
                let known = node.directory.get(configuration.shard);
                if known.as_ref().is_none_or(|known| known.epoch <= configuration.epoch) {
                    refresh(node, configuration.shard).await;
                }
                configuration = node.directory.get(configuration.shard).unwrap_or(configuration);
            }
        }
    }
}

/// Sends the record to every member; the own store either has it on its way already
/// (`own`) or merges it like the others.
pub(super) fn send(
    node: &Arc<Node>,
    write: &Write,
    configuration: &Configuration,
    parcel: &Parcel,
    own: Option<Durable>,
    deadline: Deadline,
) -> Answers {
    let answers = Answers::new();
    let mut own = own;
    for member in configuration.members() {
        if member != node.member() {
            let request = parcel.merge_request(&write.at, configuration.epoch, deadline);
            let answer = node.peers.data(member.node, request);
            answers.push(Box::pin(async move {
                let MergeAnswer { answer, newest } = data::merge_answer(answer.wait().await);
                (member, answer, newest)
            }));
        } else if let Some(durable) = own.take() {
            answers.push(Box::pin(async move {
                let stored = durable.await.is_ok_and(|result| result.is_ok());
                let answer = if stored {
                    PutAnswer::Stored { uncovered: None }
                } else {
                    PutAnswer::Failed(Failure::Unreachable)
                };
                (member, answer, None)
            }));
        } else {
            let (node, at) = (Arc::clone(node), write.at.clone());
            let (epoch, stamp) = (configuration.epoch, parcel.stamp);
            let (record, wanted) = (parcel.record.clone(), Wanted::begun(deadline));
            answers.push(Box::pin(async move {
                let MergeAnswer { answer, newest } = data::own_merge_answer(
                    node.local.merge(at, epoch, stamp, record, wanted).await,
                );
                (member, answer, newest)
            }));
        }
    }
    answers
}

/// How counting in one epoch ended.
enum Counted {
    Enough(Outcome, Option<Context>),
    /// The epoch is over: count anew in the next.
    Stale,
    Failed(RequestError),
}

async fn count(
    node: &Arc<Node>,
    write: &Write,
    configuration: &Arc<Configuration>,
    mut answers: Answers,
    deadline: Deadline,
) -> Counted {
    let mut tally = PutTally::new(write.level, configuration);
    let mut attempt = Attempt::new(node, deadline);
    let mut stale = false;
    loop {
        let Ok(next) = tokio::time::timeout_at(deadline.at(), answers.next()).await else {
            let progress = progress(&attempt, write, configuration, &tally);
            let waited = deadline.waited();
            return Counted::Failed(RequestError::WriteInDoubtAtDeadline { progress, waited });
        };
        let Some((member, answer, newest)) = next else {
            return Counted::Failed(RequestError::WriteInDoubt(progress(
                &attempt,
                write,
                configuration,
                &tally,
            )));
        };
        attempt.note(member);
        let newer =
            newest.is_some_and(|newest| super::heard_of(node, member, configuration, &newest));
        stale |= matches!(answer, PutAnswer::Failed(Failure::StaleEpoch));
        if matches!(answer, PutAnswer::Failed(Failure::NoSpace)) {
            node.room.heard(member.node, true);
        }
        match tally.record(member, answer) {
            Verdict::Enough => {
                let outcome = Outcome {
                    level: write.level,
                    needed: tally.needed() as u32,
                    acknowledged: tally.acknowledged() as u32,
                    replicas: attempt.answered(tally.results()),
                    diverged: tally.uncovered().is_some(),
                    repaired: 0,
                    shard: configuration.shard,
                    epoch: configuration.epoch,
                    sloppy: None,
                    elapsed: deadline.waited(),
                    configuration: Arc::clone(configuration),
                };
                missed::follow(node, &write.at, tally.missing(), answers, deadline);
                return Counted::Enough(outcome, tally.uncovered().cloned());
            }
            Verdict::Pending if newer => return Counted::Stale,
            Verdict::Pending => {}
            Verdict::Impossible if stale => return Counted::Stale,
            Verdict::Impossible => {
                return Counted::Failed(RequestError::WriteInDoubt(progress(
                    &attempt,
                    write,
                    configuration,
                    &tally,
                )));
            }
        }
    }
}
