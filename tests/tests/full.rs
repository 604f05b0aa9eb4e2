//! Disks that are filled to the end, of all nodes and of one.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use triad_client::{Client, Level};
use triad_tests::binary::triad;
use triad_tests::processes::{Cluster, Settings, client_of};
use triad_tests::wait::until;

/// How long anything may take, on a machine busy with other tests.
const LIMIT: Duration = Duration::from_mins(3);
/// Bytes of a value.
const LARGE: usize = 256 << 10;
/// More of them than a disk of 256 MiB can hold.
const TOO_MANY: usize = 1_100;
/// Writes that may be in doubt: those with which the nodes learn of each other that they are full.
const IN_DOUBT: usize = 12;

/// A program that runs `triad` with a disk of 256 MiB of its own under its data directory. The disk lives in a mount
/// namespace of the process, and goes with it. None when this machine allows no such thing.
fn with_small_disk(directory: &Path) -> Option<PathBuf> {
    let works = Command::new("unshare").args(["--mount", "--map-root-user", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        return None;
    }
    let script = format!(
        "#!/bin/sh\nexec unshare --mount --map-root-user sh -c '\n\
         mkdir -p \"$TRIAD_STORAGE_DATA_DIR\" &&\n\
         mount -t tmpfs -o size=256m,mode=700 tmpfs \"$TRIAD_STORAGE_DATA_DIR\" &&\n\
         exec \"$0\" \"$@\"' '{}' \"$@\"\n",
        triad().display()
    );
    let path = directory.join("triad-with-a-small-disk");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Some(path)
}

fn key(number: usize) -> String {
    format!("large/{number}")
}

fn value(number: usize) -> Vec<u8> {
    vec![number as u8; LARGE]
}

async fn no_space_alarms(client: &Client) -> Result<usize, String> {
    let status = client.cluster().status().await.map_err(|error| error.to_string())?;
    Ok(status.alarms.iter().filter(|alarm| alarm.name == "NOSPACE").count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_whole_and_takes_them_again_after_deletes() {
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = with_small_disk(directory.path()) else {
        assert!(std::env::var_os("TRIAD_REQUIRE_DOCKER").is_none(), "no mount namespaces here");
        eprintln!("skipped: this machine allows no mount namespaces");
        return;
    };
    let cluster = Cluster::start(3, Settings::small().with_program(&program)).await;
    let client = cluster.client();
    let (mut stored, mut refused, mut in_doubt) = (Vec::new(), Vec::new(), 0);
    for number in 0..TOO_MANY {
        match client.put(key(number), value(number)).await {
            Ok(_) => stored.push(number),
            Err(error) if error.reason() == "NO_SPACE" => {
                assert!(error.to_string().contains("space"), "{error}");
                refused.push(number);
            }
            Err(error) if error.is_in_doubt() => in_doubt += 1,
            Err(error) => assert_eq!(error.reason(), "OVERLOADED", "{error:?}"),
        }
        if refused.len() >= 10 {
            break;
        }
    }
    eprintln!("{} values of {LARGE} bytes found room", stored.len());
    assert!(stored.len() > 20 && refused.len() >= 10, "{} stored, {refused:?}", stored.len());
    assert!(in_doubt <= IN_DOUBT, "{in_doubt} writes in doubt: nobody tells that it is full");
    until("the alarm is raised", LIMIT, || async {
        match no_space_alarms(&client).await? {
            0 => Err("no alarm".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    // What was refused has left nothing anywhere, and what was acknowledged is there.
    for number in &refused {
        let read = client.get(key(*number)).level(Level::All).await.unwrap();
        assert!(!read.is_found(), "value {number} was refused and is there");
    }
    for number in &stored {
        let read = client.get(key(*number)).await.unwrap();
        assert!(*read.value().unwrap() == value(*number), "value {number}");
    }
    let (deleted, kept) = stored.split_at(stored.len() * 3 / 4);
    for number in deleted {
        client.delete(key(*number)).await.unwrap();
    }
    until("writes find room again", LIMIT, || async {
        client.put("after", value(1)).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    for number in &refused {
        client.put(key(*number), value(*number)).await.unwrap();
    }
    until("the alarm is cleared", LIMIT, || async {
        match no_space_alarms(&client).await? {
            0 => Ok(()),
            alarms => Err(format!("{alarms} alarms")),
        }
    })
    .await;
    for number in kept.iter().chain(&refused) {
        let read = client.get(key(*number)).await.unwrap();
        assert!(*read.value().unwrap() == value(*number), "value {number}");
    }
    for node in cluster.nodes() {
        assert!(
            !node.log().contains("the store has failed"),
            "{} has met the real end",
            node.name()
        );
    }
}

/// Bytes that the one small store of a cluster may take; its values have room for a tenth of that.
const SMALL_QUOTA: &str = "64MiB";
/// Keys put at each node once one of them is full.
const KEYS: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_full_node_fails_no_write_that_the_others_have_room_for() {
    let mut cluster = Cluster::prepare(4, Settings::small());
    cluster.node(3).set("TRIAD_STORAGE_QUOTA", SMALL_QUOTA);
    cluster.start_all();
    cluster.settled(4).await;
    let client = cluster.client();
    let mut number = 0;
    while no_space_alarms(&client).await.unwrap() == 0 {
        client.put(key(number), value(number)).await.unwrap();
        number += 1;
        assert!(number < TOO_MANY, "a store of {SMALL_QUOTA} takes everything");
    }
    eprintln!("node4 is full after {number} values of {LARGE} bytes");

    for node in cluster.nodes() {
        let through = client_of([node.client_address()]);
        for index in 0..KEYS {
            let key = format!("through/{}/{index}", node.name());
            let put = through.put(key.as_str(), value(index)).await;
            put.unwrap_or_else(|error| panic!("{key}: {error:?}"));
            let read = through.get(key.as_str()).await.unwrap();
            assert!(*read.value().unwrap() == value(index), "{key}");
        }
    }
    // What needs all members is refused, by whoever is asked, and says who has no room.
    let mut refused = 0;
    for index in 0..KEYS {
        match client.put(format!("all/{index}"), value(index)).level(Level::All).await {
            Err(error) if error.reason() == "NO_SPACE" => {
                assert!(error.to_string().contains("node4=no_space"), "{error}");
                refused += 1;
            }
            Err(error) => assert!(error.is_in_doubt(), "{error:?}"),
            Ok(_) => {}
        }
    }
    assert!(refused > 0, "every shard has room at all members");
    // The full node takes deletes.
    let at_the_full_one = client_of([cluster.nodes()[3].client_address()]);
    for number in 0..number {
        at_the_full_one.delete(key(number)).await.unwrap();
    }
}
