//! Where a record belongs.

use bytes::Bytes;
use triad_ring::ShardId;

/// A key with its bucket and shard. Ordered as records are stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The shard that the key belongs to.
    pub shard: ShardId,
    /// The bucket's name; never empty.
    pub bucket: String,
    /// The key as the client gave it.
    pub key: Bytes,
}
