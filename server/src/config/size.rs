//! Sizes in bytes: read as `64MiB`, `1GB` or a plain number, written exactly (never rounded as people's tools like
//! to).

use std::fmt;

use bytesize::ByteSize;
use serde::{Deserializer, Serializer, de};

/// `1048576` → `1MiB`, `1500` → `1500B`: the greatest binary unit that divides the size, so that reading it back
/// gives the same.
pub(super) fn display(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let exact = UNITS.iter().find(|(bits, _)| bytes != 0 && bytes.trailing_zeros() >= *bits);
    exact.map_or_else(|| format!("{bytes}B"), |(bits, unit)| format!("{}{unit}", bytes >> bits))
}

// serde calls it with a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
pub(super) fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&display(*bytes))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(SizeVisitor)
}

struct SizeVisitor;

impl de::Visitor<'_> for SizeVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size like 64MiB, 1GiB or a number of bytes")
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        text.trim()
            .parse::<ByteSize>()
            .map(|size| size.as_u64())
            .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_written_so_that_it_reads_back_the_same() {
        for bytes in [
            0,
            1,
            1023,
            1024,
            1500,
            1536,
            1 << 20,
            (1 << 20) + 1,
            3 << 30,
            5 << 40,
            u64::from(u32::MAX),
        ] {
            let text = display(bytes);
            let read: u64 = deserialize(serde_json::Value::String(text.clone())).unwrap();
            assert_eq!(read, bytes, "{text}");
        }
        assert_eq!(
            (display(1 << 20), display(1536), display(1500)),
            ("1MiB".into(), "1536B".into(), "1500B".into())
        );
    }

    #[test]
    fn numbers_and_both_families_of_units_are_read() {
        let read = |value: serde_json::Value| deserialize(value).ok();
        assert_eq!(read(serde_json::json!(4096)), Some(4096));
        assert_eq!(read(serde_json::json!("4096")), Some(4096));
        assert_eq!(read(serde_json::json!("1 MB")), Some(1_000_000));
        assert_eq!(read(serde_json::json!("1MiB")), Some(1 << 20));
        assert_eq!(read(serde_json::json!(-1)), None);
        assert_eq!(read(serde_json::json!("many")), None);
    }
}
