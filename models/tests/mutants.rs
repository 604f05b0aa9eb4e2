//! Every rule that is left out is noticed. `cargo xtask models` reads the lines that begin with `mutant |`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test that tells its figures")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use triad_models::{Case, Outcome, Search, cases, killers};
use triad_ring::mutant::{Mutant, POSSIBLE, left_out, with};

fn case(name: &str) -> Case {
    let found = cases().into_iter().find(|case| case.name == name);
    found.expect("`killers` names cases")
}

/// What happened when `case` ran without this rule.
fn line(mutant: Mutant, case: &Case, outcome: &Outcome) -> String {
    let until = match outcome.search {
        Search::Seeds(seeds) => format!("{seeds} seeds"),
        Search::Exhaustive | Search::Incomplete => format!("{} states", outcome.states),
    };
    let how = outcome.broken.as_ref().map_or("SURVIVES".to_owned(), |broken| {
        format!("{} steps, {}", broken.steps.len(), broken.rule)
    });
    let took = outcome.took.as_secs_f64();
    let rule = mutant.rule();
    format!("mutant | {mutant:?} | {rule} | {} | {until} | {took:.1} s | {how}", case.name)
}

#[test]
fn every_rule_left_out_is_noticed() {
    const { assert!(POSSIBLE, "compiled without the feature `mutants`") };
    let only = std::env::var("TRIAD_MODELS_ONLY").unwrap_or_default();
    let named = |mutant: &Mutant| format!("{mutant:?}").contains(&only);
    let wanted: Vec<_> = Mutant::ALL.iter().copied().filter(named).collect();
    let pairs: Vec<(Mutant, &str)> = wanted
        .iter()
        .flat_map(|mutant| killers(*mutant).iter().map(|name| (*mutant, *name)))
        .collect();
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    let work = || {
        while let Some((mutant, name)) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let case = case(name);
            let outcome = (case.run)(Some(*mutant));
            println!("{}", line(*mutant, &case, &outcome));
            match &outcome.broken {
                None => survivors.lock().unwrap().push((*mutant, *name)),
                Some(broken) if !only.is_empty() => println!("{:#?}", broken.steps),
                Some(_) => {}
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let survivors = survivors.into_inner().unwrap();
    let homeless: Vec<_> = wanted.iter().filter(|mutant| killers(**mutant).is_empty()).collect();
    println!("mutants killed: {} of {}", wanted.len() - survivors.len(), wanted.len());
    assert!(survivors.is_empty(), "not noticed: {survivors:?}");
    assert!(homeless.is_empty(), "nobody is there to notice {homeless:?}");
}

#[test]
fn a_rule_is_left_out_on_one_thread_and_for_a_while() {
    let rule = Mutant::IgnoresReported;
    assert!(!left_out(rule));
    with(Some(rule), || {
        assert!(left_out(rule));
        assert!(!left_out(Mutant::PromiseNotDurable));
        let elsewhere = std::thread::spawn(move || left_out(rule)).join().unwrap();
        assert!(!elsewhere);
        assert!(with(None, || !left_out(rule)));
        assert!(left_out(rule));
    });
    assert!(!left_out(rule));
    let panics = std::panic::catch_unwind(|| with(Some(rule), || panic!("as tests do")));
    assert!(panics.is_err() && !left_out(rule));
}
