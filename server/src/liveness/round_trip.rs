//! How long a node's answers take: the estimator of RFC 6298.

use std::time::Duration;

/// Before the first answer.
const UNKNOWN: Duration = Duration::from_millis(500);
/// A scheduler's hiccup is no reason to ask others.
const LEAST: Duration = Duration::from_millis(250);
/// Nobody is waited for longer than this, however slow it was.
const MOST: Duration = Duration::from_secs(1);

/// Smoothed round trip and its variation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RoundTrip(Option<(Duration, Duration)>);

impl RoundTrip {
    /// An answer took this long.
    pub(super) fn add(&mut self, sample: Duration) {
        self.0 = Some(match self.0 {
            None => (sample, sample / 2),
            Some((smoothed, variation)) => {
                let off = smoothed.abs_diff(sample);
                ((smoothed * 7 + sample) / 8, (variation * 3 + off) / 4)
            }
        });
    }

    /// The smoothed round trip.
    pub(super) fn smoothed(self) -> Option<Duration> {
        self.0.map(|(smoothed, _)| smoothed)
    }

    /// How long to wait for the next answer.
    pub(super) fn patience(self) -> Duration {
        self.0.map_or(UNKNOWN, |(smoothed, variation)| smoothed + 4 * variation).clamp(LEAST, MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn patience_follows_the_round_trips_within_bounds() {
        let mut trip = RoundTrip::default();
        assert_eq!((trip.smoothed(), trip.patience()), (None, UNKNOWN));
        trip.add(ms(2));
        assert_eq!((trip.smoothed(), trip.patience()), (Some(ms(2)), LEAST));
        (0..40).for_each(|_| trip.add(ms(400)));
        assert!(trip.smoothed().is_some_and(|smoothed| smoothed.abs_diff(ms(400)) < ms(5)));
        assert!(trip.patience() >= ms(400) && trip.patience() < ms(600), "{trip:?}");
        (0..40).for_each(|odd| trip.add(ms(if odd % 2 == 0 { 100 } else { 1_900 })));
        assert_eq!(trip.patience(), MOST);
    }
}
