//! Since when has what been garbage? What is about to be overwritten, or not yet on all
//! members, is better left alone; and a deleted key answers repeated requests for a while.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use triad_replica::gc::{self, Garbage};
use triad_replica::record::Record;
use triad_replica::store::{Key, KeyRange, Store, StoreError};
use triad_ring::ShardId;

/// How long garbage must have been as it is.
const UNCHANGED_FOR: Duration = Duration::from_secs(5);
/// The same for a record that recognises repeated requests (design rule D11).
const REQUESTS_KEPT: Duration = Duration::from_mins(2);
/// How long what is ripe waits for what soon will be.
const TOGETHER: Duration = Duration::from_secs(25);
/// Marks looked at in one go: some more than a round takes.
const WINDOW: usize = 2 * gc::ROUND_KEYS;
/// What is noted at most, of all shards together.
const NOTED_MAX: usize = 64 * WINDOW;

/// One look at a shard's garbage.
pub(super) struct Found {
    /// Each with the time for which it must have been so.
    garbage: Vec<(Garbage, Duration)>,
    /// Where the next window begins; none when this was the last.
    next: Option<Bytes>,
}

/// What may be collected.
#[derive(Default)]
pub(super) struct Ripe {
    pub(super) garbage: Vec<Garbage>,
    /// If there is none: when to look again.
    pub(super) next_after: Duration,
}

#[derive(Default)]
pub(super) struct Notes {
    shards: BTreeMap<ShardId, Window>,
}

/// Part of a shard's garbage: since when each has been as it is.
#[derive(Default)]
struct Window {
    /// The mark behind which it begins.
    after: Option<Bytes>,
    since: BTreeMap<Garbage, Duration>,
}

/// Looks at the records of a window of marks.
pub(super) fn look(
    store: &dyn Store,
    shard: ShardId,
    after: Option<&Bytes>,
) -> Result<Found, StoreError> {
    let mut marks: Vec<Bytes> = Vec::new();
    let scanned =
        store.scan(&KeyRange::shard_garbage(shard), after.map(AsRef::as_ref), &mut |key, _| {
            marks.push(Bytes::copy_from_slice(key));
            if marks.len() < WINDOW { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
    let next = match scanned {
        Ok(()) => marks.last().filter(|_| marks.len() == WINDOW).cloned(),
        Err(StoreError::Damaged { key, .. }) => Some(key),
        Err(error) => return Err(error),
    };
    let mut garbage = Vec::with_capacity(marks.len());
    for mark in &marks {
        let Some(Key::Garbage { shard, bucket, key }) = Key::decode(mark) else {
            continue;
        };
        let row = match store.get(&Key::Record { shard, bucket, key }.encode()) {
            Ok(row) => row,
            Err(StoreError::Damaged { .. }) => continue,
            Err(error) => return Err(error),
        };
        let Some(Ok(record)) = row.map(Record::decode) else {
            continue;
        };
        if gc::is_garbage(&record) {
            let (bucket, key) = (bucket.to_owned(), Bytes::copy_from_slice(key));
            let one = Garbage { bucket, key, record: record.digest() };
            garbage.push((one, patience(&record)));
        }
    }
    Ok(Found { garbage, next })
}

impl Notes {
    /// Behind which mark to look.
    pub(super) fn cursor(&self, shard: ShardId) -> Option<Bytes> {
        self.shards.get(&shard).and_then(|window| window.after.clone())
    }

    pub(super) fn forget(&mut self, shard: ShardId) {
        self.shards.remove(&shard);
    }

    /// Takes in what a look has found. Answers what has been so for long enough; the next look
    /// is then behind it, so that what cannot be collected does not stand in the way for ever.
    pub(super) fn take(&mut self, shard: ShardId, found: Found, now: Duration) -> Ripe {
        let noted: usize = self.shards.values().map(|window| window.since.len()).sum();
        let room = noted + found.garbage.len() <= NOTED_MAX;
        let window = self.shards.entry(shard).or_default();
        let before = std::mem::take(&mut window.since);
        let mut ripe = Vec::new();
        let mut waited = Duration::ZERO;
        let mut next_after = None;
        for (garbage, patience) in found.garbage {
            let since = before.get(&garbage).copied().unwrap_or(now);
            let ripe_at = since + patience;
            if ripe_at <= now {
                waited = waited.max(now.saturating_sub(ripe_at));
                ripe.push(garbage.clone());
            } else {
                let left = ripe_at.saturating_sub(now);
                next_after = Some(next_after.map_or(left, |least: Duration| least.min(left)));
            }
            if room {
                window.since.insert(garbage, since);
            }
        }
        // One epoch change for all that was deleted together.
        let soon = next_after.is_some_and(|left| left <= UNCHANGED_FOR);
        if soon && waited < TOGETHER && ripe.len() < gc::ROUND_KEYS {
            ripe.clear();
        }
        if !ripe.is_empty() || next_after.is_none() {
            // What is ripe and could not be collected now comes again when all had their turn.
            window.after = found.next;
            window.since.retain(|garbage, _| window.after.is_none() || !ripe.contains(garbage));
        }
        Ripe { garbage: ripe, next_after: next_after.unwrap_or_default() }
    }
}

/// How long a record must have been as it is.
fn patience(record: &Record) -> Duration {
    match record.is_tombstone() {
        true if !record.requests().is_empty() => REQUESTS_KEPT,
        true => UNCHANGED_FOR,
        // A key that is written all the time is never unchanged; that it may be alike on all
        // members for a moment is worth a try.
        false => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId::new(1);

    fn garbage(key: u16) -> Garbage {
        let key = Bytes::copy_from_slice(&key.to_be_bytes());
        let record = triad_replica::record::RecordDigest([7; 16]);
        Garbage { bucket: "b".into(), key, record }
    }

    fn found(keys: impl IntoIterator<Item = u16>, next: Option<&'static [u8]>) -> Found {
        let garbage = keys.into_iter().map(|key| (garbage(key), UNCHANGED_FOR)).collect();
        Found { garbage, next: next.map(Bytes::from_static) }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(100 + seconds)
    }

    #[test]
    fn what_was_deleted_together_is_collected_together_and_nothing_waits_for_ever() {
        let mut notes = Notes::default();
        assert!(notes.take(SHARD, found([1], None), at(0)).garbage.is_empty());
        // Key 1 is ripe, key 2 soon will be.
        assert!(notes.take(SHARD, found([1, 2], None), at(5)).garbage.is_empty());
        let both = notes.take(SHARD, found([1, 2], None), at(10)).garbage;
        assert_eq!(both, [garbage(1), garbage(2)]);
        // Something new every second holds the old up only so long.
        let mut notes = Notes::default();
        let began = (0..60).find(|second| {
            let keys = 0..=*second as u16;
            !notes.take(SHARD, found(keys, None), at(*second)).garbage.is_empty()
        });
        assert_eq!(began, Some((UNCHANGED_FOR + TOGETHER).as_secs()));
    }

    #[test]
    fn what_cannot_be_collected_does_not_stand_in_the_way() {
        let mut notes = Notes::default();
        notes.take(SHARD, found(0..3, Some(b"third")), at(0));
        assert_eq!(notes.cursor(SHARD), None, "the window stays until it is ripe");
        let ripe = notes.take(SHARD, found(0..3, Some(b"third")), at(5)).garbage;
        assert_eq!(ripe.len(), 3);
        assert_eq!(notes.cursor(SHARD), Some(Bytes::from_static(b"third")));
        notes.take(SHARD, found(3..4, None), at(6));
        assert_eq!(notes.take(SHARD, found(3..4, None), at(11)).garbage, [garbage(3)]);
        assert_eq!(notes.cursor(SHARD), None, "it begins anew");
    }
}
