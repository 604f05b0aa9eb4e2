//! Ballots, acceptances, and telling what is decided.

use std::collections::BTreeMap;

use triad_replica::configuration::{Configuration, majority};
use triad_replica::member::Member;
use triad_replica::message::{Base, Removal, RemovalReason, Report, ShardReply};
use triad_replica::paxos::{Choice, Proposer};
use triad_replica::transfer::{Plan, Step, next_step};
use triad_ring::NodeId;

use super::model::Action;
use super::{Driver, Scenario, State, index_of, member};
use crate::shared::Shared;

/// What a driver wants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Want {
    /// To end a move, with what all stores report.
    Forward,
    /// To end a move, without having heard of anybody.
    GivingUp,
    /// To have the same members decided again.
    SameAgain,
    /// One of the scenario's sets of members, with former ones written off or not.
    Wish(usize, WrittenOff),
    /// The end of the round that everybody vouched for.
    Collect,
}

/// Whether former members are waited for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum WrittenOff {
    Nobody,
    All,
}

pub(super) fn actions(scenario: &Scenario, state: &State, actions: &mut Vec<Action>) {
    begin(scenario, state, actions);
    for (at, driver) in state.drivers.iter().enumerate() {
        let Some(driver) = driver else {
            continue;
        };
        for silent in driver.proposer.silent() {
            let to = index_of(&silent);
            if !state.store(to).lost {
                actions.push(Action::Accept(at, to));
            }
        }
    }
    for index in state.live() {
        for (place, one) in state.decided.iter().enumerate() {
            let news = match state.store(index).epoch() {
                Some(known) => known < one.epoch || (known > one.epoch && scenario.stale_drivers),
                None => one.is_member(&member(index)),
            };
            if news {
                actions.push(Action::Learn(index, place));
            }
        }
    }
}

fn begin(scenario: &Scenario, state: &State, actions: &mut Vec<Action>) {
    if state.ballots >= scenario.ballots {
        return;
    }
    let newest = state.decided.len() - 1;
    let oldest = newest - usize::from(scenario.stale_drivers && newest > 0);
    // One that died is replaced by the next.
    let slot = state.drivers.iter().position(Option::is_none);
    let at = slot.unwrap_or_else(|| state.drivers.len().saturating_sub(1));
    for place in oldest..=newest {
        let base = &state.decided[place];
        if base.epoch.number >= scenario.last_epoch {
            continue;
        }
        let wants = wants(scenario, state, base);
        let told: u8 = scenario.promising.iter().map(|one| 1 << one).sum();
        let majorities = state.subsets(base.read_set(), majority(base.read_set().len()));
        for promising in majorities.into_iter().filter(|set| told == 0 || told == *set) {
            for want in &wants {
                actions.push(Action::Ballot { at, place, promising, want: *want });
            }
        }
    }
}

fn wants(scenario: &Scenario, state: &State, base: &Configuration) -> Vec<Want> {
    if base.is_joint() {
        return vec![Want::Forward, Want::GivingUp];
    }
    let mut wants = Vec::new();
    let written_off = if scenario.writes_off && !base.retired.is_empty() {
        &[WrittenOff::Nobody, WrittenOff::All][..]
    } else {
        &[WrittenOff::Nobody]
    };
    for wish in 0..scenario.wishes.len() {
        wants.extend(written_off.iter().map(|off| Want::Wish(wish, *off)));
    }
    wants.extend(scenario.goes_on.then_some(Want::SameAgain));
    wants.extend(state.collectable.map(|_| Want::Collect));
    wants
}

/// Phase 1 at one majority, and the choice.
pub(super) fn ballot(
    scenario: &Scenario,
    state: &mut State,
    at: usize,
    (place, promising): (usize, u8),
    want: Want,
) -> Option<()> {
    let base = state.decided[place].clone();
    let plan = plan(scenario, &base, want);
    learn_first(state, &base, plan.as_ref());
    let wanted = wanted(state, &base, plan.as_ref(), want)?;
    let removals = plan.map(|plan| plan.removals).unwrap_or_default();
    let node = NodeId::from_bytes([0xF0 + at as u8; 16]);
    let seen = u64::from(state.ballots) << u32::BITS;
    let mut proposer = Proposer::above(seen, node, 1, base.read_set().to_vec());
    state.ballots += 1;
    let mut choice = None;
    for index in state.members_of(promising) {
        let ballot = proposer.ballot();
        let reply = state.change(index, |store| {
            let (durable, reply) =
                store.replica.on_prepare(base.clone(), ballot, &removals, |_| false);
            store.commit(durable);
            reply
        });
        let ShardReply::Promised { ballot, accepted } = reply else {
            return None;
        };
        choice = choice.or(proposer.on_promised(member(index), ballot, accepted));
    }
    proposer.propose(match choice? {
        Choice::Free => wanted,
        Choice::Obliged(value) => value,
    });
    if scenario.drivers > 0 {
        state.drivers[at] = Some(Shared::new(Driver { base: place, proposer }));
        return Some(());
    }
    state.drivers.push(Some(Shared::new(Driver { base: place, proposer })));
    for index in state.members_of(promising) {
        accept(state, 0, index);
    }
    state.drivers.clear();
    Some(())
}

fn plan(scenario: &Scenario, base: &Configuration, want: Want) -> Option<Plan> {
    let Want::Wish(wish, written_off) = want else {
        return None;
    };
    let members: Vec<Member> = scenario.wishes[wish].iter().copied().map(member).collect();
    let gone = base.new_set().iter().filter(|one| !members.contains(one));
    let reason = RemovalReason::Displaced;
    let removals = gone.map(|member| Removal { member: *member, reason }).collect();
    let written_off = match written_off {
        WrittenOff::Nobody => Vec::new(),
        WrittenOff::All => base.retired.clone(),
    };
    Some(Plan { members, removals, written_off })
}

/// Step 0: newcomers become learners, whatever they copy.
fn learn_first(state: &mut State, base: &Configuration, plan: Option<&Plan>) {
    let Some(plan) = plan.filter(|_| !base.is_joint()) else {
        return;
    };
    for newcomer in plan.members.iter().filter(|one| !base.is_member(one)) {
        if !state.store(index_of(newcomer)).lost {
            state.change(index_of(newcomer), |store| {
                let (durable, _) = store.replica.start_learning(base.clone());
                store.commit(durable);
            });
        }
    }
}

/// What the production code proposes if phase 1 leaves it free.
fn wanted(
    state: &State,
    base: &Configuration,
    plan: Option<&Plan>,
    want: Want,
) -> Option<Configuration> {
    let heard = want != Want::GivingUp;
    let mut reports: BTreeMap<Member, Report> = BTreeMap::new();
    let newcomer = |index: u8| plan.is_some_and(|plan| plan.members.contains(&member(index)));
    for index in state.live().filter(|index| heard || newcomer(*index)) {
        // What a learner lacks is nobody's evidence for anything.
        if let ShardReply::Report(report) = state.store(index).replica.report(Some(0)) {
            reports.insert(member(index), report);
        }
    }
    let Step::Propose(value) = next_step(base, plan, &reports, true) else {
        return None;
    };
    match want {
        Want::Collect => {
            let value = base.collecting(state.collectable?);
            base.may_be_followed_by(&value).then_some(value)
        }
        Want::Forward | Want::GivingUp | Want::SameAgain | Want::Wish(..) => Some(value),
    }
}

/// One acceptor gets its Accept.
pub(super) fn accept(state: &mut State, at: usize, to: u8) -> Option<()> {
    let driver = state.drivers[at].clone()?;
    let base = Base::of(&state.decided[driver.base]);
    let value = driver.proposer.proposed()?.clone();
    let ballot = driver.proposer.ballot();
    let reply = state.change(to, |store| {
        let (durable, reply) = store.replica.on_accept(base, ballot, value);
        store.commit(durable);
        reply
    });
    let ShardReply::Accepted { ballot } = reply else {
        return None;
    };
    let mut driver = driver;
    match driver.update(|driver| driver.proposer.on_accepted(member(to), ballot)) {
        Some(value) => {
            state.drivers[at] = None;
            state.decide(driver.base, value);
        }
        None => state.drivers[at] = Some(driver),
    }
    Some(())
}

/// One store is told a configuration that was decided.
pub(super) fn learn(state: &mut State, index: u8, place: usize) {
    let decided = state.decided[place].clone();
    state.change(index, |store| {
        let (durable, _) = store.replica.on_learn(decided);
        store.commit(durable);
    });
}
