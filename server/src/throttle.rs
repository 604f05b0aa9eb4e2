//! How fast this node copies in the background: a token bucket of bytes.
//!
//! Whoever drives a copy pays for it, be it the one that fetches or the one that pushes: it knows
//! what the copy is for and can wait without holding anything that others need. A caller notes what it
//! has moved and then waits until the debt is paid, so a page larger than a second's worth is only a
//! longer wait. Work that a shard waits for (a joint epoch, a member that may not mint yet) is noted
//! and does not wait: what is less urgent waits longer instead.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Unused time counts for this long: an idle node may begin with a burst of so much.
const BURST: Duration = Duration::from_millis(500);

/// The bucket of one node.
pub(crate) struct Throttle {
    bucket: Mutex<Bucket>,
    started: Instant,
    moved: AtomicU64,
}

impl Throttle {
    /// A bucket that fills by so many bytes a second; 0 means that nothing ever waits.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        let bucket = Mutex::new(Bucket { bytes_per_second, paid_until: Duration::ZERO });
        Self { bucket, started: Instant::now(), moved: AtomicU64::new(0) }
    }

    /// Counts moved bytes, and waits until they are within the rate.
    pub(crate) async fn take(&self, bytes: u64) {
        let wait = self.note(bytes);
        tokio::time::sleep(wait).await;
    }

    /// Counts moved bytes, and answers how long less urgent work should wait.
    pub(crate) fn note(&self, bytes: u64) -> Duration {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        let now = self.started.elapsed();
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, now)
    }

    /// Bytes moved since the start.
    pub(crate) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }
}

/// The bucket without a clock: kept as the moment until which the rate is used up.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    bytes_per_second: u64,
    paid_until: Duration,
}

impl Bucket {
    fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let from = self.paid_until.max(now.saturating_sub(BURST));
        self.paid_until = from.saturating_add(cost);
        self.paid_until.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_rate_holds_over_time_and_an_idle_node_begins_at_once() {
        let mut bucket = Bucket { bytes_per_second: 1_000, paid_until: Duration::ZERO };
        assert_eq!(bucket.take(400, at(10_000)), Duration::ZERO, "within the burst");
        assert_eq!(bucket.take(1_100, at(10_000)), at(1_000));
        assert_eq!(bucket.take(1_000, at(10_000)), at(2_000), "debts of several callers add up");
        assert_eq!(bucket.take(0, at(12_000)), Duration::ZERO);
        assert_eq!(bucket.take(500, at(12_000)), at(500), "no burst for the busy");
        assert_eq!(
            bucket.take(500, at(60_000)),
            Duration::ZERO,
            "and no more than one for the idle"
        );
        assert_eq!(bucket.take(500, at(60_000)), at(500));
    }

    #[test]
    fn without_a_rate_nobody_waits() {
        let mut bucket = Bucket { bytes_per_second: 0, paid_until: Duration::ZERO };
        assert_eq!(bucket.take(u64::MAX, at(0)), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_waits() {
        let throttle = Throttle::new(1_000_000);
        let began = Instant::now();
        throttle.take(2_000_000).await;
        assert!(began.elapsed() >= at(1_500), "{:?}", began.elapsed());
        assert!(throttle.note(1_000_000) >= at(900));
    }
}
