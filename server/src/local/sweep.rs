//! Deleting the records of a forgotten shard, a slice at a time.
//!
//! What forgets a shard ends its tenure and says so in its row, in one batch with the first
//! deletions. While the row says that the shard is being swept nothing of it is served, taken
//! or compared, so that nobody meets a record which is still there; a crash in between leaves
//! the row, and the next start goes on.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Mutex;

use bytes::Bytes;
use triad_replica::shard::Durable;
use triad_replica::store::{Batch, Key, KeyRange, Store, StoreError};
use triad_ring::ShardId;

use super::garbage::GarbageCounts;
use super::shards::Shards;
use super::trees::{Trees, lock};

/// Rows deleted in one batch.
const ROWS: usize = 512;
/// Bytes of rows that are read to find them; a single row may have more.
const BYTES: usize = 1 << 20;

/// Records of a forgotten shard.
pub(super) struct Leftovers {
    /// Deletes them.
    pub(super) batch: Batch,
    /// Whether there are no others.
    pub(super) all: bool,
}

/// The first records of a shard and its marks, to be deleted.
pub(super) fn leftovers(store: &dyn Store, shard: ShardId) -> Result<Leftovers, StoreError> {
    let mut batch = Batch::new();
    batch.set_essential();
    let mut bytes = 0;
    for range in [KeyRange::shard_records(shard), KeyRange::shard_garbage(shard)] {
        let mut after: Option<Bytes> = None;
        loop {
            let scanned = store.scan(&range, after.as_deref(), &mut |row, value| {
                batch.delete(Bytes::copy_from_slice(row));
                bytes += value.len();
                if batch.len() < ROWS && bytes < BYTES {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
            let full = |batch: &Batch| batch.len() >= ROWS || bytes >= BYTES;
            match scanned {
                Ok(()) if full(&batch) => return Ok(Leftovers { batch, all: false }),
                Ok(()) => break,
                Err(StoreError::Damaged { key, .. }) => {
                    batch.delete(key.clone());
                    after = Some(key);
                    if full(&batch) {
                        return Ok(Leftovers { batch, all: false });
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Leftovers { batch, all: true })
}

/// Deletes one slice of what a shard has forgotten; the last one opens the shard again. Nothing
/// waits for it to be durable: what is acknowledged later is synced after it.
pub(super) fn sweep(
    store: &dyn Store,
    shards: &Shards,
    trees: &Mutex<Trees>,
    garbage: &GarbageCounts,
    shard: ShardId,
) -> Result<(), StoreError> {
    let mut trees = lock(trees);
    let Leftovers { mut batch, all } = leftovers(store, shard)?;
    if !all {
        return store.apply(batch);
    }
    let mut touched = BTreeMap::new();
    if let Some(mut replica) = shards.look(shard, Clone::clone) {
        for (row, value) in replica.on_swept().iter().filter_map(Durable::row) {
            batch.put(Key::Shard(shard, row).encode(), value);
        }
        touched.insert(shard, replica);
    }
    store.apply(batch)?;
    shards.install(touched);
    garbage.apply(std::iter::once(shard), &[]); // what was counted at the start
    trees.swept(shard);
    Ok(())
}
