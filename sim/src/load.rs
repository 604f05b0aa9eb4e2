//! Clients that write and read, and take down what they asked and were told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use triad_client::{Client, Context, Error, Level};
use triad_history::{Action, OperationId, Outcome, Recorder, Request};

use crate::clock::MachineClock;
use crate::rng::Rng;
use crate::trace::Trace;
use crate::world::World;

/// A bucket that takes writes whatever happens.
const AVAILABLE: &str = "any.sim";

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
    stop: Arc<AtomicBool>,
    habits: Habits,
}

impl Load {
    /// Starts the clients.
    pub fn start(world: &World, habits: Habits, rng: &mut Rng) -> Self {
        let (recorder, stop) = (Arc::new(Recorder::new()), Arc::new(AtomicBool::new(false)));
        for number in 0..habits.clients {
            let worker = Worker {
                number,
                habits,
                client: world.client(|builder| builder.deadline(habits.deadline)),
                rng: rng.fork(&format!("client {number}")),
                clock: world.clients_clock(),
                trace: world.trace.clone(),
                recorder: Arc::clone(&recorder),
                stop: Arc::clone(&stop),
                seen: BTreeMap::new(),
                written: 0,
            };
            drop(world.spawn(worker.work()));
        }
        Self { recorder, stop, habits }
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
            let mut worker = Worker {
                number: first + number,
                habits: self.habits,
                client: client.clone(),
                rng: rng.fork(&format!("burst {number}")),
                clock: world.clients_clock(),
                trace: world.trace.clone(),
                recorder: Arc::clone(&self.recorder),
                stop: Arc::clone(&self.stop),
                seen: BTreeMap::new(),
                written: 0,
            };
            drop(world.spawn(async move { worker.request().await }));
        }
    }

    /// Reads every key once, at this level. Answers how many could not be read.
    pub fn read_all(&self, world: &World, level: Level) -> crate::world::Promise<u32> {
        let mut worker = Worker {
            number: 999,
            habits: self.habits,
            client: world.client(|builder| builder.deadline(Duration::from_secs(10))),
            rng: Rng::new(0),
            clock: world.clients_clock(),
            trace: world.trace.clone(),
            recorder: Arc::clone(&self.recorder),
            stop: Arc::clone(&self.stop),
            seen: BTreeMap::new(),
            written: 0,
        };
        let keys = self.habits.keys;
        world.spawn(async move {
            let mut failed = 0;
            for bucket in ["", AVAILABLE] {
                for key in 0..keys {
                    let read = worker.get(&Target { bucket, key: format!("k{key}"), level }).await;
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
    stop: Arc<AtomicBool>,
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
        while !self.stop.load(Ordering::Relaxed) {
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

    fn begin(&self, request: Request) -> OperationId {
        self.recorder.begin(self.clock.now().as_micros() as u64, request)
    }

    fn end(&self, id: OperationId, outcome: Outcome) {
        let now = self.clock.now();
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
        if let Ok(read) = get.await {
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
        self.end(id, outcome(&result));
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
