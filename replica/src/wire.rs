//! The primitives of every byte format here: varints, fixed integers, length-prefixed bytes.
//!
//! Integers of unknown size are LEB128 varints in their shortest form: a value has exactly
//! one encoding, so equal things have equal bytes. Reading never allocates by a length that
//! it was told; it only slices what is really there.

use bytes::{BufMut, Bytes, BytesMut};

/// The most bytes a varint takes (64 bits in groups of 7).
pub(crate) const MAX_VARINT: usize = 10;

/// Why bytes could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The input ends within the thing named.
    #[error("the input ends within {0}")]
    Truncated(&'static str),
    /// A varint is longer than its shortest form, or over 64 bits.
    #[error("{0} is not a varint in its shortest form")]
    BadVarint(&'static str),
    /// Bytes follow the last field.
    #[error("{0} bytes follow the end")]
    Trailing(usize),
}

/// Appends `value` as a varint in its shortest form.
pub(crate) fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value as u8) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The number of bytes [`put_varint`] writes for `value`.
pub(crate) fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends `bytes` behind their length.
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Reads fields off the front of shared bytes; what it hands out shares their memory.
#[derive(Debug)]
pub(crate) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(crate) fn new(rest: Bytes) -> Self {
        Self { rest }
    }

    /// The next `len` bytes, shared, not copied.
    pub(crate) fn take(&mut self, len: usize, what: &'static str) -> Result<Bytes, WireError> {
        if len > self.rest.len() {
            return Err(WireError::Truncated(what));
        }
        Ok(self.rest.split_to(len))
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, WireError> {
        let byte = *self.rest.first().ok_or(WireError::Truncated(what))?;
        // Through `take`: advancing is the only other way, and it panics past the end.
        self.take(1, what)?;
        Ok(byte)
    }

    /// Four bytes, big endian.
    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, WireError> {
        let bytes = self.take(4, what)?;
        Ok(bytes.iter().fold(0, |value, byte| (value << 8) | u32::from(*byte)))
    }

    /// Eight bytes, big endian.
    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, WireError> {
        let bytes = self.take(8, what)?;
        Ok(bytes.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte)))
    }

    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u64, WireError> {
        let mut value: u64 = 0;
        for group in 0..MAX_VARINT {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            let last_group = group == MAX_VARINT - 1;
            if (last_group && bits > 1) || (group > 0 && byte == 0) {
                return Err(WireError::BadVarint(what));
            }
            value |= bits << (7 * group);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::BadVarint(what))
    }

    /// Bytes behind their length.
    pub(crate) fn bytes(&mut self, what: &'static str) -> Result<Bytes, WireError> {
        let len = self.varint(what)?;
        // A length that does not fit `usize` is certainly longer than the input.
        let len = usize::try_from(len).map_err(|_| WireError::Truncated(what))?;
        self.take(len, what)
    }

    /// Succeeds when everything was read.
    pub(crate) fn finish(self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(WireError::Trailing(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reader(bytes: &[u8]) -> Reader {
        Reader::new(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn a_varint_has_one_encoding() {
        assert_eq!(reader(&[0x7f]).varint("n"), Ok(127));
        assert_eq!(reader(&[0x80, 0x01]).varint("n"), Ok(128));
        assert_eq!(reader(&[0x80, 0x00]).varint("n"), Err(WireError::BadVarint("n")));
        assert_eq!(reader(&[0x80]).varint("n"), Err(WireError::Truncated("n")));
        assert_eq!(reader(&[0xff; 11]).varint("n"), Err(WireError::BadVarint("n")));
        let beyond_64_bits = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(reader(&beyond_64_bits).varint("n"), Err(WireError::BadVarint("n")));
    }

    #[test]
    fn a_forged_length_is_truncation_not_an_allocation() {
        let mut forged = BytesMut::new();
        put_varint(&mut forged, u64::MAX);
        assert_eq!(reader(&forged).bytes("value"), Err(WireError::Truncated("value")));
    }

    proptest! {
        #[test]
        fn varints_come_back_in_the_announced_length(value in any::<u64>(), shift in 0_u32..64) {
            let value = value >> shift;
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            let mut reader = Reader::new(out.freeze());
            prop_assert_eq!(reader.varint("n"), Ok(value));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }
}
