//! The read with the worst luck, in every epoch that ever was.

use triad_replica::configuration::Configuration;
use triad_replica::consistency::{Level, Verdict};
use triad_replica::get::{GetAnswer, GetTally};
use triad_replica::record::Record;
use triad_replica::shard::Access;

use super::clients::is_in;
use super::{Op, State, Store, member};
use crate::shared::Shared;

/// Looks for an epoch whose members would now answer a read at QUORUM without an acknowledged write.
pub(super) fn check(state: &mut State) {
    let acknowledged: Vec<_> =
        state.ops.iter().filter(|op| op.acknowledged.is_some()).cloned().collect();
    let broken = acknowledged.iter().find_map(|op| {
        state.decided.iter().find_map(|configuration| worst(state, configuration, op))
    });
    let broken = broken.or_else(|| destroyed(state));
    state.broken = state.broken.or(broken);
}

/// Asks those first who know nothing of the write.
fn worst(state: &State, configuration: &Configuration, op: &Op) -> Option<&'static str> {
    let serves = |store: &&Shared<Store>| {
        !store.lost && store.replica.check(Access::Read, configuration.epoch).is_ok()
    };
    let mut asked: Vec<&Shared<Store>> = state.stores.iter().filter(serves).collect();
    asked.sort_by_key(|store| is_in(op, &store.record));
    let sent = asked.first()?.record.clone();
    let mut tally = GetTally::new(Level::Quorum, configuration, sent.clone());
    for store in asked {
        let answer = if store.record.digest() == sent.digest() {
            GetAnswer::Same
        } else {
            GetAnswer::Record(store.record.clone())
        };
        if tally.record(member(store.me), answer) == Verdict::Enough {
            return shows(state, op, tally.merged());
        }
    }
    None
}

fn shows(state: &State, op: &Op, seen: &Record) -> Option<&'static str> {
    if seen.siblings().keys().any(|dot| op.covers.covers(dot)) {
        return Some("D7: what was replaced or deleted does not come back");
    }
    let dot = op.dot?;
    let replaced = state.ops.iter().any(|later| later.covers.covers(&dot));
    let shown = seen.siblings().contains_key(&dot) || replaced;
    (!shown).then_some("D8: what was acknowledged is seen by every later read")
}

/// A planned move destroys nothing, not even what one store alone has acknowledged.
fn destroyed(state: &State) -> Option<&'static str> {
    if state.stores.iter().any(|store| store.lost) {
        return None;
    }
    let nowhere = |op: &&Shared<Op>| {
        let replaced = |dot| state.ops.iter().any(|later| later.covers.covers(&dot));
        op.at_one
            && op.dot.is_some_and(|dot| !replaced(dot))
            && !state.stores.iter().any(|store| is_in(op, &store.record))
    };
    state.ops.iter().any(|op| nowhere(&op)).then_some("D4: a planned move destroys nothing")
}
