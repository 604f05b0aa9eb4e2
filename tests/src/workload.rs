//! Writers and readers that go on until they are told to stop, each answer held against the history.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use triad_client::{Client, Error};
use triad_history::{Action, Request, Violation};

use crate::history::{History, Read, Write};

/// Of a key's writes in a load with deletes, one in so many is a delete.
const DELETES_EVERY: usize = 4;
/// How long each request may take, retries included.
const DEADLINE: Duration = Duration::from_secs(5);

/// A running load.
#[derive(Debug)]
pub struct Workload {
    /// What was written.
    pub history: Arc<History>,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    reads: AtomicUsize,
    violations: std::sync::Mutex<Vec<Violation>>,
    failures: std::sync::Mutex<Vec<String>>,
}

/// What a load has met.
#[derive(Debug)]
pub struct Report {
    /// How many reads were answered.
    pub reads: usize,
    /// How many writes were acknowledged.
    pub acknowledged: usize,
    /// Requests that failed, after all retries within their deadline.
    pub failures: Vec<String>,
    /// Reads that broke a promise.
    pub violations: Vec<Violation>,
}

impl Workload {
    /// Starts writers, each with keys of its own, and readers of all keys.
    pub fn start(
        client: &Client,
        history: &Arc<History>,
        writers: usize,
        readers: usize,
        keys_each: usize,
    ) -> Self {
        Self::run(client, history, writers, readers, keys_each, false)
    }

    /// The same, but every fourth write of a key deletes it.
    pub fn with_deletes(
        client: &Client,
        history: &Arc<History>,
        writers: usize,
        readers: usize,
        keys_each: usize,
    ) -> Self {
        Self::run(client, history, writers, readers, keys_each, true)
    }

    fn run(
        client: &Client,
        history: &Arc<History>,
        writers: usize,
        readers: usize,
        keys_each: usize,
        deletes: bool,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks = Vec::new();
        for writer in 0..writers {
            let (client, history, shared) =
                (client.clone(), Arc::clone(history), Arc::clone(&shared));
            tasks.push(tokio::spawn(async move {
                write_until_stopped(&client, &history, &shared, writer, keys_each, deletes).await;
            }));
        }
        for reader in 0..readers {
            let (client, history, shared) =
                (client.clone(), Arc::clone(history), Arc::clone(&shared));
            tasks.push(tokio::spawn(async move {
                read_until_stopped(&client, &history, &shared, reader, writers, keys_each).await;
            }));
        }
        Self { history: Arc::clone(history), shared, tasks }
    }

    /// How many reads were answered so far.
    pub fn reads(&self) -> usize {
        self.shared.reads.load(Ordering::Relaxed)
    }

    /// Ends it and tells what it met.
    pub async fn stop(self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("writers and readers do not panic");
        }
        let take = |list: &std::sync::Mutex<Vec<String>>| {
            list.lock().map(|list| list.clone()).unwrap_or_default()
        };
        Report {
            reads: self.shared.reads.load(Ordering::Relaxed),
            acknowledged: self.history.counts().1,
            failures: take(&self.shared.failures),
            violations: self.shared.violations.lock().map(|list| list.clone()).unwrap_or_default(),
        }
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn failed(&self, what: &str, error: &Error) {
        if let Ok(mut failures) = self.failures.lock() {
            failures.push(format!("{what}: {error} ({error:?})"));
        }
    }

    fn violated(&self, violation: Violation) {
        if let Ok(mut violations) = self.violations.lock() {
            violations.push(violation);
        }
    }
}

fn key_of(writer: usize, number: usize) -> String {
    format!("load/{writer}/{number}")
}

async fn write_until_stopped(
    client: &Client,
    history: &History,
    shared: &Shared,
    writer: usize,
    keys: usize,
    deletes: bool,
) {
    for turn in 0.. {
        if shared.stopped() {
            return;
        }
        let key = key_of(writer, turn % keys);
        // Each round deletes other keys than the one before.
        let deletes = deletes && (turn / keys + turn % keys) % DELETES_EVERY == DELETES_EVERY - 1;
        let number = writer as u32 + 1;
        let (what, written) = if deletes {
            let delete = history.begin(Request::new(number, &key, Action::Delete));
            ("delete", delete_as(client, delete, &key).await)
        } else {
            let value = history.next_value(&key);
            let put = history.begin(Request::new(number, &key, Action::Put(value)));
            ("put", put_as(client, put, &key).await)
        };
        if let Err(error) = written {
            shared.failed(&format!("{what} {key}"), &error);
        }
    }
}

/// Puts the key's next value and notes how it ended.
pub async fn write_once(client: &Client, history: &History, key: &str) -> Result<(), Error> {
    put_as(client, history.begin_write(key), key).await
}

async fn put_as(client: &Client, write: Write<'_>, key: &str) -> Result<(), Error> {
    let answer = client.put(key, write.value()).deadline(DEADLINE).await;
    note(write, answer.map(drop))
}

/// Deletes the key and notes how it ended.
pub async fn delete_once(client: &Client, history: &History, key: &str) -> Result<(), Error> {
    delete_as(client, history.begin_delete(key), key).await
}

async fn delete_as(client: &Client, delete: Write<'_>, key: &str) -> Result<(), Error> {
    let answer = client.delete(key).deadline(DEADLINE).await;
    note(delete, answer.map(drop))
}

fn note(write: Write<'_>, answer: Result<(), Error>) -> Result<(), Error> {
    match &answer {
        Ok(()) => write.acknowledged(),
        // Only a refusal at a deadline that was never reached is certain; the rest the client calls in doubt.
        Err(error) if error.is_in_doubt() => write.in_doubt(),
        Err(_) => write.refused(),
    }
    answer
}

async fn read_until_stopped(
    client: &Client,
    history: &History,
    shared: &Shared,
    reader: usize,
    writers: usize,
    keys: usize,
) {
    // A step that shares no factor with the number of keys visits all of them; readers start at different places.
    for turn in 0.. {
        if shared.stopped() {
            return;
        }
        let place = (turn * 7 + reader * 3) % (writers * keys);
        let key = key_of(place % writers, place / writers);
        let number = (writers + reader) as u32 + 1;
        let read = history.begin_get(Request::new(number, &key, Action::Get));
        match get_as(client, read, &key).await {
            Ok(Ok(())) => {
                shared.reads.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Err(violation)) => shared.violated(violation),
            Err(error) => shared.failed(&format!("get {key}"), &error),
        }
    }
}

/// Gets the key and judges the answer.
pub async fn read_once(
    client: &Client,
    history: &History,
    key: &str,
) -> Result<Result<(), Violation>, Error> {
    get_as(client, history.begin_read(key), key).await
}

async fn get_as(
    client: &Client,
    read: Read<'_>,
    key: &str,
) -> Result<Result<(), Violation>, Error> {
    let answer = client.get(key).deadline(DEADLINE).await?;
    Ok(read.returned(answer.values()))
}

/// Writes many keys, some at a time, and fails on the first that is not acknowledged.
pub async fn fill(client: &Client, history: &Arc<History>, keys: usize, at_once: usize) {
    run_all(keys, at_once, |number| {
        let (client, history) = (client.clone(), Arc::clone(history));
        async move {
            let key = format!("fill/{number}");
            write_once(&client, &history, &key)
                .await
                .unwrap_or_else(|error| panic!("put {key}: {error:?}"));
        }
    })
    .await;
}

/// Reads every acknowledged key back; answers what is missing or wrong.
pub async fn read_all(client: &Client, history: &Arc<History>, at_once: usize) -> Vec<String> {
    let keys = Arc::new(history.acknowledged_keys());
    let problems = Arc::new(std::sync::Mutex::new(Vec::new()));
    run_all(keys.len(), at_once, |number| {
        let (client, history) = (client.clone(), Arc::clone(history));
        let (keys, problems) = (Arc::clone(&keys), Arc::clone(&problems));
        async move {
            let key = &keys[number];
            let problem = match read_once(&client, &history, key).await {
                Ok(Ok(())) => return,
                Ok(Err(violation)) => violation.to_string(),
                Err(error) => format!("get {key}: {error:?}"),
            };
            if let Ok(mut problems) = problems.lock() {
                problems.push(problem);
            }
        }
    })
    .await;
    problems.lock().map(|problems| problems.clone()).unwrap_or_default()
}

/// Runs the numbers from 0 up, so many at once.
pub async fn run_all<F>(count: usize, at_once: usize, mut job: impl FnMut(usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut running = tokio::task::JoinSet::new();
    for number in 0..count {
        if running.len() >= at_once
            && let Some(ended) = running.join_next().await
        {
            ended.expect("no job panics without its reason being printed");
        }
        running.spawn(job(number));
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("no job panics without its reason being printed");
    }
}
