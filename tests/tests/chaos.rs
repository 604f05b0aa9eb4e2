//! Five containers, writers and readers, and nodes killed at random: nothing acknowledged is lost.
//!
//! Every run prints its seed; `CHAOS_SEED=<seed>` repeats its choices (who is killed, for how long; the
//! interleaving is the machine's) and `CHAOS_SECONDS=<n>` makes it longer. What a read may return is
//! judged by [`History`].
#![allow(clippy::print_stdout, reason = "a failure is told by its seed and its faults")]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use triad_client::Client;
use triad_tests::containers::Cluster;
use triad_tests::history::History;
use triad_tests::workload::{Workload, read_all};

const COMPOSE_FILE: &str = "deploy/docker-compose.chaos.yml";
const NODES: usize = 5;
/// For a cluster to form or to heal, on a machine that also compiles.
const SETTLED: Duration = Duration::from_mins(2);
/// Faults last this many seconds unless `CHAOS_SECONDS` says otherwise.
const SECONDS: u64 = 40;
/// A run with fewer kills would prove little: it goes on until there were so many.
const KILLS: usize = 4;
/// How long a node stays dead, in milliseconds. Two at once are a majority of some shards, so this stays
/// well below a request's deadline of 5 s.
const DOWN_MS: std::ops::Range<u64> = 200..2_200;

/// Small, seeded, and the same on every machine (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        range.start + (z ^ (z >> 31)) % (range.end - range.start)
    }

    /// One node, or sometimes two different ones.
    fn victims(&mut self) -> Vec<usize> {
        let nodes = NODES as u64;
        let first = self.roll(0..nodes);
        let second = (first + self.roll(1..nodes)) % nodes;
        let count = if self.roll(0..3) == 0 { 2 } else { 1 };
        [first, second].iter().take(count).map(|node| *node as usize + 1).collect()
    }
}

/// Kills and restarts nodes until the time is up, and on a slow machine until there were [`KILLS`];
/// returns how many were killed.
fn torment(cluster: &Cluster, dice: &mut Dice, until: Instant) -> Result<usize> {
    let mut killed = 0;
    while Instant::now() < until || killed < KILLS {
        let victims = dice.victims();
        let down = Duration::from_millis(dice.roll(DOWN_MS));
        println!("kill {victims:?} for {down:?}");
        cluster.kill_all(victims.iter().copied())?;
        std::thread::sleep(down);
        for victim in &victims {
            cluster.start(*victim)?;
        }
        killed += victims.len();
        // The next fault waits for the last one to heal, or majorities would be asked to do without.
        for victim in &victims {
            cluster.wait_ready(*victim, SETTLED)?;
        }
    }
    Ok(killed)
}

/// Reads every acknowledged write at QUORUM, entering the cluster at each node in turn.
async fn read_everything(cluster: &Cluster, history: &Arc<History>) -> Result<()> {
    for address in cluster.addresses() {
        let client = Client::builder().endpoint(&address).connect().await?;
        let problems = read_all(&client, history, 4).await;
        ensure!(problems.is_empty(), "entering at {address}:\n{}", problems.join("\n"));
    }
    Ok(())
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn fresh_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_millis() as u64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_acknowledged_is_lost_while_nodes_are_killed() -> Result<()> {
    let Some(cluster) = Cluster::up(COMPOSE_FILE, NODES)? else {
        return Ok(());
    };
    let seed = number_from("CHAOS_SEED").unwrap_or_else(fresh_seed);
    println!("CHAOS_SEED={seed}");
    cluster.wait_settled(1, NODES, SETTLED)?;

    let client = Client::connect(cluster.addresses()).await?;
    let history = Arc::new(History::new());
    let load = Workload::start(&client, &history, 4, 2, 50);
    let until =
        Instant::now() + Duration::from_secs(number_from("CHAOS_SECONDS").unwrap_or(SECONDS));
    let killed = tokio::task::block_in_place(|| torment(&cluster, &mut Dice(seed), until))?;
    let report = load.stop().await;
    println!(
        "{killed} kills; {} of {} writes acknowledged; {} reads; {} requests failed",
        report.acknowledged,
        history.counts().0,
        report.reads,
        report.failures.len()
    );
    ensure!(report.violations.is_empty(), "under faults: {:?}", report.violations);

    // The faults are over: the cluster must heal by itself, and hold everything.
    cluster.wait_settled(1, NODES, SETTLED)?;
    read_everything(&cluster, &history).await?;

    // The hardest cut: every node at once.
    cluster.kill_all(1..=NODES)?;
    for node in 1..=NODES {
        cluster.start(node)?;
    }
    cluster.wait_settled(1, NODES, SETTLED)?;
    read_everything(&cluster, &history).await?;

    // A run that hit nothing would prove nothing.
    ensure!(report.acknowledged >= 200 && report.reads >= 200, "too little was going on");
    Ok(())
}
