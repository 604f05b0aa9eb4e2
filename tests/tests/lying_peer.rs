//! A peer that is a member of nothing lies to the members of every shard, and they lose nothing, bring nothing back and
//! go on.
//!
//! What is not tested, for it cannot be promised before connections prove who opened them: that nobody speaks in another node's
//! name where that node is silent, and that what is gossiped of third nodes (addresses, departures) is true.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::Code;
use triad_client::Level;
use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::control_reply::Reply;
use triad_proto::peer::v1::control_request::Request;
use triad_proto::peer::v1::{data_reply, data_request};
use triad_replica::configuration::{Configuration, Epoch, Phase};
use triad_replica::context::Context;
use triad_replica::gc::{Garbage, GcDigest, VouchReply, VouchRequest};
use triad_replica::member::Member;
use triad_replica::message::{
    Base, PullReply, PullRequest, PulledRecord, Removal, RemovalReason, ShardRequest,
};
use triad_replica::paxos::Ballot;
use triad_replica::record::Record;
use triad_ring::{NodeId, ShardId};
use triad_tests::history::History;
use triad_tests::liar::{Liar, peer};
use triad_tests::processes::{Cluster, Settings};
use triad_tests::wait::until;
use triad_tests::workload::{delete_once, fill, read_all};

const KEYS: usize = 150;
const AT_ONCE: usize = 16;
const BUCKET: &str = "default";
/// How long anything may take on a machine busy with other tests.
const LIMIT: Duration = Duration::from_mins(2);
/// What a flood may make a node grow by at its worst, in kB.
const GROWTH_KB: u64 = 400 << 10;

/// Three nodes with keys in all shards, a third of them deleted, and the liar.
async fn attacked() -> (Cluster, Arc<History>, Liar) {
    let cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    let client = cluster.client();
    fill(&client, &history, KEYS, AT_ONCE).await;
    for key in history.acknowledged_keys().iter().step_by(3) {
        delete_once(&client, &history, key).await.unwrap();
    }
    let liar = Liar::of(&cluster.nodes()[0], cluster.shards()).await;
    (cluster, history, liar)
}

/// All nodes live, and every key is on all its members as it was written or deleted.
async fn nothing_is_lost_or_back(cluster: &mut Cluster, history: &Arc<History>) {
    assert!(cluster.running().iter().all(|runs| *runs), "a node has ended");
    let client = cluster.client();
    for key in history.acknowledged_keys() {
        until("a key is read at ALL", LIMIT, || async {
            let read = client.get(&key).level(Level::All).await;
            read.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }
    assert_eq!(read_all(&client, history, AT_ONCE).await, [""; 0]);
    for node in cluster.nodes() {
        assert!(!node.log().contains("panicked"), "{}", node.log());
        assert!(!node.data_dir().join("quarantine-1").exists(), "a store was given up");
    }
}

fn stable(known: &Configuration, epoch: Epoch, members: Vec<Member>) -> Configuration {
    let phase = Phase::Stable { members };
    Configuration { epoch, phase, collected: None, retired: Vec::new(), ..known.clone() }
}

/// Configurations that were never decided.
fn forged(known: &Configuration, liar: Member) -> Vec<Configuration> {
    let later = |by| Epoch { number: known.epoch.number + by, ..known.epoch };
    let lineage = |by| Epoch { lineage: known.epoch.lineage + by, number: 1 };
    let members = known.new_set().to_vec();
    let mut dismissed = stable(known, later(1), vec![liar]);
    dismissed.retired.clone_from(&members);
    let joint = Phase::Joint { old: members.clone(), new: vec![liar] };
    let collected = Some(Box::new(GcDigest([9; 16])));
    let late = Epoch { lineage: u32::MAX, number: u64::MAX };
    vec![
        dismissed,
        Configuration { phase: joint, ..stable(known, later(1), vec![liar]) },
        Configuration {
            gc_epoch: later(999),
            collected,
            ..stable(known, later(1_000), members.clone())
        },
        Configuration { gc_epoch: later(999), ..stable(known, later(1_000), members.clone()) },
        stable(known, later(2), members[..1].to_vec()),
        stable(known, lineage(1), vec![liar]),
        stable(known, lineage(1), members[..1].to_vec()),
        stable(known, lineage(7), members),
        Configuration { gc_epoch: late, ..stable(known, late, vec![liar]) },
    ]
}

/// Everything that such configurations can be told with, and ballots for them.
fn lies(known: &Configuration, liar: Member) -> Vec<Request> {
    let highest = |node: NodeId| Ballot { counter: u64::MAX, node };
    let real = known.new_set()[0];
    let down = |member| Removal { member, reason: RemovalReason::Down };
    let removals: Vec<Removal> = known.new_set()[1..].iter().copied().map(down).collect();
    let mut requests = Vec::new();
    let mut told = Vec::new();
    for configuration in forged(known, liar) {
        let base = configuration.clone();
        requests.push(ShardRequest::Learn { configuration: base.clone() });
        requests.push(ShardRequest::StartLearning { base: base.clone() });
        for ballot in [highest(liar.node), highest(real.node)] {
            let removals = removals.clone();
            requests.push(ShardRequest::Prepare { base: base.clone(), ballot, removals });
            let accept = |base| ShardRequest::Accept { base, ballot, value: configuration.clone() };
            requests.extend([accept(Base::of(known)), accept(Base::of(&base))]);
        }
        told.push(base);
    }
    for ballot in [highest(liar.node), highest(real.node)] {
        requests.push(ShardRequest::Prepare { base: known.clone(), ballot, removals: Vec::new() });
    }
    requests.push(ShardRequest::StartLearning { base: known.clone() });
    let digests = told.iter().map(|one| wire::ConfigurationDigest {
        shard: one.shard.get(),
        epoch: Some(one.epoch.into()),
    });
    let digests = wire::ConfigurationDigests { digests: digests.collect() };
    let configurations = told.into_iter().map(Into::into).collect();
    let mut all: Vec<Request> =
        requests.into_iter().map(|request| Request::Shard(request.into())).collect();
    all.push(Request::Publish(wire::PublishConfigurations { configurations }));
    all.push(Request::Digests(digests));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_believes_a_stranger_about_configurations() {
    let (mut cluster, history, liar) = attacked().await;
    for shard in (0..cluster.shards()).map(ShardId::new) {
        for node in cluster.nodes() {
            let known = liar.configuration(node, shard).await;
            let asked = lies(&known, liar.member());
            let (number, answers) = (asked.len(), liar.control(node, asked).await.unwrap());
            assert_eq!(answers.len(), number, "each lie is answered: {answers:?}");
            let obeyed = |reply: &Reply| {
                use wire::shard_reply::Reply::{Accepted, Learned, Promised};
                let Reply::Shard(reply) = reply else { return false };
                matches!(reply.reply, Some(Accepted(_) | Promised(_) | Learned(_)))
            };
            let obeyed: Vec<_> = answers.values().filter(|reply| obeyed(reply)).collect();
            assert!(obeyed.is_empty(), "{obeyed:?}");
        }
    }
    for shard in (0..cluster.shards()).map(ShardId::new) {
        for node in cluster.nodes() {
            // It may have gone on by decisions of its members meanwhile, a few.
            let known = liar.configuration(node, shard).await;
            assert!(!known.members().contains(&liar.member()), "{known}");
            assert!(known.epoch.lineage <= 1 && known.epoch.number < 500, "{known}");
            assert_eq!(known.new_set().len(), 3, "{known}");
        }
    }
    nothing_is_lost_or_back(&mut cluster, &history).await;
}

fn merge(key: &str, record: &Record, stamp: Option<Epoch>) -> data_request::Request {
    data_request::Request::Merge(wire::Merge {
        bucket: BUCKET.to_owned(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        record: record.encode(),
        stamp: stamp.map(Into::into),
        background: false,
    })
}

fn hold(key: &str, record: &Record, stamp: Epoch) -> data_request::Request {
    data_request::Request::Hold(wire::Hold {
        bucket: BUCKET.to_owned(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        record: record.encode(),
        stamp: Some(stamp.into()),
        bytes: 0,
    })
}

/// A record that says that all this was seen and deleted.
fn tombstone_of(seen: &Context) -> Record {
    let ends = seen.vector().flat_map(|(actor, upto)| {
        (1..=upto).map(move |counter| triad_replica::dot::Dot { actor, counter })
    });
    Record::covering(ends.chain(seen.cloud()))
}

/// Has the record brought to every node in every way; all must refuse.
async fn bring(cluster: &Cluster, liar: &Liar, key: &str, record: &Record) {
    let shard = liar.shard_of(BUCKET, key);
    let elsewhere = ShardId::new((shard.get() + 1) % cluster.shards());
    for node in cluster.nodes() {
        let known = liar.configuration(node, shard).await;
        let epoch = known.epoch;
        let late = Epoch { lineage: u32::MAX, number: u64::MAX };
        let asked = vec![
            liar.about(shard, epoch, merge(key, record, None)),
            liar.about(shard, epoch, merge(key, record, Some(late))),
            liar.about(shard, epoch, merge(key, record, Some(epoch.previous()))),
            liar.about(shard, epoch.previous(), merge(key, record, None)),
            liar.about(shard, late, merge(key, record, None)),
            liar.about(elsewhere, epoch, merge(key, record, None)),
            liar.about(shard, epoch, hold(key, record, late)),
            liar.about(shard, epoch, hold(key, record, epoch)),
            liar.about(elsewhere, epoch, hold(key, record, epoch)),
        ];
        let (number, answers) = (asked.len(), liar.data(node, asked).await.unwrap());
        let refused = |reply: &data_reply::Reply| matches!(reply, data_reply::Reply::Refusal(_));
        assert!(answers.len() == number && answers.values().all(refused), "{answers:?}");
        for from in [liar.member(), known.new_set()[0], known.new_set()[1]] {
            push(node, liar, shard, epoch, from, key, record).await;
        }
    }
}

/// Hands the record over as a former member would.
async fn push(
    node: &triad_tests::processes::Node,
    liar: &Liar,
    shard: ShardId,
    epoch: Epoch,
    from: Member,
    key: &str,
    record: &Record,
) {
    let record = PulledRecord {
        bucket: BUCKET.to_owned(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        record: record.encode(),
    };
    let push = PullRequest::Push { shard, epoch, from, records: vec![record] };
    let push = wire::PullRequest { hello: Some(liar.hello.clone()), ..push.into() };
    let answer = peer(node).await.pull(push).await.unwrap().into_inner();
    let answer = PullReply::try_from(answer).unwrap();
    assert!(matches!(answer, PullReply::Refused { .. }), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_brings_no_record_and_takes_none_away() {
    let (mut cluster, history, liar) = attacked().await;
    let client = cluster.client();
    let key = "fill/1";
    let epoch = liar.configuration(&cluster.nodes()[0], liar.shard_of(BUCKET, key)).await.epoch;
    let record = liar.record(&cluster.nodes()[0], epoch, BUCKET, key).await;
    assert!(!record.siblings().is_empty(), "{key} has a value");
    bring(&cluster, &liar, key, &tombstone_of(record.context())).await;

    // What was true once comes no second time.
    delete_once(&client, &history, key).await.unwrap();
    bring(&cluster, &liar, key, &record).await;
    nothing_is_lost_or_back(&mut cluster, &history).await;
    assert_eq!(client.get(key).level(Level::All).await.unwrap().values().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_gets_no_promise_about_what_is_to_come_and_no_vouch() {
    let (mut cluster, history, liar) = attacked().await;
    let shard = liar.shard_of(BUCKET, "fill/1");
    for node in cluster.nodes() {
        let known = liar.configuration(node, shard).await;
        let ahead = [known.epoch.next(), Epoch { lineage: u32::MAX, number: u64::MAX }];
        let ask = |epoch: &Epoch| {
            let epoch = Some((*epoch).into());
            Request::PromiseNoHints(wire::PromiseNoHints { shard: shard.get(), epoch })
        };
        let answers = liar.control(node, ahead.iter().map(ask).collect()).await.unwrap();
        let refused = |reply: &Reply| matches!(reply, Reply::HintsPromised(told) if !told.promised);
        assert!(answers.len() == 2 && answers.values().all(refused), "{answers:?}");

        let record = liar.record(node, known.epoch, BUCKET, "fill/1").await.digest();
        let one = Garbage { bucket: BUCKET.to_owned(), key: Bytes::from_static(b"fill/1"), record };
        let round = VouchRequest { base: Base::of(&known), garbage: vec![one] };
        let hello = Some(liar.hello.clone());
        let asked = wire::VouchRequest { hello, rounds: vec![round.into()] };
        let answer = peer(node).await.vouch(asked).await.unwrap().into_inner();
        let vouch = VouchReply::try_from(answer.vouches[0].clone()).unwrap();
        assert!(matches!(vouch, VouchReply::Refused { .. }), "{vouch:?}");
    }
    nothing_is_lost_or_back(&mut cluster, &history).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_pretends_to_be_a_node_that_runs_is_refused_and_that_node_goes_on() {
    let (mut cluster, history, liar) = attacked().await;
    let told = wire::IdentifyRequest::default();
    let told = peer(&cluster.nodes()[1]).await.identify(told).await.unwrap().into_inner();
    let victim = told.hello.unwrap();
    let nonce = Bytes::from_static(&[1; 16]);
    let store = Bytes::from_static(&[2; 16]);
    let later = victim.incarnation + 1;
    let disguises = [
        wire::Hello { start_nonce: nonce.clone(), ..victim.clone() },
        wire::Hello { start_nonce: nonce.clone(), incarnation: later, ..victim.clone() },
        wire::Hello { start_nonce: nonce.clone(), incarnation: u64::MAX, ..victim.clone() },
        wire::Hello { start_nonce: nonce.clone(), incarnation: 0, ..victim.clone() },
        wire::Hello { start_nonce: nonce, incarnation: later, store_id: store, ..victim.clone() },
    ];
    for hello in disguises {
        for index in [0, 2] {
            let disguised = liar.disguised(hello.clone());
            let find = Request::Find(wire::FindConfiguration { shard: 0 });
            let refused = disguised.control(&cluster.nodes()[index], vec![find]).await;
            let refused = refused.expect_err("two nodes of one id");
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        }
    }
    cluster.settled(3).await;
    nothing_is_lost_or_back(&mut cluster, &history).await;
}

fn made_up(number: u32) -> Bytes {
    let mut id = [0xd0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Bytes::copy_from_slice(&id)
}

/// Nodes that are nowhere, and positions that nobody holds.
fn noise(number: u32) -> Vec<Request> {
    use wire::ring_message::Message;
    let contact = |number| wire::Contact {
        node_id: made_up(number),
        store_id: made_up(number),
        name: "n".repeat(256),
        peer_address: "127.0.0.1:1".to_owned(),
        incarnation: u64::from(number),
        ..wire::Contact::default()
    };
    let contacts = (number * 100..number * 100 + 100).map(contact).collect();
    let position = |index| {
        Some(wire::RingPosition { ring_id: made_up(number), node_id: made_up(number + 1), index })
    };
    let ring = |message| Request::Ring(wire::RingMessage { message: Some(message) });
    let list = || (0..60).filter_map(position).collect::<Vec<_>>();
    let query = u64::from(number);
    vec![
        Request::Contacts(wire::ContactList { contacts }),
        ring(Message::Notify(wire::Notify { to: position(0), asker: position(1) })),
        ring(Message::Consider(wire::Consider { to: position(0), candidate: position(1) })),
        ring(Message::State(wire::RingState {
            query,
            predecessor: position(2),
            successors: list(),
        })),
        ring(Message::Owner(wire::StepOwner { query, predecessor: position(3), list: list() })),
        ring(Message::Leaving(wire::RingLeaving {})),
        Request::Ping(wire::Ping { target: made_up(number) }),
        Request::Find(wire::FindConfiguration { shard: number }),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_strangers_and_made_up_nodes_costs_bounded_memory_and_no_data() {
    let (mut cluster, history, liar) = attacked().await;
    let before: Vec<u64> =
        cluster.nodes().iter().map(|node| node.peak_memory_kb().unwrap()).collect();
    for round in 0..40 {
        for node in cluster.nodes() {
            let store_id = made_up(round);
            let hello = wire::Hello { node_id: made_up(round), store_id, ..liar.hello.clone() };
            let stranger = liar.disguised(hello);
            let asked: Vec<Request> = (0..25).flat_map(|one| noise(round * 25 + one)).collect();
            stranger.control(node, asked).await.unwrap();
        }
    }
    for (node, before) in cluster.nodes().iter().zip(before) {
        let grown = node.peak_memory_kb().unwrap().saturating_sub(before);
        assert!(grown < GROWTH_KB, "{} has grown by {grown} kB", node.name());
    }
    nothing_is_lost_or_back(&mut cluster, &history).await;
}
