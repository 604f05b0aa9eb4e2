//! Repetitions: recognised, shown once, and gone with what was deleted.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::context::Context;

const A: ActorId = ActorId::new(0xa);
const B: ActorId = ActorId::new(0xb);

fn put(value: &str) -> Change {
    Change::Put { value: Bytes::copy_from_slice(value.as_bytes()), expires_at: None }
}

fn request(id: u8, change: &Change) -> Request {
    Request::new(&[id; 16], change, 1_000_000)
}

/// Performs `change` under the request id `id`.
fn write(record: &mut Record, id: u8, actor: ActorId, change: Change, basis: Basis) -> Updated {
    let request = request(id, &change);
    record.update_as(request, actor, change, basis, &Limits::default()).expect("within limits")
}

fn overwrite(record: &mut Record, actor: ActorId, value: &str) -> Updated {
    record.update(actor, put(value), Basis::Overwrite, &Limits::default()).expect("within limits")
}

fn values(record: &Record) -> Vec<&[u8]> {
    record.distinct().map(|(_, sibling)| &*sibling.value).collect()
}

fn met(left: &Record, right: &Record) -> Record {
    let mut met = left.clone();
    met.merge(right);
    met.settle();
    met
}

#[test]
fn an_id_is_known_with_its_value_and_reused_with_another() {
    let mut record = Record::default();
    let written = write(&mut record, 1, A, put("v"), Basis::Overwrite);
    assert_eq!(record.knows(&request(1, &put("v"))), Known::Repeated);
    assert_eq!(record.knows(&request(1, &put("w"))), Known::Reused);
    assert_eq!(record.knows(&request(1, &Change::Delete)), Known::Reused);
    assert_eq!(record.knows(&request(2, &put("v"))), Known::No);
    let event = record.event(&request(1, &put("v")));
    assert_eq!((event.dot, event.stands), (written.dot, true));
    // It is remembered beyond its value.
    overwrite(&mut record, A, "later");
    assert_eq!(record.knows(&request(1, &put("v"))), Known::Repeated);
    assert!(!record.event(&request(1, &put("v"))).stands);
}

#[test]
fn two_dots_of_one_request_are_shown_as_one_value_and_replaced_together() {
    let (mut at_a, mut at_b) = (Record::default(), Record::default());
    write(&mut at_a, 1, A, put("v"), Basis::Overwrite);
    write(&mut at_b, 1, B, put("v"), Basis::Overwrite);
    let both = met(&at_a, &at_b);
    assert_eq!(both, met(&at_b, &at_a));
    assert_eq!(both.siblings().len(), 2);
    assert_eq!(values(&both), [b"v"]);
    assert_eq!(both.distinct().next().map(|(dot, _)| *dot), Some(Dot::new(A, 1)), "the smaller");
    // Somebody who has seen only one of them replaces both.
    let mut later = both.clone();
    let seen: Context = [Dot::new(B, 1)].into_iter().collect();
    later.update(A, put("w"), Basis::Causal(seen), &Limits::default()).expect("within limits");
    later.settle();
    assert_eq!(values(&later), [b"w"]);
}

#[test]
fn a_repetition_does_not_bring_a_deleted_value_back() {
    let (mut at_a, mut at_b) = (Record::default(), Record::default());
    write(&mut at_a, 1, A, put("v"), Basis::Overwrite);
    at_a.update(A, Change::Delete, Basis::Overwrite, &Limits::default()).expect("within limits");
    write(&mut at_b, 1, B, put("v"), Basis::Overwrite);
    let met_first = met(&at_a, &at_b);
    assert!(met_first.is_tombstone());
    assert!(met_first.context().covers(&Dot::new(B, 1)), "gone for good");
    assert_eq!(met_first, met(&at_b, &at_a));
    assert!(met(&at_b, &met_first).is_tombstone());
}

#[test]
fn a_repetition_that_replaced_a_value_is_not_taken_back_with_it() {
    let (mut at_a, mut at_b) = (Record::default(), Record::default());
    write(&mut at_a, 1, A, put("v"), Basis::Overwrite);
    at_a.update(A, Change::Delete, Basis::Overwrite, &Limits::default()).expect("within limits");
    overwrite(&mut at_b, B, "acknowledged meanwhile");
    write(&mut at_b, 1, B, put("v"), Basis::Overwrite);
    assert_eq!(values(&met(&at_a, &at_b)), [b"v"], "or both values were lost");
}

/// The first attempt reaches `a` alone, which is behind; its repetition is done at `b` and replaced.
#[test]
fn what_a_repetition_was_done_for_is_over_for_its_first_attempt_too() {
    let (mut at_a, mut at_b) = (Record::default(), Record::default());
    overwrite(&mut at_a, A, "before");
    at_b.merge(&at_a);
    overwrite(&mut at_b, B, "what a has missed");
    write(&mut at_a, 1, A, put("v"), Basis::Overwrite);
    write(&mut at_b, 1, B, put("v"), Basis::Overwrite);
    assert_eq!(values(&met(&at_a, &at_b)), [b"v"]);
    let mut deleted = at_b.clone();
    deleted.update(B, Change::Delete, Basis::Overwrite, &Limits::default()).expect("a delete");
    assert!(met(&at_a, &deleted).is_tombstone(), "deleted for good");
    overwrite(&mut at_b, B, "later");
    assert_eq!(values(&met(&at_a, &at_b)), [b"later"]);
    assert_eq!(met(&at_a, &at_b), met(&at_b, &at_a));
}

/// Two coordinators each repeat over an attempt of their own; nobody else has replaced anything.
#[test]
fn attempts_that_follow_their_own_are_not_taken_along_by_those_of_others() {
    for causal in [false, true] {
        let (mut at_a, mut at_b) = (Record::default(), Record::default());
        for (record, actor) in [(&mut at_a, A), (&mut at_b, B)] {
            let first = write(record, 1, actor, put("v"), Basis::Overwrite);
            let seen = Basis::Causal(first.client_context);
            let basis = if causal { seen } else { Basis::Overwrite };
            write(record, 1, actor, put("v"), basis);
        }
        assert_eq!(values(&met(&at_a, &at_b)), [b"v"], "one event, and it is there");
    }
}

#[test]
fn the_second_attempt_of_an_overwrite_is_no_victim_of_the_first() {
    let (mut at_a, mut at_b) = (Record::default(), Record::default());
    overwrite(&mut at_b, B, "before");
    let first = write(&mut at_a, 1, A, put("v"), Basis::Overwrite);
    let sent = at_a.clone();
    let uncovered = at_b.uncovered_by(&sent).expect("it holds a value of its own");
    at_b.merge(&sent);
    let again = Basis::OverwriteAgain { first, uncovered };
    let second = write(&mut at_a, 1, A, put("v"), again);
    let both = met(&at_a, &at_b);
    assert_eq!(values(&both), [b"v"]);
    assert_eq!(both.event(&request(1, &put("v"))).dot, second.dot);
}

#[test]
fn doing_it_over_a_first_attempt_that_stands_keeps_the_value() {
    let mut record = Record::default();
    write(&mut record, 1, A, put("v"), Basis::Overwrite);
    write(&mut record, 1, B, put("v"), Basis::Overwrite);
    record.settle();
    assert_eq!(values(&record), [b"v"]);
}

#[test]
fn a_delete_is_remembered_too() {
    let mut record = Record::default();
    overwrite(&mut record, A, "v");
    write(&mut record, 1, A, Change::Delete, Basis::Overwrite);
    overwrite(&mut record, A, "written after it");
    assert_eq!(record.knows(&request(1, &Change::Delete)), Known::Repeated);
    let event = record.event(&request(1, &Change::Delete));
    assert_eq!((event.dot, event.dots.len()), (None, 0));
    record.settle();
    assert_eq!(values(&record), [b"written after it"]);
}

#[test]
fn the_latest_8_requests_are_kept_and_none_for_long() {
    let mut record = Record::default();
    for number in 0..10_u8 {
        let change = put(&number.to_string());
        let at_ms = 1_000_000 + u64::from(number) * 1_000;
        let request = Request::new(&[number; 16], &change, at_ms);
        record.update_as(request, A, change, Basis::Overwrite, &Limits::default()).expect("a put");
    }
    let knows = |record: &Record, number: u8| {
        record.knows(&request(number, &put(&number.to_string()))) == Known::Repeated
    };
    assert_eq!(
        (0..10).filter(|number| knows(&record, *number)).collect::<Vec<_>>(),
        [2, 3, 4, 5, 6, 7, 8, 9]
    );
    let much_later = 1_009_000 + u64::from(KEPT_SECONDS) * 1_000;
    let last = Request::new(&[99; 16], &put("last"), much_later);
    record.update_as(last, A, put("last"), Basis::Overwrite, &Limits::default()).expect("a put");
    assert_eq!(record.requests().len(), 2, "the one of two minutes ago and the new one");
}

/// What a dot was minted for, and what it replaced, does not depend on who holds it.
fn pair_of(dot: Dot) -> RequestPair {
    let id = dot.counter / 2;
    let below = |actor: u64, counter: u64| -> Context {
        (1..counter).map(|n| Dot::new(ActorId::new(actor), n)).collect()
    };
    let actor = dot.actor.get();
    let (replaced, covered) = match actor {
        1 => (Some(Context::new()), below(2, 4)),
        2 => (Some(below(2, dot.counter)), below(2, dot.counter)),
        _ if dot.counter.is_multiple_of(2) => (None, below(1, 3)),
        _ => (Some(below(1, dot.counter)), below(1, dot.counter).joined(&below(2, 2))),
    };
    RequestPair { at: 7, id, content: id, dot: Some(dot), replaced, covered }
}

/// Records with few pairs, whose dots are known.
fn record() -> impl Strategy<Value = Record> {
    let dot = || (1..4_u64, 1..4_u64).prop_map(|(a, n)| Dot::new(ActorId::new(a), n));
    let dots = prop::collection::btree_map(dot(), any::<bool>(), 0..4);
    dots.prop_map(|dots| {
        let mut record = Record::default();
        for (dot, alive) in dots {
            record.context.insert(dot);
            // What a dot was minted for does not depend on who holds it.
            record.requests.insert(pair_of(dot));
            if alive {
                let value = Bytes::from(format!("value of request {}", dot.counter / 2));
                record.siblings.insert(dot, Sibling { value, expires_at: None });
            }
        }
        record
    })
}

proptest! {
    /// As long as no pair is forgotten, it does not matter when and where events are settled.
    #[test]
    fn settling_early_or_late_comes_to_the_same(a in record(), b in record()) {
        let mut early = a.clone();
        early.settle();
        let mut other = b.clone();
        other.settle();
        let mut late = a.clone();
        late.merge(&b);
        prop_assume!(late.requests().len() < MAX_REQUESTS);
        late.settle();
        prop_assert_eq!(met(&early, &other), late.clone());
        let mut again = late.clone();
        prop_assert!(!again.settle(), "once is enough");
    }

    /// Merging with settling commutes, associates and is idempotent.
    #[test]
    fn settled_records_merge_in_any_order(a in record(), b in record(), c in record()) {
        let mut all = met(&a, &b);
        all.merge(&c);
        prop_assume!(all.requests().len() < MAX_REQUESTS);
        prop_assert_eq!(met(&a, &b), met(&b, &a));
        prop_assert_eq!(met(&met(&a, &b), &c), met(&a, &met(&b, &c)));
        let ab = met(&a, &b);
        prop_assert_eq!(met(&ab, &ab), ab.clone());
        prop_assert_eq!(met(&ab, &a), ab);
    }

    /// A pair that is forgotten leaves a twin standing, and takes nothing along.
    #[test]
    fn forgotten_pairs_lose_no_value(a in record(), b in record(), kept in any::<u16>()) {
        let mut merged = a.clone();
        merged.merge(&b);
        let mut knowing = merged.clone();
        knowing.settle();
        let mut number = 0;
        merged.requests.retain(|_| {
            number += 1;
            kept & (1 << number) != 0
        });
        merged.settle();
        for dot in knowing.siblings().keys() {
            prop_assert!(merged.siblings().contains_key(dot), "{} is lost", dot);
        }
    }

    #[test]
    fn settling_takes_only_what_others_replaced_as_well(a in record(), b in record()) {
        let mut merged = a.clone();
        merged.merge(&b);
        let mut settled = merged.clone();
        settled.settle();
        for dot in merged.siblings().keys().filter(|dot| !settled.siblings().contains_key(dot)) {
            let pair = merged.requests().iter().find(|pair| pair.dot == Some(*dot));
            let replaced = pair.and_then(|pair| pair.replaced.clone());
            // Each value that it replaced was covered by another attempt.
            let others = merged.requests().iter().filter(|other| {
                let same = pair.is_some_and(|pair| pair.id == other.id);
                same && other.dot.is_some_and(|twin| !settled.siblings().contains_key(&twin))
            });
            let covered = others
                .filter(|other| other.dot != Some(*dot))
                .fold(Context::new(), |all, other| all.joined(&other.covered));
            prop_assert!(replaced.is_some_and(|replaced| covered.covers_all(&replaced)));
        }
    }
}
