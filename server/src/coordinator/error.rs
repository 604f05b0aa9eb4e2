//! Why a client's request failed, in the words of design §9.

use std::fmt;
use std::time::Duration;

use triad_proto::convert::BadField;
use triad_replica::configuration::Epoch;
use triad_replica::consistency::Level;
use triad_ring::ShardId;

use super::Answered;

/// How far a request came before it failed: enough for the message to stand alone.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub(crate) level: Level,
    pub(crate) needed: u32,
    pub(crate) acknowledged: u32,
    pub(crate) replicas: Vec<Answered>,
    pub(crate) shard: ShardId,
    pub(crate) epoch: Option<Epoch>,
}

impl Progress {
    /// `node1=ok,node2=timeout`: the form of the `replicas` metadata.
    pub(crate) fn replicas_text(&self) -> String {
        let words: Vec<String> = self.replicas.iter().map(ToString::to_string).collect();
        words.join(",")
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, needed, acknowledged, shard, .. } = self;
        write!(
            f,
            "{level} needs {needed} replica(s) of shard {shard} and {acknowledged} answered"
        )?;
        if self.replicas.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.replicas_text())
    }
}

/// What the client of a request that broke off can do.
fn told(write: bool) -> &'static str {
    if write {
        "the write may or may not take effect, read the key to find out"
    } else {
        "ask again"
    }
}

/// The outcome of a request that was not answered with data.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The request itself is wrong.
    #[error(transparent)]
    BadRequest(#[from] BadField),
    /// The bucket's mode is not built yet.
    #[error(
        "bucket `{bucket}` asks for the {mode} mode, which this version does not serve; use a bucket without the `{prefix}` prefix"
    )]
    UnsupportedMode { bucket: String, mode: &'static str, prefix: &'static str },
    /// Another write came with the same request id.
    #[error(
        "`request_id` named another write of this key before: give each write an id of its own, and repeat one only \
         with the same value"
    )]
    RequestIdReused,
    /// A request field that a later version will serve.
    #[error("`{field}` is not served by this version: leave it out")]
    UnsupportedField { field: &'static str },
    /// Too few replicas are alive; nothing was written.
    #[error(
        "quorum not met, nothing was written: {0}; try again when the missing nodes are back, or ask with a lower level"
    )]
    QuorumNotMet(Progress),
    /// Too few replicas could answer a read.
    #[error(
        "quorum not met: {0}; try again when the missing nodes are back, or ask with a lower level"
    )]
    ReadQuorumNotMet(Progress),
    /// The write was sent, too few replicas answered: it may or may not take.
    #[error("write in doubt: {0}; it may or may not take effect, read the key to find out")]
    WriteInDoubt(Progress),
    /// The same, at the deadline.
    #[error(
        "write in doubt after {waited:?}: {progress}; it may or may not take effect, read the key to find out"
    )]
    WriteInDoubtAtDeadline { progress: Progress, waited: Duration },
    /// A read found too few answers before the deadline.
    #[error("deadline of {waited:?} exceeded: {progress}")]
    DeadlineExceeded { progress: Progress, waited: Duration },
    /// The time was over before any replica could be asked.
    #[error("deadline of {waited:?} exceeded before shard {shard} could be reached")]
    Late { shard: ShardId, waited: Duration },
    /// No configuration of the shard could be found.
    #[error("no node that knows who holds shard {shard} could be reached; check `triad status`")]
    NotLocated { shard: ShardId },
    /// This node's store has failed under the request.
    #[error("the store of node {node} has failed and the node is ending ({why}); {}", told(*.write))]
    StoreFailed { node: String, why: String, write: bool },
    /// The request has not ended in time.
    #[error("no answer within {waited:?}; {}", told(*.write))]
    Overdue { waited: Duration, write: bool },
    /// This node takes nothing more.
    #[error("node {node} is shutting down, nothing was done: ask another node")]
    ShuttingDown { node: String },
    /// This node is in no cluster yet.
    #[error("node {node} has not joined a cluster yet: {why}")]
    NotJoined { node: String, why: String },
    /// The node has as much work as it may hold.
    #[error("node {node} is overloaded, nothing was done: {why}; try again in {retry_after:?}")]
    Overloaded { node: String, why: String, limit: Option<&'static str>, retry_after: Duration },
    /// A replica is out of space: writes are refused before any effect.
    #[error("no space left for writes: {0}; delete data or give the named nodes more disk")]
    NoSpace(Progress),
    /// A node that would have to stand in for a member has no room for hints.
    #[error(
        "no space left for hints, nothing was written: {0}; bring the named nodes back, or raise storage.hint_bytes"
    )]
    HintsFull(Progress),
    /// The key has as many siblings as it may have.
    #[error(
        "key has {size} siblings, the limit is {limit}: read it and write with the returned context"
    )]
    SiblingLimit { size: usize, limit: usize },
    /// The key's context is full.
    #[error(
        "context of the key has {size} entries, the limit is {limit}: write with the context of a fresh read"
    )]
    ContextLimit { size: usize, limit: usize },
    /// The stored bytes of the key are damaged on the replicas that were asked.
    #[error("stored data of the key is damaged: {0}")]
    Damaged(Progress),
    /// Another node ran the request; this is its answer, word for word.
    #[error("{}", .0.message())]
    Forwarded(tonic::Status),
}
