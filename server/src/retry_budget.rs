//! How much a node may try again on behalf of its clients: one request in five, and a few a second.
//!
//! A node that asks another member, or asks again in another epoch, helps as long as few requests need
//! it. When most do, these repetitions are the load that keeps the cluster from recovering (Bronson et
//! al., *Metastable Failures in Distributed Systems*, 2021): a request then fails at once, and its
//! client decides. The first attempt is never paid for.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a repetition costs, in what a request earns.
const COST: u64 = 5;
/// The most that can be saved: so many repetitions at once, as when a shard of many requests moves.
const SAVINGS: u64 = 1_000 * COST;
/// Earned each second without any request, so that a node with few of them can try again, too.
const BY_SECOND: u64 = 20 * COST;

/// The budget of one node.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    account: Mutex<Account>,
}

#[derive(Debug)]
struct Account {
    saved: u64,
    /// The time up to which the seconds have been paid, since the node's start.
    paid_until: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        let account = Account { saved: SAVINGS, paid_until: Duration::ZERO };
        Self { account: Mutex::new(account) }
    }
}

impl RetryBudget {
    fn with<T>(&self, change: impl FnOnce(&mut Account) -> T) -> T {
        change(&mut self.account.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A request begins.
    pub(crate) fn earn(&self) {
        self.with(|account| account.saved = SAVINGS.min(account.saved + 1));
    }

    /// Pays for trying once more. False: there is nothing left.
    pub(crate) fn spend(&self, now: Duration) -> bool {
        self.with(|account| {
            let passed = now.saturating_sub(account.paid_until);
            let earned = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
            let earned = earned.saturating_mul(BY_SECOND) / 1_000;
            if earned > 0 {
                account.saved = SAVINGS.min(account.saved.saturating_add(earned));
                account.paid_until = now;
            }
            let left = account.saved.checked_sub(COST);
            account.saved = left.unwrap_or(account.saved);
            left.is_some()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_requests_pay_for_one_repetition_and_time_for_a_few() {
        let budget = RetryBudget::default();
        let spent = |at: Duration| (0..10_000).filter(|_| budget.spend(at)).count();
        assert_eq!(spent(Duration::ZERO), 1_000);
        (0..50).for_each(|_| budget.earn());
        assert_eq!(spent(Duration::ZERO), 10);
        assert_eq!(spent(Duration::from_secs(2)), 40);
        assert_eq!(spent(Duration::from_secs(1)), 0, "no second is paid twice");
        (0..1_000_000).for_each(|_| budget.earn());
        assert_eq!(spent(Duration::from_secs(2)), 1_000, "savings are bounded");
    }
}
