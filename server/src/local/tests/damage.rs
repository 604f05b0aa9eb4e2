//! Stories of rows that rot: refused, known, and replaced without ever minting a dot twice.

use triad_replica::message::Standing;
use triad_replica::store::KeyRange;

use super::*;
use crate::data_dir::LossReason;
use crate::local::Replacement;

fn is_damaged<T>(result: &Result<T, WriteError>) -> bool {
    matches!(result, Err(WriteError::Refused(Refusal::Damaged)))
}

fn copied(epoch: Epoch, value: &'static [u8]) -> Replacement {
    Replacement::Record(epoch, record(value))
}

async fn standing(local: &LocalReplica) -> Standing {
    local.tree(SHARD).await.expect("a tree").0
}

#[tokio::test]
async fn a_damaged_row_is_refused_until_it_is_mended() {
    let Fixture { local, store, .. } = fixture();
    put_durably(&local, "a", b"1").await;
    put_durably(&local, "b", b"2").await;
    assert_eq!(local.damage().detail(), None);
    assert!(store.flip_bit(&row_of(b"a"), 5));
    // As if the row were absent would be a lie: not to readers, nor to writers with or without a context.
    assert!(is_damaged(&put(&local, "a", b"3").await));
    assert!(is_damaged(
        &local.merge(at("a"), Epoch::FIRST, Epoch::FIRST, record(b"3"), Wanted::always()).await
    ));
    assert!(is_damaged(&local.read(&at("a"), Epoch::FIRST)));
    assert!(!standing(&local).await.source);
    let detail = local.damage().detail().expect("it is known");
    assert_eq!(detail, "1 stored row is damaged, in shard 0");
    assert_eq!(local.damage().due(Duration::ZERO, 9), [at("a")]);
    assert!(local.damage().due(Duration::ZERO, 9).is_empty(), "it was tried just now");
    assert!(local.damage().due(Duration::from_hours(1), 9).is_empty());

    local.mend(at("a"), copied(Epoch::FIRST, b"theirs")).await.expect("mended");
    assert_eq!(values(&local.read(&at("a"), Epoch::FIRST).expect("served")), [b"theirs"]);
    assert_eq!(values(&local.read(&at("b"), Epoch::FIRST).expect("served")), [b"2"]);
    assert_eq!(local.damage().detail(), None);
    assert!(standing(&local).await.source);
    put_durably(&local, "a", b"4").await;
    assert_eq!(local.check_tree(SHARD).await.expect("a good store"), EXACT);
}

#[tokio::test]
async fn after_a_damaged_row_no_dot_is_minted_twice_whatever_crashes() {
    for seed in 0..8 {
        let Fixture { local, store, .. } = fixture();
        let first = put(&local, "a", b"1").await.expect("minted");
        let second = put(&local, "a", b"2").await.expect("minted");
        second.durable.await.expect("an answer").expect("durable");
        let minted = [first.updated.dot, second.updated.dot];
        assert!(store.flip_bit(&row_of(b"a"), seed));
        // Nobody else has ever heard of these two.
        local.mend(at("a"), copied(Epoch::FIRST, b"theirs")).await.expect("mended");
        let third = put(&local, "a", b"3").await.expect("minted");
        assert!(!minted.contains(&third.updated.dot), "{:?} again", third.updated.dot);
        // The same process, as it were, with what the disk says about its actor.
        let before = local.look(SHARD, ShardReplica::actor).flatten();
        local.close();
        let after = store.crash(seed);
        assert_eq!(restored(&after).actor(), before);
    }
}

#[tokio::test]
async fn what_no_other_replica_knows_goes_and_what_was_whole_is_merged() {
    let Fixture { local, store, .. } = fixture();
    put_durably(&local, "a", b"1").await;
    put_durably(&local, "b", b"2").await;
    assert!(store.flip_bit(&row_of(b"a"), 1));
    let nothing = Replacement::Record(Epoch::FIRST, Record::default());
    local.mend(at("a"), nothing).await.expect("mended");
    assert!(local.read(&at("a"), Epoch::FIRST).expect("served").is_absent());
    assert_eq!(count(&store), 1);
    local.mend(at("b"), copied(Epoch::FIRST, b"theirs")).await.expect("merged");
    assert_eq!(local.read(&at("b"), Epoch::FIRST).expect("served").siblings().len(), 2);
    assert_eq!(local.check_tree(SHARD).await.expect("a good store"), EXACT);
}

#[tokio::test]
async fn a_replacement_of_another_epoch_is_refused_and_a_member_never_drops_a_row() {
    let Fixture { local, store, .. } = fixture();
    put_durably(&local, "a", b"1").await;
    assert!(store.flip_bit(&row_of(b"a"), 2));
    let refused = local.mend(at("a"), copied(Epoch::FIRST.next(), b"theirs")).await;
    assert!(matches!(refused, Err(WriteError::Refused(Refusal::StaleEpoch { .. }))), "{refused:?}");
    assert!(is_damaged(&local.mend(at("a"), Replacement::Nothing).await));
    assert!(is_damaged(&local.read(&at("a"), Epoch::FIRST)));
}

#[tokio::test]
async fn who_is_no_member_drops_a_damaged_row() {
    let store = Arc::new(MemoryStore::new());
    let (local, _) = learner(&store, 3);
    assert!(store.flip_bit(&row_of(b"key 1"), 3));
    local.mend(at("key 1"), Replacement::Nothing).await.expect("dropped");
    local.mend(at("key 2"), Replacement::Nothing).await.expect("it is whole");
    assert_eq!(count(&store), 2);
    assert!(local.peek(&at("key 2")).is_ok_and(|record| !record.is_absent()));
}

#[tokio::test]
async fn a_mended_tombstone_keeps_its_mark_and_a_mended_value_has_none() {
    let Fixture { local, store, .. } = fixture();
    for key in ["a", "b"] {
        put_durably(&local, key, b"1").await;
        let delete = local.update(
            at(key),
            Epoch::FIRST,
            Change::Delete,
            Basis::Overwrite,
            None,
            Wanted::always(),
        );
        delete.await.expect("minted").durable.await.expect("an answer").expect("durable");
        assert!(store.flip_bit(&row_of(key.as_bytes()), 4));
    }
    assert_eq!(local.garbage().of(SHARD), 2);
    let mut deleted = record(b"1");
    let actor = triad_replica::member::ActorId::new(1);
    let deletion = deleted.update(actor, Change::Delete, Basis::Overwrite, &Limits::default());
    deletion.expect("an update");
    let tombstone = Replacement::Record(Epoch::FIRST, deleted);
    local.mend(at("a"), tombstone).await.expect("mended");
    local.mend(at("b"), copied(Epoch::FIRST, b"2")).await.expect("mended");
    assert_eq!(local.garbage().of(SHARD), 1);
    let mut marks = Vec::new();
    let scanned = store.scan(&KeyRange::garbage(), None, &mut |key, _| {
        marks.push(Bytes::copy_from_slice(key));
        std::ops::ControlFlow::Continue(())
    });
    scanned.expect("a good store");
    let mark = Key::Garbage { shard: SHARD, bucket: "default", key: b"a" };
    assert_eq!(marks, [mark.encode()]);
}

#[tokio::test]
async fn too_much_damage_and_damage_of_nobody_knows_what_condemn_the_store() {
    let Fixture { local, store, .. } = fixture();
    fill(&store, 0..1_001, b"old");
    for key in 0..1_001 {
        assert!(store.flip_bit(&row_of(format!("key {key}").as_bytes()), key));
    }
    assert!(local.check_tree(SHARD).await.expect("it is read all the same").damaged);
    let (reason, why) = local.damage().hopeless().expect("condemned");
    assert_eq!(reason, LossReason::Damaged);
    assert!(why.contains("more than 1000"), "{why}");

    let Fixture { local, .. } = fixture();
    let foreign = Key::Record { shard: ShardId::new(7), bucket: "default", key: b"a" };
    local.damage().found(&foreign.encode());
    let (_, why) = local.damage().hopeless().expect("condemned");
    assert!(why.contains("cannot be attributed"), "{why}");
    local.condemn(&why);
    assert!(put(&local, "a", b"1").await.is_err(), "nothing is acknowledged any more");
}

#[tokio::test]
async fn a_scrub_reads_every_row_in_slices_and_finds_every_damaged_one() {
    let Fixture { local, store, .. } = fixture();
    fill(&store, 0..2_000, b"old");
    put_durably(&local, "large", &vec![7; 100_000]).await;
    let mut after = None;
    let (mut rows, mut slices) = (0, 0);
    loop {
        let verified = local.verify(after).await.expect("a good store");
        assert!(verified.damaged.is_empty());
        (rows, slices) = (rows + verified.rows, slices + 1);
        after = verified.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((rows, slices), (2_002, 2), "the records, and the number of commits");

    for key in ["key 3", "key 1999"] {
        assert!(store.flip_bit(&row_of(key.as_bytes()), 3));
    }
    // A chunk of the large value.
    assert!(store.flip_bit(&Key::Chunk { generation: 1, number: 2 }.encode(), 3));
    let mut damaged = Vec::new();
    loop {
        let verified = local.verify(after).await.expect("it is read all the same");
        damaged.extend(verified.damaged);
        after = verified.next;
        if after.is_none() {
            break;
        }
    }
    let expected = ["key 1999", "key 3", "large"];
    assert_eq!(damaged, expected.map(|key| row_of(key.as_bytes())));
    let due: Vec<Bytes> =
        local.damage().due(Duration::ZERO, 9).into_iter().map(|at| at.key).collect();
    assert_eq!(due, expected.map(|key| Bytes::from_static(key.as_bytes())));
    assert!(local.damage().hopeless().is_none());
}

#[tokio::test]
async fn a_scrub_that_finds_a_damaged_control_row_condemns_the_store() {
    let Fixture { local, store, .. } = fixture();
    let mut batch = Batch::new();
    let row = Key::Shard(SHARD, triad_replica::store::ShardRow::Entered).encode();
    batch.put(row.clone(), Bytes::from_static(b"what it entered"));
    store.apply(batch).expect("a good store");
    assert!(store.flip_bit(&row, 9));
    local.verify(None).await.expect("it is read all the same");
    let (reason, why) = local.damage().hopeless().expect("condemned");
    assert!(reason == LossReason::Damaged && why.contains("votes"), "{why}");
}
