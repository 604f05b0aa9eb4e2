//! The test service itself: links that are cut, steps that stop, fail or end the process, digests that agree.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::time::Duration;

use triad_client::Level;
use triad_tests::processes::{Cluster, Settings, client_of};
use triad_tests::wait::until;

const SHARDS: u32 = 64;
const PATIENCE: Duration = Duration::from_mins(1);

/// A write whose coordinator ends meanwhile is in doubt; by any other it is done.
fn done_or_in_doubt<T>(written: triad_client::Result<T>) {
    assert!(written.err().is_none_or(|error| error.is_in_doubt()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_node_reaches_nobody_until_the_links_heal() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let client = cluster.client();
    client.put("k", "before").level(Level::All).await.unwrap();

    cluster.partition(&[0], &[1, 2]).await;
    let alone = client_of([cluster.nodes()[0].client_address()]);
    until("the lonely node refuses QUORUM", PATIENCE, || async {
        let answer = alone.get("k").deadline(Duration::from_secs(2)).await;
        answer.err().ok_or("still answered")
    })
    .await;
    assert_eq!(alone.get("k").level(Level::One).await.unwrap().value().unwrap(), "before");
    let majority = client_of([cluster.nodes()[1].client_address()]);
    until("the others go on", PATIENCE, || async { majority.put("k", "after").await.map(drop) })
        .await;

    cluster.heal_all().await;
    until("the lonely node has heard", PATIENCE, || async {
        let read = alone.get("k").await.map_err(|error| error.to_string())?;
        if read.value().is_some_and(|value| value == "after") {
            Ok(())
        } else {
            Err("stale".to_owned())
        }
    })
    .await;
    cluster.settled(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_pause_fail_and_end_the_process() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let client = cluster.client();
    for number in 0..50 {
        client.put(format!("k{number}"), "v").level(Level::All).await.unwrap();
    }
    for shard in 0..SHARDS {
        let digests: Vec<_> = [
            cluster.nodes()[0].digest(shard).await.unwrap(),
            cluster.nodes()[1].digest(shard).await.unwrap(),
            cluster.nodes()[2].digest(shard).await.unwrap(),
        ]
        .into();
        assert!(digests.iter().all(|one| *one == digests[0] && one.member), "{digests:?}");
        assert_eq!(digests[0].damaged + digests[0].tombstones, 0);
    }
    assert!(cluster.nodes()[0].digest(SHARDS).await.is_err());

    // A paused commit: what waits for this store waits, and goes on afterwards.
    cluster.nodes()[0].failpoint("store.commit", "pause").await;
    let writer = client.clone();
    let waiting = tokio::spawn(async move {
        writer.put("k1", "w").level(Level::All).deadline(Duration::from_secs(30)).await
    });
    until("the step is reached", PATIENCE, || async {
        let acted = cluster.nodes()[0].failpoints().await["store.commit"].0;
        if acted > 0 { Ok(()) } else { Err(acted) }
    })
    .await;
    assert!(!waiting.is_finished());
    cluster.nodes()[0].failpoint("store.commit", "off").await;
    waiting.await.unwrap().unwrap();

    // A step that fails leaves the write in doubt, never acknowledged.
    for node in cluster.nodes() {
        node.failpoint("put.quorum", "error").await;
    }
    let error = client.put("k2", "w").await.unwrap_err();
    assert!(error.is_in_doubt(), "{error:?}");
    for node in cluster.nodes() {
        node.failpoint("put.quorum", "off").await;
    }

    cluster.nodes()[1].failpoint("store.sync", "exit").await;
    done_or_in_doubt(client.put("k3", "w").await);
    assert_eq!(cluster.node(1).ended(PATIENCE).code(), Some(99));
    cluster.node(1).start();
    cluster.settled(3).await;

    // The first failed sync ends acknowledging and the process.
    cluster.nodes()[2].failpoint("store.sync", "error").await;
    done_or_in_doubt(client.put("k4", "w").await);
    assert!(!cluster.node(2).ended(PATIENCE).success());
    assert!(cluster.nodes()[2].log().contains("failpoint store.sync"));
}
