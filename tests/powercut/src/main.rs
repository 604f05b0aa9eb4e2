//! `triad-powercut`: power cuts under load, see the library's documentation.
//!
//! Prints one line per cut and a summary as the last line. Exit code 0 = clean or skipped, 1 = a
//! violation or a failure (or, with `--require`, skipped).

#![allow(clippy::print_stdout, reason = "a command-line tool talks")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use triad_powercut::disk::Forget;
use triad_powercut::engines::{ENGINES, Engine, Medium};
use triad_powercut::load::{self, Acknowledge, Progress, WRITERS};
use triad_powercut::memory::{self, Crashes};
use triad_powercut::mixed;
use triad_powercut::rig::{self, Cut, Rig};
use triad_powercut::verify::{self, Verdict};

/// Cuts after which the machine comes back and the load goes on with what is left.
const CUTS_PER_LIFE: u32 = 6;

/// The load runs this long between two cuts, in milliseconds.
const LOAD_MS: std::ops::Range<u64> = 50..850;

/// A look at one cut, or a start of the load, takes at most this.
const STEP_LIMIT: Duration = Duration::from_mins(1);

#[derive(Parser)]
#[command(
    about = "Cuts the power of a simulated disk under a loaded store, and looks at what is left"
)]
struct Arguments {
    /// Which engine; all of them if none is named.
    #[arg(long)]
    engine: Option<String>,
    /// How many cuts, of each engine.
    #[arg(long, default_value_t = 24)]
    cuts: u32,
    /// What each cut forgets of what was not flushed.
    #[arg(long, value_enum, default_value_t = Mode::Both)]
    mode: Mode,
    /// Decides when the cuts come and what they forget.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Size of the simulated disk, in memory, MiB.
    #[arg(long, default_value_t = 256)]
    disk: usize,
    /// The whole run ends after this, with a failure.
    #[arg(long, default_value = "10m")]
    limit: humantime::Duration,
    /// A machine on which it cannot run is a failure.
    #[arg(long)]
    require: bool,
    /// Acknowledge before syncing: the run must find losses, or the tool is worth nothing.
    #[arg(long)]
    sabotage: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// All of it.
    Strict,
    /// Each page with probability ½.
    Random,
    /// By turns.
    Both,
}

/// What the tool starts itself for, in processes of their own.
#[derive(Subcommand)]
enum Part {
    #[command(hide = true)]
    Write { dir: PathBuf, progress: Vec<u64> },
    #[command(hide = true)]
    Verify { dir: PathBuf, progress: Vec<u64> },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.part {
        Some(Part::Write { dir, progress }) => write(&arguments, dir, progress),
        Some(Part::Verify { dir, progress }) => look(&arguments, dir, progress),
        None => run_all(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            println!("failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn write(arguments: &Arguments, dir: &Path, progress: &[u64]) -> Result<ExitCode> {
    let out = std::io::stdout().lock();
    load::run(arguments.one_engine()?, dir, progress.try_into()?, arguments.acknowledge(), out)?;
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn acknowledge(&self) -> Acknowledge {
        if self.sabotage { Acknowledge::Applied } else { Acknowledge::Synced }
    }

    /// The engine that a part works on.
    fn one_engine(&self) -> Result<Engine> {
        Engine::named(self.engine.as_deref().context("a part is told its engine")?)
    }
}

/// Every engine, or the one that was named. The worst result counts.
fn run_all(arguments: &Arguments) -> Result<ExitCode> {
    let engines = match &arguments.engine {
        Some(name) => vec![Engine::named(name)?],
        None => ENGINES.to_vec(),
    };
    let mut worst = ExitCode::SUCCESS;
    for engine in engines {
        let code = match engine.medium {
            Medium::Disk(_) => run(arguments, engine)?,
            Medium::Memory => crash_memory(arguments, engine)?,
        };
        if code != ExitCode::SUCCESS {
            worst = code;
        }
    }
    Ok(worst)
}

fn crash_memory(arguments: &Arguments, engine: Engine) -> Result<ExitCode> {
    let crashes = memory::run(arguments.cuts, arguments.seed, arguments.acknowledge())?;
    let Crashes { clean, bad } = crashes;
    println!("{}: {} cuts, {clean} clean, {bad} lost", engine.name, clean + bad);
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look(arguments: &Arguments, dir: &Path, progress: &[u64]) -> Result<ExitCode> {
    match verify::data_dir(arguments.one_engine()?, dir, progress.try_into()?)? {
        Verdict::Clean(progress) => println!("clean {}", words(progress)),
        Verdict::Replaced(why) => println!("replaced {why}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// One engine on the simulated disk.
fn run(arguments: &Arguments, engine: Engine) -> Result<ExitCode> {
    let missing = rig::missing();
    if !missing.is_empty() {
        return Ok(skipped(arguments, engine, &missing.join("; ")));
    }
    let stop = Stop::new(*arguments.limit)?;
    // A container may have the devices and still not be allowed to mount.
    let mut rig = match Rig::new(arguments.disk) {
        Ok(rig) => rig,
        Err(error) => return Ok(skipped(arguments, engine, &format!("{error:#}"))),
    };
    let mut counts = Counts::default();
    let mut progress = [0; WRITERS];
    while counts.cuts < arguments.cuts {
        let cuts = CUTS_PER_LIFE.min(arguments.cuts - counts.cuts);
        let last = live(arguments, engine, &stop, &rig, progress, cuts, &mut counts)?;
        if counts.cuts < arguments.cuts {
            progress = last.1;
            rig.come_back(last.0).context("come back after a cut")?;
        }
    }
    println!(
        "{}: {} cuts, {} clean, {} lost, {} replaced; {} pages forgotten, {} disk flushes",
        engine.name,
        counts.cuts,
        counts.clean,
        counts.bad,
        counts.replaced,
        counts.forgotten,
        rig.disk().lock().flushes()
    );
    Ok(if counts.bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn skipped(arguments: &Arguments, engine: Engine, why: &str) -> ExitCode {
    println!("{}: skipped, 0 cuts: this machine lacks {why}", engine.name);
    if arguments.require { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[derive(Default)]
struct Counts {
    cuts: u32,
    clean: u32,
    /// Acknowledged writes are missing, batches torn or overtaken, or the store does not open.
    bad: u32,
    replaced: u32,
    forgotten: usize,
}

/// One life of the machine: load, with `cuts` cuts. Answers the last cut and how far the writers
/// had come in it.
fn live(
    arguments: &Arguments,
    engine: Engine,
    stop: &Stop,
    rig: &Rig,
    from: Progress,
    cuts: u32,
    counts: &mut Counts,
) -> Result<(Cut, Progress)> {
    let load = Load::start(engine, &rig.live_dir().join("data"), from, arguments.sabotage)?;
    let mut last = None;
    for _ in 0..cuts {
        drop(last.take());
        let number = u64::from(counts.cuts);
        let pause =
            LOAD_MS.start + mixed(&[arguments.seed, number]) % (LOAD_MS.end - LOAD_MS.start);
        stop.sleep(Duration::from_millis(pause))?;
        let forget = match arguments.mode {
            Mode::Strict => Forget::All,
            Mode::Random => Forget::Random,
            Mode::Both => [Forget::All, Forget::Random][counts.cuts as usize % 2],
        };
        let seed = mixed(&[arguments.seed, number, 1]);
        let (cut, acknowledged) = rig.cut(forget, seed, || load.acknowledged()).context("cut")?;
        let progress = judge(engine, &cut, acknowledged?, forget, counts)?;
        last = Some((cut, progress));
    }
    last.context("a life has at least one cut")
}

/// Looks at a cut in a process of its own, and counts.
fn judge(
    engine: Engine,
    cut: &Cut,
    acknowledged: Progress,
    forget: Forget,
    counts: &mut Counts,
) -> Result<Progress> {
    let said = verify_apart(engine, &cut.dir().join("data"), acknowledged)?;
    counts.cuts += 1;
    let forgotten = cut.forgotten;
    counts.forgotten += forgotten;
    println!(
        "cut {:>3}: {forgotten:>5} pages forgotten ({forget:?}), acknowledged {acknowledged:?}: {said}",
        counts.cuts
    );
    let mut words = said.split_whitespace();
    match words.next() {
        Some("clean") => {
            counts.clean += 1;
            let numbers = words.map(str::parse).collect::<Result<Vec<u64>, _>>()?;
            Ok(numbers.as_slice().try_into()?)
        }
        Some("replaced") => {
            counts.replaced += 1;
            Ok([0; WRITERS])
        }
        _ => {
            counts.bad += 1;
            // What is left is of no use to go on with; the next life starts from nothing.
            std::fs::remove_dir_all(cut.dir().join("data"))
                .context("remove a bad data directory")?;
            Ok([0; WRITERS])
        }
    }
}

fn verify_apart(engine: Engine, dir: &Path, acknowledged: Progress) -> Result<String> {
    let mut child = part(engine, "verify", dir, acknowledged, false)?;
    let mut stdout = child.stdout.take().context("the child's output is piped")?;
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut said = String::new();
        let read = stdout.read_to_string(&mut said).map(|_| said);
        // Nobody listens any more after the time limit.
        let _ = send.send(read);
    });
    let said = receive.recv_timeout(STEP_LIMIT);
    // At the end of its output it is gone or about to; after the limit it must go.
    if said.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    let said = said.context("looking at a cut took too long")??;
    Ok(said
        .lines()
        .last()
        .map_or_else(|| format!("failed: it ended with {status} and said nothing"), str::to_owned))
}

/// Starts the tool itself for one of its parts.
fn part(
    engine: Engine,
    name: &str,
    dir: &Path,
    progress: Progress,
    sabotage: bool,
) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--engine", engine.name]);
    if sabotage {
        command.arg("--sabotage");
    }
    command.arg(name).arg(dir).args(progress.map(|number| number.to_string()));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {name}"))
}

/// The load in its own process; killed when dropped.
struct Load {
    child: Child,
    acknowledged: Arc<[AtomicU64; WRITERS]>,
    ended: Arc<AtomicBool>,
}

impl Load {
    fn start(engine: Engine, dir: &Path, from: Progress, sabotage: bool) -> Result<Self> {
        let mut child = part(engine, "write", dir, from, sabotage)?;
        let stdout = child.stdout.take().context("the child's output is piped")?;
        let load = Self {
            child,
            acknowledged: Arc::new(from.map(AtomicU64::new)),
            ended: Arc::new(AtomicBool::new(false)),
        };
        let (ready, started) = mpsc::channel();
        let (acknowledged, ended) = (Arc::clone(&load.acknowledged), Arc::clone(&load.ended));
        std::thread::spawn(move || {
            listen(stdout, &ready, &acknowledged);
            ended.store(true, Ordering::Relaxed);
        });
        started.recv_timeout(STEP_LIMIT).context("the load does not start")?;
        Ok(load)
    }

    fn acknowledged(&self) -> Result<Progress> {
        ensure!(!self.ended.load(Ordering::Relaxed), "the load has ended: see its message above");
        Ok(std::array::from_fn(|writer| self.acknowledged[writer].load(Ordering::Acquire)))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Notes acknowledgements until the load ends. Other lines are what it says when it fails.
fn listen(stdout: ChildStdout, ready: &mpsc::Sender<()>, acknowledged: &[AtomicU64; WRITERS]) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let mut numbers = line.split(' ').map(str::parse::<u64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(writer)), Some(Ok(sequence))) if (writer as usize) < WRITERS => {
                acknowledged[writer as usize].store(sequence, Ordering::Release);
            }
            // The starter may have given up waiting.
            _ if line == "ready" => drop(ready.send(())),
            _ => println!("load: {line}"),
        }
    }
}

/// Why to stop early: the time is up, or somebody said so. Checked while waiting, so that
/// everything is taken down in order.
struct Stop {
    deadline: Instant,
    signalled: Arc<AtomicBool>,
}

impl Stop {
    fn new(limit: Duration) -> Result<Self> {
        let signalled = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&signalled))?;
        }
        Ok(Self { deadline: Instant::now() + limit, signalled })
    }

    fn sleep(&self, time: Duration) -> Result<()> {
        std::thread::sleep(time);
        if self.signalled.load(Ordering::Relaxed) {
            bail!("stopped by a signal");
        }
        ensure!(Instant::now() < self.deadline, "the time limit is reached (--limit)");
        Ok(())
    }
}

fn words(progress: Progress) -> String {
    progress.map(|number| number.to_string()).join(" ")
}
