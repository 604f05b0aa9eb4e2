//! The command line as people and scripts use it: what it prints, and with which code it ends.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::process::Command;
use std::time::Duration;

use triad_tests::binary::triad;
use triad_tests::ports::Ports;
use triad_tests::processes::{Cluster, Settings, ran_within, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn put_get_del_and_their_exit_codes() {
    let cluster = Cluster::start(3, Settings::small()).await;

    cluster.triad(["put", "greeting", "hello"]).ok();
    assert_eq!(cluster.triad(["get", "greeting"]).ok().trim_end(), "hello");
    assert_eq!(cluster.triad(["get", "greeting", "--raw"]).ok(), "hello");
    cluster.triad(["put", "greeting", "in a bucket", "--bucket", "other", "--level", "all"]).ok();
    assert_eq!(
        cluster.triad(["get", "greeting", "-b", "other", "--level", "one"]).ok().trim_end(),
        "in a bucket"
    );
    cluster.triad(["del", "greeting"]).ok();

    let absent = cluster.triad(["get", "greeting"]);
    assert_eq!((absent.code, absent.stdout.as_str()), (3, ""), "{absent:?}");
    let absent = cluster.triad(["get", "greeting", "-o", "json"]);
    assert_eq!(absent.code, 3);
    let object = absent.any_json();
    assert_eq!(object["found"], false);
    assert_eq!(object["siblings"].as_array().unwrap().len(), 0);

    assert_eq!(cluster.triad(["put", "greeting"]).code, 2, "usage");
    let refused = cluster.triad(["put", "greeting", "x", "--bucket", "Bad Bucket", "-o", "json"]);
    assert_ne!(refused.code, 0);
    let error = refused.error();
    assert_eq!(error["code"], "INVALID_ARGUMENT", "{error}");
    assert_eq!(error["reason"], "BAD_BUCKET");
    assert!(error["message"].as_str().unwrap().contains("Bad Bucket"), "{error}");
    assert_eq!(error["metadata"]["field"], "bucket");
    assert_eq!(refused.stdout, "", "stdout is data only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contexts_go_around_through_json() {
    let cluster = Cluster::start(3, Settings::small()).await;
    cluster.triad(["put", "k", "old"]).ok();
    let seen = cluster.triad(["get", "k", "-o", "json"]).json();
    let context = seen["context"].as_str().unwrap();
    cluster.triad(["put", "k", "left", "--context", context]).ok();
    cluster.triad(["put", "k", "right", "--context", context]).ok();
    let both = cluster.triad(["get", "k", "-o", "json"]).json();
    let values: Vec<&str> = both["siblings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sibling| sibling["value"].as_str().unwrap())
        .collect();
    assert_eq!(values.len(), 2);
    assert!(values.contains(&"left") && values.contains(&"right"));
    cluster.triad(["put", "k", "one", "--context", both["context"].as_str().unwrap()]).ok();
    assert_eq!(cluster.triad(["get", "k"]).ok().trim_end(), "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_at_the_cluster() {
    let cluster = Cluster::start(3, Settings::small()).await;
    cluster.triad(["put", "greeting", "hello", "--level", "all"]).ok();
    let located = cluster.triad(["where", "greeting"]);
    for word in ["shard", "node1", "node2", "node3"] {
        assert!(located.ok().contains(word), "{located:?}");
    }
    let nodes = cluster.triad(["node", "ls"]);
    for word in ["node1", "node2", "node3"] {
        assert!(nodes.ok().contains(word), "{nodes:?}");
    }
    let ring = cluster.triad(["ring", "-o", "json"]).json();
    let virtual_nodes = ring["virtual_nodes"].as_array().unwrap();
    assert_eq!(virtual_nodes.len(), 3 * 64, "all virtual nodes of all nodes");
    for field in ["ring_id", "node", "index", "predecessor", "successors", "fingers"] {
        assert!(virtual_nodes[0].get(field).is_some(), "no {field} in {}", virtual_nodes[0]);
    }
    cluster.triad(["ring", "--local"]).ok();
    cluster.triad(["status"]).ok();
    assert_eq!(cluster.triad(["health", "-o", "json"]).json()["ready"], true);
    cluster.triad(["wait", "--nodes", "3", "--settled"]).ok();
    let waited = cluster.triad(["wait", "--nodes", "4", "--timeout", "1s"]);
    assert_eq!(waited.code, 6, "{waited:?}");
    assert!(
        waited.stderr.contains('3') && waited.stderr.contains('4'),
        "says what was missing: {waited:?}"
    );
}

#[test]
fn nobody_there_is_unavailable_with_a_hint() {
    let ports = Ports::reserve();
    let endpoint = format!("127.0.0.1:{}", ports.client);
    let refused = run(["get", "k"], &[("TRIAD_ENDPOINTS", &endpoint)]);
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.stderr.contains(&endpoint), "{refused:?}");
    assert_eq!(run(["get", "k", "--endpoints", "::::"], &[]).code, 2);
    assert_eq!(run(["health"], &[("TRIAD_ENDPOINTS", &endpoint)]).code, 5);
}

#[test]
fn configuration_is_shown_with_its_origin_and_checked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("triad.toml");
    std::fs::write(&file, "[cluster]\nname = \"from-file\"\n").unwrap();
    let path = file.to_str().unwrap();

    let shown = run(
        ["config", "show", "--origin", "-o", "json", "--config", path],
        &[("TRIAD_LIMITS_IN_FLIGHT", "77")],
    );
    let shown = shown.json();
    let values = shown["values"].as_array().unwrap();
    let leaf = |key: &str| {
        values.iter().find(|value| value["key"] == key).unwrap_or_else(|| panic!("no {key}"))
    };
    assert_eq!(leaf("cluster.name")["value"], "from-file");
    assert!(leaf("cluster.name")["origin"].as_str().unwrap().contains("file"));
    assert!(leaf("limits.in_flight")["origin"].as_str().unwrap().contains("env"));
    assert_eq!(leaf("limits.in_flight")["env"], "TRIAD_LIMITS_IN_FLIGHT");
    assert!(leaf("listen.client")["origin"].as_str().unwrap().contains("default"));
    run(["config", "check", "--config", path], &[]).ok();

    std::fs::write(&file, "[cluster]\nreplicaton_factor = 5\n").unwrap();
    let refused = run(["config", "check", "--config", path], &[]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("replicaton_factor"), "{refused:?}");
    assert!(refused.stderr.contains("replication_factor"), "with a suggestion: {refused:?}");
    let refused = run(["config", "check"], &[("TRIAD_LIMITS_IN_FLIGTH", "1")]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("TRIAD_LIMITS_IN_FLIGHT"), "{refused:?}");
}

#[test]
fn dev_shows_a_put_and_a_get_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let ports = Ports::reserve();
    // Nodes take PORT, PORT + 10 and PORT + 20 with the two after each: beyond the block, but these tests share it
    // with nobody below the reserved range.
    let port = 10_000 + (ports.client - 20_000) / 4 * 3 % 9_000;
    let mut command = Command::new(triad());
    command.args(["dev", "-n", "3", "--demo", "--exit", "--port", &port.to_string()]);
    let ran = ran_within(&mut command, directory.path(), Duration::from_mins(2));
    assert_eq!(ran.code, 0, "{ran:?}");
    let all = format!("{}{}", ran.stdout, ran.stderr);
    for word in [
        "node1",
        "node2",
        "node3",
        &port.to_string(),
        &(port + 10).to_string(),
        "triad",
        "put",
        "get",
    ] {
        assert!(all.contains(word), "no {word:?} in {all}");
    }
}
