//! `cargo xtask chaos`: five containers of the real image under every kind of fault, for as long as one likes.
//!
//! The test of CI runs, told by `CHAOS_SECONDS` to do everything, and by `CHAOS_SEED` which choices to repeat. It ends
//! with a line of figures; a failing run says where it keeps its history, its logs and a picture.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::tree;

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
    let mut cargo = Command::new(env!("CARGO"));
    // Not `-p triad-tests`: cargo would choose other features and build anew.
    cargo.args(["test", "--workspace", "--locked", "--test", "chaos", "--", "--nocapture"]);
    cargo.current_dir(tree::root()).env("TRIAD_REQUIRE_DOCKER", "1");
    cargo.env("CHAOS_SECONDS", wanted.seconds.to_string());
    if let Some(seed) = wanted.seed {
        cargo.env("CHAOS_SEED", seed.to_string());
    }
    let status = cargo.status().context("cargo starts")?;
    ensure!(status.success(), "chaos failed");
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Wanted> {
    let mut wanted = Wanted { seconds: SECONDS, seed: None };
    for pair in arguments.chunks(2) {
        let [name, value] = pair else {
            bail!("{} lacks its value", pair[0]);
        };
        let number = || value.parse().with_context(|| format!("{name} {value}: not a number"));
        match name.as_str() {
            "--seconds" => wanted.seconds = number()?,
            "--seed" => wanted.seed = Some(number()?),
            _ => bail!("unknown option `{name}`: --seconds and --seed are known"),
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Wanted> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
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
