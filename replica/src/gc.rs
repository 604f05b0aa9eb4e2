//! Forgetting for good: when may a tombstone go, and what of a context?
//!
//! A record is *garbage* when [pruning](Record::pruned) would make it smaller for good: a
//! tombstone, of which nothing stays, or a record whose context has too many entries, of
//! which the dots of its siblings stay. Both are one rule, applied by one *round*
//! (design rule D7), in a stable configuration Stable(e, M) that lists no retired member:
//!
//! ```text
//! proposer                              every member of M
//! 1 here are the keys, each with the
//!   digest of the record I hold   ───►  holds them all, exactly so: keeps the list in a row
//!                                 ◄───  (fsync), vouched; else: these I do not hold so
//! 2 all vouched: have next(e) decided ► Stable(e+1, M, gc epoch = e, collected = digest)
//!                                       in one batch: enters e+1 *from e*, prunes what its
//!                                       vouch of that digest lists and what is unchanged
//!                                       since, begins a new actor
//! ```
//!
//! Any other decision for next(e) voids the round. A vouch is one row: a later one replaces
//! it. That breaks nothing: inside an epoch records only grow by merging, so that what was
//! vouched for stays true, and who lacks the row of the digest that was decided prunes nothing.
//! The configuration names the digest, because two proposers may run rounds over different
//! lists in one epoch, and both lead to the gc epoch e.
//!
//! # Why nothing comes back
//!
//! Let T be a vouched record with the context X, and *old* a copy with a sibling whose dot is
//! in X and which T does not have. (That T lacks what X covers is all that a tombstone says.)
//!
//! 1. **No member of M has an old copy**, from its vouch on: its row is T merged with
//!    whatever came, and merging never brings back what X covers. That holds for each of
//!    them, not for a majority; so whether a member then prunes T, keeps it (it skipped e+1,
//!    or its row was changed), or merges the one with the other, no old copy comes of it. A
//!    member whose row has changed keeps it whole, with X: merged into a pruned row that
//!    gives the changed row, and nothing of it is lost.
//! 2. **No other store has one that counts.** Per store, *data epoch* d says: whatever was
//!    collected with gc epochs up to d, no old copy of it is here. It is raised only as a
//!    store enters a configuration as a member, or begins a copy; and in that batch
//!    everything goes if d is below the configuration's gc epoch
//!    ([`EnteredRow`](crate::shard::EnteredRow)). The members of M are at d ≥ e: they vouched.
//!    Everyone else was last a member before e, or is a learner of e (d = e − 1).
//! 3. **No message brings one.** Reads, merges, anti-entropy and read repair are served in
//!    exactly one epoch, and who sends a record in an epoch has read it from a member's store
//!    *in* that epoch: nobody stamps anew. What was on its way in e is refused in e+1. Bulk
//!    copies carry the data epoch of their source, and are refused below the receiver's gc
//!    epoch; a former member's hand-over names the configuration that lists it, and no
//!    round passes while it is listed. A write that meets the change of epoch is read again
//!    from the store before it is sent again; where the store has it no more, it stays in doubt.
//!    Hints merge only while their stamp is *above* the gc epoch.
//! 4. **No dot is minted twice.** Pruning forgets how far an actor had counted, so every
//!    member begins a new actor as it enters e+1 ([`EnteredRow::forgotten`]), whether it
//!    pruned or not; a member that skips e+1 begins a new tenure. A late copy of T, which is
//!    harmless in itself, can therefore never cover a write made after the round.
//!
//! For the same reason *every* entry of X may go that no sibling needs: with e+1 all actors
//! that minted up to e are dead. (An acceptance that is not decided may leave one of them
//! alive in e a moment longer; what it mints there no quorum of e can acknowledge any more,
//! and its own row, changed, keeps the whole context.)
//!
//! `tests/cluster` plays all this with sleeping members, late messages and stores that come
//! back, and kills the mutants that leave a rule out.
//!
//! [`EnteredRow::forgotten`]: crate::shard::EnteredRow::forgotten

mod round;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use sha2::{Digest, Sha256};

pub use round::{Round, RoundStep};

use crate::configuration::{BadRow, Configuration, Epoch, Reader, Writer};
use crate::message::Base;
use crate::record::{Record, RecordDigest};

/// Over so many entries in its context a record is worth a round.
pub const CONTEXT_SOFT: usize = 64;

/// The most keys of one round: as many rows are read for a vouch, and pruned in one batch.
pub const ROUND_KEYS: usize = 512;

/// The most bytes of the keys and bucket names of one round, which is also the size of a vouch's row.
pub const ROUND_BYTES: usize = 256 << 10;

/// The version of the vouch row written today.
const VOUCH_FORMAT: u8 = 1;

/// Names the garbage of one round: keys and contents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GcDigest(pub [u8; 16]);

/// One record that a round prunes, if it is still what it was.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Garbage {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: Bytes,
    /// The record's content: its context above all.
    pub record: RecordDigest,
}

impl Garbage {
    /// What it takes of [`ROUND_BYTES`].
    pub fn bytes(&self) -> usize {
        self.bucket.len() + self.key.len() + self.record.0.len()
    }
}

/// Whether a round would make this record smaller.
pub fn is_garbage(record: &Record) -> bool {
    let entries = record.context().entries();
    record.is_tombstone() || (entries > CONTEXT_SOFT && entries > record.siblings().len())
}

/// Asks a member to vouch: do you hold all of these, in this epoch, durably?
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct VouchRequest {
    /// The configuration Stable(e, M) of the round.
    pub base: Base,
    /// In order of bucket and key, no key twice.
    pub garbage: Vec<Garbage>,
}

/// The answer to a [`VouchRequest`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum VouchReply {
    /// All of them, and the list is durable.
    Vouched(GcDigest),
    /// Not these, named by their places in the list. Nothing was written.
    Lacks(Vec<u32>),
    /// No vouch in this epoch: it is over, or fenced, or not this store's.
    Refused {
        /// The newest decided configuration known there.
        newest: Option<Configuration>,
    },
}

/// What a member vouched for last: a durable row.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Vouch {
    /// The epoch e in which it vouched.
    pub epoch: Epoch,
    /// What it vouched for.
    pub garbage: Vec<Garbage>,
}

impl VouchRequest {
    /// What the answer would vouch for.
    pub fn digest(&self) -> GcDigest {
        digest(self.base.epoch, &self.garbage)
    }

    /// Whether the list keeps its order and bounds; checked wherever one arrives.
    pub fn is_valid(&self) -> bool {
        let places = |one: &Garbage| (one.bucket.clone(), one.key.clone());
        let bytes: usize = self.garbage.iter().map(Garbage::bytes).sum();
        !self.garbage.is_empty()
            && self.garbage.len() <= ROUND_KEYS
            && bytes <= ROUND_BYTES
            && self.garbage.is_sorted_by(|one, next| places(one) < places(next))
    }
}

/// Of the asked records, those that are not held as the list says.
pub fn lacking<E>(
    garbage: &[Garbage],
    mut held: impl FnMut(&Garbage) -> Result<RecordDigest, E>,
) -> Result<Vec<u32>, E> {
    let mut lacks = Vec::new();
    for (place, one) in (0..).zip(garbage) {
        if held(one)? != one.record {
            lacks.push(place);
        }
    }
    Ok(lacks)
}

fn digest(epoch: Epoch, garbage: &[Garbage]) -> GcDigest {
    let mut hash = Sha256::new();
    hash.update(epoch.lineage.to_be_bytes());
    hash.update(epoch.number.to_be_bytes());
    for one in garbage {
        for part in [one.bucket.as_bytes(), &one.key] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(one.record.0);
    }
    let whole: [u8; 32] = hash.finalize().into();
    let mut short = [0; 16];
    short.copy_from_slice(&whole[..16]);
    GcDigest(short)
}

impl Vouch {
    /// The name of what was vouched for.
    pub fn digest(&self) -> GcDigest {
        digest(self.epoch, &self.garbage)
    }

    /// The row as stored.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u8(VOUCH_FORMAT);
        writer.epoch(self.epoch);
        writer.u64(self.garbage.len() as u64);
        for one in &self.garbage {
            writer.bytes(one.bucket.as_bytes());
            writer.bytes(&one.key);
            writer.bytes16(&one.record.0);
        }
        writer.finish()
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(row: &[u8]) -> Result<Self, BadRow> {
        let mut reader = Reader::new(row);
        reader.version(VOUCH_FORMAT)?;
        let epoch = reader.epoch()?;
        let count = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
        if count > ROUND_KEYS {
            return Err(BadRow::TooMany(count, ROUND_KEYS));
        }
        let mut garbage = Vec::with_capacity(count);
        for _ in 0..count {
            let bucket = String::from_utf8_lossy(reader.bytes()?).into_owned();
            let key = Bytes::copy_from_slice(reader.bytes()?);
            garbage.push(Garbage { bucket, key, record: RecordDigest(reader.bytes16()?) });
        }
        reader.finish()?;
        Ok(Self { epoch, garbage })
    }
}
