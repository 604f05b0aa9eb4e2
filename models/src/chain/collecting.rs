//! Rounds of tombstone collection, and records that arrive late.

use bytes::Bytes;
use triad_replica::gc::{
    Garbage, Round, RoundStep, Vouch, VouchReply, VouchRequest, is_garbage, lacking,
};
use triad_replica::shard::Access;

use super::model::Action;
use super::{Flying, Scenario, State, Store, index_of, member};
use crate::shared::Shared;

pub(super) fn actions(scenario: &Scenario, state: &State, actions: &mut Vec<Action>) {
    if state.rounds < scenario.rounds && state.round.is_none() && state.collectable.is_none() {
        actions.extend(state.live().map(Action::BeginRound));
    }
    if let Some(round) = &state.round {
        let members = round.members().iter().map(index_of);
        actions.extend(members.filter(|one| !state.store(*one).lost).map(Action::Vouch));
    }
    if state.flying.is_some() {
        actions.extend(state.live().map(Action::Arrive));
    } else if state.sent < scenario.late {
        actions.extend(state.live().map(Action::Send));
    }
}

/// Somebody begins a round over what its store holds.
pub(super) fn begin(state: &mut State, index: u8) -> Option<()> {
    let store = state.store(index);
    let base = store.replica.newest().filter(|_| store.replica.is_member())?;
    if store.replica.is_fenced() || !is_garbage(&store.record) {
        return None;
    }
    let record = store.record.digest();
    let garbage = Garbage { bucket: "b".into(), key: Bytes::from_static(b"k"), record };
    let round = Round::new(base, vec![garbage])?;
    state.round = Some(Shared::new(round));
    state.rounds += 1;
    Some(())
}

/// One member answers, and the answer arrives.
pub(super) fn vouch(state: &mut State, index: u8) -> Option<()> {
    let mut round = state.round.clone()?;
    let request = round.request();
    let reply = state.change(index, |store| answer(store, &request));
    match round.update(|round| round.on_reply(member(index), reply)) {
        RoundStep::Wait | RoundStep::AskAgain => state.round = Some(round),
        RoundStep::Over => state.round = None,
        RoundStep::Ready(digest) => {
            state.round = None;
            // What was vouched for in an epoch that is over is of no use to anybody.
            if round.base() == state.newest() {
                state.collectable = Some(digest);
            }
        }
    }
    Some(())
}

/// As a store's committer does.
fn answer(store: &mut Store, request: &VouchRequest) -> VouchReply {
    if !store.replica.may_vouch(&request.base) {
        return VouchReply::Refused { newest: store.replica.newest().cloned() };
    }
    let held = |_: &Garbage| Ok::<_, std::convert::Infallible>(store.record.digest());
    let Ok(lacks) = lacking(&request.garbage, held);
    if !lacks.is_empty() {
        return VouchReply::Lacks(lacks);
    }
    let vouch = Vouch { epoch: request.base.epoch, garbage: request.garbage.clone() };
    let digest = vouch.digest();
    store.vouch = Some(vouch);
    VouchReply::Vouched(digest)
}

/// Read repair, anti-entropy: a member sends what it holds, in its epoch.
pub(super) fn send(state: &mut State, index: u8) -> Option<()> {
    let store = state.store(index);
    let epoch = store.epoch()?;
    store.replica.check(Access::Read, epoch).ok()?;
    if store.record.is_absent() {
        return None;
    }
    let record = store.record.clone();
    state.flying = Some(Shared::new(Flying { epoch, record }));
    state.sent += 1;
    Some(())
}

/// It arrives, perhaps much later, at one of those it was sent to.
pub(super) fn arrive(state: &mut State, index: u8) -> Option<()> {
    let flying = state.flying.take()?;
    state.store(index).replica.check(Access::Merge, flying.epoch).ok()?;
    state.change(index, |store| store.merge(&flying.record));
    Some(())
}
