//! What every store does above its engine: checksums, chunks, space, and failing for good.
//!
//! A large value lies in chunks under a *generation* of its own, and its head, its new chunks and the
//! removal of its old chunks are one batch. So a reader can never mix two versions: either
//! it finds all chunks of the head it read, or it finds that they are gone, and then
//! the head has changed too and is read again.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};

use super::engine::{Engine, RowChange};
use super::key::{self, Key, KeyRange};
use super::row::{self, CHUNK_BYTES, Head, INLINE_BYTES_MAX, Row};
use super::space::Live;
use super::{Batch, Space, SpaceRule, Store, StoreError, StoreStats, Visitor};

/// How often a reader looks again for a large value that is rewritten under its eyes, before
/// it makes writers wait.
const READ_ATTEMPTS: usize = 4;

/// Rows removed at once when orphaned chunks are swept at opening.
const SWEEP_ROWS: usize = 256;

/// Memory set aside at once for a value that is put together from chunks.
const ASSEMBLY_BYTES_MAX: u64 = 64 << 20;

/// A [`Store`] over an [`Engine`].
pub struct RowStore<E> {
    engine: E,
    rule: SpaceRule,
    /// Serialises writers; holds the generation of the next large value.
    writer: Mutex<u64>,
    live_rows: AtomicU64,
    live_chunks: AtomicU64,
    records: AtomicU64,
    /// What the last batch wanted that found no room, until it would find some.
    refused: Mutex<Option<Live>>,
    poisoned: OnceLock<String>,
}

/// What a batch comes to: the engine's rows, and what they change in the counts.
#[derive(Default)]
struct Plan {
    rows: Vec<RowChange>,
    added: Live,
    freed: Live,
    added_records: u64,
    freed_records: u64,
}

/// What one look at a row found.
enum Look {
    Value(Option<Bytes>),
    /// The head's chunks are gone.
    ChunksGone(Head),
}

impl<E: Engine> RowStore<E> {
    /// Opens a store over an engine: counts what is live and removes chunks that no row refers to any
    /// more. Reads every row once.
    pub fn open(engine: E, rule: SpaceRule) -> Result<Self, StoreError> {
        let store = Self {
            engine,
            rule,
            writer: Mutex::new(0),
            live_rows: AtomicU64::new(0),
            live_chunks: AtomicU64::new(0),
            records: AtomicU64::new(0),
            refused: Mutex::new(None),
            poisoned: OnceLock::new(),
        };
        let orphans = store.count()?;
        store.sweep(&orphans)?;
        Ok(store)
    }

    /// The engine below, for its own metrics and tests.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// Counts live rows; answers the generations and sizes of chunks without a head.
    fn count(&self) -> Result<BTreeMap<u64, u32>, StoreError> {
        let (mut live, mut records, mut newest) = (Live::default(), 0, 0);
        let mut chunks: BTreeMap<u64, u32> = BTreeMap::new();
        let everything = KeyRange::everything();
        // Chunks come before every other row (`C` is the first letter).
        self.engine.scan(everything.start(), false, everything.end(), &mut |key, row| {
            records += u64::from(key::is_record(key));
            if let Some(Key::Chunk { generation, .. }) = Key::decode(key) {
                live.chunks += row_bytes(key, &row);
                newest = newest.max(generation);
                *chunks.entry(generation).or_default() += 1;
                return ControlFlow::Continue(());
            }
            live.rows += row_bytes(key, &row);
            if row::is_head(&row)
                && let Ok(Row::Head(head)) = row::decode(key, row)
            {
                chunks.remove(&head.generation);
                newest = newest.max(head.generation);
            }
            ControlFlow::Continue(())
        })?;
        *self.lock_writer()? = newest + 1;
        self.live_rows.store(live.rows, Ordering::Relaxed);
        self.live_chunks.store(live.chunks, Ordering::Relaxed);
        self.records.store(records, Ordering::Relaxed);
        Ok(chunks)
    }

    /// Removes the chunks of generations that no head names. They are left when a damaged
    /// head was overwritten: nobody could read from it which chunks were its own.
    fn sweep(&self, orphans: &BTreeMap<u64, u32>) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        let range = KeyRange::chunks();
        if !orphans.is_empty() {
            self.engine.scan(range.start(), false, range.end(), &mut |key, row| {
                if let Some(Key::Chunk { generation, .. }) = Key::decode(key)
                    && orphans.contains_key(&generation)
                {
                    rows.push((Bytes::copy_from_slice(key), row_bytes(key, &row)));
                }
                ControlFlow::Continue(())
            })?;
        }
        for some in rows.chunks(SWEEP_ROWS) {
            self.engine.apply(some.iter().map(|(key, _)| (key.clone(), None)).collect())?;
            self.live_chunks
                .fetch_sub(some.iter().map(|(_, bytes)| bytes).sum(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Turns a batch into rows. Reads the old row of every key, to count it and to find the
    /// chunks that go with it; the committer has just read the same row, so it is cached.
    fn plan(&self, batch: &Batch, generation: &mut u64) -> Result<Plan, StoreError> {
        let mut plan = Plan::default();
        for (key, value) in batch.changes() {
            if let Some(old) = self.engine.get(key)? {
                plan.free(key, old);
            }
            match value {
                None => plan.rows.push((key.clone(), None)),
                Some(value) => plan.put(key, value, generation),
            }
        }
        Ok(plan)
    }

    fn check_space(&self, plan: &Plan, essential: bool) -> Result<(), StoreError> {
        let live = self.live();
        let after = Live {
            rows: (live.rows + plan.added.rows).saturating_sub(plan.freed.rows),
            chunks: (live.chunks + plan.added.chunks).saturating_sub(plan.freed.chunks),
        };
        let growth = after.total().saturating_sub(live.total());
        if growth == 0 {
            return Ok(());
        }
        let checked = self.rule.check(&self.engine.space(), after, growth, essential);
        if checked.is_err() {
            *self.lock_refused() = Some(Live {
                rows: after.rows.saturating_sub(live.rows),
                chunks: after.chunks.saturating_sub(live.chunks),
            });
        }
        checked
    }

    fn lock_refused(&self) -> MutexGuard<'_, Option<Live>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why there is no room: for what was refused last, or for anything at all.
    fn full(&self, space: &Space) -> Option<String> {
        let mut refused = self.lock_refused();
        let wanted = refused.unwrap_or(Live { rows: 1, chunks: 0 });
        let live = self.live();
        let after = Live { rows: live.rows + wanted.rows, chunks: live.chunks + wanted.chunks };
        let why = self.rule.check(space, after, wanted.total(), false).err();
        if why.is_none() {
            *refused = None;
        }
        why.map(|error| error.to_string())
    }

    fn live(&self) -> Live {
        Live {
            rows: self.live_rows.load(Ordering::Relaxed),
            chunks: self.live_chunks.load(Ordering::Relaxed),
        }
    }

    fn account(&self, plan: &Plan) {
        // Only the writer that holds the lock changes the counts; readers may be a batch behind.
        let change = |count: &AtomicU64, added: u64, freed: u64| {
            let before = count.load(Ordering::Relaxed);
            count.store((before + added).saturating_sub(freed), Ordering::Relaxed);
        };
        change(&self.live_rows, plan.added.rows, plan.freed.rows);
        change(&self.live_chunks, plan.added.chunks, plan.freed.chunks);
        change(&self.records, plan.added_records, plan.freed_records);
    }

    fn look(&self, key: &[u8]) -> Result<Look, StoreError> {
        let Some(stored) = self.engine.get(key)? else {
            return Ok(Look::Value(None));
        };
        match row::decode(key, stored).map_err(|what| damaged(key, what))? {
            Row::Inline(value) => Ok(Look::Value(Some(value))),
            Row::Head(head) => self.assemble(key, head),
        }
    }

    fn assemble(&self, key: &[u8], head: Head) -> Result<Look, StoreError> {
        let mut value = BytesMut::with_capacity(head.length.min(ASSEMBLY_BYTES_MAX) as usize);
        for number in 0..head.chunks {
            let chunk = Key::Chunk { generation: head.generation, number }.encode();
            let Some(piece) = self.engine.get(&chunk)? else {
                return Ok(Look::ChunksGone(head));
            };
            value.extend_from_slice(&row::decode_chunk(piece).map_err(|what| damaged(key, what))?);
        }
        if value.len() as u64 != head.length || crc32fast::hash(&value) != head.value_crc {
            return Err(damaged(
                key,
                "its chunks do not add up to the value that its head describes",
            ));
        }
        Ok(Look::Value(Some(value.freeze())))
    }

    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let mut gone: Option<Head> = None;
        for _ in 0..READ_ATTEMPTS {
            match self.look(key)? {
                Look::Value(value) => return Ok(value),
                // The same head again: nobody rewrote the row, its chunks are really lost.
                Look::ChunksGone(head) if gone == Some(head) => break,
                Look::ChunksGone(head) => gone = Some(head),
            }
        }
        let _no_writer = self.lock_writer()?;
        match self.look(key)? {
            Look::Value(value) => Ok(value),
            Look::ChunksGone(_) => Err(damaged(key, "chunks of its value are missing")),
        }
    }

    fn lock_writer(&self) -> Result<MutexGuard<'_, u64>, StoreError> {
        self.writer.lock().map_err(|_| self.poison("a thread panicked while it wrote"))
    }

    /// Notes the first failure; later ones are its consequences.
    fn poison(&self, why: &str) -> StoreError {
        StoreError::Poisoned { why: self.poisoned.get_or_init(|| why.to_owned()).clone() }
    }

    fn check_alive(&self) -> Result<(), StoreError> {
        match self.poisoned.get() {
            Some(why) => Err(StoreError::Poisoned { why: why.clone() }),
            None => Ok(()),
        }
    }
}

impl<E: Engine> Store for RowStore<E> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.read(key)
    }

    fn scan(
        &self,
        range: &KeyRange,
        after: Option<&[u8]>,
        visit: &mut Visitor<'_>,
    ) -> Result<(), StoreError> {
        let skip_start = after.is_some_and(|after| after >= range.start().as_ref());
        let start = if skip_start { after.unwrap_or_default() } else { range.start() };
        if start >= range.end().as_ref() {
            return Ok(());
        }
        let mut failure = None;
        self.engine.scan(start, skip_start, range.end(), &mut |key, stored| {
            let value = match row::decode(key, stored) {
                Ok(Row::Inline(value)) => Ok(Some(value)),
                Ok(Row::Head(_)) => self.read(key),
                Err(what) => Err(damaged(key, what)),
            };
            match value {
                Ok(Some(value)) => visit(key, value),
                // Removed since the engine handed out its head.
                Ok(None) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failure.map_or(Ok(()), Err)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut generation = self.lock_writer()?;
        self.check_alive()?;
        let mut plan =
            self.plan(&batch, &mut generation).map_err(|error| self.poison(&error.to_string()))?;
        self.check_space(&plan, batch.is_essential())?;
        let rows = std::mem::take(&mut plan.rows);
        self.engine.apply(rows).map_err(|error| self.poison(&error.to_string()))?;
        self.account(&plan);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.check_alive()?;
        self.engine.sync().map_err(|error| self.poison(&error.to_string()))?;
        // Another thread's sync may have failed meanwhile: its failure could be the one that
        // concerns our batch.
        self.check_alive()
    }

    fn stats(&self) -> StoreStats {
        let space = self.engine.space();
        StoreStats {
            live_bytes: self.live().total(),
            records: self.records.load(Ordering::Relaxed),
            disk_bytes: space.disk_bytes,
            free_bytes: space.free_bytes,
            blob_files: space.blob_files,
            full: self.full(&space),
        }
    }
}

impl Plan {
    /// Counts the row that is replaced or removed, and removes its chunks.
    fn free(&mut self, key: &Bytes, old: Bytes) {
        self.freed.rows += row_bytes(key, &old);
        self.freed_records += u64::from(key::is_record(key));
        // A damaged head says nothing about its chunks: they are swept at the next opening.
        if let Ok(Row::Head(head)) = row::decode(key, old) {
            self.freed.chunks += head.chunk_bytes();
            let chunks =
                (0..head.chunks).map(|number| Key::Chunk { generation: head.generation, number });
            self.rows.extend(chunks.map(|chunk| (chunk.encode(), None)));
        }
    }

    fn put(&mut self, key: &Bytes, value: &Bytes, generation: &mut u64) {
        self.added_records += u64::from(key::is_record(key));
        if value.len() <= INLINE_BYTES_MAX {
            return self.push(key.clone(), row::encode_inline(key, value));
        }
        let head = Head::of(value, *generation);
        *generation += 1;
        for (number, piece) in (0..head.chunks).zip(value.chunks(CHUNK_BYTES)) {
            let chunk = Key::Chunk { generation: head.generation, number };
            self.push(chunk.encode(), row::encode_chunk(piece));
        }
        self.push(key.clone(), head.encode(key));
    }

    fn push(&mut self, key: Bytes, row: Bytes) {
        let bytes = row_bytes(&key, &row);
        let added = if key::is_chunk(&key) { &mut self.added.chunks } else { &mut self.added.rows };
        *added += bytes;
        self.rows.push((key, Some(row)));
    }
}

fn row_bytes(key: &[u8], row: &[u8]) -> u64 {
    (key.len() + row.len()) as u64
}

fn damaged(key: &[u8], what: &'static str) -> StoreError {
    StoreError::Damaged { key: Bytes::copy_from_slice(key), what }
}
