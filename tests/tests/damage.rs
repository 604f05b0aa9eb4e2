//! Data directories that rot, in every way that files can: what is damaged is never served, and comes back from the
//! other replicas.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::time::Duration;

use triad_client::{Client, Level};
use triad_tests::dice::Dice;
use triad_tests::processes::{Cluster, Settings, client_of};
use triad_tests::rot::{CHUNKS, RECORDS, rot_rows};
use triad_tests::wait::until;

/// How long a node may take to mend what is damaged, on a machine busy with other tests.
const MENDED: Duration = Duration::from_mins(2);
/// Keys of a story.
const KEYS: usize = 40;
/// Some of them have values in several chunks, and some are deleted.
const LARGE: usize = 4;
const DELETED: usize = 5;

fn settings() -> Settings {
    Settings::small().with("TRIAD_REPAIR_INTERVAL", "1s").with("TRIAD_TIMEOUTS_REQUEST_MAX", "5s")
}

fn key(number: usize) -> String {
    format!("key/{number}")
}

/// What must not be found in any log.
fn value(number: usize, version: usize) -> String {
    let length = if number < LARGE { 40_000 } else { 10 };
    format!("confidential {number}, {version} {}", "x".repeat(length))
}

async fn write_all(client: &Client, version: usize) {
    for number in 0..KEYS {
        client.put(key(number), value(number, version)).await.unwrap();
    }
    for number in KEYS - DELETED..KEYS {
        client.delete(key(number)).await.unwrap();
    }
}

/// Reads every key through every node at this level: what is answered is right. Answers how many were refused.
async fn read_all(cluster: &Cluster, level: Level, version: usize) -> usize {
    let mut refused = 0;
    for node in cluster.nodes() {
        let client = client_of([node.client_address()]);
        for number in 0..KEYS {
            let name = node.name();
            match client.get(key(number)).level(level).await {
                Ok(read) if number >= KEYS - DELETED => {
                    assert!(!read.is_found(), "key {number} at {name} is back");
                }
                Ok(read) => {
                    assert!(read.is_found(), "key {number} at {name} is absent");
                    let same = read.value().unwrap() == value(number, version).as_bytes();
                    assert!(same, "key {number} at {name} is wrong");
                }
                Err(_) => refused += 1,
            }
        }
    }
    refused
}

async fn alarms(client: &Client) -> Result<Vec<String>, String> {
    let status = client.cluster().status().await.map_err(|error| error.to_string())?;
    Ok(status.alarms.iter().map(|alarm| format!("{}: {}", alarm.name, alarm.detail)).collect())
}

async fn no_alarms(client: &Client) {
    until("no alarm is raised any more", MENDED, || async {
        let alarms = alarms(client).await?;
        if alarms.is_empty() { Ok(()) } else { Err(alarms.join("; ")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_rows_are_never_served_and_are_mended_from_the_other_replicas() {
    let mut dice = Dice::new();
    eprintln!("seed {}", dice.seed());
    let mut cluster = Cluster::start(3, settings()).await;
    let client = cluster.client();
    write_all(&client, 1).await;
    cluster.converged(MENDED).await;

    cluster.node(1).stop(MENDED);
    let directory = cluster.nodes()[1].data_dir().to_owned();
    let records = rot_rows(&directory, RECORDS, 15, &mut dice);
    let chunks = rot_rows(&directory, CHUNKS, 2, &mut dice);
    assert!(records >= KEYS && chunks > LARGE, "{records} records, {chunks} chunks");
    cluster.node(1).start();
    cluster.node(1).ready().await;

    read_all(&cluster, Level::All, 1).await;
    read_all(&cluster, Level::One, 1).await;
    assert_eq!(read_all(&cluster, Level::Quorum, 1).await, 0, "two replicas of each are whole");
    until("the alarm is raised", MENDED, || async {
        let alarms = alarms(&client).await?;
        let raised =
            alarms.iter().any(|one| one.starts_with("CORRUPTION") && one.contains("shard"));
        if raised { Ok(()) } else { Err(alarms.join("; ")) }
    })
    .await;
    // The damaged replica is asked to run writes, and neither takes the rows for absent nor fails.
    let through = client_of([cluster.nodes()[1].client_address()]);
    for number in 0..KEYS - DELETED {
        through.put(key(number), value(number, 2)).await.unwrap();
    }
    assert_eq!(read_all(&cluster, Level::Quorum, 2).await, 0);

    no_alarms(&client).await;
    cluster.converged(MENDED).await;
    assert_eq!(read_all(&cluster, Level::All, 2).await, 0, "all replicas are whole again");
    assert_eq!(read_all(&cluster, Level::One, 2).await, 0);
    let log = cluster.nodes()[1].log();
    assert!(log.contains("a stored row is DAMAGED") && log.contains("a damaged row is mended"));
    assert!(!log.contains("confidential") && !log.contains("key/"), "logs tell no keys and values");
}
