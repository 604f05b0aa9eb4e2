//! The scenario as a model for the checker.

use stateright::{Model, Property};
use triad_replica::configuration::{Configuration, same_set};
use triad_ring::mutant;

use super::deciding::Want;
use super::{Goal, Scenario, State, Write, clients, collecting, copying, deciding, reading, state};

/// A rule, by what a broken one begins with.
macro_rules! broken {
    ($rule:literal) => {
        Property::always($rule, |_: &Scenario, state: &State| {
            state.broken.is_none_or(|broken| !broken.starts_with($rule))
        })
    };
}

/// One step of somebody.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Action {
    /// Phase 1 and the choice of a driver, on a base, with the promises of a majority (bits).
    Ballot {
        at: usize,
        place: usize,
        promising: u8,
        want: Want,
    },
    /// A driver's Accept reaches a store.
    Accept(usize, u8),
    /// A store is told a decided configuration, by its place.
    Learn(u8, usize),
    /// A store copies from a source.
    Copy(u8, u8),
    /// A former member hands over to a member.
    HandOver(u8, u8),
    /// A store forgets what it owes to nobody.
    Purge(u8),
    /// A store coordinates a write.
    Mint(u8, Write),
    /// A write reaches a member.
    Deliver(usize, u8),
    /// A write is tried again in a configuration, by its place.
    Retry(usize, usize),
    /// A write is brought as a hint.
    Hint(usize, u8),
    BeginRound(u8),
    Vouch(u8),
    /// A member sends its record.
    Send(u8),
    /// It reaches another.
    Arrive(u8),
    Restart(u8),
    Lose(u8),
}

impl Scenario {
    fn step(&self, state: &mut State, action: &Action) -> Option<()> {
        match *action {
            Action::Ballot { at, place, promising, want } => {
                deciding::ballot(self, state, at, (place, promising), want)
            }
            Action::Accept(at, to) => deciding::accept(state, at, to),
            Action::Learn(index, place) => {
                deciding::learn(state, index, place);
                Some(())
            }
            Action::Copy(index, source) => copying::copy(state, index, source),
            Action::HandOver(index, to) => copying::hand_over(state, index, to),
            Action::Purge(index) => {
                copying::purge(state, index);
                Some(())
            }
            Action::Mint(coordinator, write) => clients::mint(self, state, coordinator, write),
            Action::Deliver(at, to) => clients::deliver(state, at, to),
            Action::Retry(at, place) => clients::retry(state, at, place),
            Action::Hint(at, to) => clients::hint(state, at, to),
            Action::BeginRound(index) => collecting::begin(state, index),
            Action::Vouch(index) => collecting::vouch(state, index),
            Action::Send(index) => collecting::send(state, index),
            Action::Arrive(index) => collecting::arrive(state, index),
            Action::Restart(index) => {
                state.restarts += 1;
                state.change(index, super::Store::restart);
                Some(())
            }
            Action::Lose(index) => {
                state.change(index, |store| store.lost = true);
                Some(())
            }
        }
    }

    fn faults(&self, state: &State, actions: &mut Vec<Action>) {
        let lost = state.stores.iter().filter(|store| store.lost).count();
        if lost < usize::from(self.losses) {
            actions.extend(state.live().map(Action::Lose));
        }
        if state.restarts < self.restarts {
            actions.extend(state.live().map(Action::Restart));
        }
    }
}

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        mutant::with(self.mutant, || {
            let mut state = State::first(self);
            for (at, write) in self.writes.iter().take(self.settled).enumerate() {
                self.step(&mut state, &Action::Mint(self.first[0], *write));
                for to in self.first {
                    self.step(&mut state, &Action::Deliver(at, *to));
                }
            }
            vec![state]
        })
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        mutant::with(self.mutant, || {
            deciding::actions(self, state, actions);
            copying::actions(self, state, actions);
            clients::actions(self, state, actions);
            collecting::actions(self, state, actions);
            self.faults(state, actions);
        });
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        mutant::with(self.mutant, || {
            let mut state = last.clone();
            self.step(&mut state, &action)?;
            reading::check(&mut state);
            Some(state)
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            broken!("D1"),
            broken!("D2"),
            broken!("D4"),
            broken!("D5"),
            broken!("D7"),
            broken!("D8"),
        ];
        properties.extend(self.goals.iter().map(|goal| goal.property()));
        properties
    }
}

impl Goal {
    fn property(self) -> Property<Scenario> {
        match self {
            Self::Forward => Property::sometimes("a move goes forward", |_, state: &State| {
                moved(state).any(|(_, forward)| forward) && acknowledged(state, |_| true)
            }),
            Self::ForwardAfterGivingUp => {
                Property::sometimes("a move goes forward after one was given up", |_, state| {
                    let mut moves = moved(state);
                    moves.any(|(_, forward)| !forward) && moves.any(|(_, forward)| forward)
                })
            }
            Self::AcknowledgedInJoint => {
                Property::sometimes("a joint epoch acknowledges", |_, state| {
                    acknowledged(state, |how| how.joint)
                })
            }
            Self::AcknowledgedByRetry => {
                Property::sometimes("a second attempt is acknowledged", |_, state| {
                    acknowledged(state, |how| how.retried)
                })
            }
            Self::Purged => {
                Property::sometimes("a former member purges", |_, state: &State| state.purged)
            }
            Self::Collected => {
                Property::sometimes("nothing of a tombstone is left", |_, state: &State| {
                    let empty = |index: u8| state.store(index).record.is_absent();
                    state.newest().collected.is_some() && state.live().all(empty)
                })
            }
            Self::Discarded => {
                Property::sometimes("who comes back discards", |_, state: &State| state.discarded)
            }
        }
    }
}

/// Each move that is over, by the configuration that ended it, and whether it went forward.
fn moved(state: &State) -> impl Iterator<Item = (&Configuration, bool)> {
    state.decided.windows(2).filter_map(|pair| {
        let [before, after] = pair else {
            return None;
        };
        let forward = same_set(before.new_set(), after.new_set());
        before.is_joint().then_some((after, forward))
    })
}

fn acknowledged(state: &State, how: impl Fn(state::Acknowledged) -> bool) -> bool {
    state.ops.iter().filter_map(|op| op.acknowledged).any(how)
}
