//! Held records: minted, kept, released, and what is promised of them.

use std::sync::Arc;
use std::time::Duration;

use triad_replica::configuration::Epoch;
use triad_replica::dot::Dot;
use triad_replica::member::ActorId;
use triad_replica::record::{Basis, Limits};
use triad_replica::refusal::Refusal;
use triad_replica::shard::ShardReplica;
use triad_replica::store::{MemoryStore, Store};
use triad_ring::ShardId;

use super::{Fixture, LONGEST, ME, NONCE, at, fixture, hints, one_shard, value, values};
use crate::config::Config;
use crate::hints::Hints;
use crate::local::{HeldMint, LocalReplica, Wanted, WriteError};

pub(super) fn mint(key: &'static str, bytes: &[u8], fresh: u64) -> HeldMint {
    HeldMint {
        at: at(key),
        change: value(bytes),
        basis: Basis::Overwrite,
        known: Epoch::FIRST,
        fresh: ActorId::new(fresh),
        now_ms: 0,
        wanted: Wanted::always(),
    }
}

#[tokio::test]
async fn a_holder_mints_under_one_actor_while_it_holds_a_record_and_under_another_afterwards() {
    let Fixture { local, store, .. } = fixture();
    let shared = hints(&*store, &Config::default());
    drop(local);
    let local = restarted(&store, &shared);
    let first = local.mint_held(mint("a", b"1", 7)).await.expect("minted");
    let second = local.mint_held(mint("a", b"2", 8)).await.expect("minted");
    assert_eq!(first.updated.dot, Some(Dot::new(ActorId::new(7), 1)));
    assert_eq!(second.updated.dot, Some(Dot::new(ActorId::new(7), 2)));
    assert_eq!(values(&second.record), [b"2"], "an overwrite covers what this node holds");

    let [due] = shared.with(|book| book.due_held(Duration::ZERO, 9)).try_into().expect("one key");
    let third = local.mint_held(mint("a", b"3", 9)).await.expect("minted");
    assert!(!local.release_held(due).await.expect("an answer"), "it has changed since");
    assert_eq!(values(&local.held(&at("a")).unwrap().unwrap().record), [b"3"]);
    assert_eq!(third.stamp, Epoch::FIRST);

    // The rows outlive the process, its actors do not: what it minted last may not be durable.
    local.close();
    let shared = hints(&*store, &Config::default());
    let local = restarted(&store, &shared);
    let fourth = local.mint_held(mint("a", b"4", 10)).await.expect("minted");
    assert_eq!(fourth.updated.dot, Some(Dot::new(ActorId::new(10), 1)));
    assert_eq!(values(&fourth.record), [b"4"]);

    let [due] = shared.with(|book| book.due_held(Duration::ZERO, 9)).try_into().expect("one key");
    assert!(local.release_held(due).await.expect("an answer"));
    assert_eq!(local.held(&at("a")).unwrap(), None);
    let fifth = local.mint_held(mint("a", b"5", 11)).await.expect("minted");
    assert_eq!(fifth.updated.dot, Some(Dot::new(ActorId::new(11), 1)), "dots are never reused");
}

#[tokio::test]
async fn who_promised_to_hold_nothing_of_an_epoch_never_does_even_after_a_restart() {
    let Fixture { local, store, .. } = fixture();
    local.close();
    let shared = hints(&*store, &Config::default());
    let local = restarted(&store, &shared);
    let shard = ShardId::new(0);
    let later = Epoch::FIRST.next();
    local.mint_held(mint("a", b"1", 7)).await.expect("minted");
    assert!(!local.promise_no_hints(shard, Epoch::FIRST).await.expect("an answer"));
    let [due] = shared.with(|book| book.due_held(Duration::ZERO, 9)).try_into().expect("one key");
    assert!(local.release_held(due).await.expect("an answer"));
    assert!(local.promise_no_hints(shard, later).await.expect("an answer"));
    local.close();

    let shared = hints(&*store, &Config::default());
    let local = restarted(&store, &shared);
    let minted = local.mint_held(mint("a", b"2", 8)).await.expect("minted");
    assert_eq!(minted.stamp, later.next(), "although the node knows of the first epoch only");
    assert!(local.promise_no_hints(shard, later).await.expect("an answer"), "still true");
    assert!(!local.promise_no_hints(shard, later.next()).await.expect("an answer"));
}

#[tokio::test]
async fn a_record_that_finds_no_room_is_not_held_and_leaves_the_one_before() {
    let Fixture { local, store, .. } = fixture();
    local.close();
    let mut config = Config::default();
    config.storage.hint_bytes = 200;
    let shared = hints(&*store, &config);
    let local = restarted(&store, &shared);
    local.mint_held(mint("a", b"small", 7)).await.expect("minted");
    let large = local.mint_held(mint("a", &[0; 200], 8)).await;
    assert!(matches!(large, Err(WriteError::Refused(Refusal::HintsFull))), "{large:?}");
    let other = local.mint_held(mint("b", &[0; 100], 8)).await;
    assert!(matches!(other, Err(WriteError::Refused(Refusal::HintsFull))), "{other:?}");
    assert_eq!(values(&local.held(&at("a")).unwrap().unwrap().record), [b"small"]);
    assert_eq!(local.held(&at("b")).unwrap(), None);
}

/// The committer of a new process over the same store.
fn restarted(store: &Arc<MemoryStore>, hints: &Arc<Hints>) -> LocalReplica {
    let (replica, _) = ShardReplica::bootstrap(ShardId::new(0), ME, NONCE);
    let local = LocalReplica::start(
        Arc::clone(store) as Arc<dyn Store>,
        vec![replica],
        one_shard(),
        Limits::default(),
        Arc::clone(hints),
        LONGEST,
        Arc::default(),
        crate::platform::Work::Threads,
        Box::new(|failure| panic!("the store is good: {failure}")),
    );
    local.expect("a thread")
}
