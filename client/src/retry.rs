//! One request, start to end: which nodes to try in which order, and when it is safe to try another.
//!
//! The rule: what provably had no effect goes on to the next node; a read goes on whatever happened; a write that
//! reached a node and was not answered is in doubt. It is sent again only if it has a request id, under the same id,
//! and what comes of it at the end is in doubt unless a node confirms it. Everything ends at the request's deadline,
//! which travels with it, and every repetition of what a node has answered is paid from the client's budget.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, TimeoutExpired};

use crate::budget::Budget;
use crate::channel::{Address, Lease, Pool};
use crate::error::{Detail, Error, Result, is_transport_failure, was_never_sent};

/// The pause before the first repetition; doubled with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// A read leaves at least this much time to a node before it turns to the next.
const SLICE_MIN: Duration = Duration::from_millis(250);
/// So many nodes are tried in one round at most.
const CANDIDATES_MAX: usize = 32;

/// Whether doing it twice does harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It does not.
    Read,
    /// It does: the second would overwrite what others wrote after the first.
    Write,
    /// A write with a request id: it does not, if the second is known as such.
    NamedWrite,
}

impl Kind {
    fn is_write(self) -> bool {
        matches!(self, Self::Write | Self::NamedWrite)
    }
}

/// One request's conditions.
#[derive(Debug)]
pub(crate) struct Trip {
    pub(crate) kind: Kind,
    /// Whom to try, best first.
    pub(crate) candidates: Vec<Address>,
    /// When all of these fail, any other node that the client ever met may be tried.
    pub(crate) anyone: bool,
    pub(crate) began: Instant,
    pub(crate) deadline: Instant,
    pub(crate) retries: u32,
    pub(crate) budget: Arc<Budget>,
    /// An attempt of it is in doubt: whatever is sent now is a repetition.
    pub(crate) repeats: AtomicBool,
}

/// How one attempt ended.
enum Attempt<R> {
    Answered(R),
    /// No connection: nothing was sent.
    NotSent(String),
    /// The node, or its cluster, cannot now. Nothing was done.
    Refused(Error),
    /// A read got no answer from this node; another may give one.
    Lost(Error),
    /// A write with a request id got no answer, or one that leaves it in doubt.
    InDoubt(Error),
    /// The answer, though not the wished one.
    Final(Error),
}

/// What went wrong so far, for the error at the end.
#[derive(Default)]
struct Diary {
    unreached: Vec<String>,
    last: Option<Error>,
    /// An attempt may have taken effect: so may the request.
    doubt: Option<Error>,
    pauses: u32,
    /// There was a pause in this round.
    paused: bool,
}

/// Orders the nodes: members first, then all others known, and those that failed lately after those that did not.
pub(crate) fn order(pool: &Pool, members: &[Address], others: &[Address]) -> Vec<Address> {
    let mut all: Vec<Address> = Vec::with_capacity(members.len() + others.len());
    for address in members.iter().chain(others) {
        if all.len() < CANDIDATES_MAX && !all.contains(address) {
            all.push(address.clone());
        }
    }
    all.sort_by_key(|address| pool.is_aside(address));
    all
}

/// Sends a request until it is answered, refused for good, in doubt, or out of time.
pub(crate) async fn run<M, R, F, S>(pool: &Pool, trip: &Trip, message: M, send: F) -> Result<R>
where
    M: Clone,
    F: Fn(Channel, Request<M>) -> S,
    S: Future<Output = std::result::Result<Response<R>, Status>>,
{
    trip.budget.earn();
    let mut diary = Diary::default();
    let mut candidates = trip.candidates.clone();
    loop {
        for (place, address) in candidates.iter().enumerate() {
            let others_left = place + 1 < candidates.len();
            let end = trip.slice_end(others_left);
            match attempt(pool, trip, address, end, message.clone(), &send).await {
                Attempt::Answered(reply) => return Ok(reply),
                Attempt::Final(error) => return Err(diary.doubt.take().unwrap_or(error)),
                Attempt::NotSent(why) => diary.unreached.push(format!("{address}: {why}")),
                Attempt::Lost(error) => {
                    diary.last = Some(error);
                    if !trip.budget.spend() {
                        return Err(diary.verdict());
                    }
                }
                Attempt::InDoubt(error) => {
                    trip.repeats.store(true, Ordering::Relaxed);
                    diary.doubt = Some(error);
                    diary.pause(trip, None).await?;
                }
                Attempt::Refused(error) => {
                    let wait = diary.refused(error);
                    diary.pause(trip, wait).await?;
                }
            }
            if Instant::now() >= trip.deadline {
                return Err(diary.out_of_time(trip));
            }
        }
        // A round with a pause in it has waited already.
        if !diary.paused {
            diary.pause(trip, None).await?;
        }
        diary.paused = false;
        diary.unreached.clear();
        if trip.anyone {
            candidates = order(pool, &candidates, &pool.known());
        }
    }
}

impl Trip {
    /// A node is given half of the time left while there are others, so that one that hangs is survived. A write that
    /// cannot be sent twice waits.
    fn slice_end(&self, others_left: bool) -> Instant {
        if self.kind == Kind::Write || !others_left {
            return self.deadline;
        }
        let now = Instant::now();
        let half = self.deadline.saturating_duration_since(now) / 2;
        self.deadline.min(now + half.max(SLICE_MIN))
    }
}

async fn attempt<M, R, F, S>(
    pool: &Pool,
    trip: &Trip,
    address: &Address,
    end: Instant,
    message: M,
    send: &F,
) -> Attempt<R>
where
    F: Fn(Channel, Request<M>) -> S,
    S: Future<Output = std::result::Result<Response<R>, Status>>,
{
    let lease = match pool.lease(address, end).await {
        Ok(lease) => lease,
        Err(why) => return Attempt::NotSent(why),
    };
    let mut request = Request::new(message);
    // The server is told the time left and answers a little before it.
    request.set_timeout(end.saturating_duration_since(Instant::now()));
    let result = timeout_at(end, send(lease.channel.clone(), request)).await;
    match result {
        Ok(Ok(response)) => {
            lease.succeeded();
            Attempt::Answered(response.into_inner())
        }
        Ok(Err(status)) if !is_timeout(&status) => judge(trip.kind, address, lease, &status),
        Ok(Err(_)) | Err(_) => {
            lease.was_slow();
            no_answer(trip, address)
        }
    }
}

/// What a status means for this request and for the connection it came through.
fn judge<R>(kind: Kind, address: &Address, lease: Lease, status: &Status) -> Attempt<R> {
    let detail = Detail::of_status(status, address.as_str());
    if is_transport_failure(status) {
        let why = detail.message.clone();
        lease.broke(&why);
        if was_never_sent(status) {
            return Attempt::NotSent(why);
        }
    } else {
        lease.succeeded();
    }
    let unjudged = is_transport_failure(status);
    let refused = is_refusal(&detail) && !unjudged;
    let lost = unjudged
        || matches!(
            detail.code,
            Code::Unavailable
                | Code::Cancelled
                | Code::Unknown
                | Code::Internal
                | Code::DeadlineExceeded
        );
    let error = error_of(kind, detail, unjudged);
    match kind {
        _ if refused => Attempt::Refused(error),
        Kind::Read if lost => Attempt::Lost(error),
        Kind::NamedWrite if error.is_in_doubt() => Attempt::InDoubt(error),
        Kind::Read | Kind::Write | Kind::NamedWrite => Attempt::Final(error),
    }
}

/// The server says that it did nothing and that this may pass.
fn is_refusal(detail: &Detail) -> bool {
    matches!(
        detail.reason.as_str(),
        "QUORUM_NOT_MET" | "SHARD_FROZEN" | "NOT_JOINED" | "OVERLOADED"
    ) && matches!(
        detail.code,
        Code::Unavailable | Code::FailedPrecondition | Code::ResourceExhausted
    )
}

/// The error of a request that was sent. `unjudged`: the status was made on this side of a connection that
/// broke. Its code then says why it broke (a node that is behind closes connections as `RESOURCE_EXHAUSTED`)
/// and nothing about the request, so that a write is in doubt whatever the code.
fn error_of(kind: Kind, detail: Detail, unjudged: bool) -> Error {
    let detail = explained(kind, detail, unjudged);
    if unjudged && kind.is_write() {
        return Error::InDoubt(Box::new(detail));
    }
    Error::of_detail(detail, kind.is_write())
}

/// Adds to an error that no server worded what it means for a write.
fn explained(kind: Kind, mut detail: Detail, unjudged: bool) -> Detail {
    let bare = unjudged
        || detail.reason.is_empty()
            && matches!(
                detail.code,
                Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal
            );
    if kind.is_write() && bare {
        detail.message = format!(
            "the write was sent to {} and not confirmed, it may or may not take effect: {}",
            detail.endpoint, detail.message
        );
    }
    detail
}

/// The time given to a node passed after the request was sent to it.
fn no_answer<R>(trip: &Trip, address: &Address) -> Attempt<R> {
    let given = trip.deadline.saturating_duration_since(trip.began);
    match trip.kind {
        Kind::Read => {
            let message = format!("{address} did not answer in time (deadline {given:?})");
            let detail = Detail::local(Code::DeadlineExceeded, message);
            Attempt::Lost(Error::DeadlineExceeded(Box::new(detail)))
        }
        Kind::Write | Kind::NamedWrite => {
            let message = format!(
                "the write was sent to {address} and not confirmed within {given:?}, it may or may not take effect"
            );
            let mut detail = Detail::local(Code::DeadlineExceeded, message);
            detail.endpoint = address.to_string();
            let error = Error::InDoubt(Box::new(detail));
            if trip.kind == Kind::NamedWrite {
                Attempt::InDoubt(error)
            } else {
                Attempt::Final(error)
            }
        }
    }
}

fn is_timeout(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<TimeoutExpired>() {
            return true;
        }
        source = error.source();
    }
    false
}

impl Diary {
    /// Notes a refusal; answers how long the server asked to wait.
    fn refused(&mut self, error: Error) -> Option<Duration> {
        let wait = match &error {
            Error::Overloaded { retry_after, .. } => Some(*retry_after),
            // Another node may have joined: no need to wait for this one.
            Error::FailedPrecondition(_) => Some(Duration::ZERO),
            _ => None,
        };
        self.last = Some(error);
        wait
    }

    /// Waits before the next try, or gives up: tries are used up, or the deadline would pass meanwhile. While the
    /// request is in doubt only the deadline counts, for there is much to gain.
    async fn pause(&mut self, trip: &Trip, asked: Option<Duration>) -> Result<()> {
        if asked == Some(Duration::ZERO) {
            return Ok(());
        }
        let used_up = self.pauses >= trip.retries && (self.doubt.is_none() || trip.retries == 0);
        let was_answered = self.last.is_some() || self.doubt.is_some();
        if used_up || (was_answered && !trip.budget.spend()) {
            return Err(self.verdict());
        }
        let own = PAUSE_MIN * 2_u32.saturating_pow(self.pauses.min(6));
        let pause = own.max(asked.unwrap_or_default());
        if Instant::now() + pause >= trip.deadline {
            return Err(self.verdict());
        }
        tracing::debug!(tries = self.pauses + 1, ?pause, error = ?self.last, unreached = ?self.unreached, "trying again");
        self.pauses += 1;
        self.paused = true;
        sleep(pause).await;
        Ok(())
    }

    /// The most telling error: that it is in doubt, else what a node said, or else that none was reached.
    fn verdict(&mut self) -> Error {
        if let Some(doubt) = self.doubt.take() {
            return doubt;
        }
        let unreached = self.unreached.join("; ");
        self.last
            .take()
            .unwrap_or_else(|| Error::unreachable(format!("no node could be reached: {unreached}")))
    }

    fn out_of_time(&mut self, trip: &Trip) -> Error {
        if self.last.is_some() || self.doubt.is_some() {
            return self.verdict();
        }
        let given = trip.deadline.saturating_duration_since(trip.began);
        let unreached = self.unreached.join("; ");
        let message = format!("no node could be reached within {given:?}: {unreached}");
        Error::DeadlineExceeded(Box::new(Detail::local(Code::DeadlineExceeded, message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broken_connection_says_of_itself_proves_nothing_of_a_write() {
        for code in [Code::ResourceExhausted, Code::PermissionDenied, Code::Unavailable] {
            let told = || Detail::local(code, "h2 protocol error: connection closed");
            let error = error_of(Kind::Write, told(), true);
            assert!(error.is_in_doubt(), "{error:?}");
            assert!(error.to_string().contains("may or may not take effect"), "{error}");
            assert!(error_of(Kind::NamedWrite, told(), true).is_in_doubt());
            assert!(!error_of(Kind::Read, told(), true).is_in_doubt());
        }
        // The same code from a node is a refusal.
        let mut refused = Detail::local(Code::ResourceExhausted, "overloaded");
        assert!(error_of(Kind::Write, refused.clone(), false).is_in_doubt(), "nobody says so");
        refused.reason = "OVERLOADED".to_owned();
        assert!(matches!(error_of(Kind::Write, refused, false), Error::Overloaded { .. }));
    }
}
