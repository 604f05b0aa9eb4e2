//! How much repeating a client may do: one request in ten.
//!
//! Retries help while few requests fail. When most do, they are the load that keeps the cluster from
//! recovering (Bronson et al., *Metastable Failures in Distributed Systems*, 2021). So every
//! request earns a tenth of a retry, and a client that has used up its savings reports errors.

use std::sync::atomic::{AtomicU32, Ordering};

/// What a retry costs, in what a request earns.
const RETRY: u32 = 10;
/// The most that can be saved: this many retries at once.
const SAVINGS: u32 = 20 * RETRY;

/// The budget of one client, shared by all its requests.
#[derive(Debug)]
pub(crate) struct Budget {
    saved: AtomicU32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { saved: AtomicU32::new(SAVINGS) }
    }
}

impl Budget {
    /// A request begins.
    pub(crate) fn earn(&self) {
        let earned = |saved: u32| (saved < SAVINGS).then_some(saved + 1);
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earned);
    }

    /// Pays for sending something again. False: there is nothing left.
    pub(crate) fn spend(&self) -> bool {
        let left = |saved: u32| saved.checked_sub(RETRY);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_requests_pay_for_one_retry() {
        let budget = Budget::default();
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 20);
        (0..9).for_each(|_| budget.earn());
        assert!(!budget.spend());
        budget.earn();
        assert!(budget.spend() && !budget.spend());
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 20, "savings are bounded");
    }
}
