//! What happened, in order: two runs of one seed must agree on it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Lines that are kept for people.
const KEPT: usize = 400;

/// A trace: every event goes into a hash, the last ones are kept as text.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    hash: u64,
    events: u64,
    reached: Duration,
    last: VecDeque<String>,
    all: Option<Vec<String>>,
}

impl Trace {
    /// A trace that keeps every event, to find where two runs part.
    pub fn complete() -> Self {
        let trace = Self::default();
        trace.lock().all = Some(Vec::new());
        trace
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time has come so far.
    pub(crate) fn reach(&self, now: Duration) {
        self.lock().reached = now;
    }

    /// How far time has come.
    pub fn reached(&self) -> Duration {
        self.lock().reached
    }

    /// Something happened that is told in words.
    pub fn tell(&self, at: Duration, what: fmt::Arguments<'_>) {
        let line = format!("{:>11.3}s  {what}", at.as_secs_f64());
        let mut told = self.lock();
        told.add(line.bytes().map(u64::from));
        if let Some(all) = &mut told.all {
            all.push(line.clone());
        }
        told.last.push_back(line);
        if told.last.len() > KEPT {
            told.last.pop_front();
        }
    }

    /// Something small happened: only its numbers count.
    pub fn count(&self, at: Duration, what: [u64; 3]) {
        let mut told = self.lock();
        told.add([at.as_micros() as u64, what[0], what[1], what[2]].into_iter());
        if let Some(all) = &mut told.all {
            all.push(format!("{:>11.3}s  {what:?}", at.as_secs_f64()));
        }
    }

    /// The hash of all events, and how many they were.
    pub fn digest(&self) -> (u64, u64) {
        let told = self.lock();
        (told.hash, told.events)
    }

    /// The last events in words.
    pub fn last(&self) -> Vec<String> {
        self.lock().last.iter().cloned().collect()
    }

    /// All events, of a [complete](Self::complete) trace.
    pub fn all(&self) -> Vec<String> {
        self.lock().all.clone().unwrap_or_default()
    }
}

impl Told {
    fn add(&mut self, words: impl Iterator<Item = u64>) {
        self.events += 1;
        for word in words {
            self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
    }
}
