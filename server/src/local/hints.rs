//! Hints in the store: notes, held records and promises, written in the same groups as all else.
//!
//! Records that are held for others are minted and merged here, in order, like those of the
//! store's own shards: so a held record never loses what was acknowledged for it, and what was
//! delivered goes only if nothing was added meanwhile.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use tokio::sync::oneshot;
use triad_replica::configuration::Epoch;
use triad_replica::hint::{Due, HeldEntry, HeldRecord, encode_floor};
use triad_replica::member::ActorId;
use triad_replica::record::{Basis, Change, Limits, Record, Updated};
use triad_replica::refusal::Refusal;
use triad_replica::store::{Batch, Key, Store, StoreError};
use triad_ring::ShardId;

use super::operation::{Address, Merged, WriteError};
use super::wanted::Wanted;
use crate::hints::Hints;

/// How an operation about hints answers.
type Answer<T> = oneshot::Sender<Result<T, WriteError>>;

/// What the committer is asked to do about hints.
pub(crate) enum HintOperation {
    /// Write or remove rows of courtesy hints.
    Rows { batch: Batch, done: Answer<()> },
    /// Hold a record for the members of its shard.
    Hold { at: Address, held: HeldRecord, done: Answer<Merged> },
    /// Mint a client's write as one who is no member, and hold the record.
    Mint { mint: HeldMint, done: Answer<HeldMinted> },
    /// Every member has the record in this state: it is held no more, unless it has changed.
    Release { due: Due, done: Answer<bool> },
    /// Promise to hold nothing of the shard that was made in this epoch or before; false if
    /// something is held.
    Promise { shard: ShardId, epoch: Epoch, done: Answer<bool> },
}

/// A client's write, to be minted by one who is no member.
#[derive(Clone, Debug)]
pub(crate) struct HeldMint {
    pub(crate) at: Address,
    pub(crate) change: Change,
    pub(crate) basis: Basis,
    /// The newest epoch of the shard that this node knows.
    pub(crate) known: Epoch,
    /// A random actor, for a record that this process has not minted for yet.
    pub(crate) fresh: ActorId,
    pub(crate) now_ms: u64,
    pub(crate) wanted: Wanted,
}

/// A record as its holder minted it; durable.
#[derive(Debug)]
pub(crate) struct HeldMinted {
    pub(crate) record: Record,
    pub(crate) stamp: Epoch,
    pub(crate) updated: Updated,
}

/// What became of an operation about hints.
pub(super) enum HintOutcome {
    Rows,
    Hold(Result<Merged, WriteError>),
    Mint(Result<HeldMinted, WriteError>),
    Release(bool),
    Promise(bool),
}

impl HintOperation {
    /// Bytes the operation brings, roughly.
    pub(super) fn bytes(&self) -> usize {
        let record = |record: &Record| record.encoded_len();
        match self {
            Self::Rows { batch, .. } => batch.bytes(),
            Self::Hold { at, held, .. } => at.key.len() + record(&held.record),
            Self::Mint { mint, .. } => match &mint.change {
                Change::Put { value, .. } => mint.at.key.len() + value.len(),
                Change::Delete => mint.at.key.len(),
            },
            Self::Release { .. } | Self::Promise { .. } => 0,
        }
    }

    /// Until when it is worth doing, and how it ranks among others. Notes of who lacks what count for
    /// nothing; what is held for members counts like a member's part of the write.
    pub(super) fn wanted(&self) -> Wanted {
        match self {
            Self::Rows { .. } => Wanted::in_background(),
            Self::Mint { mint, .. } => mint.wanted.clone(),
            Self::Hold { .. } | Self::Release { .. } | Self::Promise { .. } => Wanted::always(),
        }
    }

    /// Answers after the sync.
    pub(super) fn answer(self, outcome: HintOutcome) {
        match (self, outcome) {
            (Self::Rows { done, .. }, HintOutcome::Rows) => drop(done.send(Ok(()))),
            (Self::Hold { done, .. }, HintOutcome::Hold(result)) => drop(done.send(result)),
            (Self::Mint { done, .. }, HintOutcome::Mint(result)) => drop(done.send(result)),
            (Self::Release { done, .. }, HintOutcome::Release(yes))
            | (Self::Promise { done, .. }, HintOutcome::Promise(yes)) => drop(done.send(Ok(yes))),
            _ => unreachable!("step() answers each kind of operation with its own kind of outcome"),
        }
    }

    /// Answers with an error. A caller that has gone is no concern of ours.
    pub(super) fn fail(self, error: WriteError) {
        match self {
            Self::Rows { done, .. } => drop(done.send(Err(error))),
            Self::Hold { done, .. } => drop(done.send(Err(error))),
            Self::Mint { done, .. } => drop(done.send(Err(error))),
            Self::Release { done, .. } | Self::Promise { done, .. } => drop(done.send(Err(error))),
        }
    }
}

/// A held record that the group touched.
struct Row {
    held: Option<HeldRecord>,
    actor: Option<ActorId>,
    /// Bytes of the row before the group, and now.
    before: u64,
    now: u64,
    dirty: bool,
}

/// The hints of one group of operations, on their way into its batch.
pub(super) struct HintGroup<'a> {
    store: &'a dyn Store,
    hints: &'a Hints,
    rows: BTreeMap<Address, Row>,
    floors: BTreeMap<ShardId, Epoch>,
    courtesy: Batch,
}

/// What changes in memory once the batch is applied.
#[derive(Default)]
pub(super) struct HintChanges {
    held: Vec<(Address, Option<HeldEntry>)>,
    floors: BTreeMap<ShardId, Epoch>,
}

impl<'a> HintGroup<'a> {
    pub(super) fn new(store: &'a dyn Store, hints: &'a Hints) -> Self {
        let (rows, floors) = (BTreeMap::new(), BTreeMap::new());
        Self { store, hints, rows, floors, courtesy: Batch::new() }
    }

    /// One operation on top of those before it.
    pub(super) fn step(&mut self, operation: &HintOperation, limits: &Limits) -> HintOutcome {
        match operation {
            HintOperation::Rows { batch, .. } => {
                self.courtesy.append(batch.clone());
                HintOutcome::Rows
            }
            HintOperation::Hold { at, held, .. } => HintOutcome::Hold(self.hold(at, held.clone())),
            HintOperation::Mint { mint, .. } => HintOutcome::Mint(self.mint(mint, limits)),
            HintOperation::Release { due, .. } => HintOutcome::Release(self.release(due)),
            HintOperation::Promise { shard, epoch, .. } => {
                HintOutcome::Promise(self.promise(*shard, *epoch))
            }
        }
    }

    /// The record held for a key as the group left it so far.
    fn row(&mut self, at: &Address) -> Result<&mut Row, WriteError> {
        match self.rows.entry(at.clone()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(slot) => {
                let entry = self.hints.with(|book| book.held(at).cloned());
                let held = match &entry {
                    Some(_) => load(self.store, at)?,
                    None => None,
                };
                let bytes = entry.as_ref().map_or(0, |entry| entry.bytes);
                let actor = entry.and_then(|entry| entry.actor);
                Ok(slot.insert(Row { held, actor, before: bytes, now: bytes, dirty: false }))
            }
        }
    }

    /// Puts a record in the place of the one held for a key, if there is room for it.
    fn put(
        &mut self,
        at: &Address,
        held: HeldRecord,
        actor: Option<ActorId>,
    ) -> Result<(), Refusal> {
        let now = held_key(at).len() as u64 + held.encoded_len() as u64;
        let others = self.rows.iter().filter(|(other, _)| *other != at);
        let (mut added, mut freed, mut more) = (now, 0, 0);
        for row in others.map(|(_, row)| row).filter(|row| row.dirty) {
            added += row.now;
            freed += row.before;
            more += usize::from(row.before == 0 && row.now > 0);
        }
        let Some(row) = self.rows.get_mut(at) else {
            return Err(Refusal::Damaged);
        };
        freed += row.before;
        more += usize::from(row.before == 0);
        let growth = added.saturating_sub(freed);
        if now > row.now && !self.hints.with(|book| book.has_room(growth, more)) {
            return Err(Refusal::HintsFull);
        }
        *row = Row { held: Some(held), actor, now, dirty: true, before: row.before };
        Ok(())
    }

    fn hold(&mut self, at: &Address, held: HeldRecord) -> Result<Merged, WriteError> {
        let row = self.row(at)?;
        let actor = row.actor;
        let (next, uncovered) = match row.held.clone() {
            None => (held, None),
            Some(mut known) => {
                let uncovered = known.merge(&held);
                (known, uncovered)
            }
        };
        self.put(at, next, actor)?;
        Ok(Merged { uncovered })
    }

    /// A client's write on top of what is held for the key. The actor is random, new for every
    /// record that comes to be held and for every process (design rule D5).
    fn mint(&mut self, mint: &HeldMint, limits: &Limits) -> Result<HeldMinted, WriteError> {
        let stamp = self.hints.with(|book| book.stamp_of_mint(mint.at.shard, mint.known));
        let floor = self.floors.get(&mint.at.shard).map(|floor| floor.next());
        let stamp = floor.map_or(stamp, |floor| stamp.max(floor));
        let row = self.row(&mint.at)?;
        let actor = row.actor.unwrap_or(mint.fresh);
        let held = row.held.clone();
        let stamp = held.as_ref().map_or(stamp, |held| held.stamp.min(stamp));
        let since_ms = held.as_ref().map_or(mint.now_ms, |held| held.since_ms);
        let mut record = held.map(|held| held.record).unwrap_or_default();
        let updated = record
            .update(actor, mint.change.clone(), mint.basis.clone(), limits)
            .map_err(Refusal::from)?;
        // Deleting what this node has never heard of leaves nothing to hold.
        if !record.is_absent() {
            let held = HeldRecord { stamp, since_ms, record: record.clone() };
            self.put(&mint.at, held, Some(actor))?;
        }
        Ok(HeldMinted { record, stamp, updated })
    }

    fn release(&mut self, due: &Due) -> bool {
        let touched = self.rows.get(&due.at).is_some_and(|row| row.dirty);
        if touched || !self.hints.with(|book| book.is_unchanged(due)) {
            return false;
        }
        let bytes = self.hints.with(|book| book.held(&due.at).map_or(0, |entry| entry.bytes));
        let row = Row { held: None, actor: None, before: bytes, now: 0, dirty: true };
        self.rows.insert(due.at.clone(), row);
        true
    }

    fn promise(&mut self, shard: ShardId, epoch: Epoch) -> bool {
        let old = |stamp: Epoch| stamp <= epoch;
        let in_group = self.rows.iter().any(|(at, row)| {
            at.shard == shard && row.dirty && row.held.as_ref().is_some_and(|held| old(held.stamp))
        });
        let (oldest, floor) = self.hints.with(|book| (book.oldest_stamp(shard), book.floor(shard)));
        if in_group || oldest.is_some_and(old) {
            return false;
        }
        if floor.is_none_or(|floor| floor < epoch) {
            let promised = self.floors.entry(shard).or_insert(epoch);
            *promised = (*promised).max(epoch);
        }
        true
    }

    /// Appends the rows to the group's batch.
    pub(super) fn finish(self, batch: &mut Batch) -> HintChanges {
        let mut held = Vec::new();
        let mut essential = Batch::new();
        essential.set_essential();
        for (at, row) in self.rows.into_iter().filter(|(_, row)| row.dirty) {
            let Row { held: record, actor, now, .. } = row;
            match &record {
                None => essential.delete(held_key(&at)),
                Some(record) => {
                    let mut one = Batch::new();
                    one.put(held_key(&at), record.encode());
                    batch.append(one);
                }
            }
            held.push((at, record.map(|held| HeldEntry { bytes: now, stamp: held.stamp, actor })));
        }
        for (shard, floor) in &self.floors {
            essential.put(Key::HintFloor(*shard).encode(), encode_floor(*floor));
        }
        batch.append(essential);
        batch.append(self.courtesy);
        HintChanges { held, floors: self.floors }
    }
}

impl HintChanges {
    /// The rows are applied.
    pub(super) fn install(self, hints: &Hints) {
        hints.with(|book| {
            for (at, entry) in self.held {
                match entry {
                    Some(entry) => book.hold(at, entry),
                    None => book.release(&at),
                }
            }
            for (shard, floor) in self.floors {
                book.raise_floor(shard, floor);
            }
        });
    }
}

fn held_key(at: &Address) -> bytes::Bytes {
    Key::Held { shard: at.shard, bucket: &at.bucket, key: &at.key }.encode()
}

/// The record held for a key, read from its row.
pub(super) fn load(store: &dyn Store, at: &Address) -> Result<Option<HeldRecord>, WriteError> {
    match store.get(&held_key(at)) {
        Ok(None) => Ok(None),
        Ok(Some(row)) => Ok(Some(HeldRecord::decode(row).map_err(|_| Refusal::Damaged)?)),
        Err(StoreError::Damaged { .. }) => Err(Refusal::Damaged.into()),
        Err(error) => Err(WriteError::Store(error)),
    }
}
