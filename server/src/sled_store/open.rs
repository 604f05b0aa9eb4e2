//! Opening sled's files: make them durable, step around what it trips over, and tell a lost
//! store from one that cannot be opened just now.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::SledOptions;
use super::engine::{SledEngine, panic_text};
use super::mark::SyncMark;

/// Fixed for ever: sled refuses files that were made with another size. See
/// `triad_replica::store` on why rows are small against it.
const SEGMENT_BYTES: usize = 2 << 20;

/// How long to wait for sled's own lock. The data directory's lock is ours, so only a store
/// of this very process that is still closing can hold it.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// The files are damaged: what they held is lost to this node and must come from other
    /// replicas, under a new store id.
    #[error("the store in {} is lost: {why}", dir.display())]
    Lost {
        /// The store's directory.
        dir: PathBuf,
        /// What the engine said.
        why: String,
    },
    /// The files may be fine; permissions, a full disk, a limit of the system or another
    /// process are in the way. Nothing is given up: mend it and start again.
    #[error("the store in {} cannot be opened now: {why}", dir.display())]
    Unavailable {
        /// The store's directory.
        dir: PathBuf,
        /// What is in the way.
        why: String,
    },
}

/// Opens or makes sled's files in `dir`.
pub(super) fn open(dir: &Path, options: &SledOptions) -> Result<SledEngine, OpenStoreError> {
    let unavailable = |what: &str, error: &io::Error| OpenStoreError::Unavailable {
        dir: dir.to_owned(),
        why: format!("{what}: {error}"),
    };
    fs::create_dir_all(dir).map_err(|error| unavailable("create the directory", &error))?;
    remove_unfinished_snapshots(dir)
        .map_err(|error| unavailable("remove an unfinished snapshot", &error))?;
    let db = open_sled(dir, options)?;
    make_durable(dir).map_err(|error| unavailable("sync the directory", &error))?;
    let data_file =
        File::open(dir.join("db")).map_err(|error| unavailable("open the data file", &error))?;
    let mark = SyncMark::open(dir).map_err(|error| unavailable("open the sync mark", &error))?;
    let known = mark.load().map_err(|error| unavailable("read the sync mark", &error))?;
    let lost = |why: String| OpenStoreError::Lost { dir: dir.to_owned(), why };
    let engine = SledEngine::new(db, data_file, mark, dir.to_owned())
        .map_err(|error| lost(error.to_string()))?;
    match known {
        Some(known) if engine.synced() < known => Err(lost(format!(
            "it shows only {} of {known} syncs: its log is damaged, or an earlier state was put back",
            engine.synced()
        ))),
        _ => Ok(engine),
    }
}

/// sled writes `snap.*.generating` and renames it, but on opening it skips only another
/// suffix: a file left by a kill during opening would be read as a finished snapshot
/// and rejected as corrupt (spacejam/sled#1527, #1533).
fn remove_unfinished_snapshots(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            tracing::info!(file = %entry.path().display(), "removing a snapshot that was never finished");
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn open_sled(dir: &Path, options: &SledOptions) -> Result<sled::Db, OpenStoreError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let error = match try_open_sled(dir, options) {
            Ok(db) => return Ok(db),
            Err(error) => error,
        };
        let locked = error.contains("could not acquire lock");
        if locked && Instant::now() < deadline {
            std::thread::sleep(LOCK_RETRY);
            continue;
        }
        let dir = dir.to_owned();
        return Err(if locked || is_circumstance(&error) || is_other_format(&dir, &error) {
            OpenStoreError::Unavailable { dir, why: error }
        } else {
            OpenStoreError::Lost { dir, why: error }
        });
    }
}

/// Errors come back as text, because a panic has nothing else to say.
fn try_open_sled(dir: &Path, options: &SledOptions) -> Result<sled::Db, String> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(options.cache_bytes)
        .segment_size(SEGMENT_BYTES)
        .flush_every_ms(options.flush_every.map(|every| every.as_millis() as u64))
        .mode(sled::Mode::HighThroughput);
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Io(error))) => Err(format!("{error} ({:?})", error.kind())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(format!("sled panicked: {}", panic_text(&*panic))),
    }
}

/// True for what the system around the files does: giving up a healthy store for it, on many
/// nodes at once perhaps, would turn an operator's slip into a loss of data. By kind,
/// as [`try_open_sled`] prints it, or by error number, as a panic in sled prints it.
fn is_circumstance(error: &str) -> bool {
    const KINDS: [&str; 6] = [
        "PermissionDenied",
        "ReadOnlyFilesystem",
        "StorageFull",
        "QuotaExceeded",
        "OutOfMemory",
        "WouldBlock",
    ];
    // EAGAIN (no more threads), ENOMEM, EACCES, ENFILE, EMFILE, ENOSPC, EROFS, EDQUOT.
    const NUMBERS: [u32; 8] = [11, 12, 13, 23, 24, 28, 30, 122];
    KINDS.iter().any(|kind| error.contains(kind))
        || NUMBERS.iter().any(|number| {
            error.contains(&format!("os error {number})"))
                || error.contains(&format!("code: {number},"))
        })
}

/// True when sled says "unsupported" and its settings file is whole: then these are files of another
/// version or segment size, which an older or newer build of Triad can still open.
fn is_other_format(dir: &Path, error: &str) -> bool {
    let unsupported = error.contains("across restarts") || error.contains("was created using");
    let whole = fs::read(dir.join("conf")).is_ok_and(|conf| {
        conf.split_last_chunk::<4>()
            .is_some_and(|(body, crc)| crc32fast::hash(body) == u32::from_le_bytes(*crc))
    });
    unsupported && whole
}

/// Syncs what sled never does: its settings, and the directory entries of all it made.
fn make_durable(dir: &Path) -> io::Result<()> {
    for file in ["conf", "db", "blobs"] {
        File::open(dir.join(file))?.sync_all()?;
    }
    File::open(dir)?.sync_all()?;
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healthy_store_is_not_given_up_for_what_surrounds_it() {
        for error in [
            "Permission denied (os error 13) (PermissionDenied)",
            "Too many open files (os error 24) (Uncategorized)",
            "No space left on device (os error 28) (StorageFull)",
            "sled panicked: called `Result::unwrap()` on an `Err` value: Os { code: 11, kind: WouldBlock, message: \"Resource temporarily unavailable\" }",
        ] {
            assert!(is_circumstance(error), "{error}");
        }
        for error in [
            "Read corrupted data at file offset None",
            "sled panicked: tried to serialize Uninitialized",
            "Input/output error (os error 5) (Uncategorized)",
            "failed to fill whole buffer (UnexpectedEof)",
            "odd (os error 113)",
        ] {
            assert!(!is_circumstance(error), "{error}");
        }
    }
}
