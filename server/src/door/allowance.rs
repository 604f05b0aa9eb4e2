//! How many requests may be at work at once, learned from how it goes.
//!
//! Multiplicative decrease and careful increase, as of congestion windows, with the delay as the
//! signal: when what comes out has waited too long there is a standing queue, whatever its
//! length (Nichols and Jacobson, *Controlling Queue Delay*, 2012), and what is at work is too
//! much by definition. While nothing is late, more and more is let in again.

/// So many are let in however late everything is: who shares a machine with others is late at times
/// through no fault of its own work.
const LEAST: u32 = 32;
/// What is kept of what was at work when it was too much: this of 4.
const KEPT_OF_FOUR: u32 = 3;
/// What is added when nothing is late: this part.
const ADDED_PART: u32 = 8;

/// The number of requests that may be at work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    now: u32,
    most: u32,
}

impl Allowance {
    /// Begins with all that there may be.
    pub(super) fn new(most: u32) -> Self {
        Self { now: most, most }
    }

    /// So many at work were too many.
    pub(super) fn less(&mut self, busy: u32) {
        self.now = (self.now.min(busy) / 4 * KEPT_OF_FOUR).max(LEAST.min(self.most));
    }

    /// All went well.
    pub(super) fn more(&mut self) {
        self.now = self.now.saturating_add(self.now / ADDED_PART + 1).min(self.most);
    }

    /// How many may be at work.
    pub(super) fn get(self) -> u32 {
        self.now
    }

    /// These are fewer than there might be.
    pub(super) fn is_limited(self) -> bool {
        self.now < self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_overload_the_delay_settles_and_afterwards_all_are_let_in_again() {
        // A server that does 10 requests in a millisecond, for which 500 ms are too long.
        let late = |at_work: u32| at_work / 10 > 500;
        let mut allowance = Allowance::new(40_960);
        let mut seen = Vec::new();
        for _ in 0..100 {
            let busy = allowance.get();
            seen.push(busy / 10);
            if late(busy) { allowance.less(busy) } else { allowance.more() }
        }
        assert!(seen[0] > 4_000, "it began with far too many");
        assert!(seen[20..].iter().all(|ms| (300..600).contains(ms)), "{:?}", &seen[20..]);
        (0..60).for_each(|_| allowance.more());
        assert!(!allowance.is_limited());
    }

    #[test]
    fn whatever_happens_some_are_let_in_and_never_more_than_the_limit() {
        let mut allowance = Allowance::new(4_096);
        (0..100).for_each(|_| allowance.less(0));
        assert_eq!(allowance.get(), LEAST);
        let mut narrow = Allowance::new(3);
        narrow.less(3);
        assert_eq!(narrow.get(), 3);
    }
}
