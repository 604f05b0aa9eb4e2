//! What clients and their coordinators do.

use bytes::Bytes;
use triad_replica::configuration::Configuration;
use triad_replica::consistency::{Level, Verdict};
use triad_replica::context::Context;
use triad_replica::dot::Dot;
use triad_replica::put::{PutAnswer, PutTally};
use triad_replica::record::{Basis, Change, Limits, Record, Updated};
use triad_replica::shard::Access;

use super::model::Action;
use super::state::Acknowledged;
use super::store::has;
use super::{Op, Scenario, State, Store, Write, index_of, member};
use crate::shared::Shared;

pub(super) fn actions(scenario: &Scenario, state: &State, actions: &mut Vec<Action>) {
    if let Some(write) = scenario.writes.get(state.ops.len()) {
        let coordinators = state
            .live()
            .filter(|one| scenario.coordinators.is_empty() || scenario.coordinators.contains(one));
        actions.extend(coordinators.map(|coordinator| Action::Mint(coordinator, *write)));
    }
    for (at, op) in state.ops.iter().enumerate() {
        for to in state.decided[op.at].members().iter().map(index_of) {
            if !has(op.by, to) && !state.store(to).lost {
                actions.push(Action::Deliver(at, to));
            }
        }
        if op.retries < scenario.retries && lives(state, op) {
            let others = (0..state.decided.len()).filter(|place| *place != op.at);
            actions.extend(others.map(|place| Action::Retry(at, place)));
        }
        if scenario.hints {
            actions.extend(state.live().map(|to| Action::Hint(at, to)));
        }
    }
}

fn lives(state: &State, op: &Op) -> bool {
    let coordinator = state.store(op.coordinator);
    !coordinator.lost && coordinator.life == op.life
}

/// A coordinator mints from what its store holds, and sends it while its own store has not synced it.
pub(super) fn mint(
    scenario: &Scenario,
    state: &mut State,
    coordinator: u8,
    write: Write,
) -> Option<()> {
    let store = state.store(coordinator);
    let configuration = store.replica.newest()?;
    store.replica.check(Access::Mint, configuration.epoch).ok()?;
    let (actor, stamp) = (store.replica.actor()?, configuration.epoch);
    let at = state.decided.iter().position(|one| one == configuration)?;
    let life = store.life;
    let mut record = store.record.clone();
    let value = Bytes::copy_from_slice(&[state.ops.len() as u8]);
    let (change, basis) = match write {
        Write::Add => (put(value), Basis::Causal(Context::new())),
        Write::Replace => (put(value), Basis::Overwrite),
        Write::Delete => (Change::Delete, Basis::Overwrite),
    };
    let updated = record.update(actor, change, basis, &Limits::default()).ok()?;
    if record.is_absent() {
        return None;
    }
    if updated.dot.is_some() && state.ops.iter().any(|op| op.dot == updated.dot) {
        state.broken = Some("D5: no dot names two values");
    }
    // Only a restart can tell what is not synced.
    let synced = scenario.restarts == 0;
    state.change(coordinator, |store| store.mint(record.clone(), synced));
    state.ops.push(Shared::new(Op {
        coordinator,
        life,
        dot: updated.dot,
        covers: covers(&updated),
        record,
        stamp,
        at,
        by: 0,
        retries: 0,
        acknowledged: None,
        at_one: false,
    }));
    if synced {
        deliver(state, state.ops.len() - 1, coordinator);
    }
    Some(())
}

fn put(value: Bytes) -> Change {
    Change::Put { value, expires_at: None }
}

/// The client's context without the own dot.
fn covers(updated: &Updated) -> Context {
    let context = &updated.client_context;
    let stretch = |(actor, upto)| (1..=upto).map(move |counter| Dot::new(actor, counter));
    let dots = context.vector().flat_map(stretch).chain(context.cloud());
    dots.filter(|dot| Some(*dot) != updated.dot).collect()
}

/// A member gets the record of the running attempt, and its answer arrives.
pub(super) fn deliver(state: &mut State, at: usize, to: u8) -> Option<()> {
    let mut op = state.ops[at].clone();
    let configuration = state.decided[op.at].clone();
    let counted = lives(state, &op);
    if to == op.coordinator && op.retries == 0 {
        // The epoch was checked as it was minted, in the same batch.
        counted.then(|| state.change(to, Store::sync))?;
    } else {
        take(state, to, &configuration, &op)?;
    }
    op.update(|op| {
        op.by |= 1 << to;
        let counts = |level| counted && tally(level, &configuration, op.by) == Verdict::Enough;
        if op.acknowledged.is_none() && counts(Level::Quorum) {
            let (joint, retried) = (configuration.is_joint(), op.retries > 0);
            op.acknowledged = Some(Acknowledged { joint, retried });
        }
        op.at_one = op.at_one || counts(Level::One);
    });
    state.ops[at] = op;
    Some(())
}

/// Merges a record that was minted, or read, in the epoch it is stamped with.
fn take(state: &mut State, to: u8, configuration: &Configuration, op: &Op) -> Option<()> {
    let replica = &state.store(to).replica;
    replica.check(Access::Merge, configuration.epoch).ok()?;
    replica.check_stamp(op.stamp).ok()?;
    state.change(to, |store| store.merge(&op.record));
    Some(())
}

fn tally(level: Level, configuration: &Configuration, by: u8) -> Verdict {
    let mut tally = PutTally::new(level, configuration);
    for index in (0..u8::BITS as u8).filter(|index| has(by, *index)) {
        tally.record(member(index), PutAnswer::Stored { uncovered: None });
    }
    tally.verdict()
}

/// The same write in another epoch: what was collected since is read again, and all counts begin at zero.
pub(super) fn retry(state: &mut State, at: usize, place: usize) -> Option<()> {
    let mut op = state.ops[at].clone();
    let configuration = state.decided[place].clone();
    let mut read_again = None;
    if op.stamp <= configuration.gc_epoch {
        let store = state.store(op.coordinator);
        store.replica.check(Access::Read, configuration.epoch).ok()?;
        if !is_in(&op, &store.record) {
            return None;
        }
        read_again = Some(store.record.clone());
    }
    op.update(|op| {
        op.by = 0;
        op.at = place;
        op.retries += 1;
        if let Some(record) = read_again {
            op.record = record;
            op.stamp = configuration.epoch;
        }
    });
    state.ops[at] = op;
    Some(())
}

/// Whether a record holds this write, or what came after it.
pub(super) fn is_in(op: &Op, record: &Record) -> bool {
    match op.dot {
        Some(dot) => record.context().covers(&dot),
        None => record.context().covers_all(&op.covers),
    }
}

/// Whoever keeps the record of a write brings it, in whatever epoch the member is now.
pub(super) fn hint(state: &mut State, at: usize, to: u8) -> Option<()> {
    let op = state.ops[at].clone();
    let configuration = state.store(to).replica.newest()?.clone();
    take(state, to, &configuration, &op)
}
