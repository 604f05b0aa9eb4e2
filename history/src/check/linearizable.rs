//! Linearizability of one key: there is an order of its operations, each at one moment between its start and its end,
//! in which every answer is the one of a single register with put, delete, compare-and-set and get.
//!
//! The search is Wing and Gong's (*Testing and Verifying Concurrent Objects*, 1993) in Lowe's just-in-time form with
//! memory (*Testing for Linearizability*, 2017). It goes through starts and ends in the order of time and keeps the
//! set of all *configurations*: what the register holds, and which of the open operations have been given their place.
//! At an operation's end each configuration must have given it one, so there, and only there, other open writes are
//! tried before it. Four things keep the set small, and none of them loses an answer:
//! - What changes nothing (a get, a refused comparison) is given its place in a configuration as soon as it fits.
//! - A write in doubt stays open for ever, since it may take effect at any time or never. Of two configurations that
//!   differ only in writes in doubt that are used up, the one that has used up less can do all that the other can.
//! - So a write in doubt is tried only where something open can see it.
//! - A put in doubt whose value nobody saw, and that no refused comparison may have met, is left out: it may as well
//!   never happen.
//!
//! Each key is judged by itself (linearizability is local). The number of configurations visited is bounded by
//! [`Rules::configurations`](super::Rules::configurations); beyond it the key is *undecided*, never wrong.

use std::collections::{BTreeMap, BTreeSet};

use super::{Breach, Key, Report, Rules};
use crate::operation::{Action, Operation, Outcome, Time};

pub(super) fn check(key: &Key<'_>, rules: &Rules, report: &mut Report) {
    match judge(key.operations, rules.configurations) {
        Verdict::Linearizable => {}
        Verdict::Undecided => report.undecided += 1,
        Verdict::Impossible { at, possible } => {
            report.add(at, Breach::NotLinearizable { possible });
        }
    }
}

/// What the search came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict<'a> {
    Linearizable,
    Impossible { at: &'a Operation, possible: Vec<Option<String>> },
    Undecided,
}

/// A value, or none.
type Value<'a> = Option<&'a str>;
/// An operation's place among those that are judged.
type Index = usize;

/// What the register may hold, and which open operations it has already met.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Configuration<'a> {
    value: Value<'a>,
    /// Open operations whose clients will know of their end.
    placed: BTreeSet<Index>,
    /// Writes in doubt.
    used_up: BTreeSet<Index>,
}

/// What an operation does at its moment.
#[derive(Debug, Clone, Copy)]
enum Effect<'a> {
    /// Nothing, and the register holds this value.
    Sees(Value<'a>),
    /// Nothing, and the register holds another value.
    Misses(Value<'a>),
    /// The register gets this value.
    Sets(Value<'a>),
    /// The register holds the first value, and gets the second.
    Swaps(Value<'a>, Value<'a>),
    /// More than one value was returned: no register does that.
    Impossible,
}

impl<'a> Effect<'a> {
    fn of(operation: &'a Operation) -> Self {
        match (&operation.request.action, &operation.outcome) {
            (Action::Get, Outcome::Returned(values)) => match &values[..] {
                [] => Self::Sees(None),
                [value] => Self::Sees(Some(value)),
                _ => Self::Impossible,
            },
            (Action::CompareAndSet { expected, .. }, Outcome::Conflict) => {
                Self::Misses(expected.as_deref())
            }
            (Action::CompareAndSet { expected, value }, _) => {
                Self::Swaps(expected.as_deref(), value.as_deref())
            }
            (Action::Put(value), _) => Self::Sets(Some(value)),
            (Action::Delete, _) => Self::Sets(None),
            (Action::Get, _) => Self::Impossible,
        }
    }

    /// What the register holds afterwards; None where it cannot have happened.
    fn after(self, value: Value<'a>) -> Option<Value<'a>> {
        match self {
            Self::Sees(seen) => (seen == value).then_some(value),
            Self::Misses(expected) => (expected != value).then_some(value),
            Self::Sets(new) => Some(new),
            Self::Swaps(expected, new) => (expected == value).then_some(new),
            Self::Impossible => None,
        }
    }

    fn is_harmless(self) -> bool {
        matches!(self, Self::Sees(_) | Self::Misses(_))
    }
}

/// The search, between two events.
struct Search<'a> {
    effects: Vec<Effect<'a>>,
    in_doubt: Vec<bool>,
    /// Started, and not ended.
    open: BTreeSet<Index>,
    configurations: BTreeSet<Configuration<'a>>,
    visited: usize,
}

/// Judges the operations of one key.
pub(crate) fn judge<'a>(operations: &[&'a Operation], limit: usize) -> Verdict<'a> {
    let judged = judged(operations);
    let mut search = Search {
        effects: judged.iter().map(|one| Effect::of(one)).collect(),
        in_doubt: judged.iter().map(|one| one.outcome == Outcome::InDoubt).collect(),
        open: BTreeSet::new(),
        configurations: BTreeSet::from([Configuration {
            value: None,
            placed: BTreeSet::new(),
            used_up: BTreeSet::new(),
        }]),
        visited: 0,
    };
    for (_, is_end, index) in events(&judged) {
        if !is_end {
            search.open(index);
            continue;
        }
        let before = search.values();
        if search.close(index, limit).is_none() {
            return Verdict::Undecided;
        }
        if search.configurations.is_empty() {
            return Verdict::Impossible { at: judged[index], possible: before };
        }
    }
    Verdict::Linearizable
}

/// Starts and ends in the order of time. Operations that touch at one moment are beside each other.
fn events(judged: &[&Operation]) -> Vec<(Time, bool, Index)> {
    let mut events = Vec::with_capacity(judged.len() * 2);
    for (index, one) in judged.iter().enumerate() {
        events.push((one.start, false, index));
        if let (Some(end), true) = (one.end, one.outcome != Outcome::InDoubt) {
            events.push((end, true, index));
        }
    }
    events.sort_unstable();
    events
}

/// The operations that can make a difference.
fn judged<'a>(operations: &[&'a Operation]) -> Vec<&'a Operation> {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut any_miss = false;
    for one in operations {
        seen.extend(one.returned().unwrap_or_default().iter().map(String::as_str));
        if let Action::CompareAndSet { expected, .. } = &one.request.action {
            seen.extend(expected.as_deref());
        }
        any_miss |= one.outcome == Outcome::Conflict;
    }
    let matters = |one: &&&Operation| match one.outcome {
        Outcome::Refused => false,
        Outcome::InDoubt if !one.is_write() => false,
        Outcome::InDoubt => any_miss || one.value().is_none_or(|value| seen.contains(value)),
        _ => true,
    };
    operations.iter().filter(matters).copied().collect()
}

impl<'a> Search<'a> {
    /// An operation starts: from now on it can have its place.
    fn open(&mut self, index: Index) {
        self.open.insert(index);
        if self.effects[index].is_harmless() {
            let configurations = std::mem::take(&mut self.configurations);
            self.configurations = configurations.into_iter().map(|one| self.settle(one)).collect();
        }
    }

    /// An operation ends: in every configuration it must have its place by now. None when there are too many.
    fn close(&mut self, index: Index, limit: usize) -> Option<()> {
        let mut placed = Frontier::default();
        let mut visited = Frontier::default();
        let mut ahead: Vec<_> = std::mem::take(&mut self.configurations).into_iter().collect();
        while let Some(mut one) = ahead.pop() {
            if one.placed.remove(&index) {
                placed.insert(&one);
                continue;
            }
            if !visited.insert(&one) {
                continue;
            }
            self.visited += 1;
            if self.visited > limit {
                return None;
            }
            for other in &self.open {
                ahead.extend(self.place(&one, *other));
            }
        }
        self.open.remove(&index);
        self.configurations = placed.into_configurations();
        Some(())
    }

    /// The configuration after this open operation was given its place now.
    fn place(&self, from: &Configuration<'a>, index: Index) -> Option<Configuration<'a>> {
        if from.placed.contains(&index) || from.used_up.contains(&index) {
            return None;
        }
        let value = self.effects[index].after(from.value)?;
        if self.in_doubt[index] && !self.is_seen(value, from) {
            return None;
        }
        let mut to = Configuration { value, ..from.clone() };
        let taken = if self.in_doubt[index] { &mut to.used_up } else { &mut to.placed };
        taken.insert(index);
        Some(self.settle(to))
    }

    /// Whether an open operation without a place fits this value, and tells it from others.
    fn is_seen(&self, value: Value<'a>, from: &Configuration<'a>) -> bool {
        let free = |index: &&Index| !from.placed.contains(index) && !from.used_up.contains(index);
        self.open.iter().filter(free).any(|index| {
            let effect = self.effects[*index];
            !matches!(effect, Effect::Sets(_)) && effect.after(value).is_some()
        })
    }

    /// Gives all open operations that change nothing, and fit, their place.
    fn settle(&self, mut one: Configuration<'a>) -> Configuration<'a> {
        for index in &self.open {
            let effect = self.effects[*index];
            if effect.is_harmless() && effect.after(one.value).is_some() {
                one.placed.insert(*index);
            }
        }
        one
    }

    fn values(&self) -> Vec<Option<String>> {
        let values: BTreeSet<_> = self.configurations.iter().map(|one| one.value).collect();
        values.into_iter().map(|value| value.map(str::to_owned)).collect()
    }
}

/// Configurations without those that can do nothing that another one cannot.
#[derive(Default)]
struct Frontier<'a> {
    /// Value and placed operations → the smallest sets of used up ones.
    least: BTreeMap<(Value<'a>, BTreeSet<Index>), Vec<BTreeSet<Index>>>,
}

impl<'a> Frontier<'a> {
    /// False if another one can do all that this one can.
    fn insert(&mut self, one: &Configuration<'a>) -> bool {
        let least = self.least.entry((one.value, one.placed.clone())).or_default();
        if least.iter().any(|other| other.is_subset(&one.used_up)) {
            return false;
        }
        least.retain(|other| !one.used_up.is_subset(other));
        least.push(one.used_up.clone());
        true
    }

    fn into_configurations(self) -> BTreeSet<Configuration<'a>> {
        let all = self.least.into_iter().flat_map(|((value, placed), least)| {
            let configuration =
                move |used_up| Configuration { value, placed: placed.clone(), used_up };
            least.into_iter().map(configuration)
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::{found, told};

    const RIGHT: [&str; 0] = [];

    fn is_found(lines: &[&str]) -> bool {
        let story: Vec<String> = lines.iter().map(|line| format!("{line} lin")).collect();
        let found = found(&story.join("\n"));
        found.iter().any(|one| one.contains("no order explains it"))
    }

    #[test]
    fn answers_that_some_order_explains_are_right() {
        assert!(!is_found(&["1 put a 0-10 ok", "2 get 5-8 =", "2 get 9-12 =a", "3 get 1-20 ="]));
        assert!(!is_found(&[
            "1 put a 0-30 ok",
            "2 put b 0-30 ok",
            "3 get 5-8 =b",
            "3 get 9-10 =a"
        ]));
        assert!(!is_found(&["1 cas ->a 0-10 ok", "2 cas ->b 0-10 conflict", "1 cas a>- 20-30 ok"]));
        assert!(!is_found(&["1 put a 0-10 ok", "1 delete 20-30 ok", "1 get 40-50 ="]));
    }

    #[test]
    fn a_write_in_doubt_may_take_effect_at_any_time_or_never() {
        for answers in [["=", "=a"], ["=a", "=a"], ["=", "="]] {
            let reads =
                [format!("2 get 20-30 {}", answers[0]), format!("2 get 40-50 {}", answers[1])];
            assert!(!is_found(&["1 put a 0-10 doubt", &reads[0], &reads[1]]), "{answers:?}");
        }
    }

    #[test]
    fn planted_an_effect_that_came_and_went_is_found() {
        assert!(is_found(&["1 put a 0-10 doubt", "2 get 20-30 =a", "2 get 40-50 ="]));
        assert!(is_found(&["1 put a 0-30 ok", "2 get 5-8 =a", "3 get 9-12 ="]));
    }

    #[test]
    fn planted_a_stale_read_and_a_lost_write_are_found() {
        assert!(is_found(&["1 put a 0-10 ok", "2 get 20-30 ="]));
        assert!(is_found(&["1 put a 0-10 ok", "1 put b 20-30 ok", "2 get 40-50 =a"]));
    }

    #[test]
    fn planted_two_winners_of_one_comparison_are_found() {
        assert!(is_found(&["1 cas ->a 0-10 ok", "2 cas ->b 5-15 ok"]));
        assert!(is_found(&["1 put a 0-10 ok", "1 cas a>b 20-30 ok", "2 cas a>c 20-30 ok"]));
    }

    #[test]
    fn planted_a_conflict_with_nobody_is_found() {
        assert!(is_found(&["1 put a 0-10 ok", "2 cas a>b 20-30 conflict"]));
        // One in doubt, whose value nobody ever read, may be who was in the way.
        assert!(!is_found(&["1 put a 0-10 ok", "1 put b 12-15 doubt", "2 cas a>c 20-30 conflict"]));
    }

    #[test]
    fn planted_siblings_and_a_refused_write_that_took_effect_are_found() {
        assert!(is_found(&["1 put a 0-10 ok", "2 put b 0-10 ok", "3 get 20-30 =a,b"]));
        assert!(is_found(&["1 put a 0-10 ok", "1 put b 20-30 refused", "3 get 40-50 =b"]));
    }

    #[test]
    fn what_was_possible_is_told() {
        let story =
            "1 put a 0-10 ok lin\n1 put b 20-30 doubt lin\n3 get 40-50 = lin\n3 get 60-70 =b lin";
        let found = found(story);
        assert!(found.iter().any(|one| one.ends_with("[Some(\"a\")]")), "{found:?}");
    }

    #[test]
    fn many_writes_in_doubt_beside_each_other_cost_little() {
        let put = |n| format!("{n} put v{n} {n}-{} doubt lin", n + 1);
        let get = |n| format!("1000 get {}-{} =v{n} lin", 1_000 + 10 * n, 1_005 + 10 * n);
        let lines: Vec<String> = (0..60).map(put).chain((0..60).map(get)).collect();
        let story = lines.join("\n");
        let history = told(&story);
        let operations: Vec<_> = history.operations.iter().collect();
        assert_eq!(judge(&operations, 100_000), Verdict::Linearizable);
        assert_eq!(judge(&operations, 10), Verdict::Undecided);
        assert_eq!(found(&story), RIGHT);
    }
}
