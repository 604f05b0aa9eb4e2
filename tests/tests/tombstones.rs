//! Deleted keys go for good: no member keeps anything of them, and nothing comes back.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::sync::Arc;
use std::time::Duration;

use triad_client::Client;
use triad_tests::history::History;
use triad_tests::processes::{Cluster, Settings};
use triad_tests::raw::{self, Kv};
use triad_tests::wait::until;
use triad_tests::workload::{fill, read_all, run_all};

const KEYS: usize = 300;
const AT_ONCE: usize = 16;
/// A member is replaced, and a round of collection is held in every shard.
const COLLECTED: Duration = Duration::from_mins(4);

/// Clients that send no request ids: for a while after one, a deleted key answers its repetition.
async fn plain(cluster: &Cluster, nodes: usize) -> Vec<Kv> {
    let mut clients = Vec::new();
    for node in &cluster.nodes()[..nodes] {
        clients.push(Kv::new(node.channel().await));
    }
    clients
}

/// Puts or deletes every key; a write that failed or is in doubt is made again.
async fn for_all_keys(clients: &[Kv], put: bool) {
    run_all(KEYS, AT_ONCE, |number| {
        let mut kv = clients[number % clients.len()].clone();
        async move {
            let key = format!("fill/{number}");
            for _ in 0..20 {
                let done = if put {
                    kv.put(raw::put(&key, &"v".repeat(200))).await.map(drop)
                } else {
                    kv.delete(raw::delete(&key)).await.map(drop)
                };
                match done {
                    Ok(()) => return,
                    Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
                }
            }
            panic!("{key} cannot be written");
        }
    })
    .await;
}

/// What living nodes hold: records (tombstones too) and live bytes.
fn held(cluster: &Cluster) -> Vec<(u64, u64)> {
    let listed = cluster.triad(["node", "ls", "-o", "json"]).json();
    let number = |node: &serde_json::Value, name: &str| node[name].as_u64().unwrap_or_default();
    let nodes = listed["nodes"].as_array().unwrap();
    let alive = nodes.iter().filter(|node| node["liveness"] == "alive");
    alive.map(|node| (number(node, "keys"), number(node, "live_bytes"))).collect()
}

async fn nothing_is_held(cluster: &Cluster, by: usize) {
    until("no node holds anything of the deleted keys", COLLECTED, || async {
        let held = held(cluster);
        let none = held.len() == by && held.iter().all(|(keys, _)| *keys == 0);
        if none { Ok(()) } else { Err(held) }
    })
    .await;
}

async fn nothing_is_read(client: &Client) {
    run_all(KEYS, AT_ONCE, |number| {
        let client = client.clone();
        async move {
            let key = format!("fill/{number}");
            let values = client.get(&key).await.map(|read| read.values().count());
            assert!(matches!(values, Ok(0)), "{key} is back: {values:?}");
        }
    })
    .await;
}

/// A key is written, read, deleted, and gone. One writer for each key.
async fn one_life(kv: &mut Kv, key: &str) -> Result<(), tonic::Status> {
    kv.put(raw::put(key, "value")).await?;
    let read = kv.get(raw::get(key)).await?.into_inner();
    assert_eq!(raw::texts(&read), ["value"], "{key} was written");
    kv.delete(raw::delete(key)).await?;
    let read = kv.get(raw::get(key)).await?.into_inner();
    assert_eq!(raw::texts(&read), [""; 0], "{key} was deleted");
    Ok(())
}

/// Keys live and die again and again while tombstones are collected under them. One whose
/// write is in doubt is left alone from then on: what was in doubt may still come.
async fn many_lives(clients: &[Kv], time: Duration) {
    let ended = tokio::time::Instant::now() + time;
    run_all(4, 4, |worker| {
        let mut kv = clients[worker % clients.len()].clone();
        async move {
            let mut keys: Vec<String> =
                (worker..40).step_by(4).map(|number| format!("life/{number}")).collect();
            let mut lives = 0;
            while tokio::time::Instant::now() < ended {
                let mut alive = Vec::new();
                for key in keys {
                    if one_life(&mut kv, &key).await.is_ok() {
                        lives += 1;
                        alive.push(key);
                    }
                }
                keys = alive;
            }
            assert!(lives > 10, "nearly nothing could be written");
        }
    })
    .await;
}

/// What was in doubt is deleted, too.
async fn end_all_lives(clients: &[Kv]) {
    let kv = &clients[0];
    for number in 0..40 {
        let key = format!("life/{number}");
        until("a delete", Duration::from_mins(1), || {
            let (mut kv, request) = (kv.clone(), raw::delete(&key));
            async move { kv.delete(request).await.map(drop) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_keys_leave_nothing_and_who_slept_through_it_brings_nothing_back() {
    let settings = Settings::small().with("TRIAD_CLUSTER_DOWN_AFTER", "6s");
    let mut cluster = Cluster::start(4, settings).await;
    for_all_keys(&plain(&cluster, 4).await, true).await;
    let full = held(&cluster);
    assert!(full.iter().all(|(keys, _)| *keys > 0), "{full:?}");

    // node4 keeps what it had; the others delete it, and replace node4.
    cluster.node(3).kill();
    let others = plain(&cluster, 3).await;
    for_all_keys(&others, false).await;
    many_lives(&others, Duration::from_secs(12)).await;
    end_all_lives(&others).await;

    cluster.node(3).start();
    cluster.settled(4).await;
    nothing_is_read(&cluster.client()).await;
    nothing_is_held(&cluster, 4).await;
    for ((_, before), (_, after)) in full.iter().zip(held(&cluster)) {
        assert!(after < *before, "live bytes: {before} before the deletes, {after} after");
    }

    // Collected is collected, also when power fails; and what is written then is new.
    cluster.kill_all();
    cluster.start_all();
    cluster.settled(4).await;
    let client = cluster.client();
    nothing_is_read(&client).await;
    let second = Arc::new(History::new());
    fill(&client, &second, KEYS, AT_ONCE).await;
    assert_eq!(read_all(&client, &second, AT_ONCE).await, [""; 0]);
}
