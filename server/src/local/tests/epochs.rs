//! What meets the end of an epoch: writes behind it in one group, reads beside it, records from before it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use triad_replica::configuration::{Configuration, Epoch, Phase};
use triad_replica::gc::GcDigest;
use triad_replica::member::{Member, StoreId};
use triad_replica::message::{Base, ShardReply, ShardRequest};
use triad_replica::paxos::Ballot;
use triad_replica::record::Limits;
use triad_replica::refusal::Refusal;
use triad_replica::shard::ShardReplica;
use triad_replica::store::{
    Batch, Key, KeyRange, MemoryStore, Store, StoreError, StoreStats, Visitor,
};
use triad_ring::{NodeId, ShardId};

use super::hints::mint;
use super::{LONGEST, ME, NONCE, at, hints, one_shard, put, put_durably, record, values};
use crate::config::Config;
use crate::local::{LocalReplica, Wanted, WriteError};

const PATIENCE: Duration = Duration::from_secs(10);

/// What a store has just done, or is about to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// A record was read.
    Read,
    /// A batch is visible.
    Applied,
    /// A sync begins.
    Sync,
}

type Act = Box<dyn FnOnce() + Send>;

/// A store in memory where something happens at a chosen moment, once.
#[derive(Default)]
struct Watched {
    inner: MemoryStore,
    next: Mutex<Option<(Moment, Act)>>,
}

impl Watched {
    fn at_next(&self, moment: Moment, act: impl FnOnce() + Send + 'static) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some((moment, Box::new(act)));
    }

    fn reach(&self, moment: Moment) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = next.take_if(|(at, _)| *at == moment);
        drop(next);
        if let Some((_, act)) = reached {
            act();
        }
    }
}

impl Store for Watched {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let row = self.inner.get(key);
        if matches!(Key::decode(key), Some(Key::Record { .. })) {
            self.reach(Moment::Read);
        }
        row
    }

    fn scan(
        &self,
        range: &KeyRange,
        after: Option<&[u8]>,
        visit: &mut Visitor<'_>,
    ) -> Result<(), StoreError> {
        self.inner.scan(range, after, visit)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let applied = self.inner.apply(batch);
        self.reach(Moment::Applied);
        applied
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.reach(Moment::Sync);
        self.inner.sync()
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }
}

/// The only member of the only shard, with the value "1" under the key "a".
async fn member_alone() -> (Arc<LocalReplica>, Arc<Watched>) {
    let store = Arc::new(Watched::default());
    let (replica, _) = ShardReplica::bootstrap(ShardId::new(0), ME, NONCE);
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
    );
    let local = Arc::new(local.expect("a thread"));
    put_durably(&local, "a", b"1").await;
    (local, store)
}

/// Has `work` queue what it asks for while the group before is synced, so that all of it is one group.
async fn in_one_group<T>(
    local: &LocalReplica,
    store: &Watched,
    work: impl Future<Output = T>,
) -> T {
    let (go, gone) = mpsc::channel();
    store.at_next(Moment::Sync, move || gone.recv_timeout(PATIENCE).expect("the work is queued"));
    put(local, "before", b"1").await.expect("minted before the sync");
    tokio::join!(work, async { go.send(()).expect("the sync waits") }).0
}

fn base() -> Configuration {
    Configuration::bootstrap(ShardId::new(0), ME)
}

/// Has the store accept a successor of the first epoch, and so leave it.
async fn accept(local: &LocalReplica) {
    let (base, ballot) = (base(), Ballot { counter: 1, node: ME.node });
    let value = Configuration { epoch: base.epoch.next(), ..base.clone() };
    let accept = ShardRequest::Accept { base: Base::of(&base), ballot, value };
    let reply = local.shard(accept, Vec::new()).await.expect("durable");
    assert_eq!(reply, ShardReply::Accepted { ballot });
}

async fn learn(local: &LocalReplica, configuration: Configuration) {
    let learn = ShardRequest::Learn { configuration };
    local.shard(learn, Vec::new()).await.expect("durable");
}

fn is_stale<T>(result: &Result<T, WriteError>) -> bool {
    matches!(result, Err(WriteError::Refused(Refusal::StaleEpoch { .. })))
}

#[tokio::test]
async fn what_stands_behind_an_acceptance_in_its_group_is_refused() {
    let (local, store) = member_alone().await;
    let merge = || local.merge(at("b"), Epoch::FIRST, Epoch::FIRST, record(b"2"), Wanted::always());
    let work = async { tokio::join!(accept(&local), put(&local, "a", b"2"), merge()) };
    let ((), minted, merged) = in_one_group(&local, &store, work).await;
    assert!(is_stale(&minted) && is_stale(&merged));
    assert!(is_stale(&merge().await), "and so is what comes later");
    assert_eq!(values(&local.peek(&at("a")).expect("a good row")), [b"1"]);
    assert!(local.peek(&at("b")).expect("a good row").is_absent());
}

#[tokio::test]
async fn writes_to_one_key_in_one_group_have_a_dot_each() {
    let (local, store) = member_alone().await;
    let writes = join_all((0..8).map(|_| put(&local, "a", b"2")));
    let minted = in_one_group(&local, &store, writes).await;
    let dots: BTreeSet<_> =
        minted.into_iter().map(|minted| minted.expect("minted").updated.dot).collect();
    assert_eq!(dots.len(), 8, "{dots:?}");
}

#[tokio::test]
async fn a_read_that_is_overtaken_by_an_acceptance_is_no_answer() {
    let (local, store) = member_alone().await;
    let (runtime, acceptor) = (tokio::runtime::Handle::current(), Arc::clone(&local));
    store.at_next(Moment::Read, move || runtime.block_on(accept(&acceptor)));
    let reader = std::thread::spawn(move || local.read(&at("a"), Epoch::FIRST));
    assert!(is_stale(&reader.join().expect("no panic")), "the next epoch may have begun meanwhile");
}

#[tokio::test]
async fn rows_that_go_with_their_epoch_are_never_missed_in_it() {
    let (local, store) = member_alone().await;
    let (tell, told) = mpsc::channel();
    let reader = Arc::clone(&local);
    store.at_next(Moment::Applied, move || {
        tell.send(reader.read(&at("a"), Epoch::FIRST)).expect("the test listens");
    });
    // Tombstones were collected in an epoch that this store has skipped.
    let other = Member { node: NodeId::from_bytes([8; 16]), store: StoreId::from_bytes([9; 16]) };
    let skipped = Epoch::FIRST.next();
    let phase = Phase::Stable { members: vec![ME, other] };
    learn(&local, Configuration { epoch: skipped.next(), gc_epoch: skipped, phase, ..base() })
        .await;
    assert!(is_stale(&told.recv_timeout(PATIENCE).expect("a batch was applied")));
    assert!(local.peek(&at("a")).expect("a good row").is_absent(), "gone in that batch");
}

#[tokio::test]
async fn a_record_from_before_a_collection_is_not_merged() {
    let (local, _) = member_alone().await;
    let next = base().collecting(GcDigest([9; 16]));
    learn(&local, next.clone()).await;
    let merge = |stamp| local.merge(at("b"), next.epoch, stamp, record(b"2"), Wanted::always());
    let late = merge(Epoch::FIRST).await;
    assert!(matches!(late, Err(WriteError::Refused(Refusal::Collected))), "{late:?}");
    assert!(local.read(&at("b"), next.epoch).expect("served").is_absent());
    merge(next.epoch).await.expect("as new as the epoch");
}

#[tokio::test]
async fn a_promise_to_hold_nothing_binds_at_once_and_sees_its_group() {
    let (shard, epoch) = (ShardId::new(0), Epoch::FIRST.next());
    let (local, store) = member_alone().await;
    let work = async {
        tokio::join!(local.mint_held(mint("a", b"2", 7)), local.promise_no_hints(shard, epoch))
    };
    let (minted, promised) = in_one_group(&local, &store, work).await;
    assert_eq!(minted.expect("minted").stamp, Epoch::FIRST);
    assert!(!promised.expect("an answer"), "what it held was on its way into the same batch");

    let (local, store) = member_alone().await;
    let work = async {
        tokio::join!(local.promise_no_hints(shard, epoch), local.mint_held(mint("a", b"2", 7)))
    };
    let (promised, minted) = in_one_group(&local, &store, work).await;
    assert!(promised.expect("an answer"));
    assert_eq!(minted.expect("minted").stamp, epoch.next(), "in its group");
    assert_eq!(local.mint_held(mint("b", b"2", 8)).await.expect("minted").stamp, epoch.next());
}
