//! Randomness from the platform, and jitter made of it.

use std::time::Duration;

use crate::platform::Platform;

/// No random bytes could be had from the operating system.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes: {0}")]
pub struct NoRandomness(#[from] getrandom::Error);

/// `N` random bytes.
pub(crate) fn bytes<const N: usize>(platform: &dyn Platform) -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    platform.fill_random(&mut bytes)?;
    Ok(bytes)
}

/// Spreads periods so that nodes do not act in step. Not for secrets: xorshift64* (Vigna 2016)
/// from a random seed.
#[derive(Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    /// A generator with a seed from the platform.
    pub(crate) fn new(platform: &dyn Platform) -> Result<Self, NoRandomness> {
        Ok(Self(u64::from_le_bytes(bytes(platform)?) | 1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound` (0 for a bound of 0).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// `period`, give or take a tenth.
    pub(crate) fn spread(&mut self, period: Duration) -> Duration {
        let tenth = u64::try_from(period.as_micros() / 10).unwrap_or(u64::MAX / 4);
        let offset = Duration::from_micros(self.below(2 * tenth + 1));
        period.saturating_sub(Duration::from_micros(tenth)) + offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::OperatingSystem;

    #[test]
    fn a_period_is_spread_by_a_tenth_at_most() {
        let mut jitter = Jitter::new(&OperatingSystem).expect("random bytes");
        for _ in 0..1_000 {
            let spread = jitter.spread(Duration::from_secs(1));
            assert!((900..=1_100).contains(&spread.as_millis()), "{spread:?}");
        }
        assert_eq!(jitter.spread(Duration::ZERO), Duration::ZERO);
    }
}
