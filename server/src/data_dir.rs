//! The directory that makes a node: one process at a time, one key, one store.
//!
//! ```text
//! LOCK            held by an OS lock for the life of the process; names its process id
//! node.key        the seed of the node's Ed25519 key; its hash is the node id
//! floor           which store was used last, and by which start: below that it was rolled back
//! store/          the store (sled keeps store/db, store/conf, …)
//! quarantine-<n>/ a store that could not be trusted any more, set aside and never read again
//! store-lost      the last loss of a store, until it is made good
//! ```
//!
//! A node is its key, a member is its key *and* its store: when the store is lost, the node
//! stays the same and comes back with an empty store under a new store id, as a learner
//! (design rule D6). What merely cannot be opened now (permissions, a full disk, another process) is an
//! error that names the path, and nothing is given up.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use triad_replica::member::StoreId;
use triad_ring::{Incarnation, NodeId};

use crate::platform::{OperatingSystem, Platform};
use crate::sled_store::{OpenStoreError, SledOptions};

mod floor;
#[cfg(test)]
mod hostile;
mod key;
mod lock;
mod loss;
mod store;
#[cfg(test)]
mod tests;

use floor::Floor;
pub use loss::{LossReason, StoreLoss};
pub(crate) use loss::{condemn, forget};
pub use store::{OpenedStore, StoreOrigin};

/// Stores set aside at most. A disk that damages one store after another must be seen by
/// somebody before it fills up with remains.
pub const QUARANTINES_MAX: u32 = 16;

/// An open data directory. The lock is held until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    platform: Arc<dyn Platform>,
    path: PathBuf,
    key: SigningKey,
    node: NodeId,
    /// True when this start made the key: the node has never run before.
    first_start: bool,
    _lock: File,
}

/// Why a data directory cannot be used. Each message names the path and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The directory, or something in it, cannot be read or written.
    #[error("data directory {}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error(
        "data directory {} is in use by {}: a directory belongs to one node, give each its own (storage.data_dir)",
        path.display(),
        holder.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, as far as it says.
        holder: Option<u32>,
    },
    /// The node's key cannot be used.
    #[error("node key {}: {why}", path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The store cannot be opened now, though nothing says that it is damaged.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    /// The store was made by another node.
    #[error(
        "the store in {} belongs to node {owner}, but node.key makes this node {node}: put the right key back, or move the store away",
        path.display()
    )]
    ForeignStore {
        /// The store's directory.
        path: PathBuf,
        /// Whose store it is.
        owner: NodeId,
        /// Who we are.
        node: NodeId,
    },
    /// Too many stores have been lost here.
    #[error(
        "{QUARANTINES_MAX} lost stores lie in {}: check the disk, and remove the quarantine-* directories that are not needed any more",
        path.display()
    )]
    TooManyQuarantines {
        /// The data directory.
        path: PathBuf,
    },
    /// The operating system gave no random bytes for a new key or store id.
    #[error("no random bytes: {0}")]
    NoRandomness(#[from] crate::random::NoRandomness),
}

impl DataDir {
    /// Opens the directory, or makes it, and takes its lock. On the first start the node's key is
    /// made too.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        Self::open_on(Arc::new(OperatingSystem), path)
    }

    /// The same on another platform than the operating system.
    pub fn open_on(platform: Arc<dyn Platform>, path: &Path) -> Result<Self, DataDirError> {
        let path = std::path::absolute(path)
            .map_err(|source| io_error(path, "resolve the path", source))?;
        create(&path)?;
        let lock = lock::acquire(&path)?;
        let store = path.join("store");
        if matches!(loss::condemned(&store)?, Some((LossReason::Cloned, _))) {
            key::replace(&*platform, &path, &store)?;
        }
        let (key, first_start) = key::load_or_create(&*platform, &path)?;
        let node = NodeId::of_public_key(key.verifying_key().as_bytes());
        Ok(Self { platform, path, key, node, first_start, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node that lives here.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The node's key, with which it proves its id.
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// Opens the store, or makes an empty one; a lost store is set aside first. On return the start is
    /// durable: the store id is written, and the incarnation is greater than ever before.
    ///
    /// May take seconds on a large store, and blocks.
    pub fn open_store(&self, options: &SledOptions) -> Result<OpenedStore, DataDirError> {
        store::open(self, options)
    }

    /// Starts a node that keeps its data in memory: only the incarnation is noted, durably.
    ///
    /// A store on disk that lies here meanwhile is out of date from now on, because the cluster sees
    /// this node under another store id: if it is opened again, it is replaced as lost.
    pub fn next_incarnation(&self) -> Result<Incarnation, DataDirError> {
        store::start_without(self)
    }
}

/// Notes that others know of this start of the node: the next one must be greater.
pub(crate) fn start_above(dir: &Path, incarnation: Incarnation) -> Result<(), DataDirError> {
    Floor::raise(dir, incarnation)
}

fn create(path: &Path) -> Result<(), DataDirError> {
    // The store holds the cluster's secret: nobody else has business in here.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| io_error(path, "create the directory", source))?;
    if let Some(parent) = path.parent() {
        // Makes the directory's own entry durable. A parent that cannot be opened (a mount
        // point in a container) is not ours to sync.
        let _ = File::open(parent).and_then(|parent| parent.sync_all());
    }
    Ok(())
}

/// Writes a small file so that a crash leaves the old content or the new, never a part.
fn replace_file(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn sync_dir(path: &Path) -> Result<(), DataDirError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| io_error(path, "sync the directory", source))
}

fn exists(path: &Path) -> Result<bool, DataDirError> {
    fs::exists(path).map_err(|source| io_error(path, "look for the file", source))
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> DataDirError {
    DataDirError::Io { path: path.to_owned(), action, source }
}
