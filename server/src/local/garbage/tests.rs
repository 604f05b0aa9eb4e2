//! A round at one store: what it prunes, what it keeps, and that it is all or nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use triad_replica::configuration::{Configuration, Epoch};
use triad_replica::gc::{Garbage, GcDigest, VouchReply, VouchRequest};
use triad_replica::member::{Member, StartNonce, StoreId};
use triad_replica::message::{Base, ShardRequest};
use triad_replica::record::{Basis, Change, Limits};
use triad_replica::shard::ShardReplica;
use triad_replica::store::{Key, KeyRange, MemoryStore, ShardRow, Store};
use triad_ring::{NodeId, ShardCount, ShardId};

use crate::config::Config;
use crate::hints::Hints;
use crate::local::Wanted;
use crate::local::{Address, LocalReplica};

const ME: Member =
    Member { node: NodeId::from_bytes([1; 16]), store: StoreId::from_bytes([2; 16]) };
const SHARD: ShardId = ShardId::new(0);
const LONGEST: Duration = Duration::from_secs(1);

fn start(store: &Arc<MemoryStore>, replica: ShardReplica) -> LocalReplica {
    let one = ShardCount::try_new(1).expect("1 is a power of two");
    let store = Arc::clone(store) as Arc<dyn Store>;
    let no_failure = Box::new(|failure| panic!("the store is good: {failure}"));
    let hints = Hints::load(&*store, &Config::default()).expect("a readable store");
    let (replicas, hints) = (vec![replica], Arc::new(hints));
    LocalReplica::start(
        store,
        replicas,
        one,
        Limits::default(),
        hints,
        LONGEST,
        Arc::default(),
        crate::platform::Work::Threads,
        no_failure,
    )
    .expect("a thread")
}

fn member_alone() -> (LocalReplica, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new());
    let (replica, _) = ShardReplica::bootstrap(SHARD, ME, StartNonce([3; 16]));
    (start(&store, replica), store)
}

fn at(key: &'static str) -> Address {
    Address { shard: SHARD, bucket: "b".to_owned(), key: Bytes::from_static(key.as_bytes()) }
}

async fn write(local: &LocalReplica, key: &'static str, epoch: Epoch, change: Change) -> String {
    let minted = local
        .update(at(key), epoch, change, Basis::Overwrite, None, Wanted::always())
        .await
        .expect("minted");
    minted.durable.await.expect("an answer").expect("durable");
    minted.updated.dot.map(|dot| dot.actor.to_string()).unwrap_or_default()
}

fn value() -> Change {
    Change::Put { value: Bytes::from_static(b"value"), expires_at: None }
}

/// A round over these keys in the first epoch, as they are stored.
fn round(local: &LocalReplica, keys: &[&'static str]) -> VouchRequest {
    let record = |key| local.peek(&at(key)).expect("a good row").digest();
    let garbage = keys.iter().map(|key| Garbage {
        bucket: "b".into(),
        key: at(key).key,
        record: record(key),
    });
    let base = Base::of(&Configuration::bootstrap(SHARD, ME));
    VouchRequest { base, garbage: garbage.collect() }
}

async fn vouched(local: &LocalReplica, request: &VouchRequest) -> GcDigest {
    match local.vouch(request.clone()).await.expect("durable") {
        VouchReply::Vouched(digest) => digest,
        other => panic!("it holds all of them: {other:?}"),
    }
}

async fn decide(local: &LocalReplica, configuration: Configuration) {
    let learn = ShardRequest::Learn { configuration };
    local.shard(learn, Vec::new()).await.expect("durable");
}

fn rows(store: &dyn Store, range: &KeyRange) -> usize {
    let mut rows = 0;
    let count = &mut |_: &[u8], _| {
        rows += 1;
        std::ops::ControlFlow::Continue(())
    };
    store.scan(range, None, count).expect("a good store");
    rows
}

fn has_vouch(store: &dyn Store) -> bool {
    let key = Key::Shard(SHARD, ShardRow::Vouch).encode();
    store.get(&key).expect("a good store").is_some()
}

#[tokio::test]
async fn a_collection_prunes_what_was_vouched_for_and_is_unchanged_under_a_new_actor() {
    let (local, store) = member_alone();
    let first = write(&local, "live", Epoch::FIRST, value()).await;
    for key in ["gone", "again", "anew", "later"] {
        write(&local, key, Epoch::FIRST, value()).await;
        write(&local, key, Epoch::FIRST, Change::Delete).await;
    }
    assert_eq!(local.garbage().of(SHARD), 4);
    let request = round(&local, &["again", "anew", "gone"]);
    let digest = vouched(&local, &request).await;
    write(&local, "again", Epoch::FIRST, value()).await;
    write(&local, "anew", Epoch::FIRST, value()).await;
    write(&local, "anew", Epoch::FIRST, Change::Delete).await;
    let lacks = local.vouch(request).await.expect("an answer");
    assert_eq!(lacks, VouchReply::Lacks(vec![0, 1]), "they are not those tombstones any more");

    let next = Configuration::bootstrap(SHARD, ME).collecting(digest);
    let (_, tree) = local.tree(SHARD).await.expect("a tree");
    decide(&local, next.clone()).await;
    assert!(local.peek(&at("gone")).expect("a good row").is_absent());
    assert_eq!(local.peek(&at("again")).expect("a good row").siblings().len(), 1);
    for key in ["anew", "later"] {
        assert!(local.peek(&at(key)).expect("a good row").is_tombstone(), "{key}");
    }
    assert_eq!((local.garbage().of(SHARD), local.stats().records), (2, 4));
    assert_ne!(local.tree(SHARD).await.expect("a tree").1.root(), tree.root());
    assert!(!has_vouch(&*store));
    assert_ne!(write(&local, "gone", next.epoch, value()).await, first, "another actor");
    local.close();

    // The next start counts what is left; it is in the rows.
    let after = Arc::new(store.crash(5));
    assert_eq!(rows(&*after, &KeyRange::shard_records(SHARD)), 5);
    assert_eq!(rows(&*after, &KeyRange::shard_garbage(SHARD)), 2);
    let (replica, _) = ShardReplica::bootstrap(SHARD, ME, StartNonce([4; 16]));
    let local = start(&after, replica);
    local.tree(SHARD).await.expect("after the count");
    assert_eq!(local.garbage().of(SHARD), 2);
}

#[tokio::test]
async fn a_void_round_and_a_round_over_another_list_prune_nothing() {
    for other in [None, Some(GcDigest([9; 16]))] {
        let (local, store) = member_alone();
        write(&local, "gone", Epoch::FIRST, value()).await;
        write(&local, "gone", Epoch::FIRST, Change::Delete).await;
        vouched(&local, &round(&local, &["gone"])).await;
        assert!(has_vouch(&*store));
        let base = Configuration::bootstrap(SHARD, ME);
        let plain = Configuration { epoch: base.epoch.next(), ..base.clone() };
        decide(&local, other.map_or(plain, |digest| base.collecting(digest))).await;
        assert!(local.peek(&at("gone")).expect("a good row").is_tombstone(), "{other:?}");
        assert!(!has_vouch(&*store), "the vouches of the epoch are done with");
        let late = local.vouch(round(&local, &["gone"])).await.expect("an answer");
        assert!(matches!(late, VouchReply::Refused { newest: Some(_) }), "{late:?}");
    }
}
