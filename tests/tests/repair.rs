//! Replicas that have missed writes are brought level: by the reads that find them, and in the background.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use triad_client::{Client, Level};
use triad_tests::history::History;
use triad_tests::processes::{Cluster, Settings, client_of};
use triad_tests::wait::until;
use triad_tests::workload::{Workload, fill};

/// How long a repair may take on a machine busy with other tests.
const REPAIRED: Duration = Duration::from_mins(1);

/// The digests that a key's replicas hold now; one digest means that they hold the same.
async fn digests(client: &Client, key: &str) -> BTreeSet<String> {
    let located = client.cluster().locate("default", key, true).await.unwrap();
    assert_eq!(located.replicas.len(), 3, "{located:?}");
    located.replicas.iter().map(|replica| replica.digest.clone()).collect()
}

/// Nobody keeps what a member misses.
fn no_hints() -> Settings {
    Settings::small().with("TRIAD_STORAGE_HINT_BYTES", "0")
}

/// A round of anti-entropy in every second, so that nobody waits long for it.
fn always_comparing() -> Settings {
    no_hints().with("TRIAD_REPAIR_INTERVAL", "1s")
}

/// Only reads repair anything.
fn never_comparing() -> Settings {
    no_hints().with("TRIAD_REPAIR_INTERVAL", "0s")
}

/// Three nodes, of which the second has missed the writes to these keys and is back.
async fn one_has_missed(keys: &[String], settings: Settings) -> Cluster {
    let mut cluster = Cluster::start(3, settings).await;
    let client = cluster.client();
    client.put("known", "before").await.unwrap();
    cluster.node(1).kill();
    for key in keys {
        until("written without the second node", REPAIRED, || async {
            client
                .put(key.as_str(), format!("{key}, missed"))
                .await
                .map_err(|error| error.to_string())
        })
        .await;
    }
    cluster.node(1).start();
    cluster.settled(3).await;
    cluster
}

fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}/{number}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_repairs_the_replicas_that_it_finds_behind() {
    let missed = keys("quorum", 20);
    let cluster = one_has_missed(&missed, never_comparing()).await;
    // Whoever coordinates: the one that is behind repairs itself, too.
    let clients: Vec<Client> =
        cluster.endpoints().into_iter().map(|endpoint| client_of([endpoint])).collect();
    for (key, client) in missed.iter().zip(clients.iter().cycle()) {
        let value = client.get(key.as_str()).await.unwrap();
        assert_eq!(value.value().unwrap(), format!("{key}, missed").as_bytes());
        until("the read has repaired all replicas", REPAIRED, || async {
            let held = digests(client, key).await;
            if held.len() == 1 { Ok(()) } else { Err(held) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_at_all_waits_for_the_repair_and_tells_of_it() {
    let missed = keys("all", 20);
    let cluster = one_has_missed(&missed, never_comparing()).await;
    let client = cluster.client();
    let mut repaired = 0;
    for key in &missed {
        let read = client.get(key.as_str()).level(Level::All).await.unwrap();
        assert_eq!(read.value().unwrap(), format!("{key}, missed").as_bytes());
        // Before the reply, not some time after it.
        assert_eq!(digests(&client, key).await.len(), 1, "{:?}", read.outcome);
        assert_eq!(read.outcome.diverged, read.outcome.repaired > 0, "{:?}", read.outcome);
        repaired += read.outcome.repaired;
    }
    assert!(repaired > 0, "nothing was behind: the story proves nothing");
    for key in &missed {
        let again = client.get(key.as_str()).level(Level::All).await.unwrap();
        assert!(!again.outcome.diverged && again.outcome.repaired == 0, "{:?}", again.outcome);
    }
}

/// Waits until all replicas of these keys hold the same. Nothing of it is a read that repairs.
async fn all_level(client: &Client, keys: &[String]) {
    for key in keys {
        until("all replicas of the key hold the same", REPAIRED, || async {
            let held = digests(client, key).await;
            if held.len() == 1 { Ok(()) } else { Err((key, held)) }
        })
        .await;
    }
}

async fn no_trees_differ(cluster: &Cluster) {
    until("no two members' trees differ", REPAIRED, || async {
        let status =
            cluster.client().cluster().status().await.map_err(|error| error.to_string())?;
        if status.trees_different == 0 { Ok(()) } else { Err(status.trees_different.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_gets_what_it_missed_without_any_read_deletions_too() {
    let (missed, deleted) = (keys("missed", 300), keys("deleted", 20));
    let mut cluster = Cluster::start(3, always_comparing()).await;
    let client = cluster.client();
    for key in &deleted {
        client.put(key.as_str(), "here before").await.unwrap();
    }
    cluster.node(1).kill();
    let settled =
        |result: Result<(), triad_client::Error>| result.map_err(|error| error.to_string());
    for key in &missed {
        until("written without the second node", REPAIRED, || async {
            settled(client.put(key.as_str(), format!("{key}, missed")).await.map(drop))
        })
        .await;
    }
    for key in &deleted {
        client.delete(key.as_str()).await.unwrap();
    }
    cluster.node(1).start();
    cluster.settled(3).await;
    all_level(&client, &missed).await;
    all_level(&client, &deleted).await;
    no_trees_differ(&cluster).await;
    // Told by the node that was away alone.
    let alone = client_of([cluster.nodes()[1].client_address()]);
    let read = alone.get(missed[7].as_str()).level(Level::One).await.unwrap();
    assert_eq!(read.value().unwrap(), format!("{}, missed", missed[7]).as_bytes());
    let read = alone.get(deleted[7].as_str()).level(Level::One).await.unwrap();
    assert!(!read.is_found() && !read.context.is_empty(), "the deletion has come, as a record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_each_lack_something_mend_each_other_while_writes_go_on() {
    let mut cluster = Cluster::start(3, always_comparing()).await;
    let client = cluster.client();
    let mut all = Vec::new();
    for away in 0..3 {
        cluster.node(away).kill();
        // Some of them overwrite what others have missed.
        let missed = keys("mine", 40).into_iter().chain(keys(&format!("without {away}"), 60));
        for key in missed {
            until("written without one node", REPAIRED, || async {
                let write = client.put(key.as_str(), format!("{key}, without {away}"));
                write.await.map_err(|error| error.to_string())
            })
            .await;
            all.push(key);
        }
        cluster.node(away).start();
        cluster.settled(3).await;
    }
    let history = Arc::new(History::new());
    let load = Workload::start(&client, &history, 1, 1, 200);
    all_level(&client, &all).await;
    let report = load.stop().await;
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    no_trees_differ(&cluster).await;
    for key in keys("mine", 40) {
        let read = client.get(key.as_str()).level(Level::One).await.unwrap();
        assert_eq!(read.value().unwrap(), format!("{key}, without 2").as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_shards_are_compared_and_mended_leaf_by_leaf() {
    let settings = always_comparing().with("TRIAD_CLUSTER_SHARDS", "8");
    let mut cluster = Cluster::start(3, settings).await;
    let client = cluster.client();
    let history = Arc::new(History::new());
    fill(&client, &history, 4_000, 32).await;
    cluster.node(1).kill();
    // The restart finds no tree in memory: it must be built from the rows before it is compared.
    let missed = keys("fill", 50);
    for key in &missed {
        until("written without the second node", REPAIRED, || async {
            client.put(key.as_str(), "missed").await.map_err(|error| error.to_string())
        })
        .await;
    }
    cluster.node(1).start();
    cluster.settled(3).await;
    all_level(&client, &missed).await;
    no_trees_differ(&cluster).await;
}
