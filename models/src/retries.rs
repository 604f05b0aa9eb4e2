//! Requests that are repeated under their id: real records at three members (design rules D5, D11).
//!
//! A client's write begins at any member, and again at any other: its client has given up waiting, and the
//! first attempt may still be on its way. What is sent arrives at any time or never, and so does the
//! answer. A repetition is looked for at a majority, as a coordinator does it
//! (`server/src/coordinator/repeat.rs`), and is done again only if it cannot have been acknowledged.
//! Meanwhile other clients put another value, or read and delete what they have read: each at once, at
//! two members.
//!
//! Stores lose nothing here and nobody starts anew: the other models do that.

use std::collections::BTreeSet;

use stateright::{Model, Property};
use triad_replica::context::Context;
use triad_replica::dot::Dot;
use triad_replica::member::ActorId;
use triad_replica::record::{Basis, Change, Known, Limits, Record, Request, Updated};
use triad_ring::mutant::{self, Mutant};

use crate::shared::Shared;
use crate::{Case, exhaust, walk};

/// The cases of this model.
pub const CASES: &[Case] = &[
    Case {
        name: "retries: deleted meanwhile",
        bounds: "3 members; a put with 2 attempts, a delete of what was read",
        wide: false,
        run: |mutant| exhaust(Retries { attempts: &[2], puts: 0, mutant }),
    },
    Case {
        name: "retries: another put",
        bounds: "3 members; a put with 2 attempts, another put, a delete of what was read",
        wide: true,
        run: |mutant| exhaust(Retries { attempts: &[2], puts: 1, mutant }),
    },
    Case {
        name: "retries: at random",
        bounds: "3 members; two puts with 3 attempts, two other puts, a delete of what was read; walks of 40 steps",
        wide: false,
        run: |mutant| walk(&Retries { attempts: &[3, 3], puts: 2, mutant }, 20_000, 40),
    },
];

const MEMBERS: usize = 3;
const MAJORITY: usize = 2;

struct Retries {
    /// Of each put that is repeated; the other puts come behind these, then the delete.
    attempts: &'static [u8],
    puts: usize,
    mutant: Option<Mutant>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    records: Vec<Shared<Record>>,
    attempts: Vec<Attempt>,
    /// Other puts that are done.
    puts: usize,
    deleted: bool,
    /// All that was minted: its dot (a delete has none), of which write, and what it covered.
    minted: BTreeSet<Minted>,
    acknowledged: BTreeSet<usize>,
    broken: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Minted {
    write: usize,
    dot: Option<Dot>,
    covered: BTreeSet<Dot>,
}

/// One attempt, as its coordinator knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Attempt {
    write: usize,
    at: usize,
    /// What is on its way to the others, and to whom it still is.
    sent: Shared<Record>,
    under_way: BTreeSet<usize>,
    /// Who has stored it.
    stored: BTreeSet<usize>,
    /// What was told that the write has not covered.
    uncovered: Option<Context>,
    first: (Option<Dot>, Context),
    phase: Phase,
    /// Its client began it; else it goes on with one that its client began.
    begun: bool,
}

impl Attempt {
    /// A majority has it, and something was not covered.
    fn must_go_on(&self) -> bool {
        self.phase == Phase::First && self.stored.len() >= MAJORITY && self.uncovered.is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    First,
    /// What was to be replaced is covered, or the write is known to be done.
    Last,
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// An attempt begins at a member; a repetition is looked for there and at another one.
    Begin { write: usize, at: usize, asked: usize },
    /// What an attempt sent arrives; its answer, too, or not.
    Arrive { attempt: usize, to: usize, answered: bool },
    /// A majority has the first attempt of a write that lacks something: here is the second. If it
    /// is replaced by then, this other member is looked at as well.
    Again { attempt: usize, asked: usize },
    /// Another client puts a value at these two.
    Put { at: usize, other: usize },
    /// Another client deletes what it reads at these two.
    Delete { at: usize, other: usize },
}

impl Retries {
    fn change(&self, write: usize) -> Change {
        if write == self.attempts.len() + self.puts {
            return Change::Delete;
        }
        Change::Put { value: vec![write as u8].into(), expires_at: None }
    }

    fn request(&self, write: usize) -> Option<Request> {
        let named = write < self.attempts.len();
        named.then(|| Request::new(&[write as u8; 16], &self.change(write), 0))
    }

    fn step(&self, state: &mut State, action: Action) {
        match action {
            Action::Begin { write, at, asked } => self.begin(state, write, (at, asked)),
            Action::Arrive { attempt, to, answered } => arrive(state, attempt, to, answered),
            Action::Again { attempt, asked } => self.again(state, attempt, asked),
            Action::Put { at, other } => {
                let write = self.attempts.len() + state.puts;
                state.puts += 1;
                self.put_at_once(state, write, at, other);
            }
            Action::Delete { at, other } => {
                let read = merged(state, [at, other]).context().clone();
                let write = self.attempts.len() + self.puts;
                self.mint(state, write, at, Basis::Causal(read));
                store(state, at, other);
                state.deleted = true;
            }
        }
    }

    /// A put of which both attempts, if it takes two, are answered at once.
    fn put_at_once(&self, state: &mut State, write: usize, at: usize, other: usize) {
        let first = self.mint(state, write, at, Basis::Overwrite);
        let uncovered = state.records[other].uncovered_by(&state.records[at]);
        store(state, at, other);
        if let Some(uncovered) = uncovered {
            self.mint(state, write, at, Basis::OverwriteAgain { first, uncovered });
            store(state, at, other);
        }
        state.acknowledged.insert(write);
    }

    fn begin(&self, state: &mut State, write: usize, (at, asked): (usize, usize)) {
        let request = self.request(write);
        let suspect = request.is_some_and(|request| {
            let before = state.attempts.iter().any(|attempt| attempt.write == write);
            before || state.records[at].knows(&request) != Known::No
        });
        if let Some(request) = request
            && suspect
        {
            let is_ignorant = |member: &usize| state.records[*member].knows(&request) == Known::No;
            let ignorant = [at, asked].into_iter().filter(is_ignorant);
            let may_be_done = MEMBERS - ignorant.count() >= MAJORITY;
            let seen = merged(state, [at, asked]);
            if seen.knows(&request) != Known::No {
                let event = seen.event(&request);
                let undone = event.stands || event.dots.is_empty();
                if !undone || may_be_done {
                    let first = (event.dot, event.dots.into_iter().collect());
                    return Self::send(state, (write, at, true), seen, first, Phase::Last);
                }
                state.records[at].update(|record| merge(record, &seen));
            }
        }
        if state.acknowledged.contains(&write) {
            state.broken = Some("an acknowledged request is done again");
        }
        let updated = self.mint(state, write, at, Basis::Overwrite);
        let record = Record::clone(&state.records[at]);
        let first = (updated.dot, updated.client_context);
        Self::send(state, (write, at, true), record, first, Phase::First);
    }

    /// Performs a write at a member, and notes what it covered.
    fn mint(&self, state: &mut State, write: usize, at: usize, basis: Basis) -> Updated {
        let (actor, change) = (ActorId::new(at as u64 + 1), self.change(write));
        let limits = Limits::default();
        let updated = state.records[at].update(|record| {
            let updated = match self.request(write) {
                Some(request) => record.update_as(request, actor, change, basis, &limits),
                None => record.update(actor, change, basis, &limits),
            };
            record.settle();
            updated
        });
        let updated = updated.expect("far from every limit");
        let mut covered = dots(&updated.client_context);
        if let Some(dot) = updated.dot {
            covered.remove(&dot);
        }
        if !state.minted.iter().any(|minted| minted.dot.is_some() && minted.dot == updated.dot) {
            state.minted.insert(Minted { write, dot: updated.dot, covered });
        }
        updated
    }

    /// Sends a record to the other members, on behalf of the write begun at one.
    fn send(
        state: &mut State,
        (write, at, begun): (usize, usize, bool),
        record: Record,
        first: (Option<Dot>, Context),
        phase: Phase,
    ) {
        state.records[at].update(|own| merge(own, &record));
        state.attempts.push(Attempt {
            write,
            at,
            sent: Shared::new(record),
            under_way: (0..MEMBERS).filter(|to| *to != at).collect(),
            stored: BTreeSet::from([at]),
            uncovered: None,
            first,
            phase,
            begun,
        });
    }

    fn again(&self, state: &mut State, number: usize, asked: usize) {
        state.attempts[number].phase = Phase::Over;
        let Attempt { write, at, uncovered, first, .. } = state.attempts[number].clone();
        let uncovered = uncovered.unwrap_or_default();
        let (dot, client_context) = first.clone();
        let before = Updated { dot, client_context };
        let basis = Basis::OverwriteAgain { first: before, uncovered: uncovered.clone() };
        let updated = self.mint(state, write, at, basis);
        if updated.dot != dot {
            Self::spares_successors(state, dot, updated.dot);
            let record = Record::clone(&state.records[at]);
            let first = (updated.dot, updated.client_context);
            return Self::send(state, (write, at, false), record, first, Phase::Last);
        }
        // It was replaced: whoever did that replaces the rest as well, or it stays in doubt.
        let seen = merged(state, [at, asked]);
        if !seen.siblings().keys().any(|dot| uncovered.covers(dot)) {
            Self::send(state, (write, at, false), seen, first, Phase::Last);
        }
    }

    /// What came after the first attempt is not replaced by the second.
    fn spares_successors(state: &mut State, first: Option<Dot>, second: Option<Dot>) {
        let minted =
            |dot| state.minted.iter().find(|minted| minted.dot.is_some() && minted.dot == dot);
        let Some((first, second)) = first.zip(minted(second)) else {
            return;
        };
        let mut later = state.minted.iter().filter(|minted| minted.covered.contains(&first));
        if later.any(|later| later.dot.is_some_and(|dot| second.covered.contains(&dot))) {
            state.broken = Some("a successor was replaced");
        }
    }

    /// Every acknowledged put stands, or was deleted, or replaced by something of which the same is true.
    /// What went along with another attempt is none of these.
    fn nothing_is_lost(state: &State) -> bool {
        let all = merged(state, 0..MEMBERS);
        let known = |minted: &&Minted| minted.dot.is_none_or(|dot| all.context().covers(&dot));
        let mut remain: BTreeSet<Dot> = all.siblings().keys().copied().collect();
        let deletes = state.minted.iter().filter(|minted| minted.dot.is_none());
        remain.extend(deletes.flat_map(|minted| &minted.covered));
        loop {
            let stands = |minted: &&Minted| minted.dot.is_some_and(|dot| remain.contains(&dot));
            let heirs = state.minted.iter().filter(known).filter(stands);
            let more: BTreeSet<Dot> = heirs.flat_map(|heir| &heir.covered).copied().collect();
            if more.is_subset(&remain) {
                break;
            }
            remain.extend(more);
        }
        state.acknowledged.iter().all(|write| {
            let mut attempts = state.minted.iter().filter(|minted| minted.write == *write);
            attempts.any(|minted| minted.dot.is_some_and(|dot| remain.contains(&dot)))
        })
    }

    /// Of a put one attempt of which was deleted nothing is left that replaced no other value.
    fn nothing_comes_back(&self, state: &State) -> bool {
        let all = merged(state, 0..MEMBERS);
        let puts = state.minted.iter().filter(|minted| minted.dot.is_some());
        let puts: Vec<&Minted> = puts.collect();
        let is_gone = |dot: &Dot| all.context().covers(dot) && !all.siblings().contains_key(dot);
        puts.iter().filter(|put| put.write < self.attempts.len() && put.covered.is_empty()).all(
            |put| {
                let twins =
                    puts.iter().filter(|twin| twin.write == put.write && twin.dot != put.dot);
                let mut gone = twins.filter_map(|twin| twin.dot).filter(is_gone);
                gone.next().is_none()
                    || put.dot.is_some_and(|dot| !all.siblings().contains_key(&dot))
            },
        )
    }

    /// Each majority knows every acknowledged put.
    fn is_seen(state: &State) -> bool {
        state.acknowledged.iter().all(|write| {
            (0..MEMBERS).all(|left_out| {
                let seen = merged(state, (0..MEMBERS).filter(|member| *member != left_out));
                let mut attempts = state.minted.iter().filter(|minted| minted.write == *write);
                attempts.any(|minted| minted.dot.is_some_and(|dot| seen.context().covers(&dot)))
            })
        })
    }

    /// A put stands under two dots, and a reader is shown one.
    fn is_shown_once(state: &State) -> bool {
        let all = merged(state, 0..MEMBERS);
        let shown: Vec<_> = all.distinct().map(|(_, sibling)| &sibling.value).collect();
        shown.iter().collect::<BTreeSet<_>>().len() == shown.len()
    }
}

/// What an attempt has sent reaches a member, and its answer the coordinator.
fn arrive(state: &mut State, number: usize, to: usize, answered: bool) {
    let attempt = &mut state.attempts[number];
    attempt.under_way.remove(&to);
    let uncovered = state.records[to].uncovered_by(&attempt.sent);
    state.records[to].update(|record| merge(record, &attempt.sent));
    if !answered || attempt.phase == Phase::Over {
        return;
    }
    attempt.stored.insert(to);
    if let Some(told) = uncovered {
        let known = attempt.uncovered.take().unwrap_or_default();
        attempt.uncovered = Some(known.joined(&told));
    }
    if attempt.stored.len() >= MAJORITY && !attempt.must_go_on() {
        attempt.phase = Phase::Over;
        state.acknowledged.insert(attempt.write);
    }
}

/// What one member has, another one gets.
fn store(state: &mut State, from: usize, to: usize) {
    let record = Record::clone(&state.records[from]);
    state.records[to].update(|own| merge(own, &record));
}

/// What these members hold, as a coordinator merges it.
fn merged(state: &State, members: impl IntoIterator<Item = usize>) -> Record {
    let mut all = Record::default();
    for member in members {
        merge(&mut all, &state.records[member]);
    }
    all
}

fn merge(record: &mut Record, other: &Record) {
    record.merge(other);
    record.settle();
}

fn dots(context: &Context) -> BTreeSet<Dot> {
    let stretches = context.vector();
    let stretches = stretches.flat_map(|(actor, n)| (1..=n).map(move |i| Dot::new(actor, i)));
    stretches.chain(context.cloud()).collect()
}

impl Model for Retries {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            records: vec![Shared::new(Record::default()); MEMBERS],
            attempts: Vec::new(),
            puts: 0,
            deleted: false,
            minted: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let others = |at: usize| (0..MEMBERS).filter(move |other| *other != at);
        for (write, attempts) in self.attempts.iter().enumerate() {
            let begun = state.attempts.iter().filter(|one| one.write == write && one.begun).count();
            if begun >= usize::from(*attempts) || state.broken.is_some() {
                continue;
            }
            // All members are alike until the first is asked, and nothing is looked for on behalf of a
            // first attempt.
            let members = if state.minted.is_empty() { 1 } else { MEMBERS };
            let looks = if begun > 0 { MEMBERS } else { 1 };
            actions.extend((0..members).flat_map(|at| {
                others(at).take(looks).map(move |asked| Action::Begin { write, at, asked })
            }));
        }
        for (number, attempt) in state.attempts.iter().enumerate() {
            for &to in &attempt.under_way {
                actions.push(Action::Arrive { attempt: number, to, answered: false });
                if attempt.phase != Phase::Over {
                    actions.push(Action::Arrive { attempt: number, to, answered: true });
                }
            }
            if attempt.must_go_on() {
                let again = |asked| Action::Again { attempt: number, asked };
                actions.extend(others(attempt.at).map(again));
            }
        }
        for at in (0..MEMBERS).filter(|_| !state.minted.is_empty()) {
            if state.puts < self.puts {
                actions.extend(others(at).map(|other| Action::Put { at, other }));
            }
            if !state.deleted {
                actions.extend(others(at).map(|other| Action::Delete { at, other }));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        mutant::with(self.mutant, || self.step(&mut state, action));
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "D11: no request is done again, and no successor replaced",
                |_: &Self, state: &State| state.broken.is_none(),
            ),
            Property::always(
                "D8: a majority sees what is acknowledged",
                |model: &Self, state: &State| mutant::with(model.mutant, || Self::is_seen(state)),
            ),
            Property::always("D11: no value is lost", |model: &Self, state: &State| {
                mutant::with(model.mutant, || Self::nothing_is_lost(state))
            }),
            Property::always(
                "D11: what is deleted does not come back",
                |model: &Self, state: &State| {
                    mutant::with(model.mutant, || model.nothing_comes_back(state))
                },
            ),
            Property::always("D11: an event is shown once", |model: &Self, state: &State| {
                mutant::with(model.mutant, || Self::is_shown_once(state))
            }),
            Property::sometimes("an event has two dots", |_: &Self, state: &State| {
                let dots = |write| {
                    state.minted.iter().filter(move |one| one.write == write && one.dot.is_some())
                };
                dots(0).count() > 1
            }),
            Property::sometimes("all is acknowledged", |model: &Self, state: &State| {
                state.deleted && state.acknowledged.len() == model.attempts.len() + model.puts
            }),
        ]
    }
}
