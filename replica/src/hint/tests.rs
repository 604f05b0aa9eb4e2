use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use triad_ring::{NodeId, ShardId};

use super::*;
use crate::address::Address;
use crate::consistency::twin::{member, stable};
use crate::member::{ActorId, Member};
use crate::record::{Basis, Change, Limits};

const NOW: Duration = Duration::from_secs(100);
const LIMITS: HintLimits = HintLimits { bytes: 1_000, count: 4, age_ms: 60_000 };

fn at(shard: u32, key: &'static str) -> Address {
    Address { shard: ShardId::new(shard), bucket: "b".into(), key: key.into() }
}

fn epoch(number: u64) -> Epoch {
    Epoch { lineage: 1, number }
}

fn anybody(_: &Member, _: ShardId) -> bool {
    true
}

fn entry(bytes: u64, stamp: u64) -> HeldEntry {
    HeldEntry { bytes, stamp: epoch(stamp), actor: None }
}

fn put(record: &Record, actor: u64, value: &'static str, basis: Basis) -> Record {
    let mut record = record.clone();
    let change = Change::Put { value: Bytes::from_static(value.as_bytes()), expires_at: None };
    record.update(ActorId::new(actor), change, basis, &Limits::default()).unwrap();
    record
}

fn held(stamp: u64, record: &Record) -> HeldRecord {
    HeldRecord { stamp: epoch(stamp), since_ms: stamp, record: record.clone() }
}

#[test]
fn rows_read_back_and_garbage_does_not() {
    let row = held(7, &put(&Record::default(), 1, "v", Basis::Overwrite));
    assert_eq!(HeldRecord::decode(row.encode()), Ok(row.clone()));
    assert_eq!(HeldRecord::decode(Bytes::from_static(b"\x01short")), Err(BadHint::Short));
    let mut other = row.encode().to_vec();
    other[0] = 9;
    assert_eq!(HeldRecord::decode(other.into()), Err(BadHint::Version(9)));
    assert_eq!(decode_courtesy(&encode_courtesy(5)), Ok(5));
    assert_eq!(decode_floor(&encode_floor(epoch(3))), Ok(epoch(3)));
    assert_eq!(decode_floor(&encode_courtesy(3)), Err(BadHint::Short));
}

#[test]
fn a_merged_record_is_as_old_as_what_it_took_in() {
    let first = put(&Record::default(), 1, "first", Basis::Overwrite);
    let replaced = put(&first, 2, "replaced", Basis::Overwrite);
    let beside = put(&Record::default(), 3, "beside", Basis::Overwrite);

    let mut newer = held(1, &first);
    assert_eq!(newer.merge(&held(5, &replaced)), None);
    assert_eq!((newer.stamp, &newer.record), (epoch(5), &replaced), "nothing of the old is left");

    let mut same = held(5, &replaced);
    same.merge(&held(1, &first));
    assert_eq!(same.stamp, epoch(5), "the late one brought nothing");

    let mut mixed = held(5, &replaced);
    let uncovered = mixed.merge(&held(2, &beside));
    assert_eq!(mixed.stamp, epoch(2));
    assert_eq!(uncovered.as_ref(), Some(replaced.context()));
    assert_eq!(mixed.record.siblings().len(), 2);
}

#[test]
fn a_key_is_noted_once_for_each_member_and_goes_when_delivered_in_its_last_state() {
    let mut book = HintBook::new(LIMITS);
    assert_eq!(book.note(member(1), &at(1, "a"), 10, 0), Noted::New);
    assert_eq!(book.note(member(2), &at(1, "a"), 10, 0), Noted::New);
    let due = book.due_courtesy(member(1), NOW, 9);
    assert_eq!(due.len(), 1);
    assert_eq!(book.note(member(1), &at(1, "a"), 10, 0), Noted::Known, "written again meanwhile");
    assert!(!book.courtesy_delivered(member(1), &due[0]), "what was delivered is not the newest");
    let due = book.due_courtesy(member(1), NOW, 9);
    assert!(book.courtesy_delivered(member(1), &due[0]));
    assert_eq!(book.targets(), [member(2)]);
    assert_eq!(book.totals(), HintTotals { courtesy: 1, held: 0, bytes: 10 });
}

#[test]
fn courtesy_hints_are_bounded_in_number_bytes_and_age() {
    let mut book = HintBook::new(LIMITS);
    for key in ["a", "b", "c", "d"] {
        assert_eq!(book.note(member(1), &at(1, key), 10, 1_000), Noted::New);
    }
    assert_eq!(book.note(member(1), &at(1, "e"), 10, 1_000), Noted::Full, "too many");
    assert_eq!(book.drop_needless(61_000, anybody), Dropped::default());
    let dropped = book.drop_needless(61_001, anybody);
    assert_eq!((dropped.rows.len(), dropped.given_up), (4, 4));
    assert_eq!(book.totals(), HintTotals::default());
    assert_eq!(book.note(member(1), &at(1, "a"), 1_001, 1_000), Noted::Full, "too large");
}

#[test]
fn what_was_noted_for_a_former_member_is_dropped_and_not_counted_as_given_up() {
    let mut book = HintBook::new(LIMITS);
    for (target, shard) in [(1, 1), (1, 2), (2, 1)] {
        assert_eq!(book.note(member(target), &at(shard, "a"), 10, 0), Noted::New);
    }
    let replaced = |target: &Member, shard| (*target, shard) != (member(1), ShardId::new(1));
    let dropped = book.drop_needless(0, replaced);
    assert_eq!(dropped, Dropped { rows: vec![(member(1), at(1, "a"))], given_up: 0 });
    assert_eq!(book.totals(), HintTotals { courtesy: 2, held: 0, bytes: 20 });
    assert_eq!(book.due_courtesy(member(1), NOW, 9)[0].at, at(2, "a"), "its other shards stay");
}

#[test]
fn held_records_need_no_room_of_courtesy_hints_which_make_way() {
    let mut book = HintBook::new(LIMITS);
    assert_eq!(book.note(member(1), &at(1, "a"), 600, 0), Noted::New);
    assert!(book.has_room(700, 1));
    book.hold(at(1, "h"), entry(700, 1));
    assert!(!book.has_room(301, 0) && book.has_room(300, 1), "held records bound themselves");
    assert_eq!(book.drop_needless(0, anybody).rows, [(member(1), at(1, "a"))]);
    assert_eq!(book.totals(), HintTotals { courtesy: 0, held: 1, bytes: 700 });
    for key in ["i", "j", "k"] {
        book.hold(at(1, key), entry(1, 1));
    }
    assert!(!book.has_room(1, 1) && book.has_room(1, 0));
}

#[test]
fn what_failed_waits_longer_each_time_until_the_node_is_back() {
    let mut book = HintBook::new(LIMITS);
    book.note(member(1), &at(1, "a"), 10, 0);
    book.postpone_courtesy(member(1), &at(1, "a"), NOW);
    assert_eq!(book.due_courtesy(member(1), NOW, 9), []);
    assert_eq!(book.due_courtesy(member(1), NOW + Duration::from_millis(250), 9).len(), 1);
    for _ in 0..10 {
        book.postpone_courtesy(member(1), &at(1, "a"), NOW);
    }
    assert_eq!(book.due_courtesy(member(1), NOW + Duration::from_secs(4), 9), []);
    book.wake(member(1).node);
    assert_eq!(book.due_courtesy(member(1), NOW, 9).len(), 1);
}

#[test]
fn a_held_record_is_for_every_member_of_one_epoch() {
    let mut book = HintBook::new(LIMITS);
    book.hold(at(1, "a"), entry(10, 1));
    let mut configuration = stable(&[1, 2, 3]);
    configuration.epoch = epoch(4);
    let [due] = book.due_held(NOW, 9).try_into().unwrap();
    for number in [1, 2] {
        book.delivered(&due, epoch(4), member(number));
    }
    assert_eq!(book.lacking(&due, &configuration), [member(3)]);
    configuration.epoch = epoch(5);
    assert_eq!(book.lacking(&due, &configuration).len(), 3, "counted anew");
    book.delivered(&due, epoch(5), member(3));
    assert_eq!(book.lacking(&due, &configuration), [member(1), member(2)]);

    book.hold(at(1, "a"), entry(20, 1));
    assert!(!book.is_unchanged(&due));
    assert_eq!(book.lacking(&due, &configuration).len(), 3, "nobody has the new state");
    book.delivered(&due, epoch(5), member(1));
    assert_eq!(book.lacking(&due, &configuration).len(), 3, "an answer to the old one");
    book.release(&at(1, "a"));
    assert_eq!(book.totals(), HintTotals::default());
}

#[test]
fn after_the_promise_to_hold_nothing_of_an_epoch_new_ones_are_stamped_later() {
    let mut book = HintBook::new(LIMITS);
    let shard = ShardId::new(1);
    book.hold(at(1, "a"), entry(10, 7));
    book.hold(at(1, "b"), entry(10, 5));
    book.hold(at(2, "a"), entry(10, 3));
    assert_eq!(book.oldest_stamp(shard), Some(epoch(5)));
    assert_eq!(book.oldest_stamp(ShardId::new(0)), None);
    assert_eq!(book.stamp_of_mint(shard, epoch(2)), epoch(2));
    book.raise_floor(shard, epoch(4));
    book.raise_floor(shard, epoch(3));
    assert_eq!(book.stamp_of_mint(shard, epoch(2)), epoch(5));
    assert_eq!(book.stamp_of_mint(shard, epoch(9)), epoch(9));
}

proptest! {
    /// Whatever is noted, delivered and dropped, in whatever order: sums are right, walks meet
    /// every hint, and nothing passes the limits.
    #[test]
    fn the_book_is_its_own_sum(steps in prop::collection::vec((0u8..6, 0u8..3, 0u8..6), 0..200)) {
        let mut book = HintBook::new(LIMITS);
        let mut known: BTreeSet<(Member, Address)> = BTreeSet::new();
        for (step, target, key) in steps {
            let target = Member { node: NodeId::from_bytes([target; 16]), ..member(0) };
            let at = at(u32::from(key) / 2, ["a", "b", "c", "d", "e", "f"][usize::from(key)]);
            match step {
                0..=2 => {
                    let noted = book.note(target, &at, 10, 0);
                    prop_assert_eq!(noted == Noted::Known, known.contains(&(target, at.clone())));
                    if noted == Noted::New {
                        known.insert((target, at));
                    }
                }
                3 => {
                    let seen: Vec<Due> = (0..3).flat_map(|_| book.due_courtesy(target, NOW, 2)).collect();
                    for due in seen {
                        prop_assert!(known.contains(&(target, due.at)));
                    }
                }
                4 => {
                    for due in book.due_courtesy(target, NOW, 1) {
                        prop_assert!(book.courtesy_delivered(target, &due));
                        known.remove(&(target, due.at));
                    }
                }
                _ => {
                    prop_assert_eq!(book.drop_courtesy(target, &at), known.remove(&(target, at)));
                }
            }
            let totals = book.totals();
            prop_assert_eq!(totals.courtesy, known.len() as u64);
            prop_assert_eq!(totals.bytes, 10 * known.len() as u64);
            prop_assert!(known.len() <= LIMITS.count);
        }
    }
}
