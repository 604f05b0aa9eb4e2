//! A register with siblings that is right by construction: each write knows the set of all writes that it covers, and
//! a read shows what no other of the writes that it has met covers. Which writes meet which is drawn, within what is
//! promised. With a [`Bug`] it breaks one of its rules.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use triad_history::{Action, History, Level, Operation, Outcome, Request, Time};

/// Clients, each of which does one thing at a time.
pub(crate) const CLIENTS: u32 = 4;

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// Reads need not meet what was acknowledged.
    LosesWrites,
    /// A write without a context covers nothing.
    CoversNothing,
    /// A write with a context forgets what it covers.
    ForgetsContexts,
    /// Reads take no notice of deletes.
    ForgetsDeletes,
    /// Refused writes take effect.
    DoesWhatItRefused,
}

/// What an operation may be.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    client: u32,
    kind: u8,
    causal: bool,
    one: bool,
    fate: u8,
    wait: Time,
    length: Time,
    moment: Time,
    /// Which of the writes that it may meet it meets.
    meets: u64,
}

pub(crate) fn drafts(most: usize) -> impl Strategy<Value = Vec<Draft>> {
    let first = (0..CLIENTS, 0..10_u8, any::<bool>(), 0..6_u8, 0..10_u8);
    let second = (0..10_u64, 1..30_u64, 0..30_u64, any::<u64>());
    let draft = (first, second).prop_map(|(first, second)| {
        let (client, kind, causal, one, fate) = first;
        let (wait, length, moment, meets) = second;
        Draft { client, kind, causal, one: one == 0, fate, wait, length, moment, meets }
    });
    proptest::collection::vec(draft, 1..most)
}

/// How the history is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) bucket: &'static str,
    /// Writes in doubt may take effect long after their clients gave up.
    pub(crate) late: bool,
    pub(crate) bug: Bug,
}

type Id = u64;

/// All that has happened.
struct Twin {
    plan: Plan,
    /// Write → what it covers.
    covers: BTreeMap<Id, BTreeSet<Id>>,
    /// What an operation's reply had as its context.
    contexts: BTreeMap<Id, BTreeSet<Id>>,
    operations: BTreeMap<Id, Operation>,
    meets: BTreeMap<Id, u64>,
}

/// An operation is planned, a write takes effect, a read is answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Effect,
    Answer,
}

/// Plays the drafts, and then reads the key again at rest.
pub(crate) fn history(drafts: &[Draft], plan: Plan) -> History {
    let mut twin = Twin {
        plan,
        covers: BTreeMap::new(),
        contexts: BTreeMap::new(),
        operations: BTreeMap::new(),
        meets: BTreeMap::new(),
    };
    let mut steps = Vec::new();
    let mut clocks = vec![0; CLIENTS as usize];
    let mut last: Vec<Option<Id>> = vec![None; CLIENTS as usize];
    for (id, draft) in drafts.iter().enumerate() {
        let id = id as Id;
        let client = draft.client as usize;
        // No two moments are the same.
        let start = clocks[client] + draft.wait * 1_000 + id;
        let end = start + draft.length * 1_000;
        clocks[client] = end + 1_000;
        let operation = operation(id, draft, (start, end), plan.bucket, last[client]);
        let in_doubt = operation.outcome == Outcome::InDoubt;
        let late = if plan.late && in_doubt { 40_000 } else { 0 };
        let moment = start + 200 + (draft.length * 1_000 - 400) * draft.moment / 30 + late;
        if operation.is_write() {
            let happens = !in_doubt || draft.meets % 3 > 0;
            let refused =
                operation.outcome == Outcome::Refused && plan.bug != Bug::DoesWhatItRefused;
            steps.extend((happens && !refused).then_some((moment, Step::Effect, id)));
        }
        steps.push((end, Step::Answer, id));
        if matches!(operation.outcome, Outcome::Acknowledged | Outcome::Returned(_)) {
            last[client] = Some(id);
        }
        twin.meets.insert(id, draft.meets);
        twin.operations.insert(id, operation);
    }
    steps.sort_unstable();
    for (_, step, id) in steps {
        match step {
            Step::Effect => twin.effect(id),
            Step::Answer => twin.answer(id),
        }
    }
    twin.come_to_rest()
}

fn operation(
    id: Id,
    draft: &Draft,
    (start, end): (Time, Time),
    bucket: &str,
    source: Option<Id>,
) -> Operation {
    let (action, outcome) = match draft.kind {
        0..=3 => (Action::Put(format!("v{id}")), Outcome::Acknowledged),
        4 | 5 => (Action::Delete, Outcome::Acknowledged),
        _ => (Action::Get, Outcome::Returned(Vec::new())),
    };
    let outcome = match draft.fate {
        0 => Outcome::Refused,
        1 | 2 => Outcome::InDoubt,
        _ => outcome,
    };
    let mut request = Request::new(draft.client, "k", action).in_bucket(bucket);
    if draft.one {
        request.level = Level::One;
    }
    if draft.causal && request.action != Action::Get {
        request.context = source;
    }
    let end = (draft.fate != 1).then_some(end);
    Operation { id, request, start, end, outcome }
}

impl Twin {
    /// The writes that an operation meets: those it must, and some others that have taken effect.
    fn met(&self, id: Id) -> BTreeSet<Id> {
        let operation = &self.operations[&id];
        let strict = self.plan.bucket.is_empty() && operation.request.level >= Level::Quorum
            || operation.is_write() && self.plan.bucket.is_empty();
        let must = |write: &Operation| {
            write.is_acknowledged()
                && write.request.level >= Level::Quorum
                && write.ended_before(operation.start)
        };
        let loses = self.plan.bug == Bug::LosesWrites && !operation.is_write();
        let drawn = |write: Id| self.meets[&id] >> (write % 64) & 1 == 1;
        let known = self.covers.keys().copied().filter(|write| *write != id);
        known
            .filter(|write| drawn(*write) || strict && !loses && must(&self.operations[write]))
            .collect()
    }

    fn with_covered(&self, met: &BTreeSet<Id>) -> BTreeSet<Id> {
        met.iter().flat_map(|one| self.covers[one].iter().copied().chain([*one])).collect()
    }

    fn effect(&mut self, id: Id) {
        let source = self.operations[&id].request.context;
        let covers = match (source, self.plan.bug) {
            (Some(_), Bug::ForgetsContexts) | (None, Bug::CoversNothing) => BTreeSet::new(),
            (Some(source), _) => self.contexts[&source].clone(),
            (None, _) => self.with_covered(&self.met(id)),
        };
        let context = covers.iter().copied().chain([id]).collect();
        self.contexts.insert(id, context);
        self.covers.insert(id, covers);
    }

    fn answer(&mut self, id: Id) {
        if self.operations[&id].returned().is_none() {
            return;
        }
        let met = self.met(id);
        let values = self.shown(&met);
        self.contexts.insert(id, self.with_covered(&met));
        let operation = self.operations.get_mut(&id).expect("an operation that was planned");
        operation.outcome = Outcome::Returned(values);
    }

    fn shown(&self, met: &BTreeSet<Id>) -> Vec<String> {
        let heeded = |one: &&Id| {
            self.plan.bug != Bug::ForgetsDeletes || self.operations[one].value().is_some()
        };
        let covered: BTreeSet<Id> =
            met.iter().filter(heeded).flat_map(|one| self.covers[one].iter().copied()).collect();
        met.difference(&covered)
            .filter_map(|one| self.operations[one].value().map(str::to_owned))
            .collect()
    }

    fn come_to_rest(self) -> History {
        let times = self.operations.values().flat_map(|one| [Some(one.start), one.end]);
        let rest = times.flatten().max().unwrap_or_default() + 100_000;
        let all: BTreeSet<Id> = self.covers.keys().copied().collect();
        let lost: BTreeSet<Id> = all.iter().copied().skip(1).collect();
        let mut operations: Vec<_> = self.operations.values().cloned().collect();
        for (turn, level) in [Level::Quorum, Level::One].into_iter().enumerate() {
            let loses = self.plan.bug == Bug::LosesWrites && level == Level::One;
            let met = if loses { &lost } else { &all };
            let id = operations.len() as Id;
            let start = rest + 10 * turn as Time;
            let request = Request::new(9, "k", Action::Get).in_bucket(self.plan.bucket).at(level);
            let outcome = Outcome::Returned(self.shown(met));
            operations.push(Operation { id, request, start, end: Some(start + 5), outcome });
        }
        History { operations, rest: Some(rest), ..History::default() }
    }
}
