//! Five nodes under continuous load from writers, readers and deleters, while one thing after the other breaks, and
//! nodes leave and join: in the end no acknowledged write is missing, no delete has come undone, and the cluster is at
//! rest: one ring, nothing moves, no hint is left, all members hold the same.
//!
//! Every run prints its seed; `SOAK_SEED=<seed>` repeats its choices and `SOAK_SECONDS=<n>` makes it longer, see
//! `cargo xtask soak`.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use triad_proto::test::v1::LinkDirection;
use triad_proto::test::v1::set_link_fault_request::Fault as Link;
use triad_tests::dice::{Dice, length};
use triad_tests::history::History;
use triad_tests::processes::{Cluster, Settings};
use triad_tests::workload::{Workload, read_all};

const NODES: usize = 5;
const WRITERS: usize = 4;
const READERS: usize = 2;
/// 1,000 keys in all.
const KEYS_EACH: usize = 250;
const AT_ONCE: usize = 16;
/// Faults last this many seconds unless `SOAK_SECONDS` says otherwise.
const SECONDS: u64 = 30;
/// For the cluster to heal what a fault has left.
const SETTLED: Duration = Duration::from_mins(3);
/// And once nothing is written any more, for all members to hold the same.
const QUIET: Duration = Duration::from_secs(30);
const HOUR: i64 = 3_600;

/// What can happen to one node, or to two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// SIGKILL, and a new start later.
    Kill,
    /// SIGSTOP, and SIGCONT later.
    Freeze,
    /// The link between two nodes is cut.
    Cut,
    /// Nobody reaches the node.
    Isolate,
    /// Of all messages to and from the node, some are lost.
    Lose,
    /// The node's clock is wrong by an hour.
    Clock,
    /// The node comes back without its store.
    Wipe,
    /// A node joins, and another one leaves.
    Exchange,
}

const FAULTS: [Fault; 8] = [
    Fault::Kill,
    Fault::Freeze,
    Fault::Cut,
    Fault::Isolate,
    Fault::Lose,
    Fault::Clock,
    Fault::Wipe,
    Fault::Exchange,
];

async fn strike(cluster: &mut Cluster, dice: &mut Dice, fault: Fault) {
    let nodes = cluster.nodes().len() as u64;
    let victim = dice.roll(0..nodes) as usize;
    let other = (victim + dice.roll(1..nodes) as usize) % nodes as usize;
    let pause = dice.time(300..6_000);
    eprintln!("{fault:?} node{} (and node{}) for {pause:?}", victim + 1, other + 1);
    match fault {
        Fault::Kill => {
            cluster.node(victim).kill();
            tokio::time::sleep(pause).await;
            cluster.node(victim).start();
        }
        Fault::Freeze => {
            cluster.nodes()[victim].pause();
            tokio::time::sleep(pause).await;
            cluster.nodes()[victim].go_on();
        }
        Fault::Cut => {
            cluster.cut(victim, other).await;
            tokio::time::sleep(pause).await;
            cluster.heal(victim, other).await;
        }
        Fault::Isolate | Fault::Lose => {
            let fault = if fault == Fault::Lose { Link::DropPercent(30) } else { Link::Cut(true) };
            cluster.nodes()[victim].link("*", LinkDirection::Unspecified, Some(fault)).await;
            tokio::time::sleep(pause).await;
            cluster.nodes()[victim].link("*", LinkDirection::Unspecified, None).await;
        }
        Fault::Clock => {
            let offset = dice.one_of(&[-HOUR, HOUR]);
            cluster.nodes()[victim].clock_offset(offset).await;
            tokio::time::sleep(pause).await;
        }
        Fault::Wipe => {
            // A store may go only when all the others are whole.
            cluster.settled_within(NODES, SETTLED).await;
            cluster.node(victim).wipe();
            cluster.node(victim).start();
            cluster.settled_within(NODES, SETTLED).await;
        }
        Fault::Exchange => {
            cluster.grow().ready().await;
            cluster.dismiss(victim, SETTLED).await;
        }
    }
    for index in 0..NODES {
        cluster.node(index).ready().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_nothing_acknowledged_is_lost_and_no_delete_comes_undone() {
    let mut dice = Dice::new();
    let seed = dice.seed();
    eprintln!("SOAK_SEED={seed}");
    let mut cluster = Cluster::start(NODES, Settings::small()).await;
    let history = Arc::new(History::new());
    let load = Workload::with_deletes(&cluster.client(), &history, WRITERS, READERS, KEYS_EACH);
    let until = Instant::now() + length(SECONDS);
    let mut struck: BTreeMap<Fault, usize> = BTreeMap::new();
    while Instant::now() < until {
        // The first round has one of each kind: a run that hit nothing would prove nothing.
        let missing = FAULTS.iter().find(|fault| !struck.contains_key(fault)).copied();
        let fault = missing.unwrap_or_else(|| dice.one_of(&FAULTS));
        strike(&mut cluster, &mut dice, fault).await;
        *struck.entry(fault).or_default() += 1;
    }
    cluster.settled_within(NODES, SETTLED).await;
    let report = load.stop().await;
    let quiet = Instant::now();
    cluster.converged(QUIET).await;
    eprintln!("at rest {:?} after the last write", quiet.elapsed());
    eprintln!(
        "{struck:?}; {} of {} writes acknowledged, {} keys deleted; {} reads; {} requests failed",
        report.acknowledged,
        history.counts().0,
        history.deleted(),
        report.reads,
        report.failures.len()
    );
    assert!(report.violations.is_empty(), "SOAK_SEED={seed}: {:?}", report.violations);
    let problems = read_all(&cluster.client(), &history, AT_ONCE).await;
    assert_eq!(problems, [""; 0], "SOAK_SEED={seed}");
    assert!(report.acknowledged >= 500 && report.reads >= 200, "too little was going on");
    assert!(history.deleted() >= 20, "too little was deleted");
}
