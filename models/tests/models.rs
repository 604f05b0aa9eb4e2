//! Every case of every model holds. `cargo xtask models` reads the lines that begin with `model |`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test that tells its figures")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use triad_models::{Case, Outcome, cases};

/// Runs the cases on as many threads as there are processors, and returns what came of each.
fn run_all(cases: &[Case]) -> Vec<(Case, Outcome)> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = (case.run)(None);
            println!("{}", line(case, &outcome));
            outcomes.lock().unwrap().push((*case, outcome));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    outcomes.into_inner().unwrap()
}

fn line(case: &Case, outcome: &Outcome) -> String {
    let result = match &outcome.broken {
        None if outcome.holds() => "holds".to_owned(),
        None => format!("DOES NOT SHOW {:?}", outcome.unmet),
        Some(broken) => format!("BROKEN: {}", broken.rule),
    };
    format!(
        "model | {} | {} | {:?} | {} states | depth {} | {:.1} s | {result}",
        case.name,
        case.bounds,
        outcome.search,
        outcome.states,
        outcome.depth,
        outcome.took.as_secs_f64()
    )
}

#[test]
fn every_state_within_the_bounds_keeps_the_rules() {
    let wide = std::env::var_os("TRIAD_MODELS_WIDE").is_some();
    let only = std::env::var("TRIAD_MODELS_ONLY").unwrap_or_default();
    let mut chosen = cases();
    chosen.retain(|case| (wide || !case.wide) && case.name.contains(&only));
    let outcomes = run_all(&chosen);
    let failed: Vec<_> = outcomes.iter().filter(|(_, outcome)| !outcome.holds()).collect();
    for (case, outcome) in &failed {
        println!("{}: {:?} {:#?}", case.name, outcome.unmet, outcome.broken);
    }
    assert!(failed.is_empty(), "{} of {} cases failed", failed.len(), outcomes.len());
    assert_eq!(outcomes.len(), chosen.len());
}

#[test]
fn names_of_cases_are_unique() {
    let mut names: Vec<_> = cases().iter().map(|case| case.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}
