//! Shards: the circle cut into Q equal parts (design §2, point 2; Dynamo §6.2, strategy 3).
//!
//! With k = 128 − log2 Q, shard i is (i·2^k − 1, (i+1)·2^k − 1], so its number is the top log2 Q
//! bits of any identifier in it. Shards never split or merge.

use std::fmt;

use thiserror::Error;

use crate::id::{RING_BITS, RingId, RingRange};

/// One of Q equal parts of the circle, numbered clockwise from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u32);

impl ShardId {
    /// The shard with this number. Whether a cluster has it, its [`ShardCount`] says.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How many shards a cluster has: a power of two in 1..=65,536, fixed when the cluster is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShardCount(u32);

/// A number of shards that no cluster can have. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{count} shards: the number must be a power of two from 1 to {}", ShardCount::MAX)]
pub struct BadShardCount {
    /// The number asked for.
    pub count: u32,
}

impl ShardCount {
    /// The greatest number of shards.
    pub const MAX: u32 = 65_536;

    /// Q = `count`.
    pub const fn try_new(count: u32) -> Result<Self, BadShardCount> {
        if count.is_power_of_two() && count <= Self::MAX {
            Ok(Self(count))
        } else {
            Err(BadShardCount { count })
        }
    }

    /// Q.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The shard that holds an identifier.
    pub const fn shard_of(self, id: RingId) -> ShardId {
        match id.get().checked_shr(self.low_bits()) {
            Some(top) => ShardId(top as u32),
            None => ShardId(0),
        }
    }

    /// Whether the cluster has this shard.
    pub const fn has(self, shard: ShardId) -> bool {
        shard.0 < self.0
    }

    /// The shard's part of the circle. Numbers of Q and above wrap round.
    pub const fn range(self, shard: ShardId) -> RingRange {
        let before = ShardId(shard.0.wrapping_sub(1));
        RingRange { start: self.end(before), end: self.end(shard) }
    }

    /// The last identifier of the shard: its ideal members are counted clockwise from here.
    pub const fn end(self, shard: ShardId) -> RingId {
        let next = (shard.0 as u128).wrapping_add(1);
        let start_of_next = match next.checked_shl(self.low_bits()) {
            Some(start) => start,
            None => 0,
        };
        RingId::new(start_of_next.wrapping_sub(1))
    }

    /// All shards, clockwise from 0.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        (0..self.0).map(ShardId)
    }

    /// k = 128 − log2 Q.
    const fn low_bits(self) -> u32 {
        RING_BITS - self.0.trailing_zeros()
    }
}

impl Default for ShardCount {
    fn default() -> Self {
        Self(1_024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two_up_to_the_limit_are_counts() {
        for good in [1, 2, 1_024, 65_536] {
            assert_eq!(ShardCount::try_new(good).map(ShardCount::get), Ok(good));
        }
        for bad in [0, 3, 1_000, 131_072] {
            let error = ShardCount::try_new(bad).expect_err("not a count");
            assert!(error.to_string().starts_with(&format!("{bad} shards")));
        }
    }

    #[test]
    fn a_shard_is_the_top_bits_and_its_range_agrees() {
        for count in [1, 2, 8, 1_024, 65_536] {
            let count = ShardCount::try_new(count).expect("a power of two");
            for shard in count.iter() {
                let range = count.range(shard);
                assert_eq!(count.shard_of(range.end), shard);
                let first = RingId::new(range.start.get().wrapping_add(1));
                assert_eq!(count.shard_of(first), shard);
                assert!(range.contains(first) && range.contains(range.end));
                assert_eq!(count.get() == 1, range.contains(range.start));
            }
        }
    }

    #[test]
    fn the_last_shard_ends_where_the_circle_does() {
        let count = ShardCount::default();
        assert_eq!(count.end(ShardId::new(1_023)), RingId::new(u128::MAX));
        assert_eq!(count.range(ShardId::new(0)).start, RingId::new(u128::MAX));
        assert!(count.has(ShardId::new(1_023)) && !count.has(ShardId::new(1_024)));
    }
}
