//! Reading stored rows for no other reason than to see whether they can still be read.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use triad_replica::hint::HeldRecord;
use triad_replica::record::Record;
use triad_replica::store::{Key, KeyRange, Store, StoreError};

use super::damage::Damage;
use super::{LocalReplica, WriteError};
use crate::data_dir::LossReason;

/// What is read at once: so many rows or bytes, but for a single row that has more.
const ROWS: usize = 1_024;
const BYTES: usize = 1 << 20;

/// A slice of the store as read.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    /// Rows that were read, the damaged ones included.
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Rows that cannot be read.
    pub(crate) damaged: Vec<Bytes>,
    /// Behind which row to go on; none at the end of the store.
    pub(crate) next: Option<Bytes>,
}

impl Verified {
    fn saw(&mut self, row: Bytes, bytes: usize, good: bool) -> ControlFlow<()> {
        self.rows += 1;
        self.bytes += (row.len() + bytes) as u64;
        if !good {
            self.damaged.push(row.clone());
        }
        self.next = Some(row);
        let full = self.rows >= ROWS as u64 || self.bytes >= BYTES as u64;
        if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl LocalReplica {
    /// Reads rows of the store, with the chunks of large values, beginning behind `after`, on a thread
    /// that may block. What is damaged is reported: records to be mended; and rows on which
    /// votes rest make the store one that must not be trusted.
    pub(crate) async fn verify(&self, after: Option<Bytes>) -> Result<Verified, WriteError> {
        let store = Arc::clone(&self.store);
        let read = self.work.run(move || read(&*store, after));
        let verified = read.await.unwrap_or_else(|panic| {
            Err(StoreError::Engine(format!("the scrub panicked: {panic}")))
        });
        let verified = verified.inspect_err(|error| self.damage.unreadable(error))?;
        verified.damaged.iter().for_each(|row| report(&self.damage, row));
        Ok(verified)
    }
}

fn read(store: &dyn Store, mut after: Option<Bytes>) -> Result<Verified, StoreError> {
    let mut verified = Verified::default();
    loop {
        let mut full = false;
        let scanned = store.scan(&KeyRange::all(), after.as_deref(), &mut |row, value| {
            let bytes = value.len();
            let flow = verified.saw(Bytes::copy_from_slice(row), bytes, is_good(row, value));
            full = flow.is_break();
            flow
        });
        match scanned {
            Ok(()) if full => return Ok(verified),
            Ok(()) => {
                verified.next = None;
                return Ok(verified);
            }
            Err(StoreError::Damaged { key, .. }) => {
                if verified.saw(key.clone(), 0, false).is_break() {
                    return Ok(verified);
                }
                after = Some(key);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether what lies in a row, which the store found whole, is what it should be.
fn is_good(row: &[u8], value: Bytes) -> bool {
    match Key::decode(row) {
        Some(Key::Record { .. }) => Record::decode(value).is_ok(),
        Some(Key::Held { .. }) => HeldRecord::decode(value).is_ok(),
        Some(_) => true,
        None => false,
    }
}

fn report(damage: &Damage, row: &Bytes) {
    match Key::decode(row) {
        Some(Key::Record { .. }) | None => damage.found(row),
        _ if KeyRange::control().iter().any(|range| range.contains(row)) => {
            let why = "a row on which its votes rest is damaged".to_owned();
            damage.give_up(LossReason::Damaged, why);
        }
        // Hints are told when they are to be delivered; marks and contacts are written anew one day.
        Some(_) => {}
    }
}
