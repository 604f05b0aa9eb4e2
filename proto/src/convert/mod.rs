//! From the wire to the core types, and back.
//!
//! What arrives is checked here, once: `TryFrom` gives a core type that keeps its rules, or a [`BadField`] that says
//! what is wrong where. What is sent needs no check, so the way out is `From`. No conversion allocates by a number
//! that it was only told.

mod bad_field;
mod configuration;
mod gc;
mod key;
mod level;
mod outcome;
mod pull;
mod ring;
mod shard;
mod ttl;

#[cfg(test)]
mod round_trips;

use bytes::Bytes;

pub use bad_field::BadField;
pub use key::{BucketMode, DEFAULT_BUCKET, Limits, RecordKey, check_bucket, put_value, request_id};
pub use level::level;
pub use ring::MAX_LISTED;
pub use ttl::{TTL_MAX, TTL_MIN, ttl};

/// The 16 bytes of an id or digest.
pub fn id16(field: &'static str, raw: &[u8]) -> Result<[u8; 16], BadField> {
    let bad =
        |_| BadField::peer(field, format!("{} bytes long", raw.len()), "it must have 16 bytes");
    raw.try_into().map_err(bad)
}

/// An id or digest for the wire.
pub fn from_id(id: &[u8; 16]) -> Bytes {
    Bytes::copy_from_slice(id)
}

/// A message field that must be set.
fn required<T>(field: &'static str, value: Option<T>) -> Result<T, BadField> {
    value.ok_or_else(|| BadField::missing(field))
}

/// A list with a greatest length.
fn bounded(field: &'static str, len: usize, limit: usize) -> Result<(), BadField> {
    if len <= limit {
        return Ok(());
    }
    let why = format!("it has at most {limit} entries");
    Err(BadField::peer(field, format!("{len} entries long"), why).sized(len, limit))
}
