//! Hostile bytes for everything here that is read from a disk, a peer or a client.

use bytes::Bytes;
use triad_fuzz::{Target, attack_text};
use triad_ring::{ClusterId, Incarnation, NodeId, RingId, ShardId};

use crate::configuration::{Configuration, Epoch, Phase};
use crate::context::Context;
use crate::dot::Dot;
use crate::gc::{Garbage, GcDigest, Vouch};
use crate::hint::{HeldRecord, decode_courtesy, decode_floor, encode_courtesy, encode_floor};
use crate::member::{ActorId, Member, StartNonce, StoreId};
use crate::paxos::{Acceptor, Ballot};
use crate::record::{Basis, Change, Limits, Record, RecordDigest, Request};
use crate::shard::EnteredRow;
use crate::start::{Start, StartLog};
use crate::store::{Key, MetaRow, ShardRow};
use crate::token::{self, ClusterSecret};

fn dot(actor: u64, counter: u64) -> Dot {
    Dot::new(ActorId::new(actor), counter)
}

fn contexts() -> Vec<Context> {
    let some = [dot(1, 1), dot(1, 2), dot(1, 9), dot(7, 3), dot(u64::MAX, u64::MAX)];
    let many = (0..200).map(|actor| dot(actor, actor % 3 + 1));
    vec![Context::new(), some.into_iter().collect(), many.collect()]
}

fn records() -> Vec<Record> {
    let limits = Limits::default();
    let put = |value: &'static [u8], expires_at| Change::Put { value: value.into(), expires_at };
    let mut busy = Record::default();
    for number in 0..10_u64 {
        let change = put(b"a value", number.is_multiple_of(2).then_some(number << 40));
        let request = Request::new(&[number as u8; 16], &change, 1_000 * number);
        let basis = if number < 6 { Basis::Causal(Context::new()) } else { Basis::Overwrite };
        busy.update_as(request, ActorId::new(number), change, basis, &limits)
            .expect("few siblings");
    }
    let mut siblings = Record::default();
    for actor in 0..4 {
        let unseen = Basis::Causal(Context::new());
        siblings
            .update(ActorId::new(actor), put(b"", None), unseen, &limits)
            .expect("few siblings");
    }
    vec![Record::default(), Record::covering([dot(3, 1), dot(4, 4)]), siblings, busy]
}

/// A checksum over all but the last four bytes.
fn seal_record(bytes: &mut Vec<u8>) {
    if let Some(body) = bytes.len().checked_sub(4) {
        bytes.truncate(body);
        let checksum = crc32fast::hash(bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
    }
}

fn member(number: u8) -> Member {
    Member { node: NodeId::from_bytes([number; 16]), store: StoreId::from_bytes([number; 16]) }
}

fn configurations() -> Vec<Configuration> {
    let first = Configuration::bootstrap(ShardId::new(5), member(1));
    let members: Vec<Member> = (1..4).map(member).collect();
    let new = vec![member(2), member(3), member(9)];
    let joint = Configuration {
        epoch: Epoch { lineage: 1, number: 8 },
        phase: Phase::Joint { old: members.clone(), new },
        retired: vec![member(7)],
        ..first.clone()
    };
    let stable = Configuration { phase: Phase::Stable { members }, ..first.clone() };
    vec![stable.collecting(GcDigest([3; 16])), first, joint]
}

#[test]
fn contexts_and_records() {
    let canonical = |name, examples: Vec<Bytes>| Target::new(name, examples).canonical();
    let encoded = contexts().iter().map(Context::encode).collect();
    canonical("Context::decode", encoded)
        .attack(|bytes| Some(Context::decode(bytes.to_vec().into()).ok()?.encode().to_vec()));
    // Records of the first version are read and written as the second.
    Target::new("Record::decode", records().iter().map(Record::encode).collect::<Vec<_>>())
        .sealed(seal_record)
        .memory_factor(96)
        .attack(|bytes| Some(Record::decode(bytes.to_vec().into()).ok()?.encode().to_vec()));
}

#[test]
fn hints() {
    let stamp = Epoch { lineage: 1, number: 77 };
    let held = |record| HeldRecord { stamp, since_ms: 1 << 40, record }.encode();
    Target::new("HeldRecord::decode", records().into_iter().map(held))
        .sealed(|row| {
            if row.len() > 21 {
                let mut record = row.split_off(21);
                seal_record(&mut record);
                row.append(&mut record);
            }
        })
        .memory_factor(96)
        .attack(|bytes| Some(HeldRecord::decode(bytes.to_vec().into()).ok()?.encode().to_vec()));
    Target::new("decode_courtesy", [encode_courtesy(0), encode_courtesy(u64::MAX)])
        .canonical()
        .attack(|bytes| Some(encode_courtesy(decode_courtesy(bytes).ok()?).to_vec()));
    Target::new("decode_floor", [encode_floor(Epoch::NONE), encode_floor(stamp)])
        .canonical()
        .attack(|bytes| Some(encode_floor(decode_floor(bytes).ok()?).to_vec()));
}

#[test]
fn configurations_and_votes() {
    let encoded = configurations().iter().map(Configuration::encode).collect::<Vec<_>>();
    Target::new("Configuration::decode", encoded).canonical().attack(|bytes| {
        let read = Configuration::decode(bytes).ok()?;
        // What is read from a row is reckoned with.
        assert!(read.clone().validated().is_ok());
        let _ =
            (read.digest(), read.may_be_followed_by(&read), read.epoch.next(), read.to_string());
        Some(read.encode().to_vec())
    });
    let ballot = Ballot { counter: 1 << 33, node: NodeId::from_bytes([4; 16]) };
    let mut acceptors = vec![Acceptor::new(Epoch::FIRST)];
    for value in configurations() {
        let mut acceptor = Acceptor::new(Epoch::FIRST);
        acceptor.prepare(ballot).expect("the first ballot");
        acceptors.push(acceptor.clone());
        acceptor.accept(ballot, value).expect("the first acceptance");
        acceptors.push(acceptor);
    }
    let encoded = acceptors.iter().map(Acceptor::encode).collect::<Vec<_>>();
    Target::new("Acceptor::decode", encoded)
        .canonical()
        .attack(|bytes| Some(Acceptor::decode(bytes).ok()?.encode().to_vec()));
    let entered = configurations().into_iter().map(|configuration| EnteredRow {
        data_epoch: Some(configuration.epoch),
        tenure: configuration.is_joint().then_some(Epoch::FIRST),
        configuration,
        forgotten: 3,
        merged: true,
        declared: false,
        sweeping: true,
    });
    let encoded = entered.map(|row| row.encode()).collect::<Vec<_>>();
    Target::new("EnteredRow::decode", encoded)
        .canonical()
        .attack(|bytes| Some(EnteredRow::decode(bytes).ok()?.encode().to_vec()));
}

#[test]
fn vouches_and_starts() {
    let one = |number: u8| Garbage {
        bucket: format!("bucket{number}"),
        key: Bytes::from(vec![number; 9]),
        record: RecordDigest([number; 16]),
    };
    let vouch = |count| Vouch { epoch: Epoch::FIRST, garbage: (0..count).map(one).collect() };
    // A name that is no UTF-8 is read as one that is, and matches nothing.
    Target::new("Vouch::decode", [vouch(0).encode(), vouch(5).encode()])
        .memory_factor(160)
        .attack(|bytes| Some(Vouch::decode(bytes).ok()?.encode().to_vec()));
    let start = Start {
        member: member(1),
        incarnation: Incarnation::new(9),
        nonce: StartNonce([5; 16]),
        commits: 77,
    };
    let mut log = StartLog::default();
    log.record(&start);
    let row = log.row(&start.member).expect("just recorded");
    Target::new("StartLog::restore", [row]).canonical().attack(|bytes| {
        let mut log = StartLog::default();
        log.restore(member(1), bytes).ok()?;
        Some(log.row(&member(1))?.to_vec())
    });
}

#[test]
fn stored_keys() {
    let (shard, bucket, key) = (ShardId::new(77), "any.bucket", &b"a key\0with a zero"[..]);
    let keys = [
        Key::Meta(MetaRow::Store),
        Key::Contact(NodeId::from_bytes([2; 16])),
        Key::Start(member(3)),
        Key::Shard(shard, ShardRow::Entered),
        Key::Record { shard, bucket, key },
        Key::Courtesy { target: member(1), shard, bucket, key },
        Key::Held { shard, bucket, key },
        Key::HintFloor(shard),
        Key::Garbage { shard, bucket, key },
        Key::Expiry { at_ms: 1 << 41, shard, bucket, key },
        Key::Chunk { generation: 9, number: 3 },
    ];
    Target::new("Key::decode", keys.map(|key| key.encode()))
        .canonical()
        .attack(|bytes| Some(Key::decode(bytes)?.encode().to_vec()));
}

#[test]
fn tokens_of_clients() {
    const SECRET: ClusterSecret = ClusterSecret::from_bytes([7; 32]);
    let sealed = |context: &Context| token::seal(&SECRET, "default", b"key", context);
    let examples: Vec<Bytes> = contexts().iter().map(sealed).collect();
    let known = examples.clone();
    Target::new("token::open", examples).canonical().attack(move |bytes| {
        let seen = token::open(&SECRET, "default", b"key", bytes.to_vec().into()).ok()?;
        assert!(known.iter().any(|one| one == bytes), "a forged token is taken");
        Some(sealed(&seen).to_vec())
    });
}

#[test]
fn texts() {
    let id = "00112233445566778899aabbccddeeff";
    attack_text("RingId::from_str", &[id], |text| text.parse::<RingId>().ok());
    attack_text("NodeId::from_str", &[id], |text| text.parse::<NodeId>().ok());
    attack_text("ClusterId::from_str", &[id], |text| text.parse::<ClusterId>().ok());
    attack_text("StoreId::from_str", &[id], |text| text.parse::<StoreId>().ok());
    attack_text("Dot::from_str", &["000000000000beef.12"], |text| text.parse::<Dot>().ok());
    attack_text("Epoch::from_str", &["1.7", "0.0"], |text| text.parse::<Epoch>().ok());
}
