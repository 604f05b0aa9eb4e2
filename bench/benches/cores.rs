//! What the cores cost: each of these happens at least once for a Put or a Get.
//!
//! `cargo bench -p triad-bench`; figures of one machine, only comparable with each other.

#![allow(missing_docs, reason = "a program")]

use bytes::Bytes;
use divan::{Bencher, black_box};
use triad_replica::hash_tree::{HashTree, LeafHash};
use triad_replica::member::ActorId;
use triad_replica::record::{Basis, Change, Limits, Record};
use triad_ring::{ClusterSalt, NodeId, RingId, RingView};

/// The size of values.
const VALUE: usize = 1_024;

fn main() {
    divan::main();
}

/// A record with a context of so many actors, whose last write is its only value.
fn record(actors: u64) -> Record {
    let mut record = Record::default();
    for actor in 0..actors.max(1) {
        overwrite(&mut record, actor);
    }
    record
}

fn overwrite(record: &mut Record, actor: u64) {
    let change = Change::Put { value: Bytes::from(vec![7; VALUE]), expires_at: None };
    record
        .update(ActorId::new(actor), change, Basis::Overwrite, &Limits::default())
        .expect("a record within its limits can be overwritten");
}

#[divan::bench(args = [1, 3, 64])]
fn record_overwrite(bencher: Bencher<'_, '_>, actors: u64) {
    let stored = record(actors);
    bencher.with_inputs(|| stored.clone()).bench_local_values(|mut stored| {
        overwrite(&mut stored, 0);
        stored
    });
}

#[divan::bench(args = [1, 3, 64])]
fn record_merge(bencher: Bencher<'_, '_>, actors: u64) {
    let stored = record(actors);
    let mut newer = stored.clone();
    overwrite(&mut newer, 0);
    bencher.with_inputs(|| stored.clone()).bench_local_values(|mut stored| {
        stored.merge(&newer);
        stored
    });
}

#[divan::bench(args = [1, 3, 64])]
fn record_encode(bencher: Bencher<'_, '_>, actors: u64) {
    let stored = record(actors);
    bencher.bench_local(|| black_box(&stored).encode());
}

#[divan::bench(args = [1, 3, 64])]
fn record_decode(bencher: Bencher<'_, '_>, actors: u64) {
    let row = record(actors).encode();
    bencher.bench_local(|| Record::decode(black_box(&row).clone()));
}

#[divan::bench]
fn record_digest(bencher: Bencher<'_, '_>) {
    let stored = record(3);
    bencher.bench_local(|| black_box(&stored).digest());
}

#[divan::bench]
fn hash_tree_follows_a_write(bencher: Bencher<'_, '_>) {
    let (before, after) = (record(2), record(3));
    let mut tree = HashTree::new();
    bencher.bench_local(|| {
        let before = LeafHash::of("default", b"key", black_box(&before));
        tree.replace(7, before, LeafHash::of("default", b"key", black_box(&after)));
    });
}

#[divan::bench]
fn hash_tree_root(bencher: Bencher<'_, '_>) {
    let tree = HashTree::new();
    bencher.bench_local(|| black_box(&tree).root());
}

#[divan::bench]
fn key_to_identifier() -> RingId {
    RingId::of_key(black_box("default"), black_box(b"key000000000042"))
}

#[divan::bench(args = [3, 32, 250])]
fn preference_list(bencher: Bencher<'_, '_>, nodes: u8) {
    let nodes = (0..=u8::MAX).map(|n| NodeId::of_public_key(&[n; 32])).take(nodes.into());
    let view = RingView::of_nodes(nodes, &ClusterSalt::from_bytes([1; 16]), 64);
    let id = RingId::of_key("default", b"key");
    bencher.bench_local(|| view.preference_list(black_box(id), 3));
}
