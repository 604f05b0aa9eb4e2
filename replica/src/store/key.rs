//! The one place that knows how stored keys look.
//!
//! | first byte | rest | row |
//! | --- | --- | --- |
//! | `C` | generation u64 ‖ number u32 | one chunk of a large value (only [`RowStore`](super::RowStore) uses it) |
//! | `G` | shard u32 ‖ bucket ‖ 0x00 ‖ key | marks a record as [garbage](crate::gc), empty |
//! | `M` | name | what the node knows about itself: [`MetaRow`] |
//! | `N` | node id, 16 bytes | a contact: how another node was last reached |
//! | `P` | node id ‖ store id | the newest start of another node's store that this one has recorded |
//! | `R` | shard u32 ‖ bucket ‖ 0x00 ‖ key | a record |
//! | `S` | shard u32 ‖ kind u8 | what a store knows about a shard: [`ShardRow`] |
//! | `T` | `c` ‖ node ‖ store ‖ shard u32 ‖ bucket ‖ 0x00 ‖ key | a courtesy hint: what a member may lack |
//! | `T` | `f` ‖ shard u32 | up to which epoch no record of the shard will be held any more |
//! | `T` | `h` ‖ shard u32 ‖ bucket ‖ 0x00 ‖ key | a record held for the members of its shard |
//! | `X` | time u64 ‖ shard u32 ‖ bucket ‖ 0x00 ‖ key | when something of a record is due; the row is empty |
//!
//! Reserved for what comes later: `A` accepted ballots, `H` hash-tree leaves.
//!
//! Integers are big endian, so byte order is numeric order. Bucket names cannot contain
//! 0x00, so a shard is a range, and so is a bucket in it.

use bytes::{BufMut, Bytes, BytesMut};
use triad_ring::{NodeId, ShardId};

use crate::member::{Member, StoreId};

mod words;

pub(super) use words::describe;

const CHUNK: u8 = b'C';
const GARBAGE: u8 = b'G';
const META: u8 = b'M';
const CONTACT: u8 = b'N';
const START: u8 = b'P';
const RECORD: u8 = b'R';
const SHARD: u8 = b'S';
const HINT: u8 = b'T';
const EXPIRY: u8 = b'X';

/// The kinds of hint rows.
const COURTESY: u8 = b'c';
const FLOOR: u8 = b'f';
const HELD: u8 = b'h';

/// Ends the bucket name in a record's key.
const BUCKET_END: u8 = 0x00;

/// Every key that Triad stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// A row about the node or its store as a whole.
    Meta(MetaRow),
    /// How another node was last reached.
    Contact(NodeId),
    /// The newest start of another node's store that this one has recorded.
    Start(Member),
    /// A row about one shard.
    Shard(ShardId, ShardRow),
    /// The record of one key.
    Record {
        /// The shard that the key belongs to.
        shard: ShardId,
        /// The bucket's name.
        bucket: &'a str,
        /// The key as the client gave it.
        key: &'a [u8],
    },
    /// A courtesy hint: this member may lack what the store has of a key.
    Courtesy {
        /// Who may lack it.
        target: Member,
        /// The shard that the key belongs to.
        shard: ShardId,
        /// The bucket's name.
        bucket: &'a str,
        /// The key as the client gave it.
        key: &'a [u8],
    },
    /// An acknowledging hint: a record of one key, held for the members of its shard.
    Held {
        /// The shard that the key belongs to.
        shard: ShardId,
        /// The bucket's name.
        bucket: &'a str,
        /// The key as the client gave it.
        key: &'a [u8],
    },
    /// Up to which epoch this store will never again hold a record of the shard.
    HintFloor(ShardId),
    /// Marks the record of one key as garbage: a tombstone, or one with too large a context.
    Garbage {
        /// The shard that the key belongs to.
        shard: ShardId,
        /// The bucket's name.
        bucket: &'a str,
        /// The key as the client gave it.
        key: &'a [u8],
    },
    /// A time at which a sibling of a record is due to be removed.
    Expiry {
        /// The time, in milliseconds since the Unix epoch.
        at_ms: u64,
        /// The record's shard.
        shard: ShardId,
        /// Its bucket.
        bucket: &'a str,
        /// Its key.
        key: &'a [u8],
    },
    /// A piece of a large value.
    Chunk {
        /// Names one version of one large value; never used twice while a process runs.
        generation: u64,
        /// Position of the piece, from 0.
        number: u32,
    },
}

/// Rows about the node or its store as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetaRow {
    /// Store id, node id and incarnation: whose store this is. The first row of every store.
    Store,
    /// The cluster that the node belongs to: its id, name, salt, secret and sizes.
    Cluster,
    /// Where the node stands in the cluster: in it, leaving, gone.
    Enrolment,
    /// How many commits the store has made: a row of every commit.
    Commits,
}

impl MetaRow {
    const ALL: [Self; 4] = [Self::Store, Self::Cluster, Self::Enrolment, Self::Commits];

    const fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Cluster => "cluster",
            Self::Enrolment => "enrolment",
            Self::Commits => "commits",
        }
    }
}

/// Rows about one shard, in the order in which a scan meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShardRow {
    /// The newest decided configuration that this store has learned, member or not.
    Configuration,
    /// The configuration that this store entered and serves.
    Entered,
    /// Promise and acceptance for the next epoch.
    Acceptor,
    /// Highest epoch accepted or learned; kept for ever, also after the data is purged.
    HighestEpoch,
    /// The last epoch entered as member or joiner.
    DataEpoch,
    /// The declaration of being merged, for one joint epoch.
    Merged,
    /// A retired member's progress in handing over what it still holds.
    Drain,
    /// The garbage that this member vouched for last.
    Vouch,
}

impl ShardRow {
    const ALL: [Self; 8] = [
        Self::Configuration,
        Self::Entered,
        Self::Acceptor,
        Self::HighestEpoch,
        Self::DataEpoch,
        Self::Merged,
        Self::Drain,
        Self::Vouch,
    ];

    const fn tag(self) -> u8 {
        match self {
            Self::Configuration => 1,
            Self::Entered => 2,
            Self::Acceptor => 3,
            Self::HighestEpoch => 4,
            Self::DataEpoch => 5,
            Self::Merged => 6,
            Self::Drain => 7,
            Self::Vouch => 8,
        }
    }
}

impl<'a> Key<'a> {
    /// The key as stored.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        match *self {
            Self::Meta(row) => {
                out.put_u8(META);
                out.put_slice(row.name().as_bytes());
            }
            Self::Contact(node) => {
                out.put_u8(CONTACT);
                out.put_slice(node.as_bytes());
            }
            Self::Start(member) => {
                out.put_u8(START);
                put_member(&mut out, member);
            }
            Self::Shard(shard, row) => {
                out.put_u8(SHARD);
                out.put_u32(shard.get());
                out.put_u8(row.tag());
            }
            Self::Record { shard, bucket, key } => {
                out.put_u8(RECORD);
                put_address(&mut out, shard, bucket, key);
            }
            Self::Garbage { shard, bucket, key } => {
                out.put_u8(GARBAGE);
                put_address(&mut out, shard, bucket, key);
            }
            Self::Courtesy { target, shard, bucket, key } => {
                out.put_slice(&[HINT, COURTESY]);
                put_member(&mut out, target);
                put_address(&mut out, shard, bucket, key);
            }
            Self::Held { shard, bucket, key } => {
                out.put_slice(&[HINT, HELD]);
                put_address(&mut out, shard, bucket, key);
            }
            Self::Expiry { at_ms, shard, bucket, key } => {
                out.put_u8(EXPIRY);
                out.put_u64(at_ms);
                put_address(&mut out, shard, bucket, key);
            }
            Self::HintFloor(shard) => {
                out.put_slice(&[HINT, FLOOR]);
                out.put_u32(shard.get());
            }
            Self::Chunk { generation, number } => {
                out.put_u8(CHUNK);
                out.put_u64(generation);
                out.put_u32(number);
            }
        }
        out.freeze()
    }

    /// Reads a stored key. `None` for bytes that no key encodes to.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (prefix, rest) = bytes.split_first()?;
        match *prefix {
            META => {
                MetaRow::ALL.into_iter().find(|row| row.name().as_bytes() == rest).map(Self::Meta)
            }
            CONTACT => Some(Self::Contact(NodeId::from_bytes(rest.try_into().ok()?))),
            START => {
                let (member, rest) = take_member(rest)?;
                rest.is_empty().then_some(Self::Start(member))
            }
            SHARD => {
                let (shard, rest) = take_u32(rest)?;
                let [tag] = *rest else { return None };
                let row = ShardRow::ALL.into_iter().find(|row| row.tag() == tag)?;
                Some(Self::Shard(ShardId::new(shard), row))
            }
            RECORD => {
                let (shard, bucket, key) = take_address(rest)?;
                Some(Self::Record { shard, bucket, key })
            }
            GARBAGE => {
                let (shard, bucket, key) = take_address(rest)?;
                Some(Self::Garbage { shard, bucket, key })
            }
            EXPIRY => {
                let (at_ms, rest) = rest.split_first_chunk::<8>()?;
                let (shard, bucket, key) = take_address(rest)?;
                Some(Self::Expiry { at_ms: u64::from_be_bytes(*at_ms), shard, bucket, key })
            }
            HINT => Self::decode_hint(rest),
            CHUNK => {
                let (generation, rest) = rest.split_first_chunk::<8>()?;
                let number = u32::from_be_bytes(rest.try_into().ok()?);
                Some(Self::Chunk { generation: u64::from_be_bytes(*generation), number })
            }
            _ => None,
        }
    }

    fn decode_hint(bytes: &'a [u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            COURTESY => {
                let (target, rest) = take_member(rest)?;
                let (shard, bucket, key) = take_address(rest)?;
                Some(Self::Courtesy { target, shard, bucket, key })
            }
            HELD => {
                let (shard, bucket, key) = take_address(rest)?;
                Some(Self::Held { shard, bucket, key })
            }
            FLOOR => {
                let shard = u32::from_be_bytes(rest.try_into().ok()?);
                Some(Self::HintFloor(ShardId::new(shard)))
            }
            _ => None,
        }
    }

    fn encoded_len(&self) -> usize {
        let address = |bucket: &str, key: &[u8]| 4 + bucket.len() + 1 + key.len();
        1 + match self {
            Self::Meta(row) => row.name().len(),
            Self::Contact(_) => 16,
            Self::Start(_) => 32,
            Self::Shard(..) | Self::HintFloor(_) => 5,
            Self::Record { bucket, key, .. } | Self::Garbage { bucket, key, .. } => {
                address(bucket, key)
            }
            Self::Courtesy { bucket, key, .. } => 33 + address(bucket, key),
            Self::Held { bucket, key, .. } => 1 + address(bucket, key),
            Self::Expiry { bucket, key, .. } => 8 + address(bucket, key),
            Self::Chunk { .. } => 12,
        }
    }
}

/// True for the key of a record row.
pub(super) fn is_record(key: &[u8]) -> bool {
    key.first() == Some(&RECORD)
}

/// True for the key of a chunk.
pub(super) fn is_chunk(key: &[u8]) -> bool {
    key.first() == Some(&CHUNK)
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rest))
}

fn take_member(bytes: &[u8]) -> Option<(Member, &[u8])> {
    let (node, rest) = bytes.split_first_chunk::<16>()?;
    let (store, rest) = rest.split_first_chunk::<16>()?;
    let member = Member { node: NodeId::from_bytes(*node), store: StoreId::from_bytes(*store) };
    Some((member, rest))
}

fn put_member(out: &mut BytesMut, member: Member) {
    out.put_slice(member.node.as_bytes());
    out.put_slice(member.store.as_bytes());
}

fn take_address(bytes: &[u8]) -> Option<(ShardId, &str, &[u8])> {
    let (shard, rest) = take_u32(bytes)?;
    let end = rest.iter().position(|byte| *byte == BUCKET_END)?;
    let bucket = std::str::from_utf8(&rest[..end]).ok()?;
    Some((ShardId::new(shard), bucket, &rest[end + 1..]))
}

fn put_address(out: &mut BytesMut, shard: ShardId, bucket: &str, key: &[u8]) {
    debug_assert!(!bucket.as_bytes().contains(&BUCKET_END), "bucket names are of [a-z0-9._-]");
    out.put_u32(shard.get());
    out.put_slice(bucket.as_bytes());
    out.put_u8(BUCKET_END);
    out.put_slice(key);
}

/// A half-open range `[start, end)` of stored keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    start: Bytes,
    end: Bytes,
}

impl KeyRange {
    /// All rows of a store but chunks.
    pub fn all() -> Self {
        Self { start: Bytes::from_static(&[CHUNK + 1]), end: Bytes::from_static(&[u8::MAX]) }
    }

    /// The rows on which a store's votes rest: what it is, what it entered, promised and
    /// accepted, of which epochs it will hold nothing, and which starts of others it has recorded. A store that has lost one of them has
    /// forgotten a promise and is worth nothing any more; every other row may be repaired or left out.
    pub fn control() -> [Self; 4] {
        [
            Self::of_prefix(&[META]),
            Self::shard_rows(),
            Self::of_prefix(&[HINT, FLOOR]),
            Self::starts(),
        ]
    }

    /// The recorded starts of other nodes' stores.
    pub fn starts() -> Self {
        Self::of_prefix(&[START])
    }

    /// All contacts.
    pub fn contacts() -> Self {
        Self::of_prefix(&[CONTACT])
    }

    /// The shard rows of all shards.
    pub fn shard_rows() -> Self {
        Self::of_prefix(&[SHARD])
    }

    /// All rows about hints.
    pub fn hints() -> Self {
        Self::of_prefix(&[HINT])
    }

    /// All records.
    pub fn records() -> Self {
        Self::of_prefix(&[RECORD])
    }

    /// The records of one shard.
    pub fn shard_records(shard: ShardId) -> Self {
        let mut prefix = vec![RECORD];
        prefix.extend_from_slice(&shard.get().to_be_bytes());
        Self::of_prefix(&prefix)
    }

    /// The garbage marks of all shards.
    pub fn garbage() -> Self {
        Self::of_prefix(&[GARBAGE])
    }

    /// The garbage marks of one shard.
    pub fn shard_garbage(shard: ShardId) -> Self {
        let mut prefix = vec![GARBAGE];
        prefix.extend_from_slice(&shard.get().to_be_bytes());
        Self::of_prefix(&prefix)
    }

    /// The records of one bucket in one shard.
    pub fn bucket_records(shard: ShardId, bucket: &str) -> Self {
        let mut prefix = BytesMut::with_capacity(6 + bucket.len());
        prefix.put_u8(RECORD);
        put_address(&mut prefix, shard, bucket, &[]);
        Self::of_prefix(&prefix)
    }

    /// The times at which something is due, the earliest first.
    pub fn expiries() -> Self {
        Self::of_prefix(&[EXPIRY])
    }

    /// All chunks.
    pub(super) fn chunks() -> Self {
        Self::of_prefix(&[CHUNK])
    }

    /// Everything, chunks included.
    pub(super) fn everything() -> Self {
        Self { start: Bytes::from_static(&[0]), end: Bytes::from_static(&[u8::MAX]) }
    }

    /// First key that may be inside.
    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// First key that is outside.
    pub fn end(&self) -> &Bytes {
        &self.end
    }

    /// True when `key` is inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start.as_ref() <= key && key < self.end.as_ref()
    }

    /// All keys that begin with `prefix`, which begins with one of the letters above.
    fn of_prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                break;
            }
        }
        Self { start: Bytes::copy_from_slice(prefix), end: end.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record<'a>(shard: u32, bucket: &'a str, key: &'a [u8]) -> Key<'a> {
        Key::Record { shard: ShardId::new(shard), bucket, key }
    }

    #[test]
    fn layouts_are_fixed_for_ever() {
        assert_eq!(Key::Meta(MetaRow::Store).encode(), "Mstore");
        assert_eq!(
            Key::Shard(ShardId::new(258), ShardRow::Acceptor).encode(),
            &b"S\x00\x00\x01\x02\x03"[..]
        );
        let garbage = Key::Garbage { shard: ShardId::new(7), bucket: "music", key: b"k" };
        assert_eq!(garbage.encode(), &b"G\x00\x00\x00\x07music\x00k"[..]);
        assert!(KeyRange::shard_garbage(ShardId::new(7)).contains(&garbage.encode()));
        assert_eq!(record(7, "music", b"k\x00").encode(), &b"R\x00\x00\x00\x07music\x00k\x00"[..]);
        let held = Key::Held { shard: ShardId::new(7), bucket: "any.a", key: b"k" };
        assert_eq!(held.encode(), &b"Th\x00\x00\x00\x07any.a\x00k"[..]);
        assert_eq!(Key::HintFloor(ShardId::new(7)).encode(), &b"Tf\x00\x00\x00\x07"[..]);
        let due = Key::Expiry { at_ms: 3, shard: ShardId::new(7), bucket: "b", key: b"k" };
        assert_eq!(due.encode(), &b"X\0\0\0\0\0\0\0\x03\0\0\0\x07b\0k"[..]);
        let chunk = Key::Chunk { generation: 1, number: 2 };
        assert_eq!(chunk.encode(), &b"C\0\0\0\0\0\0\0\x01\0\0\0\x02"[..]);
    }

    #[test]
    fn every_row_kind_reads_back() {
        let keys = MetaRow::ALL
            .into_iter()
            .map(Key::Meta)
            .chain(ShardRow::ALL.into_iter().map(|row| Key::Shard(ShardId::new(9), row)))
            .chain([
                Key::Contact(NodeId::from_bytes([3; 16])),
                Key::Start(Member {
                    node: NodeId::from_bytes([1; 16]),
                    store: StoreId::from_bytes([2; 16]),
                }),
                Key::Garbage { shard: ShardId::new(9), bucket: "b", key: b"k\x00k" },
                Key::Expiry { at_ms: 1 << 40, shard: ShardId::new(9), bucket: "b", key: b"k\0" },
                Key::Courtesy {
                    target: Member {
                        node: NodeId::from_bytes([1; 16]),
                        store: StoreId::from_bytes([2; 16]),
                    },
                    shard: ShardId::new(3),
                    bucket: "b",
                    key: b"\0k",
                },
                Key::Held { shard: ShardId::new(3), bucket: "b", key: b"k" },
                Key::HintFloor(ShardId::new(u32::MAX)),
                Key::Chunk { generation: u64::MAX, number: 1 },
            ]);
        for key in keys {
            assert_eq!(Key::decode(&key.encode()), Some(key));
            assert_eq!(key.encode().len(), key.encoded_len());
        }
    }

    #[test]
    fn foreign_bytes_are_no_key() {
        for bytes in [
            &b""[..],
            b"Z",
            b"Mother",
            b"S\0\0\0\x01\x63",
            b"R\0\0\0\x01bucket",
            b"C\0",
            b"N\x01",
            b"Tf",
            b"Tx",
        ] {
            assert_eq!(Key::decode(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn the_last_shard_is_a_range_too() {
        let range = KeyRange::shard_records(ShardId::new(u32::MAX));
        assert!(range.contains(&record(u32::MAX, "b", &[0xff; 9]).encode()));
        assert!(!range.contains(&Key::Shard(ShardId::new(0), ShardRow::Acceptor).encode()));
    }

    proptest! {
        #[test]
        fn records_read_back_and_lie_in_their_ranges(
            shard in 0u32..1024, bucket in "[a-z0-9._-]{1,12}", key in proptest::collection::vec(any::<u8>(), 1..20),
            other_shard in 0u32..1024, other_bucket in "[a-z0-9._-]{1,12}",
        ) {
            let row = record(shard, &bucket, &key);
            let stored = row.encode();
            prop_assert_eq!(Key::decode(&stored), Some(row));
            prop_assert_eq!(KeyRange::shard_records(ShardId::new(other_shard)).contains(&stored), shard == other_shard);
            prop_assert_eq!(
                KeyRange::bucket_records(ShardId::new(shard), &other_bucket).contains(&stored),
                bucket == other_bucket
            );
            prop_assert!(KeyRange::records().contains(&stored) && KeyRange::all().contains(&stored));
        }
    }
}
