//! Clients that write and read, and take down what they asked and were told.

mod lives;
mod repeats;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use triad_client::{Client, Context, Error, Level};
use triad_history::{Action, OperationId, Outcome, Recorder, Request};

use crate::clock::MachineClock;
use crate::fault::{Feelings, LONG};
use crate::ledger::Acknowledged;
use crate::rng::Rng;
use crate::trace::Trace;
use crate::world::World;

/// A bucket that takes writes whatever happens.
const AVAILABLE: &str = "any.sim";
/// Clients that repeat writes under their ids.
const REPEATERS: u32 = 2;

/// What the clients of one seed do.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// How many there are.
    pub clients: u32,
    /// How many keys they share.
    pub keys: u32,
    /// How long each waits between two requests at most.
    pub pause: Duration,
    /// So many writes in a thousand are deletes.
    pub deletes: u64,
    /// So many requests in a thousand go to the bucket that takes writes whatever happens.
    pub available: u64,
    /// So many requests in a thousand are at ONE, and as many at ALL.
    pub other_levels: u64,
    /// So many values in a thousand are large.
    pub large: u64,
    /// How long a request may take.
    pub deadline: Duration,
}

/// A running load.
pub struct Load {
    /// What was asked and told.
    pub recorder: Arc<Recorder>,
    /// What clients have felt of faults.
    pub feelings: Feelings,
    told: Arc<Mutex<Told>>,
    stop: Arc<AtomicBool>,
    habits: Habits,
}

/// What clients tell besides.
#[derive(Default)]
struct Told {
    acknowledged: Vec<Acknowledged>,
    complaints: Vec<String>,
}

impl Load {
    /// Starts the clients.
    pub fn start(world: &World, habits: Habits, rng: &mut Rng) -> Self {
        let load = Self {
            recorder: Arc::new(Recorder::new()),
            feelings: Feelings::default(),
            told: Arc::default(),
            stop: Arc::default(),
            habits,
        };
        let client = || world.client(|builder| builder.deadline(habits.deadline));
        for number in 0..habits.clients {
            let rng = rng.fork(&format!("client {number}"));
            drop(world.spawn(load.worker(world, number, client(), rng).work()));
        }
        for number in 0..REPEATERS {
            let rng = rng.fork(&format!("repeater {number}"));
            let worker = load.worker(world, 900 + number, client(), rng);
            drop(world.spawn(worker.repeat_writes()));
        }
        let worker = load.worker(world, 990, client(), rng.fork("lives"));
        drop(world.spawn(worker.follow_lives(world.steady.clone())));
        load
    }

    fn worker(&self, world: &World, number: u32, client: Client, rng: Rng) -> Worker {
        Worker {
            number,
            habits: self.habits,
            client,
            rng,
            clock: world.clients_clock(),
            trace: world.trace.clone(),
            recorder: Arc::clone(&self.recorder),
            feelings: self.feelings.clone(),
            told: Arc::clone(&self.told),
            stop: Arc::clone(&self.stop),
            seen: BTreeMap::new(),
            begun: BTreeMap::new(),
            written: 0,
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The puts that were acknowledged since this was asked last.
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        std::mem::take(&mut self.told().acknowledged)
    }

    /// What a client has found wrong.
    pub fn complaint(&self) -> Option<String> {
        self.told().complaints.pop()
    }

    /// Lets the clients end after their requests under way.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Too much at once: so many requests that nobody takes turns with. They count like all others.
    pub fn burst(&self, world: &World, requests: u32, rng: &mut Rng) {
        let client = world.client(|builder| builder.deadline(self.habits.deadline));
        let first = 1_000 + rng.below(1_000_000) as u32 * 1_000;
        for number in 0..requests {
            let rng = rng.fork(&format!("burst {number}"));
            let mut worker = self.worker(world, first + number, client.clone(), rng);
            drop(world.spawn(async move { worker.request().await }));
        }
    }

    /// Reads every key once, at this level. Answers how many could not be read.
    pub fn read_all(&self, world: &World, level: Level) -> crate::world::Promise<u32> {
        let client = world.client(|builder| builder.deadline(Duration::from_secs(10)));
        let mut worker = self.worker(world, 999, client, Rng::new(0));
        let keys = (0..self.habits.keys).map(|key| format!("k{key}"));
        let repeated = (0..repeats::KEYS).map(|key| format!("r{key}"));
        let keys: Vec<String> = keys.chain(repeated).collect();
        world.spawn(async move {
            let mut failed = 0;
            for bucket in ["", AVAILABLE] {
                for key in &keys {
                    let read = worker.get(&Target { bucket, key: key.clone(), level }).await;
                    failed += u32::from(!read);
                }
            }
            failed
        })
    }
}

struct Worker {
    number: u32,
    habits: Habits,
    client: Client,
    rng: Rng,
    clock: MachineClock,
    trace: Trace,
    recorder: Arc<Recorder>,
    feelings: Feelings,
    told: Arc<Mutex<Told>>,
    stop: Arc<AtomicBool>,
    /// When the operations under way began, and what they put, if that is promised to last.
    begun: BTreeMap<OperationId, (Duration, Option<Acknowledged>)>,
    /// The last context read, by bucket and key, and which read brought it.
    seen: BTreeMap<(&'static str, String), (OperationId, Context)>,
    written: u32,
}

struct Target {
    bucket: &'static str,
    key: String,
    level: Level,
}

impl Worker {
    async fn work(mut self) {
        while !self.is_stopped() {
            tokio::time::sleep(self.rng.between(Duration::ZERO, self.habits.pause)).await;
            self.request().await;
        }
    }

    async fn request(&mut self) {
        let habits = self.habits;
        let bucket = if self.rng.chance(habits.available) { AVAILABLE } else { "" };
        let key = format!("k{}", self.rng.below(habits.keys.into()));
        let level = match self.rng.below(1_000) {
            one if one < habits.other_levels => Level::One,
            all if all < 2 * habits.other_levels => Level::All,
            _ => Level::Quorum,
        };
        let target = Target { bucket, key, level };
        if self.rng.chance(500) {
            self.get(&target).await;
        } else {
            self.write(&target).await;
        }
    }

    fn ask(&self, target: &Target, action: Action) -> Request {
        let level = match target.level {
            Level::One => triad_history::Level::One,
            Level::Quorum => triad_history::Level::Quorum,
            Level::All => triad_history::Level::All,
        };
        Request::new(self.number, target.key.clone(), action).in_bucket(target.bucket).at(level)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complain(&self, what: String) {
        self.told().complaints.push(what);
    }

    fn begin(&mut self, request: Request) -> OperationId {
        let now = self.clock.now();
        let bucket = if request.bucket == AVAILABLE { AVAILABLE } else { "default" };
        let lasts = request.level != triad_history::Level::One;
        let put = match &request.action {
            Action::Put(value) if lasts => Some(Acknowledged {
                bucket,
                key: request.key.clone(),
                value: value.clone(),
                at: now,
            }),
            _ => None,
        };
        let id = self.recorder.begin(now.as_micros() as u64, request);
        self.begun.insert(id, (now, put));
        id
    }

    fn end(&mut self, id: OperationId, outcome: Outcome) {
        let now = self.clock.now();
        if let Some((began, put)) = self.begun.remove(&id) {
            let failed = matches!(outcome, Outcome::Refused | Outcome::InDoubt);
            let hampered = failed || now > began + LONG;
            self.feelings.add(|felt| felt.hampered += u64::from(hampered));
            if let Some(put) = put.filter(|_| outcome == Outcome::Acknowledged) {
                self.told().acknowledged.push(Acknowledged { at: now, ..put });
            }
        }
        let kind = match &outcome {
            Outcome::Acknowledged => 1,
            Outcome::Returned(values) => 10 + values.len() as u64,
            Outcome::Refused => 2,
            Outcome::Conflict => 3,
            Outcome::InDoubt => 4,
        };
        self.trace.count(now, [3, id, kind]);
        self.recorder.end(now.as_micros() as u64, id, outcome);
    }

    /// True when it was answered.
    async fn get(&mut self, target: &Target) -> bool {
        let id = self.begin(self.ask(target, Action::Get));
        let mut get = self.client.get(&target.key).level(target.level);
        if !target.bucket.is_empty() {
            get = get.bucket(target.bucket);
        }
        let read = get.await;
        self.feel(read.as_ref().err());
        if let Ok(read) = read {
            let text = |value: &bytes::Bytes| String::from_utf8_lossy(value).into_owned();
            let values = read.values().map(text).collect();
            self.seen.insert((target.bucket, target.key.clone()), (id, read.context));
            self.end(id, Outcome::Returned(values));
            return true;
        }
        self.end(id, Outcome::Refused);
        false
    }

    async fn write(&mut self, target: &Target) {
        let causal = is_causal(&target.key);
        if causal
            && !self.seen.contains_key(&(target.bucket, target.key.clone()))
            && !self.get(target).await
        {
            return;
        }
        let seen = self.seen.get(&(target.bucket, target.key.clone())).cloned().filter(|_| causal);
        let deletes = self.rng.chance(self.habits.deletes);
        self.written += 1;
        let mut value = format!("{}-{}", self.number, self.written);
        if self.rng.chance(self.habits.large) {
            value.extend(std::iter::repeat_n('.', 20_000));
        }
        let action = if deletes { Action::Delete } else { Action::Put(value.clone()) };
        let mut request = self.ask(target, action);
        if let Some((source, _)) = &seen {
            request = request.after(*source);
        }
        let id = self.begin(request);
        let bucket = if target.bucket.is_empty() { "default" } else { target.bucket };
        let result = if deletes {
            let mut delete = self.client.delete(&target.key).bucket(bucket).level(target.level);
            if let Some((_, context)) = &seen {
                delete = delete.context(context);
            }
            delete.await.map(drop)
        } else {
            let mut put = self.client.put(&target.key, value).bucket(bucket).level(target.level);
            if let Some((_, context)) = &seen {
                put = put.context(context);
            }
            put.await.map(drop)
        };
        self.feel(result.as_ref().err());
        self.end(id, outcome(&result));
    }

    fn feel(&self, error: Option<&Error>) {
        self.feelings.add(|felt| match error {
            Some(Error::Overloaded { .. }) => felt.overloaded += 1,
            Some(error) if error.reason() == "NO_SPACE" => felt.no_space += 1,
            _ => {}
        });
    }
}

/// Every second key is written with the context of the writer's last read, each other one without.
///
/// Not both: an overwrite that finds uncovered siblings is minted twice (decision 1), and who read the first of the
/// two and writes with that context leaves the second beside it.
fn is_causal(key: &str) -> bool {
    key.ends_with(['1', '3', '5', '7', '9'])
}

fn outcome(result: &Result<(), Error>) -> Outcome {
    match result {
        Ok(()) => Outcome::Acknowledged,
        Err(Error::InDoubt(_) | Error::Internal(_)) => Outcome::InDoubt,
        Err(_) => Outcome::Refused,
    }
}
