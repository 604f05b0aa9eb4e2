use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::configuration::Phase;
use crate::consistency::twin::{joint, member, stable};
use crate::member::{ActorId, Member};
use crate::record::{Basis, Change, Limits};

fn write(record: &mut Record, actor: u64, change: Change, basis: Basis) {
    record.update(ActorId::new(actor), change, basis, &Limits::default()).unwrap();
}

fn put(record: &mut Record, actor: u64, basis: Basis) {
    let value = Bytes::copy_from_slice(&actor.to_be_bytes());
    write(record, actor, Change::Put { value, expires_at: None }, basis);
}

fn delete(record: &mut Record) {
    write(record, 1, Change::Delete, Basis::Overwrite);
}

fn garbage(key: &str, record: u8) -> Garbage {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Garbage { bucket: "b".into(), key, record: RecordDigest([record; 16]) }
}

fn base() -> Configuration {
    stable(&[1, 2, 3])
}

fn members() -> Vec<Member> {
    base().members()
}

#[test]
fn nothing_stays_of_a_tombstone_and_of_a_value_only_what_it_needs() {
    let mut record = Record::default();
    (0..100).for_each(|actor| put(&mut record, actor, Basis::Overwrite));
    put(&mut record, 100, Basis::Causal(crate::context::Context::new()));
    assert!(is_garbage(&record));
    let pruned = record.pruned();
    assert_eq!((pruned.siblings(), pruned.context().entries()), (record.siblings(), 2));
    assert!(!is_garbage(&pruned));
    let mut again = record.clone();
    assert!(!again.merge(&pruned), "a pruned copy brings nothing new");

    delete(&mut record);
    assert!(is_garbage(&record) && record.pruned().is_absent());
    assert!(!is_garbage(&Record::default()));
}

#[test]
fn many_siblings_alone_are_no_garbage() {
    let mut record = Record::default();
    (0..100).for_each(|actor| {
        let limits = Limits { siblings: 1_000, ..Limits::default() };
        let change = Change::Put { value: Bytes::new(), expires_at: None };
        let basis = Basis::Causal(crate::context::Context::new());
        record.update(ActorId::new(actor), change, basis, &limits).unwrap();
    });
    assert!(!is_garbage(&record), "every entry is needed");
}

#[test]
fn the_digest_is_decided_only_by_the_same_members_with_nobody_retired() {
    let digest = GcDigest([7; 16]);
    let next = base().collecting(digest);
    assert!(base().may_be_followed_by(&next));
    assert_eq!(next.clone().validated(), Ok(next.clone()));
    assert_eq!((next.gc_epoch, next.epoch), (base().epoch, base().epoch.next()));
    let bare = Configuration { collected: None, ..next.clone() };
    assert!(!base().may_be_followed_by(&bare), "a gc epoch rises for a digest only");
    let kept = Configuration { gc_epoch: base().gc_epoch, ..next.clone() };
    assert!(!base().may_be_followed_by(&kept) && kept.validated().is_err());
    let listed = Configuration { retired: vec![member(9)], ..base() };
    assert!(!listed.may_be_followed_by(&listed.collecting(digest)));
    assert!(!listed.may_be_followed_by(&next), "clearing the list is a decision of its own");
    let moving = joint(&[1, 2, 3], &[1, 2, 4]);
    let forward = Phase::Stable { members: moving.new_set().to_vec() };
    let forward = Configuration { phase: forward, ..moving.collecting(digest) };
    assert!(!moving.may_be_followed_by(&forward), "never in Joint");
    // What was collected is said once.
    let after = Configuration { epoch: next.epoch.next(), ..next.clone() };
    assert!(!next.may_be_followed_by(&after));
    assert!(next.may_be_followed_by(&Configuration { collected: None, ..after }));
}

#[test]
fn a_round_needs_every_member_and_asks_again_without_what_one_lacks() {
    let candidates = vec![garbage("b", 2), garbage("a", 1), garbage("a", 1)];
    let mut round = Round::new(&base(), candidates).unwrap();
    assert_eq!(round.request().garbage, [garbage("a", 1), garbage("b", 2)]);
    let [one, two, three] = members()[..] else { panic!("three members") };
    let whole = round.request().digest();
    assert_eq!(round.on_reply(one, VouchReply::Vouched(whole)), RoundStep::Wait);
    assert_eq!(round.on_reply(two, VouchReply::Vouched(whole)), RoundStep::Wait);
    assert_eq!(round.on_reply(three, VouchReply::Lacks(vec![0])), RoundStep::AskAgain);
    assert_eq!(round.request().garbage, [garbage("b", 2)]);
    let rest = round.request().digest();
    // A vouch for the longer list, come late, is none for this one.
    assert_eq!(round.on_reply(one, VouchReply::Vouched(whole)), RoundStep::Wait);
    assert_eq!(round.on_reply(one, VouchReply::Vouched(rest)), RoundStep::Wait);
    assert_eq!(round.on_reply(member(8), VouchReply::Vouched(rest)), RoundStep::Wait);
    assert_eq!(round.on_reply(two, VouchReply::Vouched(rest)), RoundStep::Wait);
    assert_eq!(round.on_reply(three, VouchReply::Vouched(rest)), RoundStep::Ready(rest));
}

#[test]
fn a_round_ends_with_a_refusal_with_nothing_left_and_with_its_patience() {
    let refused = VouchReply::Refused { newest: None };
    let mut round = Round::new(&base(), vec![garbage("a", 1)]).unwrap();
    assert_eq!(round.on_reply(members()[0], refused), RoundStep::Over);
    let lacks = |places: &[u32]| VouchReply::Lacks(places.to_vec());
    let all = |round: &mut Round, reply: &VouchReply| {
        members().iter().map(|one| round.on_reply(*one, reply.clone())).last().unwrap()
    };
    let mut round = Round::new(&base(), vec![garbage("a", 1)]).unwrap();
    assert_eq!(all(&mut round, &lacks(&[0])), RoundStep::Over);
    let three = ["a", "b", "c"].map(|key| garbage(key, 1)).to_vec();
    let mut round = Round::new(&base(), three).unwrap();
    assert_eq!(all(&mut round, &lacks(&[1])), RoundStep::AskAgain);
    assert_eq!(all(&mut round, &lacks(&[1])), RoundStep::Over);
    assert_eq!(Round::new(&base(), Vec::new()), None);
    assert_eq!(Round::new(&joint(&[1], &[2]), vec![garbage("a", 1)]), None);
}

#[test]
fn a_round_takes_no_more_than_its_bounds() {
    let many = (0..=ROUND_KEYS).map(|key| garbage(&format!("{key:05}"), 1)).collect();
    assert_eq!(Round::new(&base(), many).unwrap().len(), ROUND_KEYS);
    let large = |key: u8| garbage(std::str::from_utf8(&[b'a' + key; 4_096]).unwrap(), 1);
    let round = Round::new(&base(), (0..26).chain(0..26).map(large).collect()).unwrap();
    assert!(round.request().is_valid() && round.len() == 26);
    let mut twice = round.request();
    twice.garbage.swap(0, 1);
    assert!(!twice.is_valid(), "out of order");
}

proptest! {
    #[test]
    fn vouches_read_back_and_other_bytes_do_not(
        keys in prop::collection::btree_map("[a-z]{0,6}", any::<u8>(), 0..8),
        number in 1u64..9,
        cut in any::<prop::sample::Index>(),
    ) {
        let garbage: Vec<_> = keys.iter().map(|(key, record)| garbage(key, *record)).collect();
        let vouch = Vouch { epoch: Epoch { lineage: 1, number }, garbage };
        let row = vouch.encode();
        let cut = cut.index(row.len());
        prop_assert_eq!(Vouch::decode(&row), Ok(vouch.clone()));
        prop_assert!(Vouch::decode(&row[..cut]).is_err());
        let later = Vouch { epoch: vouch.epoch.next(), ..vouch.clone() };
        prop_assert_ne!(later.digest(), vouch.digest());
    }
}
