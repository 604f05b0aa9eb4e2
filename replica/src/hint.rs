//! Hints: what a node keeps for members of a shard that were not there.
//!
//! There are two kinds (design rule D10), after Dynamo's hinted handoff (`DeCandia` et al., SOSP
//! 2007, §4.6).
//!
//! - A **courtesy** hint is a note that a member may lack what this store has of a key. It
//!   counts for nothing. It holds no copy: when the member is back, the coordinator reads its own
//!   store again and sends what it finds as an ordinary merge of the current epoch, so a
//!   courtesy hint can bring back nothing that was deleted. It may be dropped at any time;
//!   anti-entropy finds what it would have found.
//! - An **acknowledging** hint is a [held record](HeldRecord): a node that is no member keeps it,
//!   durably, for *all* members of the shard, and was counted for that. It is never dropped
//!   by age, and goes when every member of one epoch has it.
//!
//! A held record is older than the epoch in which it is delivered, so it is stamped with the
//! epoch in which it was made, and a member refuses it once tombstones of that epoch are gone. That
//! this never happens to a hint that counts, the collection of tombstones asks every node
//! first: [`HintBook::oldest_stamp`] says what is held, and a node that answered "nothing up
//! to epoch e" stamps what it mints later with a greater one ([`HintBook::stamp_of_mint`]).
//! What it mints then has dots that no tombstone of epoch e can cover, for they are newer.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::configuration::Epoch;
use crate::context::Context;
use crate::record::{DecodeError, Record};

mod book;
#[cfg(test)]
mod tests;

pub use book::{Dropped, Due, HeldEntry, HintBook, HintLimits, HintTotals, Noted};

/// The version of held rows written today.
const HELD_FORMAT: u8 = 1;
/// Version, stamp, time.
const HELD_HEADER: usize = 1 + 12 + 8;

/// A record that is held for the members of its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRecord {
    /// The epoch in which it was made; of a merged one, the earliest that is honest.
    pub stamp: Epoch,
    /// When it was first held, in milliseconds since the Unix epoch. For people only.
    pub since_ms: u64,
    /// The record.
    pub record: Record,
}

/// A stored row about hints that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHint {
    /// The row is cut short.
    #[error("the row is cut short")]
    Short,
    /// A newer (or no) Triad wrote it.
    #[error("the row has format version {0}, which this version does not know")]
    Version(u8),
    /// The record in it cannot be read.
    #[error("its record cannot be read: {0}")]
    Record(#[from] DecodeError),
}

impl HeldRecord {
    /// Takes in another record of the same key, and says what was held that it did not cover.
    ///
    /// The stamp stays honest: a merged record that is just one of the two is as new as
    /// that one; a real mixture is as old as its older part.
    pub fn merge(&mut self, newer: &Self) -> Option<Context> {
        let uncovered = self.record.uncovered_by(&newer.record);
        let mut merged = self.record.clone();
        merged.merge(&newer.record);
        let as_new = merged.same_content(&newer.record);
        let as_old = merged.same_content(&self.record);
        self.stamp = match (as_old, as_new) {
            (true, true) => self.stamp.max(newer.stamp),
            (false, true) => newer.stamp,
            (true, false) => self.stamp,
            (false, false) => self.stamp.min(newer.stamp),
        };
        self.since_ms = self.since_ms.min(newer.since_ms);
        self.record = merged;
        uncovered
    }

    /// Bytes of the row.
    pub fn encoded_len(&self) -> usize {
        HELD_HEADER + self.record.encoded_len()
    }

    /// The row as stored.
    pub fn encode(&self) -> Bytes {
        let record = self.record.encode();
        let mut row = BytesMut::with_capacity(HELD_HEADER + record.len());
        row.put_u8(HELD_FORMAT);
        put_epoch(&mut row, self.stamp);
        row.put_u64(self.since_ms);
        row.put_slice(&record);
        row.freeze()
    }

    /// Reads what [`Self::encode`] wrote. Values are slices of the row.
    pub fn decode(mut row: Bytes) -> Result<Self, BadHint> {
        if row.len() < HELD_HEADER {
            return Err(BadHint::Short);
        }
        match row.get_u8() {
            HELD_FORMAT => {}
            version => return Err(BadHint::Version(version)),
        }
        let stamp = take_epoch(&mut row);
        let since_ms = row.get_u64();
        Ok(Self { stamp, since_ms, record: Record::decode(row)? })
    }
}

/// The row of a courtesy hint: when it was noted, in milliseconds since the Unix epoch.
pub fn encode_courtesy(since_ms: u64) -> Bytes {
    let mut row = BytesMut::with_capacity(9);
    row.put_u8(HELD_FORMAT);
    row.put_u64(since_ms);
    row.freeze()
}

/// Reads what [`encode_courtesy`] wrote.
pub fn decode_courtesy(mut row: &[u8]) -> Result<u64, BadHint> {
    if row.len() != 9 {
        return Err(BadHint::Short);
    }
    match row.get_u8() {
        HELD_FORMAT => Ok(row.get_u64()),
        version => Err(BadHint::Version(version)),
    }
}

/// The row of a floor: the epoch up to which nothing will be held any more.
pub fn encode_floor(floor: Epoch) -> Bytes {
    let mut row = BytesMut::with_capacity(13);
    row.put_u8(HELD_FORMAT);
    put_epoch(&mut row, floor);
    row.freeze()
}

/// Reads what [`encode_floor`] wrote.
pub fn decode_floor(mut row: &[u8]) -> Result<Epoch, BadHint> {
    if row.len() != 13 {
        return Err(BadHint::Short);
    }
    match row.get_u8() {
        HELD_FORMAT => Ok(take_epoch(&mut row)),
        version => Err(BadHint::Version(version)),
    }
}

fn put_epoch(row: &mut BytesMut, epoch: Epoch) {
    row.put_u32(epoch.lineage);
    row.put_u64(epoch.number);
}

/// Callers have checked that twelve bytes are left.
fn take_epoch(row: &mut impl Buf) -> Epoch {
    Epoch { lineage: row.get_u32(), number: row.get_u64() }
}
