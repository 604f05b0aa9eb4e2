//! `cargo xtask sim`: simulated clusters, a seed each (`sim/`), as many as one likes.

use anyhow::{Context, Result};

use crate::cargo::{cargo, succeed};

/// Optimised: a long run is worth the build. The arguments are the program's own.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let sim = ["run", "--quiet", "--locked", "--package", "triad-sim", "--profile", "sim", "--"];
    let mut sim = cargo(&sim);
    sim.args(arguments);
    succeed(sim).context("a seed has failed: run it again by --seed N, with --trace or --log")
}
