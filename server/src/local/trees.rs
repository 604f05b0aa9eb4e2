//! Hash trees of this store's shards, kept in memory.
//!
//! A tree is built in slices by whoever needs it ([`super::build`]), and from then on changed
//! with every row the committer writes. The committer holds the lock from its first look at a
//! row until the row is visible and its tree has followed: so a builder, who takes it to begin
//! and to end a slice, never meets half a write.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use triad_replica::hash_tree::{Building, HashTree, LeafHash, Root, Slice, SliceRow};
use triad_replica::record::Record;
use triad_replica::store::{Key, KeyRange, Store, StoreError};
use triad_ring::{RingId, ShardCount, ShardId};

/// What one row's change does to its tree.
pub(super) struct TreeChange {
    pub(super) shard: ShardId,
    pub(super) row: Bytes,
    pub(super) leaf: u8,
    pub(super) before: LeafHash,
    pub(super) after: LeafHash,
}

/// A shard's tree, up to date.
pub(super) struct Ready {
    pub(super) tree: HashTree,
    root: Option<Root>,
    /// A row could not be read. It counts as absent, so that it shows as a difference; and a store
    /// that cannot show all it has is no source for others.
    pub(super) damaged: bool,
}

/// A tree that is being built.
struct Underway {
    building: Building,
    serial: u64,
    damaged: bool,
}

/// A slice is about to be read.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    serial: u64,
    pub(super) after: Option<Bytes>,
}

/// Whether a slice may be read.
pub(super) enum Begin {
    Slice(Begun),
    /// The tree is there.
    Ready,
    /// Somebody else reads one.
    Busy,
    /// What lies in the shard is forgotten and on its way out.
    Sweeping,
}

/// What became of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// There is more to read.
    More,
    /// The tree is there.
    Built {
        /// There was one before, and it was not what the rows say.
        differed: bool,
        /// A row cannot be read.
        damaged: bool,
    },
    /// The shard was forgotten meanwhile, or its tree.
    Gone,
}

/// The trees of one shard: the one that is used, and one in the making.
#[derive(Default)]
struct ShardTrees {
    ready: Option<Ready>,
    underway: Option<Underway>,
}

/// All trees of a store.
#[derive(Default)]
pub(super) struct Trees {
    by_shard: BTreeMap<ShardId, ShardTrees>,
    serial: u64,
    /// Shards whose forgotten rows are not all deleted yet.
    sweeping: BTreeSet<ShardId>,
}

/// The trees, for a moment.
pub(super) fn lock(trees: &Mutex<Trees>) -> MutexGuard<'_, Trees> {
    trees.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Trees {
    /// Follows what was applied to the store.
    pub(super) fn apply(&mut self, changes: Vec<TreeChange>) {
        for TreeChange { shard, row, leaf, before, after } in changes {
            let Some(trees) = self.by_shard.get_mut(&shard) else {
                continue;
            };
            if let Some(ready) = &mut trees.ready {
                ready.tree.replace(leaf, before, after);
                ready.root = None;
            }
            if let Some(underway) = &mut trees.underway {
                underway.building.written(&row, leaf, before, after);
            }
        }
    }

    /// Whether a tree of this shard is there or in the making: else its rows need no hashing.
    pub(super) fn keeps(&self, shard: ShardId) -> bool {
        self.by_shard.contains_key(&shard)
    }

    /// The tree of a shard, if it is there.
    pub(super) fn ready(&self, shard: ShardId) -> Option<&Ready> {
        self.by_shard.get(&shard)?.ready.as_ref()
    }

    /// Its root.
    pub(super) fn root(&mut self, shard: ShardId) -> Option<Root> {
        let ready = self.by_shard.get_mut(&shard)?.ready.as_mut()?;
        Some(*ready.root.get_or_insert_with(|| ready.tree.root()))
    }

    /// The shard's records are gone, or will be: `swept` says which.
    pub(super) fn forget(&mut self, shard: ShardId, swept: bool) {
        self.by_shard.remove(&shard);
        if swept {
            self.sweeping.remove(&shard);
        } else {
            self.sweeping.insert(shard);
        }
    }

    /// A row of the shard turned out to be unreadable: a tree that does not know of it would show
    /// what is lost as if it were there.
    pub(super) fn distrust(&mut self, shard: ShardId) {
        if self.ready(shard).is_some_and(|ready| !ready.damaged) {
            self.by_shard.remove(&shard);
        }
    }

    /// Nobody knows what a row that was replaced has added to the shard's tree.
    pub(super) fn build_anew(&mut self, shard: ShardId) {
        self.by_shard.remove(&shard);
    }

    /// A shard whose forgotten rows must be deleted.
    pub(super) fn to_sweep(&self) -> Option<ShardId> {
        self.sweeping.first().copied()
    }

    /// The last of them is gone.
    pub(super) fn swept(&mut self, shard: ShardId) {
        self.sweeping.remove(&shard);
    }

    /// Begins a slice of the shard's tree; `anew`: also when there is one.
    pub(super) fn begin(&mut self, shard: ShardId, anew: bool) -> Begin {
        if self.sweeping.contains(&shard) {
            return Begin::Sweeping;
        }
        let trees = self.by_shard.entry(shard).or_default();
        if trees.underway.is_none() {
            if trees.ready.is_some() && !anew {
                return Begin::Ready;
            }
            self.serial += 1;
            let building = Building::default();
            trees.underway = Some(Underway { building, serial: self.serial, damaged: false });
        }
        let begun = trees.underway.as_mut().and_then(|underway| {
            let after = underway.building.begin()?;
            Some(Begun { serial: underway.serial, after })
        });
        begun.map_or(Begin::Busy, Begin::Slice)
    }

    /// Takes in a slice that was begun.
    pub(super) fn end(&mut self, shard: ShardId, begun: &Begun, scanned: Scanned) -> Ended {
        let Some(trees) = self.by_shard.get_mut(&shard) else {
            return Ended::Gone;
        };
        let Some(underway) = trees.underway.as_mut().filter(|it| it.serial == begun.serial) else {
            return Ended::Gone;
        };
        underway.damaged |= !scanned.damaged.is_empty();
        let damaged = underway.damaged;
        let Some(tree) = underway.building.end(scanned.slice) else {
            return Ended::More;
        };
        trees.underway = None;
        let before = trees.ready.replace(Ready { tree, root: None, damaged });
        let now = trees.ready.as_ref().map(|ready| &ready.tree);
        let differed = before.is_some_and(|before| Some(&before.tree) != now);
        Ended::Built { differed, damaged }
    }

    /// A slice that was begun could not be read.
    pub(super) fn give_up(&mut self, shard: ShardId) {
        let Some(trees) = self.by_shard.get_mut(&shard) else {
            return;
        };
        trees.underway = None;
        if trees.ready.is_none() {
            self.by_shard.remove(&shard);
        }
    }
}

/// How much is read at once.
#[derive(Clone, Copy)]
pub(super) struct SliceLimit {
    pub(super) rows: usize,
    /// Unless a single row has more.
    pub(super) bytes: usize,
}

/// A slice as read.
#[derive(Default)]
pub(super) struct Scanned {
    slice: Slice,
    /// Rows in it that cannot be read.
    pub(super) damaged: Vec<Bytes>,
}

/// Reads rows of a shard, beginning behind `after`.
pub(super) fn scan(
    store: &dyn Store,
    shards: ShardCount,
    shard: ShardId,
    after: Option<&Bytes>,
    limit: SliceLimit,
) -> Result<Scanned, StoreError> {
    let mut scanned = Scanned::default();
    let mut after = after.cloned();
    let (mut rows, mut bytes) = (0, 0);
    loop {
        let mut full = false;
        let visited =
            store.scan(&KeyRange::shard_records(shard), after.as_deref(), &mut |row, value| {
                rows += 1;
                bytes += row.len() + value.len();
                let row = Bytes::copy_from_slice(row);
                match share(shards, &row, value) {
                    Some((leaf, hash)) => {
                        scanned.slice.rows.push(SliceRow { row: row.clone(), leaf, hash });
                    }
                    None => scanned.damaged.push(row.clone()),
                }
                scanned.slice.end = Some(row);
                full = rows >= limit.rows || bytes >= limit.bytes;
                if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        match visited {
            Ok(()) if full => return Ok(scanned),
            Ok(()) => {
                scanned.slice.end = None;
                return Ok(scanned);
            }
            Err(StoreError::Damaged { key, .. }) => {
                rows += 1;
                scanned.damaged.push(key.clone());
                scanned.slice.end = Some(key.clone());
                after = Some(key);
                if rows >= limit.rows {
                    return Ok(scanned);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// A row's leaf and its share of it. None when it cannot be read.
pub(super) fn share(shards: ShardCount, row: &[u8], value: Bytes) -> Option<(u8, LeafHash)> {
    let Key::Record { bucket, key, .. } = Key::decode(row)? else {
        return None;
    };
    let record = Record::decode(value).ok()?;
    let leaf = HashTree::leaf_of(RingId::of_key(bucket, key), shards);
    Some((leaf, LeafHash::of(bucket, key, &record)))
}
