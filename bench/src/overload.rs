//! Three times what a cluster can do, and then four fifths of it: how long does it take until all is well again?
//!
//! Each round has a new cluster of three real processes on this machine. Its capacity is measured by a closed loop,
//! then come three phases of open loop without a pause between them: *before* (0.8 of the capacity), *overload* (three
//! times the capacity) and *after* (0.8 again). The cluster has recovered with the first of five seconds in a row of
//! the last phase that have 95 % of what was offered; only operations of that phase count, not what is left of the
//! overload.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;
use triad_tests::processes::{Cluster, Node, Settings};

use crate::load::{Generator, Phase};
use crate::recorder::{Report, median};
use crate::shape::Shape;
use crate::watch::{Look, Watch};

/// Nodes of the cluster.
const NODES: usize = 3;
/// What counts as recovered, of what is offered.
const RECOVERED: f64 = 0.95;
/// For so many seconds in a row: one good second may be what had piled up.
const IN_A_ROW: usize = 5;
/// What connects, and what is learned of routes, is not measured.
const WARM_UP: Duration = Duration::from_secs(3);

/// What to do in a round.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The load.
    pub shape: Shape,
    /// Workers that find the capacity.
    pub workers: usize,
    /// How long they take for it.
    pub measure: Duration,
    /// The overload, in capacities.
    pub factor: f64,
    /// The load before and after, in capacities.
    pub share: f64,
    /// How long the phases take: before, overload, after.
    pub lengths: [Duration; 3],
    /// By how much the nodes give way to the generator, which stands for clients on other machines.
    pub niceness: u8,
    /// The processors that the nodes are confined to, as `taskset` has them; all of them without.
    pub node_cores: Option<String>,
    /// Settings of the nodes, as variables of their environment.
    pub settings: Vec<(String, String)>,
}

/// What a round has shown.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// The program that the nodes ran.
    pub program: PathBuf,
    /// Operations a second of the closed loop: the median of its seconds.
    pub capacity: f64,
    /// The phases, the closed loop first.
    pub phases: Vec<PhaseReport>,
    /// Seconds from the end of the overload to five seconds in a row with 95 % of what was offered; none if there were
    /// none.
    pub recovered_after: Option<f64>,
    /// Memory and processor time of the nodes.
    pub looks: Vec<Look>,
    /// How many keys with an acknowledged write were read back.
    pub keys_checked: usize,
    /// What was wrong with which of them.
    pub wrong: Vec<String>,
}

/// One phase of a round.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseReport {
    /// Its name.
    pub name: &'static str,
    /// Operations offered a second; for the closed loop, done.
    pub rate: f64,
    /// What became of them.
    pub report: Report,
    /// Microseconds of processor time of all nodes, per success.
    pub cpu_micros: f64,
    /// Resident memory of the nodes at its end, in MiB.
    pub rss_mib: Vec<u64>,
}

/// A phase while its answers come in.
struct Running {
    name: &'static str,
    rate: f64,
    phase: Phase,
    cpu_seconds: f64,
    rss_mib: Vec<u64>,
}

/// One round with a new cluster that runs this program.
pub async fn round(program: &Path, plan: &Plan) -> Result<Round> {
    let mut settings = Settings::delivered().with_program(program).with_niceness(plan.niceness);
    if let Some(cores) = &plan.node_cores {
        settings = settings.with_cores(cores);
    }
    for (name, value) in &plan.settings {
        settings = settings.with(name, value);
    }
    let cluster = Cluster::start(NODES, settings).await;
    let generator = plan.shape.generator(&cluster.endpoints())?;
    let watch = Watch::begin(cluster.nodes().iter().filter_map(Node::process_id).collect());
    generator.fill().await?;
    generator.closed(plan.workers, WARM_UP).await?;

    let cpu_before = watch.now().cpu_seconds;
    let closed = generator.closed(plan.workers, plan.measure).await?;
    let capacity = median(&closed.report().goodput()) as f64;
    ensure!(capacity > 0.0, "the cluster answered nothing: {:?}", closed.report().failures);
    let mut phases = vec![Running::ended("capacity", capacity, closed, &watch, cpu_before)];
    let rates = [plan.share, plan.factor, plan.share].map(|share| share * capacity);
    for ((name, rate), length) in
        ["before", "overload", "after"].into_iter().zip(rates).zip(plan.lengths)
    {
        let cpu_before = watch.now().cpu_seconds;
        let phase = generator.open(rate, length).await?;
        phases.push(Running::ended(name, rate, phase, &watch, cpu_before));
    }
    finished(program, capacity, generator, phases, watch).await
}

async fn finished(
    program: &Path,
    capacity: f64,
    generator: Generator,
    phases: Vec<Running>,
    watch: Watch,
) -> Result<Round> {
    generator.drained().await?;
    let (keys_checked, wrong) = generator.read_back().await?;
    let phases: Vec<PhaseReport> = phases.into_iter().map(Running::reported).collect();
    let after = phases.last();
    let recovered = after.and_then(|last| last.report.reached(last.rate * RECOVERED, IN_A_ROW));
    Ok(Round {
        program: program.to_owned(),
        capacity,
        phases,
        recovered_after: recovered.map(|after| after.as_secs_f64()),
        looks: watch.end(),
        keys_checked,
        wrong,
    })
}

impl Running {
    fn ended(name: &'static str, rate: f64, phase: Phase, watch: &Watch, cpu_before: f64) -> Self {
        let look = watch.now();
        let cpu_seconds = look.cpu_seconds - cpu_before;
        Self { name, rate, phase, cpu_seconds, rss_mib: look.rss_mib }
    }

    fn reported(self) -> PhaseReport {
        let report = self.phase.report();
        let cpu_micros = self.cpu_seconds * 1e6 / report.ok.max(1) as f64;
        PhaseReport { name: self.name, rate: self.rate, report, cpu_micros, rss_mib: self.rss_mib }
    }
}
