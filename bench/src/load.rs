//! The generator: operations at a fixed rate whatever the cluster does, or as fast as it answers.
//!
//! **Open loop**: operation n of a phase is due at `n / rate`, and its latency counts from then, whether it could be
//! started in time or not. A cluster that stalls for a second is so blamed for every request of that second, as by real
//! clients (Tene, *How NOT to Measure Latency*: "coordinated omission"). **Closed loop**: so many workers, each with
//! one operation at a time; this finds what a cluster can do, and says little about latency.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use triad_client::{Client, Level};
use triad_tests::dice::Dice;

use crate::keys::Keys;
use crate::ledger::{Fate, Ledger};
use crate::recorder::{Failure, Kind, Recorder, Report};

/// Nothing runs longer than this in one phase.
pub const PHASE_MAX: Duration = Duration::from_hours(1);
/// Operations under way at once in an open loop; one more is not sent, and counted as failed.
pub const OUTSTANDING_MAX: usize = 50_000;
/// The most workers of a closed loop.
pub const WORKERS_MAX: usize = 4_096;
/// How often the open loop starts what is due.
const TICK: Duration = Duration::from_millis(1);
/// Keys that are filled, or read back, at once.
const AT_ONCE: usize = 64;
/// How long filling and reading back try, key by key.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many wrong keys are told one by one.
const TOLD_MAX: usize = 20;

/// What the operations are like.
#[derive(Debug)]
pub struct Workload {
    /// Which keys there are.
    pub keys: Keys,
    /// Which of 0 to 1 are reads; the others write.
    pub reads: f64,
    /// Size of the values.
    pub value_bytes: usize,
    /// The bucket.
    pub bucket: String,
    /// The level of all operations.
    pub level: Level,
    /// How long after its intended start an operation is given up.
    pub deadline: Duration,
    /// What chooses keys and kinds.
    pub seed: u64,
}

/// A load on a cluster, of several clients that know nothing of each other.
#[derive(Clone)]
pub struct Generator {
    shared: Arc<Shared>,
}

struct Shared {
    clients: Vec<Client>,
    next: AtomicUsize,
    workload: Workload,
    ledger: Ledger,
    places: Arc<Semaphore>,
}

/// A phase whose operations have all been started, though not all answered.
pub struct Phase {
    recorder: Arc<Recorder>,
    length: Duration,
}

/// One operation to be done.
#[derive(Clone, Copy)]
struct Operation {
    kind: Kind,
    key: u64,
    intended: Instant,
}

impl Phase {
    /// What is known of it now; complete after [`Generator::drained`].
    pub fn report(&self) -> Report {
        self.recorder.report(self.length)
    }
}

impl Generator {
    /// A load that these clients will offer.
    pub fn new(clients: Vec<Client>, workload: Workload) -> Result<Self> {
        ensure!(!clients.is_empty(), "a load needs a client");
        let places = Arc::new(Semaphore::new(OUTSTANDING_MAX));
        let (next, ledger) = (AtomicUsize::new(0), Ledger::default());
        Ok(Self { shared: Arc::new(Shared { clients, next, workload, ledger, places }) })
    }

    /// Writes every key once, so that reads find something.
    pub async fn fill(&self) -> Result<()> {
        let keys: Vec<u64> = (0..self.shared.workload.keys.count()).collect();
        let write = |shared: Arc<Shared>, key| async move { shared.fill(key).await.map(|()| None) };
        for_all(&self.shared, keys, write).await.map(drop)
    }

    /// Starts `rate` operations a second for that long. Returns when the last is due, not when it is answered.
    pub async fn open(&self, rate: f64, length: Duration) -> Result<Phase> {
        ensure!(rate.is_finite() && rate > 0.0, "a rate of {rate} operations a second is none");
        ensure!(length <= PHASE_MAX, "a phase of {length:?} is too long: at most {PHASE_MAX:?}");
        let recorder = Arc::new(Recorder::new());
        let began = recorder.began();
        let total = (rate * length.as_secs_f64()) as u64;
        let mut choice = Choice::new(&self.shared, 0);
        let mut started = 0;
        while started < total {
            let due = ((began.elapsed().as_secs_f64() * rate) as u64).min(total);
            for number in started..due {
                let intended = began + Duration::from_secs_f64(number as f64 / rate);
                self.start(&recorder, choice.next(intended));
            }
            started = due;
            tokio::time::sleep(TICK).await;
        }
        Ok(Phase { recorder, length })
    }

    fn start(&self, recorder: &Arc<Recorder>, operation: Operation) {
        let Ok(place) = Arc::clone(&self.shared.places).try_acquire_owned() else {
            recorder.started(operation.intended);
            let full = Failure::not_sent("the generator is full");
            return recorder.failed(&full, operation.intended);
        };
        let (shared, recorder) = (Arc::clone(&self.shared), Arc::clone(recorder));
        tokio::spawn(async move {
            let _place: OwnedSemaphorePermit = place;
            shared.run(operation, &recorder).await;
        });
    }

    /// Waits for the answers of all phases.
    pub async fn drained(&self) -> Result<()> {
        let all = u32::try_from(OUTSTANDING_MAX).context("a bound of u32")?;
        let wait = self.shared.places.acquire_many(all);
        let limit = self.shared.workload.deadline + PATIENCE;
        let all = tokio::time::timeout(limit, wait).await;
        let all = all.with_context(|| format!("operations without an end after {limit:?}"))?;
        all.map(drop).context("the places are never closed")
    }

    /// So many workers, each with one operation at a time, for that long.
    pub async fn closed(&self, workers: usize, length: Duration) -> Result<Phase> {
        ensure!((1..=WORKERS_MAX).contains(&workers), "{workers} workers: 1 to {WORKERS_MAX}");
        ensure!(length <= PHASE_MAX, "a phase of {length:?} is too long: at most {PHASE_MAX:?}");
        let recorder = Arc::new(Recorder::new());
        let over = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for worker in 0..workers {
            let (shared, recorder) = (Arc::clone(&self.shared), Arc::clone(&recorder));
            let over = Arc::clone(&over);
            tasks.spawn(async move {
                let mut choice = Choice::new(&shared, worker as u64 + 1);
                while !over.load(Ordering::Relaxed) {
                    shared.run(choice.next(Instant::now()), &recorder).await;
                }
            });
        }
        tokio::time::sleep(length).await;
        over.store(true, Ordering::Relaxed);
        while let Some(ended) = tasks.join_next().await {
            ended.context("a worker has panicked")?;
        }
        Ok(Phase { recorder, length })
    }

    /// Reads back every key with an acknowledged write. Answers how many these are, and what is wrong with which.
    pub async fn read_back(&self) -> Result<(usize, Vec<String>)> {
        let acknowledged: Vec<(u64, u64)> = self.shared.ledger.acknowledged().into_iter().collect();
        let count = acknowledged.len();
        let read =
            |shared: Arc<Shared>, (key, newest)| async move { shared.check(key, newest).await };
        let mut wrong = for_all(&self.shared, acknowledged, read).await?;
        if wrong.len() > TOLD_MAX {
            let more = wrong.len() - TOLD_MAX;
            wrong.truncate(TOLD_MAX);
            wrong.push(format!("and {more} more keys"));
        }
        Ok((count, wrong))
    }
}

/// Does this for all items, some at once, and collects what was noticed.
async fn for_all<T, F>(
    shared: &Arc<Shared>,
    items: Vec<T>,
    act: impl Fn(Arc<Shared>, T) -> F,
) -> Result<Vec<String>>
where
    F: Future<Output = Result<Option<String>>> + Send + 'static,
{
    let mut noticed = Vec::new();
    let mut tasks = JoinSet::new();
    for item in items {
        if tasks.len() >= AT_ONCE
            && let Some(ended) = tasks.join_next().await
        {
            noticed.extend(ended??);
        }
        tasks.spawn(act(Arc::clone(shared), item));
    }
    while let Some(ended) = tasks.join_next().await {
        noticed.extend(ended??);
    }
    Ok(noticed)
}

/// A sequence of operations that a seed repeats.
struct Choice<'a> {
    workload: &'a Workload,
    dice: Dice,
}

impl<'a> Choice<'a> {
    fn new(shared: &'a Shared, stream: u64) -> Self {
        let seed = shared.workload.seed.wrapping_add(stream.wrapping_mul(0xD134_2543_DE82_EF95));
        Self { workload: &shared.workload, dice: Dice::seeded(seed) }
    }

    fn next(&mut self, intended: Instant) -> Operation {
        let reads = self.dice.roll(0..1_000_000) as f64 / 1e6 < self.workload.reads;
        let kind = if reads { Kind::Read } else { Kind::Write };
        Operation { kind, key: self.workload.keys.pick(&mut self.dice), intended }
    }
}

impl Shared {
    /// The clients take turns.
    fn client(&self) -> &Client {
        &self.clients[self.next.fetch_add(1, Ordering::Relaxed) % self.clients.len()]
    }

    async fn run(&self, operation: Operation, recorder: &Recorder) {
        let Operation { kind, key, intended } = operation;
        recorder.started(intended);
        let left = self.workload.deadline.saturating_sub(intended.elapsed());
        if left.is_zero() {
            return recorder.failed(&Failure::not_sent("the generator was too late"), intended);
        }
        let done = match kind {
            Kind::Read => self.read(key, left).await,
            Kind::Write => self.write(key, left).await,
        };
        match done {
            Ok(()) => recorder.succeeded(kind, intended),
            Err(failure) => recorder.failed(&failure, intended),
        }
    }

    async fn read(&self, key: u64, left: Duration) -> Result<(), Failure> {
        let get = self.client().get(Keys::name(key)).bucket(&self.workload.bucket);
        let read = get.level(self.workload.level).deadline(left).await;
        read.map(drop).map_err(|error| Failure::from(&error))
    }

    async fn write(&self, key: u64, left: Duration) -> Result<(), Failure> {
        let number =
            self.ledger.begin(key).ok_or_else(|| Failure::not_sent("the ledger is full"))?;
        let value = Ledger::value(number, self.workload.value_bytes);
        let put = self.client().put(Keys::name(key), value).bucket(&self.workload.bucket);
        match put.level(self.workload.level).deadline(left).await {
            Ok(_) => {
                self.ledger.end(number, Fate::Acknowledged);
                Ok(())
            }
            Err(error) => {
                let doubt = error.is_in_doubt();
                self.ledger.end(number, if doubt { Fate::InDoubt } else { Fate::Refused });
                Err(Failure::from(&error))
            }
        }
    }

    async fn fill(&self, key: u64) -> Result<()> {
        let began = Instant::now();
        loop {
            match self.write(key, self.workload.deadline).await {
                Ok(()) => return Ok(()),
                Err(why) if began.elapsed() > PATIENCE => {
                    bail!("{} cannot be written: {}", Keys::name(key), why.message)
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// What is wrong with the key, if anything.
    async fn check(&self, key: u64, newest: u64) -> Result<Option<String>> {
        let began = Instant::now();
        let name = Keys::name(key);
        let values: Vec<_> = loop {
            let get = self.client().get(&name).bucket(&self.workload.bucket).level(Level::Quorum);
            match get.await {
                Ok(found) => break found.siblings.into_iter().map(|one| one.value).collect(),
                Err(error) if began.elapsed() > PATIENCE => {
                    return Err(error).with_context(|| format!("{name} cannot be read back"));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        let judged = self.ledger.judge(key, newest, &values);
        Ok(judged.err().map(|wrong| format!("{name}: {wrong}")))
    }
}
