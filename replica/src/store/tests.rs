//! The contract over [`MemoryStore`], and what happens when something breaks.

use std::ops::ControlFlow;

use bytes::Bytes;
use proptest::prelude::*;
use triad_ring::ShardId;

use super::contract::{self, Environment, contents};
use super::memory::Fault;
use super::*;

struct InMemory;

impl Environment for InMemory {
    type Store = MemoryStore;

    fn create(&mut self) -> MemoryStore {
        MemoryStore::new()
    }

    fn restart(&mut self, store: MemoryStore) -> MemoryStore {
        store.sync().expect("a store ends with a sync");
        store.crash(0)
    }

    fn crash(&mut self, store: MemoryStore, seed: u64) -> MemoryStore {
        store.crash(seed)
    }
}

fn record(key: &str) -> Bytes {
    Key::Record { shard: ShardId::new(1), bucket: "default", key: key.as_bytes() }.encode()
}

fn put(key: &str, value: impl Into<Bytes>) -> Batch {
    let mut batch = Batch::new();
    batch.put(record(key), value);
    batch
}

fn is_damaged(result: &Result<Option<Bytes>, StoreError>, key: &str) -> bool {
    matches!(result, Err(StoreError::Damaged { key: damaged, .. }) if *damaged == record(key))
}

#[test]
fn memory_keeps_the_contract() {
    contract::every_story(&mut InMemory);
}

#[test]
fn the_largest_record_fits() {
    contract::a_huge_row_works(&mut InMemory);
}

#[test]
fn a_torn_batch_is_noticed_by_the_contract() {
    struct Torn;
    impl Environment for Torn {
        type Store = MemoryStore;
        fn create(&mut self) -> MemoryStore {
            MemoryStore::new()
        }
        fn restart(&mut self, store: MemoryStore) -> MemoryStore {
            store
        }
        fn crash(&mut self, store: MemoryStore, seed: u64) -> MemoryStore {
            store.inject(Fault::TornCrash);
            store.crash(seed)
        }
    }
    let noticed = (0..20)
        .filter(|seed| {
            std::panic::catch_unwind(|| {
                contract::after_a_crash_a_prefix_is_left(&mut Torn, *seed, 4);
            })
            .is_err()
        })
        .count();
    assert!(noticed > 5, "a checker that never fails checks nothing: {noticed} of 20");
}

#[test]
fn crashes_with_different_seeds_keep_different_prefixes() {
    let kept: std::collections::BTreeSet<u64> = (0..50)
        .map(|seed| {
            let store = MemoryStore::new();
            (0..5).for_each(|i| store.apply(put(&format!("k{i}"), "v")).unwrap());
            assert_eq!(store.unsynced(), 5);
            store.crash(seed).stats().records
        })
        .collect();
    assert_eq!(kept.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_handle_on_a_crashed_store_is_dead() {
    let store = MemoryStore::new();
    let after = store.crash(1);
    assert!(store.apply(put("a", "1")).is_err() && store.get(&record("a")).is_err());
    assert!(after.apply(put("a", "1")).is_ok());
}

#[test]
fn a_failed_sync_poisons_the_store_for_ever() {
    let store = MemoryStore::new();
    store.inject(Fault::Sync { skip: 1 });
    store.apply(put("a", "1")).unwrap();
    store.sync().unwrap();
    store.apply(put("b", "2")).unwrap();
    let first = store.sync().unwrap_err();
    assert!(
        matches!(&first, StoreError::Poisoned { why } if why.contains("sync failed")),
        "{first}"
    );
    assert_eq!(store.sync(), Err(first.clone()), "the fault is over, the poison stays");
    assert_eq!(store.apply(put("c", "3")), Err(first));
    assert_eq!(store.get(&record("a")), Ok(Some("1".into())), "reading is allowed");
    let kept = store.crash(3);
    assert_eq!(kept.get(&record("a")), Ok(Some("1".into())));
}

#[test]
fn a_failed_write_poisons_and_a_refused_one_does_not() {
    let broken = MemoryStore::new();
    broken.inject(Fault::Apply { skip: 0 });
    assert!(matches!(broken.apply(put("a", "1")), Err(StoreError::Poisoned { .. })));
    assert!(matches!(broken.sync(), Err(StoreError::Poisoned { .. })));

    let small = MemoryStore::new();
    small.set_capacity(1_000);
    // Six times 300 bytes are over the capacity: refused in time, nothing has failed.
    assert!(matches!(small.apply(put("a", vec![0; 300])), Err(StoreError::NoSpace { .. })));
    small.apply(put("a", vec![0; 100])).unwrap();
    small.sync().unwrap();
}

#[test]
fn a_full_store_still_deletes_and_overwrites() {
    let store = MemoryStore::with_rule(SpaceRule { quota: Some(10 << 20), ..SpaceRule::default() });
    let mut written = 0;
    let refused = loop {
        match store.apply(put(&format!("k{written}"), vec![7; 100_000])) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1_000);
    };
    assert!(
        matches!(&refused, StoreError::NoSpace { why } if why.contains("10485760")),
        "{refused}"
    );
    assert_eq!(written, 9, "(10 MiB - 10 %) / 10 / 100 kB");
    assert_eq!(store.stats().records, 9, "the refused batch left nothing");
    assert!(store.stats().full.is_some_and(|why| why.contains("no space")), "and it shows");
    store.apply(put("k0", vec![8; 100_000])).expect("the same size again is no growth");
    let mut tombstone = put("new", "a tombstone may use the reserve");
    tombstone.set_essential();
    store.apply(tombstone).unwrap();
    let mut deletion = Batch::new();
    (0..3).for_each(|i| deletion.delete(record(&format!("k{i}"))));
    store.apply(deletion).unwrap();
    assert_eq!(store.stats().full, None, "what was refused would pass");
    store.apply(put("again", vec![7; 100_000])).expect("there is room again");
    store.sync().unwrap();
}

#[test]
fn a_damaged_row_is_never_absent_and_hides_no_other() {
    let store = MemoryStore::new();
    for key in ["a", "b", "c"] {
        store.apply(put(key, key.to_owned())).unwrap();
    }
    assert!(store.flip_bit(&record("b"), 11));
    assert!(is_damaged(&store.get(&record("b")), "b"));
    let (mut seen, mut damaged) = (Vec::new(), Vec::new());
    let mut after: Option<Bytes> = None;
    loop {
        let mut visit = |_: &[u8], value: Bytes| {
            seen.push(value);
            ControlFlow::Continue(())
        };
        match store.scan(&KeyRange::records(), after.as_deref(), &mut visit) {
            Ok(()) => break,
            Err(StoreError::Damaged { key, .. }) => {
                damaged.push(key.clone());
                after = Some(key);
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(seen, ["a", "c"]);
    assert_eq!(damaged, [record("b")]);
    store.apply(put("b", "repaired")).unwrap();
    assert_eq!(store.get(&record("b")), Ok(Some("repaired".into())));
}

#[test]
fn a_lost_or_damaged_chunk_damages_its_row() {
    for seed in 0..40 {
        let store = MemoryStore::new();
        store.apply(put("large", vec![5; 60_000])).unwrap();
        store.flip_any_bit(seed).unwrap();
        assert!(is_damaged(&store.get(&record("large")), "large"), "seed {seed}");
    }
    let store = MemoryStore::new();
    store.apply(put("large", vec![5; 60_000])).unwrap();
    let mut theft = Batch::new();
    theft.delete(Key::Chunk { generation: 1, number: 2 }.encode());
    store.apply(theft).unwrap();
    assert!(is_damaged(&store.get(&record("large")), "large"));
}

#[test]
fn chunks_of_an_overwritten_damaged_head_are_swept_at_the_next_opening() {
    let store = MemoryStore::new();
    store.apply(put("large", vec![5; 60_000])).unwrap();
    assert!(store.flip_bit(&record("large"), 5));
    store.apply(put("large", "small again")).unwrap();
    store.sync().unwrap();
    assert!(store.stats().live_bytes > 60_000, "nobody knows whose the chunks are");
    let store = store.crash(0);
    assert!(store.stats().live_bytes < 100);
    assert_eq!(contents(&store).len(), 1);
}

#[test]
fn a_failed_read_is_an_error_not_an_absence() {
    let store = MemoryStore::new();
    store.apply(put("a", "1")).unwrap();
    store.inject(Fault::Read { skip: 0 });
    assert!(matches!(store.get(&record("a")), Err(StoreError::Engine(_))));
    assert_eq!(store.get(&record("a")), Ok(Some("1".into())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn after_crashes_a_prefix_is_left(seed in any::<u64>()) {
        contract::after_a_crash_a_prefix_is_left(&mut InMemory, seed, 4);
    }
}
