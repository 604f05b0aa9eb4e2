//! The `triad` program under test.
//!
//! Cargo tells a test where the binaries of its *own* package are, but `triad` belongs to another one. So it is built
//! here, once per test process, into the target directory that this test came from. Cargo does nothing when it is up
//! to date. It has the cargo feature `testing`, unlike what `cargo run` and `cargo build` make by themselves. `TRIAD_BIN` names a ready-made program instead (a release build, or one taken from an image).

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The path of the program, built first if need be.
pub fn triad() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| env::var_os("TRIAD_BIN").map_or_else(build, PathBuf::from)).clone()
}

/// The directory `target`, where tests may keep what is expensive to make.
pub fn target_dir() -> PathBuf {
    let profile = profile_dir();
    profile.parent().expect("a profile's directory lies in a target directory").to_owned()
}

/// `target/debug` or `target/release`: two levels above this test, which lies in its `deps`.
fn profile_dir() -> PathBuf {
    let test = env::current_exe().expect("a running program has a path");
    test.ancestors().nth(2).expect("cargo puts tests into <profile>/deps").to_owned()
}

fn build() -> PathBuf {
    let profile = profile_dir();
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args([
            "build",
            "--quiet",
            // Not `--package triad`: the features of the whole workspace, so that nothing is built twice.
            "--workspace",
            "--bin",
            "triad",
            "--features",
            "triad/testing",
            "--target-dir",
        ])
        .arg(target_dir());
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().expect("cargo can be run");
    assert!(status.success(), "the program under test does not compile");
    profile.join("triad")
}
