//! What is wrong with a field of a message.

use std::fmt;

use triad_replica::token::BadContext;

/// The most characters of a wrong value that an error repeats.
const SHOWN: usize = 64;

/// A field that cannot be taken as it is. The text names the field, the value and the rule, and is fit for clients.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {value}: {why}")]
pub struct BadField {
    /// The field, by its name in the proto file.
    pub field: &'static str,
    /// The reason of the error's `google.rpc.ErrorInfo`. Empty for messages between nodes, which no client sees.
    pub reason: &'static str,
    /// The wrong value, shortened.
    pub value: String,
    /// The rule that it breaks.
    pub why: String,
    /// The length or number that is wrong, if there is one.
    pub size: Option<usize>,
    /// The most that is allowed, if that is the rule.
    pub limit: Option<usize>,
}

impl BadField {
    /// A wrong field of a message between nodes.
    pub(crate) fn peer(
        field: &'static str,
        value: impl fmt::Display,
        why: impl fmt::Display,
    ) -> Self {
        Self {
            field,
            reason: "",
            value: shortened(&value.to_string()),
            why: why.to_string(),
            size: None,
            limit: None,
        }
    }

    /// A field of a message between nodes that must be there and is not.
    pub(crate) fn missing(field: &'static str) -> Self {
        Self::peer(field, "not set", "it must be set")
    }

    /// A wrong field of a client's request.
    pub(crate) fn client(
        field: &'static str,
        reason: &'static str,
        value: String,
        why: String,
    ) -> Self {
        Self { reason, ..Self::peer(field, value, why) }
    }

    /// The same, of something that has a size and a limit.
    pub(crate) fn sized(self, size: usize, limit: usize) -> Self {
        Self { size: Some(size), limit: Some(limit), ..self }
    }

    /// A level that has no name: `BAD_LEVEL`.
    pub fn level(raw: i32) -> Self {
        let why = "a level is LEVEL_ONE (1), LEVEL_QUORUM (2) or LEVEL_ALL (3), or left out for LEVEL_QUORUM";
        Self::client("level", "BAD_LEVEL", raw.to_string(), why.to_owned())
    }

    /// A context that this cluster did not make for this bucket and key: `BAD_CONTEXT`.
    pub fn context(bad: &BadContext) -> Self {
        let why = format!(
            "{bad}; send back a context as it was received for this bucket and key, or none"
        );
        let value = "not a context".to_owned();
        Self::client("context", "BAD_CONTEXT", value, why)
    }

    /// A time to live that is none: `BAD_TTL`.
    pub(crate) fn ttl(raw: &prost_types::Duration) -> Self {
        let why = "a value lives for at least 1 ms and at most 36500 days; leave it out for a value that stays";
        let value = format!("{} s and {} ns", raw.seconds, raw.nanos);
        Self::client("ttl", "BAD_TTL", value, why.to_owned())
    }

    /// A request id of a wrong length: `BAD_REQUEST_ID`.
    pub(crate) fn request_id(len: usize) -> Self {
        let why = "a request id has 16 bytes".to_owned();
        Self::client("request_id", "BAD_REQUEST_ID", format!("{len} bytes long"), why)
            .sized(len, 16)
    }
}

/// A text for people: in quotes, escaped, and not long.
pub(crate) fn quoted(text: &str) -> String {
    let start: String = text.chars().take(SHOWN / 2).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    format!("{start:?}{more}")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
