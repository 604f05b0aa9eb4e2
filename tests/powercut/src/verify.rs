//! What must be left after a cut.
//!
//! For every writer the store must hold exactly the state after its first `b` batches, for
//! one `b` not below what was acknowledged. So a lost write, a torn batch, a batch that
//! overtook another and a write that came back from the dead are all seen.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use triad_replica::store::{KeyRange, Store};
use triad_ring::ShardId;

use crate::engines::Engine;
use crate::load::{Progress, WRITERS, changes, key_row, progress_row};

/// What a look at a data directory found, when all is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing acknowledged is missing; so far the writers came.
    Clean(Progress),
    /// The store could not be used and was replaced by an empty one under a new store id, as a lost
    /// store must be.
    Replaced(String),
}

/// Opens the data directory as a starting node does, and checks its store.
pub fn data_dir(engine: Engine, dir: &Path, acknowledged: Progress) -> Result<Verdict> {
    let opened = engine.open(dir)?;
    match opened.replaced {
        // A store that is gone unnoticed is an empty one, which lacks what was acknowledged.
        None => store(&*opened.store, acknowledged).map(Verdict::Clean),
        Some(why) => Ok(Verdict::Replaced(why)),
    }
}

/// Checks a store. The error says what is wrong, for which writer.
pub fn store(store: &dyn Store, acknowledged: Progress) -> Result<Progress> {
    ensure!(store.stats().blob_files == 0, "sled keeps blob files, which it never syncs");
    let mut progress = [0; WRITERS];
    for (writer, reached) in progress.iter_mut().enumerate() {
        *reached = check_writer(store, writer, acknowledged[writer])?;
    }
    Ok(progress)
}

fn check_writer(store: &dyn Store, writer: usize, acknowledged: u64) -> Result<u64> {
    let found = rows(store, writer)?;
    let reached = match found.get(&progress_row(writer)) {
        Some(row) => u64::from_be_bytes(row[..].try_into()?),
        None => 0,
    };
    ensure!(
        reached >= acknowledged,
        "LOST: writer {writer} had {acknowledged} batches acknowledged, the store holds {reached}"
    );
    let expected = state_after(writer, reached);
    let wrong = expected.iter().find(|(row, value)| found.get(*row) != Some(*value));
    if let Some((row, _)) = wrong {
        bail!(
            "TORN: writer {writer}, state after batch {reached}: row {row:?} is missing or wrong"
        );
    }
    if let Some(row) = found.keys().find(|row| !expected.contains_key(*row)) {
        bail!(
            "RESURRECTED: writer {writer}, state after batch {reached}: row {row:?} should not be there"
        );
    }
    Ok(reached)
}

fn rows(store: &dyn Store, writer: usize) -> Result<BTreeMap<Bytes, Bytes>> {
    let mut rows = BTreeMap::new();
    let mut visit = |key: &[u8], value: Bytes| {
        rows.insert(Bytes::copy_from_slice(key), value);
        ControlFlow::Continue(())
    };
    store.scan(&KeyRange::shard_records(ShardId::new(writer as u32)), None, &mut visit)?;
    Ok(rows)
}

/// All rows of a writer after its first `batches` batches.
fn state_after(writer: usize, batches: u64) -> BTreeMap<Bytes, Bytes> {
    let mut last = BTreeMap::new();
    for sequence in 1..=batches {
        last.extend(changes(writer, sequence));
    }
    let mut rows: BTreeMap<_, _> = last
        .into_iter()
        .filter_map(|(key, value)| Some((key_row(writer, key), value?.bytes())))
        .collect();
    if batches > 0 {
        rows.insert(progress_row(writer), Bytes::copy_from_slice(&batches.to_be_bytes()));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::batch;
    use triad_replica::store::memory::Fault;
    use triad_replica::store::{Batch, MemoryStore};

    /// `synced` batches of each writer are synced, `more` are only applied.
    fn loaded(synced: u64, more: u64) -> MemoryStore {
        let memory = MemoryStore::new();
        for sequence in 1..=synced + more {
            (0..WRITERS).for_each(|writer| memory.apply(batch(writer, sequence)).unwrap());
            if sequence == synced {
                memory.sync().unwrap();
            }
        }
        memory
    }

    #[test]
    fn any_prefix_that_holds_the_acknowledged_is_clean() {
        for seed in 0..20 {
            let left = loaded(5, 5).crash(seed);
            let progress = store(&left, [5; WRITERS]).unwrap();
            assert!(progress.iter().all(|reached| (5..=10).contains(reached)));
        }
    }

    #[test]
    fn a_lost_acknowledged_write_is_noticed() {
        let error = store(&loaded(5, 0), [5, 5, 6, 5]).unwrap_err().to_string();
        assert!(error.starts_with("LOST: writer 2"), "{error}");
    }

    #[test]
    fn a_torn_batch_is_noticed() {
        let noticed = (0..20)
            .filter(|seed| {
                let memory = loaded(5, 5);
                memory.inject(Fault::TornCrash);
                store(&memory.crash(*seed), [5; WRITERS]).is_err()
            })
            .count();
        assert!(noticed > 5, "{noticed}");
    }

    #[test]
    fn a_row_that_comes_back_or_is_gone_is_noticed() {
        let memory = loaded(5, 0);
        let key = (0..crate::load::KEYS)
            .find(|key| !state_after(1, 5).contains_key(&key_row(1, *key)))
            .unwrap();
        let mut ghost = Batch::new();
        ghost.put(key_row(1, key), "boo");
        memory.apply(ghost).unwrap();
        assert!(
            store(&memory, [5; WRITERS])
                .unwrap_err()
                .to_string()
                .starts_with("RESURRECTED: writer 1")
        );

        let memory = loaded(5, 0);
        let row = state_after(3, 5).into_keys().next().unwrap();
        let mut hole = Batch::new();
        hole.delete(row);
        memory.apply(hole).unwrap();
        assert!(
            store(&memory, [5; WRITERS]).unwrap_err().to_string().starts_with("TORN: writer 3")
        );
    }
}
