//! One kind of requests: how many are at work, how long they took lately, and how many may be.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::allowance::Allowance;

/// Reads, or writes: they wait for different things.
pub(super) struct Lane {
    busy: AtomicU32,
    allowed: AtomicU32,
    /// Of this interval: the most at work, those that were done, and those of them that took too long.
    busiest: AtomicU32,
    done: AtomicU32,
    slow: AtomicU32,
    /// What is too long.
    slow_at: Duration,
}

impl Lane {
    pub(super) fn new(most: u32, slow_at: Duration) -> Self {
        let none = || AtomicU32::new(0);
        let allowed = AtomicU32::new(most);
        Self { busy: none(), allowed, busiest: none(), done: none(), slow: none(), slow_at }
    }

    /// Counts one more at work; none when there are as many as may be. Answers how many are.
    pub(super) fn enter(&self) -> Result<(), u32> {
        let before = self.busy.fetch_add(1, Ordering::Relaxed);
        self.busiest.fetch_max(before + 1, Ordering::Relaxed);
        if before < self.allowed.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.leave();
        Err(before)
    }

    pub(super) fn leave(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request was done in that time. What failed says nothing: it may have waited for a node that
    /// is gone, or not at all.
    pub(super) fn done(&self, took: Duration) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.slow.fetch_add(u32::from(took > self.slow_at), Ordering::Relaxed);
    }

    /// An interval is over; `late`: everything was late in it. True when not all requests were let in
    /// before, and are from now on.
    pub(super) fn turn(&self, allowance: &mut Allowance, late: bool) -> bool {
        let limited = allowance.is_limited();
        let [busiest, done, slow] =
            [&self.busiest, &self.done, &self.slow].map(|count| count.swap(0, Ordering::Relaxed));
        if late || slow.saturating_mul(2) > done {
            allowance.less(busiest);
        } else if done > 0 || busiest == 0 {
            allowance.more();
        }
        self.allowed.store(allowance.get(), Ordering::Relaxed);
        limited && !allowance.is_limited()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_millis(500);

    #[test]
    fn when_most_that_is_done_took_too_long_less_is_let_in() {
        let (lane, mut allowance) = (Lane::new(1_000, SLOW), Allowance::new(1_000));
        let mut interval = |quick: u32, slow: u32| {
            (0..200).for_each(|_| lane.enter().expect("few enough"));
            (0..200).for_each(|_| lane.leave());
            (0..quick).for_each(|_| lane.done(SLOW / 2));
            (0..slow).for_each(|_| lane.done(2 * SLOW));
            lane.turn(&mut allowance, false);
            allowance.get()
        };
        assert_eq!(interval(100, 99), 1_000, "some requests take long by themselves");
        assert_eq!(interval(0, 0), 1_000, "what does not end proves nothing");
        assert!(interval(10, 30) < 200, "200 at work were too many");
    }

    #[test]
    fn who_is_not_let_in_is_not_counted() {
        let lane = Lane::new(2, SLOW);
        assert_eq!(
            [lane.enter(), lane.enter(), lane.enter(), lane.enter()],
            [Ok(()), Ok(()), Err(2), Err(2)]
        );
        lane.leave();
        assert_eq!(lane.enter(), Ok(()));
    }
}
