//! Runs seeds: `triad-sim --seeds 100`, or one again: `triad-sim --seed 7`.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use triad_sim::story::{Plan, Report, run};
use triad_sim::tally::Tally;
use triad_sim::trace::Trace;

/// Simulates whole clusters under faults that a seed chooses.
#[derive(Parser)]
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What the servers log goes to stderr, filtered like `RUST_LOG`.
    #[arg(long)]
    log: Option<String>,
    /// Shorter stories, those of the test `seeds`.
    #[arg(long)]
    short: bool,
    /// Stories of six minutes in which everything takes its time: for many hours.
    #[arg(long, conflicts_with = "short")]
    long: bool,
    /// Runs each seed twice, and says where the two runs part.
    #[arg(long)]
    twice: bool,
    /// Prints the trace of each seed.
    #[arg(long)]
    trace: bool,
    /// Writes what clients asked and were told in a seed that failed to this directory, for `triad-history`.
    #[arg(long)]
    history: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(filter) = &args.log {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .without_time()
            .init();
    }
    let mut out = std::io::stdout().lock();
    let (began, mut simulated) = (Instant::now(), Duration::ZERO);
    let mut tally = Tally::default();
    for seed in args.seed..args.seed + args.seeds {
        let at = Instant::now();
        let plan = match (args.short, args.long) {
            (true, _) => Plan::short(seed),
            (_, true) => Plan::long(seed),
            _ => Plan::of(seed),
        };
        let report = run(&plan, Trace::default())?;
        if args.twice {
            let traces = [Trace::complete(), Trace::complete()];
            for trace in &traces {
                run(&plan, trace.clone())?;
            }
            let (one, other) = (traces[0].all(), traces[1].all());
            if let Some(at) = (0..one.len()).find(|at| one.get(*at) != other.get(*at)) {
                let from = at.saturating_sub(10);
                writeln!(out, "{:#?}\n{:#?}", one.get(from..=at), other.get(from..=at))?;
                anyhow::bail!("seed {seed} parts at event {at} of {}", one.len());
            }
        }
        simulated += report.simulated;
        tally.add(&report);
        tell(&mut out, &report, at.elapsed(), args.trace)?;
        if report.failure.is_some()
            && let Some(dir) = &args.history
        {
            let mut file = std::fs::File::create(dir.join(format!("seed-{seed}.jsonl")))?;
            report.history.write_lines(&mut file)?;
        }
    }
    let speed = simulated.as_secs_f64() / began.elapsed().as_secs_f64();
    writeln!(out, "{tally}{speed:.0} times as fast as time")?;
    let failed = tally.failed;
    anyhow::ensure!(failed.is_empty(), "seeds that failed: {failed:?}");
    Ok(())
}

fn tell(
    out: &mut impl std::io::Write,
    report: &Report,
    took: Duration,
    trace: bool,
) -> std::io::Result<()> {
    let (asked, answered) = report.requests;
    let verdict = report.failure.as_deref().unwrap_or("well");
    writeln!(
        out,
        "seed {}: {:.0} s in {:.1} s, {answered} of {asked} requests, {} faults, trace {:016x}: {verdict}",
        report.seed,
        report.simulated.as_secs_f64(),
        took.as_secs_f64(),
        report.faults.0.values().map(|(injected, _)| injected).sum::<u64>(),
        report.trace.0
    )?;
    if trace || report.failure.is_some() {
        for line in &report.last {
            writeln!(out, "    {line}")?;
        }
    }
    Ok(())
}
