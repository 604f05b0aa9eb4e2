//! The arrows between the crates, and what the sans-io cores may lean on, held against
//! `cargo metadata`. ARCHITECTURE.md draws the same map in prose.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Crate → the crates of ours that it may use. What is not listed here must not exist, so that a new
/// crate gets its place on the map with its first commit.
const ARROWS: [(&str, &[&str]); 14] = [
    ("triad-ring", &[]),
    ("triad-replica", &["triad-ring", "triad-fuzz"]),
    ("triad-proto", &["triad-ring", "triad-replica", "triad-fuzz"]),
    ("triad-client", &["triad-proto", "triad-ring", "triad-replica", "triad-fuzz"]),
    ("triad-server", &["triad-proto", "triad-ring", "triad-replica", "triad-fuzz"]),
    ("triad", &["triad-server", "triad-client", "triad-proto", "triad-fuzz"]),
    ("triad-fuzz", &[]),
    ("triad-models", &["triad-ring", "triad-replica"]),
    ("triad-history", &[]),
    ("triad-tests", EVERYTHING),
    ("triad-powercut", EVERYTHING),
    ("triad-bench", EVERYTHING),
    ("triad-sim", EVERYTHING),
    ("xtask", &[]),
];

/// Tests, simulations and benchmarks stand above all others.
const EVERYTHING: &[&str] = &[
    "triad-ring",
    "triad-replica",
    "triad-proto",
    "triad-client",
    "triad-server",
    "triad",
    "triad-fuzz",
    "triad-history",
    "triad-tests",
];

/// Everything from outside that the cores build on: bytes, hashes, error types. No runtime, no I/O.
const CORE_DEPENDENCIES: [(&str, &[&str]); 2] = [
    ("triad-ring", &["sha2", "thiserror"]),
    ("triad-replica", &["bytes", "crc32fast", "hmac", "sha2", "thiserror"]),
];

/// Package → (dependency, kind), of the packages of this workspace.
fn workspace() -> BTreeMap<String, BTreeSet<(String, String)>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let text = |value: &Value| value.as_str().unwrap_or("normal").to_owned();
    let dependencies = |package: &Value| {
        let listed = package["dependencies"].as_array().cloned().unwrap_or_default();
        listed.iter().map(|d| (text(&d["name"]), text(&d["kind"]))).collect()
    };
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    packages.iter().map(|package| (text(&package["name"]), dependencies(package))).collect()
}

/// The arrows that `allowed` does not have.
fn forbidden<'a>(
    found: &'a BTreeMap<String, BTreeSet<(String, String)>>,
    allowed: &BTreeMap<&str, &[&str]>,
) -> Vec<(&'a str, &'a str)> {
    let ours = |name: &str| found.contains_key(name);
    found
        .iter()
        .flat_map(|(from, to)| to.iter().map(move |(to, _)| (from.as_str(), to.as_str())))
        .filter(|(from, to)| ours(to) && !allowed.get(from).is_some_and(|list| list.contains(to)))
        .collect()
}

#[test]
fn the_arrows_between_the_crates_go_one_way() {
    let found = workspace();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let unknown: Vec<_> =
        found.keys().filter(|name| !allowed.contains_key(name.as_str())).collect();
    assert!(unknown.is_empty(), "crates without a place on the map: {unknown:?}");
    assert_eq!(forbidden(&found, &allowed), []);
}

#[test]
fn an_arrow_that_points_up_is_found() {
    let mut found = workspace();
    let ring = found.entry("triad-ring".to_owned()).or_default();
    ring.insert(("triad-server".to_owned(), "dev".to_owned()));
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    assert_eq!(forbidden(&found, &allowed), [("triad-ring", "triad-server")]);
}

#[test]
fn the_cores_build_on_bytes_and_hashes_only() {
    let found = workspace();
    for (core, allowed) in CORE_DEPENDENCIES {
        let outside: Vec<_> = found[core]
            .iter()
            .filter(|(name, kind)| kind == "normal" && !found.contains_key(name))
            .map(|(name, _)| name.as_str())
            .filter(|name| !allowed.contains(name))
            .collect();
        assert!(outside.is_empty(), "{core} must stay sans-io, but depends on {outside:?}");
    }
}

/// Whether a program built with these arguments has faults on demand.
fn has_faults_on_demand(arguments: &[&str]) -> bool {
    has_feature("triad-server", "testing", arguments)
}

/// Whether a program built with these arguments can leave rules out.
fn has_mutants(arguments: &[&str]) -> bool {
    has_feature("triad-ring", "mutants", arguments)
}

fn has_feature(package: &str, feature: &str, arguments: &[&str]) -> bool {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--offline", "--invert", package])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).contains(&format!("feature \"{feature}\""))
}

#[test]
fn faults_on_demand_are_in_programs_for_tests_alone() {
    // What `cargo run` and `cargo build` make of the whole workspace, by these edges.
    assert!(!has_faults_on_demand(&["--edges", "normal,build,features"]));
    // The test can tell: so the harness builds, and so are the unit tests of the feature compiled.
    assert!(has_faults_on_demand(&["--edges", "normal,features", "--features", "triad/testing"]));
    assert!(has_faults_on_demand(&["--edges", "normal,dev,features"]));
}

#[test]
fn rules_are_left_out_in_programs_for_tests_alone() {
    assert!(!has_mutants(&["--edges", "normal,build,features"]));
    assert!(!has_mutants(&["--edges", "normal,features", "--features", "triad/testing"]));
    // The test can tell: so all tests of the workspace are compiled.
    assert!(has_mutants(&["--edges", "normal,dev,features"]));
}
