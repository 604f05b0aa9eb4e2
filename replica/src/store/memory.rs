//! An engine in memory that loses what was not synced and fails when told to.
//!
//! It is what simulations and model tests run on. A crash keeps a seeded prefix of the
//! batches since the last sync, as the contract allows, so each seed is one possible power
//! cut. Faults are injected one by one: a full disk, I/O errors, a sync that
//! fails, a batch torn by a crash, flipped bits.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::engine::{Engine, RowChange, RowVisitor};
use super::seed::Seeded;
use super::{Batch, KeyRange, RowStore, Space, SpaceRule, Store, StoreError, StoreStats, Visitor};

/// Rows handed to a visitor per look at the map: visitors may use the store themselves.
const SCAN_ROWS: usize = 64;

/// A store in memory. Clones are handles on the same store.
#[derive(Clone)]
pub struct MemoryStore {
    store: Arc<RowStore<MemoryEngine>>,
    disk: Disk,
    rule: SpaceRule,
}

/// Something that goes wrong once, after `skip` calls of the same kind went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A read fails (EIO).
    Read {
        /// Reads of single rows that still work.
        skip: u32,
    },
    /// A batch fails before anything is written (EIO).
    Apply {
        /// Batches that still work.
        skip: u32,
    },
    /// A sync fails. What it should have made durable may be lost in the next crash, or not.
    Sync {
        /// Syncs that still work.
        skip: u32,
    },
    /// At the next crash a part of the first lost batch stays: an engine that breaks its
    /// contract. For testing that checkers notice.
    TornCrash,
}

impl MemoryStore {
    /// An empty store without limits.
    pub fn new() -> Self {
        Self::with_rule(SpaceRule::default())
    }

    /// An empty store under a space rule.
    pub fn with_rule(rule: SpaceRule) -> Self {
        Self::on(Disk::default(), rule).expect("reading an empty map in memory cannot fail")
    }

    fn on(disk: Disk, rule: SpaceRule) -> Result<Self, StoreError> {
        let store = Arc::new(RowStore::open(MemoryEngine { disk: disk.clone() }, rule)?);
        Ok(Self { store, disk, rule })
    }

    /// The power goes: what comes back holds everything synced and a prefix, chosen by `seed`, of the
    /// batches applied since. All handles on the crashed store fail from now on.
    #[must_use = "the store that was crashed is dead, this is what is left of it"]
    pub fn crash(&self, seed: u64) -> Self {
        let after = self.disk.crash(seed);
        Self::on(after, self.rule).expect("reading a map in memory cannot fail")
    }

    /// Lets something go wrong.
    pub fn inject(&self, fault: Fault) {
        self.disk.lock().faults.push(fault);
    }

    /// Limits the disk to this many bytes, as a small file system does.
    pub fn set_capacity(&self, bytes: u64) {
        self.disk.lock().capacity = bytes;
    }

    /// Flips one bit, chosen by `seed`, in the stored row `key`, durably. False when there is no such
    /// row.
    pub fn flip_bit(&self, key: &[u8], seed: u64) -> bool {
        self.disk.lock().flip_bit(key, seed)
    }

    /// Flips one bit, chosen by `seed`, in one row of the whole store, chunks included. Answers
    /// its key, `None` when the store is empty.
    pub fn flip_any_bit(&self, seed: u64) -> Option<Bytes> {
        let mut disk = self.disk.lock();
        let mut seeded = Seeded::new(seed);
        let row = seeded.below(disk.visible.len().max(1));
        let key = disk.visible.keys().nth(row)?.clone();
        disk.flip_bit(&key, seeded.next());
        Some(key)
    }

    /// Looks at the store from outside: what was injected waits meanwhile.
    pub fn unharmed<T>(&self, look: impl FnOnce(&Self) -> T) -> T {
        let faults = std::mem::take(&mut self.disk.lock().faults);
        let seen = look(self);
        self.disk.lock().faults.extend(faults);
        seen
    }

    /// How often something went wrong: a fault that was injected, or a disk that was full.
    pub fn struck(&self) -> u64 {
        self.disk.lock().struck
    }

    /// Batches applied and not yet synced.
    pub fn unsynced(&self) -> usize {
        self.disk.lock().unsynced.len()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(key)
    }

    fn scan(
        &self,
        range: &KeyRange,
        after: Option<&[u8]>,
        visit: &mut Visitor<'_>,
    ) -> Result<(), StoreError> {
        self.store.scan(range, after, visit)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.store.apply(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }
}

/// The engine of a [`MemoryStore`].
pub struct MemoryEngine {
    disk: Disk,
}

#[derive(Clone, Default)]
struct Disk(Arc<Mutex<DiskState>>);

struct DiskState {
    /// What a crash leaves at least.
    durable: BTreeMap<Bytes, Bytes>,
    /// What readers see.
    visible: BTreeMap<Bytes, Bytes>,
    /// The way from one to the other.
    unsynced: Vec<Vec<RowChange>>,
    /// Bytes of `visible`.
    used: u64,
    capacity: u64,
    faults: Vec<Fault>,
    struck: u64,
    crashed: bool,
}

impl Default for DiskState {
    fn default() -> Self {
        Self {
            durable: BTreeMap::new(),
            visible: BTreeMap::new(),
            unsynced: Vec::new(),
            used: 0,
            capacity: u64::MAX,
            faults: Vec::new(),
            struck: 0,
            crashed: false,
        }
    }
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn crash(&self, seed: u64) -> Disk {
        let mut before = self.lock();
        before.crashed = true;
        let mut seeded = Seeded::new(seed);
        let kept = seeded.below(before.unsynced.len() + 1);
        let mut rows = std::mem::take(&mut before.durable);
        let mut lost = std::mem::take(&mut before.unsynced).into_iter();
        for batch in lost.by_ref().take(kept) {
            change(&mut rows, batch);
        }
        if before.faults.contains(&Fault::TornCrash)
            && let Some(mut torn) = lost.next()
        {
            torn.truncate(torn.len() / 2);
            change(&mut rows, torn);
        }
        let used = rows.iter().map(|(key, row)| (key.len() + row.len()) as u64).sum();
        let visible = rows.clone();
        let after = DiskState {
            durable: rows,
            visible,
            used,
            capacity: before.capacity,
            ..DiskState::default()
        };
        Disk(Arc::new(Mutex::new(after)))
    }
}

impl DiskState {
    fn check_alive(&self) -> Result<(), StoreError> {
        if self.crashed {
            return Err(StoreError::Engine("this process has crashed".to_owned()));
        }
        Ok(())
    }

    /// True when a fault of this kind strikes now; it is used up by that.
    fn strikes(&mut self, skip_of: impl Fn(&mut Fault) -> Option<&mut u32>) -> bool {
        let mut struck = false;
        self.faults.retain_mut(|fault| match skip_of(fault) {
            Some(0) if !struck => {
                struck = true;
                false
            }
            Some(skip) => {
                *skip = skip.saturating_sub(1);
                true
            }
            None => true,
        });
        self.struck += u64::from(struck);
        struck
    }

    fn flip_bit(&mut self, key: &[u8], seed: u64) -> bool {
        let flip = |rows: &mut BTreeMap<Bytes, Bytes>| {
            let Some(row) = rows.get_mut(key).filter(|row| !row.is_empty()) else {
                return false;
            };
            let bit = Seeded::new(seed).below(row.len() * 8);
            let mut bytes = row.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            *row = bytes.into();
            true
        };
        let seen = flip(&mut self.visible);
        flip(&mut self.durable) || seen
    }
}

fn change(rows: &mut BTreeMap<Bytes, Bytes>, changes: Vec<RowChange>) {
    for (key, row) in changes {
        match row {
            Some(row) => rows.insert(key, row),
            None => rows.remove(&key),
        };
    }
}

impl Engine for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let mut disk = self.disk.lock();
        disk.check_alive()?;
        if disk.strikes(|fault| if let Fault::Read { skip } = fault { Some(skip) } else { None }) {
            return Err(StoreError::Engine(
                "read failed: input/output error (injected)".to_owned(),
            ));
        }
        Ok(disk.visible.get(key).cloned())
    }

    fn scan(
        &self,
        start: &[u8],
        skip_start: bool,
        end: &[u8],
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), StoreError> {
        let mut last = None;
        loop {
            let page =
                self.page(last.as_deref().unwrap_or(start), skip_start || last.is_some(), end)?;
            let more = page.len() == SCAN_ROWS;
            for (key, row) in page {
                if visit(&key, row).is_break() {
                    return Ok(());
                }
                last = Some(key);
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn apply(&self, changes: Vec<RowChange>) -> Result<(), StoreError> {
        let mut disk = self.disk.lock();
        disk.check_alive()?;
        if disk.strikes(|fault| if let Fault::Apply { skip } = fault { Some(skip) } else { None }) {
            return Err(StoreError::Engine(
                "write failed: input/output error (injected)".to_owned(),
            ));
        }
        let size = |key: &Bytes, row: &Bytes| (key.len() + row.len()) as u64;
        let added: u64 =
            changes.iter().filter_map(|(key, row)| Some(size(key, row.as_ref()?))).sum();
        let freed: u64 =
            changes.iter().filter_map(|(key, _)| Some(size(key, disk.visible.get(key)?))).sum();
        let used = (disk.used + added).saturating_sub(freed);
        if used > disk.capacity && used > disk.used {
            disk.struck += 1;
            return Err(StoreError::Engine("write failed: no space left on device".to_owned()));
        }
        disk.used = used;
        change(&mut disk.visible, changes.clone());
        disk.unsynced.push(changes);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut disk = self.disk.lock();
        disk.check_alive()?;
        if disk.strikes(|fault| if let Fault::Sync { skip } = fault { Some(skip) } else { None }) {
            return Err(StoreError::Engine(
                "sync failed: input/output error (injected)".to_owned(),
            ));
        }
        for changes in std::mem::take(&mut disk.unsynced) {
            change(&mut disk.durable, changes);
        }
        Ok(())
    }

    fn space(&self) -> Space {
        let disk = self.disk.lock();
        let free_bytes = if disk.capacity == u64::MAX {
            u64::MAX
        } else {
            disk.capacity.saturating_sub(disk.used)
        };
        Space { disk_bytes: disk.used, free_bytes, blob_files: 0, overhead_bytes: 0 }
    }
}

impl MemoryEngine {
    fn page(
        &self,
        start: &[u8],
        skip_start: bool,
        end: &[u8],
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let disk = self.disk.lock();
        disk.check_alive()?;
        if start >= end {
            return Ok(Vec::new());
        }
        let start = if skip_start { Bound::Excluded(start) } else { Bound::Included(start) };
        let rows = disk.visible.range::<[u8], _>((start, Bound::Excluded(end)));
        Ok(rows.take(SCAN_ROWS).map(|(key, row)| (key.clone(), row.clone())).collect())
    }
}
