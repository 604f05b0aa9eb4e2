//! One request of a client, and what became of it.

use serde::{Deserialize, Serialize};

/// A moment: microseconds since the run began, by the clock of whoever recorded it, real or simulated.
pub type Time = u64;

/// The number of an operation in its history, in the order of their starts.
pub type OperationId = u64;

/// One request of a client, from the moment it was sent to the moment its client knew, or gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its number.
    pub id: OperationId,
    /// What was asked.
    #[serde(flatten)]
    pub request: Request,
    /// When it was sent.
    pub start: Time,
    /// When its client was told, or gave up. None: never, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Time>,
    /// What its client knows of it.
    pub outcome: Outcome,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who asks. A client's operations that follow each other in time are its session.
    pub client: u32,
    /// The bucket; its name tells the mode ([`Mode::of_bucket`]). Empty: the default one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bucket: String,
    /// The key.
    pub key: String,
    /// What is to be done with it.
    pub action: Action,
    /// How many replicas must answer.
    pub level: Level,
    /// The operation on the same key whose reply brought the context that a put or delete is sent with. None: without
    /// a context, so it overwrites.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<OperationId>,
    /// The node that was asked, where it matters: for the picture alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// What is to be done with a key. No two writes of a key write the same value: the checkers tell writes apart by them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Reads it.
    Get,
    /// Writes this value.
    Put(String),
    /// Deletes it.
    Delete,
    /// In linearizable buckets: if the key has the expected value (or none), it gets the other one (or none).
    CompareAndSet {
        /// What must be there.
        expected: Option<String>,
        /// What is to be there.
        value: Option<String>,
    },
}

/// How many replicas must answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// One. Promises nothing about freshness; an answer that says of itself that it is not strict counts as this.
    One,
    /// A majority.
    Quorum,
    /// All.
    All,
}

/// What a client knows of its request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The write was acknowledged at its level.
    Acknowledged,
    /// The read returned these values: none, one, or siblings.
    Returned(Vec<String>),
    /// It is certain that nothing was written, now or later.
    Refused,
    /// The compare-and-set found another value, and wrote nothing.
    Conflict,
    /// It may or may not have taken effect, or will: a timeout is never a failure.
    InDoubt,
}

/// What a bucket promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reads at QUORUM see what QUORUM acknowledged.
    Strict,
    /// `any.…`: takes writes whatever happens; reads may miss some until the cluster is at rest.
    Available,
    /// `lin.…`: as if each key were in one place.
    Linearizable,
}

impl Mode {
    /// The mode is in the bucket's name.
    pub fn of_bucket(bucket: &str) -> Self {
        if bucket.starts_with("any.") {
            Self::Available
        } else if bucket.starts_with("lin.") {
            Self::Linearizable
        } else {
            Self::Strict
        }
    }
}

impl Request {
    /// A request at QUORUM, in the default bucket, without a context.
    pub fn new(client: u32, key: impl Into<String>, action: Action) -> Self {
        Self {
            client,
            bucket: String::new(),
            key: key.into(),
            action,
            level: Level::Quorum,
            context: None,
            node: None,
        }
    }

    /// The same in this bucket.
    #[must_use]
    pub fn in_bucket(self, bucket: impl Into<String>) -> Self {
        Self { bucket: bucket.into(), ..self }
    }

    /// The same at this level.
    #[must_use]
    pub fn at(self, level: Level) -> Self {
        Self { level, ..self }
    }

    /// The same with the context that this operation's reply brought.
    #[must_use]
    pub fn after(self, source: OperationId) -> Self {
        Self { context: Some(source), ..self }
    }
}

impl Operation {
    /// Whether it can change the key.
    pub fn is_write(&self) -> bool {
        self.request.action != Action::Get
    }

    /// The value it writes.
    pub fn value(&self) -> Option<&str> {
        match &self.request.action {
            Action::Put(value) => Some(value),
            Action::CompareAndSet { value, .. } => value.as_deref(),
            Action::Get | Action::Delete => None,
        }
    }

    /// What it returned, if it is a read that was answered.
    pub fn returned(&self) -> Option<&[String]> {
        match &self.outcome {
            Outcome::Returned(values) => Some(values),
            _ => None,
        }
    }

    /// Whether it is a write that was acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        self.outcome == Outcome::Acknowledged
    }

    /// Whether it is a write that may have taken effect.
    pub fn may_have_written(&self) -> bool {
        self.is_write() && matches!(self.outcome, Outcome::Acknowledged | Outcome::InDoubt)
    }

    /// Whether its client knew of its end before this moment.
    pub fn ended_before(&self, moment: Time) -> bool {
        self.end.is_some_and(|end| end < moment)
    }
}
