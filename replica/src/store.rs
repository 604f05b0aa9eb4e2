//! Where rows are kept: the contract of a storage engine, and everything that is the same
//! for all engines.
//!
//! Two layers, one above the other:
//!
//! - An [`Engine`](engine::Engine) keeps small rows: get, scan, apply a batch, sync.
//!   sled (in the server crate) and [`MemoryEngine`](memory::MemoryEngine) are engines.
//! - [`RowStore`] wraps any engine and is what the rest of Triad uses, through the
//!   [`Store`] trait. It adds, once for all engines: checksums on every row, values of any
//!   size (large ones are cut into chunks), the count of live bytes with the space rule, and
//!   the rule that a store which failed to write once never acknowledges again.
//!
//! The promise on which every acknowledgement rests: **after a crash the state is a prefix
//! of the applied batches that contains every batch applied before the last `sync` that
//! returned `Ok`.** The suite in [`contract`] checks it on every engine.
//!
//! All keys are built by [`key::Key`]; nobody else knows their layout.

use std::ops::ControlFlow;

use bytes::Bytes;

pub mod batch;
pub mod contract;
pub mod engine;
pub mod key;
pub mod memory;
mod row;
pub mod rows;
mod seed;
pub mod space;

pub use batch::Batch;
pub use key::{Key, KeyRange, MetaRow, ShardRow};
pub use memory::MemoryStore;
pub use row::{CHUNK_BYTES, INLINE_BYTES_MAX};
pub use rows::RowStore;
pub use space::{Space, SpaceRule};

/// A durable, ordered map from [`Key`]s to values of any size.
///
/// Synchronous: callers own the threads. Safe to share; batches are applied one at a time,
/// reads run beside them.
pub trait Store: Send + Sync + 'static {
    /// The value of one row, `None` when there is none. A row that was there and cannot be
    /// trusted any more is [`StoreError::Damaged`], never `None`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the rows of `range` in key order, beginning behind the key `after` if given,
    /// until the visitor breaks.
    ///
    /// It is no snapshot: rows changed meanwhile may be seen before or after their change.
    /// Keep scans short and go on from the last key seen. On
    /// [`StoreError::Damaged`] every row before the damaged one has been visited; go on
    /// with that key as `after`.
    fn scan(
        &self,
        range: &KeyRange,
        after: Option<&[u8]>,
        visit: &mut Visitor<'_>,
    ) -> Result<(), StoreError>;

    /// Applies all changes of the batch or none. They are visible at once and durable after
    /// the next successful [`sync`](Store::sync).
    ///
    /// [`StoreError::NoSpace`] is answered before anything is changed and the store stays
    /// usable; any other error poisons the store.
    fn apply(&self, batch: Batch) -> Result<(), StoreError>;

    /// Makes every batch durable whose `apply` returned before this call. A failure poisons
    /// the store for ever: after a failed fsync nobody knows what is on the disk, and trying
    /// again would report success for pages that the kernel has already dropped.
    fn sync(&self) -> Result<(), StoreError>;

    /// Sizes and counts, cheap enough for every metrics scrape.
    fn stats(&self) -> StoreStats;
}

/// Sees one row of a scan: its encoded key and its value.
pub type Visitor<'a> = dyn FnMut(&[u8], Bytes) -> ControlFlow<()> + 'a;

/// Why a store did not do what it was asked. Cloneable, because one failed group commit
/// answers many requests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The row's checksum, length or chunks do not agree. The row is lost here and must be repaired
    /// from other replicas; the rest of the store is fine.
    #[error("row {} is damaged: {what}", key::describe(key))]
    Damaged {
        /// The encoded key of the row.
        key: Bytes,
        /// What does not agree.
        what: &'static str,
    },
    /// The batch would have grown the store beyond its space. Nothing was changed.
    #[error("no space: {why}")]
    NoSpace {
        /// The limit with its figures.
        why: String,
    },
    /// An earlier apply or sync failed, so nothing is acknowledged any more. The process must end;
    /// the next start finds a prefix of what was applied.
    #[error("the store has failed and accepts nothing more: {why}")]
    Poisoned {
        /// The first failure.
        why: String,
    },
    /// The engine could not do its work: an I/O error, corrupt files, or a panic inside it.
    #[error("storage engine: {0}")]
    Engine(String),
}

/// Sizes and counts of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes of all keys and values that are live, chunks and row headers included.
    pub live_bytes: u64,
    /// Number of record rows, tombstones included.
    pub records: u64,
    /// Bytes that the engine's files occupy.
    pub disk_bytes: u64,
    /// Bytes that the engine could still grow by, `u64::MAX` when unlimited.
    pub free_bytes: u64,
    /// Files that the engine keeps outside its log. Must stay 0 (sled never syncs them).
    pub blob_files: u64,
    /// Why growing batches are refused, while they are.
    pub full: Option<String>,
}

#[cfg(test)]
mod tests;
