//! The contract over sled, and the accidents it is known for.
//!
//! A crash here is a SIGKILL: sled's files are copied as they lie in the page cache, while the
//! store is open and quiet. What a power cut leaves is the matter of the power-cut tool
//! (`tests/powercut`).

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::TempDir;
use triad_replica::store::contract::{self, Environment, contents};
use triad_replica::store::{Batch, Key, MetaRow, Store};

use super::*;

/// Stores in numbered directories under one temporary one.
struct OnDisk {
    root: TempDir,
    stores: u32,
}

impl OnDisk {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), stores: 0 }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join(format!("store-{}", self.stores))
    }

    fn open(&self) -> SledStore {
        SledStore::open(&self.dir(), &quiet()).unwrap()
    }
}

/// Without background writing, so that copied files are of one moment.
fn quiet() -> SledOptions {
    SledOptions { flush_every: None, ..SledOptions::default() }
}

/// Copies a directory with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Environment for OnDisk {
    type Store = SledStore;

    fn create(&mut self) -> SledStore {
        self.stores += 1;
        self.open()
    }

    fn restart(&mut self, store: SledStore) -> SledStore {
        drop(store);
        self.open()
    }

    fn crash(&mut self, store: SledStore, _seed: u64) -> SledStore {
        let before = self.dir();
        self.stores += 1;
        copy(&before, &self.dir());
        drop(store);
        fs::remove_dir_all(before).unwrap();
        self.open()
    }
}

fn key() -> Bytes {
    Key::Meta(MetaRow::Cluster).encode()
}

fn record(number: u32) -> Bytes {
    Key::Record {
        shard: triad_ring::ShardId::new(1),
        bucket: "default",
        key: &number.to_be_bytes(),
    }
    .encode()
}

fn put(value: &'static str) -> Batch {
    let mut batch = Batch::new();
    batch.put(key(), value);
    batch
}

/// A synced store with some rows, closed.
fn closed_store() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let store = SledStore::open(&dir, &SledOptions::default()).unwrap();
    for number in 0..200_u32 {
        let mut batch = Batch::new();
        batch.put(record(number), vec![number as u8; 3_000]);
        store.apply(batch).unwrap();
    }
    store.sync().unwrap();
    drop(store);
    (root, dir)
}

#[test]
fn sled_keeps_the_contract() {
    contract::every_story(&mut OnDisk::new());
}

#[test]
fn after_crashes_a_prefix_is_left() {
    for seed in 0..4 {
        contract::after_a_crash_a_prefix_is_left(&mut OnDisk::new(), seed, 4);
    }
}

#[test]
fn the_largest_record_fits() {
    contract::a_huge_row_works(&mut OnDisk::new());
}

#[test]
fn what_was_visible_before_a_kill_is_durable_after_opening() {
    let mut disk = OnDisk::new();
    let store = disk.create();
    store.apply(put("written, never synced")).unwrap();
    let seen = contents(&disk.crash(store, 0));
    assert_eq!(contents(&disk.open()), seen);
}

#[test]
fn an_unfinished_snapshot_does_not_keep_the_store_shut() {
    let (_root, dir) = closed_store();
    fs::write(dir.join("snap.00000000000000FF.generating"), b"half a snap").unwrap();
    fs::write(dir.join("snap.0000000000000100.generating"), b"").unwrap();
    let store = SledStore::open(&dir, &SledOptions::default()).unwrap();
    assert_eq!(store.stats().records, 200);
}

/// A store of several starts, 3 x 500 rows of 3 kB, closed.
fn store_of_three_starts(dir: &Path) {
    for start in 0..3_u32 {
        let store = SledStore::open(dir, &SledOptions::default()).unwrap();
        for number in start * 500..(start + 1) * 500 {
            let mut batch = Batch::new();
            batch.put(record(number), number.to_be_bytes().repeat(750));
            store.apply(batch).unwrap();
        }
        store.sync().unwrap();
    }
}

/// Opens a damaged copy of a store of three starts: it is lost (true), or shows all that was synced.
fn is_lost(broken: &Path, what: &str) -> bool {
    match SledStore::open(broken, &SledOptions::default()) {
        Ok(store) => {
            assert_eq!(store.stats().records, 1_500, "{what}: an earlier state");
            for number in 0..1_500 {
                let value = store.get(&record(number)).unwrap().expect("no hole");
                assert!(value == number.to_be_bytes().repeat(750), "{what}");
            }
            false
        }
        Err(OpenStoreError::Lost { .. }) => true,
        Err(other) => panic!("{what}: {other}"),
    }
}

/// sled takes damage in its log for the end that a crash has torn. The mark of the last sync tells
/// the two apart.
#[test]
fn damage_in_the_log_is_noticed_or_hits_nothing_and_never_shows_an_earlier_state() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    store_of_three_starts(&dir);
    let (mut lost, mut rolled_back) = (0, 0);
    for part in 0..24 {
        let broken = dir.with_file_name(format!("broken-{part}"));
        copy(&dir, &broken);
        let mut data = fs::read(broken.join("db")).unwrap();
        let at = data.len() / 24 * part + 100;
        // A torn page, or a single bit.
        if part % 2 == 0 {
            data[at..at + 512].fill(0xa5);
        } else {
            data[at] ^= 1;
        }
        fs::write(broken.join("db"), data).unwrap();
        let unmarked = dir.with_file_name(format!("unmarked-{part}"));
        copy(&broken, &unmarked);
        fs::remove_file(unmarked.join(mark::FILE)).unwrap();
        lost += u32::from(is_lost(&broken, &format!("part {part}")));
        if let Ok(store) = SledStore::open(&unmarked, &SledOptions::default()) {
            rolled_back += u32::from(store.stats().records < 1_500);
        }
        fs::remove_dir_all(broken).unwrap();
        fs::remove_dir_all(unmarked).unwrap();
    }
    assert!(
        lost > 0 && rolled_back > 0,
        "lost {lost}, of which without the mark {rolled_back} not"
    );
}

#[test]
fn files_of_an_earlier_state_are_a_lost_store() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let early = root.path().join("early");
    let store = SledStore::open(&dir, &quiet()).unwrap();
    store.apply(put("early")).unwrap();
    store.sync().unwrap();
    copy(&dir, &early);
    store.apply(put("late")).unwrap();
    store.sync().unwrap();
    drop(store);
    // As a restore of the large files alone would.
    fs::copy(dir.join(mark::FILE), early.join(mark::FILE)).unwrap();
    let error = SledStore::open(&early, &quiet()).err().unwrap();
    assert!(matches!(&error, OpenStoreError::Lost { why, .. } if why.contains("syncs")), "{error}");
    assert_eq!(SledStore::open(&dir, &quiet()).unwrap().get(&key()).unwrap(), Some("late".into()));
}

#[test]
fn a_damaged_mark_condemns_nothing() {
    let (_root, dir) = closed_store();
    for garbage in [&b""[..], b"triad-synced-1 99999999999999999999 00000000\n", &[0xff; 64]] {
        fs::write(dir.join(mark::FILE), garbage).unwrap();
        assert_eq!(SledStore::open(&dir, &SledOptions::default()).unwrap().stats().records, 200);
    }
}

#[test]
fn a_damaged_snapshot_is_a_lost_store() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    store_of_three_starts(&dir);
    let snapshot = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap."))
        .expect("sled writes a snapshot when it opens after much log");
    let mut bytes = fs::read(&snapshot).unwrap();
    bytes[10] ^= 1;
    fs::write(&snapshot, bytes).unwrap();
    let error = SledStore::open(&dir, &SledOptions::default()).err().unwrap();
    assert!(matches!(error, OpenStoreError::Lost { .. }), "{error}");
}

#[test]
fn files_of_another_segment_size_are_not_given_up() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    drop(sled::Config::new().path(&dir).segment_size(1 << 20).open().unwrap());
    let error = SledStore::open(&dir, &SledOptions::default()).err().unwrap();
    assert!(
        matches!(&error, OpenStoreError::Unavailable { why, .. } if why.contains("buffer size")),
        "{error}"
    );
    // The same words from a settings file that is itself damaged prove nothing.
    let mut conf = fs::read(dir.join("conf")).unwrap();
    *conf.last_mut().unwrap() ^= 1;
    fs::write(dir.join("conf"), conf).unwrap();
    let error = SledStore::open(&dir, &SledOptions::default()).err().unwrap();
    assert!(matches!(error, OpenStoreError::Lost { .. }), "{error}");
}

#[test]
fn a_small_quota_refuses_growth_and_says_why() {
    let root = tempfile::tempdir().unwrap();
    let space = SpaceRule { quota: Some(32 << 20), ..SpaceRule::default() };
    let options = SledOptions { space, ..SledOptions::default() };
    let store = SledStore::open(&root.path().join("store"), &options).unwrap();
    let mut batch = Batch::new();
    batch.put(key(), vec![0; 2 << 20]);
    let error = store.apply(batch).unwrap_err();
    assert!(matches!(&error, StoreError::NoSpace { why } if why.contains("33554432")), "{error}");
    store.apply(put("small")).unwrap();
    store.sync().unwrap();
    assert_eq!(store.get(&key()).unwrap(), Some("small".into()));
    let stats = store.stats();
    assert!(stats.disk_bytes > 0 && stats.free_bytes < u64::MAX);
}

#[test]
fn long_overwriting_keeps_the_log_without_blobs() {
    let root = tempfile::tempdir().unwrap();
    let store = SledStore::open(&root.path().join("store"), &SledOptions::default()).unwrap();
    for round in 0..30_u8 {
        let mut batch = Batch::new();
        for number in 0..40_u8 {
            let shard = triad_ring::ShardId::new(u32::from(number));
            let key = Key::Record { shard, bucket: "music", key: &[number; 4_096] };
            // From tiny to several chunks.
            batch.put(key.encode(), vec![round; 1 << (10 + (round + number) % 7)]);
        }
        store.apply(batch).unwrap();
        store.sync().unwrap();
    }
    assert_eq!(store.stats().blob_files, 0);
}
