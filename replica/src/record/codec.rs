//! A record as bytes: one format for the disk row and the wire.
//!
//! ```text
//! version    1 byte, now 2
//! context    vector and cloud, see `Context::encode`
//! siblings   count, then each: actor (8) counter · expiry · length value
//!            expiry: 0, or 1 and the milliseconds
//! requests   count (at most 8), then each: at (4) · id (8) · content (8) · flags · dot · replaced ·
//!            covered; flags: 1 a dot follows, 2 what it replaced is not known, else it follows;
//!            dot: actor (8) counter; replaced, covered: see `Context::encode`, at most 16 entries
//! checksum   CRC-32 of all before, 4 bytes, big endian
//! ```
//!
//! Integers without a size are varints in their shortest form and everything is in order, so
//! a record has exactly one encoding. The checksum is there for the disk: a row whose bits
//! turned must answer "damaged" and never "absent". It is checked before anything is read.
//!
//! Version 1 is still read. Its requests say only whether a write replaced something.

use bytes::{BufMut, Bytes, BytesMut};

use super::{MAX_REPLACED, MAX_REQUESTS, Record, RequestPair, Sibling};
use crate::context::{Context, ContextError, put_dot, take_dot};
use crate::dot::Dot;
use crate::wire::{MAX_VARINT, Reader, WireError, put_bytes, put_varint};

const VERSION: u8 = 2;
/// Requests without what they replaced.
const VERSION_1: u8 = 1;
const CHECKSUM_LEN: usize = 4;
const MAX_DOT_LEN: usize = 8 + MAX_VARINT;
const MAX_PAIR_LEN: usize = 4 + 8 + 8 + 1 + MAX_DOT_LEN;

/// Flags of a request pair.
const HAS_DOT: u8 = 1;
const REPLACED_UNKNOWN: u8 = 2;

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The checksum does not fit: bits turned, or the end is missing.
    #[error("the record's checksum does not fit its bytes")]
    Damaged,
    /// Intact, but written by a version that this one does not know.
    #[error("the record's format version {0} is unknown")]
    UnknownVersion(u8),
    /// The checksum fits, but the bytes do not fit together.
    #[error("the record is malformed: {0}")]
    Wire(#[from] WireError),
    /// The checksum fits, but the context is not one.
    #[error("the record is malformed: {0}")]
    Context(#[from] ContextError),
    /// The checksum fits, but siblings or requests are out of order, uncovered or too many.
    #[error("the record is malformed: {0}")]
    Content(&'static str),
}

impl Record {
    /// The record as one row. Values are copied once, into the row.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        out.put_u8(VERSION);
        self.context.encode_into(&mut out);
        put_varint(&mut out, self.siblings.len() as u64);
        for (dot, sibling) in &self.siblings {
            put_sibling(&mut out, *dot, sibling);
        }
        put_varint(&mut out, self.requests.len() as u64);
        for pair in &self.requests {
            put_pair(&mut out, pair);
        }
        let checksum = crc32fast::hash(&out);
        out.put_u32(checksum);
        out.freeze()
    }

    /// Reads what [`Record::encode`] wrote. The values share the memory of `row`, and nothing
    /// is allocated by a length that is only claimed.
    pub fn decode(row: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(checked(row)?);
        let version = reader.u8("the format version")?;
        if ![VERSION_1, VERSION].contains(&version) {
            return Err(DecodeError::UnknownVersion(version));
        }
        let mut record =
            Self { context: Context::decode_from(&mut reader, usize::MAX)?, ..Self::default() };
        for _ in 0..reader.varint("the number of siblings")? {
            record.take_sibling(&mut reader)?;
        }
        for _ in 0..reader.varint("the number of requests")? {
            record.take_request(&mut reader, version)?;
        }
        reader.finish()?;
        Ok(record)
    }

    /// An upper bound of the encoded length in bytes, within a few of it per entry.
    pub fn encoded_len(&self) -> usize {
        let values: usize = self.siblings.values().map(|sibling| sibling.value.len()).sum();
        let per_sibling = MAX_DOT_LEN + 1 + 2 * MAX_VARINT;
        1 + self.context.encoded_len()
            + MAX_VARINT
            + self.siblings.len() * per_sibling
            + values
            + MAX_VARINT
            + self.requests.iter().map(pair_len).sum::<usize>()
            + CHECKSUM_LEN
    }

    fn take_sibling(&mut self, reader: &mut Reader) -> Result<(), DecodeError> {
        let dot = take_dot(reader)?;
        let expires_at = match reader.u8("whether a sibling expires")? {
            0 => None,
            1 => Some(reader.varint("when a sibling expires")?),
            _ => {
                return Err(DecodeError::Content("a sibling's expiry is neither 0 nor 1"));
            }
        };
        let value = reader.bytes("the value of a sibling")?;
        let ascending = self.siblings.last_key_value().is_none_or(|(last, _)| *last < dot);
        if !ascending {
            return Err(DecodeError::Content("the siblings are not in order"));
        }
        if dot.counter == 0 || !self.context.covers(&dot) {
            return Err(DecodeError::Content("a sibling's dot is not in the context"));
        }
        self.siblings.insert(dot, Sibling { value, expires_at });
        Ok(())
    }

    fn take_request(&mut self, reader: &mut Reader, version: u8) -> Result<(), DecodeError> {
        let at = reader.u32("the time of a request")?;
        let id = reader.u64("the id of a request")?;
        let content = reader.u64("the content of a request")?;
        let flags = reader.u8("the flags of a request")?;
        if flags & !(HAS_DOT | REPLACED_UNKNOWN) != 0 {
            return Err(DecodeError::Content("a request has unknown flags"));
        }
        let dot = (flags & HAS_DOT != 0).then(|| take_dot(reader)).transpose()?;
        let mut replaced = (flags & REPLACED_UNKNOWN == 0).then(Context::new);
        let mut covered = Context::new();
        if version > VERSION_1 {
            if let Some(replaced) = &mut replaced {
                *replaced = Context::decode_from(reader, MAX_REPLACED)?;
            }
            covered = Context::decode_from(reader, MAX_REPLACED)?;
        }
        let pair = RequestPair { at, id, content, dot, replaced, covered };
        if self.requests.last().is_some_and(|last| *last >= pair) {
            return Err(DecodeError::Content("the requests are not in order"));
        }
        if self.requests.len() == MAX_REQUESTS {
            return Err(DecodeError::Content("there are more than 8 requests"));
        }
        self.requests.insert(pair);
        Ok(())
    }
}

fn put_sibling(out: &mut BytesMut, dot: Dot, sibling: &Sibling) {
    put_dot(out, dot);
    match sibling.expires_at {
        None => out.put_u8(0),
        Some(at) => {
            out.put_u8(1);
            put_varint(out, at);
        }
    }
    put_bytes(out, &sibling.value);
}

fn put_pair(out: &mut BytesMut, pair: &RequestPair) {
    out.put_u32(pair.at);
    out.put_u64(pair.id);
    out.put_u64(pair.content);
    let has_dot = if pair.dot.is_some() { HAS_DOT } else { 0 };
    out.put_u8(has_dot | if pair.replaced.is_none() { REPLACED_UNKNOWN } else { 0 });
    if let Some(dot) = pair.dot {
        put_dot(out, dot);
    }
    if let Some(replaced) = &pair.replaced {
        replaced.encode_into(out);
    }
    pair.covered.encode_into(out);
}

fn pair_len(pair: &RequestPair) -> usize {
    let replaced = pair.replaced.as_ref().map_or(0, Context::encoded_len);
    MAX_PAIR_LEN + replaced + pair.covered.encoded_len()
}

/// The row without its checksum, if that fits.
fn checked(mut row: Bytes) -> Result<Bytes, DecodeError> {
    let body = row.len().checked_sub(CHECKSUM_LEN).ok_or(DecodeError::Damaged)?;
    let checksum = row.split_off(body);
    if crc32fast::hash(&row).to_be_bytes() != *checksum {
        return Err(DecodeError::Damaged);
    }
    Ok(row)
}
