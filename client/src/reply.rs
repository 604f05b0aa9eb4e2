//! What a request brings back, as types.

use std::time::Duration;

use bytes::Bytes;
use triad_proto::v1;
use triad_replica::configuration::Epoch;
use triad_replica::consistency::Level;

pub use triad_proto::v1::ReplicaResult;

use crate::options::level_of_wire;

/// What a reader or writer has seen of a key: opaque, made by the server, valid for that bucket and key alone.
///
/// Hand the context of a read to the write that follows it, and the write replaces exactly what was read; what
/// others wrote meanwhile stays beside it as a sibling.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Context(Bytes);

impl Context {
    /// A context that was kept elsewhere. A wrong one is found by the server (`BAD_CONTEXT`).
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes to keep.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// True for no context at all. A write with it is one without: it overwrites.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a key holds: none, one or several values.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Versioned {
    /// The values, sorted by dot: none for an absent key, one normally, several after concurrent writes.
    pub siblings: Vec<Sibling>,
    /// What the reader has now seen. A put or delete with it replaces all these siblings.
    pub context: Context,
    /// Who answered.
    pub outcome: Outcome,
}

impl Versioned {
    /// The key has a value.
    pub fn is_found(&self) -> bool {
        !self.siblings.is_empty()
    }

    /// Concurrent writes left more than one value: merge them and put the result with [`Versioned::context`].
    pub fn has_siblings(&self) -> bool {
        self.siblings.len() > 1
    }

    /// The value, if there is exactly one.
    pub fn value(&self) -> Option<&Bytes> {
        match self.siblings.as_slice() {
            [only] => Some(&only.value),
            _ => None,
        }
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &Bytes> {
        self.siblings.iter().map(|sibling| &sibling.value)
    }
}

/// One of the concurrent values of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sibling {
    /// The value.
    pub value: Bytes,
    /// The name of the write that made it, as `actor.counter`.
    pub dot: String,
    /// How long it still lives; none: for ever.
    pub ttl: Option<Duration>,
}

/// A value was written.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Written {
    /// What the writer has now seen: a put or delete with it replaces this value.
    pub context: Context,
    /// The name of this write, as `actor.counter`.
    pub dot: String,
    /// Who acknowledged.
    pub outcome: Outcome,
}

/// A key was deleted.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Deleted {
    /// What the deleter has now seen.
    pub context: Context,
    /// Who acknowledged.
    pub outcome: Outcome,
}

/// What a request met on its way.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// The level that was applied.
    pub level: Level,
    /// How many distinct replicas had to answer.
    pub needed: u32,
    /// How many had answered.
    pub acknowledged: u32,
    /// Every replica that was asked.
    pub replicas: Vec<ReplicaAnswer>,
    /// The answer carries the full promise of QUORUM or ALL.
    pub strict: bool,
    /// Only in `any.` buckets: fewer members answered than a strict bucket needs, and other nodes stood in for them.
    pub degraded: bool,
    /// How many of the acknowledgements came from members of the shard.
    pub home_acknowledged: u32,
    /// A read: the replicas held different records; the answer is their merger.
    pub diverged: bool,
    /// A read at ALL: how many replicas that were found behind hold the answer now.
    pub repaired: u32,
    /// The name of the node that coordinated the request.
    pub coordinator: String,
    /// The shard of the key.
    pub shard: u32,
    /// The shard's epoch, lineage and number.
    pub epoch: Epoch,
    /// The time the coordinator needed.
    pub elapsed: Duration,
    /// The id under which the nodes' logs name this request.
    pub request_trace: String,
}

/// How one replica answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaAnswer {
    /// The node's id, 32 hex digits.
    pub node_id: String,
    /// The node's name.
    pub node: String,
    /// What it answered.
    pub result: ReplicaResult,
    /// From the start of the request to this answer; none when there is no answer.
    pub elapsed: Option<Duration>,
}

impl Outcome {
    pub(crate) fn of_wire(outcome: Option<v1::Outcome>) -> Self {
        let wire = outcome.unwrap_or_default();
        Self {
            level: level_of_wire(wire.level()),
            needed: wire.needed,
            acknowledged: wire.acknowledged,
            strict: wire.strict,
            degraded: wire.degraded,
            home_acknowledged: wire.home_acknowledged,
            diverged: wire.diverged,
            repaired: wire.repaired,
            shard: wire.shard,
            epoch: epoch_of_wire(wire.epoch.as_ref()),
            elapsed: wire.elapsed.and_then(|span| span.try_into().ok()).unwrap_or_default(),
            replicas: wire.replicas.into_iter().map(ReplicaAnswer::of_wire).collect(),
            coordinator: wire.coordinator,
            request_trace: wire.request_trace,
        }
    }
}

/// The epoch that an answer names; before every epoch if it names none.
pub(crate) fn epoch_of_wire(epoch: Option<&v1::Epoch>) -> Epoch {
    epoch.map_or(Epoch::NONE, |epoch| Epoch { lineage: epoch.lineage, number: epoch.number })
}

impl ReplicaAnswer {
    fn of_wire(wire: v1::ReplicaAnswer) -> Self {
        Self {
            result: wire.result(),
            elapsed: wire.elapsed.and_then(|span| span.try_into().ok()),
            node_id: wire.node_id,
            node: wire.node,
        }
    }
}

impl Sibling {
    fn of_wire(wire: v1::Sibling) -> Self {
        let value = match wire.value_form {
            Some(v1::sibling::ValueForm::Value(bytes)) => bytes,
            Some(v1::sibling::ValueForm::ValueText(text)) => Bytes::from(text),
            None => Bytes::new(),
        };
        let ttl = wire.ttl_remaining.and_then(|span| span.try_into().ok());
        Self { value, dot: wire.dot, ttl }
    }
}

impl From<v1::GetResponse> for Versioned {
    fn from(wire: v1::GetResponse) -> Self {
        Self {
            siblings: wire.siblings.into_iter().map(Sibling::of_wire).collect(),
            context: Context(wire.context),
            outcome: Outcome::of_wire(wire.outcome),
        }
    }
}

impl From<v1::PutResponse> for Written {
    fn from(wire: v1::PutResponse) -> Self {
        Self {
            context: Context(wire.context),
            dot: wire.dot,
            outcome: Outcome::of_wire(wire.outcome),
        }
    }
}

impl From<v1::DeleteResponse> for Deleted {
    fn from(wire: v1::DeleteResponse) -> Self {
        Self { context: Context(wire.context), outcome: Outcome::of_wire(wire.outcome) }
    }
}
