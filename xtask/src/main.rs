//! House rules and long checks, as `cargo xtask …`.
//!
//! `tidy` reads the tree and never writes; `ci` runs the script that CI runs. Rules that clippy
//! can hold are in `Cargo.toml` and the `clippy.toml` files; what is here is what clippy cannot see.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks")]

mod cargo;
mod chaos;
mod fuzz;
mod models;
mod powercut;
mod rules;
mod sim;
mod soak;
mod source;
mod tree;

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::tree::Tree;

const USAGE: &str = "\
usage: cargo xtask <command>

  tidy    house rules: sizes, forbidden words, pure cores, dead files, documents that point nowhere
  ci      everything CI checks, by the same script (.ci/run)
  models  every case of the models, every mutant: [--wide], see xtask/src/models.rs
  sim     simulated clusters under faults: [--seeds N] [--seed FIRST] [--short|--long] [--trace] [--log FILTER]
  soak    the long stories in full: [--minutes N] [--story NAME] [--seed N], see xtask/src/soak.rs
  chaos   containers under every kind of fault: [--seconds N] [--seed N], see xtask/src/chaos.rs
  powercut  power cuts under a loaded store, every engine: [--cuts N] [--engine NAME] [--mode strict|random|both] [--seed N]
  fuzz    hostile bytes and messages, with ever other seeds: [--minutes N] [--seed N], see xtask/src/fuzz.rs
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let options: Vec<_> = arguments.collect();
    let result = match command.as_str() {
        "tidy" => tidy(),
        "ci" => ci(),
        "models" => models::run(&options),
        "sim" => sim::run(&options),
        "powercut" => powercut::run(&options),
        "fuzz" => fuzz::run(&options),
        "chaos" => chaos::run(&options),
        "soak" => soak::run(&options),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn tidy() -> Result<()> {
    let tree = Tree::read_workspace()?;
    let findings = rules::check(&tree);
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy found {} violation(s) of the house rules", findings.len());
    }
    println!("tidy: {} files, no violation", tree.len());
    Ok(())
}

fn ci() -> Result<()> {
    let mut script = Command::new("bash");
    script.arg(".ci/run").current_dir(tree::root());
    cargo::succeed(script)
}
