//! `cargo xtask powercut`: builds the tool that cuts the power under a loaded store, and runs it with these options
//! (`--help` tells them). It needs root, FUSE and loop devices, and says so where they are missing.

use std::process::Command;

use anyhow::Result;

use crate::cargo::{cargo, succeed};
use crate::tree;

pub(crate) fn run(options: &[String]) -> Result<()> {
    // Not `-p triad-powercut`: cargo would choose other features and build anew.
    succeed(cargo(&["build", "--quiet", "--workspace", "--locked", "--bin", "triad-powercut"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| tree::root().join("target"), Into::into);
    let tool = target.join("debug").join("triad-powercut");
    let mut cuts = Command::new(tool);
    cuts.args(options);
    succeed(cuts)
}
