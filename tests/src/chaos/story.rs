//! One run: faults by seed under load, in rounds that are judged one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use triad_history::check;

use super::fault::{Fault, HEALED, Struck};
use super::fleet::{Fleet, NODES};
use super::load::{Load, STRICTNESS};
use super::means::Means;
use super::report::{Figures, Kept};
use super::round::{Memory, judge};
use crate::containers::service;
use crate::dice::{Dice, number};

/// Faults go on for so many seconds, unless `CHAOS_SECONDS` says otherwise.
const SECONDS: u64 = 25;
/// A round is judged after so long.
const ROUND: Duration = Duration::from_mins(2);
/// How long most faults last, in milliseconds.
const LASTS_MS: std::ops::Range<u64> = 500..6_000;
const LASTS_SHORT_MS: std::ops::Range<u64> = 500..2_500;
/// One fault in so many has another one beside it.
const TWO_AT_ONCE: u64 = 3;
/// So many keys of former rounds are read again after each round, and all in the end.
const AGAIN: usize = 500;
/// Less than this would prove nothing.
const FEWEST: usize = 200;

/// What was asked for.
#[derive(Debug)]
pub struct Plan {
    /// Repeats the choices, not the interleaving, which is the machine's.
    pub seed: u64,
    /// Faults go on for so long, and until each kind has been there once.
    pub lasts: Duration,
    /// Every kind, or only those for which a minute is enough.
    pub full: bool,
}

impl Plan {
    /// As `CHAOS_SEED` and `CHAOS_SECONDS` say; with the latter every kind of fault happens.
    pub fn asked_for() -> Self {
        let seconds = number("CHAOS_SECONDS");
        let lasts = Duration::from_secs(seconds.unwrap_or(SECONDS));
        Self { seed: Dice::asked_for("CHAOS_SEED").seed(), lasts, full: seconds.is_some() }
    }
}

/// A run under way.
struct Story<'a> {
    plan: &'a Plan,
    fleet: &'a Fleet,
    kept: &'a Kept,
    began: Instant,
    dice: Dice,
    /// What can happen on this machine.
    possible: Vec<Fault>,
    /// What has not happened yet, the next one last.
    missing: Vec<Fault>,
    figures: Figures,
    /// How many packets the rules of each kind of fault met.
    packets: BTreeMap<Fault, u64>,
    memory: Memory,
}

/// Runs it. None where there is no Docker; otherwise its figures, if no promise was broken.
pub async fn run(plan: &Plan) -> Result<Option<Figures>> {
    let kept = Kept::of(plan.seed)?;
    let Some(fleet) = Fleet::up(kept.path())? else {
        kept.discard()?;
        return Ok(None);
    };
    // Dropped here, the containers go with the rest.
    let told = tokio::select! {
        told = tell(plan, &fleet, &kept) => told,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    match told {
        Ok(figures) => {
            kept.discard()?;
            Ok(Some(figures))
        }
        Err(error) => {
            fleet.keep_logs();
            let (seed, path) = (plan.seed, kept.path().display());
            Err(error.context(format!("CHAOS_SEED={seed}; see {path}")))
        }
    }
}

/// Ends when somebody wants to end the run.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminated) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

async fn tell(plan: &Plan, fleet: &Fleet, kept: &Kept) -> Result<Figures> {
    fleet.settled(HEALED).await.context("five new nodes")?;
    let began = Instant::now();
    let mut dice = Dice::seeded(plan.seed);
    let possible = possible(plan, &Means::find(fleet)?);
    let mut missing = possible.clone();
    // By the seed, too.
    for place in (1..missing.len()).rev() {
        missing.swap(place, dice.roll(0..place as u64 + 1) as usize);
    }
    let mut story = Story {
        plan,
        fleet,
        kept,
        began,
        dice,
        possible,
        missing,
        figures: Figures::default(),
        packets: BTreeMap::new(),
        memory: Memory::default(),
    };
    story.rounds().await?;
    story.end().await?;
    story.figures.took = began.elapsed();
    Ok(story.figures)
}

/// The kinds that this machine has the means for; the others it tells.
fn possible(plan: &Plan, means: &Means) -> Vec<Fault> {
    let wanted = if plan.full { &Fault::ALL[..] } else { &Fault::SHORT[..] };
    let mut possible = Vec::new();
    for fault in wanted {
        match means.why_not(fault.need()) {
            None => possible.push(*fault),
            Some(why) => println!("not possible here: {}: {why}", fault.name()),
        }
    }
    possible
}

impl Story<'_> {
    /// Round after round, each with keys of its own; the clients of the next begin before those of the last end.
    async fn rounds(&mut self) -> Result<()> {
        let until = Instant::now() + self.plan.lasts;
        let addresses = self.fleet.addresses();
        let mut number: u64 = 1;
        let mut load = Load::start(&addresses, "round1", &mut self.dice);
        loop {
            let over = until.min(Instant::now() + ROUND);
            let is_last = over == until;
            if let Err(error) = self.torment(&load, over, is_last).await {
                self.keep(&load)?;
                return Err(error);
            }
            number += 1;
            let next = Load::start(&addresses, &format!("round{number}"), &mut self.dice);
            load.stop().await?;
            if let Err(error) = self.end_round(&load, number - 1).await {
                self.keep(&load)?;
                return Err(error);
            }
            if is_last {
                return Ok(());
            }
            load = next;
        }
    }

    /// One fault after the other; in the last round until all kinds have been there.
    async fn torment(&mut self, load: &Load, until: Instant, is_last: bool) -> Result<()> {
        while Instant::now() < until || (is_last && !self.missing.is_empty()) {
            self.strike(load).await?;
            if let Some(violation) = load.wrong() {
                bail!("under faults: {violation}");
            }
        }
        Ok(())
    }

    /// A fault, sometimes with another one beside it, and its end.
    async fn strike(&mut self, load: &Load) -> Result<()> {
        let first = self.missing.pop().unwrap_or_else(|| self.dice.one_of(&self.possible));
        let mut struck = vec![self.inject(load, first, &[]).await?];
        if !first.is_alone() && self.dice.roll(0..TWO_AT_ONCE) == 0 {
            let second = self.dice.one_of(&self.possible);
            if !second.is_alone() {
                let busy = struck[0].as_ref().map_or(Vec::new(), |(one, _)| one.nodes.clone());
                struck.push(self.inject(load, second, &busy).await?);
            }
        }
        let lasts = if self.plan.full { LASTS_MS } else { LASTS_SHORT_MS };
        tokio::time::sleep(self.dice.time(lasts)).await;
        for (one, fault) in struck.into_iter().rev().flatten() {
            let kind = one.fault;
            if let Some(packets) = one.heal(self.fleet).await? {
                println!("{} met {packets} packets", kind.name());
                *self.packets.entry(kind).or_default() += packets;
            }
            load.history.recorder().heal(load.history.now(), fault);
        }
        // The next one waits for the last one to heal, or majorities would be asked to do without.
        self.fleet.ready(HEALED).await
    }

    /// A fault that goes on, and its number in the history. None when it can hit nobody else.
    async fn inject(
        &mut self,
        load: &Load,
        fault: Fault,
        busy: &[usize],
    ) -> Result<Option<(Struck, usize)>> {
        let free: Vec<usize> = (1..=NODES).filter(|node| !busy.contains(node)).collect();
        let Some(nodes) = fault.choose(&mut self.dice, &free) else {
            return Ok(None);
        };
        let names = nodes.iter().map(|node| service(*node)).collect();
        let began = load.history.now();
        let struck = fault.inject(self.fleet, nodes, &mut self.dice).await?;
        println!("{} of {:?} {}", fault.name(), struck.nodes, struck.detail);
        let number = load.history.recorder().fault(began, fault.name(), names, &struck.detail);
        *self.figures.faults.entry(fault).or_default() += 1;
        Ok(Some((struck, number)))
    }

    /// Waits until the cluster is whole, and judges what the clients were told.
    async fn end_round(&mut self, load: &Load, number: u64) -> Result<()> {
        self.fleet.settled(HEALED).await?;
        let judged = judge(self.fleet, load).await?;
        self.figures.add(&judged.history, &judged.report);
        self.figures.took = self.began.elapsed();
        self.memory.keep(&judged.history);
        println!("so far: {}", self.figures);
        let found: Vec<String> = judged.report.violations.iter().map(ToString::to_string).collect();
        ensure!(found.is_empty(), "promises broken:\n{}", found.join("\n"));
        self.kept.keep_round(number, &judged.history)?;
        self.remembers(AGAIN).await
    }

    /// Reads what former rounds have left, so many keys of it.
    async fn remembers(&mut self, keys: usize) -> Result<()> {
        let (read, changed) = self.memory.check(self.fleet, keys).await?;
        self.figures.add_changes(read, &changed);
        ensure!(changed.is_empty(), "changed although nobody wrote: {changed:#?}");
        Ok(())
    }

    /// The hardest cut, every node at once; and then everything must be there.
    async fn end(&mut self) -> Result<()> {
        let all: Vec<usize> = (1..=NODES).collect();
        self.fleet.kill(&all)?;
        all.iter().try_for_each(|node| self.fleet.start(*node))?;
        self.fleet.settled(HEALED).await.context("after all were killed at once")?;
        self.remembers(usize::MAX).await?;
        let Figures { acknowledged, reads, faults, .. } = &self.figures;
        let kinds: BTreeSet<&Fault> = faults.keys().collect();
        ensure!(self.possible.iter().all(|kind| kinds.contains(kind)), "not all kinds: {kinds:?}");
        let idle: Vec<_> = self.packets.iter().filter(|(_, packets)| **packets == 0).collect();
        ensure!(idle.is_empty(), "faults that met no packet were none: {idle:?}");
        ensure!(*acknowledged >= FEWEST && *reads >= FEWEST, "too little was going on");
        Ok(())
    }

    /// Keeps what a failing round has recorded.
    fn keep(&self, load: &Load) -> Result<()> {
        let recorder = load.history.recorder();
        recorder.note(format!("CHAOS_SEED={}, so far: {}", self.plan.seed, self.figures));
        let history = recorder.history();
        let report = check(&history, &STRICTNESS).unwrap_or_default();
        self.kept.keep(&history, &report)
    }
}
