//! Every core type survives the wire, and nothing that arrives can do more than be refused.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use triad_replica::anti_entropy::Listing;
use triad_replica::configuration::{Configuration, ConfigurationDigest, Epoch, Phase};
use triad_replica::consistency::{Failure, ReplicaResult};
use triad_replica::gc::{Garbage, GcDigest, VouchReply, VouchRequest};
use triad_replica::hash_tree::LEAVES;
use triad_replica::member::{Member, StoreId};
use triad_replica::message::{
    Base, ListedRow, PageCursor, PullPurpose, PullReply, PullRequest, PulledRecord, Removal,
    RemovalReason, Report, ShardReply, ShardRequest, Standing,
};
use triad_replica::paxos::Ballot;
use triad_replica::record::RecordDigest;
use triad_replica::refusal::Refusal;
use triad_ring::{MAX_CANDIDATES, Message, NodeId, QueryId, RingId, ShardId, VirtualNode};

use super::*;
use crate::peer::v1 as peer;
use crate::v1;

mod hostile;

/// Over the wire: to the message, its bytes, the message again, and back.
fn sent<T, W>(value: T) -> Result<T, BadField>
where
    W: From<T> + prost::Message + Default,
    T: TryFrom<W, Error = BadField>,
{
    let bytes = W::from(value).encode_to_vec();
    T::try_from(W::decode(bytes.as_slice()).expect("what was encoded decodes"))
}

fn epoch() -> impl Strategy<Value = Epoch> {
    (any::<u32>(), any::<u64>()).prop_map(|(lineage, number)| Epoch { lineage, number })
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<[u8; 16]>().prop_map(NodeId::from_bytes)
}

fn member() -> impl Strategy<Value = Member> {
    let store = any::<[u8; 16]>().prop_map(StoreId::from_bytes);
    (node(), store).prop_map(|(node, store)| Member { node, store })
}

fn shard() -> impl Strategy<Value = ShardId> {
    any::<u32>().prop_map(ShardId::new)
}

fn phase() -> impl Strategy<Value = Phase> {
    let side = || vec(member(), 1..5);
    prop_oneof![
        side().prop_map(|members| Phase::Stable { members }),
        (side(), side()).prop_map(|(old, new)| Phase::Joint { old, new }),
    ]
}

fn configuration() -> impl Strategy<Value = Configuration> {
    (shard(), epoch(), phase(), epoch(), vec(member(), 0..3), option::of(any::<[u8; 16]>()))
        .prop_map(|(shard, epoch, phase, gc_epoch, retired, collected)| {
            // What is collected is of the epoch before, in a stable configuration.
            let collected = collected.filter(|_| matches!(phase, Phase::Stable { .. }));
            let epoch = if collected.is_some() { gc_epoch.next() } else { epoch };
            let collected = collected.map(|digest| Box::new(GcDigest(digest)));
            Configuration { shard, epoch, phase, gc_epoch, collected, retired }
        })
        .prop_filter("random ids hardly ever collide", |configuration| {
            configuration.clone().validated().is_ok()
        })
}

fn ballot() -> impl Strategy<Value = Ballot> {
    (any::<u64>(), node()).prop_map(|(counter, node)| Ballot { counter, node })
}

fn removal() -> impl Strategy<Value = Removal> {
    let reason = prop::sample::select(vec![
        RemovalReason::Displaced,
        RemovalReason::Leaving,
        RemovalReason::LostStore,
        RemovalReason::Down,
    ]);
    (member(), reason).prop_map(|(member, reason)| Removal { member, reason })
}

fn base() -> impl Strategy<Value = Base> {
    let digest = any::<[u8; 16]>().prop_map(ConfigurationDigest::from_bytes);
    (shard(), epoch(), digest).prop_map(|(shard, epoch, digest)| Base { shard, epoch, digest })
}

fn shard_request() -> impl Strategy<Value = ShardRequest> {
    prop_oneof![
        (configuration(), ballot(), vec(removal(), 0..3)).prop_map(|(base, ballot, removals)| {
            ShardRequest::Prepare { base, ballot, removals }
        }),
        (base(), ballot(), configuration())
            .prop_map(|(base, ballot, value)| { ShardRequest::Accept { base, ballot, value } }),
        configuration().prop_map(|configuration| ShardRequest::Learn { configuration }),
        configuration().prop_map(|base| ShardRequest::StartLearning { base }),
        shard().prop_map(|shard| ShardRequest::Progress { shard }),
    ]
}

fn report() -> impl Strategy<Value = Report> {
    let flags = any::<(bool, bool, bool)>();
    (option::of(epoch()), option::of(epoch()), option::of(any::<u32>()), flags).prop_map(
        |(entered, declared, difference, (fenced, merged, holds_data))| Report {
            entered,
            fenced,
            declared,
            merged,
            difference,
            holds_data,
        },
    )
}

fn shard_reply() -> impl Strategy<Value = ShardReply> {
    prop_oneof![
        (ballot(), option::of((ballot(), configuration())))
            .prop_map(|(ballot, accepted)| ShardReply::Promised { ballot, accepted }),
        ballot().prop_map(|promised| ShardReply::Rejected { promised }),
        ballot().prop_map(|ballot| ShardReply::Accepted { ballot }),
        configuration().prop_map(|newest| ShardReply::Superseded { newest }),
        option::of(epoch()).prop_map(|newest| ShardReply::Behind { newest }),
        member().prop_map(|member| ShardReply::RemovalRefused { member }),
        Just(ShardReply::Refused),
        epoch().prop_map(|epoch| ShardReply::Learned { epoch }),
        report().prop_map(ShardReply::Report),
    ]
}

fn some_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 1..20).prop_map(Bytes::from)
}

fn cursor() -> impl Strategy<Value = Option<PageCursor>> {
    option::of(some_bytes().prop_map(PageCursor))
}

fn records() -> impl Strategy<Value = Vec<PulledRecord>> {
    let record = ("[a-z]{1,5}", some_bytes(), some_bytes())
        .prop_map(|(bucket, key, record)| PulledRecord { bucket, key, record });
    vec(record, 0..4)
}

fn pull_request() -> impl Strategy<Value = PullRequest> {
    let purpose = prop::sample::select(vec![
        PullPurpose::Learn,
        PullPurpose::Merge,
        PullPurpose::CatchUp,
        PullPurpose::Drain,
        PullPurpose::AntiEntropy,
    ]);
    prop_oneof![
        (shard(), epoch(), any::<u128>(), purpose).prop_map(|(shard, epoch, root, purpose)| {
            PullRequest::Tree { shard, epoch, root, purpose }
        }),
        (shard(), epoch(), vec(any::<u8>(), 0..LEAVES), cursor(), any::<u32>()).prop_map(
            |(shard, epoch, leaves, after, max_bytes)| PullRequest::Page {
                shard,
                epoch,
                leaves,
                after,
                max_bytes
            }
        ),
        (shard(), epoch(), vec(any::<u8>(), 0..LEAVES), cursor()).prop_map(
            |(shard, epoch, leaves, after)| PullRequest::List { shard, epoch, leaves, after }
        ),
        (shard(), epoch(), member(), records()).prop_map(|(shard, epoch, from, records)| {
            PullRequest::Push { shard, epoch, from, records }
        }),
    ]
}

fn listed() -> impl Strategy<Value = Vec<ListedRow>> {
    let row = ("[a-z]{1,5}", some_bytes(), option::of(any::<u128>()))
        .prop_map(|(bucket, key, hash)| ListedRow { bucket, key, hash });
    vec(row, 0..5)
}

fn pull_reply() -> impl Strategy<Value = PullReply> {
    let standing = || {
        (option::of(epoch()), option::of(epoch()), any::<bool>())
            .prop_map(|(entered, left, source)| Standing { entered, left, source })
    };
    prop_oneof![
        standing().prop_map(|standing| PullReply::Tree {
            standing,
            same: true,
            leaves: Vec::new()
        }),
        (standing(), vec(any::<u128>(), LEAVES)).prop_map(|(standing, leaves)| PullReply::Tree {
            standing,
            same: false,
            leaves
        }),
        (records(), option::of(epoch()), cursor()).prop_map(|(records, data_epoch, next)| {
            PullReply::Page { records, data_epoch, next }
        }),
        (listed(), cursor()).prop_map(|(rows, end)| PullReply::List(Listing { rows, end })),
        Just(PullReply::Pushed),
        option::of(configuration()).prop_map(|newest| PullReply::Refused { newest }),
    ]
}

fn vouch_request() -> impl Strategy<Value = VouchRequest> {
    let digest = any::<[u8; 16]>().prop_map(ConfigurationDigest::from_bytes);
    let base =
        (shard(), epoch(), digest).prop_map(|(shard, epoch, digest)| Base { shard, epoch, digest });
    let places = prop::collection::btree_map(
        ("[a-z]{1,4}", vec(any::<u8>(), 1..9)),
        any::<[u8; 16]>(),
        1..6,
    );
    (base, places).prop_map(|(base, places)| VouchRequest {
        base,
        garbage: places
            .into_iter()
            .map(|((bucket, key), record)| Garbage {
                bucket,
                key: key.into(),
                record: RecordDigest(record),
            })
            .collect(),
    })
}

fn vouch_reply() -> impl Strategy<Value = VouchReply> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(|digest| VouchReply::Vouched(GcDigest(digest))),
        vec(any::<u32>(), 0..4).prop_map(VouchReply::Lacks),
        option::of(configuration()).prop_map(|newest| VouchReply::Refused { newest }),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let sizes = any::<(u32, u32)>().prop_map(|(size, limit)| (size as usize, limit as usize));
    prop_oneof![
        configuration().prop_map(|newest| Refusal::StaleEpoch { newest }),
        option::of(configuration()).prop_map(|newest| Refusal::NotMember { newest }),
        Just(Refusal::Learner),
        Just(Refusal::NotMerged),
        Just(Refusal::NotIntroduced),
        Just(Refusal::NoSpace),
        Just(Refusal::Damaged),
        Just(Refusal::Overloaded),
        sizes.clone().prop_map(|(siblings, limit)| Refusal::SiblingLimit { siblings, limit }),
        sizes.prop_map(|(entries, limit)| Refusal::ContextLimit { entries, limit }),
    ]
}

fn position() -> impl Strategy<Value = RingId> {
    any::<u128>().prop_map(RingId::new)
}

fn virtual_node() -> impl Strategy<Value = VirtualNode> {
    (position(), node(), any::<u16>()).prop_map(|(id, node, index)| VirtualNode { id, node, index })
}

fn ring_message() -> impl Strategy<Value = Message> {
    let query = || any::<u64>().prop_map(QueryId::new);
    let list = || vec(virtual_node(), 0..6);
    prop_oneof![
        (query(), virtual_node(), option::of(position()), option::of(any::<u64>()))
            .prop_map(|(query, to, until, heard)| Message::AskState { query, to, until, heard }),
        (query(), option::of(virtual_node()), list()).prop_map(
            |(query, predecessor, successors)| Message::State { query, predecessor, successors }
        ),
        query().prop_map(|query| Message::Unchanged { query }),
        query().prop_map(|query| Message::Busy { query }),
        query().prop_map(|query| Message::NotMember { query }),
        (virtual_node(), virtual_node()).prop_map(|(to, asker)| Message::Notify { to, asker }),
        virtual_node().prop_map(|to| Message::Nudge { to }),
        (virtual_node(), virtual_node())
            .prop_map(|(to, candidate)| Message::Consider { to, candidate }),
        (query(), virtual_node()).prop_map(|(query, to)| Message::Ping { query, to }),
        query().prop_map(|query| Message::Pong { query }),
        (query(), position()).prop_map(|(query, target)| Message::AskStep { query, target }),
        (query(), option::of(virtual_node()), list())
            .prop_map(|(query, predecessor, list)| { Message::Owner { query, predecessor, list } }),
        (query(), vec(virtual_node(), 0..=MAX_CANDIDATES))
            .prop_map(|(query, candidates)| Message::Closer { query, candidates }),
        Just(Message::Leaving),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn configurations_survive(value in configuration()) {
        prop_assert_eq!(sent::<_, peer::Configuration>(value.clone()), Ok(value));
    }

    #[test]
    fn steps_of_a_decision_survive(request in shard_request(), reply in shard_reply()) {
        prop_assert_eq!(sent::<_, peer::ShardRequest>(request.clone()), Ok(request));
        prop_assert_eq!(sent::<_, peer::ShardReply>(reply.clone()), Ok(reply));
    }

    #[test]
    fn steps_of_a_copy_survive(request in pull_request(), reply in pull_reply()) {
        prop_assert_eq!(sent::<_, peer::PullRequest>(request.clone()), Ok(request));
        prop_assert_eq!(sent::<_, peer::PullResponse>(reply.clone()), Ok(reply));
    }

    #[test]
    fn rounds_of_collection_survive(request in vouch_request(), reply in vouch_reply()) {
        prop_assert_eq!(sent::<_, peer::GcRound>(request.clone()), Ok(request));
        prop_assert_eq!(sent::<_, peer::GcVouch>(reply.clone()), Ok(reply));
    }

    #[test]
    fn refusals_survive(value in refusal()) {
        prop_assert_eq!(sent::<_, peer::Refusal>(value.clone()), Ok(value));
    }

    #[test]
    fn ring_messages_survive(value in ring_message()) {
        prop_assert_eq!(sent::<_, peer::RingMessage>(value.clone()), Ok(value));
    }

    #[test]
    fn damaged_messages_are_refused_or_are_other_good_messages(
        ring in ring_message(),
        request in shard_request(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let damaged = |mut bytes: Vec<u8>| {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        };
        let ring = damaged(peer::RingMessage::from(ring).encode_to_vec());
        if let Ok(Ok(other)) = peer::RingMessage::decode(ring.as_slice()).map(Message::try_from) {
            prop_assert_eq!(sent::<_, peer::RingMessage>(other.clone()), Ok(other));
        }
        let request = damaged(peer::ShardRequest::from(request).encode_to_vec());
        if let Ok(Ok(other)) = peer::ShardRequest::decode(request.as_slice()).map(ShardRequest::try_from) {
            prop_assert_eq!(sent::<_, peer::ShardRequest>(other.clone()), Ok(other));
        }
    }
}

fn two_members() -> (peer::Member, peer::Member) {
    let member =
        |seed| peer::Member { node_id: vec![seed; 16].into(), store_id: vec![seed; 16].into() };
    (member(1), member(2))
}

fn stable(members: Vec<peer::Member>) -> peer::Configuration {
    peer::Configuration {
        epoch: Some(v1::Epoch { lineage: 1, number: 1 }),
        phase: v1::Phase::Stable.into(),
        members,
        ..peer::Configuration::default()
    }
}

fn refused(configuration: peer::Configuration) -> &'static str {
    Configuration::try_from(configuration).expect_err("it breaks a rule").field
}

#[test]
fn a_configuration_that_breaks_a_rule_is_refused_at_the_door() {
    let (one, two) = two_members();
    assert!(Configuration::try_from(stable(vec![one.clone(), two.clone()])).is_ok());
    assert_eq!(refused(stable(Vec::new())), "configuration");
    assert_eq!(refused(stable(vec![one.clone(), one.clone()])), "configuration");
    assert_eq!(refused(stable(vec![one.clone(); 100])), "configuration.members");
    let no_epoch = peer::Configuration { epoch: None, ..stable(vec![one.clone()]) };
    assert_eq!(refused(no_epoch), "configuration.epoch");
    let no_phase = peer::Configuration { phase: 0, ..stable(vec![one.clone()]) };
    assert_eq!(refused(no_phase), "configuration.phase");
    let unknown_phase = peer::Configuration { phase: 77, ..stable(vec![one.clone()]) };
    assert_eq!(refused(unknown_phase), "configuration.phase");
    let half_joint = peer::Configuration { next_members: vec![two], ..stable(vec![one.clone()]) };
    assert_eq!(refused(half_joint), "configuration.next_members");
    let short = peer::Member { store_id: Bytes::from_static(b"short"), ..one };
    assert_eq!(refused(stable(vec![short])), "member.store_id");
}

#[test]
fn a_message_without_its_content_is_refused() {
    assert_eq!(
        Message::try_from(peer::RingMessage::default()),
        Err(BadField::missing("ring.message"))
    );
    assert_eq!(
        ShardRequest::try_from(peer::ShardRequest::default()),
        Err(BadField::missing("shard.request"))
    );
    assert_eq!(
        ShardReply::try_from(peer::ShardReply::default()),
        Err(BadField::missing("shard.reply"))
    );
    assert_eq!(
        PullRequest::try_from(peer::PullRequest::default()),
        Err(BadField::missing("pull.request"))
    );
    assert_eq!(
        PullReply::try_from(peer::PullResponse::default()),
        Err(BadField::missing("pull.response"))
    );
    assert_eq!(
        Refusal::try_from(peer::Refusal::default()),
        Err(BadField::missing("refusal.reason"))
    );
}

#[test]
fn longer_lists_than_any_node_has_are_refused_with_size_and_limit() {
    let node = VirtualNode { id: RingId::new(1), node: NodeId::from_bytes([1; 16]), index: 0 };
    let closer =
        Message::Closer { query: QueryId::new(1), candidates: vec![node; MAX_CANDIDATES + 1] };
    let bad = sent::<_, peer::RingMessage>(closer).expect_err("too many");
    assert_eq!((bad.size, bad.limit), (Some(MAX_CANDIDATES + 1), Some(MAX_CANDIDATES)));
    let successors = vec![node; MAX_LISTED + 1];
    let state = Message::State { query: QueryId::new(1), predecessor: None, successors };
    assert_eq!(sent::<_, peer::RingMessage>(state).expect_err("too many").limit, Some(MAX_LISTED));
}

#[test]
fn a_tree_has_all_its_leaves_or_none() {
    let tree = |same, leaves: usize| peer::PullResponse {
        stamp: None,
        response: Some(peer::pull_response::Response::Tree(peer::TreeReply {
            standing: Some(peer::Standing::default()),
            same,
            leaves: vec![0; leaves].into(),
        })),
    };
    assert!(PullReply::try_from(tree(true, 0)).is_ok());
    assert!(PullReply::try_from(tree(false, LEAVES * 16)).is_ok());
    assert!(PullReply::try_from(tree(true, LEAVES * 16)).is_err());
    assert!(PullReply::try_from(tree(false, 0)).is_err());
    assert!(PullReply::try_from(tree(false, LEAVES * 16 - 1)).is_err());
}

#[test]
fn every_result_of_a_replica_has_its_own_number() {
    let failures = [
        Failure::Unreachable,
        Failure::Timeout,
        Failure::StaleEpoch,
        Failure::Learner,
        Failure::NoSpace,
        Failure::Damaged,
        Failure::Hinted,
        Failure::Overloaded,
    ];
    let mut all = vec![ReplicaResult::Ok, ReplicaResult::Pending];
    all.extend(failures.map(ReplicaResult::Failed));
    for result in all {
        assert_eq!(v1::ReplicaResult::from(result).try_into(), Ok(result));
    }
    assert!(ReplicaResult::try_from(v1::ReplicaResult::Unspecified).is_err());
}
