//! Stories of one store: what is acknowledged, what is refused, what a crash leaves.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use triad_replica::configuration::{Configuration, Epoch, Phase};
use triad_replica::member::{Member, StartNonce, StoreId};
use triad_replica::message::{Base, ShardReply, ShardRequest};
use triad_replica::paxos::Ballot;
use triad_replica::record::{Basis, Change, Limits, Record};
use triad_replica::refusal::Refusal;
use triad_replica::shard::ShardReplica;
use triad_replica::store::memory::Fault;
use triad_replica::store::{Batch, Key, MemoryStore, Store, StoreError};
use triad_ring::{NodeId, RingId, ShardCount, ShardId};

use super::{Address, LocalReplica, Minted, Wanted, WriteError};
use crate::config::Config;
use crate::hints::Hints;

mod damage;
mod epochs;
mod hints;

const ME: Member =
    Member { node: NodeId::from_bytes([1; 16]), store: StoreId::from_bytes([2; 16]) };
const NONCE: StartNonce = StartNonce([3; 16]);
/// How long a new write may have to wait.
const LONGEST: Duration = Duration::from_secs(1);

struct Fixture {
    local: LocalReplica,
    store: Arc<MemoryStore>,
    failures: mpsc::Receiver<StoreError>,
}

fn one_shard() -> ShardCount {
    ShardCount::try_new(1).expect("1 is a power of two")
}

/// A store that is the only member of its only shard.
fn fixture() -> Fixture {
    let store = Arc::new(MemoryStore::new());
    let (replica, _) = ShardReplica::bootstrap(ShardId::new(0), ME, NONCE);
    let (tell, failures) = mpsc::channel();
    let on_failure = Box::new(move |failure| tell.send(failure).expect("the test listens"));
    let local = LocalReplica::start(
        Arc::clone(&store) as Arc<dyn Store>,
        vec![replica],
        one_shard(),
        Limits::default(),
        hints(&*store, &Config::default()),
        LONGEST,
        Arc::default(),
        crate::platform::Work::Threads,
        on_failure,
    );
    Fixture { local: local.expect("a thread"), store, failures }
}

fn hints(store: &dyn Store, config: &Config) -> Arc<Hints> {
    Arc::new(Hints::load(store, config).expect("a readable store"))
}

fn at(key: &'static str) -> Address {
    let (bucket, key) = ("default".to_owned(), Bytes::from_static(key.as_bytes()));
    Address { shard: one_shard().shard_of(RingId::of_key(&bucket, &key)), bucket, key }
}

fn value(bytes: &[u8]) -> Change {
    Change::Put { value: Bytes::copy_from_slice(bytes), expires_at: None }
}

async fn put(local: &LocalReplica, key: &'static str, bytes: &[u8]) -> Result<Minted, WriteError> {
    local
        .update(at(key), Epoch::FIRST, value(bytes), Basis::Overwrite, None, Wanted::always())
        .await
}

async fn put_durably(local: &LocalReplica, key: &'static str, bytes: &[u8]) {
    let minted = put(local, key, bytes).await.expect("minted");
    minted.durable.await.expect("an answer").expect("durable");
}

fn values(record: &Record) -> Vec<&[u8]> {
    record.siblings().values().map(|sibling| &*sibling.value).collect()
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash() {
    let Fixture { local, store, .. } = fixture();
    put_durably(&local, "a", b"1").await;
    put_durably(&local, "a", b"2").await;
    local.close();
    let after = store.crash(7);
    let key =
        triad_replica::store::Key::Record { shard: ShardId::new(0), bucket: "default", key: b"a" };
    let row = after.get(&key.encode()).expect("a good store").expect("the row");
    assert_eq!(values(&Record::decode(row).expect("a good row")), [b"2"]);
}

#[tokio::test]
async fn an_acceptance_closes_its_epoch_for_reads_and_writes() {
    let Fixture { local, .. } = fixture();
    put_durably(&local, "a", b"1").await;
    let base = Configuration::bootstrap(ShardId::new(0), ME);
    let ballot = Ballot { counter: 1, node: ME.node };
    let prepare = ShardRequest::Prepare { base: base.clone(), ballot, removals: Vec::new() };
    let promised = local.shard(prepare, Vec::new()).await.expect("durable");
    assert!(matches!(promised, ShardReply::Promised { .. }), "{promised:?}");
    put_durably(&local, "a", b"2").await; // a promise closes nothing
    let value = Configuration { epoch: base.epoch.next(), ..base.clone() };
    let accept = ShardRequest::Accept { base: Base::of(&base), ballot, value: value.clone() };
    let accepted = local.shard(accept, Vec::new()).await.expect("durable");
    assert_eq!(accepted, ShardReply::Accepted { ballot });
    let stale =
        |error: &WriteError| matches!(error, WriteError::Refused(Refusal::StaleEpoch { .. }));
    assert!(put(&local, "a", b"3").await.is_err_and(|error| stale(&error)));
    assert!(local.read(&at("a"), Epoch::FIRST).is_err_and(|error| stale(&error)));
    // The decision opens the next.
    let learn = ShardRequest::Learn { configuration: value.clone() };
    local.shard(learn, Vec::new()).await.expect("durable");
    assert_eq!(values(&local.read(&at("a"), value.epoch).expect("served")), [b"2"]);
    assert!(matches!(value.phase, Phase::Stable { .. }));
}

#[tokio::test]
async fn a_full_store_refuses_writes_before_any_effect_and_takes_deletes() {
    let Fixture { local, store, .. } = fixture();
    put_durably(&local, "a", &[1; 100]).await;
    store.set_capacity(1);
    let refused = put(&local, "b", &[0; 1_000]).await;
    assert!(matches!(refused, Err(WriteError::Refused(Refusal::NoSpace))), "{refused:?}");
    assert!(local.read(&at("b"), Epoch::FIRST).expect("served").is_absent());
    let deleted = local
        .update(at("a"), Epoch::FIRST, Change::Delete, Basis::Overwrite, None, Wanted::always())
        .await;
    deleted.expect("minted").durable.await.expect("an answer").expect("durable");
    assert!(local.read(&at("a"), Epoch::FIRST).expect("served").is_tombstone());
}

#[tokio::test]
async fn a_failed_sync_acknowledges_nothing_and_ends_the_store() {
    let Fixture { local, store, failures } = fixture();
    store.inject(Fault::Sync { skip: 0 });
    let minted = put(&local, "a", b"1").await.expect("minted before the sync");
    assert!(minted.durable.await.expect("an answer").is_err());
    let told = failures.recv_timeout(Duration::from_secs(5)).expect("the process is told to end");
    assert!(!matches!(told, StoreError::NoSpace { .. }));
    assert!(put(&local, "b", b"2").await.is_err(), "nothing is taken any more");
}

#[tokio::test]
async fn the_hash_tree_follows_every_write_of_its_group() {
    let Fixture { local, .. } = fixture();
    put_durably(&local, "a", b"1").await;
    // Asked for in the middle of writes, built once, kept by the committer from then on.
    let (one, tree, two) =
        tokio::join!(put(&local, "b", b"2"), local.tree(ShardId::new(0)), put(&local, "a", b"3"));
    for minted in [one, two] {
        minted.expect("minted").durable.await.expect("an answer").expect("durable");
    }
    tree.expect("a tree");
    assert_eq!(local.check_tree(SHARD).await.expect("a good store"), EXACT);
}

#[tokio::test]
async fn what_is_written_after_a_purge_in_the_same_group_stays() {
    // A learner's copy is given up, and in the same moment the store becomes a member.
    let store = Arc::new(MemoryStore::new());
    let other = Member { node: NodeId::from_bytes([8; 16]), store: StoreId::from_bytes([9; 16]) };
    let base = Configuration::bootstrap(ShardId::new(0), other);
    let mut replica = ShardReplica::restore(ShardId::new(0), ME, NONCE, None, None);
    replica.start_learning(base.clone());
    let local = LocalReplica::start(
        Arc::clone(&store) as Arc<dyn Store>,
        vec![replica],
        one_shard(),
        Limits::default(),
        hints(&*store, &Config::default()),
        LONGEST,
        Arc::default(),
        crate::platform::Work::Threads,
        Box::new(|failure| panic!("the store is good: {failure}")),
    )
    .expect("a thread");
    let mut copied = Record::default();
    copied
        .update(
            triad_replica::member::ActorId::new(1),
            value(b"old"),
            Basis::Overwrite,
            &Limits::default(),
        )
        .expect("an update");
    let pulled = triad_replica::message::PulledRecord {
        bucket: "default".to_owned(),
        key: Bytes::from_static(b"a"),
        record: copied.encode(),
    };
    local
        .adopt(
            ShardId::new(0),
            base.epoch,
            super::Adoption::Pulled { source: Some(base.epoch) },
            vec![pulled],
        )
        .await
        .expect("a learner takes copies");
    let joint = Configuration {
        epoch: base.epoch.next(),
        phase: Phase::Joint { old: vec![other], new: vec![ME] },
        ..base.clone()
    };
    let mut written = copied.clone();
    written
        .update(
            triad_replica::member::ActorId::new(2),
            value(b"new"),
            Basis::Overwrite,
            &Limits::default(),
        )
        .expect("an update");
    local.milestone(ShardId::new(0), super::Milestone::StopLearning).await.expect("durable");
    let learn = ShardRequest::Learn { configuration: joint.clone() };
    let (purged, learned, merged) = tokio::join!(
        local.milestone(ShardId::new(0), super::Milestone::Purge(base.epoch)),
        local.shard(learn, Vec::new()),
        local.merge(at("a"), joint.epoch, joint.epoch, written, Wanted::always()),
    );
    assert!(purged.expect("durable"), "the copy was purged");
    learned.expect("durable");
    merged.expect("acknowledged");
    assert_eq!(values(&local.peek(&at("a")).expect("a good row")), [b"new"]);
    local.close();
    let after = store.crash(3);
    let key =
        triad_replica::store::Key::Record { shard: ShardId::new(0), bucket: "default", key: b"a" };
    assert!(after.get(&key.encode()).expect("a good store").is_some());
}

const SHARD: ShardId = ShardId::new(0);
const EXACT: super::TreeCheck = super::TreeCheck { differed: false, damaged: false };

fn record(value: &'static [u8]) -> Record {
    let mut record = Record::default();
    let actor = triad_replica::member::ActorId::new(1);
    let change = Change::Put { value: Bytes::from_static(value), expires_at: None };
    record.update(actor, change, Basis::Overwrite, &Limits::default()).expect("an update");
    record
}

fn row_of(key: &[u8]) -> Bytes {
    Key::Record { shard: SHARD, bucket: "default", key }.encode()
}

/// Puts rows into the store behind everybody's back.
fn fill(store: &MemoryStore, keys: impl Iterator<Item = usize>, value: &'static [u8]) {
    let mut batch = Batch::new();
    for key in keys {
        batch.put(row_of(format!("key {key}").as_bytes()), record(value).encode());
    }
    store.apply(batch).expect("a good store");
    store.sync().expect("a good store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_tree_is_built_beside_the_writes_of_its_shard_and_is_exact() {
    let Fixture { local, store, .. } = fixture();
    fill(&store, 0..5_000, b"old");
    // The committer itself reads a few rows at most, and says that somebody else must build it.
    let asked = local.ask(|tree| super::Operation::Tree { shard: SHARD, tree }).await;
    assert!(asked.expect("an answer").is_none());
    let write = |key: usize| {
        let key = Bytes::from(format!("key {}", key * 37 % 6_000));
        let at = Address { shard: SHARD, bucket: "default".to_owned(), key };
        local.update(at, Epoch::FIRST, value(b"new"), Basis::Overwrite, None, Wanted::always())
    };
    let writes = async {
        for key in 0..400 {
            write(key).await.expect("minted while the tree is built");
        }
    };
    let (tree, ()) = tokio::join!(local.tree(SHARD), writes);
    tree.expect("a tree");
    write(401).await.expect("minted").durable.await.expect("an answer").expect("durable");
    assert_eq!(local.check_tree(SHARD).await.expect("a good store"), EXACT);
}

#[tokio::test]
async fn a_tree_that_lies_and_a_row_that_rots_are_found_by_building_anew() {
    let Fixture { local, store, .. } = fixture();
    fill(&store, 0..200, b"old");
    let (standing, before) = local.tree(SHARD).await.expect("a tree");
    assert!(standing.source);
    fill(&store, 7..8, b"changed behind its back");
    let check = local.check_tree(SHARD).await.expect("a good store");
    assert!(check.differed && !check.damaged);
    assert_eq!(local.check_tree(SHARD).await.expect("a good store"), EXACT);

    assert!(store.flip_bit(&row_of(b"key 9"), 1));
    let check = local.check_tree(SHARD).await.expect("a good store");
    assert!(check.differed && check.damaged);
    let (standing, rotten) = local.tree(SHARD).await.expect("a tree");
    assert!(!standing.source, "who cannot show all it has is no source");
    assert_eq!(before.diff(&rotten).len(), 2, "the changed row, and the rotten one");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_shows_as_a_difference_as_soon_as_it_is_met() {
    let Fixture { local, store, .. } = fixture();
    put_durably(&local, "a", b"1").await;
    put_durably(&local, "b", b"2").await;
    let (_, before) = local.tree(SHARD).await.expect("a tree");
    assert!(store.flip_bit(&row_of(b"a"), 3));
    assert!(local.read(&at("a"), Epoch::FIRST).is_err());
    let (standing, after) = local.tree(SHARD).await.expect("a tree");
    assert!(!standing.source && before.root() != after.root());
}

/// A store that holds a copy of the shard as a learner, and so many rows in it.
fn learner(store: &Arc<MemoryStore>, rows: usize) -> (LocalReplica, Configuration) {
    let other = Member { node: NodeId::from_bytes([8; 16]), store: StoreId::from_bytes([9; 16]) };
    let base = Configuration::bootstrap(SHARD, other);
    let mut replica = ShardReplica::restore(SHARD, ME, NONCE, None, None);
    let (durable, _) = replica.start_learning(base.clone());
    let mut batch = Batch::new();
    for (row, bytes) in durable.iter().filter_map(triad_replica::shard::Durable::row) {
        batch.put(Key::Shard(SHARD, row).encode(), bytes);
    }
    store.apply(batch).expect("a good store");
    fill(store, 0..rows, b"old");
    replica.stop_learning();
    (start(store, replica), base)
}

fn start(store: &Arc<MemoryStore>, replica: ShardReplica) -> LocalReplica {
    LocalReplica::start(
        Arc::clone(store) as Arc<dyn Store>,
        vec![replica],
        one_shard(),
        Limits::default(),
        hints(&**store, &Config::default()),
        LONGEST,
        Arc::default(),
        crate::platform::Work::Threads,
        Box::new(drop), // a crash of the store ends its committer
    )
    .expect("a thread")
}

/// The shard as a start finds it.
fn restored(store: &MemoryStore) -> ShardReplica {
    let row = |row| store.get(&Key::Shard(SHARD, row).encode()).expect("a good store");
    let entered = row(triad_replica::store::ShardRow::Entered)
        .map(|row| triad_replica::shard::EnteredRow::decode(&row).expect("a good row"));
    ShardReplica::restore(SHARD, ME, NONCE, entered, None)
}

fn count(store: &MemoryStore) -> usize {
    let mut rows = 0;
    let range = triad_replica::store::KeyRange::shard_records(SHARD);
    let scanned = store.scan(&range, None, &mut |_, _| {
        rows += 1;
        std::ops::ControlFlow::Continue(())
    });
    scanned.expect("a good store");
    rows
}

async fn swept(local: &LocalReplica) {
    let end = std::time::Instant::now() + Duration::from_mins(1);
    while local.look(SHARD, ShardReplica::is_sweeping) == Some(true) {
        assert!(std::time::Instant::now() < end, "the sweep does not end");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_large_shard_is_forgotten_at_once_and_deleted_in_bounded_batches() {
    let store = Arc::new(MemoryStore::new());
    let (local, base) = learner(&store, 3_000);
    let purge = super::Milestone::Purge(base.epoch);
    // A group that comes right after finds it forgotten, whatever is still there.
    let purged = local.milestone(SHARD, purge).await.expect("durable");
    assert!(purged);
    if local.look(SHARD, ShardReplica::is_sweeping) == Some(true) {
        assert!(local.peek(&at("key 2999")).is_err(), "nobody meets a forgotten record");
        assert!(local.tree(SHARD).await.is_err(), "nor compares it");
    }
    swept(&local).await;
    assert_eq!(count(&store), 0);
    assert!(local.peek(&at("key 2999")).expect("served").is_absent());
}

#[tokio::test]
async fn a_crash_while_a_shard_is_deleted_leaves_it_forgotten_and_the_next_start_goes_on() {
    let mut cut_short = 0;
    for seed in 0..20 {
        let store = Arc::new(MemoryStore::new());
        let (local, base) = learner(&store, 3_000);
        let purge = super::Milestone::Purge(base.epoch);
        assert!(local.milestone(SHARD, purge).await.expect("durable"));
        let after = Arc::new(store.crash(seed));
        drop(local);
        let replica = restored(&after);
        assert!(!replica.standing().source, "what was forgotten stays forgotten");
        assert_eq!(replica.is_sweeping(), count(&after) > 0);
        cut_short += usize::from(replica.is_sweeping());
        // It is a member again before the last record is gone.
        let mut replica = replica;
        let other = base.members()[0];
        let stable = Configuration {
            epoch: base.epoch.next(),
            phase: Phase::Stable { members: vec![other, ME] },
            ..base.clone()
        };
        replica.on_learn(stable.clone());
        let local = start(&after, replica);
        if let Err(refused) = local
            .merge(at("key 7"), stable.epoch, stable.epoch, record(b"new"), Wanted::always())
            .await
        {
            assert!(matches!(refused, WriteError::Refused(Refusal::Overloaded)), "{refused:?}");
        }
        swept(&local).await;
        local
            .merge(at("key 7"), stable.epoch, stable.epoch, record(b"newer"), Wanted::always())
            .await
            .expect("served again");
        assert!(count(&after) <= 2, "only what was written since");
        local.close();
    }
    assert!(cut_short > 0, "no crash came in between: the story proves nothing");
}
