//! `cargo xtask soak`: the stories of `tests/tests` that CI runs in short, for as long as one likes.
//!
//! The same test programs run, one story after the other, told by `SOAK_SECONDS` how long to go on
//! and by `SOAK_SEED` which choices to repeat.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::tree;

/// The test programs whose stories have a length.
const STORIES: [&str; 3] = ["soak", "halves", "wipes"];
/// How long each goes on, unless it is told.
const MINUTES: u64 = 10;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    minutes: u64,
    story: Option<String>,
    seed: Option<u64>,
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let wanted = parse(arguments)?;
    let mut failed = Vec::new();
    for story in STORIES {
        if wanted.story.as_ref().is_some_and(|only| only != story) {
            continue;
        }
        println!("soak: {story} for {} min", wanted.minutes);
        let mut cargo = Command::new(env!("CARGO"));
        // Not `-p triad-tests`: cargo would choose other features and build anew.
        cargo.args(["test", "--workspace", "--locked", "--test", story, "--", "--nocapture"]);
        cargo.arg("--test-threads=1").current_dir(tree::root());
        cargo.env("SOAK_SECONDS", (wanted.minutes * 60).to_string());
        if let Some(seed) = wanted.seed {
            cargo.env("SOAK_SEED", seed.to_string());
        }
        let status = cargo.status().context("cargo starts")?;
        if !status.success() {
            failed.push(story);
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Wanted> {
    let mut wanted = Wanted { minutes: MINUTES, story: None, seed: None };
    for pair in arguments.chunks(2) {
        let [name, value] = pair else {
            bail!("{} lacks its value", pair[0]);
        };
        let number = || value.parse().with_context(|| format!("{name} {value}: not a number"));
        match name.as_str() {
            "--minutes" => wanted.minutes = number()?,
            "--seed" => wanted.seed = Some(number()?),
            "--story" => {
                let known = STORIES.contains(&value.as_str());
                ensure!(known, "no story `{value}`: they are {}", STORIES.join(", "));
                wanted.story = Some(value.clone());
            }
            _ => bail!("unknown option `{name}`: --minutes, --story and --seed are known"),
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
    fn options_have_values_that_fit() {
        let all = Wanted { minutes: MINUTES, story: None, seed: None };
        assert_eq!(parsed("").unwrap(), all);
        let one = Wanted { minutes: 3, story: Some("halves".into()), seed: Some(7) };
        assert_eq!(parsed("--minutes 3 --story halves --seed 7").unwrap(), one);
        for wrong in ["--minutes", "--minutes long", "--story nothing", "--loud yes"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
