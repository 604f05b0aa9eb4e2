//! Why a replica did not do what it was asked.

use crate::configuration::Configuration;
use crate::record::UpdateError;

/// A replica's reason for not answering a read or a write. None of them is a success at any
/// level, and none leaves a partial effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request names another epoch than the one served here, or this member is fenced.
    #[error("this replica serves another epoch; the newest it knows is {}", newest.epoch)]
    StaleEpoch {
        /// The newest configuration known here; it may be older than the request's.
        newest: Configuration,
    },
    /// This store is not a member of the shard.
    #[error("this store is not a member of the shard")]
    NotMember {
        /// The newest configuration known here, if any.
        newest: Option<Configuration>,
    },
    /// A newcomer of a joint epoch: it takes writes but must not answer reads yet.
    #[error("this member is still learning the shard")]
    Learner,
    /// A member that has not merged the shard must not mint dots.
    #[error("this member has not merged the shard yet and cannot coordinate writes")]
    NotMerged,
    /// The store is out of space: writes are refused before any effect.
    #[error("the store is out of space")]
    NoSpace,
    /// The key's row failed its checksum: neither a value nor an absence.
    #[error("the stored row is damaged")]
    Damaged,
    /// The record was read in an epoch whose tombstones are gone: it might bring back what was
    /// deleted (design rules D7, D10).
    #[error("the record is from an epoch whose tombstones have been collected")]
    Collected,
    /// The node has no room for another hint that counts as an acknowledgement.
    #[error("the node has no room for hints (storage.hint_bytes)")]
    HintsFull,
    /// Too few members have recorded this start of the store yet: it may be a copy, or an old state
    /// (design rule D6).
    #[error("the start of this replica's store is not recorded by a majority of the members yet")]
    NotIntroduced,
    /// A queue is full.
    #[error("the replica is overloaded")]
    Overloaded,
    /// A causal put would leave too many siblings.
    #[error("the put would leave {siblings} siblings, the limit is {limit}")]
    SiblingLimit {
        /// How many there would be.
        siblings: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The write would add to a context that is full.
    #[error("the write would leave {entries} entries in the key's context, the limit is {limit}")]
    ContextLimit {
        /// How many there would be.
        entries: usize,
        /// How many there may be.
        limit: usize,
    },
}

impl From<UpdateError> for Refusal {
    fn from(error: UpdateError) -> Self {
        match error {
            UpdateError::SiblingLimit { siblings, limit } => Self::SiblingLimit { siblings, limit },
            UpdateError::ContextLimit { entries, limit } => Self::ContextLimit { entries, limit },
        }
    }
}
