//! Listing keys with the hashes of their records, for anti-entropy.

use std::ops::ControlFlow;

use bytes::Bytes;
use triad_replica::anti_entropy::Listing;
use triad_replica::hash_tree::{HashTree, LEAVES};
use triad_replica::message::{ListedRow, PageCursor};
use triad_replica::store::{Key, KeyRange, StoreError};
use triad_ring::{RingId, ShardId};

use super::trees::share;
use super::{LocalReplica, WriteError};

/// Rows of a listing.
const ROWS: usize = 2_048;
/// Bytes of their keys.
const KEY_BYTES: usize = 512 << 10;
/// Rows looked at for it, in whatever leaves, and their bytes.
const LOOKED_AT: usize = 16_384;
const BYTES: usize = 8 << 20;

impl LocalReplica {
    /// Lists rows of some leaves, beginning behind `after`. Reads the disk: for a thread that
    /// may block.
    pub(crate) fn list(
        &self,
        shard: ShardId,
        leaves: &[u8],
        after: Option<PageCursor>,
    ) -> Result<Listing, WriteError> {
        let mut page = Page::new(leaves);
        let mut after = after.map(|cursor| cursor.0);
        loop {
            let visited = self.store.scan(
                &KeyRange::shard_records(shard),
                after.as_deref(),
                &mut |row, value| self.look_at(&mut page, row, Some(value)),
            );
            match visited {
                Ok(()) if page.is_full() => return Ok(page.listing),
                Ok(()) => return Ok(Listing { end: None, ..page.listing }),
                Err(StoreError::Damaged { key, .. }) => {
                    self.damage.found(&key);
                    if self.look_at(&mut page, &key, None).is_break() {
                        return Ok(page.listing);
                    }
                    after = Some(key);
                }
                Err(error) => {
                    self.damage.unreadable(&error);
                    return Err(error.into());
                }
            }
        }
    }

    fn look_at(&self, page: &mut Page, row: &[u8], value: Option<Bytes>) -> ControlFlow<()> {
        page.looked_at += 1;
        page.bytes += value.as_ref().map_or(0, Bytes::len);
        if let Some(Key::Record { bucket, key, .. }) = Key::decode(row) {
            let leaf = HashTree::leaf_of(RingId::of_key(bucket, key), self.shard_count);
            if page.wanted[usize::from(leaf)] {
                let hash = value.and_then(|value| share(self.shard_count, row, value));
                page.key_bytes += bucket.len() + key.len();
                page.listing.rows.push(ListedRow {
                    bucket: bucket.to_owned(),
                    key: Bytes::copy_from_slice(key),
                    hash: hash.map(|(_, hash)| hash.0),
                });
            }
        }
        page.listing.end = Some(PageCursor(Bytes::copy_from_slice(row)));
        if page.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

struct Page {
    wanted: [bool; LEAVES],
    listing: Listing,
    key_bytes: usize,
    looked_at: usize,
    bytes: usize,
}

impl Page {
    fn new(leaves: &[u8]) -> Self {
        let mut wanted = [false; LEAVES];
        leaves.iter().for_each(|leaf| wanted[usize::from(*leaf)] = true);
        Self { wanted, listing: Listing::default(), key_bytes: 0, looked_at: 0, bytes: 0 }
    }

    fn is_full(&self) -> bool {
        self.listing.rows.len() >= ROWS
            || self.key_bytes >= KEY_BYTES
            || self.looked_at >= LOOKED_AT
            || self.bytes >= BYTES
    }
}
