//! Who may make a cluster, and that there is never a second one by mistake.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::time::Duration;

use triad_tests::ports::Ports;
use triad_tests::processes::{Cluster, Node, Settings, client_of};
use triad_tests::wait::until;

/// Long enough that a node that wanted to make a cluster would have.
const PATIENCE: Duration = Duration::from_secs(8);
const LIMIT: Duration = Duration::from_secs(30);

/// Waits until the node answers that it is not ready, for a reason that contains these words; tells all reasons.
async fn not_ready(node: &Node, words: &[&str]) -> String {
    until("not ready, with the reason", LIMIT, || async {
        let answer = node.readiness().await.map_err(|error| error.to_string())?;
        let reasons = answer.reasons.join("; ");
        assert!(!answer.ready, "ready without a cluster: {reasons}");
        if words.iter().all(|word| reasons.contains(word)) { Ok(reasons) } else { Err(reasons) }
    })
    .await
}

/// Holds for the whole time that the node makes no cluster.
async fn stays_without_cluster(node: &Node) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < end {
        let answer = node.readiness().await.unwrap();
        assert!(!answer.ready, "it made a cluster");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_node_whose_seeds_are_silent_makes_no_cluster_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let silent = Ports::reserve();
    let seed = format!("127.0.0.1:{}", silent.peer);
    let mut node = Node::new("node1", directory.path());
    let own = node.peer_address();
    node.set("TRIAD_CLUSTER_BOOTSTRAP", "true")
        .set("TRIAD_CLUSTER_SEEDS", &format!("{own},{seed}"));
    node.start();
    let reasons = not_ready(&node, &[&seed]).await;
    assert!(reasons.contains("has not answered"), "{reasons}");
    stays_without_cluster(&node).await;

    let error = client_of([node.client_address()]).put("k", "v").await.unwrap_err();
    assert_eq!(error.reason(), "NOT_JOINED", "{error:?}");
    let health = triad_tests::processes::run(
        ["health", "-o", "json"],
        &[("TRIAD_ENDPOINTS", &node.client_address())],
    );
    assert_eq!(health.code, 5, "{health:?}");
    let health = health.any_json();
    assert_eq!(health["live"], true);
    assert_eq!(health["ready"], false);

    // Until an operator, who knows better, says so.
    let endpoint = [("TRIAD_ENDPOINTS", node.client_address())];
    let endpoint: Vec<(&str, &str)> = endpoint.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let timid = triad_tests::processes::run(["node", "bootstrap"], &endpoint);
    assert_eq!(timid.code, 2, "{timid:?}");
    let forced =
        triad_tests::processes::run(["node", "bootstrap", "--force", "-o", "json"], &endpoint);
    assert_eq!(forced.code, 0, "{forced:?}");
    assert_eq!(forced.any_json()["cluster_id"].as_str().map(str::len), Some(32));
    client_of([node.client_address()]).put("k", "v").await.unwrap();
    let again = triad_tests::processes::run(["node", "bootstrap", "--force"], &endpoint);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(health["reasons"][0].as_str().unwrap().contains(&seed), "{health}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_node_that_lost_its_disk_rejoins_instead_of_making_a_second_cluster() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let client = cluster.client();
    client.put("k", "v").await.unwrap();
    let id = client.cluster().status().await.unwrap().cluster_id;

    // Its disk is gone, and for now so is everybody else.
    cluster.kill_all();
    std::fs::remove_dir_all(cluster.node(0).data_dir()).unwrap();
    cluster.node(0).start();
    not_ready(&cluster.nodes()[0], &["has not answered"]).await;
    stays_without_cluster(&cluster.nodes()[0]).await;

    // When the others are back it enters their cluster, as a new node.
    cluster.node(1).start();
    cluster.node(2).start();
    cluster.node(0).ready().await;
    let own = client_of([cluster.nodes()[0].client_address()]);
    assert_eq!(own.cluster().status().await.unwrap().cluster_id, id);
    assert_eq!(own.get("k").await.unwrap().value().unwrap(), "v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_may_not_bootstrap_waits_for_one_that_may() {
    let mut cluster = Cluster::prepare(3, Settings::small());
    cluster.node(1).start();
    cluster.node(2).start();
    not_ready(&cluster.nodes()[1], &["has not answered"]).await;
    cluster.node(0).start();
    cluster.settled(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_may_both_bootstrap_refuse_each_other() {
    let mut cluster = Cluster::prepare(2, Settings::small());
    cluster.node(1).set("TRIAD_CLUSTER_BOOTSTRAP", "true");
    cluster.start_all();
    for index in 0..2 {
        not_ready(&cluster.nodes()[index], &["bootstrap"]).await;
    }
    stays_without_cluster(&cluster.nodes()[0]).await;
    stays_without_cluster(&cluster.nodes()[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unresolved_seed_has_not_answered() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::new("node1", directory.path());
    node.set("TRIAD_CLUSTER_BOOTSTRAP", "true")
        .set("TRIAD_CLUSTER_SEEDS", "no-such-host.invalid:7421");
    node.start();
    not_ready(&node, &["no-such-host.invalid"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_seeds_makes_a_cluster_at_once() {
    let cluster = Cluster::start(1, Settings::small()).await;
    let client = cluster.client();
    client.put("k", "v").await.unwrap();
    let status = client.cluster().status().await.unwrap();
    assert_eq!(status.failures_tolerated, 0);
    assert_eq!(status.nodes.unwrap().alive, 1);
}
