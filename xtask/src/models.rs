//! `cargo xtask models`: every case of the models, every mutant, and a line of figures.
//!
//! The same tests run as in CI; `--wide` adds the cases whose bounds take too long for that.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::tests;

/// What the two tests of the crate `models` told, line by line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    cases: usize,
    hold: usize,
    states: usize,
    mutants: usize,
    killed: usize,
}

impl Figures {
    /// Takes in a line of the output, as `models/tests` print them.
    fn take(&mut self, line: &str) {
        let fields: Vec<_> = line.split(" | ").map(str::trim).collect();
        let result = fields.last().copied().unwrap_or_default();
        match fields.first().and_then(|first| first.split_whitespace().last()) {
            Some("model") => {
                self.cases += 1;
                self.hold += usize::from(result == "holds");
                let states = fields.iter().find_map(|field| field.strip_suffix(" states"));
                self.states += states.and_then(|states| states.parse().ok()).unwrap_or(0);
            }
            Some("mutant") => {
                self.mutants += 1;
                self.killed += usize::from(result != "SURVIVES");
            }
            _ => {}
        }
    }
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let wide = match arguments {
        [] => false,
        [one] if one == "--wide" => true,
        other => bail!("unknown option `{}`: --wide is known", other.join(" ")),
    };
    let begun = Instant::now();
    let mut cargo = tests(&["models", "mutants"], &["--no-fail-fast"]);
    cargo.stdout(Stdio::piped());
    if wide {
        cargo.env("TRIAD_MODELS_WIDE", "1");
    }
    let mut running = cargo.spawn().context("cargo starts")?;
    let output = running.stdout.take().context("its output is piped")?;
    let mut figures = Figures::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("cargo prints text")?;
        figures.take(&line);
        println!("{line}");
    }
    let status = running.wait().context("cargo ends")?;
    let Figures { cases, hold, states, mutants, killed } = figures;
    println!(
        "models: {hold} of {cases} cases hold, {states} states; {killed} of {mutants} mutants killed; {} s",
        begun.elapsed().as_secs()
    );
    ensure!(status.success(), "the models failed: {status}");
    ensure!(cases > 0 && mutants > 0, "nothing was run");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_tests_are_counted() {
        let mut figures = Figures::default();
        for line in [
            "running 2 tests",
            "model | a | bounds | Exhaustive | 70 states | depth 9 | 0.1 s | holds",
            "test x ... model | b | bounds | Exhaustive | 5 states | depth 9 | 0.1 s | BROKEN: D1",
            "mutant | X | D1: a rule | a | 9 states | 0.1 s | 5 steps, D1",
            "mutant | Y | D1: a rule | a | 9 states | 0.1 s | SURVIVES",
        ] {
            figures.take(line);
        }
        let Figures { cases, hold, states, mutants, killed } = figures;
        assert_eq!((cases, hold, states, mutants, killed), (2, 1, 75, 2, 1));
        assert!(run(&["--fast".to_owned()]).is_err());
    }
}
