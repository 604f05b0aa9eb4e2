//! Figures as tables for people.

use std::fmt::Write as _;

use triad_bench::overload::{PhaseReport, Round};
use triad_bench::recorder::{Failures, Latency, Report, median};

/// Columns of the table of phases.
const HEAD: &str = "phase      offered/s   ok/s  failed/s  read p50/p99 ms  write p50/p99 ms  refusal p50 ms  lag p99 ms  CPU µs/ok  RSS MiB";

/// Messages are cut here.
const EXAMPLE_CHARS: usize = 160;

/// One phase of a load.
pub(crate) fn load(report: &Report) -> String {
    let seconds = report.seconds.max(f64::MIN_POSITIVE);
    let failed = report.failed();
    let mut text = format!(
        "{} offered in {:.1} s, {} succeeded ({:.0}/s), {failed} failed\n",
        report.offered,
        report.seconds,
        report.ok,
        report.ok as f64 / seconds,
    );
    for (name, latency) in [
        ("reads", report.reads),
        ("writes", report.writes),
        ("failures", report.failed),
        ("late starts", report.lag),
    ] {
        let Latency { count, p50, p99, max } = latency;
        let _ = writeln!(
            text,
            "{name:<12} {count:>8}   p50 {p50:.2} ms   p99 {p99:.2} ms   max {max:.2} ms"
        );
    }
    text += &failures(report);
    let _ = writeln!(text, "successes per second: {}", numbers(&report.goodput()));
    text
}

/// One round.
pub(crate) fn round(number: usize, round: &Round) -> String {
    let mut text = format!("round {number}: {}\n{HEAD}\n", round.program.display());
    for phase in &round.phases {
        text += &line(phase);
    }
    for phase in round.phases.iter().filter(|phase| phase.name != "capacity") {
        let _ = writeln!(text, "{} per second: {}", phase.name, numbers(&phase.report.goodput()));
        text += &failures(&phase.report);
    }
    let _ = writeln!(text, "recovered after {}", recovered(round.recovered_after));
    let _ = writeln!(text, "memory of all nodes, MiB by second: {}", numbers(&memory(round)));
    let wrong = round.wrong.len();
    let _ = writeln!(text, "{} keys read back, {wrong} wrong", round.keys_checked);
    for one in &round.wrong {
        let _ = writeln!(text, "    {one}");
    }
    text
}

/// Failures by kind, with what the first of each was told.
fn failures(report: &Report) -> String {
    let mut text = String::new();
    for (kind, Failures { count, example }) in &report.failures {
        let example: String = example.chars().take(EXAMPLE_CHARS).collect();
        let _ = writeln!(text, "{count:>12}   {kind}: {example}");
    }
    text
}

fn line(phase: &PhaseReport) -> String {
    let report = &phase.report;
    let seconds = report.seconds.max(f64::MIN_POSITIVE);
    let failed = report.failed();
    let pair = |latency: &Latency| format!("{:.1}/{:.1}", latency.p50, latency.p99);
    format!(
        "{:<9} {:>10.0} {:>6.0} {:>9.0} {:>16} {:>17} {:>15.1} {:>11.1} {:>10.0}  {}\n",
        phase.name,
        phase.rate,
        report.ok as f64 / seconds,
        failed as f64 / seconds,
        pair(&report.reads),
        pair(&report.writes),
        report.failed.p50,
        report.lag.p99,
        phase.cpu_micros,
        numbers(&phase.rss_mib),
    )
}

/// The medians of all rounds of each program.
pub(crate) fn medians(rounds: &[Round]) -> String {
    let mut programs: Vec<_> = rounds.iter().map(|round| &round.program).collect();
    programs.dedup();
    programs.sort();
    programs.dedup();
    let mut text = String::from("medians\n");
    for program in programs {
        let of: Vec<&Round> = rounds.iter().filter(|round| round.program == *program).collect();
        let capacities: Vec<f64> = of.iter().map(|round| round.capacity).collect();
        let during: Vec<f64> = of.iter().map(|round| share_during(round)).collect();
        let never = f64::INFINITY;
        let after: Vec<f64> =
            of.iter().map(|round| round.recovered_after.unwrap_or(never)).collect();
        let recovered = Some(median(&after)).filter(|after| after.is_finite());
        let _ = writeln!(
            text,
            "{}: {} rounds, capacity {:.0}/s, {:.0} % of it during the overload, recovered after {}",
            program.display(),
            of.len(),
            median(&capacities),
            median(&during) * 100.0,
            self::recovered(recovered),
        );
    }
    text
}

/// What succeeded during the overload, in capacities.
fn share_during(round: &Round) -> f64 {
    let overload = round.phases.iter().find(|phase| phase.name == "overload");
    let goodput = overload.map(|phase| phase.report.goodput()).unwrap_or_default();
    median(&goodput) as f64 / round.capacity
}

fn recovered(after: Option<f64>) -> String {
    after.map_or("never".to_owned(), |after| format!("{after:.1} s"))
}

fn memory(round: &Round) -> Vec<u64> {
    round.looks.iter().map(|look| look.rss_mib.iter().sum()).collect()
}

fn numbers(numbers: &[u64]) -> String {
    let texts: Vec<String> = numbers.iter().map(u64::to_string).collect();
    texts.join(" ")
}
