//! Anti-entropy: two members of a stable shard find out what differs, key by key.
//!
//! ```text
//! 1 digest of all shared shards' roots ── equal: done, whatever the number of shards
//! 2 roots, shard by shard              ── differing shards, of the same epoch
//! 3 trees, leaf by leaf, twice         ── leaves that differ for longer than a write travels
//! 4 rows of these leaves, by range     ── differing keys
//! 5 each key: read both, merge both    ── by ordinary reads and merges, in that epoch
//! ```
//!
//! Nothing here moves a record. Step 5 is what a read does with a replica that it finds
//! behind, so every rule of reads and merges holds: a receiver serves only its own epoch, so
//! nothing that was collected can come back (design rule D7).

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use triad_ring::ShardId;

use crate::configuration::Epoch;
use crate::message::{ListedRow, PageCursor};
use crate::store::Key;

/// One shard as one member has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ShardRoot {
    /// The shard.
    pub shard: ShardId,
    /// The epoch that the member serves.
    pub epoch: Epoch,
    /// The root of its hash tree.
    pub root: u128,
}

/// A number that two members share only if they have the same shards in the same epochs with
/// the same roots. The roots are in the order of shards.
pub fn digest(roots: &[ShardRoot]) -> u128 {
    let mut hash = Sha256::new();
    for ShardRoot { shard, epoch, root } in roots {
        hash.update(shard.get().to_be_bytes());
        hash.update(epoch.lineage.to_be_bytes());
        hash.update(epoch.number.to_be_bytes());
        hash.update(root.to_be_bytes());
    }
    let whole: [u8; 32] = hash.finalize().into();
    whole[..16].iter().fold(0, |value, byte| (value << 8) | u128::from(*byte))
}

/// Which shards both have in the same epoch, but not with the same root; and which of `own`
/// cannot be compared, for the other has them in another epoch or not at all yet.
pub fn differing_shards(own: &[ShardRoot], theirs: &[ShardRoot]) -> Differing {
    let theirs: BTreeMap<ShardId, &ShardRoot> =
        theirs.iter().map(|root| (root.shard, root)).collect();
    let mut found = Differing::default();
    for root in own {
        match theirs.get(&root.shard) {
            Some(other) if other.epoch != root.epoch => found.unknown.push(root.shard),
            Some(other) if other.root != root.root => found.different.push(*root),
            Some(_) => {}
            None => found.unknown.push(root.shard),
        }
    }
    found
}

/// What [`differing_shards`] found.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Differing {
    /// Shards that differ, as this member has them.
    pub different: Vec<ShardRoot>,
    /// Shards that cannot be compared now.
    pub unknown: Vec<ShardId>,
}

/// The rows of some leaves in a part of a shard, at one member.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Listing {
    /// The rows, in the order of stored keys.
    pub rows: Vec<ListedRow>,
    /// The stored key at which it ended; none when the shard did.
    pub end: Option<PageCursor>,
}

/// The keys at which two listings that begin at the same place differ, as far as both reach;
/// and from where to compare on, none when both reached the shard's end.
pub fn differing_keys(
    shard: ShardId,
    own: Listing,
    theirs: Listing,
) -> (Vec<(String, Bytes)>, Option<PageCursor>) {
    let reach = match (own.end, theirs.end) {
        (Some(own), Some(theirs)) => Some(own.min(theirs)),
        (own, theirs) => own.or(theirs),
    };
    let within = |row: &ListedRow| {
        let stored = Key::Record { shard, bucket: &row.bucket, key: &row.key }.encode();
        reach.as_ref().is_none_or(|reach| stored <= reach.0)
    };
    let mut differing: BTreeMap<(String, Bytes), Option<u128>> = BTreeMap::new();
    for row in own.rows.into_iter().filter(|row| within(row)) {
        differing.insert((row.bucket, row.key), row.hash);
    }
    for row in theirs.rows.into_iter().filter(|row| within(row)) {
        let key = (row.bucket, row.key);
        // A row that cannot be read equals nothing, not even another that cannot.
        if row.hash.is_some() && differing.get(&key) == Some(&row.hash) {
            differing.remove(&key);
        } else {
            differing.entry(key).or_insert(None);
        }
    }
    (differing.into_keys().collect(), reach)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHARD: ShardId = ShardId::new(3);

    fn root(shard: u32, number: u64, root: u128) -> ShardRoot {
        ShardRoot { shard: ShardId::new(shard), epoch: Epoch { lineage: 1, number }, root }
    }

    #[test]
    fn the_digest_names_shards_epochs_and_roots() {
        let all = [root(1, 1, 7), root(2, 1, 8)];
        assert_eq!(digest(&all), digest(&all));
        for other in [
            vec![root(1, 1, 7)],
            vec![root(1, 1, 7), root(2, 2, 8)],
            vec![root(1, 1, 7), root(3, 1, 8)],
            vec![root(1, 1, 8), root(2, 1, 7)],
        ] {
            assert_ne!(digest(&all), digest(&other), "{other:?}");
        }
    }

    #[test]
    fn only_shards_of_the_same_epoch_are_compared() {
        let own = [root(1, 1, 7), root(2, 5, 7), root(3, 1, 7), root(4, 1, 7)];
        let theirs = [root(1, 1, 7), root(2, 6, 8), root(3, 1, 8), root(9, 1, 1)];
        let found = differing_shards(&own, &theirs);
        assert_eq!(found.different, [own[2]]);
        assert_eq!(found.unknown, [ShardId::new(2), ShardId::new(4)]);
    }

    type Rows = BTreeMap<(u8, u8), Option<u128>>;

    fn bucket(number: u8) -> String {
        // The order of stored keys is not that of the names' lengths.
        ["a", "a.b", "ab", "b"][usize::from(number) % 4].to_owned()
    }

    fn listing(rows: &Rows, after: Option<&PageCursor>, most: usize) -> Listing {
        let mut stored: BTreeMap<Bytes, ListedRow> = BTreeMap::new();
        for ((in_bucket, key), hash) in rows {
            let (bucket, key) = (bucket(*in_bucket), Bytes::from(vec![*key]));
            let row = Key::Record { shard: SHARD, bucket: &bucket, key: &key }.encode();
            stored.insert(row, ListedRow { bucket, key, hash: *hash });
        }
        let mut rest =
            stored.into_iter().filter(|(row, _)| after.is_none_or(|after| *row > after.0));
        let page: Vec<(Bytes, ListedRow)> = rest.by_ref().take(most).collect();
        let more = rest.next().is_some();
        let end = page.last().filter(|_| more).map(|(row, _)| PageCursor(row.clone()));
        Listing { rows: page.into_iter().map(|(_, row)| row).collect(), end }
    }

    fn rows() -> impl Strategy<Value = Rows> {
        let hash = prop_oneof![1 => Just(None), 8 => (0..3_u128).prop_map(Some)];
        prop::collection::btree_map((0..4_u8, 0..12_u8), hash, 0..30)
    }

    proptest! {
        #[test]
        fn page_by_page_every_differing_key_is_found_once_and_no_other(
            own in rows(),
            theirs in rows(),
            pages in prop::collection::vec((1..6_usize, 1..6_usize), 1..8),
        ) {
            let mut found = Vec::new();
            let mut after: Option<PageCursor> = None;
            for (most_own, most_theirs) in pages.iter().cycle() {
                let (keys, next) = differing_keys(
                    SHARD,
                    listing(&own, after.as_ref(), *most_own),
                    listing(&theirs, after.as_ref(), *most_theirs),
                );
                found.extend(keys);
                prop_assert!(next.is_none() || next > after, "it goes on");
                after = next;
                if after.is_none() {
                    break;
                }
            }
            let all = own.keys().chain(theirs.keys());
            let mut wanted: Vec<(String, Bytes)> = all
                .filter(|key| match (own.get(key), theirs.get(key)) {
                    (Some(Some(own)), Some(Some(theirs))) => own != theirs,
                    _ => true,
                })
                .map(|(in_bucket, key)| (bucket(*in_bucket), Bytes::from(vec![*key])))
                .collect();
            wanted.sort();
            wanted.dedup();
            found.sort();
            prop_assert_eq!(found, wanted);
        }
    }
}
