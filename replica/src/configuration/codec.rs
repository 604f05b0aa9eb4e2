//! How configurations and ballots lie on disk: fixed-width big-endian fields, every list
//! with its length first and bounded, a format version at the head of each row.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use triad_ring::{NodeId, ShardId};

use super::{BadConfiguration, Configuration, Epoch, MAX_MEMBERS, MAX_RETIRED, Phase};
use crate::gc::GcDigest;
use crate::member::{Member, StoreId};

/// The version of the configuration row written today.
const CONFIGURATION_FORMAT: u8 = 1;

const STABLE: u8 = 0;
const JOINT: u8 = 1;

/// A stored row that is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRow {
    /// The row ends early.
    #[error("the row is cut short")]
    Short,
    /// The row goes on after its last field.
    #[error("the row has {0} bytes too many")]
    Long(usize),
    /// A newer (or no) Triad wrote it.
    #[error("the row has format version {0}, which this version does not know")]
    Version(u8),
    /// A tag has no meaning.
    #[error("the row has the unknown tag {0}")]
    Tag(u8),
    /// A list is longer than its limit.
    #[error("the row has a list of {0}, at most {1} are allowed")]
    TooMany(usize, usize),
    /// It holds a configuration that breaks a rule.
    #[error(transparent)]
    Configuration(#[from] BadConfiguration),
}

/// Writes the fields of a row, one after the other.
pub(crate) struct Writer(BytesMut);

impl Writer {
    pub(crate) fn new() -> Self {
        Self(BytesMut::with_capacity(256))
    }

    pub(crate) fn finish(self) -> Bytes {
        self.0.freeze()
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.put_u8(value);
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.put_u64(value);
    }

    pub(crate) fn flag(&mut self, value: bool) {
        self.0.put_u8(u8::from(value));
    }

    pub(crate) fn bytes16(&mut self, bytes: &[u8; 16]) {
        self.0.put_slice(bytes);
    }

    /// A length (four bytes), then the bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        // Keys and names are limited to a few KiB; a longer one would not decode.
        self.0.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.0.put_slice(bytes);
    }

    pub(crate) fn node(&mut self, node: NodeId) {
        self.0.put_slice(node.as_bytes());
    }

    pub(crate) fn epoch(&mut self, epoch: Epoch) {
        self.0.put_u32(epoch.lineage);
        self.0.put_u64(epoch.number);
    }

    /// A presence flag, then the value.
    pub(crate) fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(crate) fn configuration(&mut self, configuration: &Configuration) {
        self.u8(CONFIGURATION_FORMAT);
        self.0.put_u32(configuration.shard.get());
        self.epoch(configuration.epoch);
        match &configuration.phase {
            Phase::Stable { members } => {
                self.u8(STABLE);
                self.members(members);
            }
            Phase::Joint { old, new } => {
                self.u8(JOINT);
                self.members(old);
                self.members(new);
            }
        }
        self.epoch(configuration.gc_epoch);
        self.optional(configuration.collected.as_ref(), |writer, digest| {
            writer.bytes16(&digest.0);
        });
        self.members(&configuration.retired);
    }

    fn members(&mut self, members: &[Member]) {
        // Validated configurations stay far below 255; a longer list would not decode.
        self.u8(u8::try_from(members.len()).unwrap_or(u8::MAX));
        for member in members {
            self.node(member.node);
            self.0.put_slice(member.store.as_bytes());
        }
    }
}

/// Reads the fields of a row, one after the other; never reads past the end.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(row: &'a [u8]) -> Self {
        Self(row)
    }

    pub(crate) fn finish(self) -> Result<(), BadRow> {
        match self.0.len() {
            0 => Ok(()),
            more => Err(BadRow::Long(more)),
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, BadRow> {
        self.0.try_get_u8().map_err(|_| BadRow::Short)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, BadRow> {
        self.0.try_get_u32().map_err(|_| BadRow::Short)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, BadRow> {
        self.0.try_get_u64().map_err(|_| BadRow::Short)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, BadRow> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(BadRow::Tag(tag)),
        }
    }

    pub(crate) fn version(&mut self, known: u8) -> Result<(), BadRow> {
        match self.u8()? {
            version if version == known => Ok(()),
            version => Err(BadRow::Version(version)),
        }
    }

    pub(crate) fn bytes16(&mut self) -> Result<[u8; 16], BadRow> {
        let mut bytes = [0; 16];
        self.0.try_copy_to_slice(&mut bytes).map_err(|_| BadRow::Short)?;
        Ok(bytes)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], BadRow> {
        let length = self.u32()? as usize;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(BadRow::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn node(&mut self) -> Result<NodeId, BadRow> {
        Ok(NodeId::from_bytes(self.bytes16()?))
    }

    pub(crate) fn epoch(&mut self) -> Result<Epoch, BadRow> {
        Ok(Epoch { lineage: self.u32()?, number: self.u64()? })
    }

    pub(crate) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, BadRow>,
    ) -> Result<Option<T>, BadRow> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(crate) fn configuration(&mut self) -> Result<Configuration, BadRow> {
        self.version(CONFIGURATION_FORMAT)?;
        let shard = ShardId::new(self.u32()?);
        let epoch = self.epoch()?;
        let phase = match self.u8()? {
            STABLE => Phase::Stable { members: self.members(MAX_MEMBERS)? },
            JOINT => {
                Phase::Joint { old: self.members(MAX_MEMBERS)?, new: self.members(MAX_MEMBERS)? }
            }
            tag => return Err(BadRow::Tag(tag)),
        };
        let configuration = Configuration {
            shard,
            epoch,
            phase,
            gc_epoch: self.epoch()?,
            collected: self.optional(|reader| Ok(Box::new(GcDigest(reader.bytes16()?))))?,
            retired: self.members(MAX_RETIRED)?,
        };
        Ok(configuration.validated()?)
    }

    fn members(&mut self, limit: usize) -> Result<Vec<Member>, BadRow> {
        let count = usize::from(self.u8()?);
        if count > limit {
            return Err(BadRow::TooMany(count, limit));
        }
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members
                .push(Member { node: self.node()?, store: StoreId::from_bytes(self.bytes16()?) });
        }
        Ok(members)
    }
}
