//! How far this node may trust its own ears (Lifeguard's local health): when its own periods come
//! late, or helpers that are alive do not answer, it waits longer before it speaks of others.

use std::time::Duration;

/// The worst.
const WORST: u32 = 8;
/// So many points make every wait longer by its first length.
const POINTS: u32 = 4;

/// 0 = well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Health(u32);

impl Health {
    /// Something went wrong that is more likely our fault than anybody else's.
    pub(super) fn worsen(&mut self) {
        self.0 = (self.0 + 1).min(WORST);
    }

    /// An answer came, or a period was in time.
    pub(super) fn mend(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    /// `wait`, made up to three times as long.
    pub(super) fn stretch(self, wait: Duration) -> Duration {
        wait * (POINTS + self.0) / POINTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_health_stretches_waits_threefold_at_most_and_mends() {
        let mut health = Health::default();
        let wait = Duration::from_millis(400);
        assert_eq!(health.stretch(wait), wait);
        health.worsen();
        assert_eq!(health.stretch(wait), wait + wait / 4);
        (0..100).for_each(|_| health.worsen());
        assert_eq!(health.stretch(wait), wait * 3);
        (0..WORST).for_each(|_| health.mend());
        assert_eq!(health, Health::default());
    }
}
