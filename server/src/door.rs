//! The door: which client requests are let in.
//!
//! A node that is behind is of no use to anybody: what it answers after the deadline was done for
//! nothing. So requests are refused here, before they have cost anything, as soon as those inside
//! take too long, whatever they wait for: a processor, the disk, other nodes. (The commit
//! queue, where the wait is known beforehand, refuses writes besides.) What is let in is then
//! done in time, and with the load the refusals end, at once.
//!
//! Two things tell: how long the requests took that were done of late, reads and writes apart; and
//! how late work begins here at all, which a task measures that does nothing but begin.

mod allowance;
mod lane;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Limits;
use crate::platform::Work;
use allowance::Allowance;
use lane::Lane;

/// How often the watch should get its turn.
const TICK: Duration = Duration::from_millis(5);
/// An interval of judgement is this long, and has at least so many turns: one alone may be late
/// because the machine did something else for a moment.
const INTERVAL: Duration = Duration::from_millis(100);
const TURNS: u32 = 4;
/// A request waits for a processor about so often: at each step here, at the other members, and
/// back. Each time may take this part of `limits.queue_wait`.
const STEPS: u32 = 10;
/// Nobody is asked to come back sooner, or later.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often refusals are told in the log.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// In which bytes are counted.
const UNIT_BYTES: u64 = 1 << 10;

/// A client's request was not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shut {
    /// What there is too much of, for people.
    pub(crate) why: String,
    /// The setting that says so.
    pub(crate) limit: &'static str,
}

/// What kind of request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// Counts the client requests at work on this node, and knows how many may be.
#[derive(Clone)]
pub(crate) struct Door {
    shared: Arc<Shared>,
}

struct Shared {
    places: Arc<Semaphore>,
    limit: u32,
    /// Room for bytes, in units.
    room: Arc<Semaphore>,
    limit_bytes: u64,
    queue_wait: Duration,
    reads: Lane,
    writes: Lane,
    /// By how much work was late in the last interval, in microseconds.
    late_micros: AtomicU64,
    refused: AtomicU64,
    told: Mutex<Told>,
}

/// What the log has been told of refusals.
#[derive(Default)]
struct Told {
    refused: u64,
    at: Option<Instant>,
}

/// A request's place among those at work, until it is dropped.
pub(crate) struct Place {
    shared: Arc<Shared>,
    kind: Kind,
    entered: Instant,
    _permits: [OwnedSemaphorePermit; 2],
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Place {
    /// The request was done, well.
    pub(crate) fn done(&self) {
        self.shared.lane(self.kind).done(self.entered.elapsed());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.lane(self.kind).leave();
    }
}

impl Shared {
    fn lane(&self, kind: Kind) -> &Lane {
        match kind {
            Kind::Read => &self.reads,
            Kind::Write => &self.writes,
        }
    }

    fn late(&self) -> Duration {
        Duration::from_micros(self.late_micros.load(Ordering::Relaxed))
    }
}

impl Door {
    /// A door as `limits.in_flight` and `limits.queue_wait` say.
    pub(crate) fn new(limits: &Limits) -> Self {
        let (limit, queue_wait) = (limits.in_flight, limits.queue_wait);
        let shared = Shared {
            places: Arc::new(Semaphore::new(limit as usize)),
            limit,
            room: Arc::new(Semaphore::new(units(limits.in_flight_bytes) as usize)),
            limit_bytes: limits.in_flight_bytes,
            queue_wait,
            reads: Lane::new(limit, queue_wait),
            writes: Lane::new(limit, queue_wait),
            late_micros: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            told: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// A place for a request that brings so many bytes, kept until it is dropped. Nobody queues: a
    /// request that would have to wait is better tried elsewhere.
    pub(crate) fn enter(&self, kind: Kind, bytes: u64) -> Result<Place, Shut> {
        let Shared { places, limit, room, limit_bytes, queue_wait, .. } = &*self.shared;
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            let why = format!("limits.in_flight = {limit} requests are at work");
            return Err(Shut { why, limit: "limits.in_flight" });
        };
        let Ok(room) = Arc::clone(room).try_acquire_many_owned(units(bytes)) else {
            let why = format!("the requests at work bring limits.in_flight_bytes = {limit_bytes}");
            return Err(Shut { why, limit: "limits.in_flight_bytes" });
        };
        match self.shared.lane(kind).enter() {
            Ok(()) => {
                let (shared, entered) = (Arc::clone(&self.shared), Instant::now());
                Ok(Place { shared, kind, entered, _permits: [place, room] })
            }
            Err(busy) => {
                let why = format!(
                    "{busy} requests of this kind are at work, and with more they would take longer than \
                     limits.queue_wait = {queue_wait:?}"
                );
                Err(Shut { why, limit: "limits.queue_wait" })
            }
        }
    }

    /// When to come back to a node where requests wait `expected` for the disk.
    pub(crate) fn retry_after(&self, expected: Duration) -> Duration {
        expected.max(self.shared.late() * STEPS).clamp(RETRY_MIN, RETRY_MAX)
    }

    /// A request was refused for want of room or time, here or at the commit queue.
    pub(crate) fn count_refused(&self, why: &str) {
        let refused = self.shared.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told = self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            let since = refused.saturating_sub(told.refused);
            warn!(refused, since, why, "client requests are refused: more comes than can be done");
            *told = Told { refused, at: Some(Instant::now()) };
        }
    }

    /// Waits until nothing is in flight. Nothing more is let in, until what it returns is dropped.
    pub(crate) async fn idle(&self) -> Option<SemaphorePermit<'_>> {
        self.shared.places.acquire_many(self.shared.limit).await.ok()
    }

    /// Measures how late work begins, and lets in accordingly, until `stop`.
    pub(crate) async fn watch(self, work: Work, stop: CancellationToken) {
        // In virtual time nothing is late: there the turns need only be enough for a judgement.
        let tick = if matches!(work, Work::Threads) { TICK } else { INTERVAL / TURNS };
        let shared = &*self.shared;
        let mut reads = Allowance::new(shared.limit);
        let mut writes = reads;
        let (mut began, mut turns, mut least) = (Instant::now(), 0, Duration::MAX);
        while !stop.is_cancelled() {
            let due = Instant::now() + tick;
            tokio::time::sleep_until(due).await;
            least = least.min(due.elapsed());
            turns += 1;
            if turns < TURNS || began.elapsed() < INTERVAL {
                continue;
            }
            let late = least > shared.queue_wait / STEPS;
            let micros = u64::try_from(least.as_micros()).unwrap_or(u64::MAX);
            shared.late_micros.store(micros, Ordering::Relaxed);
            let reads_again = shared.reads.turn(&mut reads, late);
            let writes_again = shared.writes.turn(&mut writes, late);
            if (reads_again || writes_again) && !reads.is_limited() && !writes.is_limited() {
                let refused = shared.refused.load(Ordering::Relaxed);
                info!(refused, "all client requests are let in again");
            }
            (began, turns, least) = (Instant::now(), 0, Duration::MAX);
        }
    }
}

/// Room for so many bytes: in units so large that a terabyte can be counted.
fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_node_lets_nobody_queue_and_names_the_limit() {
        let door = Door::new(&Limits { in_flight: 1, ..Limits::default() });
        let place = door.enter(Kind::Read, 0);
        assert!(place.is_ok());
        let shut = door.enter(Kind::Write, 0).expect_err("there is one place");
        assert_eq!(shut.limit, "limits.in_flight");
        assert!(shut.why.contains("limits.in_flight = 1"), "{shut:?}");
        drop(place);
        assert!(door.enter(Kind::Write, 0).is_ok());
    }

    #[tokio::test]
    async fn an_idle_node_is_held_idle_and_no_longer() {
        let door = Door::new(&Limits { in_flight: 2, ..Limits::default() });
        let place = door.enter(Kind::Read, 0);
        let waits = tokio::time::timeout(Duration::from_millis(1), door.idle());
        assert!(waits.await.is_err(), "one is at work");
        drop(place);
        let idle = door.idle().await;
        assert!(door.enter(Kind::Read, 0).is_err());
        drop(idle);
        assert!(door.enter(Kind::Read, 0).is_ok());
    }

    #[test]
    fn many_bytes_keep_others_out_and_small_requests_still_fit() {
        let door = Door::new(&Limits { in_flight_bytes: 16 << 20, ..Limits::default() });
        let large: Vec<_> = (0..3).map(|_| door.enter(Kind::Write, 5 << 20)).collect();
        assert!(large.iter().all(Result::is_ok));
        let shut = door.enter(Kind::Write, 5 << 20).expect_err("16 MiB are nearly used up");
        assert_eq!(shut.limit, "limits.in_flight_bytes");
        assert!(door.enter(Kind::Read, 10).is_ok());
        drop(large);
        assert!(door.enter(Kind::Write, 5 << 20).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_writes_keep_writes_out_and_reads_go_on() {
        let (door, stop) = (Door::new(&Limits::default()), CancellationToken::new());
        let watch = tokio::spawn(door.clone().watch(Work::Threads, stop.clone()));
        let writes: Vec<_> = (0..400).map(|_| door.enter(Kind::Write, 0)).collect();
        assert!(writes.iter().all(Result::is_ok));
        tokio::time::sleep(Duration::from_secs(1)).await;
        writes.iter().flatten().for_each(Place::done);
        tokio::time::sleep(2 * INTERVAL).await;
        let shut = door.enter(Kind::Write, 0).expect_err("400 were too many");
        assert_eq!(shut.limit, "limits.queue_wait");
        assert!(door.enter(Kind::Read, 0).is_ok());
        drop(writes);
        assert!(door.enter(Kind::Write, 0).is_ok(), "some are let in at any time");
        tokio::time::sleep(100 * INTERVAL).await;
        let all: Vec<_> = (0..4_096).map(|_| door.enter(Kind::Write, 0)).collect();
        assert!(all.iter().all(Result::is_ok), "and all of them in the end");
        stop.cancel();
        watch.await.expect("the watch ends");
    }
}
