//! sled as an [`Engine`]: every call guarded, every sync real.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::{Advice, fadvise, fdatasync, statvfs};
use triad_replica::store::engine::{Engine, RowChange, RowVisitor};
use triad_replica::store::{Space, StoreError};

use super::mark::SyncMark;

/// Space is looked up again after this time or after this many bytes, whatever comes
/// first: far less than the reserve can be written in between, even four times over.
const SPACE_AGE_MAX: Duration = Duration::from_millis(250);
const SPACE_BYTES_MAX: u64 = 1 << 20;

/// Segments that sled has open, half empty or waiting to be cleaned, however little it holds.
const OVERHEAD_BYTES: u64 = 8 * (2 << 20);

/// Rows up to this size are copied out of sled; larger ones are shared with its cache.
const COPY_BYTES_MAX: usize = 256;

/// Where the log keeps the number of the last sync.
const SYNCED: &[u8] = b"synced";

/// Bytes in a block of `st_blocks`, whatever the file system's own block size.
const STAT_BLOCK: u64 = 512;

/// sled and our own handle to its file.
pub(super) struct SledEngine {
    db: sled::Db,
    /// For `fdatasync`. Opened once: a handle opened after a failed write-back might not
    /// be told of the failure.
    data_file: File,
    /// A tree of its own: no row of the store.
    counted: sled::Tree,
    synced: AtomicU64,
    mark: SyncMark,
    dir: PathBuf,
    space: Mutex<Option<(Instant, Space)>>,
    bytes_since_look: AtomicU64,
}

/// Lets a row of sled's live on as `Bytes` without a copy.
struct SharedRow(sled::IVec);

impl AsRef<[u8]> for SharedRow {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl SledEngine {
    pub(super) fn new(
        db: sled::Db,
        data_file: File,
        mark: SyncMark,
        dir: PathBuf,
    ) -> Result<Self, StoreError> {
        let counted = guarded("open", || db.open_tree(SYNCED))?;
        let last = guarded("get", || counted.get(SYNCED))?;
        let synced = match last.as_deref().map(<[u8; 8]>::try_from) {
            None => 0,
            Some(Ok(number)) => u64::from_be_bytes(number),
            Some(Err(_)) => {
                return Err(StoreError::Engine("its count of syncs is malformed".to_owned()));
            }
        };
        let (space, bytes_since_look) = (Mutex::new(None), AtomicU64::new(0));
        let synced = AtomicU64::new(synced);
        Ok(Self { db, data_file, counted, synced, mark, dir, space, bytes_since_look })
    }

    /// How often it was synced since it was made, as its log says.
    pub(super) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Relaxed)
    }

    fn look_at_space(&self) -> Space {
        let blocks =
            |path: PathBuf| fs::metadata(path).map_or(0, |meta| meta.blocks() * STAT_BLOCK);
        let blob_files = fs::read_dir(self.dir.join("blobs")).map_or(0, Iterator::count) as u64;
        Space {
            disk_bytes: blocks(self.dir.join("db")),
            // A file system that cannot be asked is not full; the write itself will tell.
            free_bytes: statvfs(&self.dir)
                .map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize)),
            blob_files,
            overhead_bytes: OVERHEAD_BYTES,
        }
    }
}

impl Engine for SledEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        guarded("get", || self.db.get(key)).map(|row| row.map(into_bytes))
    }

    fn scan(
        &self,
        start: &[u8],
        skip_start: bool,
        end: &[u8],
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), StoreError> {
        let mut rows = guarded("scan", || Ok(self.db.range(start..end)))?;
        while let Some((key, row)) = guarded("scan", || rows.next().transpose())? {
            if skip_start && key == start {
                continue;
            }
            if visit(&key, into_bytes(row)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, changes: Vec<RowChange>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        let mut bytes = 0;
        for (key, row) in &changes {
            bytes += key.len() + row.as_ref().map_or(0, Bytes::len);
            match row {
                Some(row) => batch.insert(&key[..], &row[..]),
                None => batch.remove(&key[..]),
            }
        }
        self.bytes_since_look.fetch_add(bytes as u64, Ordering::Relaxed);
        guarded("apply", || self.db.apply_batch(batch))
    }

    fn sync(&self) -> Result<(), StoreError> {
        // Behind everything that this sync is for.
        let number = self.synced.fetch_add(1, Ordering::Relaxed) + 1;
        guarded("count", || self.counted.insert(SYNCED, &number.to_be_bytes()))?;
        guarded("flush", || self.db.flush())?;
        fdatasync(&self.data_file).map_err(|errno| {
            // The kernel marks pages clean that it could not write. Forget them, so that the next
            // start reads what the disk has and not what the page cache believes. Best effort:
            // the store is poisoned either way.
            let _ = fadvise(&self.data_file, 0, None, Advice::DontNeed);
            StoreError::Engine(format!("fdatasync of {}: {errno}", self.dir.join("db").display()))
        })?;
        self.mark.raise(number);
        Ok(())
    }

    fn space(&self) -> Space {
        let mut cached = self.space.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.bytes_since_look.load(Ordering::Relaxed);
        match *cached {
            Some((looked, space))
                if looked.elapsed() < SPACE_AGE_MAX && written < SPACE_BYTES_MAX =>
            {
                space
            }
            _ => {
                self.bytes_since_look.store(0, Ordering::Relaxed);
                let space = self.look_at_space();
                *cached = Some((Instant::now(), space));
                space
            }
        }
    }
}

/// Runs a call into sled. It panics on some damage that it meets; that is an error like any
/// other.
fn guarded<T>(what: &str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    // Unwind safety: after a panic the answer is an error, and the caller poisons the store
    // when the call was to change something.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| StoreError::Engine(format!("sled {what}: {error}"))),
        Err(panic) => {
            Err(StoreError::Engine(format!("sled {what} panicked: {}", panic_text(&*panic))))
        }
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

fn into_bytes(row: sled::IVec) -> Bytes {
    if row.len() <= COPY_BYTES_MAX {
        Bytes::copy_from_slice(&row)
    } else {
        Bytes::from_owner(SharedRow(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_fdatasync_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::Config::new().path(dir.path()).flush_every_ms(None).open().unwrap();
        // A pipe cannot be synced: the kernel answers EINVAL.
        let (reader, _writer) = std::io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(reader));
        let mark = SyncMark::open(dir.path()).unwrap();
        let engine = SledEngine::new(db, pipe, mark, dir.path().to_owned()).unwrap();
        let error = engine.sync().unwrap_err();
        assert!(error.to_string().contains("fdatasync"), "{error}");
    }

    #[test]
    fn a_panic_inside_is_an_error() {
        let error = guarded("get", || -> sled::Result<()> {
            panic!("tried to serialize {}", "Uninitialized")
        });
        assert_eq!(
            error,
            Err(StoreError::Engine(
                "sled get panicked: tried to serialize Uninitialized".to_owned()
            ))
        );
    }
}
