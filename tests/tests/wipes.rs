//! A store is wiped right after an acknowledgement, one after the other: everything reads back.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use triad_tests::dice::{Dice, length};
use triad_tests::history::History;
use triad_tests::processes::{Cluster, Settings};
use triad_tests::workload::{delete_once, read_all, write_once};

const NODES: usize = 5;
/// Keys written and deleted before each wipe.
const WRITES: u64 = 40;
const AT_ONCE: usize = 16;
/// Until a wiped node is a member again of all that it was.
const SETTLED: Duration = Duration::from_mins(3);
/// Rounds last this many seconds unless `SOAK_SECONDS` says otherwise.
const SECONDS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_the_loss_of_any_one_store() {
    let mut dice = Dice::new();
    eprintln!("SOAK_SEED={}", dice.seed());
    let mut cluster = Cluster::start(NODES, Settings::small()).await;
    let history = Arc::new(History::new());
    let client = cluster.client();
    let until = Instant::now() + length(SECONDS);
    let mut rounds = 0;
    while rounds == 0 || Instant::now() < until {
        for number in 0..WRITES {
            let key = format!("key/{}", dice.roll(0..200));
            let written = if number % 5 == 4 {
                delete_once(&client, &history, &key).await
            } else {
                write_once(&client, &history, &key).await
            };
            written.unwrap_or_else(|error| panic!("nothing is broken now: {error:?}"));
        }
        let victim = dice.roll(0..NODES as u64) as usize;
        cluster.node(victim).wipe();
        eprintln!("wiped {}", cluster.nodes()[victim].name());
        cluster.node(victim).start();
        // The next store may go only after this one's place is taken.
        cluster.settled_within(NODES, SETTLED).await;
        assert_eq!(read_all(&cluster.client(), &history, AT_ONCE).await, [""; 0]);
        rounds += 1;
    }
    eprintln!("{rounds} stores wiped");
}
