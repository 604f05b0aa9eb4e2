//! A cluster grows while it works: nobody misses an acknowledged write, and nothing is lost when all is killed at once.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use triad_tests::history::History;
use triad_tests::processes::{Cluster, Settings};
use triad_tests::wait::until;
use triad_tests::workload::{Workload, fill, read_all};

/// Keys put before the cluster grows.
const KEYS: usize = 10_000;
/// Requests under way at once while filling and reading back.
const AT_ONCE: usize = 32;
/// The share of copies is even to this factor at few nodes.
const UNEVEN_MAX: f64 = 1.25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_join_under_load_and_every_acknowledged_write_survives_a_power_failure() {
    let mut cluster = Cluster::start(3, Settings::delivered()).await;
    let history = Arc::new(History::new());
    let client = cluster.client();
    fill(&client, &history, KEYS, AT_ONCE).await;
    assert_eq!(history.acknowledged_keys().len(), KEYS);

    let load = Workload::start(&client, &history, 2, 2, 50);
    cluster.grow();
    cluster.grow();
    let waited = cluster.triad(["wait", "--nodes", "5", "--settled", "--timeout", "180s"]);
    assert_eq!(waited.code, 0, "{waited:?}");
    let reads = load.reads();
    until("reads go on in the grown cluster", Duration::from_secs(20), || async {
        let now = load.reads();
        if now > reads + 50 { Ok(()) } else { Err(now) }
    })
    .await;
    let report = load.stop().await;
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(report.acknowledged > KEYS, "writes went on too");

    placement_is_as_it_should_be(&cluster).await;
    assert_eq!(read_all(&cluster.client(), &history, AT_ONCE).await, [""; 0]);

    cluster.kill_all();
    cluster.start_all();
    cluster.settled(5).await;
    assert_eq!(read_all(&cluster.client(), &history, AT_ONCE).await, [""; 0]);
}

async fn placement_is_as_it_should_be(cluster: &Cluster) {
    let status = cluster.triad(["status", "-o", "json"]).json();
    assert_eq!(status["shards"]["total"], 1024, "{status}");
    assert_eq!(status["shards"]["joint"], 0, "{status}");
    assert_eq!(status["shards"]["under_replicated"], 0, "{status}");
    assert_eq!(status["shards"]["learning"], 0, "{status}");

    let nodes = cluster.client().cluster().list_nodes().await.unwrap();
    assert_eq!(nodes.len(), 5);
    let copies: u32 = nodes.iter().map(|node| node.shards).sum();
    assert_eq!(copies, 3 * 1024, "each shard has three members");
    let mean = f64::from(copies) / 5.0;
    for node in &nodes {
        assert_eq!(node.shards, node.ideal_shards, "{}", node.node);
        assert!(
            f64::from(node.shards) <= mean * UNEVEN_MAX,
            "{} holds {} of {copies}",
            node.node,
            node.shards
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_serves_at_once_and_grows_one_by_one() {
    let mut cluster = Cluster::start(1, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, 500, AT_ONCE).await;
    for count in 2..=3 {
        cluster.grow();
        cluster.settled(count).await;
        assert_eq!(
            read_all(&cluster.client(), &history, AT_ONCE).await,
            [""; 0],
            "with {count} nodes"
        );
    }
    // The first node alone held everything once; now any single loss is survived.
    cluster.node(0).kill();
    until("all is read without the first node", Duration::from_secs(30), || async {
        let missing = read_all(&cluster.client(), &history, AT_ONCE).await;
        if missing.is_empty() { Ok(()) } else { Err(missing.len()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_while_it_joins_joins_after_its_restart() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, 500, AT_ONCE).await;
    let client = cluster.client();
    let joiner = cluster.grow();
    joiner.ready().await;
    joiner.kill();
    joiner.start();
    cluster.settled(4).await;
    assert_eq!(read_all(&client, &history, AT_ONCE).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_copies_no_faster_than_it_may() {
    const RATE: u32 = 200 << 10;
    const VALUE: u32 = 16 << 10;
    const VALUES: u32 = 160;
    let settings = Settings::small().with("TRIAD_REPAIR_BYTES_PER_SECOND", &RATE.to_string());
    let mut cluster = Cluster::start(1, settings).await;
    let client = cluster.client();
    for number in 0..VALUES {
        client.put(format!("value/{number}"), vec![number as u8; VALUE as usize]).await.unwrap();
    }
    let begun = Instant::now();
    cluster.grow();
    cluster.settled(2).await;
    // A second's worth may be ahead of the rate, so the last second need not be waited for.
    let least = f64::from(VALUE * VALUES) / f64::from(RATE) - 1.0;
    let took = begun.elapsed().as_secs_f64();
    assert!(took >= least, "{VALUES} values of {VALUE} bytes came in {took} s, not in {least} s");
}
