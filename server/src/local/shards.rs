//! The shards of this store, as readers see them and as the committer changes them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use triad_replica::configuration::Epoch;
use triad_replica::refusal::Refusal;
use triad_replica::shard::{Access, ShardReplica};
use triad_replica::start::Witnesses;
use triad_ring::ShardId;

/// All shards of one store. Only the committer writes; a reader holds a lock for a few
/// comparisons and never across an await.
pub(crate) struct Shards {
    table: Vec<Slot>,
}

struct Slot {
    replica: RwLock<ShardReplica>,
    /// Rows of the shard are about to go with its epoch: no read of that epoch is answered.
    closed: AtomicBool,
}

impl Slot {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

impl Shards {
    /// The table, indexed by shard.
    pub(crate) fn new(replicas: Vec<ShardReplica>) -> Self {
        let slot = |replica| Slot { replica: RwLock::new(replica), closed: AtomicBool::new(false) };
        Self { table: replicas.into_iter().map(slot).collect() }
    }

    /// Looks at one shard. None for a number beyond the cluster's shards.
    pub(crate) fn look<T>(
        &self,
        shard: ShardId,
        look: impl FnOnce(&ShardReplica) -> T,
    ) -> Option<T> {
        let slot = self.table.get(shard.get() as usize)?;
        Some(look(&slot.replica.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Whether a read of `shard` at `epoch` may be answered here now.
    pub(crate) fn may_read(&self, shard: ShardId, epoch: Epoch) -> Result<(), Refusal> {
        let closed = |replica: &ShardReplica| {
            let slot = self.table.get(shard.get() as usize);
            let newest = replica.newest().filter(|_| slot.is_some_and(Slot::is_closed));
            newest.map_or(Ok(()), |newest| Err(Refusal::StaleEpoch { newest: newest.clone() }))
        };
        self.look(shard, |replica| {
            replica.check(Access::Read, epoch).and_then(|()| closed(replica))
        })
        .unwrap_or(Err(Refusal::NotMember { newest: None }))
    }

    /// Answers no more reads of these shards until their next state is installed, or they are
    /// opened again. Rows that go together with an epoch must not be missed in that epoch:
    /// a reader that finds them gone finds, looking again, the shard closed or the epoch over.
    pub(super) fn close(&self, shards: &[ShardId], closed: bool) {
        for shard in shards {
            if let Some(slot) = self.table.get(shard.get() as usize) {
                slot.closed.store(closed, Ordering::SeqCst);
            }
        }
    }

    /// Puts in what the committer made of some shards.
    pub(super) fn install(&self, touched: BTreeMap<ShardId, ShardReplica>) {
        for (shard, replica) in touched {
            if let Some(slot) = self.table.get(shard.get() as usize) {
                *slot.replica.write().unwrap_or_else(PoisonError::into_inner) = replica;
            }
        }
    }

    /// Tells all shards who has recorded this start of the store. Between groups, for a group works on
    /// copies.
    pub(super) fn witnessed_by(&self, witnesses: &Witnesses) {
        for slot in &self.table {
            let mut replica = slot.replica.write().unwrap_or_else(PoisonError::into_inner);
            replica.witnessed_by(witnesses.clone());
        }
    }

    /// All shards, one after the other.
    pub(crate) fn each(&self, mut look: impl FnMut(&ShardReplica)) {
        for slot in &self.table {
            look(&slot.replica.read().unwrap_or_else(PoisonError::into_inner));
        }
    }
}
