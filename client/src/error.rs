//! What can go wrong, told by what the caller can do about it.
//!
//! A server's refusal arrives as a gRPC status whose details hold a `google.rpc.ErrorInfo` of domain `triad`: a
//! reason, and metadata such as `needed`, `acknowledged` and `replicas`. This file turns it into one enum. A key
//! that is not there is no error: see [`Versioned::is_found`](crate::Versioned::is_found).

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use tonic::{Code, ConnectError, Status};
use tonic_types::StatusExt;

use crate::channel::AddressError;

/// The domain of Triad's own error details.
const DOMAIN: &str = "triad";

/// The result of every request.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a request did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An endpoint is not of the form `host:port`. Nothing was sent.
    #[error("{0}")]
    Endpoint(#[from] AddressError),

    /// The request itself is wrong and will never succeed: [`Detail::field`] names the culprit.
    #[error("{0}")]
    InvalidArgument(Box<Detail>),

    /// Too few replicas, or no node at all, could be reached. A write wrote nothing: it is safe to try again.
    #[error("{detail}")]
    Unavailable {
        /// How many answers the level needed; 0 when no node was reached.
        needed: u32,
        /// How many there were.
        acknowledged: u32,
        /// Who was asked, and what each said.
        replicas: Vec<ReplicaReport>,
        /// The rest.
        detail: Box<Detail>,
    },

    /// The deadline passed first. A write was not sent to any replica.
    #[error("{0}")]
    DeadlineExceeded(Box<Detail>),

    /// A write was sent and not confirmed: it may or may not take effect, now or later. Read before writing again.
    #[error("{0}")]
    InDoubt(Box<Detail>),

    /// The node sheds load before doing anything: try again after that time.
    #[error("{detail}")]
    Overloaded {
        /// How long the node asked to wait.
        retry_after: Duration,
        /// The rest.
        detail: Box<Detail>,
    },

    /// A limit of the key or the disk is reached (`NO_SPACE`, `SIBLING_LIMIT`, `CONTEXT_LIMIT`). Nothing was written.
    #[error("{0}")]
    LimitReached(Box<Detail>),

    /// A condition of the write does not hold (`VERSION_CONFLICT`, `KEY_EXISTS`). Nothing was written.
    #[error("{0}")]
    ConditionFailed(Box<Detail>),

    /// The node or the cluster is in no state for this (`NOT_JOINED`, `UNSAFE_DECOMMISSION`, `WRONG_CLUSTER`).
    #[error("{0}")]
    FailedPrecondition(Box<Detail>),

    /// This release of the server does not have it.
    #[error("{0}")]
    Unimplemented(Box<Detail>),

    /// The caller is not known or not allowed to.
    #[error("{0}")]
    Denied(Box<Detail>),

    /// The copies that answered are damaged, and too few others are left.
    #[error("{0}")]
    DataLoss(Box<Detail>),

    /// Anything else: a bug in the server, in the client, or between them.
    #[error("{0}")]
    Internal(Box<Detail>),
}

/// What the server, or the client for it, said about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Detail {
    /// The gRPC status code.
    pub code: Code,
    /// The machine-readable reason, such as `QUORUM_NOT_MET`; empty when the error did not come from Triad.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// Facts by name: `field limit size level needed acknowledged shard epoch replicas`.
    pub metadata: BTreeMap<String, String>,
    /// The address of the node that said it; empty when none did.
    pub endpoint: String,
    /// How long the server asks to wait before another try.
    pub retry_after: Option<Duration>,
}

impl Detail {
    /// An error the client itself found.
    pub(crate) fn local(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: String::new(),
            message: message.into(),
            metadata: BTreeMap::new(),
            endpoint: String::new(),
            retry_after: None,
        }
    }

    /// Reads a status, with the details of `google.rpc` that it carries.
    pub(crate) fn of_status(status: &Status, endpoint: &str) -> Self {
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
        let (reason, metadata) = info.map_or_else(Default::default, |info| {
            (info.reason, info.metadata.into_iter().collect())
        });
        // How a broken connection words its end says nothing more than that.
        let broken = is_transport_failure(status)
            && matches!(status.code(), Code::Cancelled | Code::Unknown | Code::Internal);
        Self {
            code: if broken { Code::Unavailable } else { status.code() },
            reason,
            message: message_of(status),
            metadata,
            endpoint: endpoint.to_owned(),
            retry_after: status.get_details_retry_info().and_then(|retry| retry.retry_delay),
        }
    }

    /// The part of the request that was wrong, if the server named one.
    pub fn field(&self) -> Option<&str> {
        self.metadata.get("field").map(String::as_str)
    }

    fn number(&self, name: &str) -> u32 {
        self.metadata.get(name).and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What one replica answered to a request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaReport {
    /// The node's name.
    pub node: String,
    /// What it answered, as the server spells it: `ok`, `timeout`, `unreachable`, ...
    pub result: String,
}

impl Error {
    /// What the server, or the client for it, said. None for an [`Error::Endpoint`].
    pub fn detail(&self) -> Option<&Detail> {
        match self {
            Self::Endpoint(_) => None,
            Self::Unavailable { detail, .. }
            | Self::Overloaded { detail, .. }
            | Self::InvalidArgument(detail)
            | Self::DeadlineExceeded(detail)
            | Self::InDoubt(detail)
            | Self::LimitReached(detail)
            | Self::ConditionFailed(detail)
            | Self::FailedPrecondition(detail)
            | Self::Unimplemented(detail)
            | Self::Denied(detail)
            | Self::DataLoss(detail)
            | Self::Internal(detail) => Some(detail),
        }
    }

    /// The gRPC status code; `INVALID_ARGUMENT` for an [`Error::Endpoint`].
    pub fn code(&self) -> Code {
        self.detail().map_or(Code::InvalidArgument, |detail| detail.code)
    }

    /// The machine-readable reason; empty when the error did not come from Triad.
    pub fn reason(&self) -> &str {
        self.detail().map_or("", |detail| detail.reason.as_str())
    }

    /// A metadata entry by name.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.detail()?.metadata.get(name).map(String::as_str)
    }

    /// A write with this error may have taken effect, or may yet.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Self::InDoubt(_))
    }

    /// No node was reached: the addresses with why each failed.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::Unavailable {
            needed: 0,
            acknowledged: 0,
            replicas: Vec::new(),
            detail: Box::new(Detail::local(Code::Unavailable, message)),
        }
    }

    /// The error that a status stands for. `doubt` says that the request was a write that reached a node: then every
    /// answer that does not prove "nothing was written" is an [`Error::InDoubt`].
    pub(crate) fn of_detail(detail: Detail, doubt: bool) -> Self {
        if detail.reason == "WRITE_IN_DOUBT" || (doubt && !proves_nothing_written(&detail)) {
            return Self::InDoubt(Box::new(detail));
        }
        let detail = Box::new(detail);
        match detail.code {
            Code::InvalidArgument | Code::OutOfRange => Self::InvalidArgument(detail),
            Code::Unavailable => Self::Unavailable {
                needed: detail.number("needed"),
                acknowledged: detail.number("acknowledged"),
                replicas: replicas(&detail),
                detail,
            },
            Code::DeadlineExceeded => Self::DeadlineExceeded(detail),
            Code::ResourceExhausted => exhausted(detail),
            Code::Aborted | Code::AlreadyExists => Self::ConditionFailed(detail),
            Code::FailedPrecondition | Code::NotFound => Self::FailedPrecondition(detail),
            Code::Unimplemented => Self::Unimplemented(detail),
            Code::Unauthenticated | Code::PermissionDenied => Self::Denied(detail),
            Code::DataLoss => Self::DataLoss(detail),
            Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal => Self::Internal(detail),
        }
    }
}

/// Out of what? A limit of the key or disk stays; load passes.
fn exhausted(detail: Box<Detail>) -> Error {
    match detail.reason.as_str() {
        "NO_SPACE" | "SIBLING_LIMIT" | "CONTEXT_LIMIT" => Error::LimitReached(detail),
        _ => Error::Overloaded {
            retry_after: detail.retry_after.unwrap_or(Duration::from_millis(100)),
            detail,
        },
    }
}

/// True when the answer says that a write it refuses has touched nothing. A Triad reason does, with the exception
/// of `WRITE_IN_DOUBT` (tested before); so do the codes that gRPC keeps for refusals before any work. What remains
/// (a broken connection, a cancelled stream, a passed deadline, an unexplained failure) proves nothing.
fn proves_nothing_written(detail: &Detail) -> bool {
    match detail.code {
        Code::InvalidArgument
        | Code::OutOfRange
        | Code::NotFound
        | Code::AlreadyExists
        | Code::Aborted
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => true,
        // Without a reason this may be how the transport words the end of a connection.
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => {
            !detail.reason.is_empty()
        }
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => false,
    }
}

/// Parses `node1=ok,node2=timeout`.
fn replicas(detail: &Detail) -> Vec<ReplicaReport> {
    let Some(text) = detail.metadata.get("replicas") else {
        return Vec::new();
    };
    text.split(',')
        .filter_map(|entry| entry.split_once('='))
        .map(|(node, result)| ReplicaReport {
            node: node.trim().to_owned(),
            result: result.trim().to_owned(),
        })
        .collect()
}

/// The status's message. The transport's own errors say little ("transport error"), their sources the rest.
fn message_of(status: &Status) -> String {
    let mut message = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !text.is_empty() && !message.contains(&text) {
            if !message.is_empty() {
                message.push_str(": ");
            }
            message.push_str(&text);
        }
        source = error.source();
    }
    if message.is_empty() {
        status.code().description().clone_into(&mut message);
    }
    message
}

/// True when the status was made on this side because no connection could be opened: the request was never sent.
pub(crate) fn was_never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// True when the status was made on this side, so no node has judged the request.
pub(crate) fn is_transport_failure(status: &Status) -> bool {
    status.source().is_some()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn status(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
        let metadata: HashMap<String, String> = metadata
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
        Status::with_error_details(code, "what happened", details)
    }

    fn mapped(status: &Status, write: bool) -> Error {
        Error::of_detail(Detail::of_status(status, "node1:7420"), write)
    }

    #[test]
    fn hostile_details_of_a_status_make_an_error_like_others() {
        let example = status(Code::ResourceExhausted, "OVERLOADED", &[("limit", "7")]);
        let details = example.details().to_vec();
        triad_fuzz::Target::new("Detail::of_status", [details]).memory_factor(400).attack(
            |bytes| {
                let details = bytes.to_vec().into();
                let status = Status::with_details(Code::ResourceExhausted, "later", details);
                let _ = (mapped(&status, true).to_string(), mapped(&status, false).to_string());
                Some(bytes.to_vec())
            },
        );
    }

    #[test]
    fn a_quorum_not_met_tells_who_was_asked() {
        let status = status(
            Code::Unavailable,
            "QUORUM_NOT_MET",
            &[("needed", "2"), ("acknowledged", "1"), ("replicas", "node1=ok,node2=unreachable")],
        );
        let Error::Unavailable { needed, acknowledged, replicas, detail } = mapped(&status, true)
        else {
            panic!("not UNAVAILABLE");
        };
        assert_eq!((needed, acknowledged), (2, 1));
        assert_eq!(replicas[1].node, "node2");
        assert_eq!(replicas[1].result, "unreachable");
        assert_eq!(detail.reason, "QUORUM_NOT_MET");
        assert_eq!(detail.endpoint, "node1:7420");
        assert_eq!(detail.to_string(), "what happened");
    }

    #[test]
    fn a_write_without_a_proof_of_refusal_is_in_doubt_and_a_read_is_not() {
        for code in [
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::Cancelled,
            Code::Unknown,
            Code::Internal,
        ] {
            let bare = Status::new(code, "connection reset");
            assert!(mapped(&bare, true).is_in_doubt(), "{code:?}");
            assert!(!mapped(&bare, false).is_in_doubt(), "{code:?}");
        }
        for code in [Code::Unavailable, Code::DeadlineExceeded] {
            assert!(mapped(&status(code, "WRITE_IN_DOUBT", &[]), true).is_in_doubt());
        }
    }

    #[test]
    fn a_connection_that_breaks_is_unavailable_however_it_words_that() {
        for code in [Code::Cancelled, Code::Unknown, Code::Internal] {
            let mut broken = Status::new(code, "operation was canceled");
            assert!(!matches!(mapped(&broken, false), Error::Unavailable { .. }), "{code:?}");
            broken.set_source(std::sync::Arc::new(std::io::Error::other("connection closed")));
            assert!(matches!(mapped(&broken, false), Error::Unavailable { .. }), "{code:?}");
            assert!(mapped(&broken, true).is_in_doubt(), "{code:?}");
        }
    }

    #[test]
    fn reasons_of_exhaustion_differ() {
        let limit = status(Code::ResourceExhausted, "SIBLING_LIMIT", &[("limit", "50")]);
        assert!(
            matches!(mapped(&limit, true), Error::LimitReached(detail) if detail.metadata["limit"] == "50")
        );

        let mut details = ErrorDetails::with_error_info("OVERLOADED", DOMAIN, HashMap::new());
        details.set_retry_info(Some(Duration::from_millis(250)));
        let load = Status::with_error_details(Code::ResourceExhausted, "too much", details);
        assert!(matches!(
            mapped(&load, true),
            Error::Overloaded { retry_after, .. } if retry_after == Duration::from_millis(250)
        ));
    }

    #[test]
    fn details_of_another_domain_are_not_ours() {
        let details =
            ErrorDetails::with_error_info("QUORUM_NOT_MET", "example.org", HashMap::new());
        let foreign = Status::with_error_details(Code::Unavailable, "a proxy", details);
        assert!(mapped(&foreign, true).is_in_doubt());
    }

    #[test]
    fn every_kind_of_refusal_has_its_type() {
        type Is = fn(&Error) -> bool;
        let cases: [(Code, &str, Is); 7] = [
            (Code::InvalidArgument, "EMPTY_KEY", |e| matches!(e, Error::InvalidArgument(_))),
            (Code::Unimplemented, "UNSUPPORTED_MODE", |e| matches!(e, Error::Unimplemented(_))),
            (Code::PermissionDenied, "", |e| matches!(e, Error::Denied(_))),
            (Code::Unauthenticated, "", |e| matches!(e, Error::Denied(_))),
            (Code::Aborted, "VERSION_CONFLICT", |e| matches!(e, Error::ConditionFailed(_))),
            (Code::AlreadyExists, "KEY_EXISTS", |e| matches!(e, Error::ConditionFailed(_))),
            (Code::FailedPrecondition, "NOT_JOINED", |e| matches!(e, Error::FailedPrecondition(_))),
        ];
        for (code, reason, is) in cases {
            let error = mapped(&status(code, reason, &[]), true);
            assert!(is(&error), "{code:?}: {error:?}");
            assert_eq!(error.code(), code);
            assert_eq!(error.reason(), reason);
        }
    }
}
