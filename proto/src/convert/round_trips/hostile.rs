//! Hostile bytes for every message that is converted, and for what clients send.

use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use triad_fuzz::Target;
use triad_replica::anti_entropy::ShardRoot;

use super::*;
use crate::convert::{Limits, RecordKey, level, put_value, request_id, ttl};

/// Values to begin with.
const EXAMPLES: usize = 12;
/// An entry of a list may be two bytes on the wire and some hundred in memory.
const MEMORY_FACTOR: u64 = 600;

fn some<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    let mut one =
        || strategy.new_tree(&mut runner).expect("strategies here reject little").current();
    (0..EXAMPLES).map(|_| one()).collect()
}

fn attack<T, W>(name: &'static str, examples: Vec<T>)
where
    W: From<T> + prost::Message + Default,
    T: TryFrom<W, Error = BadField>,
{
    let encoded = examples.into_iter().map(|value| W::from(value).encode_to_vec());
    Target::new(name, encoded.collect::<Vec<_>>()).memory_factor(MEMORY_FACTOR).attack(|bytes| {
        let value = T::try_from(W::decode(bytes).ok()?).ok()?;
        Some(W::from(value).encode_to_vec())
    });
}

#[test]
fn configurations_and_votes() {
    attack::<Configuration, peer::Configuration>(
        "peer::Configuration→Configuration",
        some(configuration()),
    );
    attack::<Member, peer::Member>("peer::Member→Member", some(member()));
    attack::<Ballot, peer::Ballot>("peer::Ballot→Ballot", some(ballot()));
    attack::<Base, peer::Base>("peer::Base→Base", some(base()));
    attack::<Removal, peer::Removal>("peer::Removal→Removal", some(removal()));
    attack::<ShardRequest, peer::ShardRequest>(
        "peer::ShardRequest→ShardRequest",
        some(shard_request()),
    );
    attack::<ShardReply, peer::ShardReply>("peer::ShardReply→ShardReply", some(shard_reply()));
}

#[test]
fn copies_and_collections() {
    attack::<PullRequest, peer::PullRequest>("peer::PullRequest→PullRequest", some(pull_request()));
    attack::<PullReply, peer::PullResponse>("peer::PullResponse→PullReply", some(pull_reply()));
    attack::<VouchRequest, peer::GcRound>("peer::GcRound→VouchRequest", some(vouch_request()));
    attack::<VouchReply, peer::GcVouch>("peer::GcVouch→VouchReply", some(vouch_reply()));
    let root = (shard(), epoch(), any::<u128>());
    let root = root.prop_map(|(shard, epoch, root)| ShardRoot { shard, epoch, root });
    attack::<ShardRoot, peer::ShardRoot>("peer::ShardRoot→ShardRoot", some(root));
    attack::<Refusal, peer::Refusal>("peer::Refusal→Refusal", some(refusal()));
}

#[test]
fn ring_messages() {
    attack::<Message, peer::RingMessage>("peer::RingMessage→Message", some(ring_message()));
    attack::<VirtualNode, peer::RingPosition>(
        "peer::RingPosition→VirtualNode",
        some(virtual_node()),
    );
}

/// Whole messages of the streams, which are taken apart elsewhere.
fn attack_message<M: prost::Message + Default>(name: &'static str, examples: &[M]) {
    let encoded: Vec<Vec<u8>> = examples.iter().map(prost::Message::encode_to_vec).collect();
    Target::new(name, encoded)
        .memory_factor(MEMORY_FACTOR)
        .attack(|bytes| Some(M::decode(bytes).ok()?.encode_to_vec()));
}

#[test]
fn batches() {
    let hello = peer::Hello { node_id: Bytes::from(vec![7; 16]), ..peer::Hello::default() };
    let merge = peer::Merge { bucket: "b".to_owned(), ..peer::Merge::default() };
    let merge = peer::data_request::Request::Merge(merge);
    let request = peer::DataRequest { id: 7, request: Some(merge), ..peer::DataRequest::default() };
    let contacts = vec![peer::Contact { name: "node1".to_owned(), ..peer::Contact::default() }];
    let requests = vec![request; 3];
    let batch =
        peer::DataBatch { hello: Some(hello.clone()), requests, contacts: contacts.clone() };
    attack_message("DataBatch", &[batch]);
    let asked = some(shard_request()).into_iter().map(|request| peer::ControlRequest {
        id: 3,
        request: Some(peer::control_request::Request::Shard(request.into())),
    });
    let batch = peer::ControlBatch { hello: Some(hello), requests: asked.collect(), contacts };
    attack_message("ControlBatch", &[batch]);
}

#[test]
fn every_number_of_a_result() {
    // A byte as the number of an enum's value.
    Target::new("v1::ReplicaResult→ReplicaResult", [[1_u8]]).attack(|bytes| {
        let [number] = *bytes else { return None };
        let result = v1::ReplicaResult::try_from(i32::from(number)).ok()?;
        let result = v1::ReplicaResult::from(ReplicaResult::try_from(result).ok()?);
        Some(vec![u8::try_from(i32::from(result)).ok()?])
    });
}

#[test]
fn what_clients_send() {
    let put = v1::PutRequest {
        bucket: "default".to_owned(),
        key_form: Some(v1::put_request::KeyForm::KeyText("greeting".to_owned())),
        value_form: Some(v1::put_request::ValueForm::Value(Bytes::from_static(b"hello"))),
        request_id: Bytes::from(vec![9; 16]),
        ttl: Some(prost_types::Duration { seconds: 5, nanos: 7 }),
        level: 2,
        ..v1::PutRequest::default()
    };
    let limits = Limits::default();
    Target::new("PutRequest", [put.encode_to_vec()]).memory_factor(MEMORY_FACTOR).attack(|bytes| {
        let put = v1::PutRequest::decode(bytes).ok()?;
        let key = RecordKey::of_put(&put, &limits).ok()?;
        assert!((1..=limits.key_bytes).contains(&key.key.len()) && !key.bucket.is_empty());
        let _ = (key.mode(), level(put.level), ttl(put.ttl.as_ref()), request_id(&put.request_id));
        let value = put_value(put.value_form.clone(), &limits).ok()?;
        assert!(value.len() <= limits.value_bytes);
        Some(put.encode_to_vec())
    });
}
