//! Three empty nodes started together become one cluster, and any node answers for any key.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::time::Duration;

use serde_json::Value;
use triad_client::Level;
use triad_proto::v1::ReplicaResult;
use triad_tests::processes::{Cluster, Settings, client_of};
use triad_tests::raw;
use triad_tests::wait::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_empty_nodes_started_together_make_one_cluster() {
    let cluster = Cluster::start(3, Settings::small()).await;

    // All nodes name the same cluster, and each other.
    let mut ids = Vec::new();
    for node in cluster.nodes() {
        let client = client_of([node.client_address()]);
        let status = client.cluster().status().await.unwrap();
        ids.push(status.cluster_id);
        let nodes = client.cluster().list_nodes().await.unwrap();
        let mut names: Vec<&str> = nodes.iter().map(|node| node.node.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["node1", "node2", "node3"]);
    }
    assert_eq!(ids[0].len(), 32);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");

    // Put at one, get at each other, for enough keys that every node is coordinator and stranger.
    for number in 0..30_usize {
        let key = format!("greeting/{number}");
        let at = |place: usize| client_of([cluster.nodes()[place % 3].client_address()]);
        let written = at(number).put(&key, "hello").await.unwrap();
        assert_eq!(written.outcome.level, Level::Quorum);
        assert_eq!(written.outcome.needed, 2);
        assert!(
            written.outcome.acknowledged >= 2 && written.outcome.strict,
            "{:?}",
            written.outcome
        );
        assert_eq!(written.outcome.replicas.len(), 3);
        let read = at(number + 1).get(&key).await.unwrap();
        assert_eq!(read.value().unwrap(), "hello");
        assert_eq!(read.siblings[0].dot, written.dot);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_answers_have_the_fixed_fields() {
    let cluster = Cluster::start(3, Settings::small()).await;

    let put = cluster.triad(["put", "greeting", "hello", "-o", "json"]).json();
    assert_fields(
        &put,
        &[
            "bucket",
            "key",
            "context",
            "dot",
            "level",
            "needed",
            "acknowledged",
            "strict",
            "degraded",
            "replicas",
            "coordinator",
            "shard",
            "epoch",
            "elapsed_ms",
        ],
    );
    assert_eq!(put["bucket"], "default");
    assert_eq!(put["key"], "greeting");
    assert_eq!(put["level"], "quorum");
    assert_fields(&put["replicas"][0], &["node", "result", "elapsed_ms"]);
    assert!(put["epoch"].as_str().unwrap().starts_with("1."), "{put}");

    let get = cluster.triad(["get", "greeting", "-o", "json"]).json();
    assert_eq!(get["found"], true);
    assert_eq!(get["siblings"][0]["value"], "hello");
    assert_eq!(get["siblings"][0]["dot"], put["dot"]);
    assert_fields(&get, &["siblings", "diverged", "context", "coordinator"]);

    status_and_nodes_are_complete(&cluster);
    the_place_of_a_key_is_complete(&cluster, &put["dot"]);
}

fn status_and_nodes_are_complete(cluster: &Cluster) {
    let status = cluster.triad(["status", "-o", "json"]).json();
    assert_fields(
        &status,
        &[
            "cluster",
            "healthy",
            "complete",
            "failures_tolerated",
            "nodes",
            "shards",
            "hints",
            "trees_different",
            "operations",
            "alarms",
            "unreachable",
            "version",
        ],
    );
    assert_fields(
        &status["cluster"],
        &["id", "name", "replication_factor", "shards", "virtual_nodes"],
    );
    assert_eq!(status["nodes"]["total"], 3);
    assert_eq!(status["nodes"]["alive"], 3);
    assert_eq!(status["shards"]["total"], 64);
    assert_eq!(status["shards"]["joint"], 0);
    assert_eq!(status["shards"]["under_replicated"], 0);
    assert_eq!(status["failures_tolerated"], 1);
    assert_eq!(status["healthy"], true, "{status}");

    let nodes = cluster.triad(["node", "ls", "-o", "json"]).json();
    assert_eq!(nodes["nodes"].as_array().unwrap().len(), 3);
    assert_fields(
        &nodes["nodes"][0],
        &[
            "node_id",
            "node",
            "store_id",
            "incarnation",
            "liveness",
            "state",
            "client_address",
            "peer_address",
            "admin_address",
            "zone",
            "version",
            "virtual_nodes",
            "shards",
            "ideal_shards",
            "keys",
            "live_bytes",
            "disk_bytes",
        ],
    );
}

fn the_place_of_a_key_is_complete(cluster: &Cluster, dot: &Value) {
    let located = cluster.triad(["where", "greeting", "-o", "json"]).json();
    assert_fields(
        &located,
        &[
            "bucket",
            "key",
            "ring_id",
            "shard",
            "range",
            "configuration",
            "ideal",
            "replicas",
            "path",
            "hops",
        ],
    );
    assert_eq!(located["configuration"]["members"].as_array().unwrap().len(), 3);
    assert_eq!(located["configuration"]["phase"], "stable");
    let replicas = located["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 3);
    assert!(replicas.iter().any(|replica| replica["dots"][0] == *dot), "{located}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_shows_the_same_version_on_all_replicas_once_a_write_at_all_is_done() {
    let cluster = Cluster::start(3, Settings::small()).await;
    cluster.client().put("everywhere", "v").level(Level::All).await.unwrap();
    let located = cluster.client().cluster().locate("default", "everywhere", true).await.unwrap();
    assert_eq!(located.replicas.len(), 3);
    let digest = &located.replicas[0].digest;
    assert!(!digest.is_empty());
    assert!(
        located.replicas.iter().all(|replica| replica.digest == *digest),
        "{:?}",
        located.replicas
    );
    assert_eq!(located.ring_id.len(), 32);
    // What nobody holds has no digest to tell, neither near nor far.
    let located = cluster.client().cluster().locate("default", "never written", true).await;
    for replica in located.unwrap().replicas {
        assert_eq!(replica.result(), ReplicaResult::Ok, "{replica:?}");
        assert!(replica.dots.is_empty() && replica.digest.is_empty(), "{replica:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_learns_the_members_and_text_forms_answer_in_text() {
    let cluster = Cluster::start(3, Settings::small()).await;
    let mut kv = raw::Kv::new(cluster.nodes()[0].channel().await);
    let request = triad_proto::v1::PutRequest { want_route: true, ..raw::put("greeting", "hello") };
    let route = kv.put(request).await.unwrap().into_inner().route.expect("it was asked for");
    assert_eq!(route.shard_count, 64);
    assert_eq!(route.members.len(), 3);
    let mut addresses: Vec<&str> =
        route.members.iter().map(|member| member.client_address.as_str()).collect();
    addresses.sort_unstable();
    let mut wanted = cluster.endpoints();
    wanted.sort_unstable();
    assert_eq!(addresses, wanted);

    let answer = kv.get(raw::get("greeting")).await.unwrap().into_inner();
    let form = answer.siblings[0].value_form.clone().unwrap();
    assert!(
        matches!(form, triad_proto::v1::sibling::ValueForm::ValueText(text) if text == "hello")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_one_endpoint_finds_all_members_and_survives_the_endpoint() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let client = client_of([cluster.nodes()[0].client_address()]);
    for number in 0..200 {
        client.put(format!("k{number}"), "v").await.unwrap();
    }
    cluster.node(0).kill();
    // Every shard has been learned with high probability; those that were not cannot be entered by a dead endpoint,
    // so the client asks the members it met.
    until("all keys are read through the others", Duration::from_secs(20), || async {
        for number in 0..200 {
            let read = client.get(format!("k{number}")).await.map_err(|error| error.to_string())?;
            assert_eq!(read.value().expect("it was acknowledged"), "v");
        }
        Ok::<(), String>(())
    })
    .await;
}

fn assert_fields(object: &Value, fields: &[&str]) {
    for field in fields {
        assert!(object.get(field).is_some(), "no {field:?} in {object}");
    }
}
