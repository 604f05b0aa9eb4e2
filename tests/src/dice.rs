//! Choices that a seed repeats, and the variables by which a long run is asked for.
//!
//! `SOAK_SECONDS` makes stories longer, `SOAK_SEED` repeats one's choices (not the interleaving, which is the
//! machine's); `cargo xtask soak` sets both.

use std::env;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Small, seeded, and the same on every machine (`SplitMix64`).
#[derive(Debug)]
pub struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    /// From `SOAK_SEED`, else from the clock.
    pub fn new() -> Self {
        Self::asked_for("SOAK_SEED")
    }

    /// From this variable, else from the clock.
    pub fn asked_for(variable: &str) -> Self {
        let fresh = || {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_millis() as u64)
        };
        Self::seeded(number(variable).unwrap_or_else(fresh))
    }

    /// From this seed.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// What it began with; a failing story must tell it.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A number of the range.
    pub fn roll(&mut self, range: Range<u64>) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        range.start + (z ^ (z >> 31)) % (range.end - range.start)
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.roll(0..all.len() as u64) as usize]
    }

    /// A time between these milliseconds.
    pub fn time(&mut self, range_ms: Range<u64>) -> Duration {
        Duration::from_millis(self.roll(range_ms))
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}

/// How long a story is to last: `SOAK_SECONDS`, else this many.
pub fn length(seconds: u64) -> Duration {
    Duration::from_secs(number("SOAK_SECONDS").unwrap_or(seconds))
}

/// The number that a variable holds, if it holds one.
pub fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}
