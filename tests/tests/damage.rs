//! Data directories that rot, in every way that files can: what is damaged is never served, and comes back from the
//! other replicas.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use triad_client::{Client, Level};
use triad_tests::dice::{Dice, length};
use triad_tests::processes::{Cluster, Settings, client_of};
use triad_tests::rot::{CHUNKS, RECORDS, clear_quarantines, files, flip, rot_rows};
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

/// Reads every key through every node at this level: what is answered is right. Answers how many were refused; at ONE,
/// which promises nothing about freshness, also how many were not there (yet).
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
                Ok(read) if level == Level::One && !read.is_found() => refused += 1,
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

async fn corruption_is_told(client: Client) {
    until("the alarm is raised", MENDED, || async {
        let alarms = alarms(&client).await?;
        let raised =
            alarms.iter().any(|one| one.starts_with("CORRUPTION") && one.contains("shard"));
        if raised { Ok(()) } else { Err(alarms.join("; ")) }
    })
    .await;
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
    let settings = settings().with("TRIAD_TIMEOUTS_REQUEST_MAX", "20s");
    let mut cluster = Cluster::start(3, settings).await;
    let client = cluster.client();
    write_all(&client, 1).await;
    cluster.converged(MENDED).await;

    cluster.node(1).stop(MENDED);
    let directory = cluster.nodes()[1].data_dir().to_owned();
    let records = rot_rows(&directory, RECORDS, 15, &mut dice);
    let chunks = rot_rows(&directory, CHUNKS, 2, &mut dice);
    assert!(records >= KEYS && chunks > LARGE, "{records} records, {chunks} chunks");
    cluster.node(1).start();
    // From now on: once the rows are mended it is cleared.
    let alarm = tokio::spawn(corruption_is_told(cluster.client()));
    cluster.node(1).ready().await;

    read_all(&cluster, Level::All, 1).await;
    read_all(&cluster, Level::One, 1).await;
    assert_eq!(read_all(&cluster, Level::Quorum, 1).await, 0, "two replicas of each are whole");
    alarm.await.unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrub_finds_and_mends_what_nobody_reads() {
    let mut dice = Dice::new();
    eprintln!("seed {}", dice.seed());
    // Nobody compares anything: only the scrub can find it.
    let settings = settings().with("TRIAD_REPAIR_INTERVAL", "0s").with("TRIAD_REPAIR_SCRUB", "2s");
    let mut cluster = Cluster::start(3, settings).await;
    let client = cluster.client();
    write_all(&client, 1).await;
    cluster.node(2).stop(MENDED);
    rot_rows(cluster.nodes()[2].data_dir(), RECORDS, 5, &mut dice);
    cluster.node(2).start();
    cluster.node(2).ready().await;
    until("damage is found and mended", MENDED, || async {
        let log = cluster.nodes()[2].log();
        let seen = |what: &str| log.contains(what);
        let told = seen("CORRUPTION") && seen("some of its rows are damaged");
        if told && seen("a damaged row is mended") { Ok(()) } else { Err("not yet") }
    })
    .await;
    no_alarms(&client).await;
    cluster.converged(MENDED).await;
}

/// Starts a node on a damaged data directory. True when it is ready; false when it refuses to start, and says why.
async fn comes_up(cluster: &mut Cluster, index: usize) -> bool {
    let logged = cluster.nodes()[index].log().len();
    cluster.node(index).start();
    let client = client_of([cluster.nodes()[index].client_address()]);
    for _ in 0..1_200 {
        if client
            .cluster()
            .deadline(Duration::from_secs(1))
            .readiness()
            .await
            .is_ok_and(|it| it.ready)
        {
            return true;
        }
        if !cluster.node(index).is_running() {
            let status = cluster.node(index).ended(MENDED);
            assert_eq!(status.code(), Some(1), "an error, and no crash");
            let log = cluster.nodes()[index].log();
            let directory = cluster.nodes()[index].data_dir().display().to_string();
            assert!(
                log[logged..].contains(&directory),
                "it names what it cannot use: {}",
                &log[logged..]
            );
            return false;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the node neither gets ready nor ends");
}

/// Whatever happened to the files of the last node of three: no wrong value is told, and in the end all is as before.
async fn lives_with(
    cluster: &mut Cluster,
    what: &str,
    whole: &[(std::path::PathBuf, Vec<u8>)],
) -> bool {
    let client = cluster.client();
    if !comes_up(cluster, 2).await {
        eprintln!("{what}: it refuses to start");
        for (file, bytes) in whole {
            fs::write(file, bytes).unwrap();
        }
        cluster.node(2).start();
        cluster.node(2).ready().await;
    }
    for level in [Level::One, Level::Quorum, Level::All] {
        read_all(cluster, level, 1).await;
    }
    let lost = cluster.nodes()[2].data_dir().join("quarantine-1").exists();
    eprintln!("{what}: {}", if lost { "its store is lost" } else { "its store is good" });
    cluster.settled_within(3, MENDED).await;
    no_alarms(&client).await;
    cluster.converged(MENDED).await;
    assert_eq!(read_all(cluster, Level::All, 1).await, 0, "{what}");
    lost
}

/// What is done to a store's directory, in words and in deed.
type Damage = (&'static str, fn(&Path));

/// The bytes of the small files, which are put back when a node refuses to start without them.
fn small_files(directory: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let all = files(directory).into_iter().filter(|(_, size)| *size < 1 << 20);
    all.map(|(file, _)| (file.clone(), fs::read(file).unwrap())).collect()
}

/// Stops the last node, its log empty of nothing that was synced.
fn stop(cluster: &mut Cluster) -> std::path::PathBuf {
    cluster.node(2).stop(MENDED);
    let directory = cluster.nodes()[2].data_dir().to_owned();
    clear_quarantines(&directory);
    directory
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bit_turned_anywhere_in_a_data_directory_is_harmless_or_noticed() {
    let mut dice = Dice::new();
    eprintln!("seed {}", dice.seed());
    let mut cluster = Cluster::start(3, settings()).await;
    write_all(&cluster.client(), 1).await;
    cluster.converged(MENDED).await;
    let end = std::time::Instant::now() + length(60);
    let mut flips = 0;
    // At least one of every file that there is at first, then anywhere.
    while flips < 7 || std::time::Instant::now() < end {
        let directory = stop(&mut cluster);
        let whole = small_files(&directory);
        let all = files(&directory);
        let place = if flips < all.len() { flips } else { dice.roll(0..all.len() as u64) as usize };
        let file = &all[place].0;
        let offset = flip(file, &mut dice);
        let what = format!("{} at {offset}", file.strip_prefix(&directory).unwrap().display());
        lives_with(&mut cluster, &what, &whole).await;
        flips += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_and_overwritten_files_are_noticed_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3, settings()).await;
    write_all(&cluster.client(), 1).await;
    cluster.converged(MENDED).await;
    let damages: [Damage; 4] = [
        ("half of db", |store| {
            let half = fs::metadata(store.join("db")).unwrap().len() / 2;
            fs::File::options().write(true).open(store.join("db")).unwrap().set_len(half).unwrap();
        }),
        ("nothing of db", |store| fs::write(store.join("db"), b"").unwrap()),
        ("garbage in db", |store| fs::write(store.join("db"), vec![0xa5; 3 << 20]).unwrap()),
        ("garbage in conf", |store| fs::write(store.join("conf"), b"garbage").unwrap()),
    ];
    for (what, damage) in damages {
        let directory = stop(&mut cluster);
        damage(&directory.join("store"));
        let lost = lives_with(&mut cluster, what, &[]).await;
        // The settings are always the same: sled writes them anew.
        assert_eq!(lost, what != "garbage in conf", "{what}");
        assert!(cluster.nodes()[2].log().contains("STORE LOST"), "{what}");
    }
}
