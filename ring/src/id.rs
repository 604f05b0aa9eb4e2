//! Identifiers: positions on the circle, nodes, virtual nodes, clusters.
//!
//! The circle has 2^128 positions, and arithmetic on it wraps. Every position comes from a
//! SHA-256, so nobody chooses where to sit (design §2, point 1).

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use thiserror::Error;

/// How many bits an identifier has, so how many fingers a virtual node could have.
pub const RING_BITS: u32 = 128;

/// A position on the circle: 128 bits, ordered as a plain number; the circle itself has no first one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingId(u128);

impl RingId {
    /// The position with this number.
    pub const fn new(position: u128) -> Self {
        Self(position)
    }

    /// The position as a number.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// The first 16 bytes of a digest, big endian.
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        Self(u128::from_be_bytes(first_half(digest)))
    }

    /// Where a key lies: SHA-256(bucket ‖ 0x00 ‖ key). A bucket name never holds a zero byte, so
    /// no two (bucket, key) pairs share an input.
    pub fn of_key(bucket: &str, key: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(bucket.as_bytes());
        hash.update([0]);
        hash.update(key);
        Self::from_digest(&hash.finalize().into())
    }

    /// Steps clockwise from here to `other`; zero when both are the same.
    pub const fn distance_to(self, other: Self) -> u128 {
        other.0.wrapping_sub(self.0)
    }

    /// The position 2^`power` clockwise from here: the start of finger `power` (Chord §IV-D).
    /// A power above 127 is a whole number of turns and changes nothing.
    #[must_use]
    pub const fn plus_power(self, power: u32) -> Self {
        match 1_u128.checked_shl(power) {
            Some(step) => Self(self.0.wrapping_add(step)),
            None => self,
        }
    }

    /// Whether this lies strictly between `start` and `end`, going clockwise. When both are the
    /// same position, everything but that position lies between (Zave §III).
    pub const fn is_between(self, start: Self, end: Self) -> bool {
        let mine = start.distance_to(self);
        let span = start.distance_to(end);
        mine != 0 && (span == 0 || mine < span)
    }
}

impl fmt::Display for RingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RingId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_hex(text).map(|bytes| Self(u128::from_be_bytes(bytes)))
    }
}

/// A clockwise interval of the circle, (start, end]; `start == end` is the whole circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingRange {
    /// The last position before the range.
    pub start: RingId,
    /// The last position of the range.
    pub end: RingId,
}

impl RingRange {
    /// Whether the position lies in the range.
    pub const fn contains(&self, id: RingId) -> bool {
        let span = self.start.distance_to(self.end);
        let offset = self.start.distance_to(id);
        span == 0 || (offset != 0 && offset <= span)
    }
}

/// Text that is not the hexadecimal form of an identifier. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not an identifier: expected exactly 32 hexadecimal digits")]
pub struct ParseIdError {
    text: String,
}

/// Sixteen opaque bytes with a hexadecimal text form: shared by all ids that are not positions.
macro_rules! sixteen_bytes {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The identifier with these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse_hex(text).map(Self)
            }
        }
    };
}

sixteen_bytes!(
    /// A server process for all its restarts: the first 16 bytes of the SHA-256 of its public key.
    NodeId
);
sixteen_bytes!(
    /// A cluster, for ever: nodes of different clusters never speak to each other.
    ClusterId
);
sixteen_bytes!(
    /// What is mixed into every virtual node's position, so that nobody can compute, before the
    /// cluster exists, a key pair that sits where it likes.
    ClusterSalt
);

impl NodeId {
    /// The id that a public key proves.
    pub fn of_public_key(key: &[u8]) -> Self {
        Self(first_half(&Sha256::digest(key).into()))
    }
}

/// How many times a node has started: what tells a returned node from its dead predecessor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(u64);

impl Incarnation {
    /// The start with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One position that a node holds. Ordered by position, so a sorted list is the circle.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualNode {
    /// Where it sits.
    pub id: RingId,
    /// Whose it is.
    pub node: NodeId,
    /// Which of the node's positions it is, from 0.
    pub index: u16,
}

impl VirtualNode {
    /// The virtual node `index` of `node`, at SHA-256(salt ‖ node id ‖ index as two bytes, big
    /// endian).
    pub fn of(salt: &ClusterSalt, node: NodeId, index: u16) -> Self {
        let mut hash = Sha256::new();
        hash.update(salt.as_bytes());
        hash.update(node.as_bytes());
        hash.update(index.to_be_bytes());
        let id = RingId::from_digest(&hash.finalize().into());
        Self { id, node, index }
    }
}

impl fmt::Debug for VirtualNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}#{})", self.id, self.node, self.index)
    }
}

fn first_half(digest: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

fn parse_hex(text: &str) -> Result<[u8; 16], ParseIdError> {
    let all_digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = if all_digits { u128::from_str_radix(text, 16).ok() } else { None };
    match number {
        Some(number) => Ok(number.to_be_bytes()),
        // The text may come from anybody: keep the message short.
        None => Err(ParseIdError { text: text.chars().take(64).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: u128) -> RingId {
        RingId::new(position)
    }

    #[test]
    fn a_range_excludes_its_start_includes_its_end_and_wraps() {
        let range = RingRange { start: at(u128::MAX - 1), end: at(3) };
        assert!(!range.contains(at(u128::MAX - 1)));
        for inside in [u128::MAX, 0, 3] {
            assert!(range.contains(at(inside)));
        }
        assert!(!range.contains(at(4)));
    }

    #[test]
    fn equal_ends_make_the_whole_circle() {
        let range = RingRange { start: at(7), end: at(7) };
        assert!(range.contains(at(7)) && range.contains(at(8)) && range.contains(at(0)));
        assert!(at(8).is_between(at(7), at(7)) && !at(7).is_between(at(7), at(7)));
    }

    #[test]
    fn between_is_open_at_both_ends() {
        assert!(at(5).is_between(at(4), at(6)));
        assert!(!at(4).is_between(at(4), at(6)) && !at(6).is_between(at(4), at(6)));
        assert!(at(0).is_between(at(u128::MAX), at(1)));
    }

    #[test]
    fn powers_wrap_round_the_circle() {
        assert_eq!(at(u128::MAX).plus_power(0), at(0));
        assert_eq!(at(1 << 127).plus_power(127), at(0));
        assert_eq!(at(9).plus_power(128), at(9));
    }

    #[test]
    fn text_forms_come_back_and_strangers_are_refused() {
        let id = RingId::of_key("default", b"greeting");
        assert_eq!(id.to_string().parse(), Ok(id));
        let node = NodeId::of_public_key(b"key");
        assert_eq!(node.to_string().parse(), Ok(node));
        for bad in ["", "12", "+0000000000000000000000000000001", &"g".repeat(32), &"0".repeat(33)]
        {
            assert!(bad.parse::<RingId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_are_cut_big_endian() {
        // SHA-256("12345"), claims G10: 5994471abb01112afcc18159f6cc74b4…
        let node = NodeId::of_public_key(b"12345");
        assert_eq!(node.to_string(), "5994471abb01112afcc18159f6cc74b4");
        assert_eq!(
            RingId::from_digest(&Sha256::digest(b"12345").into()).to_string(),
            node.to_string()
        );
    }

    #[test]
    fn bucket_and_key_do_not_run_into_each_other() {
        assert_ne!(RingId::of_key("ab", b"c"), RingId::of_key("a", b"bc"));
    }
}
