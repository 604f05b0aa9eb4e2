//! Why an operation was not begun.

/// A refusal, complete by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperationError {
    /// The request itself makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// No node has this name or id, or no operation this id.
    #[error("{what} `{name}` is not known: {try_this}")]
    Unknown { what: &'static str, name: String, try_this: &'static str },
    /// The cluster, or the node, is not in the state for it.
    #[error("{0}")]
    NotNow(String),
    /// Data would have too few copies, or none.
    #[error("unsafe: {0}")]
    Unsafe(String),
    /// Another node has to do it, and did not answer.
    #[error("node {node} does not answer ({why}): try again")]
    Unreachable { node: String, why: String },
    /// The node concerned refused; this is its answer, word for word.
    #[error("{}", .0.message())]
    Refused(tonic::Status),
    /// The store did not take it.
    #[error("the store did not take it: {0}")]
    Store(String),
}
