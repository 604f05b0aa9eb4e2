//! `cargo xtask fuzz`: what the tests do once with hostile bytes and messages, done again and again with other seeds.
//!
//! Rounds of two halves: every decoder on mutated bytes (`PROPTEST_RNG_SEED`, `PROPTEST_CASES`), then every method of running
//! nodes (`SOAK_SEED`, `SOAK_SECONDS`). Each round tells its seed; `--seed` repeats one. The first failure ends it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::cargo::{cargo, length_and_seed, succeed, tests};

/// How long it goes on, unless it is told.
const MINUTES: u64 = 10;
/// Inputs of each decoder in one round.
const CASES: u32 = 20_000;
/// How long each story of a round bombards its nodes.
const STORY_SECONDS: u64 = 60;
/// What the tests of decoders are named after.
const DECODERS: &str = "hostile";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    minutes: u64,
    seed: Option<u64>,
}

pub(crate) fn run(options: &[String]) -> Result<()> {
    let wanted = parse(options)?;
    let end = Instant::now() + Duration::from_secs(wanted.minutes * 60);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut seed = wanted.seed.unwrap_or(since.as_secs());
    loop {
        println!("fuzz: seed {seed}");
        one_round(seed).with_context(|| format!("seed {seed}"))?;
        if Instant::now() >= end || wanted.seed.is_some() {
            return Ok(());
        }
        seed = seed.wrapping_add(1);
    }
}

fn one_round(seed: u64) -> Result<()> {
    let mut decoders = cargo(&["test", "--workspace", "--locked", "--lib", "--bins", DECODERS]);
    decoders.env("PROPTEST_RNG_SEED", seed.to_string()).env("PROPTEST_CASES", CASES.to_string());
    succeed(decoders)?;
    let mut story = tests(&["hostile"], &[]);
    story.arg("--test-threads=1").env("SOAK_SEED", seed.to_string());
    story.env("SOAK_SECONDS", STORY_SECONDS.to_string());
    succeed(story)
}

fn parse(options: &[String]) -> Result<Wanted> {
    let (minutes, seed) = length_and_seed(options, "--minutes", MINUTES)?;
    Ok(Wanted { minutes, seed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cargo::words;

    fn parsed(line: &str) -> Result<Wanted> {
        parse(&words(line))
    }

    #[test]
    fn options_have_values_that_fit() {
        assert_eq!(parsed("").unwrap(), Wanted { minutes: MINUTES, seed: None });
        let both = Wanted { minutes: 3, seed: Some(7) };
        assert_eq!(parsed("--minutes 3 --seed 7").unwrap(), both);
        for wrong in ["--minutes", "--minutes long", "--story soak"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
