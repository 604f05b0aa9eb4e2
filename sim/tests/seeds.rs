//! Many seeds, each a whole story. `cargo xtask sim --seeds 1000` tells longer ones.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use triad_sim::fault::Kind;
use triad_sim::story::{Plan, run};
use triad_sim::tally::Tally;
use triad_sim::trace::Trace;

/// How many seeds, and how many at a time: what CI has in processors.
const SEEDS: u64 = 220;
const THREADS: usize = 2;
/// A seed whose virtual time stands still for so long goes round in a circle; nothing inside can end that.
const STUCK: Duration = Duration::from_mins(3);

/// The plan of a seed: long or short.
type Length = fn(u64) -> Plan;

/// Whole stories that once failed, each with what it found.
const REGRESSIONS: [(u64, Length); 2] = [
    // A read of an `any.` bucket whose grace reached beyond its deadline ran in circles in between.
    (23, Plan::of),
    // Three of five nodes left, which leaves two: the simulation expected three.
    (48, Plan::short),
];

#[test]
fn what_once_failed_goes_well() {
    for (seed, plan) in REGRESSIONS {
        let report = run(&plan(seed), Trace::default());
        let report = report.expect("there is a place for small files");
        assert_eq!(report.failure, None, "seed {seed}:\n{}", report.last.join("\n"));
    }
}

/// A seed that runs, and its trace.
type Running = Mutex<Option<(u64, Trace)>>;

/// Ends the program, and says why, when a seed does not end.
fn watch(running: &[Running], next: &AtomicU64) {
    let now = |place: &Running| place.lock().expect("nobody panics with it").clone();
    let mut seen: BTreeMap<u64, (Duration, Instant)> = BTreeMap::new();
    while next.load(Ordering::Relaxed) <= SEEDS || running.iter().any(|place| now(place).is_some())
    {
        for (seed, trace) in running.iter().filter_map(now) {
            let reached = trace.reached();
            let last = seen.entry(seed).or_insert((reached, Instant::now()));
            if last.0 != reached {
                *last = (reached, Instant::now());
            }
            if last.1.elapsed() > STUCK {
                let mut told = std::io::stderr();
                let _ = writeln!(
                    told,
                    "seed {seed} does not end: see where with a debugger, by cargo xtask sim --short --seed {seed}"
                );
                std::process::exit(101);
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn whatever_a_seed_breaks_no_promise_is_and_the_cluster_heals() {
    let next = AtomicU64::new(1);
    let failed = Mutex::new(Vec::new());
    let told = Mutex::new(Tally::default());
    let running: [Running; THREADS] = Default::default();
    std::thread::scope(|threads| {
        threads.spawn(|| watch(&running, &next));
        for place in &running {
            threads.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let one = (seed <= SEEDS).then(|| (seed, Trace::default()));
                    place.lock().expect("nobody panics with it").clone_from(&one);
                    let Some((seed, trace)) = one else { return };
                    let report = run(&Plan::short(seed), trace);
                    let report = report.expect("there is a place for small files");
                    told.lock().expect("nobody panics with it").add(&report);
                    if let Some(why) = report.failure {
                        let last = report.last.join("\n");
                        let mut failed = failed.lock().expect("nobody panics with it");
                        failed.push(format!("seed {seed}: {why}\n{last}"));
                    }
                }
            });
        }
    });
    let told = told.into_inner().expect("all threads have ended");
    let _ = write!(std::io::stdout(), "{told}");
    let failed = failed.into_inner().expect("all threads have ended");
    assert!(
        failed.is_empty(),
        "{} of {SEEDS} seeds fail (again: cargo xtask sim --short --seed N):\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(told.requests > 20_000 && told.reads > 10_000, "{told}");
    for kind in Kind::ALL {
        let (injected, mattered) = told.faults.0.get(&kind).copied().unwrap_or_default();
        assert!(mattered > 0, "{kind:?} has happened {injected} times and never mattered");
    }
}
