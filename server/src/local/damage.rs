//! Rows of this store that are known to be damaged.
//!
//! Whoever meets one reports it here: reads, the committer, scans for trees and pages. It is refused,
//! never served and never counted, until [`crate::background::mender_task`] has read the key from other
//! replicas and the committer has replaced the row. Damage that cannot be mended so, and too much
//! of it, makes the whole store one that must not be trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{error, info};
use triad_replica::address::Address;
use triad_replica::store::{Key, StoreError};
use triad_ring::{RingId, ShardCount, ShardId};

use crate::data_dir::LossReason;

/// More damaged rows at once than this, and the store is not worth mending row by row.
const ROWS_MAX: usize = 1_000;
/// Shards that the alarm names.
const NAMED: usize = 8;
/// How long to wait before a row is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// What is known of one store's damage.
pub(crate) struct Damage {
    shards: ShardCount,
    known: Mutex<Known>,
    news: Notify,
}

#[derive(Default)]
struct Known {
    rows: BTreeMap<Bytes, DamagedRow>,
    hopeless: Option<(LossReason, String)>,
}

struct DamagedRow {
    at: Address,
    found: Instant,
    next: Instant,
}

impl Damage {
    pub(super) fn new(shards: ShardCount) -> Self {
        Self { shards, known: Mutex::default(), news: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record's row turned out to be damaged.
    pub(crate) fn found(&self, row: &[u8]) {
        let Some(at) = self.address(row) else {
            let why = "a damaged row cannot be attributed to a key".to_owned();
            return self.give_up(LossReason::Damaged, why);
        };
        let (shard, position) = (at.shard, position(&at));
        let now = Instant::now();
        let mut known = self.lock();
        if known.hopeless.is_some() || known.rows.contains_key(row) {
            return;
        }
        error!(%shard, key = %position, "a stored row is DAMAGED: it is not served until other replicas have mended it");
        known.rows.insert(Bytes::copy_from_slice(row), DamagedRow { at, found: now, next: now });
        let rows = known.rows.len();
        drop(known);
        if rows > ROWS_MAX {
            let why = format!("more than {ROWS_MAX} of its rows are damaged");
            return self.give_up(LossReason::Damaged, why);
        }
        self.news.notify_one();
    }

    /// The store could not be read at all at some place.
    pub(crate) fn unreadable(&self, error: &StoreError) {
        match error {
            StoreError::Engine(why) => self.give_up(LossReason::Unreadable, why.clone()),
            StoreError::Damaged { key, .. } => self.found(key),
            // One that ends the process by itself, or no damage.
            StoreError::Poisoned { .. } | StoreError::NoSpace { .. } => {}
        }
    }

    /// The store cannot be trusted any more.
    pub(crate) fn give_up(&self, reason: LossReason, why: String) {
        self.lock().hopeless.get_or_insert((reason, why));
        self.news.notify_one();
    }

    /// Why the store cannot be trusted any more, if so.
    pub(crate) fn hopeless(&self) -> Option<(LossReason, String)> {
        self.lock().hopeless.clone()
    }

    /// The row is whole again, or gone.
    pub(super) fn mended(&self, row: &[u8]) {
        if let Some(row) = self.lock().rows.remove(row) {
            info!(shard = %row.at.shard, key = %position(&row.at), "a damaged row is mended");
        }
    }

    /// All records of the shard are forgotten, the damaged ones, too.
    pub(super) fn forget(&self, shard: ShardId) {
        self.lock().rows.retain(|_, row| row.at.shard != shard);
    }

    /// Rows to be mended now, so many at most: known for at least `settled`, and not tried just before.
    pub(crate) fn due(&self, settled: Duration, most: usize) -> Vec<Address> {
        let now = Instant::now();
        let mut known = self.lock();
        let due = |row: &&mut DamagedRow| now >= row.found + settled && now >= row.next;
        let due = known.rows.values_mut().filter(due).take(most);
        due.map(|row| {
            row.next = now + RETRY;
            row.at.clone()
        })
        .collect()
    }

    /// For the alarm: how many rows, and where. None when nothing is damaged.
    pub(crate) fn detail(&self) -> Option<String> {
        let known = self.lock();
        let shards: BTreeSet<u32> = known.rows.values().map(|row| row.at.shard.get()).collect();
        let mut detail = match known.rows.len() {
            0 => return None,
            1 => "1 stored row is damaged, in shard".to_owned(),
            rows => format!("{rows} stored rows are damaged, in shards"),
        };
        for shard in shards.iter().take(NAMED) {
            let _ = write!(detail, " {shard}");
        }
        if shards.len() > NAMED {
            let _ = write!(detail, " and {} more", shards.len() - NAMED);
        }
        Some(detail)
    }

    /// Waits until there is something new.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Whose row it is; none when its key cannot be what was written.
    fn address(&self, row: &[u8]) -> Option<Address> {
        let Some(Key::Record { shard, bucket, key }) = Key::decode(row) else {
            return None;
        };
        if self.shards.shard_of(RingId::of_key(bucket, key)) != shard {
            return None;
        }
        Some(Address { shard, bucket: bucket.to_owned(), key: Bytes::copy_from_slice(key) })
    }
}

/// The key's place on the ring: names it in logs without telling it.
pub(crate) fn position(at: &Address) -> RingId {
    RingId::of_key(&at.bucket, &at.key)
}
