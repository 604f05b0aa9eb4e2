//! `cargo xtask powercut`: builds the tool that cuts the power under a loaded store, and runs it with these options
//! (`--help` tells them). It needs root, FUSE and loop devices, and says so where they are missing.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tree;

pub(crate) fn run(options: &[String]) -> Result<()> {
    let mut build = Command::new(env!("CARGO"));
    // Not `-p triad-powercut`: cargo would choose other features and build anew.
    build.args(["build", "--quiet", "--workspace", "--locked", "--bin", "triad-powercut"]);
    let built = build.current_dir(tree::root()).status().context("cargo starts")?;
    ensure!(built.success(), "the tool cannot be built");
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| tree::root().join("target"), Into::into);
    let tool = target.join("debug").join("triad-powercut");
    let ran = Command::new(&tool).args(options).status();
    let ran = ran.with_context(|| format!("start {}", tool.display()))?;
    ensure!(ran.success(), "power cuts: {ran}");
    Ok(())
}
