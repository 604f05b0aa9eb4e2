//! What became of the operations of one phase, and what is reported of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use triad_client::Error;

/// The grain of the time series.
pub const SLOT: Duration = Duration::from_millis(100);
/// Slots of a second.
const SECOND: usize = 10;
/// The longest phase that is kept in slots: an hour. What ends later counts into the last.
const SLOTS_MAX: usize = 36_000;
/// Kinds of failure that are counted apart; further ones are counted together.
const FAILURES_MAX: usize = 64;
/// Longer latencies are told as this: a minute, in microseconds.
const LATENCY_MAX: u64 = 60_000_000;

/// Whether an operation reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Get.
    Read,
    /// A Put.
    Write,
}

/// Counts a phase while it runs.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    offered: u64,
    failures: BTreeMap<String, Failures>,
    reads: Histogram<u64>,
    writes: Histogram<u64>,
    failed: Histogram<u64>,
    lag: Histogram<u64>,
    slots: Vec<Slot>,
}

/// Operations that failed alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Failures {
    /// So many.
    pub count: u64,
    /// What the first of them was told.
    pub example: String,
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it is counted under.
    pub kind: String,
    /// The message.
    pub message: String,
}

/// What ended within one slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// Operations that succeeded.
    pub ok: u64,
    /// Operations that did not.
    pub failed: u64,
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// So many operations.
    pub count: u64,
    /// Half of them were no slower.
    pub p50: f64,
    /// 99 of 100 were no slower.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// What is reported of a phase.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Seconds during which operations were started.
    pub seconds: f64,
    /// Operations that were to be started.
    pub offered: u64,
    /// Those that succeeded.
    pub ok: u64,
    /// Those that did not, by status code and reason.
    pub failures: BTreeMap<String, Failures>,
    /// Latencies of reads that succeeded, from their intended start.
    pub reads: Latency,
    /// The same of writes.
    pub writes: Latency,
    /// How long operations took that failed.
    pub failed: Latency,
    /// How late the generator started operations: large when it, not the cluster, was out of breath.
    pub lag: Latency,
    /// What ended in each tenth of a second since the phase began, also after its last start.
    pub slots: Vec<Slot>,
}

impl Recorder {
    /// A phase that begins now.
    pub fn new() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_MAX, 3)
                .expect("the bounds are in order, 3 digits are allowed")
        };
        let counts = Counts {
            offered: 0,
            failures: BTreeMap::new(),
            reads: histogram(),
            writes: histogram(),
            failed: histogram(),
            lag: histogram(),
            slots: Vec::new(),
        };
        Self { began: Instant::now(), counts: Mutex::new(counts) }
    }

    /// When the phase began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// An operation was to start then, and starts now.
    pub fn started(&self, intended: Instant) {
        let lag = intended.elapsed();
        let mut counts = self.lock();
        counts.offered += 1;
        counts.lag.saturating_record(micros(lag));
    }

    /// An operation that was to start then has succeeded.
    pub fn succeeded(&self, kind: Kind, intended: Instant) {
        let took = micros(intended.elapsed());
        let mut counts = self.lock();
        match kind {
            Kind::Read => counts.reads.saturating_record(took),
            Kind::Write => counts.writes.saturating_record(took),
        }
        self.slot(&mut counts).ok += 1;
    }

    /// An operation that was to start then has failed.
    pub fn failed(&self, failure: &Failure, intended: Instant) {
        let took = micros(intended.elapsed());
        let mut counts = self.lock();
        counts.failed.saturating_record(took);
        let Failure { kind, message } = failure;
        let known = counts.failures.contains_key(kind) || counts.failures.len() < FAILURES_MAX;
        let kind = if known { kind.as_str() } else { "others" };
        if let Some(alike) = counts.failures.get_mut(kind) {
            alike.count += 1;
        } else {
            let first = Failures { count: 1, example: message.clone() };
            counts.failures.insert(kind.to_owned(), first);
        }
        self.slot(&mut counts).failed += 1;
    }

    fn slot<'a>(&self, counts: &'a mut Counts) -> &'a mut Slot {
        let index = (self.began.elapsed().as_millis() / SLOT.as_millis()) as usize;
        let index = index.min(SLOTS_MAX - 1);
        if counts.slots.len() <= index {
            counts.slots.resize(index + 1, Slot::default());
        }
        &mut counts.slots[index]
    }

    /// What is known now, of a phase that started operations for so long.
    pub fn report(&self, length: Duration) -> Report {
        let counts = self.lock();
        Report {
            seconds: length.as_secs_f64(),
            offered: counts.offered,
            ok: counts.reads.len() + counts.writes.len(),
            failures: counts.failures.clone(),
            reads: Latency::of(&counts.reads),
            writes: Latency::of(&counts.writes),
            failed: Latency::of(&counts.failed),
            lag: Latency::of(&counts.lag),
            slots: counts.slots.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let ms = |micros: u64| micros as f64 / 1_000.0;
        Self {
            count: histogram.len(),
            p50: ms(histogram.value_at_quantile(0.5)),
            p99: ms(histogram.value_at_quantile(0.99)),
            max: ms(histogram.max()),
        }
    }
}

impl Report {
    /// Successes for each whole second of the phase.
    pub fn goodput(&self) -> Vec<u64> {
        let seconds = self.seconds as usize;
        let slot = |index: usize| self.slots.get(index).map_or(0, |slot| slot.ok);
        (0..seconds).map(|second| (0..SECOND).map(|n| slot(second * SECOND + n)).sum()).collect()
    }

    /// How long after its beginning the phase reached so many successes in each of so many seconds in a row; none if
    /// it never did.
    pub fn reached(&self, wanted: f64, in_a_row: usize) -> Option<Duration> {
        let good =
            |second: &[Slot]| second.iter().map(|slot| slot.ok).sum::<u64>() as f64 >= wanted;
        let mut windows = self.slots.windows(SECOND * in_a_row.max(1));
        let first = windows.position(|window| window.chunks_exact(SECOND).all(good))?;
        Some(SLOT * u32::try_from(first).unwrap_or(u32::MAX))
    }
}

/// The middle one; of an even count the lower of the two. 0 of none.
pub fn median<T: Copy + PartialOrd + Default>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

impl From<&Error> for Failure {
    /// Counted under the status code as gRPC spells it, and Triad's reason if it gave one.
    fn from(error: &Error) -> Self {
        let code = spelled(&format!("{:?}", error.code()));
        let kind = match (error.reason(), error.is_in_doubt()) {
            ("", true) => format!("{code} (in doubt, no answer)"),
            ("", false) => format!("{code} (no answer)"),
            (reason, _) => format!("{code} {reason}"),
        };
        Self { kind, message: error.to_string() }
    }
}

impl Failure {
    /// An operation that the generator itself kept back.
    pub fn not_sent(why: &str) -> Self {
        Self { kind: "not sent".to_owned(), message: why.to_owned() }
    }
}

impl Report {
    /// How many operations failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().map(|alike| alike.count).sum()
    }
}

/// `DeadlineExceeded` as `DEADLINE_EXCEEDED`.
fn spelled(code: &str) -> String {
    let mut text = String::with_capacity(code.len() + 4);
    for letter in code.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(LATENCY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ok: &[u64]) -> Report {
        let mut report = Recorder::new().report(Duration::from_secs(2));
        report.slots = ok.iter().map(|ok| Slot { ok: *ok, failed: 0 }).collect();
        report
    }

    #[test]
    fn latencies_count_from_the_intended_start() {
        let recorder = Recorder::new();
        let intended = Instant::now().checked_sub(Duration::from_millis(1_500)).unwrap();
        recorder.started(intended);
        recorder.succeeded(Kind::Write, intended);
        recorder.started(intended);
        recorder.failed(&Failure::not_sent("the first"), intended);
        recorder.failed(&Failure::not_sent("the second"), intended);
        let report = recorder.report(Duration::from_secs(1));
        assert_eq!((report.offered, report.ok), (2, 1));
        let alike = Failures { count: 2, example: "the first".to_owned() };
        assert_eq!((&report.failures["not sent"], report.failed()), (&alike, 2));
        assert!(report.writes.p50 >= 1_498.0 && report.failed.max >= 1_498.0, "{report:?}");
        assert!(report.lag.p50 >= 1_498.0 && report.reads.count == 0, "{report:?}");
    }

    #[test]
    fn kinds_of_failure_are_bounded() {
        let recorder = Recorder::new();
        let kind = |n| Failure { kind: format!("kind {n}"), message: String::new() };
        (0..1_000).for_each(|n| recorder.failed(&kind(n), Instant::now()));
        let report = recorder.report(SLOT);
        assert_eq!((report.failures.len(), report.failed()), (FAILURES_MAX + 1, 1_000));
    }

    #[test]
    fn goodput_is_told_by_whole_seconds_and_recovery_by_tenths() {
        let mut slots = vec![0; 7];
        slots.extend([10; 15]);
        let report = report(&slots);
        assert_eq!(report.goodput(), [30, 100]);
        assert_eq!(report.reached(100.0, 1), Some(Duration::from_millis(700)));
        assert_eq!(report.reached(95.0, 1), Some(Duration::from_millis(700)));
        assert_eq!(report.reached(90.0, 1), Some(Duration::from_millis(600)));
        assert_eq!(report.reached(101.0, 1), None);
    }

    #[test]
    fn one_good_second_is_no_recovery() {
        let mut slots = vec![10; 12];
        slots.extend([0; 10]);
        slots.extend([10; 30]);
        let report = report(&slots);
        assert_eq!(report.reached(100.0, 1), Some(Duration::ZERO));
        assert_eq!(report.reached(100.0, 3), Some(Duration::from_millis(2_200)));
        assert_eq!(report.reached(100.0, 4), None);
    }

    #[test]
    fn medians_and_codes() {
        assert_eq!(median(&[3, 1, 2]), 2);
        assert_eq!(median(&["b", "a"]), "a");
        assert_eq!(median::<u64>(&[]), 0);
        assert_eq!(spelled("ResourceExhausted"), "RESOURCE_EXHAUSTED");
        assert_eq!(spelled("Unavailable"), "UNAVAILABLE");
    }
}
