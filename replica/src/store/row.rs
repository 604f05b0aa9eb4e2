//! How a value lies in stored rows.
//!
//! Every stored row begins with a format version and a kind:
//!
//! - *inline*: version ‖ 0 ‖ crc ‖ value, for values of up to 16 KiB. The crc covers key and value.
//! - *head*: version ‖ 1 ‖ crc ‖ length u64 ‖ generation u64 ‖ chunks u32 ‖ crc of the value u32. The
//!   first crc covers the key and the rest.
//! - *chunk*: version ‖ 2 ‖ bytes. Covered by the crc in the head.
//!
//! Why 16 KiB: sled puts a *page* over a quarter of its segment size into a file of its own, which it
//! never syncs; after a power cut such a database may not open. A page holds up to 22
//! rows, so a row must stay under 2 MiB / 4 / 22 = 23.8 KB, its key of up to 4.2 KiB included.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A value up to this size lies in its own row.
pub const INLINE_BYTES_MAX: usize = 16 << 10;

/// A larger value is cut into pieces of this size.
pub const CHUNK_BYTES: usize = (16 << 10) - CHUNK_HEADER;

const VERSION: u8 = 1;
const INLINE: u8 = 0;
const HEAD: u8 = 1;
const CHUNK: u8 = 2;
const CHUNK_HEADER: usize = 2;
const CRC_HEADER: usize = 6;
const HEAD_BYTES: usize = CRC_HEADER + 8 + 8 + 4 + 4;

/// What a row of the directory (anything but a chunk) holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Row {
    Inline(Bytes),
    Head(Head),
}

/// Describes a value that is cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: u64,
    pub(super) generation: u64,
    pub(super) chunks: u32,
    pub(super) value_crc: u32,
}

impl Head {
    /// The head of `value`, cut under a generation of its own.
    pub(super) fn of(value: &[u8], generation: u64) -> Self {
        Self {
            length: value.len() as u64,
            generation,
            chunks: value.len().div_ceil(CHUNK_BYTES) as u32,
            value_crc: crc32fast::hash(value),
        }
    }

    /// Bytes that all chunks of this value occupy, keys included.
    pub(super) fn chunk_bytes(&self) -> u64 {
        const CHUNK_KEY: u64 = 13;
        self.length + u64::from(self.chunks) * (CHUNK_KEY + CHUNK_HEADER as u64)
    }

    pub(super) fn encode(&self, key: &[u8]) -> Bytes {
        let mut fields = BytesMut::with_capacity(HEAD_BYTES - CRC_HEADER);
        fields.put_u64(self.length);
        fields.put_u64(self.generation);
        fields.put_u32(self.chunks);
        fields.put_u32(self.value_crc);
        with_crc(HEAD, key, &fields)
    }

    fn decode(mut fields: Bytes) -> Result<Self, &'static str> {
        if fields.len() != HEAD_BYTES - CRC_HEADER {
            return Err("its head has a wrong length");
        }
        let head = Self {
            length: fields.get_u64(),
            generation: fields.get_u64(),
            chunks: fields.get_u32(),
            value_crc: fields.get_u32(),
        };
        // Bounds every loop over the chunks by the value's own length.
        if u64::from(head.chunks) != head.length.div_ceil(CHUNK_BYTES as u64) {
            return Err("its length and number of chunks do not agree");
        }
        Ok(head)
    }
}

/// True when a stored row claims to be a head; its checksum is another matter.
pub(super) fn is_head(row: &[u8]) -> bool {
    row.get(1) == Some(&HEAD)
}

pub(super) fn encode_inline(key: &[u8], value: &[u8]) -> Bytes {
    with_crc(INLINE, key, value)
}

pub(super) fn encode_chunk(piece: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(CHUNK_HEADER + piece.len());
    row.put_slice(&[VERSION, CHUNK]);
    row.put_slice(piece);
    row.freeze()
}

/// Reads a stored row; values are slices of it, never copies.
pub(super) fn decode(key: &[u8], mut row: Bytes) -> Result<Row, &'static str> {
    if row.len() < CRC_HEADER {
        return Err("it is too short");
    }
    let (version, kind, crc) = (row.get_u8(), row.get_u8(), row.get_u32());
    if version != VERSION {
        return Err("its format version is unknown");
    }
    if crc != crc_of(kind, key, &row) {
        return Err("its checksum is wrong");
    }
    match kind {
        INLINE => Ok(Row::Inline(row)),
        HEAD => Head::decode(row).map(Row::Head),
        _ => Err("its kind is unknown"),
    }
}

/// The piece of the value in a stored chunk.
pub(super) fn decode_chunk(mut row: Bytes) -> Result<Bytes, &'static str> {
    if row.len() < CHUNK_HEADER || row.get_u8() != VERSION || row.get_u8() != CHUNK {
        return Err("a chunk has a wrong header");
    }
    Ok(row)
}

fn with_crc(kind: u8, key: &[u8], body: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(CRC_HEADER + body.len());
    row.put_slice(&[VERSION, kind]);
    row.put_u32(crc_of(kind, key, body));
    row.put_slice(body);
    row.freeze()
}

/// Over the key too: a row that turns up under another key is damaged.
fn crc_of(kind: u8, key: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[kind]);
    crc.update(&(key.len() as u32).to_be_bytes());
    crc.update(key);
    crc.update(body);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use triad_fuzz::Target;

    use super::*;

    #[test]
    fn hostile_rows_are_refused_or_say_what_was_written() {
        const KEY: &[u8] = b"a key";
        let seal: fn(&mut Vec<u8>) = |row| {
            if row.len() >= CRC_HEADER {
                let crc = crc_of(row[1], KEY, &row[CRC_HEADER..]);
                row[2..CRC_HEADER].copy_from_slice(&crc.to_be_bytes());
            }
        };
        let large = vec![7; 40_000];
        let examples = [encode_inline(KEY, b"value"), Head::of(&large, 9).encode(KEY)];
        Target::new("row::decode", examples).sealed(seal).canonical().attack(|bytes| {
            let row = match decode(KEY, bytes.to_vec().into()).ok()? {
                Row::Inline(value) => encode_inline(KEY, &value),
                Row::Head(head) => head.encode(KEY),
            };
            Some(row.to_vec())
        });
        Target::new("row::decode_chunk", [encode_chunk(b"a piece")]).canonical().attack(|bytes| {
            Some(encode_chunk(&decode_chunk(bytes.to_vec().into()).ok()?).to_vec())
        });
    }

    #[test]
    fn rows_read_back_and_share_the_value() {
        let row = encode_inline(b"key", b"value");
        let Ok(Row::Inline(value)) = decode(b"key", row.clone()) else { panic!("inline row") };
        assert_eq!(value, "value");
        assert_eq!(value.as_ptr(), row[CRC_HEADER..].as_ptr(), "no copy");
        let head = Head::of(&vec![7; 100_000], 3);
        assert_eq!(head.chunks, 7);
        assert_eq!(decode(b"key", head.encode(b"key")), Ok(Row::Head(head)));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        for row in [encode_inline(b"key", b"value"), Head::of(&vec![1; 20_000], 1).encode(b"key")] {
            for bit in 0..row.len() * 8 {
                let mut broken = row.to_vec();
                broken[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(b"key", broken.into()).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_row_under_another_key_is_damaged() {
        assert!(decode(b"other", encode_inline(b"key", b"value")).is_err());
        assert!(decode(b"keyv", encode_inline(b"key", b"value")).is_err());
    }
}
