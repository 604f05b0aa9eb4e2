//! Five containers, clients, and whatever can happen to machines, disks and networks: nothing acknowledged is lost, no
//! delete comes undone, no read at QUORUM is stale, and the cluster heals.
//!
//! Every run prints its seed; `CHAOS_SEED=<seed>` repeats its choices (what happens to whom, for how long; the
//! interleaving is the machine's). Without `CHAOS_SECONDS=<n>` it is the short form; see `cargo xtask chaos`. A failing
//! run says where it keeps its history, its logs and a picture.
#![allow(clippy::print_stdout, reason = "a run is told by its seed, its faults and its figures")]

use anyhow::Result;
use triad_tests::chaos::story::{Plan, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_happens_to_containers_no_promise_is_broken_and_the_cluster_heals() -> Result<()> {
    let plan = Plan::asked_for();
    println!("CHAOS_SEED={}", plan.seed);
    if let Some(figures) = run(&plan).await? {
        println!("chaos: seed {}: {figures}", plan.seed);
    }
    Ok(())
}
