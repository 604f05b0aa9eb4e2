//! `cargo xtask soak`: the stories of `tests/tests` that CI runs in short, for as long as one likes.
//!
//! The same test programs run, one story after the other, told by `SOAK_SECONDS` how long to go on
//! and by `SOAK_SEED` which choices to repeat.

use anyhow::{Result, ensure};

use crate::cargo::{each_option, number, succeed, tests};

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
        let mut cargo = tests(&[story], &[]);
        cargo.arg("--test-threads=1").env("SOAK_SECONDS", (wanted.minutes * 60).to_string());
        if let Some(seed) = wanted.seed {
            cargo.env("SOAK_SEED", seed.to_string());
        }
        if let Err(error) = succeed(cargo) {
            failed.push(format!("{story}: {error:#}"));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Wanted> {
    let mut wanted = Wanted { minutes: MINUTES, story: None, seed: None };
    each_option(arguments, "--minutes, --story and --seed", |name, value| {
        match name {
            "--minutes" => wanted.minutes = number(name, value)?,
            "--seed" => wanted.seed = Some(number(name, value)?),
            "--story" => {
                ensure!(
                    STORIES.contains(&value),
                    "no story `{value}`: they are {}",
                    STORIES.join(", ")
                );
                wanted.story = Some(value.to_owned());
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(wanted)
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
        let all = Wanted { minutes: MINUTES, story: None, seed: None };
        assert_eq!(parsed("").unwrap(), all);
        let one = Wanted { minutes: 3, story: Some("halves".into()), seed: Some(7) };
        assert_eq!(parsed("--minutes 3 --story halves --seed 7").unwrap(), one);
        for wrong in ["--minutes", "--minutes long", "--story nothing", "--loud yes"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
