//! The check of linearizability says what stateright's `LinearizabilityTester` says, an implementation without memory
//! by other hands, on small histories: right ones, and ones whose answers are drawn at random.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use triad_history::{Action, Breach, History, Operation, Outcome, Request, Rules, check};

/// The register, as stateright wants it.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
struct Register(Option<String>);

#[derive(Clone, Debug, PartialEq, Hash)]
enum Answer {
    Done,
    Conflict,
    Holds(Option<String>),
}

impl SequentialSpec for Register {
    type Op = Action;
    type Ret = Answer;

    fn invoke(&mut self, action: &Action) -> Answer {
        match action {
            Action::Get => return Answer::Holds(self.0.clone()),
            Action::Put(value) => self.0 = Some(value.clone()),
            Action::Delete => self.0 = None,
            Action::CompareAndSet { expected, value } if *expected == self.0 => {
                self.0.clone_from(value);
            }
            Action::CompareAndSet { .. } => return Answer::Conflict,
        }
        Answer::Done
    }
}

/// What stateright says. Every operation has a thread of its own, so that those in doubt can stay open.
fn is_linearizable(history: &History) -> bool {
    let mut tester = LinearizabilityTester::new(Register::default());
    let mut events = Vec::new();
    for one in &history.operations {
        events.push((one.start, one.id));
        events.extend(one.end.map(|end| (end, one.id)));
    }
    events.sort_unstable();
    let mut started = std::collections::BTreeSet::new();
    for (_, id) in events {
        let one = &history.operations[id as usize];
        let answer = match &one.outcome {
            Outcome::Refused => continue,
            Outcome::InDoubt if one.request.action == Action::Get => continue,
            Outcome::InDoubt => None,
            Outcome::Acknowledged => Some(Answer::Done),
            Outcome::Conflict => Some(Answer::Conflict),
            Outcome::Returned(values) => Some(Answer::Holds(values.first().cloned())),
        };
        if started.insert(id) {
            tester.on_invoke(id, one.request.action.clone()).unwrap();
        } else if let Some(answer) = answer {
            tester.on_return(id, answer).unwrap();
        }
    }
    tester.is_consistent()
}

/// What an operation may be: what it does, how long it waits before and runs, its moment in it, its outcome.
type Draft = (u8, u8, u8, u64, u64, u64, u8);

fn drafts() -> impl Strategy<Value = Vec<Draft>> {
    let draft = (0..7_u8, 0..8_u8, 0..3_u8, 0..12_u64, 1..40_u64, 0..40_u64, 0..8_u8);
    proptest::collection::vec(draft, 1..9)
}

/// A history of a register that does each operation at its moment. With `lies`, some answers are drawn instead.
fn history(drafts: &[Draft], lies: bool) -> History {
    let mut planned = Vec::new();
    let mut start = 0;
    for (number, (kind, other, fate, wait, length, moment, lie)) in drafts.iter().enumerate() {
        // All moments differ, so both testers agree on what is beside what.
        start += wait * 100;
        let number = number as u64;
        let (from, to) = (start + number, start + length * 100 + 20 + number);
        let moment = from + 1 + (to - from - 2) * moment / 40;
        let value = format!("v{number}");
        let earlier = (*other > 0).then(|| format!("v{}", u64::from(*other) - 1));
        let action = match kind {
            0 | 1 => Action::Put(value),
            2 => Action::Delete,
            3 | 4 => Action::CompareAndSet { expected: earlier.clone(), value: Some(value) },
            _ => Action::Get,
        };
        planned.push((moment, number, from, to, action, *fate, lies && *lie == 0, earlier));
    }
    planned.sort_by_key(|(moment, number, ..)| (*moment, *number));
    let mut register = Register::default();
    let mut operations = Vec::new();
    for (_, id, start, to, action, fate, lie, other) in planned {
        // In doubt: half of them took effect.
        let in_doubt = fate == 0 && id % 2 == 0;
        let happens = !in_doubt || id % 4 == 0;
        let answer = happens.then(|| register.invoke(&action));
        let outcome = match answer {
            _ if in_doubt => Outcome::InDoubt,
            Some(Answer::Holds(_)) if lie => Outcome::Returned(other.into_iter().collect()),
            Some(Answer::Holds(value)) => Outcome::Returned(value.into_iter().collect()),
            Some(Answer::Conflict) if lie => Outcome::Acknowledged,
            Some(Answer::Conflict) => Outcome::Conflict,
            _ => Outcome::Acknowledged,
        };
        let end = (outcome != Outcome::InDoubt).then_some(to);
        let request = Request::new(id as u32, "k", action).in_bucket("lin.b");
        operations.push(Operation { id, request, start, end, outcome });
    }
    operations.sort_by_key(|one| one.id);
    History { operations, ..History::default() }
}

/// What our check says.
fn is_right(history: &History) -> bool {
    let report = check(history, &Rules::default()).unwrap();
    assert_eq!(report.undecided, 0);
    !report.violations.iter().any(|one| matches!(one.breach, Breach::NotLinearizable { .. }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_a_register_answered_is_linearizable(drafts in drafts()) {
        let history = history(&drafts, false);
        prop_assert!(is_right(&history), "{history:#?}");
        prop_assert!(is_linearizable(&history), "stateright: {history:#?}");
    }

    #[test]
    fn the_check_and_stateright_say_the_same(drafts in drafts()) {
        let history = history(&drafts, true);
        prop_assert_eq!(is_right(&history), is_linearizable(&history), "{:#?}", history);
    }
}

#[test]
fn the_drawn_histories_are_of_both_kinds() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut counts = [0; 2];
    for _ in 0..500 {
        let drafts = drafts().new_tree(&mut runner).unwrap().current();
        counts[usize::from(is_right(&history(&drafts, true)))] += 1;
    }
    assert!(counts.iter().all(|count| *count >= 50), "wrong and right ones: {counts:?}");
}
