//! How fast this node copies in the background: a token bucket of bytes.
//!
//! Whoever drives a copy pays for it, be it the one that fetches or the one that pushes: it knows
//! what the copy is for and can wait without holding anything that others need. It does so before each
//! page ([`Throttle::page`]): pages under way count as moved, so however many copies a node makes at once,
//! together they are never more than a second's worth ahead of the rate. At low rates pages are smaller.
//! Only a record that is larger than a page goes beyond it, and is paid for afterwards.
//!
//! Work that a shard waits for (a joint epoch, a member that may not mint yet) is noted and does not
//! wait: as long as it goes on, the shard has more members that can fail than it should have, or one less that
//! serves. It is little, because a learner has copied all there was before; what is less urgent waits longer instead.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Unused time counts for this long: an idle node may begin with a burst of so much.
const BURST: Duration = Duration::from_millis(500);
/// How far pages may be ahead of the rate. With the burst that is a second's worth.
const AHEAD: Duration = Duration::from_millis(500);
/// Bytes of a page at high rates, unless a single record is larger.
const PAGE_BYTES: u32 = 512 << 10;

/// The bucket of one node.
pub(crate) struct Throttle {
    bucket: Mutex<Bucket>,
    /// Who waits for a page stands in line here, so that all copies go on in turn.
    line: tokio::sync::Mutex<()>,
    /// A page has been paid for, or was not fetched after all.
    ended: Notify,
    started: Instant,
    moved: AtomicU64,
}

impl Throttle {
    /// A bucket that fills by so many bytes a second; 0 means that nothing ever waits.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self {
            bucket: Mutex::new(Bucket::new(bytes_per_second)),
            line: tokio::sync::Mutex::default(),
            ended: Notify::new(),
            started: Instant::now(),
            moved: AtomicU64::new(0),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Bucket, Duration) -> T) -> T {
        let now = self.started.elapsed();
        change(&mut self.bucket.lock().unwrap_or_else(PoisonError::into_inner), now)
    }

    /// Waits for its turn to move a page. Giving up meanwhile costs nothing.
    pub(crate) async fn page(&self) -> Page<'_> {
        let _turn = self.line.lock().await;
        while let Err(wait) = self.with(Bucket::begin_page) {
            tokio::select! {
                biased;
                () = self.ended.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        Page { throttle: self }
    }

    /// Most bytes of a page.
    pub(crate) fn page_bytes(&self) -> u32 {
        self.with(|bucket, _| bucket.page_bytes())
    }

    /// Counts moved bytes, and waits until they are within the rate.
    pub(crate) async fn take(&self, bytes: u64) {
        let wait = self.note(bytes);
        tokio::time::sleep(wait).await;
    }

    /// Counts moved bytes, and answers how long less urgent work should wait.
    pub(crate) fn note(&self, bytes: u64) -> Duration {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.with(|bucket, now| bucket.take(bytes, now))
    }

    /// Bytes moved since the start.
    pub(crate) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }
}

/// A page that may be moved now. Once it is dropped, another one may be.
pub(crate) struct Page<'a> {
    throttle: &'a Throttle,
}

impl Page<'_> {
    /// It was moved, and was so large.
    pub(crate) fn moved(self, bytes: u64) {
        self.throttle.note(bytes);
    }
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        self.throttle.with(|bucket, _| bucket.pages -= 1);
        self.throttle.ended.notify_one();
    }
}

/// The bucket without a clock: kept as the moment until which the rate is used up.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    bytes_per_second: u64,
    paid_until: Duration,
    /// Under way, and not paid for.
    pages: u32,
}

impl Bucket {
    const fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, paid_until: Duration::ZERO, pages: 0 }
    }

    /// A page fits into what may be ahead of the rate.
    fn page_bytes(&self) -> u32 {
        if self.bytes_per_second == 0 {
            return PAGE_BYTES;
        }
        let ahead = u128::from(self.bytes_per_second) * AHEAD.as_millis() / 1_000;
        u32::try_from(ahead).unwrap_or(PAGE_BYTES).clamp(1, PAGE_BYTES)
    }

    /// How long the rate needs for so many bytes.
    fn cost(&self, bytes: u64) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn used_until(&self, now: Duration) -> Duration {
        self.paid_until.max(now.saturating_sub(BURST))
    }

    /// Lets a page begin; otherwise, how long it has to wait if no page ends before.
    fn begin_page(&mut self, now: Duration) -> Result<(), Duration> {
        let pages = u64::from(self.pages) + 1;
        let cost = self.cost(pages.saturating_mul(self.page_bytes().into()));
        let until = self.used_until(now).saturating_add(cost);
        let wait = until.saturating_sub(now + AHEAD);
        if self.bytes_per_second > 0 && !wait.is_zero() {
            return Err(wait);
        }
        self.pages += 1;
        Ok(())
    }

    fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        self.paid_until = self.used_until(now).saturating_add(self.cost(bytes));
        self.paid_until.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_rate_holds_over_time_and_an_idle_node_begins_at_once() {
        let mut bucket = Bucket::new(1_000);
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
        let mut bucket = Bucket::new(0);
        assert_eq!(bucket.take(u64::MAX, at(0)), Duration::ZERO);
    }

    /// Has so many copies move pages for a while; what they moved by then, and how long it took.
    async fn moved_by_copies(rate: u64, copies: usize, time: Duration, merged: u64) -> u64 {
        let throttle = Arc::new(Throttle::new(rate));
        throttle.note(merged);
        let copy = |throttle: Arc<Throttle>| async move {
            loop {
                let page = throttle.page().await;
                // As long as a page takes on its way, nobody knows how large it will be.
                tokio::time::sleep(at(100)).await;
                page.moved(throttle.page_bytes().into());
            }
        };
        let copies: Vec<_> =
            (0..copies).map(|_| tokio::spawn(copy(Arc::clone(&throttle)))).collect();
        tokio::time::sleep(time).await;
        copies.iter().for_each(tokio::task::JoinHandle::abort);
        throttle.moved()
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_copies_there_are_they_are_at_most_a_second_ahead_of_the_rate() {
        for rate in [64 << 10, 200 << 10, 1 << 20, 64 << 20] {
            for (copies, seconds) in [(1, 2), (32, 2), (64, 20)] {
                let moved = moved_by_copies(rate, copies, at(seconds * 1_000), 0).await;
                let most = rate * (seconds + 1);
                assert!(moved <= most, "{copies} copies at {rate}: {moved} in {seconds} s");
                let page = u64::from(PAGE_BYTES.min((rate / 2) as u32));
                let least = (rate * (seconds - 1)).min(copies as u64 * page * 9 * seconds);
                assert!(moved >= least, "{copies} copies at {rate}: only {moved} in {seconds} s");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_did_not_wait_is_waited_for_by_the_pages() {
        let merged = 1_000_000;
        let moved = moved_by_copies(100_000, 8, at(9_000), merged).await;
        assert_eq!(moved, merged, "nothing within the ten seconds that the merge has used");
        assert!(moved_by_copies(100_000, 8, at(12_000), merged).await > merged);
    }

    #[tokio::test(start_paused = true)]
    async fn by_default_as_many_pages_as_there_may_be_copies_wait_for_nothing() {
        let throttle = Throttle::new(crate::config::Repair::default().bytes_per_second);
        let began = Instant::now();
        let mut pages = Vec::new();
        for _ in 0..48 {
            pages.push(throttle.page().await);
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_is_given_up_lets_the_next_one_begin_at_once() {
        let throttle = Throttle::new(64 << 10);
        tokio::time::sleep(at(1_000)).await;
        let began = Instant::now();
        let first = throttle.page().await;
        let second = throttle.page().await;
        let third = tokio::time::timeout(at(100), throttle.page()).await;
        assert!(third.is_err(), "two are a second's worth");
        drop(first);
        drop(throttle.page().await);
        drop(second);
        assert_eq!(began.elapsed(), at(100));
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
