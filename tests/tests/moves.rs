//! A node dies at a named step of a move, whichever part it has in it: every shard ends in a stable configuration
//! without it, and again with it, and nothing acknowledged is lost.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::sync::Arc;
use std::time::Duration;

use triad_tests::history::History;
use triad_tests::processes::{Cluster, Settings};
use triad_tests::wait::until;
use triad_tests::workload::{Workload, fill, read_all};

const KEYS: usize = 200;
const AT_ONCE: usize = 16;
/// Until a step is reached, and until shards have come to rest without the dead node.
const PATIENCE: Duration = Duration::from_mins(3);
/// The exit code of a node that a step has ended.
const ENDED: i32 = 99;

/// Enough that each of three nodes proposes some moves and leaves some shards when a fourth comes.
fn few_shards() -> Settings {
    Settings::small().with("TRIAD_CLUSTER_SHARDS", "32")
}

/// A fourth node joins three, and one of the four ends at `step`, the first time it comes by as `role`.
async fn a_node_dies_at(step: &str, role: &str) {
    eprintln!("{step} as {role}");
    let mut cluster = Cluster::start(3, few_shards()).await;
    let history = Arc::new(History::new());
    let client = cluster.client();
    fill(&client, &history, KEYS, AT_ONCE).await;
    let load = Workload::with_deletes(&client, &history, 1, 1, 40);

    // The newcomer is the only one that learns; any of the others does all the rest.
    let victim = if role == "learner" { 3 } else { 1 };
    if victim == 1 {
        cluster.nodes()[victim].failpoint_as(step, "exit", role).await;
    }
    cluster.grow();
    if victim == 3 {
        cluster.nodes()[victim].listens(PATIENCE).await;
        cluster.nodes()[victim].failpoint_as(step, "exit", role).await;
    }
    assert_eq!(cluster.node(victim).ended(PATIENCE).code(), Some(ENDED), "{step} as {role}");

    cluster.no_joint_configuration(PATIENCE).await;
    cluster.node(victim).start();
    cluster.settled_within(4, PATIENCE).await;
    let report = load.stop().await;
    assert!(report.violations.is_empty(), "{step} as {role}: {:?}", report.violations);
    assert!(report.acknowledged > KEYS + 20, "{step} as {role}: writes went on: {report:?}");
    let missing = read_all(&cluster.client(), &history, AT_ONCE).await;
    assert_eq!(missing, [""; 0], "{step} as {role}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_it_has_fenced() {
    for role in ["proposer", "leaver", "stayer"] {
        a_node_dies_at("move.fence", role).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_joint_epoch_is_decided() {
    for role in ["proposer", "learner", "leaver", "stayer"] {
        a_node_dies_at("move.joint", role).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_members_merge() {
    for role in ["proposer", "learner", "stayer"] {
        a_node_dies_at("move.merge", role).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_a_leaver_while_others_merge() {
    // A leaver does nothing at that step unless it is asked, so it is killed while the newcomer stands there.
    let mut cluster = Cluster::start(3, few_shards()).await;
    let history = Arc::new(History::new());
    let client = cluster.client();
    fill(&client, &history, KEYS, AT_ONCE).await;
    cluster.grow();
    cluster.nodes()[3].listens(PATIENCE).await;
    cluster.nodes()[3].failpoint("move.merge", "pause").await;
    until("the newcomer merges", PATIENCE, || async {
        let acted = cluster.nodes()[3].failpoints().await["move.merge"].0;
        if acted > 0 { Ok(()) } else { Err(acted) }
    })
    .await;
    cluster.node(1).kill();
    cluster.nodes()[3].failpoint("move.merge", "off").await;

    cluster.no_joint_configuration(PATIENCE).await;
    cluster.node(1).start();
    cluster.settled_within(4, PATIENCE).await;
    assert_eq!(read_all(&cluster.client(), &history, AT_ONCE).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_final_epoch_is_decided() {
    for role in ["proposer", "learner", "leaver", "stayer"] {
        a_node_dies_at("move.final", role).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_what_was_left_is_purged() {
    // Those who take over what the leaver still has count as stayers, wherever they came from.
    for role in ["leaver", "stayer"] {
        a_node_dies_at("move.retire", role).await;
    }
}
