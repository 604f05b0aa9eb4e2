//! How long a group takes: what the wait of a newcomer is reckoned with.

use std::time::Duration;

/// How much of the average each new group is: one stall among quick groups says little about the
/// next, a lasting change is known after a dozen.
const WEIGHT: u32 = 8;

/// The moving average of the time from a group's taking to its answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    group: Option<Duration>,
}

impl Pace {
    /// A group took so long.
    pub(super) fn group_took(&mut self, took: Duration) {
        self.group = Some(match self.group {
            None => took,
            Some(before) => (before * (WEIGHT - 1) + took) / WEIGHT,
        });
    }

    /// How long so many groups will take; nothing as long as none was seen.
    pub(super) fn of_groups(&self, groups: usize) -> Duration {
        let groups = u32::try_from(groups).unwrap_or(u32::MAX);
        self.group.unwrap_or_default().saturating_mul(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(8);

    #[test]
    fn one_stall_is_forgotten_and_a_lasting_change_is_learned() {
        let mut pace = Pace::default();
        assert_eq!(pace.of_groups(7), Duration::ZERO, "nothing is known yet");
        pace.group_took(QUICK);
        pace.group_took(100 * QUICK);
        assert!(pace.of_groups(1) < 14 * QUICK, "{:?}", pace.of_groups(1));
        (0..40).for_each(|_| pace.group_took(QUICK));
        assert!(pace.of_groups(1) < 2 * QUICK, "{:?}", pace.of_groups(1));
        (0..40).for_each(|_| pace.group_took(10 * QUICK));
        assert!(pace.of_groups(2) > 18 * QUICK, "{:?}", pace.of_groups(2));
    }
}
