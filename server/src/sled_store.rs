//! The default storage engine: sled 0.34.7, under the rules that make it safe.
//!
//! sled is fast and pleasant, and five things about it are dangerous. Each has its
//! remedy here, in one place:
//!
//! | danger | remedy | where |
//! | --- | --- | --- |
//! | `flush()` is not durable (`sync_file_range`: every simulated power cut lost acknowledged writes) | `sync` = `flush()`, then `fdatasync` on a handle of our own to `<dir>/db` | `engine` |
//! | a page over a quarter segment goes to a file that is never synced, and `open` may panic for ever after | segments of 2 MiB, rows of at most 16 KiB (larger values are chunked by `RowStore`); `blobs/` must stay empty | `open`, stats, tests |
//! | a leftover `snap.*.generating` makes `open` fail | removed before opening | `open` |
//! | damage in its log is taken for the log's end, and what was synced behind it is forgotten | every sync is counted in the log and beside it | `mark` |
//! | damaged files make it panic | everything runs under `catch_unwind`; opening tells *lost* from *not now* | `open`, `engine` |
//!
//! Never used: `flush_async` (deadlocks), tree transactions (a process-wide lock), `drop_tree`, `temporary`.
//!
//! sled's background flusher stays on (500 ms): it writes behind and cleans segments, and
//! without it un-synced writes run at two thirds of the speed. It only logs a failed fsync,
//! so durability never relies on it; and as the kernel reports a write-back error once to
//! *each* open file, the flusher cannot swallow the error that our own handle must see.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use triad_replica::store::{
    Batch, KeyRange, RowStore, SpaceRule, Store, StoreError, StoreStats, Visitor,
};

mod engine;
mod mark;
mod open;
#[cfg(test)]
pub(crate) mod tests;

use engine::SledEngine;
pub use open::OpenStoreError;

/// How a sled store runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SledOptions {
    /// Bytes of memory for sled's page cache. Resident memory is about 250–400 MiB plus 1–4 times this at
    /// a million keys, so sled's own default of 1 GiB is unfit for several nodes on a host.
    pub cache_bytes: u64,
    /// When the store is full.
    pub space: SpaceRule,
    /// How often sled writes behind; `None` = only when told to.
    pub flush_every: Option<Duration>,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            space: SpaceRule::default(),
            flush_every: Some(Duration::from_millis(500)),
        }
    }
}

/// A [`Store`] on sled.
pub struct SledStore {
    rows: RowStore<SledEngine>,
}

impl SledStore {
    /// Opens the store in `dir`, or makes one there. What it shows is durable when this returns: a
    /// process that was killed may have left rows that were written and never synced, and
    /// nobody may build on them before they are.
    ///
    /// Reads every row once, to count what is live; that is also a first check of the files.
    pub fn open(dir: &Path, options: &SledOptions) -> Result<Self, OpenStoreError> {
        let engine = open::open(dir, options)?;
        let lost = |error: StoreError| OpenStoreError::Lost {
            dir: dir.to_owned(),
            why: error.to_string(),
        };
        let rows = RowStore::open(engine, options.space).map_err(lost)?;
        rows.sync().map_err(lost)?;
        Ok(Self { rows })
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.rows.get(key)
    }

    fn scan(
        &self,
        range: &KeyRange,
        after: Option<&[u8]>,
        visit: &mut Visitor<'_>,
    ) -> Result<(), StoreError> {
        self.rows.scan(range, after, visit)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.rows.apply(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.rows.sync()
    }

    fn stats(&self) -> StoreStats {
        self.rows.stats()
    }
}
