//! The checkers accuse nothing that a right register did, and find what a wrong one does.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod twin;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use triad_history::{Action, History, Outcome, Rules, check};
use twin::{Bug, Plan, drafts, history};

/// Operations of a history at most.
const MOST: usize = 24;
/// Histories of each wrong register.
const WRONG: usize = 300;

fn problems(history: &History, rules: &Rules) -> Vec<String> {
    check(history, rules).unwrap().violations.iter().map(ToString::to_string).collect()
}

/// Nothing in doubt overwrites after its client gave up.
fn punctual() -> Rules {
    Rules { grace: 0, ..Rules::default() }
}

/// The drafts with one client alone, and nothing in doubt or at ONE: every read has one right answer.
fn sequential(mut history: History) -> History {
    let mut now = 0;
    let mut value: Option<String> = None;
    history.operations.retain(|one| one.outcome != Outcome::InDoubt);
    history.rest = None;
    for (id, one) in history.operations.iter_mut().enumerate() {
        one.id = id as u64;
        one.request.context = None;
        one.request.level = triad_history::Level::Quorum;
        (one.start, one.end) = (now, Some(now + 5));
        now += 10;
        match (&one.request.action, &mut one.outcome) {
            (Action::Get, Outcome::Returned(values)) => *values = value.iter().cloned().collect(),
            (Action::Put(new), Outcome::Acknowledged) => value = Some(new.clone()),
            (Action::Delete, Outcome::Acknowledged) => value = None,
            _ => {}
        }
    }
    history
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn a_right_register_is_never_accused(drafts in drafts(MOST)) {
        let plan = Plan { bucket: "", late: false, bug: Bug::None };
        let history = history(&drafts, plan);
        prop_assert_eq!(problems(&history, &punctual()), [""; 0], "{:#?}", history);
        prop_assert_eq!(problems(&history, &Rules::default()), [""; 0], "{:#?}", history);
    }

    #[test]
    fn nor_is_one_whose_writes_in_doubt_take_effect_late(drafts in drafts(MOST)) {
        let history = history(&drafts, Plan { bucket: "", late: true, bug: Bug::None });
        prop_assert_eq!(problems(&history, &Rules::default()), [""; 0], "{:#?}", history);
    }

    #[test]
    fn nor_is_an_available_one(drafts in drafts(MOST)) {
        let history = history(&drafts, Plan { bucket: "any.b", late: true, bug: Bug::None });
        prop_assert_eq!(problems(&history, &Rules::default()), [""; 0], "{:#?}", history);
    }

    /// Where every read has one right answer, every other answer is found.
    #[test]
    fn one_wrong_answer_among_right_ones_is_found(
        drafts in drafts(MOST),
        which in any::<proptest::sample::Index>(),
        other in any::<proptest::sample::Index>(),
    ) {
        let plan = Plan { bucket: "", late: false, bug: Bug::None };
        let mut history = sequential(history(&drafts, plan));
        prop_assert_eq!(problems(&history, &punctual()), [""; 0]);
        let values: Vec<_> = history.operations.iter().filter_map(|one| one.value()).collect();
        let answers: Vec<Vec<String>> =
            values.iter().map(|one| vec![(*one).to_owned()]).chain([Vec::new()]).collect();
        let answer = answers[other.index(answers.len())].clone();
        let reads = history.operations.iter_mut().filter(|one| one.returned().is_some());
        let reads: Vec<_> = reads.collect();
        let index = which.index(reads.len());
        for read in reads.into_iter().skip(index).take(1) {
            prop_assume!(read.outcome != Outcome::Returned(answer.clone()));
            read.outcome = Outcome::Returned(answer.clone());
        }
        prop_assert!(!problems(&history, &punctual()).is_empty(), "{:#?}", history);
    }
}

/// How many of the histories of a wrong register are found.
fn found(bug: Bug, bucket: &'static str) -> usize {
    let mut runner = TestRunner::deterministic();
    let drawn = drafts(MOST);
    let is_found = |_: &usize| {
        let drafts = drawn.new_tree(&mut runner).unwrap().current();
        let history = history(&drafts, Plan { bucket, late: false, bug });
        !problems(&history, &punctual()).is_empty()
    };
    (0..WRONG).filter(is_found).count()
}

#[test]
fn wrong_registers_are_found() {
    for bug in [
        Bug::LosesWrites,
        Bug::CoversNothing,
        Bug::ForgetsContexts,
        Bug::ForgetsDeletes,
        Bug::DoesWhatItRefused,
    ] {
        let found = found(bug, "");
        assert!(found > WRONG / 10, "{bug:?} was found in {found} of {WRONG} histories");
    }
    // Available registers promise less, but not nothing.
    for bug in [Bug::LosesWrites, Bug::ForgetsContexts, Bug::DoesWhatItRefused] {
        let found = found(bug, "any.b");
        assert!(found > WRONG / 20, "{bug:?} was found in {found} of {WRONG} histories");
    }
    assert_eq!(found(Bug::None, ""), 0);
}
