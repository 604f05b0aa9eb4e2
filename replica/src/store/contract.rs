//! What every engine must show: one suite of stories, run over each of them.
//!
//! A story gets an [`Environment`] that can create a store, end it in order, and crash it. It
//! asserts, so it belongs in tests; it lives here so that engines in other crates can
//! be held to it.
//!
//! ```no_run
//! # use triad_replica::store::{contract, MemoryStore};
//! # struct InMemory;
//! # impl contract::Environment for InMemory {
//! #     type Store = MemoryStore;
//! #     fn create(&mut self) -> MemoryStore { MemoryStore::new() }
//! #     fn restart(&mut self, store: MemoryStore) -> MemoryStore { store }
//! #     fn crash(&mut self, store: MemoryStore, seed: u64) -> MemoryStore { store.crash(seed) }
//! # }
//! contract::after_a_crash_a_prefix_is_left(&mut InMemory, 42, 6);
//! ```

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use triad_ring::ShardId;

use super::seed::Seeded;
use super::{Batch, CHUNK_BYTES, INLINE_BYTES_MAX, Key, KeyRange, Store, StoreError};

/// Makes, ends and crashes stores of one engine. Each `create` is a new, empty store.
pub trait Environment {
    /// The store under test.
    type Store: Store;

    /// A new, empty store.
    fn create(&mut self) -> Self::Store;

    /// Ends the process in order and starts it again on the same files.
    fn restart(&mut self, store: Self::Store) -> Self::Store;

    /// Crashes the process or the machine, and starts again on what is left. `seed`
    /// chooses among the possible outcomes, where the environment has a choice.
    fn crash(&mut self, store: Self::Store, seed: u64) -> Self::Store;
}

const FINE: &str = "the engine works";

/// Keys that the random story uses, few so that they are overwritten often.
const KEYS: usize = 40;

type Rows = BTreeMap<Bytes, Bytes>;

/// What was put is read, what was overwritten or deleted is not, and an empty value is a value.
pub fn what_is_applied_is_read(environment: &mut impl Environment) {
    let store = environment.create();
    put(&store, &record(b"a"), b"1");
    put(&store, &record(b"b"), b"");
    assert_eq!(store.get(&record(b"a")).expect(FINE), Some("1".into()));
    assert_eq!(store.get(&record(b"b")).expect(FINE), Some(Bytes::new()));
    assert_eq!(store.get(&record(b"c")).expect(FINE), None);
    put(&store, &record(b"a"), b"2");
    let mut batch = Batch::new();
    batch.delete(record(b"b"));
    batch.delete(record(b"never there"));
    batch.put(record(b"c"), "3");
    store.apply(batch).expect(FINE);
    assert_eq!(contents(&store), rows(&[(b"a", b"2"), (b"c", b"3")]));
    assert_eq!(store.stats().records, 2);
    assert_eq!(store.stats().blob_files, 0);
}

/// A scan goes through one range in key order, stops when told and resumes behind a key,
/// whether that key still exists or not.
pub fn a_scan_resumes_behind_a_key(environment: &mut impl Environment) {
    let store = environment.create();
    let key = |shard: u32, number: u16| {
        Key::Record { shard: ShardId::new(shard), bucket: "music", key: &number.to_be_bytes() }
            .encode()
    };
    for shard in [1, 2, 3] {
        let mut batch = Batch::new();
        (0..150).for_each(|number| batch.put(key(shard, number), number.to_be_bytes().to_vec()));
        store.apply(batch).expect(FINE);
    }
    let range = KeyRange::shard_records(ShardId::new(2));
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let mut page = Vec::new();
        let mut visit = |key: &[u8], _value: Bytes| {
            page.push(Bytes::copy_from_slice(key));
            if page.len() == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        store.scan(&range, after.as_deref(), &mut visit).expect(FINE);
        let Some(last) = page.last().cloned() else {
            break;
        };
        let mut removal = Batch::new();
        removal.delete(last.clone());
        store.apply(removal).expect(FINE);
        seen.extend(page);
        after = Some(last);
    }
    assert_eq!(seen, (0..150).map(|number| key(2, number)).collect::<Vec<_>>());
    let mut none = 0;
    let mut count = |_: &[u8], _: Bytes| {
        none += 1;
        ControlFlow::Continue(())
    };
    store.scan(&range, Some(&key(3, 0)), &mut count).expect(FINE);
    assert_eq!(none, 0, "behind the end of the range there is nothing");
}

/// Values of every size around the limits read back, also through a scan and after a restart, and
/// leave nothing behind when they are overwritten and deleted.
pub fn values_of_any_size_come_and_go(environment: &mut impl Environment) {
    let mut store = environment.create();
    let sizes = [
        0,
        1,
        INLINE_BYTES_MAX,
        INLINE_BYTES_MAX + 1,
        CHUNK_BYTES,
        2 * CHUNK_BYTES,
        2 * CHUNK_BYTES + 1,
        1 << 20,
    ];
    let mut seeded = Seeded::new(1);
    put(&store, &record(b"neighbour"), b"stays");
    let before = store.stats();
    for round in 0..2 {
        for (number, size) in sizes.iter().enumerate() {
            // The second round gives every key a value of another size.
            let size = if round == 0 { *size } else { sizes[sizes.len() - 1 - number] };
            let value = seeded.bytes(size);
            put(&store, &record(&[number as u8]), &value);
            assert_eq!(
                store.get(&record(&[number as u8])).expect(FINE).as_deref(),
                Some(&value[..])
            );
        }
        let seen = contents(&store);
        store.sync().expect(FINE);
        let counted = store.stats();
        store = environment.restart(store);
        assert_eq!(contents(&store), seen);
        let recounted = store.stats();
        assert_eq!(
            (recounted.live_bytes, recounted.records),
            (counted.live_bytes, counted.records)
        );
    }
    let mut batch = Batch::new();
    (0..sizes.len()).for_each(|number| batch.delete(record(&[number as u8])));
    store.apply(batch).expect(FINE);
    let after = store.stats();
    assert_eq!(
        (after.live_bytes, after.records),
        (before.live_bytes, before.records),
        "no chunk is left behind"
    );
    assert_eq!(after.blob_files, 0);
}

/// The largest record that the limits allow (50 siblings of 1 MiB) fits.
pub fn a_huge_row_works(environment: &mut impl Environment) {
    let store = environment.create();
    let value = Bytes::from(Seeded::new(2).bytes(50 << 20));
    for _ in 0..2 {
        let mut batch = Batch::new();
        batch.put(record(b"huge"), value.clone());
        store.apply(batch).expect(FINE);
        store.sync().expect(FINE);
    }
    assert!(store.get(&record(b"huge")).expect(FINE) == Some(value.clone()), "50 MiB read back");
    assert!(store.stats().live_bytes < (value.len() + (1 << 20)) as u64);
    assert_eq!(store.stats().blob_files, 0);
}

/// Many rows with the longest keys and the largest inline values do not make the engine keep files
/// outside its log.
pub fn the_largest_inline_rows_stay_in_the_log(environment: &mut impl Environment, count: u32) {
    let mut store = environment.create();
    let mut seeded = Seeded::new(3);
    let bucket = "b".repeat(128);
    for round in 0..2 {
        for number in 0..count {
            let mut name = seeded.bytes(4 << 10);
            name.splice(..4, number.to_be_bytes());
            name.splice(4..8, (round % 2_u32).to_be_bytes());
            let key = Key::Record { shard: ShardId::new(1), bucket: &bucket, key: &name }.encode();
            put(&store, &key, &seeded.bytes(INLINE_BYTES_MAX));
        }
        store.sync().expect(FINE);
        store = environment.restart(store);
    }
    assert_eq!(store.stats().records, u64::from(2 * count));
    assert_eq!(store.stats().blob_files, 0);
}

/// What was synced survives any crash.
pub fn what_is_synced_survives_a_crash(environment: &mut impl Environment) {
    for seed in 0..3 {
        let store = environment.create();
        put(&store, &record(b"small"), b"1");
        put(&store, &record(b"large"), &Seeded::new(seed).bytes(100_000));
        store.sync().expect(FINE);
        let synced = contents(&store);
        let store = environment.crash(store, seed);
        assert_eq!(contents(&store), synced);
    }
}

/// After each of several crashes in a row the state is a prefix of the applied batches that
/// holds all synced ones. The property of the contract, on a random history.
pub fn after_a_crash_a_prefix_is_left(environment: &mut impl Environment, seed: u64, crashes: u32) {
    let mut seeded = Seeded::new(seed);
    let mut store = environment.create();
    let mut state = Rows::new();
    for crash in 0..crashes {
        // The states that a crash may leave: the last synced one and all after it.
        let mut possible = vec![state];
        for _ in 0..seeded.below(60) {
            let next = random_batch(&mut seeded, &store, &possible[possible.len() - 1]);
            possible.push(next);
            if seeded.below(6) == 0 {
                store.sync().expect(FINE);
                possible.drain(..possible.len() - 1);
            }
        }
        store = environment.crash(store, seeded.next());
        state = contents(&store);
        assert!(
            possible.contains(&state),
            "seed {seed}, crash {crash}: {} rows are no prefix of the {} batches since the last sync",
            state.len(),
            possible.len() - 1
        );
    }
    assert_eq!(store.stats().records, state.len() as u64);
}

/// While a large row is rewritten, readers see one version or another, whole.
pub fn readers_never_see_two_versions_of_a_row(environment: &mut impl Environment, rewrites: u8) {
    let store = environment.create();
    let key = record(b"rewritten");
    let version = |number: u8| vec![number; 40_000 + 20_000 * usize::from(number % 4)];
    put(&store, &key, &version(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let value = store.get(&key).expect(FINE).expect("the row is never removed");
                    assert!(value == version(value[0]), "a mixture, or cut short");
                    let mut seen = 0;
                    let mut visit = |_: &[u8], value: Bytes| {
                        assert!(value == version(value[0]), "a mixture, or cut short");
                        seen += 1;
                        ControlFlow::Continue(())
                    };
                    store.scan(&KeyRange::records(), None, &mut visit).expect(FINE);
                    assert_eq!(seen, 1);
                }
            });
        }
        for number in 1..=rewrites {
            put(&store, &key, &version(number));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(store.get(&key).expect(FINE).as_deref() == Some(&version(rewrites)[..]));
}

/// A batch is seen whole or not at all by single reads of its newest and oldest row.
pub fn batches_become_visible_at_once(environment: &mut impl Environment, rounds: u32) {
    let store = environment.create();
    let keys = [record(b"first"), record(b"second")];
    let write = |round: u32| {
        let mut batch = Batch::new();
        for key in &keys {
            batch.put(key.clone(), round.to_be_bytes().to_vec());
        }
        store.apply(batch).expect(FINE);
    };
    write(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let first = store.get(&keys[0]).expect(FINE);
                let second = store.get(&keys[1]).expect(FINE);
                // Read later, so it may only be newer.
                assert!(second >= first, "half a batch: {second:?} after {first:?}");
            }
        });
        (1..=rounds).for_each(write);
        done.store(true, Ordering::Relaxed);
    });
}

/// All stories that need no parameters, in one call.
pub fn every_story(environment: &mut impl Environment) {
    what_is_applied_is_read(environment);
    a_scan_resumes_behind_a_key(environment);
    values_of_any_size_come_and_go(environment);
    the_largest_inline_rows_stay_in_the_log(environment, 100);
    what_is_synced_survives_a_crash(environment);
    readers_never_see_two_versions_of_a_row(environment, 60);
    batches_become_visible_at_once(environment, 500);
}

/// Reads everything but chunks.
pub fn contents(store: &impl Store) -> BTreeMap<Bytes, Bytes> {
    let mut rows = Rows::new();
    let mut visit = |key: &[u8], value: Bytes| {
        let new = rows.insert(Bytes::copy_from_slice(key), value).is_none();
        assert!(new, "a scan shows each row once");
        ControlFlow::Continue(())
    };
    let result: Result<(), StoreError> = store.scan(&KeyRange::all(), None, &mut visit);
    result.expect(FINE);
    rows
}

fn record(key: &[u8]) -> Bytes {
    Key::Record { shard: ShardId::new(7), bucket: "default", key }.encode()
}

fn put(store: &impl Store, key: &Bytes, value: &[u8]) {
    let mut batch = Batch::new();
    batch.put(key.clone(), Bytes::copy_from_slice(value));
    store.apply(batch).expect(FINE);
}

fn rows(pairs: &[(&[u8], &[u8])]) -> Rows {
    pairs.iter().map(|(key, value)| (record(key), Bytes::copy_from_slice(value))).collect()
}

/// Applies one random batch and answers the state after it.
fn random_batch(seeded: &mut Seeded, store: &impl Store, before: &Rows) -> Rows {
    let (mut batch, mut after) = (Batch::new(), before.clone());
    for _ in 0..=seeded.below(8) {
        let key = record(format!("key-{}", seeded.below(KEYS)).as_bytes());
        if seeded.below(4) == 0 {
            batch.delete(key.clone());
            after.remove(&key);
        } else {
            let size =
                if seeded.below(10) == 0 { seeded.below(80_000) } else { seeded.below(2_000) };
            let value = Bytes::from(seeded.bytes(size));
            batch.put(key.clone(), value.clone());
            after.insert(key, value);
        }
    }
    store.apply(batch).expect(FINE);
    after
}
