//! What holds for all records: the laws of merging, the limits, and the byte format.

use super::*;
use proptest::prelude::*;

const A: ActorId = ActorId::new(0xa);
const B: ActorId = ActorId::new(0xb);

fn put(value: &str) -> Change {
    Change::Put { value: Bytes::copy_from_slice(value.as_bytes()), expires_at: None }
}

fn write(record: &mut Record, actor: ActorId, change: Change, basis: Basis) -> Updated {
    record.update(actor, change, basis, &Limits::default()).unwrap()
}

fn values(record: &Record) -> Vec<&[u8]> {
    record.siblings().values().map(|sibling| &*sibling.value).collect()
}

/// A value under this dot, and the context of a record that has seen so many writes of `A`.
fn single(dot: Dot, value: &str, expires_at: Option<u64>, seen: u64) -> Record {
    let value = Bytes::copy_from_slice(value.as_bytes());
    let context = (1..=seen).map(|counter| Dot::new(A, counter)).chain([dot]).collect();
    let siblings = BTreeMap::from([(dot, Sibling { value, expires_at })]);
    Record { siblings, context, ..Record::default() }
}

#[test]
fn records_that_differ_in_one_thing_alone_have_other_digests() {
    let record = single(Dot::new(A, 2), "v", Some(9), 3);
    let others = [
        single(Dot::new(A, 2), "w", Some(9), 3), // a value that rotted
        single(Dot::new(A, 2), "v", Some(8), 3),
        single(Dot::new(A, 2), "v", None, 3),
        single(Dot::new(A, 2), "v", Some(9), 4), // a write that was deleted meanwhile
        single(Dot::new(A, 3), "v", Some(9), 3), // the dot alone, under the same context
        Record { siblings: BTreeMap::new(), ..record.clone() }, // a tombstone
    ];
    for other in others {
        assert_ne!(record.digest(), other.digest(), "{other:?}");
    }
    let seen: Context = [Dot::new(A, 1), Dot::new(B, 1)].into_iter().collect();
    let of = |actor| Record { context: seen.clone(), ..single(Dot::new(actor, 1), "v", None, 0) };
    assert_ne!(of(A).digest(), of(B).digest());
}

#[test]
fn what_covers_some_dots_removes_these_and_nothing_else() {
    let mut record = Record::default();
    for value in ["one", "two", "three"] {
        write(&mut record, A, put(value), Basis::Causal(Context::new()));
    }
    record.merge(&Record::covering([Dot::new(A, 2)]));
    assert_eq!(values(&record), [&b"one"[..], b"three"]);
    assert!(!Record::covering([Dot::new(A, 2)]).context().covers(&Dot::new(A, 3)));
}

#[test]
fn a_put_without_context_replaces_what_is_there() {
    let mut record = Record::default();
    write(&mut record, A, put("one"), Basis::Overwrite);
    let second = write(&mut record, A, put("two"), Basis::Overwrite);
    assert_eq!(values(&record), [b"two"]);
    assert_eq!(second.dot, Some(Dot::new(A, 2)));
    assert_eq!(&second.client_context, record.context());
}

#[test]
fn two_puts_with_the_same_old_context_are_siblings_until_one_has_seen_both() {
    let mut record = Record::default();
    let old = write(&mut record, A, put("base"), Basis::Overwrite).client_context;
    let left = write(&mut record, A, put("left"), Basis::Causal(old.clone()));
    let right = write(&mut record, A, put("right"), Basis::Causal(old));
    assert_eq!(values(&record), [&b"left"[..], b"right"]);
    // The second writer has not seen the first one's value, though the same actor minted it.
    let left_dot = left.dot.unwrap();
    assert!(!right.client_context.covers(&left_dot));
    write(&mut record, A, put("right again"), Basis::Causal(right.client_context));
    assert_eq!(values(&record), [&b"left"[..], b"right again"]);
    let seen_both = record.context().clone();
    write(&mut record, A, put("both"), Basis::Causal(seen_both));
    assert_eq!(values(&record), [b"both"]);
}

#[test]
fn a_delete_leaves_a_tombstone_and_a_stale_put_brings_nothing_older_back() {
    let mut here = Record::default();
    let stale = write(&mut here, A, put("old"), Basis::Overwrite).client_context;
    let there = here.clone();
    write(&mut here, A, put("newer"), Basis::Causal(stale.clone()));
    let seen = here.context().clone();
    let deleted = write(&mut here, A, Change::Delete, Basis::Causal(seen));
    assert_eq!(deleted.dot, None);
    assert!(here.is_tombstone());
    // The replica that missed everything has nothing to add.
    here.merge(&there);
    assert!(here.is_tombstone());
    write(&mut here, A, put("stale"), Basis::Causal(stale));
    assert_eq!(values(&here), [b"stale"]);
}

#[test]
fn deleting_a_key_never_written_leaves_no_row() {
    let mut record = Record::default();
    write(&mut record, A, Change::Delete, Basis::Overwrite);
    assert!(record.is_absent());
    assert!(!record.is_tombstone());
}

/// Both coordinators begin with nothing, store, and send each other their record.
#[test]
fn two_concurrent_overwrites_that_cover_each_other_both_survive() {
    let (mut at_a, mut at_b) = (Record::default(), Record::default());
    let first_a = write(&mut at_a, A, put("from a"), Basis::Overwrite);
    let first_b = write(&mut at_b, B, put("from b"), Basis::Overwrite);
    let (sent_a, sent_b) = (at_a.clone(), at_b.clone());
    let told_a = at_b.uncovered_by(&sent_a).expect("b holds its own put");
    let told_b = at_a.uncovered_by(&sent_b).expect("a holds its own put");
    at_b.merge(&sent_a);
    at_a.merge(&sent_b);
    let again = |first, uncovered| Basis::OverwriteAgain { first, uncovered };
    let second_a = write(&mut at_a, A, put("from a"), again(first_a, told_a));
    let second_b = write(&mut at_b, B, put("from b"), again(first_b, told_b));
    assert_ne!(second_a.dot, Some(Dot::new(A, 1)), "a new dot, not the same once more");
    assert!(second_b.dot.is_some());
    at_a.merge(&at_b);
    at_b.merge(&at_a);
    assert_eq!(at_a, at_b);
    assert_eq!(values(&at_a), [&b"from a"[..], b"from b"]);
}

#[test]
fn a_second_attempt_never_covers_what_came_after_the_first() {
    let mut coordinator = Record::default();
    let mut other = Record::default();
    write(&mut other, B, put("acknowledged elsewhere"), Basis::Overwrite);
    let first = write(&mut coordinator, A, put("overwrite"), Basis::Overwrite);
    let uncovered = other.uncovered_by(&coordinator).unwrap();
    other.merge(&coordinator);
    // A client reads the overwrite before it is acknowledged, and goes on from there.
    let seen = Basis::Causal(first.client_context.clone());
    write(&mut coordinator, A, put("built upon it"), seen);
    // Wherever that has arrived, nothing is asked for.
    let mut third = coordinator.clone();
    write(&mut third, ActorId::new(0xc), put("another"), Basis::Causal(Context::new()));
    let mut sent = Record::default();
    write(&mut sent, A, put("overwrite"), Basis::Overwrite);
    assert_eq!(third.uncovered_by(&sent), None);
    // And the second attempt changes nothing any more.
    let again = Basis::OverwriteAgain { first: first.clone(), uncovered };
    let second = write(&mut coordinator, A, put("overwrite"), again);
    assert_eq!(second, first);
    coordinator.merge(&other);
    assert_eq!(values(&coordinator), [&b"built upon it"[..], b"acknowledged elsewhere"]);
}

/// Three overwrites, each of which meets the next: a is replaced by c while it is told of b, b is
/// told of c.
#[test]
fn overwrites_that_are_replaced_meanwhile_delete_nothing() {
    let again = |first, uncovered| Basis::OverwriteAgain { first, uncovered };
    let (mut at_a, mut at_b, mut at_c) = (Record::default(), Record::default(), Record::default());
    let c = ActorId::new(0xc);
    let first_a = write(&mut at_a, A, put("from a"), Basis::Overwrite);
    let first_b = write(&mut at_b, B, put("from b"), Basis::Overwrite);
    let told_a = at_b.uncovered_by(&at_a).expect("b holds its own put");
    at_c.merge(&at_a);
    write(&mut at_c, c, put("from c"), Basis::Overwrite);
    let told_b = at_c.uncovered_by(&at_b).expect("c holds its own put");
    at_a.merge(&at_c);
    write(&mut at_a, A, put("from a"), again(first_a, told_a));
    at_b.merge(&at_a);
    write(&mut at_b, B, put("from b"), again(first_b, told_b));
    for other in [&at_a, &at_b] {
        at_c.merge(other);
    }
    assert_eq!(values(&at_c), [b"from b"], "one of the three remains");
}

/// One replica alone knows of a delete; the value it hides was acknowledged.
#[test]
fn an_overwrite_learns_of_what_an_unfinished_delete_hides() {
    let mut stored = Record::default();
    write(&mut stored, B, put("acknowledged"), Basis::Overwrite);
    let mut deleted = stored.clone();
    write(&mut deleted, B, Change::Delete, Basis::Overwrite);
    let mut coordinator = Record::default();
    let first = write(&mut coordinator, A, put("overwrite"), Basis::Overwrite);
    let uncovered = deleted.uncovered_by(&coordinator).expect("it has seen more");
    let again = Basis::OverwriteAgain { first, uncovered };
    write(&mut coordinator, A, put("overwrite"), again);
    stored.merge(&coordinator);
    assert_eq!(values(&stored), [b"overwrite"]);
}

#[test]
fn a_causal_put_beyond_the_sibling_limit_is_refused_without_effect() {
    let limits = Limits { siblings: 3, ..Limits::default() };
    let mut record = Record::default();
    let blind = || Basis::Causal(Context::new());
    for value in ["1", "2", "3"] {
        record.update(A, put(value), blind(), &limits).unwrap();
    }
    let before = record.clone();
    let refused = record.update(A, put("4"), blind(), &limits);
    assert_eq!(refused, Err(UpdateError::SiblingLimit { siblings: 4, limit: 3 }));
    assert_eq!(record, before);
    // A put that replaces one, an overwriting put and a delete go on.
    let one = Basis::Causal([Dot::new(A, 1)].into_iter().collect());
    record.update(A, put("4"), one, &limits).unwrap();
    assert_eq!(record.siblings().len(), 3);
    record.update(A, put("5"), Basis::Overwrite, &limits).unwrap();
    assert_eq!(values(&record), [b"5"]);
}

#[test]
fn a_full_context_takes_no_new_entry_and_still_serves_those_it_names() {
    let limits = Limits { context_entries: 2, ..Limits::default() };
    let mut record = Record::default();
    for actor in [A, B] {
        record.update(actor, put("v"), Basis::Overwrite, &limits).unwrap();
    }
    let before = record.clone();
    let third = record.update(ActorId::new(0xc), put("v"), Basis::Overwrite, &limits);
    assert_eq!(third, Err(UpdateError::ContextLimit { entries: 3, limit: 2 }));
    let foreign = Basis::Causal([Dot::new(ActorId::new(0xd), 4)].into_iter().collect());
    let foreign = record.update(A, Change::Delete, foreign, &limits);
    assert_eq!(foreign, Err(UpdateError::ContextLimit { entries: 3, limit: 2 }));
    assert_eq!(record, before);
    record.update(A, put("v"), Basis::Overwrite, &limits).unwrap();
    record.update(A, Change::Delete, Basis::Overwrite, &limits).unwrap();
    assert!(record.is_tombstone());
}

#[test]
fn an_actor_whose_numbers_are_used_up_mints_no_more() {
    let mut record = Record::default();
    let last = [Dot::new(A, u64::MAX)].into_iter().collect();
    let refused = record.update(A, put("v"), Basis::Causal(last), &Limits::default());
    assert!(matches!(refused, Err(UpdateError::ContextLimit { .. })));
    assert!(record.is_absent());
}

/// Records as the rules make them: a dot names one value wherever it appears.
fn record() -> impl Strategy<Value = Record> {
    let dot = || (1..4_u64, 1..5_u64).prop_map(|(a, n)| Dot::new(ActorId::new(a), n));
    let dots = move |n| prop::collection::btree_set(dot(), 0..n);
    let context = move || dots(4).prop_map(|dots| dots.into_iter().collect::<Context>());
    let replaced = (prop::option::of(context()), context());
    let pair = (0..4_u32, 0..12_u64, prop::option::of(dot()), replaced);
    let pair = pair.prop_map(|(at, id, dot, (replaced, covered))| RequestPair {
        at,
        id,
        content: id / 2,
        dot,
        replaced,
        covered,
    });
    let requests = prop::collection::btree_set(pair, 0..=MAX_REQUESTS);
    (dots(8), dots(5), requests).prop_map(|(seen, alive, requests)| {
        let sibling = |dot: Dot| Sibling {
            value: Bytes::from(format!("value of {dot}")),
            expires_at: dot.counter.is_multiple_of(2).then_some(dot.counter * 1_000),
        };
        Record {
            context: seen.iter().chain(&alive).copied().collect(),
            siblings: alive.into_iter().map(|dot| (dot, sibling(dot))).collect(),
            requests,
        }
    })
}

fn merged(left: &Record, right: &Record) -> Record {
    let mut merged = left.clone();
    merged.merge(right);
    merged
}

proptest! {
    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        a in record(), b in record(), c in record(),
    ) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &a), a.clone());
        prop_assert_eq!(merged(&a, &Record::default()), a.clone());
        let ab = merged(&a, &b);
        prop_assert_eq!(merged(&ab, &b), ab.clone());
        prop_assert!(ab.requests.len() <= MAX_REQUESTS);
    }

    #[test]
    fn merging_tells_whether_anything_changed(a in record(), b in record()) {
        let mut into = a.clone();
        let changed = into.merge(&b);
        prop_assert_eq!(changed, into != a);
    }

    #[test]
    fn a_sibling_goes_only_by_a_context_that_covers_it(a in record(), b in record()) {
        let ab = merged(&a, &b);
        for (dot, sibling) in a.siblings().iter().chain(b.siblings()) {
            let stays = |r: &Record| r.siblings().contains_key(dot) || !r.context().covers(dot);
            prop_assert_eq!(ab.siblings().get(dot) == Some(sibling), stays(&a) && stays(&b));
        }
        prop_assert!(ab.siblings().keys().all(|dot| ab.context().covers(dot)));
    }

    #[test]
    fn a_digest_names_the_content_and_not_the_requests(a in record(), b in record()) {
        prop_assert_eq!(a.digest() == b.digest(), a.same_content(&b));
        let without_requests = Record { requests: BTreeSet::new(), ..a.clone() };
        prop_assert_eq!(a.digest(), without_requests.digest());
    }

    #[test]
    fn a_record_survives_its_bytes_and_shares_them(a in record()) {
        let row = a.encode();
        prop_assert!(row.len() <= a.encoded_len());
        let decoded = Record::decode(row.clone()).unwrap();
        prop_assert_eq!(&decoded, &a);
        prop_assert_eq!(decoded.encode(), row.clone());
        let memory = row.as_ptr_range();
        for sibling in decoded.siblings().values() {
            prop_assert!(memory.contains(&sibling.value.as_ptr()), "the value was copied");
        }
    }

    #[test]
    fn a_row_with_a_turned_bit_is_damaged(
        a in record(), at in any::<prop::sample::Index>(), bit in 0..8_u32,
    ) {
        let mut row = a.encode().to_vec();
        let at = at.index(row.len());
        row[at] ^= 1 << bit;
        prop_assert_eq!(Record::decode(row.into()), Err(DecodeError::Damaged));
    }

    #[test]
    fn a_row_with_an_overwritten_stretch_is_damaged(
        a in record(), at in any::<prop::sample::Index>(), noise in any::<[u8; 4]>(),
    ) {
        // Up to 32 bits in a row: a CRC-32 finds every such burst.
        let mut row = a.encode().to_vec();
        let at = at.index(row.len());
        for (byte, noise) in row[at..].iter_mut().zip(noise) {
            *byte ^= noise;
        }
        let intact = row == a.encode();
        prop_assert_eq!(Record::decode(row.into()) == Err(DecodeError::Damaged), !intact);
    }

    #[test]
    fn a_row_cut_short_is_damaged(a in record(), at in any::<prop::sample::Index>()) {
        let row = a.encode();
        let at = at.index(row.len());
        prop_assert_eq!(Record::decode(row.slice(..at)), Err(DecodeError::Damaged));
    }

    #[test]
    fn forged_content_under_a_good_checksum_is_refused_or_read_as_it_is(
        mut body in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..60),
        version in prop_oneof![6 => Just(2_u8), 3 => Just(1_u8), 1 => any::<u8>()],
    ) {
        body.insert(0, version);
        let checksum = crc32fast::hash(&body);
        body.extend(checksum.to_be_bytes());
        let row = Bytes::from(body);
        match Record::decode(row.clone()) {
            Ok(record) if version == 1 => {
                prop_assert_eq!(Record::decode(record.encode()), Ok(record));
            }
            Ok(record) => prop_assert_eq!(record.encode(), row),
            Err(error) => prop_assert_ne!(error, DecodeError::Damaged),
        }
    }
}

/// Lengths and counts that claim exabytes, each under a good checksum.
#[test]
fn forged_lengths_allocate_nothing() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let one_dot = [&[1][..], &[0; 8], &[1], &[0]].concat();
    let sibling = [&[1][..], &[0; 8], &[1], &[0]].concat();
    let bodies = [
        [&[1][..], &huge].concat(),
        [&[1, 0][..], &huge].concat(),
        [&[1, 0, 0][..], &huge].concat(),
        [&[1][..], &one_dot, &sibling, &huge].concat(),
        [&[1, 0, 0, 0][..], &huge].concat(),
    ];
    for mut row in bodies {
        let checksum = crc32fast::hash(&row);
        row.extend(checksum.to_be_bytes());
        let error = Record::decode(row.into()).unwrap_err();
        assert!(error.to_string().contains("the input ends within"), "{error}");
    }
}

fn row(body: &[u8]) -> Bytes {
    Bytes::from([body, &crc32fast::hash(body).to_be_bytes()].concat())
}

#[test]
fn the_second_format_is_pinned() {
    let mut record = Record::default();
    write(&mut record, A, put("v"), Basis::Overwrite);
    let body = b"\x02\x01\0\0\0\0\0\0\0\x0a\x01\0\x01\0\0\0\0\0\0\0\x0a\x01\0\x01v\0";
    assert_eq!(record.encode(), row(body));

    let [a, b] = [1, 2].map(|counter| Dot::new(A, counter));
    let pair = RequestPair {
        at: 7,
        id: 8,
        content: 9,
        dot: Some(b),
        replaced: Some([a].into_iter().collect()),
        covered: [a].into_iter().collect(),
    };
    let unknown = RequestPair { id: 9, replaced: None, covered: Context::new(), ..pair.clone() };
    record.requests = [pair, unknown].into();
    let first = b"\0\0\0\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x09\x01\0\0\0\0\0\0\0\x0a\x02";
    let facts = b"\x01\0\0\0\0\0\0\0\x0a\x01\0";
    let second = b"\0\0\0\x07\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x09\x03\0\0\0\0\0\0\0\x0a\x02\0\0";
    let body = [&body[..body.len() - 1], b"\x02", first, facts, facts, second].concat();
    assert_eq!(record.encode(), row(&body));
    assert_eq!(Record::decode(row(&body)), Ok(record));
}

#[test]
fn the_first_format_is_still_read() {
    let mut record = Record::default();
    write(&mut record, A, put("v"), Basis::Overwrite);
    let body = b"\x01\x01\0\0\0\0\0\0\0\x0a\x01\0\x01\0\0\0\0\0\0\0\x0a\x01\0\x01v\0";
    assert_eq!(Record::decode(row(body)), Ok(record.clone()));
    // One request that replaced nothing, and one of which only that is known that it did.
    let pair = |id: &[u8], flags: &[u8]| {
        let dot = b"\0\0\0\0\0\0\0\x0a\x01";
        [b"\0\0\0\x07", id, b"\0\0\0\0\0\0\0\x09", flags, dot].concat()
    };
    let (first, second) = (pair(&[1; 8], b"\x01"), pair(&[2; 8], b"\x03"));
    let body = [&body[..body.len() - 1], b"\x02", &first, &second].concat();
    let read = Record::decode(row(&body)).expect("the first format");
    let replaced: Vec<_> = read.requests.iter().map(|pair| pair.replaced.clone()).collect();
    assert_eq!(replaced, [Some(Context::new()), None]);
    assert!(read.same_content(&record));
}

#[test]
fn a_second_attempt_covers_nothing_in_a_record_that_has_forgotten_the_first() {
    let limits = Limits::default();
    let value = |value| Change::Put { value, expires_at: None };
    let mut first_record = Record::default();
    let first =
        first_record.update(ActorId::new(1), value("v".into()), Basis::Overwrite, &limits).unwrap();
    let uncovered = first_record.context().clone();
    let mut forgotten = Record::default();
    let basis = Basis::OverwriteAgain { first: first.clone(), uncovered };
    let again = forgotten.update(ActorId::new(2), value("v".into()), basis, &limits).unwrap();
    assert_eq!(again, first);
    first_record.merge(&forgotten);
    assert_eq!(first_record.siblings().len(), 1, "the first attempt stands where it is held");
}
