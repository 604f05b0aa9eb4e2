//! The load: writers whose every batch can be computed again, and a committer as in a node.
//!
//! Batch `sequence` of writer `writer` is a function of the two, so whoever knows how far a
//! writer came knows everything that it wrote.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use triad_replica::commit_queue::CommitQueue;
use triad_replica::store::{Batch, Key, Store};
use triad_ring::ShardId;

use crate::engines::Engine;
use crate::mixed;

/// Writers; each has a shard of its own.
pub const WRITERS: usize = 4;

/// Keys of a writer.
pub const KEYS: u64 = 500;

/// Batches of a writer that may wait for their commit at once.
const IN_FLIGHT: u64 = 8;

/// How many batches of each writer are meant; by writer.
pub type Progress = [u64; WRITERS];

/// Named rows of a writer besides its keys.
const PROGRESS_KEY: &[u8] = b"progress";

/// The row that says how many batches of `writer` the store holds; it changes with each.
pub fn progress_row(writer: usize) -> Bytes {
    row(writer, PROGRESS_KEY)
}

/// The row of one of a writer's keys.
pub fn key_row(writer: usize, key: u64) -> Bytes {
    row(writer, &key.to_be_bytes())
}

fn row(writer: usize, key: &[u8]) -> Bytes {
    Key::Record { shard: ShardId::new(writer as u32), bucket: "powercut", key }.encode()
}

/// A value that a batch writes; its bytes are made when they are needed.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    writer: usize,
    sequence: u64,
    random: u64,
}

/// What one batch does: its keys with the value, `None` where it deletes.
pub fn changes(writer: usize, sequence: u64) -> BTreeMap<u64, Option<Value>> {
    let number = |what: u64| mixed(&[writer as u64, sequence, what]);
    (0..=number(0) % 24)
        .map(|index| {
            let random = number(1 + index);
            let value = (random >> 40 & 7 != 0).then_some(Value { writer, sequence, random });
            (random % KEYS, value)
        })
        .collect()
}

impl Value {
    /// The bytes: mostly few; every hundredth value is large enough to be cut into chunks.
    pub fn bytes(self) -> Bytes {
        let Self { writer, sequence, random } = self;
        let large = (random >> 20).is_multiple_of(100);
        let length = if large { 17_000 + random % 100_000 } else { 16 + random % 1_500 } as usize;
        let mut bytes = Vec::with_capacity(length + 8);
        let mut word = mixed(&[writer as u64, sequence, random, 7]);
        while bytes.len() < length {
            bytes.extend_from_slice(&word.to_le_bytes());
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        }
        bytes.truncate(length);
        bytes.into()
    }
}

/// A batch as it goes into the store.
pub fn batch(writer: usize, sequence: u64) -> Batch {
    let mut batch = Batch::new();
    for (key, value) in changes(writer, sequence) {
        match value {
            Some(value) => batch.put(key_row(writer, key), value.bytes()),
            None => batch.delete(key_row(writer, key)),
        }
    }
    batch.put(progress_row(writer), sequence.to_be_bytes().to_vec());
    batch
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// After the sync: as a node does.
    Synced,
    /// After it is applied: wrong, to show that the tool notices.
    Applied,
}

/// One batch on its way, and whom to tell.
#[derive(Debug)]
struct Operation {
    writer: usize,
    sequence: u64,
    done: SyncSender<()>,
}

/// Work for the committer.
#[derive(Default)]
struct Line {
    queue: Mutex<CommitQueue<Operation>>,
    arrived: Condvar,
}

/// Writes for ever into the data directory `dir`, from behind `from`. Says `ready`, then each
/// acknowledgement as a line `writer sequence`, and ends when nobody listens any more or something fails.
pub fn run(
    engine: Engine,
    dir: &Path,
    from: Progress,
    acknowledge: Acknowledge,
    out: impl Write,
) -> Result<()> {
    let opened = engine.open(dir)?;
    let line = Arc::new(Line::default());
    for (writer, from) in from.into_iter().enumerate() {
        let line = Arc::clone(&line);
        std::thread::spawn(move || write(&line, writer, from));
    }
    commit(&*opened.store, &line, acknowledge, out)
}

fn write(line: &Line, writer: usize, from: u64) {
    let (done, acknowledged) = sync_channel(IN_FLIGHT as usize);
    for sequence in from + 1.. {
        if sequence > from + IN_FLIGHT && acknowledged.recv().is_err() {
            return;
        }
        let bytes = batch(writer, sequence).bytes();
        let operation = Operation { writer, sequence, done: done.clone() };
        let pushed =
            line.queue.lock().unwrap_or_else(PoisonError::into_inner).push(operation, bytes);
        pushed.expect("writers × batches in flight are far below the queue's limits");
        line.arrived.notify_one();
    }
}

/// Takes what waits, applies it as one batch, syncs once, acknowledges all.
fn commit(store: &dyn Store, line: &Line, acknowledge: Acknowledge, out: impl Write) -> Result<()> {
    let mut out = BufWriter::new(out);
    writeln!(out, "ready")?;
    out.flush()?;
    loop {
        let group = take(line);
        let taken = Instant::now();
        let mut whole = Batch::new();
        for Operation { writer, sequence, .. } in &group {
            whole.append(batch(*writer, *sequence));
        }
        store.apply(whole).context("apply")?;
        if acknowledge == Acknowledge::Synced {
            store.sync().context("sync")?;
        }
        line.queue.lock().unwrap_or_else(PoisonError::into_inner).synced(taken.elapsed());
        for Operation { writer, sequence, done } in group {
            writeln!(out, "{writer} {sequence}")?;
            // A writer that has ended needs no answer.
            let _ = done.send(());
        }
        out.flush()?;
    }
}

fn take(line: &Line) -> Vec<Operation> {
    let mut queue = line.queue.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let group = queue.take_group();
        if !group.is_empty() {
            return group;
        }
        let waited = line.arrived.wait_timeout(queue, Duration::from_secs(1));
        queue = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}
