//! What was acknowledged, and how it is known in the stores: by its dots.
//!
//! A client does not learn its write's dot, but values are never used twice, so the stores tell. A write is watched
//! until some store has it covered by what replaced it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use triad_replica::dot::Dot;
use triad_replica::record::Record;
use triad_replica::store::Key;
use triad_ring::ShardId;

use crate::view::{StoreView, View};

/// An acknowledged put.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// The bucket.
    pub bucket: &'static str,
    /// The key.
    pub key: String,
    /// The value, which no other put has.
    pub value: String,
    /// When the client was told.
    pub at: Duration,
}

/// An acknowledged put that nothing has replaced yet.
#[derive(Debug)]
pub struct Write {
    /// Whether its bucket takes writes whatever happens.
    pub available: bool,
    /// Its shard.
    pub shard: ShardId,
    /// Its record's stored key.
    pub row: Bytes,
    /// When the client was told.
    pub at: Duration,
    value: String,
    dots: BTreeSet<Dot>,
}

impl Write {
    /// Whether the store would tell of the write, or of what came after it.
    pub fn is_known_to(&self, store: &StoreView) -> bool {
        let held = store.held.get(&self.row).map(|held| &held.record);
        store.records.get(&self.row).into_iter().chain(held).any(|record| self.is_known_by(record))
    }

    fn is_known_by(&self, record: &Record) -> bool {
        self.dots.iter().any(|dot| record.context().covers(dot))
    }

    fn is_in(&self, record: &Record) -> bool {
        record.siblings().values().any(|sibling| sibling.value == self.value.as_bytes())
    }

    /// Takes in what a store has of it. True when something has replaced it there.
    fn look_at(&mut self, record: &Record) -> bool {
        let named =
            record.siblings().iter().filter(|(_, held)| held.value == self.value.as_bytes());
        self.dots.extend(named.map(|(dot, _)| *dot));
        self.is_known_by(record) && !self.is_in(record)
    }
}

impl std::fmt::Display for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value: String = self.value.chars().take(20).collect();
        write!(f, "{value:?} of {:?}, acknowledged at {:?}", Key::decode(&self.row), self.at)
    }
}

/// Acknowledged puts that are watched.
#[derive(Default)]
pub struct Ledger {
    writes: Vec<Write>,
}

impl Ledger {
    /// Those that nothing has replaced, as far as any store shows.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.writes.iter()
    }

    /// Takes in what was acknowledged since the last look, and what the stores show now.
    pub fn look(&mut self, fresh: Vec<Acknowledged>, view: &View) {
        if !fresh.is_empty() {
            let rows = rows_by_name(view);
            self.writes.extend(fresh.into_iter().filter_map(|put| {
                let (shard, row) = rows.get(&(put.bucket, put.key.as_bytes()))?;
                let available = put.bucket.starts_with("any.");
                let (row, dots) = ((*row).clone(), BTreeSet::new());
                Some(Write { available, shard: *shard, row, at: put.at, value: put.value, dots })
            }));
        }
        self.writes.retain_mut(|write| {
            let mut replaced = false;
            for store in &view.stores {
                let held = store.held.get(&write.row).map(|held| &held.record);
                for record in store.records.get(&write.row).into_iter().chain(held) {
                    replaced |= write.look_at(record);
                }
            }
            // What no store shows at its first look was replaced before, or the history will tell.
            !replaced && !write.dots.is_empty()
        });
    }
}

type Rows<'a> = BTreeMap<(&'a str, &'a [u8]), (ShardId, &'a Bytes)>;

fn rows_by_name(view: &View) -> Rows<'_> {
    let all = view.stores.iter().flat_map(|store| store.records.keys().chain(store.held.keys()));
    all.filter_map(|row| match Key::decode(row) {
        Some(Key::Record { shard, bucket, key }) => Some(((bucket, key), (shard, row))),
        _ => None,
    })
    .collect()
}
