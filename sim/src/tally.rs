//! What many seeds come to.

use std::fmt;
use std::time::Duration;

use crate::fault::{Counts, Kind};
use crate::story::Report;

/// What many seeds come to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The faults, and what they did.
    pub faults: Counts,
    /// Requests of clients.
    pub requests: usize,
    /// Answered reads that were judged.
    pub reads: usize,
    /// Seeds that failed.
    pub failed: Vec<u64>,
    seeds: u64,
    lives: u64,
    repeated: u64,
    simulated: Duration,
}

impl Tally {
    /// Adds a seed.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.faults.add(&report.faults);
        self.requests += report.requests.0;
        self.reads += report.reads;
        self.lives += report.felt.lives_judged;
        self.repeated += report.felt.repeated;
        self.simulated += report.simulated;
        self.failed.extend(report.failure.is_some().then_some(report.seed));
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated.as_secs_f64() / 3_600.0;
        let well = self.seeds - self.failed.len() as u64;
        let Self { seeds, requests, reads, lives, repeated, .. } = self;
        writeln!(
            f,
            "{seeds} seeds, {hours:.2} simulated hours, {well} histories without a mistake"
        )?;
        writeln!(
            f,
            "{requests} requests, {repeated} writes repeated; judged: {reads} reads, {lives} more of values that end"
        )?;
        for kind in Kind::ALL {
            let (injected, mattered) = self.faults.0.get(&kind).copied().unwrap_or_default();
            writeln!(f, "  {kind:?}: {injected} times, mattered {mattered} times")?;
        }
        Ok(())
    }
}
