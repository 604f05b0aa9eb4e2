//! A shard's hash tree: what two stores compare to find out which keys differ.
//!
//! A tree has 256 leaves; a key belongs to the leaf of the 8 identifier bits after the
//! shard's. A leaf is the sum, modulo 2^128, of a hash of each of its keys and their record's
//! digest, so a write changes it by two additions, whatever else it holds and in whatever
//! order keys came (an additive multiset hash: Bellare and Micciancio, *A New Paradigm for
//! Collision-Free Hashing*, EUROCRYPT 1997; the tree of Merkle, cut to the two levels that a
//! shard of some thousand keys needs).
//!
//! A false difference costs a comparison. A false equality would hide a lost write: the sums
//! are over 128 bits of SHA-256, and who can choose keys to collide owns those keys.

use sha2::{Digest, Sha256};
use triad_ring::{RingId, ShardCount};

use crate::record::{Record, RecordDigest};

mod building;

pub use building::{Building, Slice, SliceRow};

/// How many leaves a tree has.
pub const LEAVES: usize = 256;

/// What a key and its record add to their leaf. A key never written adds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LeafHash(pub u128);

impl LeafHash {
    /// The hash of one row.
    pub fn of(bucket: &str, key: &[u8], record: &Record) -> Self {
        if record.is_absent() {
            return Self::default();
        }
        Self::of_digest(bucket, key, record.digest())
    }

    fn of_digest(bucket: &str, key: &[u8], digest: RecordDigest) -> Self {
        let mut hash = Sha256::new();
        for part in [bucket.as_bytes(), key] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(digest.0);
        let whole: [u8; 32] = hash.finalize().into();
        Self(first_u128(&whole))
    }
}

/// The hash over all leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Root(pub [u8; 16]);

/// The leaves of one shard at one store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HashTree {
    leaves: Box<[u128; LEAVES]>,
}

impl Default for HashTree {
    fn default() -> Self {
        Self::new()
    }
}

impl HashTree {
    /// The tree of an empty shard.
    pub fn new() -> Self {
        Self { leaves: Box::new([0; LEAVES]) }
    }

    /// A tree as another store sent it; `None` unless there is one number for each leaf.
    pub fn from_leaves(leaves: Vec<u128>) -> Option<Self> {
        let leaves = leaves.into_boxed_slice().try_into().ok()?;
        Some(Self { leaves })
    }

    /// The leaves, in order.
    pub fn leaves(&self) -> &[u128; LEAVES] {
        &self.leaves
    }

    /// The leaf of a key: the 8 bits of its identifier after those that name its shard.
    pub fn leaf_of(id: RingId, shards: ShardCount) -> u8 {
        let shard_bits = shards.get().ilog2();
        (id.get() << shard_bits >> (u128::BITS - 8)) as u8
    }

    /// Replaces a row's share of its leaf; both hashes are of the same key.
    pub fn replace(&mut self, leaf: u8, before: LeafHash, after: LeafHash) {
        let sum = &mut self.leaves[usize::from(leaf)];
        *sum = sum.wrapping_sub(before.0).wrapping_add(after.0);
    }

    /// The hash over all leaves: equal roots, equal content.
    pub fn root(&self) -> Root {
        let mut hash = Sha256::new();
        for leaf in self.leaves.iter() {
            hash.update(leaf.to_be_bytes());
        }
        let whole: [u8; 32] = hash.finalize().into();
        Root(first_u128(&whole).to_be_bytes())
    }

    /// The numbers of the leaves in which the two differ, in order.
    pub fn diff(&self, other: &HashTree) -> Vec<u8> {
        (0..=u8::MAX)
            .filter(|leaf| {
                let leaf = usize::from(*leaf);
                self.leaves[leaf] != other.leaves[leaf]
            })
            .collect()
    }
}

fn first_u128(digest: &[u8; 32]) -> u128 {
    digest[..16].iter().fold(0, |value, byte| (value << 8) | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::ActorId;
    use crate::record::{Basis, Change, Limits};
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const SHARDS: ShardCount = match ShardCount::try_new(4) {
        Ok(shards) => shards,
        Err(_) => panic!("4 is a power of two"),
    };

    fn leaf(key: &str) -> u8 {
        HashTree::leaf_of(RingId::of_key("b", key.as_bytes()), SHARDS)
    }

    fn next(record: &Record, value: u8) -> Record {
        let mut record = record.clone();
        let value = Bytes::from(vec![value]);
        let change = Change::Put { value, expires_at: None };
        let actor = ActorId::new(1);
        record.update(actor, change, Basis::Overwrite, &Limits::default()).unwrap();
        record
    }

    fn built(rows: &BTreeMap<String, Record>) -> HashTree {
        let mut tree = HashTree::new();
        for (key, record) in rows {
            let after = LeafHash::of("b", key.as_bytes(), record);
            tree.replace(leaf(key), LeafHash::default(), after);
        }
        tree
    }

    #[test]
    fn a_leaf_is_the_eight_bits_after_the_shards() {
        let id = RingId::new(0b10_1100_1111_u128 << 118);
        assert_eq!(HashTree::leaf_of(id, SHARDS), 0b1100_1111);
        let one = ShardCount::try_new(1).unwrap();
        assert_eq!(HashTree::leaf_of(id, one), 0b1011_0011);
        let most = ShardCount::try_new(ShardCount::MAX).unwrap();
        assert_eq!(HashTree::leaf_of(RingId::new(0xab << 104), most), 0xab);
    }

    #[test]
    fn bucket_and_key_do_not_run_into_each_other() {
        let record = next(&Record::default(), 1);
        assert_ne!(LeafHash::of("ab", b"c", &record), LeafHash::of("a", b"bc", &record));
    }

    #[test]
    fn a_tree_from_elsewhere_has_256_leaves() {
        assert_eq!(HashTree::from_leaves(vec![0; 255]), None);
        assert_eq!(HashTree::from_leaves(vec![0; 256]), Some(HashTree::new()));
    }

    proptest! {
        #[test]
        fn kept_up_to_date_it_equals_the_tree_built_anew(
            writes in prop::collection::vec((0..6_u8, any::<u8>()), 0..30),
        ) {
            let mut rows: BTreeMap<String, Record> = BTreeMap::new();
            let mut tree = HashTree::new();
            for (key, value) in writes {
                let key = format!("key {key}");
                let before = rows.get(&key).cloned().unwrap_or_default();
                let after = next(&before, value);
                let hash = |record| LeafHash::of("b", key.as_bytes(), record);
                tree.replace(leaf(&key), hash(&before), hash(&after));
                rows.insert(key, after);
            }
            prop_assert_eq!(&tree, &built(&rows));
            prop_assert_eq!(tree.root(), built(&rows).root());
            prop_assert!(tree.diff(&built(&rows)).is_empty());
        }

        #[test]
        fn it_points_at_the_leaves_of_the_keys_that_differ(
            same in prop::collection::btree_set(0..40_u8, 0..20),
            changed in prop::collection::btree_set(40..60_u8, 0..5),
        ) {
            let row = |key: &u8, value| (format!("key {key}"), next(&Record::default(), value));
            let here: BTreeMap<_, _> = same.iter().chain(&changed).map(|k| row(k, 1)).collect();
            let mut there = here.clone();
            there.extend(changed.iter().map(|key| row(key, 2)));
            let mut leaves: Vec<u8> = changed.iter().map(|key| leaf(&format!("key {key}"))).collect();
            leaves.sort_unstable();
            leaves.dedup();
            prop_assert_eq!(built(&here).diff(&built(&there)), leaves);
            let equal = built(&here).root() == built(&there).root();
            prop_assert_eq!(equal, changed.is_empty());
        }
    }
}
