//! The only place where an error becomes a gRPC status (design §9).

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::coordinator::error::{Progress, RequestError};
use crate::operations::OperationError;

/// The `domain` of every `google.rpc.ErrorInfo` that Triad sends.
const DOMAIN: &str = "triad";

/// The reason of a refusal for want of room.
const NO_SPACE: &str = "NO_SPACE";

type Metadata = HashMap<String, String>;

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        if let RequestError::Forwarded(status) = error {
            return status;
        }
        let (code, reason) = code(&error);
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata(&error));
        if let Some(delay) = retry_after(&error) {
            details.set_retry_info(Some(delay));
        }
        if let RequestError::BadRequest(bad) = &error {
            details.add_bad_request_violation(bad.field, error.to_string());
        }
        Self::with_error_details(code, error.to_string(), details)
    }
}

impl From<OperationError> for Status {
    fn from(error: OperationError) -> Self {
        use OperationError as E;
        let (code, reason) = match &error {
            E::Refused(status) => return status.clone(),
            E::BadRequest(_) => (Code::InvalidArgument, ""),
            E::Unknown { .. } => (Code::NotFound, ""),
            E::NotNow(_) => (Code::FailedPrecondition, ""),
            E::Unsafe(_) => (Code::FailedPrecondition, "UNSAFE_DECOMMISSION"),
            E::Unreachable { .. } => (Code::Unavailable, "NODE_UNREACHABLE"),
            E::Store(_) => (Code::Unavailable, ""),
        };
        if reason.is_empty() {
            return Self::new(code, error.to_string());
        }
        let details = ErrorDetails::with_error_info(reason, DOMAIN, Metadata::new());
        Self::with_error_details(code, error.to_string(), details)
    }
}

/// The code and the reason of an error.
fn code(error: &RequestError) -> (Code, &'static str) {
    use RequestError as E;
    match error {
        E::BadRequest(bad) => (Code::InvalidArgument, bad.reason),
        E::RequestIdReused => (Code::InvalidArgument, "REQUEST_ID_REUSED"),
        E::UnsupportedMode { .. } | E::UnsupportedField { .. } => {
            (Code::Unimplemented, "UNSUPPORTED_MODE")
        }
        E::QuorumNotMet(_)
        | E::ReadQuorumNotMet(_)
        | E::NotLocated { .. }
        | E::StoreFailed { write: false, .. } => (Code::Unavailable, "QUORUM_NOT_MET"),
        E::WriteInDoubt(_) | E::StoreFailed { write: true, .. } => {
            (Code::Unavailable, "WRITE_IN_DOUBT")
        }
        E::WriteInDoubtAtDeadline { .. } | E::Overdue { write: true, .. } => {
            (Code::DeadlineExceeded, "WRITE_IN_DOUBT")
        }
        E::DeadlineExceeded { .. } | E::Late { .. } | E::Overdue { .. } => {
            (Code::DeadlineExceeded, "QUORUM_NOT_MET")
        }
        E::NotJoined { .. } | E::ShuttingDown { .. } => (Code::Unavailable, "NOT_JOINED"),
        E::Overloaded { .. } => (Code::ResourceExhausted, "OVERLOADED"),
        E::NoSpace(_) | E::HintsFull(_) => (Code::ResourceExhausted, NO_SPACE),
        E::SiblingLimit { .. } => (Code::ResourceExhausted, "SIBLING_LIMIT"),
        E::ContextLimit { .. } => (Code::ResourceExhausted, "CONTEXT_LIMIT"),
        E::Damaged(_) => (Code::DataLoss, "QUORUM_NOT_MET"),
        E::Forwarded(status) => (status.code(), ""),
    }
}

/// What a program may want to know of an error.
fn metadata(error: &RequestError) -> Metadata {
    use RequestError as E;
    match error {
        E::BadRequest(bad) => bad_field(bad),
        E::UnsupportedMode { bucket, .. } => {
            pairs([("field", "bucket".to_owned()), ("value", bucket.clone())])
        }
        E::UnsupportedField { field } => pairs([("field", (*field).to_owned())]),
        E::RequestIdReused => pairs([("field", "request_id".to_owned())]),
        E::QuorumNotMet(progress)
        | E::ReadQuorumNotMet(progress)
        | E::WriteInDoubt(progress)
        | E::WriteInDoubtAtDeadline { progress, .. }
        | E::DeadlineExceeded { progress, .. }
        | E::NoSpace(progress)
        | E::HintsFull(progress)
        | E::Damaged(progress) => how_far(progress),
        E::Late { shard, .. } | E::NotLocated { shard } => pairs([("shard", shard.to_string())]),
        E::NotJoined { node, .. } | E::ShuttingDown { node } | E::StoreFailed { node, .. } => {
            pairs([("node", node.clone())])
        }
        E::Overloaded { node, limit, .. } => {
            let limit = limit.map(|limit| ("limit".to_owned(), limit.to_owned()));
            pairs([("node", node.clone())]).into_iter().chain(limit).collect()
        }
        E::SiblingLimit { size, limit } | E::ContextLimit { size, limit } => {
            pairs([("size", size.to_string()), ("limit", limit.to_string())])
        }
        E::Forwarded(_) | E::Overdue { .. } => Metadata::new(),
    }
}

/// Whether a node refused a write for want of room: it has written nothing.
pub(crate) fn is_no_space(status: &Status) -> bool {
    let reason = |info: tonic_types::ErrorInfo| info.reason == NO_SPACE && info.domain == DOMAIN;
    status.code() == Code::ResourceExhausted && status.get_details_error_info().is_some_and(reason)
}

/// When to try again, where waiting helps.
fn retry_after(error: &RequestError) -> Option<Duration> {
    match error {
        RequestError::Overloaded { retry_after, .. } => Some(*retry_after),
        RequestError::NoSpace(_) | RequestError::HintsFull(_) => Some(Duration::from_secs(5)),
        // Until somebody has read the siblings and written one value for them.
        RequestError::SiblingLimit { .. } => Some(Duration::from_secs(1)),
        _ => None,
    }
}

fn pairs<const N: usize>(entries: [(&str, String); N]) -> Metadata {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn bad_field(bad: &triad_proto::convert::BadField) -> Metadata {
    let mut metadata = pairs([("field", bad.field.to_owned())]);
    if let Some(limit) = bad.limit {
        metadata.insert("limit".to_owned(), limit.to_string());
    }
    if let Some(size) = bad.size {
        metadata.insert("size".to_owned(), size.to_string());
    }
    metadata
}

fn how_far(progress: &Progress) -> Metadata {
    let mut metadata = pairs([
        ("level", progress.level.to_string()),
        ("needed", progress.needed.to_string()),
        ("acknowledged", progress.acknowledged.to_string()),
        ("shard", progress.shard.to_string()),
        ("replicas", progress.replicas_text()),
    ]);
    if let Some(epoch) = progress.epoch {
        metadata.insert("epoch".to_owned(), epoch.to_string());
    }
    metadata
}
