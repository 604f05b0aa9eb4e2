//! Stories of starts: the first, the next, the second at once, and those after an accident.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use tempfile::TempDir;
use triad_replica::store::{Batch, Key, MetaRow, Store};

use super::*;
use crate::sled_store::tests::copy;

fn options() -> SledOptions {
    SledOptions::default()
}

fn new() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    (root, path)
}

/// Starts a node, leaves something in its store, and ends.
fn run_once(path: &Path) -> (NodeId, StoreId, u64) {
    let dir = DataDir::open(path).unwrap();
    let opened = dir.open_store(&options()).unwrap();
    let mut batch = Batch::new();
    batch.put(Key::Meta(MetaRow::Cluster).encode(), "the cluster");
    opened.store.apply(batch).unwrap();
    opened.store.sync().unwrap();
    (dir.node(), opened.store_id, opened.incarnation.get())
}

#[test]
fn a_node_keeps_its_key_and_store_and_counts_its_starts() {
    let (_root, path) = new();
    let (node, store, first) = run_once(&path);
    assert_eq!(first, 1);
    assert_eq!(run_once(&path), (node, store, 2));
    let dir = DataDir::open(&path).unwrap();
    let opened = dir.open_store(&options()).unwrap();
    assert_eq!((opened.origin, opened.incarnation.get()), (StoreOrigin::Existing, 3));
    let row = opened.store.get(&Key::Meta(MetaRow::Cluster).encode()).unwrap();
    assert_eq!(row, Some(Bytes::from("the cluster")));
}

#[test]
fn the_key_is_private_and_the_id_is_its_hash() {
    let (_root, path) = new();
    let dir = DataDir::open(&path).unwrap();
    let mode = |file: &str| fs::metadata(path.join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("node.key"), 0o600);
    assert_eq!(mode(""), 0o700);
    assert_eq!(dir.node(), NodeId::of_public_key(dir.signing_key().verifying_key().as_bytes()));
    drop(dir);
    fs::set_permissions(path.join("node.key"), Permissions::from_mode(0o644)).unwrap();
    DataDir::open(&path).unwrap();
    assert_eq!(mode("node.key"), 0o600, "a key open to others is closed");
}

#[test]
fn a_second_process_is_told_who_was_first() {
    let (_root, path) = new();
    let first = DataDir::open(&path).unwrap();
    let error = DataDir::open(&path).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, DataDirError::InUse { holder: Some(pid), .. } if pid == std::process::id())
    );
    assert!(text.contains(path.to_str().unwrap()) && text.contains("in use"), "{text}");
    drop(first);
    DataDir::open(&path).expect("the lock goes with its holder");
}

#[test]
fn a_lost_store_is_set_aside_and_the_node_goes_on_with_a_new_one() {
    let (_root, path) = new();
    let (node, lost, mut incarnation) = run_once(&path);
    for accident in 1..=2 {
        let db = path.join("store/db");
        fs::write(&db, vec![0xa5; 100_000]).unwrap();
        let dir = DataDir::open(&path).unwrap();
        let opened = dir.open_store(&options()).unwrap();
        let StoreOrigin::Replaced { quarantine, why } = opened.origin else {
            panic!("it cannot have been read")
        };
        assert_eq!(quarantine, path.join(format!("quarantine-{accident}")));
        assert!(quarantine.join("db").exists() && !why.is_empty());
        assert_eq!(dir.node(), node, "the node is the same");
        assert_ne!(opened.store_id, lost, "the member is not");
        assert!(opened.incarnation.get() > incarnation);
        incarnation = opened.incarnation.get();
        assert_eq!(opened.store.get(&Key::Meta(MetaRow::Cluster).encode()).unwrap(), None);
    }
    assert_eq!(run_once(&path).2, incarnation + 1);
}

#[test]
fn a_rolled_back_or_exchanged_store_is_lost() {
    let (_root, path) = new();
    let (_, first, _) = run_once(&path);
    // Not by a child process: between its fork and its exec it holds the locks of all other tests.
    let keep = |name: &str| copy(&path.join("store"), &path.join(name));
    let put_back = |name: &str| {
        fs::remove_dir_all(path.join("store")).unwrap();
        fs::rename(path.join(name), path.join("store")).unwrap();
    };
    let why = || match DataDir::open(&path).unwrap().open_store(&options()).unwrap().origin {
        StoreOrigin::Replaced { why, .. } => why,
        other => panic!("{other:?}"),
    };
    keep("backup");
    run_once(&path);
    put_back("backup");
    assert!(why().contains("rolled back"));
    let (_, second, _) = run_once(&path);
    assert_ne!(first, second);
    keep("other");
    fs::write(path.join("store/db"), vec![0xa5; 100_000]).unwrap();
    assert!(!why().is_empty());
    put_back("other");
    assert!(why().contains(&second.to_string()));
}

#[test]
fn a_store_that_shows_nothing_although_it_was_used_is_lost() {
    let (_root, path) = new();
    let (_, first, incarnation) = run_once(&path);
    fs::remove_dir_all(path.join("store")).unwrap();
    drop(crate::sled_store::SledStore::open(&path.join("store"), &options()).unwrap());
    let opened = DataDir::open(&path).unwrap().open_store(&options()).unwrap();
    assert!(matches!(opened.origin, StoreOrigin::Replaced { .. }), "{:?}", opened.origin);
    assert!(opened.store_id != first && opened.incarnation.get() > incarnation);
}

#[test]
fn without_a_floor_the_incarnation_still_grows() {
    let (_root, path) = new();
    run_once(&path);
    fs::remove_file(path.join("floor")).unwrap();
    assert_eq!(run_once(&path).2, 2, "the store knows");
    fs::write(path.join("floor"), "not a floor").unwrap();
    fs::remove_dir_all(path.join("store")).unwrap();
    assert!(run_once(&path).2 > 1_000_000, "nobody knows: seconds since 1970");
}

#[test]
fn a_store_that_does_not_say_which_it_is_is_lost() {
    let (_root, path) = new();
    run_once(&path);
    {
        let store = crate::sled_store::SledStore::open(&path.join("store"), &options()).unwrap();
        let mut batch = Batch::new();
        batch.delete(Key::Meta(MetaRow::Store).encode());
        store.apply(batch).unwrap();
        store.sync().unwrap();
    }
    let opened = DataDir::open(&path).unwrap().open_store(&options()).unwrap();
    assert!(matches!(opened.origin, StoreOrigin::Replaced { .. }));
}

#[test]
fn a_removed_store_is_new_but_the_incarnation_still_grows() {
    let (_root, path) = new();
    let (_, before, incarnation) = run_once(&path);
    fs::remove_dir_all(path.join("store")).unwrap();
    let opened = DataDir::open(&path).unwrap().open_store(&options()).unwrap();
    assert_eq!(opened.origin, StoreOrigin::New);
    assert_eq!(opened.loss.map(|loss| loss.reason), Some(LossReason::Missing));
    assert_ne!(opened.store_id, before);
    assert!(opened.incarnation.get() > incarnation);
}

#[test]
fn quarantines_are_bounded() {
    let (_root, path) = new();
    run_once(&path);
    for number in 1..=QUARANTINES_MAX {
        fs::create_dir(path.join(format!("quarantine-{number}"))).unwrap();
    }
    fs::write(path.join("store/db"), vec![0xa5; 100_000]).unwrap();
    let error = DataDir::open(&path).unwrap().open_store(&options()).err().unwrap();
    assert!(matches!(error, DataDirError::TooManyQuarantines { .. }), "{error}");
    assert!(path.join("store/db").exists(), "nothing was moved");
}

#[test]
fn a_missing_foreign_or_broken_key_is_an_error() {
    let (_root, path) = new();
    run_once(&path);
    let key = fs::read(path.join("node.key")).unwrap();

    fs::remove_file(path.join("node.key")).unwrap();
    let error = DataDir::open(&path).unwrap_err().to_string();
    assert!(error.contains("missing") && error.contains("node.key"), "{error}");

    fs::write(path.join("node.key"), [7; 32]).unwrap();
    let error = DataDir::open(&path).unwrap().open_store(&options()).err().unwrap();
    assert!(matches!(error, DataDirError::ForeignStore { .. }), "{error}");

    fs::write(path.join("node.key"), b"short").unwrap();
    let error = DataDir::open(&path).unwrap_err().to_string();
    assert!(error.contains("5 bytes"), "{error}");

    fs::write(path.join("node.key"), key).unwrap();
    assert_eq!(run_once(&path).2, 2, "the right key back, and all is well");
}

#[test]
fn a_path_that_is_no_directory_is_named() {
    let (root, _) = new();
    let file = root.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = DataDir::open(&file).unwrap_err().to_string();
    assert!(
        error.contains(file.to_str().unwrap()) && error.contains("create the directory"),
        "{error}"
    );
}

#[test]
fn starts_without_a_store_count_too() {
    let (_root, path) = new();
    let next = || DataDir::open(&path).unwrap().next_incarnation().unwrap().get();
    assert_eq!([next(), next()], [1, 2]);
    assert_eq!(run_once(&path).2, 3);
    assert_eq!(next(), 4);
    let opened = DataDir::open(&path).unwrap().open_store(&options()).unwrap();
    assert!(matches!(opened.origin, StoreOrigin::Replaced { .. }), "it missed a start");
    assert_eq!(opened.incarnation.get(), 5);
}

/// Turns one bit of a stored row, behind everybody's back; the engine's own checksums are right again.
fn rot(path: &Path, row: &[u8]) {
    let config = sled::Config::new().path(path.join("store")).segment_size(2 << 20);
    let end = std::time::Instant::now() + std::time::Duration::from_mins(1);
    // A store that was just dropped may still be closing.
    let db = loop {
        match config.open() {
            Ok(db) => break db,
            Err(busy) => assert!(std::time::Instant::now() < end, "{busy}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let mut value = db.get(row).unwrap().expect("the row is there").to_vec();
    *value.last_mut().unwrap() ^= 1;
    db.insert(row, value).unwrap();
    db.flush().unwrap();
}

#[test]
fn a_store_with_a_damaged_control_row_is_lost_and_one_with_a_damaged_record_is_not() {
    let (_root, path) = new();
    run_once(&path);
    let record =
        Key::Record { shard: triad_ring::ShardId::new(3), bucket: "b", key: b"k" }.encode();
    let shard = Key::Shard(triad_ring::ShardId::new(3), triad_replica::store::ShardRow::Entered);
    let floor = Key::HintFloor(triad_ring::ShardId::new(4));
    {
        let opened = DataDir::open(&path).unwrap().open_store(&options()).unwrap();
        let mut batch = Batch::new();
        batch.put(record.clone(), "a record");
        opened.store.apply(batch).unwrap();
        opened.store.sync().unwrap();
    }
    rot(&path, &record);
    let opened = DataDir::open(&path).unwrap().open_store(&options()).unwrap();
    assert_eq!((opened.origin, opened.loss), (StoreOrigin::Existing, None), "it can be mended");
    drop(opened.store);
    for (control, number) in [(shard.encode(), 1), (floor.encode(), 2)] {
        {
            let opened = DataDir::open(&path).unwrap().open_store(&options()).unwrap();
            let mut batch = Batch::new();
            batch.put(control.clone(), "a promise");
            opened.store.apply(batch).unwrap();
            opened.store.sync().unwrap();
        }
        rot(&path, &control);
        let opened = DataDir::open(&path).unwrap().open_store(&options()).unwrap();
        assert!(matches!(opened.origin, StoreOrigin::Replaced { .. }), "a promise is forgotten");
        let loss = opened.loss.expect("it is told");
        assert_eq!(loss.reason, LossReason::Damaged);
        assert_eq!(loss.quarantine, Some(path.join(format!("quarantine-{number}"))));
    }
}

#[test]
fn a_condemned_store_is_set_aside_by_the_next_start_and_the_loss_is_remembered() {
    let (_root, path) = new();
    let (_, before, _) = run_once(&path);
    condemn(&path, LossReason::Cloned, "another process\nruns on it").unwrap();
    for origin_is_new in [true, false] {
        let opened = DataDir::open(&path).unwrap().open_store(&options()).unwrap();
        assert_eq!(matches!(opened.origin, StoreOrigin::Replaced { .. }), origin_is_new);
        assert_ne!(opened.store_id, before);
        let loss = opened.loss.expect("remembered until it is made good");
        assert_eq!(
            (loss.reason, loss.why.as_str()),
            (LossReason::Cloned, "another process runs on it")
        );
        assert_eq!(loss.quarantine, Some(path.join("quarantine-1")));
        assert!(loss.at > 0);
    }
    forget(&path).unwrap();
    forget(&path).expect("nothing to forget is no error");
    let opened = DataDir::open(&path).unwrap().open_store(&options()).unwrap();
    assert_eq!(opened.loss, None);
}

#[test]
fn a_copy_of_a_node_that_lives_becomes_another_node() {
    let (_root, path) = new();
    let (node, ..) = run_once(&path);
    condemn(&path, LossReason::Cloned, "the original runs at node1:7421").unwrap();
    let dir = DataDir::open(&path).unwrap();
    assert_ne!(dir.node(), node, "its key is another one");
    dir.open_store(&options()).unwrap();
    drop(dir);
    assert!(path.join("quarantine-1/node.key").exists(), "the old one went with the store");

    let node = DataDir::open(&path).unwrap().node();
    condemn(&path, LossReason::RolledBack, "an old copy was put back").unwrap();
    assert_eq!(DataDir::open(&path).unwrap().node(), node, "nobody else has this key");
}

#[test]
fn the_start_after_a_refused_one_is_greater_than_all_that_others_know() {
    let (_root, path) = new();
    let (.., before) = run_once(&path);
    let known = Incarnation::new(before + 40);
    start_above(&path, known).unwrap();
    condemn(&path, LossReason::RolledBack, "start 41 has been since").unwrap();
    let opened = DataDir::open(&path).unwrap().open_store(&options()).unwrap();
    assert_eq!(opened.incarnation, Incarnation::new(known.get() + 1));
}

#[test]
fn damaged_notes_of_a_loss_still_tell_that_there_was_one() {
    let (_root, path) = new();
    run_once(&path);
    fs::write(path.join("store/condemned"), [0xff; 7]).unwrap();
    let opened = DataDir::open(&path).unwrap().open_store(&options()).unwrap();
    assert!(matches!(opened.origin, StoreOrigin::Replaced { .. }));
    drop(opened);
    fs::write(path.join("store-lost"), b"in ../../etc").unwrap();
    let opened = DataDir::open(&path).unwrap().open_store(&options()).unwrap();
    let loss = opened.loss.expect("told");
    assert_eq!((loss.reason, loss.quarantine), (LossReason::Unreadable, None));
}
