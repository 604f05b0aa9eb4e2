//! Who holds data: stores, members and the actors that mint dots.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use triad_ring::{NodeId, ShardId};

use crate::configuration::Epoch;

/// The identity of one set of data files. A wiped or copied disk gets a new one,
/// so that it can never vote as the store it once was (design rule D6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId([u8; 16]);

impl StoreId {
    /// Wraps 16 random bytes, drawn once when the store is created.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes as stored and sent.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

/// A text that is not the 32 hex digits of a store id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a store id is 32 hex digits, not `{0}`")]
pub struct BadStoreId(String);

impl FromStr for StoreId {
    type Err = BadStoreId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A node id has the same shape: one parser serves both.
        let node: NodeId = text.parse().map_err(|_| BadStoreId(text.to_owned()))?;
        Ok(Self(*node.as_bytes()))
    }
}

/// A node together with the store that votes: the unit of every quorum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its store at the time the configuration was decided.
    pub store: StoreId,
}

/// Random bytes drawn once per process start.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StartNonce(pub [u8; 16]);

/// Who mints dots: one tenure of one shard by one process start (design rule D5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorId(u64);

impl ActorId {
    /// Wraps a raw id, as read from a stored or received record.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw id as stored and sent.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The actor of one tenure: a hash of the start nonce, the shard, the epoch of entry
    /// and how often this process forgot (part of) the shard before.
    pub fn of_tenure(nonce: StartNonce, shard: ShardId, entered: Epoch, forgotten: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(nonce.0);
        hash.update(shard.get().to_be_bytes());
        hash.update(entered.lineage.to_be_bytes());
        hash.update(entered.number.to_be_bytes());
        hash.update(forgotten.to_be_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self(u64::from_be_bytes(first))
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorId({self})")
    }
}
