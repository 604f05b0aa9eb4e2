//! `cargo xtask sim`: simulated clusters, a seed each (`sim/`), as many as one likes.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tree;

/// Optimised: a long run is worth the build. The arguments are the program's own.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--locked", "--package", "triad-sim", "--profile", "sim", "--"]);
    let status = cargo.args(arguments).current_dir(tree::root()).status();
    let status = status.context("cargo starts")?;
    ensure!(status.success(), "a seed has failed: run it again by --seed N, with --trace or --log");
    Ok(())
}
