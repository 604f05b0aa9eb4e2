//! What the committer is asked to do, and how it answers.

use tokio::sync::oneshot;
pub(crate) use triad_replica::address::Address;
use triad_replica::configuration::Epoch;
use triad_replica::context::Context;
use triad_replica::gc::{Garbage, VouchReply, VouchRequest};
use triad_replica::hash_tree::HashTree;
use triad_replica::member::Member;
use triad_replica::message::{PulledRecord, ShardReply, ShardRequest, Standing};
use triad_replica::record::{Basis, Change, Known, Record, Request, Updated};
use triad_replica::refusal::Refusal;
use triad_replica::start::Witnesses;
use triad_replica::store::{Batch, StoreError};
use triad_ring::ShardId;

use super::hints::HintOperation;
use super::mend::Replacement;
use super::wanted::Wanted;

/// Why a write was not done here.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The replica refuses; nothing happened.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The write came with a request id that the record knows; nothing happened.
    #[error("the request id is known here already")]
    Known(Known),
    /// The store failed: the process is about to end and nobody knows what is on the disk.
    #[error(transparent)]
    Store(StoreError),
}

/// The request that a write is remembered under.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remembered {
    pub(crate) request: Request,
    /// It is to be done although the record knows it: the coordinator has found out why.
    pub(crate) again: bool,
}

/// A record as the coordinator minted it, not durable yet.
#[derive(Debug)]
pub(crate) struct Minted {
    /// The whole record after the write, for the other replicas.
    pub(crate) record: Record,
    /// The dot, and what the client has seen now.
    pub(crate) updated: Updated,
    /// Tells when it is durable here.
    pub(crate) durable: oneshot::Receiver<Result<(), WriteError>>,
}

/// What a merge found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    /// This replica's context, if it held what the sent record did not cover.
    pub(crate) uncovered: Option<Context>,
}

/// Steps of this store's own copying, decided outside and made durable here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Milestone {
    /// Copied by the plan of this epoch.
    Merged(Epoch),
    /// Nobody needs this store's records any more, as of this epoch: they go.
    Purge(Epoch),
    /// Nobody waits for this learner's copy any more.
    StopLearning,
}

/// One thing for the committer. Epochs are checked when it is committed, in order (D2).
pub(crate) enum Operation {
    /// A client's write: mint, store.
    Update {
        at: Address,
        epoch: Epoch,
        change: Change,
        basis: Basis,
        request: Option<Remembered>,
        wanted: Wanted,
        minted: oneshot::Sender<Result<Minted, WriteError>>,
    },
    /// A record from a coordinator.
    Merge {
        at: Address,
        epoch: Epoch,
        /// The epoch in which the record was made: this one, or an earlier one.
        stamp: Epoch,
        record: Record,
        wanted: Wanted,
        merged: oneshot::Sender<Result<Merged, WriteError>>,
    },
    /// Records from another store, copied by this one or pushed by a retired member.
    Adopt {
        shard: ShardId,
        epoch: Epoch,
        from: Adoption,
        records: Vec<PulledRecord>,
        adopted: oneshot::Sender<Result<(), WriteError>>,
    },
    /// A damaged row is to be replaced.
    Mend { at: Address, replacement: Replacement, done: oneshot::Sender<Result<(), WriteError>> },
    /// A step of deciding a configuration.
    Shard {
        request: ShardRequest,
        /// Of the members that the request would remove as down, those seen alive from here.
        alive: Vec<Member>,
        reply: oneshot::Sender<Result<ShardReply, WriteError>>,
    },
    /// Does this store hold these tombstones? Then the answer is durable.
    Vouch { request: VouchRequest, vouched: oneshot::Sender<Result<VouchReply, WriteError>> },
    /// A step of this store's own copying.
    Milestone {
        shard: ShardId,
        milestone: Milestone,
        done: oneshot::Sender<Result<bool, WriteError>>,
    },
    /// The shard's hash tree and where the store stands with it.
    /// None: it must be built first.
    Tree { shard: ShardId, tree: oneshot::Sender<Result<Option<(Standing, HashTree)>, WriteError>> },
    /// Something about hints.
    Hint(HintOperation),
    /// Who has recorded this start of the store.
    Witness { witnesses: Witnesses, done: oneshot::Sender<Result<(), WriteError>> },
    /// Rows of the node itself.
    Meta { batch: Batch, done: oneshot::Sender<Result<(), WriteError>> },
}

/// How records come to be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adoption {
    /// This store pulls them from one whose data epoch was this before it read them.
    Pulled { source: Option<Epoch> },
    /// A retired member pushes them.
    Pushed(Member),
}

impl Operation {
    /// Bytes the operation brings, roughly: what the queue's bound counts.
    pub(crate) fn bytes(&self) -> usize {
        const FIXED: usize = 256;
        FIXED
            + match self {
                Self::Update { at, change: Change::Put { value, .. }, .. } => {
                    at.key.len() + value.len()
                }
                Self::Update { at, .. } => at.key.len(),
                Self::Merge { at, record, .. } => at.key.len() + record_bytes(record),
                Self::Adopt { records, .. } => {
                    records.iter().map(|row| row.key.len() + row.record.len()).sum()
                }
                Self::Mend { at, replacement, .. } => match replacement {
                    Replacement::Record(_, record) => at.key.len() + record_bytes(record),
                    Replacement::Nothing => at.key.len(),
                },
                Self::Vouch { request, .. } => request.garbage.iter().map(Garbage::bytes).sum(),
                Self::Shard { .. }
                | Self::Milestone { .. }
                | Self::Tree { .. }
                | Self::Witness { .. } => 0,
                Self::Hint(hint) => hint.bytes(),
                Self::Meta { batch, .. } => batch.bytes(),
            }
    }

    /// Whether it decides or records something about a shard, rather than writing keys.
    pub(crate) fn is_control(&self) -> bool {
        matches!(
            self,
            Self::Shard { .. }
                | Self::Milestone { .. }
                | Self::Tree { .. }
                | Self::Witness { .. }
                | Self::Meta { .. }
        )
    }

    /// Until when it is worth doing, and how it ranks among others.
    pub(super) fn wanted(&self) -> Wanted {
        match self {
            Self::Update { wanted, .. } | Self::Merge { wanted, .. } => wanted.clone(),
            Self::Hint(hint) => hint.wanted(),
            Self::Mend { .. } => Wanted::in_background(),
            Self::Adopt { .. }
            | Self::Shard { .. }
            | Self::Vouch { .. }
            | Self::Milestone { .. }
            | Self::Tree { .. }
            | Self::Witness { .. }
            | Self::Meta { .. } => Wanted::always(),
        }
    }

    /// Answers an operation that found no room in the queue.
    pub(crate) fn overloaded(self) {
        self.fail(&WriteError::Refused(Refusal::Overloaded));
    }

    /// Answers with an error. A caller that has gone is no concern of ours.
    pub(crate) fn fail(self, error: &WriteError) {
        let error = error.clone();
        match self {
            Self::Update { minted, .. } => drop(minted.send(Err(error))),
            Self::Merge { merged, .. } => drop(merged.send(Err(error))),
            Self::Adopt { adopted, .. } => drop(adopted.send(Err(error))),
            Self::Shard { reply, .. } => drop(reply.send(Err(error))),
            Self::Vouch { vouched, .. } => drop(vouched.send(Err(error))),
            Self::Milestone { done, .. } => drop(done.send(Err(error))),
            Self::Tree { tree, .. } => drop(tree.send(Err(error))),
            Self::Hint(hint) => hint.fail(error),
            Self::Mend { done, .. } | Self::Witness { done, .. } | Self::Meta { done, .. } => {
                drop(done.send(Err(error)));
            }
        }
    }
}

fn record_bytes(record: &Record) -> usize {
    record.siblings().values().map(|sibling| sibling.value.len()).sum()
}
