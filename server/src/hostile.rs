//! Hostile bytes for what a node reads from its store, from peers and from whoever runs it.

use bytes::Bytes;
use prost::Message as _;
use tonic::{Code, Status};
use triad_fuzz::Target;
use triad_proto::peer::v1 as wire;
use triad_replica::configuration::{Configuration, Epoch};
use triad_replica::member::{Member, StartNonce, StoreId};
use triad_replica::shard::{Access, EnteredRow};
use triad_replica::store::{Batch, Key, MemoryStore, MetaRow, ShardRow, Store};
use triad_replica::token::ClusterSecret;
use triad_ring::{ClusterId, ClusterSalt, Incarnation, NodeId, ShardCount, ShardId};

use crate::book::tests::contact;
use crate::book::{Contact, NodeState};
use crate::config::Loader;
use crate::data_dir::LossReason;
use crate::identity::ClusterIdentity;
use crate::peers::contact::Sender;
use crate::rows::{self, Enrolment};
use crate::starts::Distrust;
use crate::telemetry::parse_filter;

/// A store in memory takes some.
const STORE_MEMORY: u64 = 400;
/// Messages of a few bytes name things with many fields.
const MESSAGE_MEMORY: u64 = 200;

fn only_row(key: &Key<'_>, row: &[u8]) -> MemoryStore {
    let store = MemoryStore::new();
    let mut batch = Batch::new();
    batch.put(key.encode(), row.to_vec());
    store.apply(batch).unwrap();
    store
}

fn row_of(put: impl FnOnce(&mut Batch)) -> Vec<u8> {
    let mut batch = Batch::new();
    put(&mut batch);
    let row = batch.changes().next().and_then(|(_, row)| row.cloned());
    row.unwrap().to_vec()
}

#[test]
fn rows_about_the_cluster() {
    let cluster = ClusterIdentity {
        id: ClusterId::from_bytes([1; 16]),
        name: "demo".to_owned(),
        salt: ClusterSalt::from_bytes([2; 16]),
        secret: ClusterSecret::from_bytes([3; 32]),
        replication_factor: 3,
        virtual_nodes: 64,
        shards: ShardCount::default(),
    };
    let example = row_of(|batch| rows::put_cluster(batch, &cluster));
    Target::new("rows::load_cluster", [example]).memory_factor(STORE_MEMORY).attack(|bytes| {
        let store = only_row(&Key::Meta(MetaRow::Cluster), bytes);
        let read = rows::load_cluster(&store).ok()??;
        assert!(read.virtual_nodes > 0 && read.shards.get().is_power_of_two());
        Some(row_of(|batch| rows::put_cluster(batch, &read)))
    });
    let enrolment = Enrolment { state: NodeState::Leaving, ..Enrolment::new(Incarnation::new(7)) };
    let example = row_of(|batch| rows::put_enrolment(batch, &enrolment));
    Target::new("rows::load_enrolment", [example]).memory_factor(STORE_MEMORY).attack(|bytes| {
        let read = rows::load_enrolment(&only_row(&Key::Meta(MetaRow::Enrolment), bytes)).ok()?;
        Some(row_of(|batch| rows::put_enrolment(batch, &read)))
    });
    let example = row_of(|batch| rows::put_contact(batch, &contact(1, 7, NodeState::Active)));
    Target::new("rows::load_contacts", [example]).memory_factor(STORE_MEMORY).attack(|bytes| {
        let store = only_row(&Key::Contact(NodeId::from_bytes([1; 16])), bytes);
        let read = rows::load_contacts(&store).ok()?;
        Some(row_of(|batch| {
            rows::put_contact(batch, read.first().unwrap_or(&contact(9, 9, NodeState::Left)));
        }))
    });
    Target::new("rows::load_commits", [7_u64.to_be_bytes()])
        .canonical()
        .memory_factor(STORE_MEMORY)
        .attack(|bytes| {
            let store = only_row(&Key::Meta(MetaRow::Commits), bytes);
            Some(rows::load_commits(&store).ok()?.to_be_bytes().to_vec())
        });
}

#[test]
fn rows_about_shards() {
    let me = Member { node: NodeId::from_bytes([1; 16]), store: StoreId::from_bytes([1; 16]) };
    let nonce = StartNonce([1; 16]);
    let shard = ShardId::new(3);
    let shards = ShardCount::try_new(4).unwrap();
    let row = EnteredRow {
        configuration: Configuration::bootstrap(shard, me),
        data_epoch: Some(Epoch::FIRST),
        tenure: Some(Epoch::FIRST),
        forgotten: 0,
        merged: true,
        declared: false,
        sweeping: false,
    };
    // Whatever a row says, the shard answers for itself.
    Target::new("rows::load_shards", [row.encode()]).memory_factor(STORE_MEMORY).attack(|bytes| {
        let store = only_row(&Key::Shard(shard, ShardRow::Entered), bytes);
        let read = rows::load_shards(&store, shards, me, nonce).ok()?;
        for replica in &read {
            for access in [Access::Read, Access::Merge, Access::Mint] {
                let _ = replica.check(access, Epoch::FIRST);
            }
            let _ =
                (replica.pull_plan(), replica.standing(), replica.actor(), replica.report(None));
        }
        assert_eq!(read.len(), 4);
        Some(bytes.to_vec())
    });
}

#[test]
fn what_peers_say_of_themselves() {
    let told = wire::Contact::from(&contact(1, 7, NodeState::Leaving)).encode_to_vec();
    Target::new("wire::Contact→Contact", [told]).memory_factor(MESSAGE_MEMORY).attack(|bytes| {
        let read = Contact::try_from(&wire::Contact::decode(bytes).ok()?).ok()?;
        assert!(!read.peer_address.is_empty() && read.name.len() <= 256);
        Some(wire::Contact::from(&read).encode_to_vec())
    });
    let hello = wire::Hello {
        protocol_version: 1,
        cluster_id: Bytes::from(vec![1; 16]),
        node_id: Bytes::from(vec![2; 16]),
        incarnation: 3,
        store_id: Bytes::from(vec![4; 16]),
        start_nonce: Bytes::from(vec![5; 16]),
        commit_number: 6,
    };
    Target::new("wire::Hello→Sender", [hello.encode_to_vec()]).attack(|bytes| {
        let sender = Sender::try_from(&wire::Hello::decode(bytes).ok()?).ok()?;
        let _ = sender.start();
        Some(bytes.to_vec())
    });
    let known = Incarnation::new(7);
    let distrust = Distrust { reason: LossReason::Cloned, why: "a copy".to_owned(), known };
    let details = Status::from(distrust).details().to_vec();
    Target::new("Distrust::of_status", [details]).memory_factor(MESSAGE_MEMORY).attack(|bytes| {
        let details = Bytes::from(bytes.to_vec());
        let status = Status::with_details(Code::FailedPrecondition, "a copy", details);
        Distrust::of_status(&status).map(|_| bytes.to_vec())
    });
}

#[test]
fn what_whoever_runs_a_node_may_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("triad.toml");
    let text = "[node]\nname = \"node1\"\n[cluster]\nseeds = [\"a:7421\", \"b:7421\"]\nreplication_factor = 3\n\
        [limits]\nvalue_bytes = \"1MiB\"\n[timeouts]\nrequest = \"5s\"\n[telemetry]\nlog_level = \"info\"\n";
    let load = |loader: Loader| loader.load().map(drop).map_err(|error| error.to_string());
    assert_eq!(load(Loader::new().flag("node.name", "node1")), Ok(()));
    // A parser of TOML keeps a tree, and every problem is told in a sentence.
    Target::new("Loader::file", [text]).memory_factor(8_000).attack(|bytes| {
        std::fs::write(&path, bytes).unwrap();
        let _ = load(Loader::new().file(&path));
        Some(bytes.to_vec())
    });
    let variables = [
        "TRIAD_NODE_NAME=node1",
        "TRIAD_CLUSTER_SEEDS=a:1,b:2",
        "TRIAD_LIMITS_VALUE_BYTES=1MiB",
        "TRIAD_TIMEOUTS_REQUEST=5s",
    ];
    Target::new("Loader::env", variables).memory_factor(8_000).attack(|bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        let _ = load(Loader::new().env([(name, value)]));
        Some(bytes.to_vec())
    });
    Target::new("parse_filter", ["info", "warn,triad_server::peers=debug"])
        .memory_factor(20_000)
        .attack(|bytes| {
            let _ = parse_filter(&String::from_utf8_lossy(bytes));
            Some(bytes.to_vec())
        });
}
