//! `cargo xtask chaos`: five containers of the real image under every kind of fault, for as long as one likes.
//!
//! The test of CI runs, told by `CHAOS_SECONDS` to do everything, and by `CHAOS_SEED` which choices to repeat. It ends
//! with a line of figures; a failing run says where it keeps its history, its logs and a picture.

use anyhow::Result;

use crate::cargo::{length_and_seed, succeed, tests};

/// How long faults go on, unless it is told: enough for each kind, more than once.
const SECONDS: u64 = 300;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    seconds: u64,
    seed: Option<u64>,
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let wanted = parse(arguments)?;
    let mut cargo = tests(&["chaos"], &[]);
    cargo.env("TRIAD_REQUIRE_DOCKER", "1").env("CHAOS_SECONDS", wanted.seconds.to_string());
    // A backtrace of the harness hides the sentence that says what went wrong.
    cargo.env("RUST_BACKTRACE", "0");
    if let Some(seed) = wanted.seed {
        cargo.env("CHAOS_SEED", seed.to_string());
    }
    succeed(cargo)
}

fn parse(arguments: &[String]) -> Result<Wanted> {
    let (seconds, seed) = length_and_seed(arguments, "--seconds", SECONDS)?;
    Ok(Wanted { seconds, seed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cargo::words;

    fn parsed(line: &str) -> Result<Wanted> {
        parse(&words(line))
    }

    #[test]
    fn options_have_numbers() {
        assert_eq!(parsed("").unwrap(), Wanted { seconds: SECONDS, seed: None });
        let both = Wanted { seconds: 7_200, seed: Some(7) };
        assert_eq!(parsed("--seconds 7200 --seed 7").unwrap(), both);
        for wrong in ["--seconds", "--seconds long", "--hours 2"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
