//! Power cuts for the engine in memory, by its own model of a crash: the same load, the same judgement, no disk.
//!
//! The generations are those of the disk's rig: what a crash has left is written on, and crashes again.

use triad_replica::store::{MemoryStore, Store};

use crate::load::{Acknowledge, Progress, WRITERS, batch};
use crate::{mixed, verify};

/// Batches of each writer before a crash, at most.
const BATCHES: u64 = 40;

/// What a series of crashes came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crashes {
    /// Crashes after which nothing acknowledged was missing.
    pub clean: u32,
    /// The others.
    pub bad: u32,
}

/// Crashes so many times, going on from what is left.
pub fn run(cuts: u32, seed: u64, acknowledge: Acknowledge) -> anyhow::Result<Crashes> {
    let mut crashes = Crashes::default();
    let mut store = MemoryStore::new();
    let mut progress = [0; WRITERS];
    for cut in 0..u64::from(cuts) {
        let acknowledged = write(&store, progress, mixed(&[seed, cut]), acknowledge)?;
        store = store.crash(mixed(&[seed, cut, 1]));
        if let Ok(reached) = verify::store(&store, acknowledged) {
            crashes.clean += 1;
            progress = reached;
        } else {
            crashes.bad += 1;
            (store, progress) = (MemoryStore::new(), [0; WRITERS]);
        }
    }
    Ok(crashes)
}

/// Writes from behind `from`, syncing now and then. How far the acknowledgements went.
fn write(
    store: &MemoryStore,
    from: Progress,
    random: u64,
    acknowledge: Acknowledge,
) -> anyhow::Result<Progress> {
    let (mut applied, mut acknowledged) = (from, from);
    for step in 0..mixed(&[random]) % (BATCHES * WRITERS as u64) {
        let writer = (mixed(&[random, step, 1]) % WRITERS as u64) as usize;
        applied[writer] += 1;
        store.apply(batch(writer, applied[writer]))?;
        if mixed(&[random, step, 2]).is_multiple_of(5) {
            store.sync()?;
            acknowledged = applied;
        }
        if acknowledge == Acknowledge::Applied {
            acknowledged = applied;
        }
    }
    Ok(acknowledged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_every_crash_of_memory() {
        let crashes = run(60, 1, Acknowledge::Synced).unwrap();
        assert_eq!(crashes, Crashes { clean: 60, bad: 0 });
    }

    #[test]
    fn acknowledging_before_the_sync_is_found() {
        let crashes = run(60, 1, Acknowledge::Applied).unwrap();
        assert!(crashes.bad > 10, "{crashes:?}");
    }
}
