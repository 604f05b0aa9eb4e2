//! One group of operations on its way into one batch.
//!
//! Operations see what those before them in the group did, through overlays of the records
//! and shards they touched. Nothing outside changes until the batch is applied.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use triad_replica::configuration::Epoch;
use triad_replica::gc;
use triad_replica::hash_tree::{HashTree, LeafHash};
use triad_replica::member::Member;
use triad_replica::message::{PulledRecord, ShardReply, ShardRequest};
use triad_replica::record::{Basis, Change, Known, Limits, Record, Updated};
use triad_replica::refusal::Refusal;
use triad_replica::shard::{Access, Durable, ShardReplica};
use triad_replica::store::{Batch, Key, ShardRow, Store, StoreError};
use triad_ring::{RingId, ShardCount, ShardId};

use super::garbage::GarbageChange;
use super::hints::{HintChanges, HintGroup, HintOperation, HintOutcome};
use super::operation::{Address, Adoption, Merged, Milestone, Remembered, WriteError};
use super::shards::Shards;
use super::sweep::{Leftovers, leftovers};
use super::trees::{TreeChange, Trees};

/// A record that the group touched.
pub(super) struct Row {
    address: Address,
    record: Record,
    before: Option<LeafHash>,
    /// It has a garbage mark in the store.
    marked: bool,
    /// When something of the stored record is due.
    due_before: BTreeSet<u64>,
    dirty: bool,
}

/// The times at which something of a record is due to be removed.
fn due_times(record: &Record) -> BTreeSet<u64> {
    record.siblings().values().filter_map(|sibling| sibling.expires_at).collect()
}

/// What a group became: ready to be applied.
pub(super) struct Finished {
    pub(super) batch: Batch,
    pub(super) shards: BTreeMap<ShardId, ShardReplica>,
    pub(super) trees: Vec<TreeChange>,
    /// Shards whose records are forgotten, and whether all of them are deleted.
    pub(super) emptied: Vec<(ShardId, bool)>,
    /// Rows that could not be read.
    pub(super) damaged: Vec<(ShardId, Bytes)>,
    /// Rows that replace damaged ones.
    pub(super) mended: Vec<(ShardId, Bytes)>,
    /// What changes in the counts of garbage.
    pub(super) garbage: Vec<GarbageChange>,
    pub(super) hints: HintChanges,
}

impl Row {
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn prune(&mut self) {
        self.record = self.record.pruned();
        self.dirty = true;
    }
}

/// The overlays of one group.
pub(super) struct Group<'a> {
    store: &'a dyn Store,
    shards: &'a Shards,
    trees: &'a Trees,
    limits: Limits,
    shard_count: ShardCount,
    rows: BTreeMap<Bytes, Row>,
    touched: BTreeMap<ShardId, ShardReplica>,
    control: Batch,
    /// Deletions of forgotten shards: they come before every row of the group.
    forgotten: Batch,
    emptied: Vec<(ShardId, bool)>,
    damaged: Vec<(ShardId, Bytes)>,
    mended: Vec<(ShardId, Bytes)>,
    /// Records that a round pruned, by shard.
    collected: Vec<(ShardId, u64)>,
    hints: HintGroup<'a>,
}

impl<'a> Group<'a> {
    pub(super) fn new(
        store: &'a dyn Store,
        shards: &'a Shards,
        trees: &'a Trees,
        limits: Limits,
        shard_count: ShardCount,
        hints: HintGroup<'a>,
    ) -> Self {
        Self {
            store,
            shards,
            trees,
            limits,
            shard_count,
            rows: BTreeMap::new(),
            touched: BTreeMap::new(),
            control: Batch::new(),
            forgotten: Batch::new(),
            emptied: Vec::new(),
            collected: Vec::new(),
            damaged: Vec::new(),
            mended: Vec::new(),
            hints,
        }
    }

    /// The shard as the group left it so far, to be changed.
    fn shard(&mut self, shard: ShardId) -> Result<&mut ShardReplica, WriteError> {
        match self.touched.entry(shard) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(slot) => {
                let replica = self
                    .shards
                    .look(shard, Clone::clone)
                    .ok_or(Refusal::NotMember { newest: None })?;
                Ok(slot.insert(replica))
            }
        }
    }

    /// Asks the shard, as the group left it so far, a question.
    pub(super) fn ask<T>(
        &self,
        shard: ShardId,
        ask: impl Fn(&ShardReplica) -> Result<T, Refusal>,
    ) -> Result<T, WriteError> {
        if let Some(replica) = self.touched.get(&shard) {
            return Ok(ask(replica)?);
        }
        let answer =
            self.shards.look(shard, ask).unwrap_or(Err(Refusal::NotMember { newest: None }));
        Ok(answer?)
    }

    /// The record as the group left it so far, to be changed.
    pub(super) fn row(&mut self, at: &Address) -> Result<&mut Row, WriteError> {
        let key = Key::Record { shard: at.shard, bucket: &at.bucket, key: &at.key }.encode();
        match self.rows.entry(key) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(slot) => {
                // What this group has forgotten is gone, though the store still shows it.
                let forgotten = self.emptied.iter().any(|(shard, _)| *shard == at.shard);
                let loaded =
                    if forgotten { Ok(Record::default()) } else { load(self.store, slot.key()) };
                if matches!(loaded, Err(WriteError::Refused(Refusal::Damaged))) {
                    self.damaged.push((at.shard, slot.key().clone()));
                }
                let record = loaded?;
                // Only a shard that somebody compares has a tree to keep.
                let compared = self.trees.keeps(at.shard);
                let before = compared.then(|| LeafHash::of(&at.bucket, &at.key, &record));
                let marked = gc::is_garbage(&record);
                let due_before = due_times(&record);
                let address = at.clone();
                Ok(slot.insert(Row { address, record, before, marked, due_before, dirty: false }))
            }
        }
    }

    /// A row that was taken for damaged is not.
    pub(super) fn was_whole(&mut self, at: &Address) {
        let key = Key::Record { shard: at.shard, bucket: &at.bucket, key: &at.key }.encode();
        self.mended.push((at.shard, key));
    }

    /// Puts a record in the place of a row that cannot be read.
    pub(super) fn replace(&mut self, at: &Address, record: Record) -> Result<(), WriteError> {
        let key = Key::Record { shard: at.shard, bucket: &at.bucket, key: &at.key }.encode();
        let mark = Key::Garbage { shard: at.shard, bucket: &at.bucket, key: &at.key }.encode();
        let marked = match self.store.get(&mark) {
            Ok(mark) => mark.is_some(),
            Err(StoreError::Damaged { .. }) => true,
            Err(error) => return Err(WriteError::Store(error)),
        };
        // What it added to a tree is not known: the shard's tree is built anew.
        let (address, before, due_before) = (at.clone(), None, BTreeSet::new());
        self.mended.push((at.shard, key.clone()));
        self.rows.insert(key, Row { address, record, before, marked, due_before, dirty: true });
        Ok(())
    }

    /// Begins a new actor for the shard: it may have minted what is lost.
    pub(super) fn end_actor(&mut self, shard: ShardId) -> Result<(), WriteError> {
        let replica = self.shard(shard)?;
        let before = replica.clone();
        let durable = replica.on_part_lost();
        self.keep(shard, durable, before)
    }

    /// A client's write: mints a dot under this tenure and covers what `basis` says.
    pub(super) fn update(
        &mut self,
        at: &Address,
        epoch: Epoch,
        change: Change,
        basis: Basis,
        request: Option<Remembered>,
    ) -> Result<(Record, Updated), WriteError> {
        let actor = self.ask(at.shard, |shard| {
            shard.check(Access::Mint, epoch)?;
            shard.actor().ok_or(Refusal::NotMerged)
        })?;
        let limits = self.limits;
        let row = self.row(at)?;
        let again = matches!(basis, Basis::OverwriteAgain { .. });
        let updated = match request {
            None => row.record.update(actor, change, basis, &limits),
            Some(Remembered { request, again: meant }) => match row.record.knows(&request) {
                Known::Repeated | Known::Reused if !again && !meant => {
                    return Err(WriteError::Known(row.record.knows(&request)));
                }
                _ => row.record.update_as(request, actor, change, basis, &limits),
            },
        };
        let updated = updated.map_err(Refusal::from)?;
        row.record.settle();
        // Deleting a key that was never written leaves nothing to remember.
        row.dirty |= !row.record.is_absent();
        Ok((row.record.clone(), updated))
    }

    /// A record from a coordinator.
    pub(super) fn merge(
        &mut self,
        at: &Address,
        epoch: Epoch,
        stamp: Epoch,
        record: &Record,
    ) -> Result<Merged, WriteError> {
        self.ask(at.shard, |shard| {
            shard.check(Access::Merge, epoch)?;
            shard.check_stamp(stamp)
        })?;
        let row = self.row(at)?;
        let uncovered = row.record.uncovered_by(record);
        row.dirty |= row.record.merge(record);
        row.dirty |= row.record.settle();
        Ok(Merged { uncovered })
    }

    /// Records that came from another store in bulk.
    pub(super) fn adopt(
        &mut self,
        shard: ShardId,
        epoch: Epoch,
        from: Adoption,
        records: &[PulledRecord],
    ) -> Result<(), WriteError> {
        self.ask(shard, |replica| {
            let expected = match from {
                // The copy counts only while its plan stands: same epoch, still copying.
                Adoption::Pulled { source } => replica.takes_page(epoch, source),
                Adoption::Pushed(member) => replica.takes_push_from(&member, epoch),
            };
            let newest = || Refusal::NotMember { newest: replica.newest().cloned() };
            if expected { Ok(()) } else { Err(newest()) }
        })?;
        for pulled in records {
            let at = Address { shard, bucket: pulled.bucket.clone(), key: pulled.key.clone() };
            if self.shard_count.shard_of(RingId::of_key(&at.bucket, &at.key)) != shard {
                return Err(Refusal::Damaged.into());
            }
            let record = Record::decode(pulled.record.clone()).map_err(|_| Refusal::Damaged)?;
            let row = self.row(&at)?;
            row.dirty |= row.record.merge(&record);
            row.dirty |= row.record.settle();
        }
        Ok(())
    }

    /// A step of deciding a configuration.
    pub(super) fn shard_request(
        &mut self,
        request: &ShardRequest,
        alive: &[Member],
    ) -> Result<ShardReply, WriteError> {
        let shard = request.shard();
        let replica = self.shard(shard)?;
        let before = replica.clone();
        let (durable, reply) = match request.clone() {
            ShardRequest::Prepare { base, ballot, removals } => {
                replica.on_prepare(base, ballot, &removals, |member| alive.contains(member))
            }
            ShardRequest::Accept { base, ballot, value } => replica.on_accept(base, ballot, value),
            ShardRequest::Learn { configuration } => replica.on_learn(configuration),
            ShardRequest::StartLearning { base } => replica.start_learning(base),
            ShardRequest::Progress { .. } => (Vec::new(), replica.report(None)),
        };
        self.keep(shard, durable, before)?;
        Ok(reply)
    }

    /// A step of this store's own copying. False when its time has passed.
    pub(super) fn milestone(
        &mut self,
        shard: ShardId,
        milestone: Milestone,
    ) -> Result<bool, WriteError> {
        let replica = self.shard(shard)?;
        let before = replica.clone();
        let durable = match milestone {
            Milestone::Merged(epoch) => replica.on_merged(epoch),
            Milestone::Purge(epoch)
                if replica.newest().is_some_and(|known| known.epoch == epoch) =>
            {
                replica.purge()
            }
            Milestone::Purge(_) => Vec::new(),
            Milestone::StopLearning => {
                replica.stop_learning();
                return Ok(true);
            }
        };
        let happened = !durable.is_empty();
        self.keep(shard, durable, before)?;
        Ok(happened)
    }

    /// Puts the rows of a step into the batch, and forgets the shard's records if it says so. If
    /// that fails, the shard is as it was `before`: memory never enters what the disk has not.
    fn keep(
        &mut self,
        shard: ShardId,
        durable: Vec<Durable>,
        before: ShardReplica,
    ) -> Result<(), WriteError> {
        let mut essential = Batch::new();
        essential.set_essential();
        let mut all_swept = false;
        for change in durable {
            if let Some((row, value)) = change.row() {
                essential.put(Key::Shard(shard, row).encode(), value);
                continue;
            }
            let done = if let Durable::EndRound { collected, .. } = change {
                self.end_round(shard, collected, &mut essential).map(|()| false)
            } else {
                essential.delete(Key::Shard(shard, ShardRow::Vouch).encode());
                self.forget(shard)
            };
            match done {
                Ok(swept) => all_swept |= swept,
                Err(error) => {
                    self.touched.insert(shard, before);
                    return Err(error);
                }
            }
        }
        if all_swept {
            let swept = self.shard(shard)?.on_swept();
            for (row, value) in swept.iter().filter_map(Durable::row) {
                essential.put(Key::Shard(shard, row).encode(), value);
            }
        }
        self.control.append(essential);
        Ok(())
    }

    /// Deletes the first records of the shard, and those of this group. True when these were all:
    /// else the shard's row says that more are on their way out.
    fn forget(&mut self, shard: ShardId) -> Result<bool, WriteError> {
        self.rows.retain(|_, row| row.address.shard != shard);
        let Leftovers { batch, all } = leftovers(self.store, shard).map_err(WriteError::Store)?;
        self.forgotten.append(batch);
        self.emptied.push((shard, all));
        Ok(all)
    }

    /// A vouch row, as this group left it so far.
    pub(super) fn vouched(&self, key: &Bytes) -> Result<Option<Bytes>, StoreError> {
        match self.control.changes().find(|(changed, _)| *changed == key) {
            Some((_, row)) => Ok(row.cloned()),
            None => self.store.get(key),
        }
    }

    pub(super) fn control(&mut self, batch: Batch) {
        self.control.append(batch);
    }

    pub(super) fn count_collected(&mut self, shard: ShardId, records: u64) {
        self.collected.push((shard, records));
    }

    /// Something about hints.
    pub(super) fn hint(&mut self, operation: &HintOperation) -> HintOutcome {
        let limits = self.limits;
        self.hints.step(operation, &limits)
    }

    /// Rows of the node itself.
    pub(super) fn meta(&mut self, batch: &Batch) {
        self.control.append(batch.clone());
    }

    /// The batch, and what changes in memory once it is applied.
    pub(super) fn finish(self) -> Finished {
        let mut batch = self.forgotten;
        let mut trees = Vec::new();
        let mut garbage: Vec<GarbageChange> = self
            .collected
            .into_iter()
            .map(|(shard, collected)| GarbageChange { shard, added: 0, removed: 0, collected })
            .collect();
        for (key, row) in self.rows.into_iter().filter(|(_, row)| row.dirty) {
            garbage.extend(mark(&row, &mut batch));
            let Row { address, record, before, due_before, .. } = row;
            if let Some(before) = before {
                let after = LeafHash::of(&address.bucket, &address.key, &record);
                let leaf = HashTree::leaf_of(
                    RingId::of_key(&address.bucket, &address.key),
                    self.shard_count,
                );
                let (shard, row) = (address.shard, key.clone());
                trees.push(TreeChange { shard, row, leaf, before, after });
            }
            let mut one = Batch::new();
            if record.siblings().is_empty() {
                one.set_essential();
            }
            if record.is_absent() {
                one.delete(key);
            } else {
                one.put(key, record.encode());
            }
            queue_due(&mut one, &address, &record, &due_before);
            batch.append(one);
        }
        batch.append(self.control);
        let hints = self.hints.finish(&mut batch);
        let Self { touched: shards, emptied, damaged, mended, .. } = self;
        Finished { batch, shards, trees, emptied, damaged, mended, garbage, hints }
    }
}

/// Keeps the garbage mark of a record that has changed.
fn mark(row: &Row, batch: &mut Batch) -> Option<GarbageChange> {
    let marked = gc::is_garbage(&row.record);
    if marked == row.marked {
        return None;
    }
    let Address { shard, bucket, key } = &row.address;
    let mark = Key::Garbage { shard: *shard, bucket, key }.encode();
    let mut one = Batch::new();
    one.set_essential();
    if marked {
        one.put(mark, Bytes::new());
    } else {
        one.delete(mark);
    }
    batch.append(one);
    let (added, removed) = (u64::from(marked), u64::from(!marked));
    Some(GarbageChange { shard: *shard, added, removed, collected: 0 })
}

/// Keeps the queue of due values as the record says, in the record's own batch.
fn queue_due(batch: &mut Batch, at: &Address, record: &Record, before: &BTreeSet<u64>) {
    let after = due_times(record);
    let row = |at_ms: &u64| {
        Key::Expiry { at_ms: *at_ms, shard: at.shard, bucket: &at.bucket, key: &at.key }.encode()
    };
    before.difference(&after).for_each(|gone| batch.delete(row(gone)));
    after.iter().for_each(|due| batch.put(row(due), Bytes::new()));
}

/// The stored record of a key, the empty one if there is no row.
pub(super) fn load(store: &dyn Store, key: &[u8]) -> Result<Record, WriteError> {
    match store.get(key) {
        Ok(None) => Ok(Record::default()),
        Ok(Some(row)) => Ok(Record::decode(row).map_err(|_| Refusal::Damaged)?),
        Err(StoreError::Damaged { .. }) => Err(Refusal::Damaged.into()),
        Err(error) => Err(WriteError::Store(error)),
    }
}
