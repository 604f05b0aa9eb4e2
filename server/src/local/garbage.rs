//! Garbage at one store: vouching for it, pruning it, counting it (`triad_replica::gc`).
//!
//! Every record that a round could make smaller has a mark beside it, an empty row, kept by
//! the committer in the batch that writes the record. So garbage is found without looking at
//! what is none, and where there is none that costs nothing.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use triad_replica::gc::{self, GcDigest, Vouch, VouchReply, VouchRequest};
use triad_replica::refusal::Refusal;
use triad_replica::store::{Batch, Key, KeyRange, ShardRow, Store, StoreError};
use triad_ring::{ShardCount, ShardId};

use super::group::Group;
use super::operation::{Address, WriteError};

/// How many marks there are, by shard, and how many records were pruned since the start.
pub(crate) struct GarbageCounts {
    by_shard: Vec<AtomicU64>,
    collected: AtomicU64,
}

/// What one batch changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct GarbageChange {
    pub(super) shard: ShardId,
    pub(super) added: u64,
    pub(super) removed: u64,
    pub(super) collected: u64,
}

impl GarbageChange {
    /// The shard, if a round took records from it.
    pub(super) fn pruned(&self) -> Option<ShardId> {
        (self.collected > 0).then_some(self.shard)
    }
}

impl GarbageCounts {
    pub(super) fn new(shards: ShardCount) -> Self {
        let by_shard = shards.iter().map(|_| AtomicU64::new(0)).collect();
        Self { by_shard, collected: AtomicU64::new(0) }
    }

    /// Counts what earlier processes left. Until then it looks as if there were none.
    pub(super) fn load(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let scanned = store.scan(&KeyRange::garbage(), after.as_deref(), &mut |key, _| {
                if let Some(Key::Garbage { shard, .. }) = Key::decode(key) {
                    self.change(shard, 1, 0);
                }
                ControlFlow::Continue(())
            });
            match scanned {
                // A damaged mark is met again when its record changes.
                Err(StoreError::Damaged { key, .. }) => after = Some(key),
                other => return other,
            }
        }
    }

    pub(super) fn apply(&self, emptied: impl Iterator<Item = ShardId>, changes: &[GarbageChange]) {
        for shard in emptied {
            if let Some(count) = self.by_shard.get(shard.get() as usize) {
                count.store(0, Ordering::Relaxed);
            }
        }
        for change in changes {
            self.change(change.shard, change.added, change.removed);
            self.collected.fetch_add(change.collected, Ordering::Relaxed);
        }
    }

    /// Only the committer changes a count.
    fn change(&self, shard: ShardId, added: u64, removed: u64) {
        if let Some(count) = self.by_shard.get(shard.get() as usize) {
            let before = count.load(Ordering::Relaxed);
            count.store((before + added).saturating_sub(removed), Ordering::Relaxed);
        }
    }

    /// How much of a shard may be collected one day.
    pub(crate) fn of(&self, shard: ShardId) -> u64 {
        self.by_shard.get(shard.get() as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl Group<'_> {
    /// Vouches for a round's garbage: every row as it lies here, this group's writes
    /// included, and the list itself, durable together.
    pub(super) fn vouch(&mut self, request: &VouchRequest) -> Result<VouchReply, WriteError> {
        let shard = request.base.shard;
        let (may_vouch, newest) = self.ask(shard, |replica| {
            Ok((replica.may_vouch(&request.base), replica.newest().cloned()))
        })?;
        if !may_vouch || !request.is_valid() {
            return Ok(VouchReply::Refused { newest });
        }
        let lacks = gc::lacking(&request.garbage, |one| {
            let at = Address { shard, bucket: one.bucket.clone(), key: one.key.clone() };
            Ok::<_, WriteError>(self.row(&at)?.record().digest())
        })?;
        if !lacks.is_empty() {
            return Ok(VouchReply::Lacks(lacks));
        }
        let vouch = Vouch { epoch: request.base.epoch, garbage: request.garbage.clone() };
        let mut batch = Batch::new();
        batch.set_essential();
        batch.put(Key::Shard(shard, ShardRow::Vouch).encode(), vouch.encode());
        self.control(batch);
        Ok(VouchReply::Vouched(vouch.digest()))
    }

    /// The epoch of a vouch is left: prunes what it lists if that was decided, and forgets it.
    /// All in the batch that enters the next epoch: nobody ever sees one without the other.
    pub(super) fn end_round(
        &mut self,
        shard: ShardId,
        collected: Option<GcDigest>,
        batch: &mut Batch,
    ) -> Result<(), WriteError> {
        let key = Key::Shard(shard, ShardRow::Vouch).encode();
        let vouch = match self.vouched(&key) {
            Ok(None) => return Ok(()),
            Ok(Some(row)) => Vouch::decode(&row).ok(),
            // Who cannot read what it vouched for prunes nothing, which harms nobody.
            Err(StoreError::Damaged { .. }) => None,
            Err(error) => return Err(WriteError::Store(error)),
        };
        batch.delete(key);
        let vouch = vouch.filter(|vouch| collected == Some(vouch.digest()));
        let mut unchanged = Vec::new();
        for one in vouch.iter().flat_map(|vouch| &vouch.garbage) {
            let at = Address { shard, bucket: one.bucket.clone(), key: one.key.clone() };
            match self.row(&at) {
                Ok(row) if row.record().digest() == one.record => unchanged.push(at),
                Ok(_) | Err(WriteError::Refused(Refusal::Damaged)) => {}
                Err(error) => return Err(error),
            }
        }
        // Only now, when nothing can fail any more: the epoch is entered with all or nothing.
        for at in &unchanged {
            self.row(at)?.prune();
        }
        self.count_collected(shard, unchanged.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
