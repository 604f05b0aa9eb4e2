//! What replaces what: the order of one key's writes, as far as a history tells it.
//!
//! A write without a context replaces everything that QUORUM acknowledged before it began, and may replace whatever
//! else was there when it took effect. A write with a context replaces what the context has seen, which is: what the
//! read returned that it comes from, or the write that it comes from, and all that these had replaced; and nothing else.
//! From this follow two questions with different answers, and the checkers ask the one that errs on the safe side:
//! what a write *surely* replaces ([`Register::replaced`]), and what it *may* have replaced ([`Register::accounted`]).

use std::collections::BTreeMap;

use crate::check::Rules;
use crate::operation::{Action, Level, Mode, Operation, OperationId, Time};

/// The place of a write among its key's writes.
pub(crate) type Place = usize;

/// One key's writes.
pub(crate) struct Register<'a> {
    /// In the order of their starts.
    writes: Vec<&'a Operation>,
    /// Value → its writer.
    writers: BTreeMap<&'a str, Place>,
    /// Of each write what its context names; None for one without a context.
    named: Vec<Option<Vec<Place>>>,
    /// Of each write those whose contexts name it.
    namers: Vec<Vec<Place>>,
    /// Puts, and deletes, without a context that QUORUM acknowledged.
    overwrites: [Overwrites; 2],
    mode: Mode,
    grace: Time,
}

/// What took a value away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Put,
    Delete,
}

/// Writes by start, each with the earliest end among itself and all later ones.
#[derive(Default)]
struct Overwrites(Vec<(Time, (Time, Place))>);

impl Overwrites {
    fn of(writes: &[&Operation], wanted: impl Fn(&Operation) -> bool) -> Self {
        let mut list = Vec::new();
        let mut earliest = (Time::MAX, Place::MAX);
        for (place, write) in writes.iter().enumerate().rev().filter(|(_, one)| wanted(one)) {
            earliest = earliest.min((write.end.unwrap_or(Time::MAX), place));
            list.push((write.start, earliest));
        }
        list.reverse();
        Self(list)
    }

    /// One that began after the first moment and ended before the second.
    fn between(&self, after: Time, before: Time) -> Option<Place> {
        let first = self.0.partition_point(|(start, _)| *start <= after);
        let (_, (end, place)) = self.0.get(first)?;
        (*end < before).then_some(*place)
    }
}

impl<'a> Register<'a> {
    /// From all operations on one key, in the order of their starts.
    pub(crate) fn new(operations: &[&'a Operation], rules: &Rules) -> Self {
        let mode =
            operations.first().map_or(Mode::Strict, |one| Mode::of_bucket(&one.request.bucket));
        let writes: Vec<_> = operations.iter().copied().filter(|one| one.is_write()).collect();
        let writers: BTreeMap<_, _> = writes
            .iter()
            .enumerate()
            .filter_map(|(place, write)| Some((write.value()?, place)))
            .collect();
        let named = named(operations, &writes, &writers);
        let mut namers = vec![Vec::new(); writes.len()];
        for (place, named) in named.iter().enumerate() {
            for base in named.iter().flatten() {
                namers[*base].push(place);
            }
        }
        let overwrites = [By::Put, By::Delete].map(|by| {
            let wanted = |one: &Operation| {
                one.request.context.is_none() && is_promised(one) && kind(one) == by
            };
            // In other modes a write without a context replaces what the nodes that took it knew.
            if mode == Mode::Strict {
                Overwrites::of(&writes, wanted)
            } else {
                Overwrites::default()
            }
        });
        Self { writes, writers, named, namers, overwrites, mode, grace: rules.grace }
    }

    /// What the bucket promises.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// The writes, in the order of their starts.
    pub(crate) fn writes(&self) -> &[&'a Operation] {
        &self.writes
    }

    /// Who may have written this value when a read that returned it ended.
    pub(crate) fn writer(&self, value: &str, read: &Operation) -> Option<Place> {
        let place = *self.writers.get(value)?;
        let write = self.writes[place];
        let known = write.may_have_written() && read.end.is_none_or(|end| write.start <= end);
        known.then_some(place)
    }

    /// Those that wrote what the read returned.
    pub(crate) fn shown(&self, read: &Operation) -> Vec<Place> {
        let values = read.returned().unwrap_or_default();
        values.iter().filter_map(|value| self.writer(value, read)).collect()
    }

    /// What the write's context names.
    pub(crate) fn named(&self, place: Place) -> &[Place] {
        self.named[place].as_deref().unwrap_or_default()
    }

    /// Whether another write may have replaced this one, now or later.
    pub(crate) fn is_disputed(&self, place: Place) -> bool {
        let may = |one: Place| one != place && self.writes[one].may_have_written();
        let start = self.writes[place].start;
        let overwritten = (0..self.writes.len())
            .any(|one| may(one) && self.named[one].is_none() && self.latest(one) >= start);
        overwritten || self.namers[place].iter().any(|one| may(*one))
    }

    /// A put, or a delete, that had surely replaced this write when a read at QUORUM began.
    pub(crate) fn replaced(&self, place: Place, began: Time, by: By) -> Option<Place> {
        let write = self.writes[place];
        let overwritten = || {
            let end = write.end.filter(|_| is_promised(write))?;
            self.overwrites[usize::from(by == By::Delete)].between(end, began)
        };
        let mut visited = vec![false; self.writes.len()];
        let mut named =
            self.namers[place].iter().copied().filter(|one| kind(self.writes[*one]) == by);
        named.find(|one| self.is_certain(*one, began, &mut visited)).or_else(overwritten)
    }

    /// Whether a write had surely taken effect before this moment: acknowledged, or seen by one that was.
    fn is_certain(&self, place: Place, before: Time, visited: &mut [bool]) -> bool {
        if std::mem::replace(&mut visited[place], true) {
            return false;
        }
        let write = self.writes[place];
        let acknowledged = is_promised(write) && write.ended_before(before);
        acknowledged || self.namers[place].iter().any(|one| self.is_certain(*one, before, visited))
    }

    /// By place, which writes the read shows, or may miss because something that it shows, or a delete, may have
    /// replaced them.
    pub(crate) fn accounted(&self, read: &Operation) -> Vec<bool> {
        let mut accounted = vec![false; self.writes.len()];
        let limit = read.end.unwrap_or(Time::MAX);
        let deleted = (0..self.writes.len()).filter(|place| {
            let write = self.writes[*place];
            write.may_have_written() && write.value().is_none() && write.start <= limit
        });
        let mut open: Vec<Place> = self.shown(read).into_iter().chain(deleted).collect();
        // What began up to the horizon may have been replaced by a write without a context.
        let mut horizon = None;
        let mut next = 0;
        loop {
            while let Some(place) = open.pop() {
                if std::mem::replace(&mut accounted[place], true) {
                    continue;
                }
                match &self.named[place] {
                    Some(named) => open.extend(named),
                    None => horizon = horizon.max(Some(self.latest(place).min(limit))),
                }
            }
            while next < self.writes.len() && Some(self.writes[next].start) <= horizon {
                if self.writes[next].may_have_written() {
                    open.push(next);
                }
                next += 1;
            }
            if open.is_empty() {
                return accounted;
            }
        }
    }

    /// The last moment at which a write may have taken effect.
    fn latest(&self, place: Place) -> Time {
        let write = self.writes[place];
        match write.end {
            Some(end) if write.is_acknowledged() => end,
            Some(end) => end.saturating_add(self.grace),
            None => Time::MAX,
        }
    }
}

/// Whether a write is one that reads at QUORUM must see.
pub(crate) fn is_promised(write: &Operation) -> bool {
    write.is_acknowledged() && write.request.level >= Level::Quorum
}

fn kind(write: &Operation) -> By {
    if write.value().is_some() { By::Put } else { By::Delete }
}

/// Of each write what its context names.
fn named(
    operations: &[&Operation],
    writes: &[&Operation],
    writers: &BTreeMap<&str, Place>,
) -> Vec<Option<Vec<Place>>> {
    let sources: BTreeMap<OperationId, &Operation> =
        operations.iter().map(|one| (one.id, *one)).collect();
    let places: BTreeMap<OperationId, Place> =
        writes.iter().enumerate().map(|(place, one)| (one.id, place)).collect();
    let of = |source: &Operation| match &source.request.action {
        Action::Get => {
            let values = source.returned().unwrap_or_default();
            values.iter().filter_map(|value| writers.get(value.as_str()).copied()).collect()
        }
        _ => places.get(&source.id).copied().into_iter().collect(),
    };
    let named = |write: &&Operation| {
        let source = write.request.context?;
        Some(sources.get(&source).map(|source| of(source)).unwrap_or_default())
    };
    writes.iter().map(named).collect()
}
