//! The state of a whole cluster with its clients.

use triad_replica::configuration::{Configuration, Epoch, Phase};
use triad_replica::context::Context;
use triad_replica::dot::Dot;
use triad_replica::gc::{GcDigest, Round};
use triad_replica::paxos::Proposer;
use triad_replica::record::Record;

use super::store::{SHARD, has};
use super::{Scenario, Store, index_of, member};
use crate::shared::Shared;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct State {
    pub(super) stores: Vec<Shared<Store>>,
    /// Every configuration that was decided; that of epoch n at n − 1.
    pub(super) decided: Shared<Vec<Configuration>>,
    pub(super) drivers: Vec<Option<Shared<Driver>>>,
    /// Ballots that were begun.
    pub(super) ballots: u8,
    pub(super) ops: Vec<Shared<Op>>,
    /// A record on its way, and how many were sent.
    pub(super) flying: Option<Shared<Flying>>,
    pub(super) sent: u8,
    pub(super) round: Option<Shared<Round>>,
    pub(super) rounds: u8,
    pub(super) collectable: Option<GcDigest>,
    pub(super) restarts: u8,
    pub(super) purged: bool,
    pub(super) discarded: bool,
    /// The rule that was broken.
    pub(super) broken: Option<&'static str>,
}

/// Somebody who has a configuration decided: in phase 2.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Driver {
    /// The place of its base in [`State::decided`].
    pub(super) base: usize,
    pub(super) proposer: Proposer,
}

/// A client's write.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Op {
    pub(super) coordinator: u8,
    /// Which life of the coordinator; a later one knows nothing of it.
    pub(super) life: u8,
    pub(super) record: Record,
    /// The put's dot; none for a delete.
    pub(super) dot: Option<Dot>,
    /// What it replaces.
    pub(super) covers: Context,
    /// In which epoch the record was minted, or read again.
    pub(super) stamp: Epoch,
    /// In which configuration this attempt counts, by its place in [`State::decided`].
    pub(super) at: usize,
    /// Who has stored this attempt.
    pub(super) by: u8,
    pub(super) retries: u8,
    pub(super) acknowledged: Option<Acknowledged>,
    /// One store for each side of the configuration has it: acknowledged, had it been asked at ONE.
    pub(super) at_one: bool,
}

/// How a write came to be acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Acknowledged {
    pub(super) joint: bool,
    pub(super) retried: bool,
}

/// A record that a member sent to the others, with the epoch in which it read it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Flying {
    pub(super) epoch: Epoch,
    pub(super) record: Record,
}

impl State {
    pub(super) fn first(scenario: &Scenario) -> Self {
        let members = scenario.first.iter().copied().map(member).collect();
        let first = Configuration {
            phase: Phase::Stable { members },
            ..Configuration::bootstrap(SHARD, member(scenario.first[0]))
        };
        let numbers = scenario.wishes.iter().copied().flatten().chain(scenario.first);
        let count = numbers.max().map_or(0, |last| last + 1);
        let store = |me| {
            Shared::new(if scenario.first.contains(&me) {
                Store::founder(me, &first)
            } else {
                Store::stranger(me)
            })
        };
        Self {
            stores: (0..count).map(store).collect(),
            decided: Shared::new(vec![first.clone()]),
            drivers: vec![None; usize::from(scenario.drivers)],
            ballots: 0,
            ops: Vec::new(),
            flying: None,
            sent: 0,
            round: None,
            rounds: 0,
            collectable: None,
            restarts: 0,
            purged: false,
            discarded: false,
            broken: None,
        }
    }

    pub(super) fn newest(&self) -> &Configuration {
        self.decided.last().expect("the first is decided")
    }

    /// The numbers of the stores that are not lost.
    pub(super) fn live(&self) -> impl Iterator<Item = u8> + '_ {
        self.stores.iter().filter(|store| !store.lost).map(|store| store.me)
    }

    pub(super) fn store(&self, index: u8) -> &Store {
        &self.stores[usize::from(index)]
    }

    /// Changes one store, and looks at what became of it.
    pub(super) fn change<R>(&mut self, index: u8, change: impl FnOnce(&mut Store) -> R) -> R {
        let before = self.store(index).epoch();
        let held = !self.store(index).record.is_absent();
        let result = self.stores[usize::from(index)].update(change);
        let store = &self.stores[usize::from(index)];
        if let Some(known) = store.replica.newest().filter(|known| Some(known.epoch) != before) {
            let number = usize::try_from(known.epoch.number).unwrap_or(usize::MAX);
            let decided = self.decided.get(number.wrapping_sub(1)) == Some(known);
            if !decided {
                self.broken = Some("D2: only what is decided is entered");
            }
            if before > Some(known.epoch) {
                self.broken = Some("D2: configurations are replaced by greater epochs only");
            }
            // A member of both epochs may have pruned it.
            let pruned = known.collected.is_some() && known.is_member(&member(index));
            self.discarded |= held && store.record.is_absent() && !pruned;
        }
        result
    }

    /// A value was accepted by a majority.
    pub(super) fn decide(&mut self, base: usize, value: Configuration) {
        match self.decided.get(base + 1) {
            Some(decided) if *decided != value => {
                self.broken = Some("D1: one configuration is decided for each epoch");
            }
            Some(_) => {}
            None => {
                self.decided.update(|decided| decided.push(value));
                self.collectable = None;
                self.round = None;
            }
        }
    }

    /// The stores of `set` that are not lost, as numbers.
    pub(super) fn subsets(&self, of: &[triad_replica::member::Member], size: usize) -> Vec<u8> {
        let all: u8 =
            of.iter().map(index_of).filter(|one| !self.store(*one).lost).map(|one| 1 << one).sum();
        (1..=all).filter(|set| set & !all == 0 && set.count_ones() as usize == size).collect()
    }

    pub(super) fn members_of(&self, set: u8) -> impl Iterator<Item = u8> + use<> {
        (0..self.stores.len() as u8).filter(move |index| has(set, *index))
    }
}
