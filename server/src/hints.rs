//! The hints of this node: shared by those who write them, the handoff that delivers them, and
//! whoever asks what is left.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{error, info, warn};
use triad_proto::v1;
use triad_replica::address::Address;
use triad_replica::hint::{
    HeldEntry, HeldRecord, HintBook, HintLimits, HintTotals, Noted, decode_courtesy, decode_floor,
    encode_courtesy,
};
use triad_replica::member::Member;
use triad_replica::store::{Batch, Key, KeyRange, Store, StoreError};

use triad_ring::NodeId;

use crate::book::{CAPACITY, Contact};
use crate::config::Config;
use crate::local::LocalReplica;

/// Hints of each kind at most: their index is in memory, some 200 bytes each and the key.
const COUNT_MAX: usize = 100_000;
/// Writes whose last answers are followed at once.
const FOLLOWED_MAX: usize = 16_384;

/// The hints of one node.
#[derive(Debug)]
pub(crate) struct Hints {
    book: Mutex<HintBook>,
    following: Arc<Semaphore>,
    dropped: AtomicU64,
    lost: AtomicU64,
    /// How many records other nodes held when they last said so; those that hold any. As many at
    /// most as there are contacts.
    told: Mutex<BTreeMap<NodeId, u64>>,
}

impl Hints {
    /// What the store holds from earlier starts. A row that cannot be read is left out.
    pub(crate) fn load(store: &dyn Store, config: &Config) -> Result<Self, StoreError> {
        let age_ms = u64::try_from(config.storage.hint_age.as_millis()).unwrap_or(u64::MAX);
        let limits = HintLimits { bytes: config.storage.hint_bytes, count: COUNT_MAX, age_ms };
        let mut book = HintBook::new(limits);
        let mut after = None;
        let mut lost = 0;
        loop {
            let scanned = store.scan(&KeyRange::hints(), after.as_deref(), &mut |key, row| {
                load_row(&mut book, key, row);
                ControlFlow::Continue(())
            });
            match scanned {
                Ok(()) => break,
                Err(StoreError::Damaged { key, .. }) => {
                    lost += u64::from(matches!(Key::decode(&key), Some(Key::Held { .. })));
                    error!(row = ?Key::decode(&key), "the row of a hint is damaged and left out");
                    after = Some(key);
                }
                Err(error) => return Err(error),
            }
        }
        let HintTotals { courtesy, held, bytes } = book.totals();
        if courtesy + held > 0 {
            info!(courtesy, held, bytes, "hints of an earlier start are to be delivered");
        }
        Ok(Self {
            book: Mutex::new(book),
            following: Arc::new(Semaphore::new(FOLLOWED_MAX)),
            dropped: AtomicU64::new(0),
            lost: AtomicU64::new(lost),
            told: Mutex::default(),
        })
    }

    /// Looks into the book or changes it. Never held across an await.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut HintBook) -> T) -> T {
        change(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A place among the writes whose last answers are followed; none when there are too many.
    pub(crate) fn follow(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.following).try_acquire_owned().ok()
    }

    /// Notes that `members` may lack what this store has of a key. One that finds no room is
    /// dropped: these hints count for nothing.
    pub(crate) async fn note(
        &self,
        local: &LocalReplica,
        at: &Address,
        members: &[Member],
        now_ms: u64,
    ) {
        let row = encode_courtesy(now_ms);
        let mut batch = Batch::new();
        let mut noted = Vec::new();
        for member in members {
            let key = courtesy_key(*member, at);
            let bytes = (key.len() + row.len()) as u64;
            match self.with(|book| book.note(*member, at, bytes, now_ms)) {
                Noted::New => {
                    batch.put(key, row.clone());
                    noted.push(*member);
                }
                Noted::Known => {}
                Noted::Full => self.dropped(1),
            }
        }
        if !batch.is_empty() && local.hint_rows(batch).await.is_err() {
            for member in noted {
                self.with(|book| book.drop_courtesy(member, at));
                self.dropped(1);
            }
        }
    }

    /// Counts courtesy hints that were given up.
    pub(crate) fn dropped(&self, hints: u64) {
        let before = self.dropped.fetch_add(hints, Ordering::Relaxed);
        if before == 0 && hints > 0 {
            warn!(
                "courtesy hints are dropped, by age or for want of space: anti-entropy brings what they would have brought"
            );
        }
    }

    /// A record that was counted as acknowledged here cannot be delivered.
    pub(crate) fn lost(&self, at: &Address, why: &str) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        let key = String::from_utf8_lossy(&at.key);
        error!(
            shard = %at.shard, bucket = %at.bucket, key = %key, why,
            "a held record is LOST: a write to this key may have been acknowledged with this copy"
        );
    }

    /// This node was removed from the cluster: what it holds will be brought to nobody.
    pub(crate) fn abandon(&self) {
        let held = self.with(|book| book.totals()).held;
        if held > 0 {
            self.lost.fetch_add(held, Ordering::Relaxed);
            error!(
                held,
                "held records are LOST: their node was removed before it could deliver them"
            );
        }
    }

    /// Another node has told how many records it holds.
    pub(crate) fn heard(&self, from: NodeId, held: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if held == 0 {
            told.remove(&from);
        } else if told.len() < CAPACITY || told.contains_key(&from) {
            told.insert(from, held);
        }
    }

    /// How many records others held when they last said so; none of those that held nothing.
    pub(crate) fn told(&self) -> BTreeMap<NodeId, u64> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A node was removed that held so many records when it last said so: they will be brought to
    /// nobody. Where it was removed, they are counted.
    pub(crate) fn lost_with(&self, removed: &Contact, held: u64) {
        self.heard(removed.node, 0);
        self.lost.fetch_add(held, Ordering::Relaxed);
        error!(
            node = %removed.name, held,
            "held records are LOST: the node that held them for others was removed while it was down"
        );
    }

    /// For the status of the node.
    pub(crate) fn counts(&self) -> v1::HintCounts {
        let HintTotals { courtesy, held, bytes } = self.with(|book| book.totals());
        let lost = self.lost.load(Ordering::Relaxed);
        v1::HintCounts { pending: courtesy + held, bytes, acknowledging: held, lost }
    }
}

fn load_row(book: &mut HintBook, key: &[u8], row: bytes::Bytes) {
    let bytes = (key.len() + row.len()) as u64;
    let address = |shard, bucket: &str, key: &[u8]| Address {
        shard,
        bucket: bucket.to_owned(),
        key: bytes::Bytes::copy_from_slice(key),
    };
    match Key::decode(key) {
        Some(Key::Courtesy { target, shard, bucket, key }) => {
            // With a smaller limit than before, what finds no room stays in the store until the
            // next start that has room, or until its key is noted again.
            if let Ok(since_ms) = decode_courtesy(&row) {
                book.note(target, &address(shard, bucket, key), bytes, since_ms);
            }
        }
        Some(Key::Held { shard, bucket, key }) => match HeldRecord::decode(row) {
            // What was acknowledged is kept, whatever the limits are now.
            Ok(held) => {
                let entry = HeldEntry { bytes, stamp: held.stamp, actor: None };
                book.hold(address(shard, bucket, key), entry);
            }
            Err(why) => error!(shard = %shard, bucket, %why, "a held record cannot be read"),
        },
        Some(Key::HintFloor(shard)) => {
            if let Ok(floor) = decode_floor(&row) {
                book.raise_floor(shard, floor);
            }
        }
        _ => {}
    }
}

/// The stored key of a courtesy hint.
pub(crate) fn courtesy_key(target: Member, at: &Address) -> bytes::Bytes {
    Key::Courtesy { target, shard: at.shard, bucket: &at.bucket, key: &at.key }.encode()
}

#[cfg(test)]
mod tests {
    use triad_replica::store::MemoryStore;

    use super::*;
    use crate::book::NodeState;
    use crate::book::tests::contact;

    #[test]
    fn what_a_removed_node_held_when_it_last_said_so_is_counted_as_lost_once() {
        let hints = Hints::load(&MemoryStore::new(), &Config::default()).unwrap();
        let (gone, emptied) = (contact(1, 1, NodeState::Active), contact(2, 1, NodeState::Active));
        hints.heard(gone.node, 2);
        hints.heard(gone.node, 3);
        hints.heard(emptied.node, 5);
        hints.heard(emptied.node, 0);
        assert_eq!(hints.told(), BTreeMap::from([(gone.node, 3)]));
        assert_eq!(hints.counts().lost, 0, "it may still bring it home");
        hints.lost_with(&gone, 3);
        assert_eq!(hints.counts().lost, 3);
        assert_eq!(hints.told(), BTreeMap::new());
    }
}
