//! Which writes were acknowledged, so that a benchmark never praises a store that lost some.
//!
//! Many writers overwrite the same keys at once, so the last value of a key may be any of several. What it must not be is
//! older than an acknowledged write: a value may stay only if its own write had not ended before the newest
//! acknowledged write began. A write in doubt never ends; one that was refused must not show at all.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

/// Nanoseconds since the ledger was opened.
type Time = u64;
/// When a write in doubt, or under way, ends.
const NEVER: Time = Time::MAX;
/// A run of more writes is not judged: 24 bytes are kept for each.
pub const WRITES_MAX: usize = 20_000_000;
/// A value begins with the number of its write.
pub const VALUE_BYTES_MIN: usize = 8;

/// All writes of a run.
#[derive(Debug)]
pub struct Ledger {
    opened: Instant,
    writes: Mutex<Vec<Write>>,
}

#[derive(Debug, Clone, Copy)]
struct Write {
    key: u64,
    began: Time,
    ended: Time,
    fate: Fate,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// As its level promises, it is there.
    Acknowledged,
    /// It may be there, now or later.
    InDoubt,
    /// Nothing was written.
    Refused,
}

/// What is wrong with a key at the end; times are seconds since the ledger was opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// An acknowledged write is neither there nor replaced.
    #[error("an acknowledged write is lost: {missing}, but there is {found}")]
    Lost {
        /// The newest acknowledged write.
        missing: String,
        /// What the key holds.
        found: String,
    },
    /// A value whose writer was told that nothing was written, or that nobody wrote.
    #[error("holds what was refused or never written: {0}")]
    Phantom(String),
}

impl Write {
    fn told(&self, number: Option<u64>) -> String {
        let seconds = |time: Time| time as f64 / 1e9;
        let (fate, began, ended) = (self.fate, seconds(self.began), seconds(self.ended));
        let number = number.map(|number| format!("write {number}, ")).unwrap_or_default();
        format!("{number}{fate:?}, {began:.6} to {ended:.6}")
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self { opened: Instant::now(), writes: Mutex::default() }
    }
}

impl Ledger {
    /// Notes that a write of this key begins. None once there were too many.
    pub fn begin(&self, key: u64) -> Option<u64> {
        let began = self.now();
        let mut writes = self.lock();
        if writes.len() >= WRITES_MAX {
            return None;
        }
        writes.push(Write { key, began, ended: NEVER, fate: Fate::InDoubt });
        Some(writes.len() as u64 - 1)
    }

    /// Notes how it ended.
    pub fn end(&self, number: u64, fate: Fate) {
        let ended = if fate == Fate::InDoubt { NEVER } else { self.now() };
        if let Some(write) = self.lock().get_mut(number as usize) {
            write.ended = ended;
            write.fate = fate;
        }
    }

    /// The value to write, of this size.
    pub fn value(number: u64, bytes: usize) -> Bytes {
        let bytes = bytes.max(VALUE_BYTES_MIN);
        let mut value = BytesMut::with_capacity(bytes);
        value.put_u64(number);
        // Filled with something that changes: a store that compresses gains nothing.
        let mut filler = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        while value.len() < bytes {
            filler = filler.rotate_left(23).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let left = (bytes - value.len()).min(8);
            value.put_slice(&filler.to_be_bytes()[..left]);
        }
        value.freeze()
    }

    /// For each key with an acknowledged write: when the newest of these began.
    pub fn acknowledged(&self) -> BTreeMap<u64, u64> {
        let mut newest = BTreeMap::new();
        for write in self.lock().iter().filter(|write| write.fate == Fate::Acknowledged) {
            let began = newest.entry(write.key).or_insert(write.began);
            *began = write.began.max(*began);
        }
        newest
    }

    /// Judges what a key holds when all is over; `newest` is its entry in [`Ledger::acknowledged`].
    pub fn judge(&self, key: u64, newest: u64, values: &[Bytes]) -> Result<(), Wrong> {
        let writes = self.lock();
        let (mut replaced, mut found) = (false, Vec::new());
        for value in values {
            let head = value.get(..VALUE_BYTES_MIN).and_then(|head| head.try_into().ok());
            let number = head.map(u64::from_be_bytes);
            let write = number.and_then(|number| writes.get(number as usize));
            let told = || write.map_or_else(|| format!("{number:?}"), |write| write.told(number));
            match write.filter(|write| write.key == key && write.fate != Fate::Refused) {
                Some(write) => replaced |= write.ended >= newest,
                None => return Err(Wrong::Phantom(told())),
            }
            found.push(told());
        }
        if replaced {
            return Ok(());
        }
        let is_missing = |write: &&Write| write.key == key && write.began == newest;
        let missing = writes.iter().find(is_missing).map(|write| write.told(None));
        Err(Wrong::Lost { missing: missing.unwrap_or_default(), found: found.join(", ") })
    }

    fn now(&self) -> Time {
        u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(NEVER - 1)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Write>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(ledger: &Ledger, fate: Fate) -> Bytes {
        let number = ledger.begin(7).unwrap();
        ledger.end(number, fate);
        Ledger::value(number, 20)
    }

    fn judged(ledger: &Ledger, values: &[&Bytes]) -> Result<(), Wrong> {
        let values: Vec<Bytes> = values.iter().map(|value| (*value).clone()).collect();
        ledger.judge(7, ledger.acknowledged()[&7], &values)
    }

    #[test]
    fn the_newest_acknowledged_value_or_what_may_have_replaced_it_is_right() {
        let ledger = Ledger::default();
        let old = written(&ledger, Fate::Acknowledged);
        let doubtful = written(&ledger, Fate::InDoubt);
        let slow = ledger.begin(7).unwrap();
        let new = written(&ledger, Fate::Acknowledged);
        ledger.end(slow, Fate::Acknowledged);
        assert_eq!(judged(&ledger, &[&new]), Ok(()));
        assert_eq!(judged(&ledger, &[&Ledger::value(slow, 20)]), Ok(()), "it ended later");
        assert_eq!(judged(&ledger, &[&doubtful]), Ok(()), "it may take effect at any time");
        assert_eq!(judged(&ledger, &[&old, &new]), Ok(()), "siblings are not judged here");
        for lost in [judged(&ledger, &[&old]), judged(&ledger, &[])] {
            assert!(matches!(lost, Err(Wrong::Lost { .. })), "{lost:?}");
        }
    }

    #[test]
    fn values_that_cannot_be_there_are_found() {
        let ledger = Ledger::default();
        let good = written(&ledger, Fate::Acknowledged);
        let refused = written(&ledger, Fate::Refused);
        let foreign = Ledger::value(ledger.begin(8).unwrap(), 20);
        for wrong in [refused, foreign, Ledger::value(99, 20), Bytes::from_static(b"short")] {
            let judged = judged(&ledger, &[&good, &wrong]);
            assert!(matches!(judged, Err(Wrong::Phantom(_))), "{wrong:?}: {judged:?}");
        }
    }

    #[test]
    fn values_have_their_size_and_differ() {
        assert_eq!(Ledger::value(1, 0).len(), VALUE_BYTES_MIN);
        assert_eq!(Ledger::value(1, 1_021).len(), 1_021);
        assert_ne!(Ledger::value(1, 64)[8..], Ledger::value(2, 64)[8..]);
    }
}
