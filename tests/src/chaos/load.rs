//! Clients that write, read and delete until they are told to stop.
//!
//! Every second key is written with the context of the writer's last read, each other one without. Not both: an
//! overwrite that finds uncovered siblings is minted twice (decision 1), and who read the first of the two and writes
//! with that context leaves the second beside it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinHandle;
use triad_client::{Client, Context, Error};
use triad_history::{Action, OperationId, Request, Rules, Violation};

use crate::dice::Dice;
use crate::history::{History, RULES, Write};
use crate::processes::client_of;

/// How many clients there are.
const CLIENTS: u32 = 6;
/// How many keys they share.
pub const KEYS: u64 = 120;
/// How long each waits between two requests, in milliseconds.
const PAUSE_MS: Range<u64> = 2..30;
/// How long each request may take, repetitions included.
const DEADLINE: Duration = Duration::from_secs(5);
/// One request in so many is a read, and of the others one in so many deletes.
const READS: u64 = 2;
const DELETES: u64 = 5;

/// A network that holds packets back can bring a request after its client has given up: it is as long under way as a
/// fault lasts, and as a sender then waits until it tries again. Until then a write in doubt may still overwrite.
const LATE: Duration = Duration::from_secs(30);

/// By what all of it is judged.
pub const STRICTNESS: Rules = Rules { grace: LATE.as_micros() as u64, ..RULES };

/// A running load.
#[derive(Debug)]
pub struct Load {
    /// What was asked and told.
    pub history: Arc<History>,
    name: String,
    stop: Arc<AtomicBool>,
    /// What was seen at once to be wrong.
    wrong: Arc<Mutex<Option<Violation>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the clients, on keys of their own under this name.
    pub fn start(addresses: &[String], name: &str, dice: &mut Dice) -> Self {
        let mut load = Self {
            history: Arc::new(History::judged_by(STRICTNESS)),
            name: name.to_owned(),
            stop: Arc::default(),
            wrong: Arc::default(),
            clients: Vec::new(),
        };
        for number in 1..=CLIENTS {
            let worker = Worker {
                number,
                client: client_of(addresses),
                history: Arc::clone(&load.history),
                name: name.to_owned(),
                wrong: Arc::clone(&load.wrong),
                dice: Dice::seeded(dice.roll(0..u64::MAX)),
                seen: BTreeMap::new(),
            };
            load.clients.push(tokio::spawn(worker.work(Arc::clone(&load.stop))));
        }
        load
    }

    /// All its keys.
    pub fn keys(&self) -> Vec<String> {
        (0..KEYS).map(|number| key(&self.name, number)).collect()
    }

    /// The first read, if any, that was wrong whatever comes.
    pub fn wrong(&self) -> Option<Violation> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the clients end their requests under way.
    pub async fn stop(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.await.context("a client")?;
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.clients.iter().for_each(JoinHandle::abort);
    }
}

fn key(name: &str, number: u64) -> String {
    format!("{name}/{number}")
}

struct Worker {
    number: u32,
    client: Client,
    history: Arc<History>,
    name: String,
    wrong: Arc<Mutex<Option<Violation>>>,
    dice: Dice,
    /// Of keys that are written with contexts: the last read and its context.
    seen: BTreeMap<String, (OperationId, Context)>,
}

impl Worker {
    async fn work(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(self.dice.time(PAUSE_MS)).await;
            let number = self.dice.roll(0..KEYS);
            let key = key(&self.name, number);
            // What a request met is in the history; that it failed is no matter.
            let _ = match (self.dice.roll(0..READS), number % 2) {
                (0, _) => self.read(&key).await,
                (_, 0) => self.write(&key, None).await,
                _ => self.write_after_read(&key).await,
            };
        }
    }

    fn request(&self, key: &str, action: Action) -> Request {
        Request::new(self.number, key, action)
    }

    async fn read(&mut self, key: &str) -> Result<(), Error> {
        let read = self.history.begin_get(self.request(key, Action::Get));
        let id = read.id();
        let answer = self.client.get(key).deadline(DEADLINE).await?;
        if let Err(violation) = read.returned(answer.values()) {
            self.wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(violation);
        }
        self.seen.insert(key.to_owned(), (id, answer.context));
        Ok(())
    }

    async fn write_after_read(&mut self, key: &str) -> Result<(), Error> {
        if !self.seen.contains_key(key) {
            self.read(key).await?;
        }
        let seen = self.seen.get(key).cloned();
        self.write(key, seen).await
    }

    async fn write(
        &mut self,
        key: &str,
        seen: Option<(OperationId, Context)>,
    ) -> Result<(), Error> {
        let deletes = self.dice.roll(0..DELETES) == 0;
        let action =
            if deletes { Action::Delete } else { Action::Put(self.history.next_value(key)) };
        let mut request = self.request(key, action);
        request.context = seen.as_ref().map(|(source, _)| *source);
        let context = seen.map(|(_, context)| context).unwrap_or_default();
        let write = self.history.begin(request);
        if deletes {
            let delete = self.client.delete(key).context(&context).deadline(DEADLINE);
            note(write, delete.await.map(drop))
        } else {
            let put = self.client.put(key, write.value()).context(&context).deadline(DEADLINE);
            note(write, put.await.map(drop))
        }
    }
}

fn note(write: Write<'_>, answer: Result<(), Error>) -> Result<(), Error> {
    match &answer {
        Ok(()) => write.acknowledged(),
        // Like the simulation: an error of the server's own says nothing of the write.
        Err(Error::InDoubt(_) | Error::Internal(_)) => write.in_doubt(),
        Err(_) => write.refused(),
    }
    answer
}
