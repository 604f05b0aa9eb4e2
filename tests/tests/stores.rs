//! Stores that may vote, and stores that may not: starts are met, copies and old states are noticed.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use triad_client::Level;
use triad_tests::history::History;
use triad_tests::processes::{Cluster, Node, Settings, client_of};
use triad_tests::wait::until;
use triad_tests::workload::{fill, read_all};

const KEYS: usize = 300;
const AT_ONCE: usize = 16;
/// How long anything may take on a machine busy with other tests.
const LIMIT: Duration = Duration::from_mins(2);

async fn everything_reads_back(cluster: &Cluster, history: &Arc<History>) {
    assert_eq!(read_all(&cluster.client(), history, AT_ONCE).await, [""; 0]);
    let client = cluster.client();
    for number in 0..KEYS {
        let key = format!("fill/{number}");
        until("a key is read at ALL", LIMIT, || async {
            let read = client.get(&key).level(Level::All).await;
            read.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }
    assert_eq!(read_all(&cluster.client(), history, AT_ONCE).await, [""; 0]);
}

/// Copies a data directory as it is.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Puts a copy in the place of a directory.
fn put_back(copy_of: &Path, place: &Path) {
    fs::remove_dir_all(place).unwrap();
    copy(copy_of, place);
}

/// Waits until `triad status` shows that the node has lost its store, and why.
async fn told_to_be_lost(at: &str, name: &str, why: &str) {
    let client = client_of([at]);
    until(&format!("the status tells that {name} has lost its store: {why}"), LIMIT, || async {
        let status = client.cluster().status().await.map_err(|error| error.to_string())?;
        let told = status.alarms.iter().any(|alarm| {
            alarm.name == "STORE_LOST" && alarm.node == name && alarm.detail.contains(why)
        });
        if told { Ok(()) } else { Err(format!("{:?}", status.alarms)) }
    })
    .await;
}

fn quarantined(node: &Node) -> bool {
    node.data_dir().join("quarantine-1").exists()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_votes_again_after_every_usual_restart() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    for number in 0..3 {
        cluster.node(number).stop(LIMIT);
        cluster.node(number).start();
        cluster.settled_within(3, LIMIT).await;
    }
    cluster.kill_all();
    cluster.start_all();
    cluster.settled_within(3, LIMIT).await;
    everything_reads_back(&cluster, &history).await;
    assert!(!cluster.nodes().iter().any(quarantined), "no store was given up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_of_a_data_directory_put_back_is_noticed_and_replaced() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    let old = cluster.directory().join("old");
    cluster.node(0).stop(LIMIT);
    copy(cluster.nodes()[0].data_dir(), &old);
    cluster.node(0).start();
    cluster.settled_within(3, LIMIT).await;
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    cluster.node(0).stop(LIMIT);
    put_back(&old, cluster.nodes()[0].data_dir());
    cluster.node(0).start();
    let other = cluster.nodes()[1].client_address();
    told_to_be_lost(&other, "node1", "an old copy of its data directory was put back").await;
    cluster.settled_within(3, LIMIT).await;
    everything_reads_back(&cluster, &history).await;
    assert!(quarantined(&cluster.nodes()[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_taken_within_the_last_start_is_known_by_its_commits() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    let old = cluster.directory().join("old");
    // As a snapshot of the disk would be: of a process that goes on.
    cluster.nodes()[0].pause();
    copy(cluster.nodes()[0].data_dir(), &old);
    cluster.nodes()[0].go_on();
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    cluster.node(0).kill();
    put_back(&old, cluster.nodes()[0].data_dir());
    cluster.node(0).start();
    let other = cluster.nodes()[1].client_address();
    told_to_be_lost(&other, "node1", "commits").await;
    cluster.settled_within(3, LIMIT).await;
    everything_reads_back(&cluster, &history).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_data_directory_started_beside_the_original_is_refused_and_becomes_another_node() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    let taken: PathBuf = cluster.directory().join("copied");
    cluster.node(0).stop(LIMIT);
    copy(cluster.nodes()[0].data_dir(), &taken);
    cluster.node(0).start();
    cluster.settled_within(3, LIMIT).await;
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;

    let mut twin = Node::new("copied", cluster.directory());
    let seeds: Vec<String> = cluster.nodes().iter().map(Node::peer_address).collect();
    twin.set("TRIAD_CLUSTER_SEEDS", &seeds.join(",")).set("TRIAD_CLUSTER_BOOTSTRAP", "false");
    twin.start();
    until("the copy is set aside", LIMIT, || async {
        if quarantined(&twin) { Ok(()) } else { Err("not yet") }
    })
    .await;
    assert!(twin.log().contains("STORE LOST"), "{}", twin.log());
    // Under a key of its own it is welcome.
    cluster.settled_with(4, LIMIT).await;
    let nodes = cluster.client().cluster().list_nodes().await.unwrap();
    let copied = nodes.iter().filter(|node| node.node == "copied").count();
    assert_eq!((nodes.len(), copied), (4, 1), "{nodes:?}");
    everything_reads_back(&cluster, &history).await;
    assert!(!cluster.nodes().iter().any(quarantined), "the original goes on");
    assert!(cluster.running().iter().all(|runs| *runs));
}

/// The command with the directory read-only for it alone. None when this machine allows no mount namespaces.
fn with_read_only(directory: &Path, command: &Command) -> Option<Command> {
    let allowed = Command::new("unshare").args(["--mount", "--map-root-user", "true"]).status();
    allowed.is_ok_and(|status| status.success()).then(|| {
        let script = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@""#;
        let mut wrapped = Command::new("unshare");
        wrapped.args(["--mount", "--map-root-user", "sh", "-c", script]).arg(directory);
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        wrapped
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_disk_is_named_and_no_store_is_given_up_for_it() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    cluster.node(1).stop(LIMIT);
    let node = &cluster.nodes()[1];
    let Some(mut command) = with_read_only(node.data_dir(), &node.command()) else {
        eprintln!("skipped: this machine allows no mount namespaces");
        return;
    };
    let ended = command.output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success(), "it cannot serve");
    let place = node.data_dir().to_str().unwrap();
    assert!(told.contains("Read-only file system") && told.contains(place), "{told}");

    cluster.node(1).start();
    cluster.settled_within(3, LIMIT).await;
    everything_reads_back(&cluster, &history).await;
    assert!(!cluster.nodes().iter().any(quarantined), "the disk was not at fault for ever");
}
