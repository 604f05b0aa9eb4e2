//! Scrubbing: reads the whole store, again and again, so that damage is found while other replicas
//! are there to mend it, and not when the last of them has gone.
//!
//! One cycle takes `repair.scrub`, whatever the store holds: slices are read at an even pace. A cycle that a
//! restart cuts short begins anew.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::{debug, info, warn};

use crate::node::Node;

/// Longest pause before the pace is looked at again: the store may have grown.
const PAUSE_MAX: Duration = Duration::from_mins(10);

/// What a cycle has seen so far.
#[derive(Default)]
struct Cycle {
    rows: u64,
    bytes: u64,
    damaged: u64,
    next: Option<Bytes>,
}

/// Runs until the node stops.
pub(crate) async fn scrub_task(node: Arc<Node>) {
    let period = node.config.repair.scrub;
    if period.is_zero() {
        return;
    }
    let mut cycle = Cycle::default();
    let mut began = node.now();
    loop {
        let ended = step(&node, &mut cycle).await;
        let due = if ended { period } else { share(&node, &cycle, period) };
        // Give or take: nodes that were started together need not all read at the same time.
        let until = began + node.spread(due);
        while node.now() < until {
            let rest = until.saturating_sub(node.now()).min(PAUSE_MAX);
            tokio::select! {
                biased;
                () = node.stop.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
        if ended {
            (cycle, began) = (Cycle::default(), node.now());
        }
        if node.stop.is_cancelled() {
            return;
        }
    }
}

/// How much of a cycle's time has passed when so much has been read.
fn share(node: &Node, cycle: &Cycle, period: Duration) -> Duration {
    let all = node.local.stats().live_bytes.max(1);
    let passed = period.as_millis() * u128::from(cycle.bytes.min(all)) / u128::from(all);
    u64::try_from(passed).map_or(period, Duration::from_millis)
}

/// Reads one slice. True when that was the last of the cycle.
async fn step(node: &Arc<Node>, cycle: &mut Cycle) -> bool {
    let verified = match node.local.verify(cycle.next.take()).await {
        Ok(verified) => verified,
        Err(error) => {
            debug!(%error, "the store cannot be scrubbed");
            return true;
        }
    };
    cycle.rows += verified.rows;
    cycle.bytes += verified.bytes;
    cycle.damaged += verified.damaged.len() as u64;
    cycle.next = verified.next;
    if cycle.next.is_some() {
        return false;
    }
    let Cycle { rows, bytes, damaged, .. } = *cycle;
    if damaged > 0 {
        warn!(rows, bytes, damaged, "the store was scrubbed: some of its rows are damaged");
    } else {
        info!(rows, bytes, "the store was scrubbed: all of its rows are whole");
    }
    true
}
