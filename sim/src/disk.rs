//! The disks of a machine: what lies on them survives the process, and what was synced survives a power cut.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use triad_replica::store::{MemoryStore, Store};
use triad_server::sled_store::{OpenStoreError, SledOptions};

/// The file in a store's directory that says which store lies there, so that a store moves with its directory.
const MARK: &str = "db";

/// All stores that ever lay on a machine's disks. Clones are handles on the same.
#[derive(Clone, Default)]
pub struct Disks(Arc<Mutex<Stores>>);

#[derive(Default)]
struct Stores {
    all: BTreeMap<u64, MemoryStore>,
    /// The one that was opened last.
    current: Option<u64>,
    /// The one whose last batch was torn: its engine finds that out when it is opened next.
    torn: Option<u64>,
}

impl Disks {
    fn lock(&self) -> MutexGuard<'_, Stores> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the store in the directory, or makes one there.
    pub(crate) fn open(
        &self,
        dir: &Path,
        options: &SledOptions,
    ) -> Result<Arc<dyn Store>, OpenStoreError> {
        let unavailable = |error: std::io::Error| OpenStoreError::Unavailable {
            dir: dir.to_owned(),
            why: error.to_string(),
        };
        let mark = dir.join(MARK);
        let mut stores = self.lock();
        let number = match fs::read_to_string(&mark) {
            Ok(text) => text.parse().ok(),
            Err(_) => None,
        };
        let number = if let Some(number) = number {
            number
        } else {
            let number = stores.all.len() as u64 + 1;
            fs::create_dir_all(dir).map_err(unavailable)?;
            fs::write(&mark, number.to_string()).map_err(unavailable)?;
            number
        };
        if stores.torn == Some(number) {
            let why = "the last batch is there in part".to_owned();
            return Err(OpenStoreError::Lost { dir: dir.to_owned(), why });
        }
        let new = || MemoryStore::with_rule(options.space);
        let store = stores.all.entry(number).or_insert_with(new).clone();
        stores.current = Some(number);
        drop(stores);
        // What an earlier process has left is built on from here.
        store.sync().map_err(|error| OpenStoreError::Lost {
            dir: dir.to_owned(),
            why: error.to_string(),
        })?;
        Ok(Arc::new(store))
    }

    /// The store that is in use, or was last.
    pub fn current(&self) -> Option<MemoryStore> {
        let stores = self.lock();
        stores.all.get(&stores.current?).cloned()
    }

    /// A batch that is being written ends in the middle.
    pub(crate) fn tear(&self) {
        let mut stores = self.lock();
        stores.torn = stores.current;
    }

    /// The process is gone: of what was not synced, a prefix stays. Answers how many batches were at stake.
    pub fn crash(&self, seed: u64) -> usize {
        let mut stores = self.lock();
        let Some(current) = stores.current else { return 0 };
        let Some(store) = stores.all.get_mut(&current) else { return 0 };
        let unsynced = store.unsynced();
        *store = store.crash(seed);
        unsynced
    }
}
