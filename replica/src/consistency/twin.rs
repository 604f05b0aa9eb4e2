//! The tallies against a deliberately dumb twin.
//!
//! The twin knows sides, subsets and nothing else: what is enough it reads off the definition
//! of D3, and what is impossible it finds by trying every set of members that could still
//! answer. It is compared on every small configuration in every state, and by random
//! schedules with repetitions, strangers and late answers on larger ones.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use triad_ring::{NodeId, ShardCount};

use super::*;
use crate::configuration::Epoch;
use crate::get::{GetAnswer, GetTally};
use crate::member::{ActorId, StoreId};
use crate::put::{PutAnswer, PutTally};
use crate::record::{Basis, Change, Limits, Record};

pub(crate) fn member(n: u8) -> Member {
    Member { node: NodeId::from_bytes([n; 16]), store: StoreId::from_bytes([n; 16]) }
}

fn configuration(phase: Phase) -> Configuration {
    let shard = ShardCount::default().iter().next().unwrap();
    let configuration = Configuration {
        shard,
        epoch: Epoch::FIRST,
        phase,
        gc_epoch: Epoch::NONE,
        collected: None,
        retired: Vec::new(),
    };
    configuration.validated().unwrap()
}

pub(crate) fn stable(members: &[u8]) -> Configuration {
    let members = members.iter().copied().map(member).collect();
    configuration(Phase::Stable { members })
}

pub(crate) fn joint(old: &[u8], new: &[u8]) -> Configuration {
    let old = old.iter().copied().map(member).collect();
    let new = new.iter().copied().map(member).collect();
    configuration(Phase::Joint { old, new })
}

type Side = BTreeSet<Member>;

/// The sides that must each be satisfied.
fn sides(configuration: &Configuration, operation: Operation) -> Vec<Side> {
    let set = |members: &[Member]| members.iter().copied().collect();
    match (&configuration.phase, operation) {
        (Phase::Stable { members }, _) => vec![set(members)],
        (Phase::Joint { old, .. }, Operation::Read) => vec![set(old)],
        (Phase::Joint { old, new }, Operation::Write) => vec![set(old), set(new)],
    }
}

fn suffices(level: Level, sides: &[Side], answered: &Side) -> bool {
    sides.iter().all(|side| {
        let count = side.intersection(answered).count();
        match level {
            Level::One => count >= 1,
            Level::Quorum => 2 * count > side.len(),
            Level::All => count == side.len(),
        }
    })
}

fn subsets(of: &Side) -> Vec<Side> {
    let mut all = vec![Side::new()];
    for member in of {
        let with: Vec<Side> =
            all.iter().map(|side| side.iter().chain([member]).copied().collect()).collect();
        all.extend(with);
    }
    all
}

fn dumb_verdict(level: Level, sides: &[Side], answered: &Side, failed: &Side) -> Verdict {
    if suffices(level, sides, answered) {
        return Verdict::Enough;
    }
    let everybody: Side = sides.iter().flatten().copied().collect();
    let open: Side = &(&everybody - answered) - failed;
    let could = |more: &Side| suffices(level, sides, &(answered | more));
    if subsets(&open).iter().any(could) { Verdict::Pending } else { Verdict::Impossible }
}

/// Every stable and joint configuration over the nodes 1..=n.
fn all_configurations(n: u8) -> Vec<Configuration> {
    let sides: Vec<Vec<u8>> = (1..1_u8 << n)
        .map(|bits| (1..=n).filter(|i| bits & (1 << (i - 1)) != 0).collect())
        .collect();
    let mut all: Vec<_> = sides.iter().map(|side| stable(side)).collect();
    for old in &sides {
        let others = sides.iter().filter(|new| *new != old);
        all.extend(others.map(|new| joint(old, new)));
    }
    all
}

const LEVELS: [Level; 3] = [Level::One, Level::Quorum, Level::All];

/// All ways in which some members answered, some failed and the rest is open.
fn all_states(members: &Side) -> Vec<(Side, Side)> {
    let states = subsets(members).into_iter();
    states
        .flat_map(|answered| {
            let failed = subsets(&(members - &answered)).into_iter();
            failed.map(move |failed| (answered.clone(), failed))
        })
        .collect()
}

fn put_verdict(level: Level, configuration: &Configuration, state: &(Side, Side)) -> Verdict {
    let mut tally = PutTally::new(level, configuration);
    for member in &state.1 {
        tally.record(*member, PutAnswer::Failed(Failure::Timeout));
    }
    for member in &state.0 {
        tally.record(*member, PutAnswer::Stored { uncovered: None });
    }
    tally.verdict()
}

fn get_verdict(level: Level, configuration: &Configuration, state: &(Side, Side)) -> Verdict {
    let mut tally = GetTally::new(level, configuration, Record::default());
    for member in &state.1 {
        tally.record(*member, GetAnswer::Failed(Failure::Timeout));
    }
    for member in &state.0 {
        tally.record(*member, GetAnswer::Same);
    }
    tally.verdict()
}

#[test]
fn every_state_of_every_small_configuration_is_judged_like_the_twin() {
    let everybody: Side = (1..=4).map(member).collect();
    let states = all_states(&everybody);
    for configuration in all_configurations(4) {
        for level in LEVELS {
            let write = sides(&configuration, Operation::Write);
            let read = sides(&configuration, Operation::Read);
            for state in &states {
                let dumb = |sides: &[Side]| dumb_verdict(level, sides, &state.0, &state.1);
                let context = || format!("{level} in {configuration}, {state:?}");
                assert_eq!(
                    put_verdict(level, &configuration, state),
                    dumb(&write),
                    "{}",
                    context()
                );
                assert_eq!(get_verdict(level, &configuration, state), dumb(&read), "{}", context());
            }
        }
    }
}

#[test]
fn needed_is_the_size_of_the_smallest_set_that_suffices() {
    let everybody: Side = (1..=5).map(member).collect();
    let mut candidates = subsets(&everybody);
    candidates.sort_by_key(BTreeSet::len);
    for configuration in all_configurations(5) {
        for (level, operation) in
            LEVELS.iter().flat_map(|level| [(*level, Operation::Read), (*level, Operation::Write)])
        {
            let sides = sides(&configuration, operation);
            let smallest = candidates
                .iter()
                .find(|answered| suffices(level, &sides, answered))
                .map(BTreeSet::len);
            let needed = Requirement::new(level, &configuration, operation).needed();
            assert_eq!(Some(needed), smallest, "{level} {operation:?} in {configuration}");
        }
    }
}

#[test]
fn a_quorum_read_meets_every_quorum_write_of_its_epoch() {
    for configuration in all_configurations(4) {
        let write = sides(&configuration, Operation::Write);
        let read = sides(&configuration, Operation::Read);
        let everybody: Side = (1..=4).map(member).collect();
        let quorums = |sides: &[Side]| -> Vec<Side> {
            let all = subsets(&everybody).into_iter();
            all.filter(|set| suffices(Level::Quorum, sides, set)).collect()
        };
        for written in quorums(&write) {
            for asked in quorums(&read) {
                let asked: Side = &asked & &read[0];
                assert!(!written.is_disjoint(&asked), "{configuration}");
            }
        }
    }
}

fn any_configuration() -> impl Strategy<Value = Configuration> {
    let side = || prop::collection::btree_set(1..=7_u8, 1..=5);
    (side(), prop::option::of(side())).prop_map(|(old, new)| {
        let list = |side: &BTreeSet<u8>| side.iter().copied().collect::<Vec<_>>();
        match new {
            Some(new) if new != old => joint(&list(&old), &list(&new)),
            _ => stable(&list(&old)),
        }
    })
}

/// Some records of one key that know more or less of each other.
fn some_records() -> Vec<Record> {
    let put = |mut record: Record, actor, basis| {
        let value = Bytes::from(format!("value of {actor}"));
        let change = Change::Put { value, expires_at: None };
        record.update(ActorId::new(actor), change, basis, &Limits::default()).unwrap();
        record
    };
    let absent = Record::default();
    let first = put(absent.clone(), 1, Basis::Overwrite);
    let concurrent = put(absent.clone(), 2, Basis::Overwrite);
    let after_first = put(first.clone(), 2, Basis::Overwrite);
    let mut both = first.clone();
    both.merge(&concurrent);
    vec![absent, first, concurrent, after_first, both]
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Fails(u8),
    Answers(u8, usize),
}

/// Answers in any order, repeated, of members and strangers (node 8 is none).
fn any_events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (1..=8_u8).prop_map(Event::Fails),
        (1..=8_u8, 0..5_usize).prop_map(|(node, record)| Event::Answers(node, record)),
    ];
    prop::collection::vec(event, 0..24)
}

/// Who answered, with its first answer, and who only failed.
fn dumb_count(events: &[Event], everybody: &Side) -> (BTreeMap<Member, usize>, Side) {
    let mut answered = BTreeMap::new();
    let mut failed = Side::new();
    for event in events {
        match *event {
            Event::Fails(node) => failed.insert(member(node)),
            Event::Answers(node, record) => {
                answered.entry(member(node)).or_insert(record);
                true
            }
        };
    }
    answered.retain(|member, _| everybody.contains(member));
    failed.retain(|member| everybody.contains(member) && !answered.contains_key(member));
    (answered, failed)
}

proptest! {
    #[test]
    fn a_put_is_counted_like_the_twin_whatever_the_order(
        configuration in any_configuration(),
        level in prop::sample::select(&LEVELS[..]),
        events in any_events(),
    ) {
        let sides = sides(&configuration, Operation::Write);
        let everybody: Side = sides.iter().flatten().copied().collect();
        let mut tally = PutTally::new(level, &configuration);
        for (n, event) in events.iter().enumerate() {
            let verdict = match *event {
                Event::Fails(node) => {
                    tally.record(member(node), PutAnswer::Failed(Failure::Unreachable))
                }
                Event::Answers(node, _) => {
                    tally.record(member(node), PutAnswer::Stored { uncovered: None })
                }
            };
            let (answered, failed) = dumb_count(&events[..=n], &everybody);
            let answered: Side = answered.into_keys().collect();
            prop_assert_eq!(verdict, dumb_verdict(level, &sides, &answered, &failed));
            prop_assert_eq!(tally.acknowledged(), answered.len());
            let missing: Side = tally.missing().into_iter().collect();
            prop_assert_eq!(missing, &everybody - &answered);
            let ok = |(member, result): (Member, ReplicaResult)| {
                (result == ReplicaResult::Ok).then_some(member)
            };
            prop_assert_eq!(tally.results().len(), everybody.len());
            let told: Side = tally.results().into_iter().filter_map(ok).collect();
            prop_assert_eq!(told, answered);
        }
    }

    #[test]
    fn a_get_merges_and_repairs_like_the_twin(
        configuration in any_configuration(),
        level in prop::sample::select(&LEVELS[..]),
        sent in 0..5_usize,
        events in any_events(),
    ) {
        let records = some_records();
        let sides = sides(&configuration, Operation::Read);
        let mut tally = GetTally::new(level, &configuration, records[sent].clone());
        for event in &events {
            match *event {
                Event::Fails(node) => {
                    tally.record(member(node), GetAnswer::Failed(Failure::Timeout))
                }
                Event::Answers(node, record) if record == sent => {
                    tally.record(member(node), GetAnswer::Same)
                }
                Event::Answers(node, record) => {
                    tally.record(member(node), GetAnswer::Record(records[record].clone()))
                }
            };
        }
        let (held, failed) = dumb_count(&events, &sides[0]);
        let answered: Side = held.keys().copied().collect();
        prop_assert_eq!(tally.verdict(), dumb_verdict(level, &sides, &answered, &failed));
        let mut merged = Record::default();
        for record in held.values() {
            merged.merge(&records[*record]);
        }
        prop_assert_eq!(tally.merged(), &merged);
        let behind = held.iter().filter(|(_, record)| records[**record] != merged);
        let behind: Vec<Member> = behind.map(|(member, _)| *member).collect();
        prop_assert_eq!(tally.diverged(), !behind.is_empty());
        prop_assert_eq!(tally.repairs(), behind);
        let distinct: BTreeSet<usize> = held.values().copied().collect();
        prop_assert_eq!(tally.diverged(), distinct.len() > 1);
    }
}
