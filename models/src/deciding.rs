//! Deciding one epoch: real acceptors and proposers, message by message (design rules D1, D2).
//!
//! Three stores are the members of epoch 1 and its acceptors; proposers want different
//! configurations for epoch 2. Requests stay in the network for ever: they arrive late, more than
//! once, or never. A reply reaches its proposer at once, never, or, one at a time, much later. A
//! store may restart at any time and knows what its rows say; so may a proposer, which then knows
//! nothing and uses its first ballot again, for another value.
//!
//! Bounds: the ballots of each proposer, and the restarts of the first one. Proposers are no
//! members, so that nothing but their ballots tells them apart.

use std::collections::BTreeSet;

use stateright::{Model, Property};
use triad_replica::configuration::{Configuration, Epoch, Phase};
use triad_replica::member::{Member, StartNonce, StoreId};
use triad_replica::message::{Base, ShardReply};
use triad_replica::paxos::{Acceptor, Ballot, Choice, Proposer};
use triad_replica::shard::{Durable, EnteredRow, ShardReplica};
use triad_ring::mutant::{self, Mutant};
use triad_ring::{NodeId, ShardId};

use crate::{Case, exhaust, walk};

/// The cases of this model.
pub const CASES: &[Case] = &[
    Case {
        name: "deciding: two ballots",
        bounds: "3 acceptors that restart, 2 proposers with 1 ballot",
        wide: false,
        run: |mutant| exhaust(deciding(&[1, 1], mutant)),
    },
    Case {
        name: "deciding: a proposer restarts",
        bounds: "3 acceptors that restart, 2 proposers with 1 ballot, 1 of which restarts once",
        wide: false,
        run: |mutant| exhaust(Deciding { restarts: 1, ..deciding(&[1, 1], mutant) }),
    },
    Case {
        name: "deciding: from the middle of a ballot",
        bounds: "3 acceptors, 2 proposers with 2 and 1 ballots; the first has 2 promises and 1 acceptance; no reply is lost",
        wide: false,
        run: |mutant| exhaust(Deciding { begun: true, ..deciding(&[2, 1], mutant) }),
    },
    Case {
        name: "deciding: a late reply",
        bounds: "the same, the second ballot is for another value, and that acceptance is told at any time",
        wide: false,
        run: |mutant| {
            let begun =
                Deciding { begun: true, fickle: true, late: 1, ..deciding(&[2, 1], mutant) };
            exhaust(begun)
        },
    },
    Case {
        name: "deciding: at random",
        bounds: "3 acceptors that restart, 2 proposers with 4 and 3 ballots, 2 restarts, 1 late reply; walks of 100 steps",
        wide: false,
        run: |mutant| {
            let wide = Deciding { restarts: 2, late: 2, ..deciding(&[4, 3], mutant) };
            walk(&wide, 3_000, 100)
        },
    },
    Case {
        name: "deciding: three ballots",
        bounds: "3 acceptors that restart, 2 proposers with 2 and 1 ballots",
        wide: true,
        run: |mutant| exhaust(deciding(&[2, 1], mutant)),
    },
];

fn deciding(ballots: &'static [u8], mutant: Option<Mutant>) -> Deciding {
    let base = configuration(1, Phase::Stable { members: ACCEPTORS.map(member).to_vec() });
    let to = |newcomer| Phase::Joint {
        old: ACCEPTORS.map(member).to_vec(),
        new: vec![member(1), member(2), member(newcomer)],
    };
    let values = [4, 5, 6].map(|newcomer| configuration(2, to(newcomer)));
    let (restarts, late, begun, fickle) = (0, 0, false, false);
    Deciding { base, values, ballots, restarts, late, begun, fickle, mutant }
}

const SHARD: ShardId = ShardId::new(7);
const ACCEPTORS: [u8; 3] = [1, 2, 3];

fn member(index: u8) -> Member {
    Member { node: NodeId::from_bytes([index; 16]), store: StoreId::from_bytes([index; 16]) }
}

fn configuration(number: u64, phase: Phase) -> Configuration {
    Configuration {
        epoch: Epoch { number, ..Epoch::FIRST },
        phase,
        ..Configuration::bootstrap(SHARD, member(1))
    }
}

struct Deciding {
    base: Configuration,
    /// What proposers want: the first and the second one, and the first one after its restart.
    values: [Configuration; 3],
    ballots: &'static [u8],
    restarts: u8,
    /// 1: the first acceptance of a ballot that is begun is told late; 2: any reply, one at a time.
    late: u8,
    /// The first ballot has two promises and one acceptance, the other proposer's is far higher, no
    /// store restarts, and no reply is lost.
    begun: bool,
    /// Whoever begins a higher ballot wants something else.
    fickle: bool,
    mutant: Option<Mutant>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    stores: Vec<Store>,
    proposers: Vec<Driver>,
    requests: BTreeSet<Request>,
    late: Option<(usize, u8, ShardReply)>,
    restarts: u8,
    /// What somebody takes for decided.
    decided: BTreeSet<u8>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Store {
    replica: ShardReplica,
    acceptor_row: Option<Acceptor>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Driver {
    proposer: Proposer,
    /// The number of what it wants.
    wants: u8,
    ballots: u8,
}

/// A Prepare, or an Accept of a value by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Request {
    to: u8,
    of: usize,
    /// Of which life of the proposer: an answer never reaches a later one.
    life: u8,
    ballot: Ballot,
    value: Option<u8>,
}

/// What becomes of the answer to a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Reply {
    Arrives,
    IsLost,
    IsLate,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Action {
    Deliver(Request, Reply),
    DeliverLate,
    Higher(usize),
    RestartStore(usize),
    RestartProposer,
}

impl Deciding {
    fn store(&self, index: u8) -> ShardReplica {
        let row = EnteredRow {
            configuration: self.base.clone(),
            data_epoch: Some(self.base.epoch),
            tenure: Some(self.base.epoch),
            forgotten: 0,
            merged: true,
            declared: false,
            sweeping: false,
        };
        ShardReplica::restore(SHARD, member(index), StartNonce([0; 16]), Some(row), None)
    }

    fn driver(of: usize, wants: u8) -> Driver {
        let node = NodeId::from_bytes([0xF0 + of as u8; 16]);
        let proposer = Proposer::new(node, 1, ACCEPTORS.map(member).to_vec());
        Driver { proposer, wants, ballots: 1 }
    }

    /// One that has heard of higher ballots before.
    fn late_driver() -> Driver {
        let node = NodeId::from_bytes([0xF1; 16]);
        let seen = 5 << u32::BITS;
        let proposer = Proposer::above(seen, node, 1, ACCEPTORS.map(member).to_vec());
        Driver { proposer, wants: 1, ballots: 1 }
    }

    /// The first proposer comes as far as one acceptance.
    fn begin(&self, state: &mut State) {
        let ballot = state.proposers[0].proposer.ballot();
        let accept = if self.late > 0 { Reply::IsLate } else { Reply::Arrives };
        for (to, value, reply) in
            [(1, None, Reply::Arrives), (2, None, Reply::Arrives), (1, Some(0), accept)]
        {
            self.step(state, Action::Deliver(Request { to, of: 0, life: 0, ballot, value }, reply));
        }
    }

    fn ask(&self, state: &mut State, of: usize) {
        let proposer = &state.proposers[of].proposer;
        let value = proposer.proposed().map(|value| self.number(value));
        let ballot = proposer.ballot();
        let life = if of == 0 { state.restarts } else { 0 };
        state.requests.extend(ACCEPTORS.map(|to| Request { to, of, life, ballot, value }));
    }

    fn number(&self, value: &Configuration) -> u8 {
        self.values.iter().position(|one| one == value).map_or(u8::MAX, |at| at as u8)
    }

    fn answer(&self, store: &mut Store, request: Request) -> ShardReply {
        let (durable, reply) = match request.value {
            None => store.replica.on_prepare(self.base.clone(), request.ballot, &[], |_| false),
            Some(value) => {
                let value = self.values[usize::from(value)].clone();
                store.replica.on_accept(Base::of(&self.base), request.ballot, value)
            }
        };
        for row in durable {
            if let Durable::Acceptor(acceptor) = row {
                store.acceptor_row = Some(acceptor);
            }
        }
        reply
    }

    fn reply(&self, state: &mut State, of: usize, from: u8, reply: ShardReply) {
        let driver = &mut state.proposers[of];
        match reply {
            ShardReply::Promised { ballot, accepted } => {
                let choice = driver.proposer.on_promised(member(from), ballot, accepted);
                let value = match choice {
                    None => return,
                    Some(Choice::Free) => self.values[usize::from(driver.wants)].clone(),
                    Some(Choice::Obliged(value)) => value,
                };
                driver.proposer.propose(value);
                self.ask(state, of);
            }
            ShardReply::Accepted { ballot } => {
                if let Some(value) = driver.proposer.on_accepted(member(from), ballot) {
                    state.decided.insert(self.number(&value));
                }
            }
            ShardReply::Rejected { promised } => {
                driver.proposer.on_rejected(promised);
            }
            _ => {}
        }
    }

    fn step(&self, state: &mut State, action: Action) {
        match action {
            Action::Deliver(request, fate) => {
                let place = usize::from(request.to) - 1;
                let reply = self.answer(&mut state.stores[place], request);
                let lives = request.of != 0 || request.life == state.restarts;
                match fate {
                    _ if !lives => {}
                    Reply::Arrives => self.reply(state, request.of, request.to, reply),
                    Reply::IsLost => {}
                    Reply::IsLate => state.late = Some((request.of, request.to, reply)),
                }
            }
            Action::DeliverLate => {
                if let Some((of, from, reply)) = state.late.take() {
                    self.reply(state, of, from, reply);
                }
            }
            Action::Higher(of) => {
                state.proposers[of].proposer.start_higher();
                state.proposers[of].ballots += 1;
                if self.fickle {
                    state.proposers[of].wants = (state.proposers[of].wants + 1) % 3;
                }
                self.ask(state, of);
            }
            Action::RestartStore(place) => {
                let store = &mut state.stores[place];
                let entered = store.replica.entered().cloned();
                store.replica = ShardReplica::restore(
                    SHARD,
                    member(ACCEPTORS[place]),
                    StartNonce([0; 16]),
                    entered,
                    store.acceptor_row.clone(),
                );
            }
            Action::RestartProposer => {
                state.restarts += 1;
                state.proposers[0] = Self::driver(0, 2);
                state.late.take_if(|(of, ..)| *of == 0);
                self.ask(state, 0);
            }
        }
    }
}

impl Model for Deciding {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let store = |index| Store { replica: self.store(index), acceptor_row: None };
        let mut state = State {
            stores: ACCEPTORS.map(store).to_vec(),
            proposers: (0..self.ballots.len()).map(|of| Self::driver(of, of as u8)).collect(),
            requests: BTreeSet::new(),
            late: None,
            restarts: 0,
            decided: BTreeSet::new(),
        };
        if self.begun {
            state.proposers[1] = Self::late_driver();
        }
        for of in 0..self.ballots.len() {
            self.ask(&mut state, of);
        }
        if self.begun {
            mutant::with(self.mutant, || self.begin(&mut state));
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for request in &state.requests {
            actions.push(Action::Deliver(*request, Reply::Arrives));
            if !self.begun {
                actions.push(Action::Deliver(*request, Reply::IsLost));
            }
            if self.late > 1 && state.late.is_none() {
                actions.push(Action::Deliver(*request, Reply::IsLate));
            }
        }
        actions.extend(state.late.iter().map(|_| Action::DeliverLate));
        let higher = (0..state.proposers.len())
            .filter(|of| state.proposers[*of].ballots < self.ballots[*of]);
        actions.extend(higher.map(Action::Higher));
        if !self.begun {
            actions.extend((0..state.stores.len()).map(Action::RestartStore));
        }
        if state.restarts < self.restarts {
            actions.push(Action::RestartProposer);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        mutant::with(self.mutant, || self.step(&mut state, action));
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("D1: one configuration is decided", |_: &Self, state: &State| {
                state.decided.len() <= 1
            }),
            Property::sometimes("one is decided", |_: &Self, state: &State| {
                !state.decided.is_empty()
            }),
        ]
    }
}
