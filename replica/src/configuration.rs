//! Who may acknowledge for a shard: its configuration, and the epochs that order them.
//!
//! A configuration is either *stable* (one set of members) or *joint* (the move from an old
//! set to a new one is under way). Each is decided once, by the members of the one before
//! (see [`paxos`](crate::paxos)), so the configurations of a shard form one chain. The idea
//! is that of Raft's joint consensus and of Lamport, Malkhi, Zhou, *Vertical Paxos*, §3;
//! that shards own themselves is from Glendenning et al., *Scatter*, §3.
//!
//! ```text
//! Stable(e, M) ──► Joint(e+1, M, M') ──► Stable(e+2, M')    the move went forward
//!      │                    └──────────► Stable(e+2, M)     it was given up
//!      ├─────────► Stable(e+1, M)                           always allowed, needs no transfer
//!      └─────────► Stable(e+1, M, collected)                drops tombstones: see gc.rs
//! ```

mod codec;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use triad_ring::mutant::{Mutant, left_out};
use triad_ring::{NodeId, ShardId};

pub use codec::BadRow;
pub(crate) use codec::{Reader, Writer};

use crate::gc::GcDigest;
use crate::member::Member;

/// The most members one side of a configuration may have.
pub const MAX_MEMBERS: usize = 32;

/// The most retired members a configuration lists; with more undrained, no move may start.
pub const MAX_RETIRED: usize = 64;

/// A place in the chain of a shard's configurations: a lineage (raised only by an operator's
/// `force`) and a number in it. Ordered by lineage first; shown as `lineage.number`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Raised when an operator forces a shard that lost its majority; 1 from the start.
    pub lineage: u32,
    /// The number in the lineage, from 1.
    pub number: u64,
}

impl Epoch {
    /// Before every epoch: the gc epoch of a shard that never collected a tombstone.
    pub const NONE: Self = Self { lineage: 0, number: 0 };

    /// The epoch of a cluster's first configurations.
    pub const FIRST: Self = Self { lineage: 1, number: 1 };

    /// The epoch that a configuration of this one decides.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { lineage: self.lineage, number: self.number.saturating_add(1) }
    }

    /// The greatest epoch below this one: what a member that entered it has left.
    #[must_use]
    pub const fn previous(self) -> Self {
        match (self.number, self.lineage) {
            (0 | 1, 0 | 1) => Self::NONE,
            (0 | 1, lineage) => Self { lineage: lineage - 1, number: u64::MAX },
            (number, lineage) => Self { lineage, number: number - 1 },
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.lineage, self.number)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

/// A text that is not `lineage.number`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an epoch is `lineage.number`, such as 1.7, not `{0}`")]
pub struct BadEpoch(String);

impl FromStr for Epoch {
    type Err = BadEpoch;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadEpoch(text.to_owned());
        let (lineage, number) = text.split_once('.').ok_or_else(bad)?;
        Ok(Self {
            lineage: lineage.parse().map_err(|_| bad())?,
            number: number.parse().map_err(|_| bad())?,
        })
    }
}

/// Whether a shard's members are settled or on the move. The lists are in ring order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// One set of members answers for the shard.
    Stable {
        /// The members, distinct nodes, the first in ring order first.
        members: Vec<Member>,
    },
    /// A move is under way: writes need both sides, reads ask the old one.
    Joint {
        /// M: the members of the stable configuration before.
        old: Vec<Member>,
        /// M': the members of the stable configuration that the move wants.
        new: Vec<Member>,
    },
}

/// Who may acknowledge for one shard in one epoch.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Configuration {
    /// The shard.
    pub shard: ShardId,
    /// The epoch, decided once by the members of the one before.
    pub epoch: Epoch,
    /// The members.
    pub phase: Phase,
    /// Tombstones of this epoch and earlier are gone (design rule D7).
    pub gc_epoch: Epoch,
    /// What every member vouched for in the epoch before, and drops as it enters this one
    /// from there. Some exactly when this configuration raised the gc epoch: so two rounds
    /// of one epoch, over different tombstones, are two values for one ballot box. (Boxed,
    /// because refusals carry configurations, and hardly one of them has this.)
    pub collected: Option<Box<GcDigest>>,
    /// Former members that may still hold what no member holds.
    pub retired: Vec<Member>,
}

/// Names one decided configuration exactly, in messages that build on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigurationDigest([u8; 16]);

impl ConfigurationDigest {
    /// Wraps 16 bytes as received.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes as sent.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for ConfigurationDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfigurationDigest(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// A configuration that breaks a rule, however it came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadConfiguration {
    /// A side has no members.
    #[error("a configuration needs at least one member on each side")]
    NoMembers,
    /// A side has more than [`MAX_MEMBERS`].
    #[error("a side of a configuration has {0} members, at most {MAX_MEMBERS} are allowed")]
    TooManyMembers(usize),
    /// The retired list is longer than [`MAX_RETIRED`].
    #[error("a configuration lists {0} retired members, at most {MAX_RETIRED} are allowed")]
    TooManyRetired(usize),
    /// Members of one side are not distinct nodes (design rule R5).
    #[error("node {0} is twice on one side of a configuration")]
    SameNodeTwice(NodeId),
    /// The two sides of a joint configuration are the same set.
    #[error("both sides of a joint configuration are the same set")]
    NoMove,
    /// It names collected tombstones, but is joint, or its gc epoch is not the one before.
    #[error("a configuration collects tombstones only of the epoch before, and when stable")]
    NoCollection,
}

impl Configuration {
    /// The first configuration of a shard: the bootstrap node alone.
    pub fn bootstrap(shard: ShardId, member: Member) -> Self {
        Self {
            shard,
            epoch: Epoch::FIRST,
            phase: Phase::Stable { members: vec![member] },
            gc_epoch: Epoch::NONE,
            collected: None,
            retired: Vec::new(),
        }
    }

    /// Checks what every configuration keeps; decoding and conversions call it.
    pub fn validated(self) -> Result<Self, BadConfiguration> {
        match &self.phase {
            Phase::Stable { members } => check_side(members)?,
            Phase::Joint { old, new } => {
                check_side(old)?;
                check_side(new)?;
                if same_set(old, new) {
                    return Err(BadConfiguration::NoMove);
                }
            }
        }
        if self.retired.len() > MAX_RETIRED {
            return Err(BadConfiguration::TooManyRetired(self.retired.len()));
        }
        if self.collected.is_some() && (self.is_joint() || self.gc_epoch.next() != self.epoch) {
            return Err(BadConfiguration::NoCollection);
        }
        Ok(self)
    }

    /// Whether a move is under way.
    pub const fn is_joint(&self) -> bool {
        matches!(self.phase, Phase::Joint { .. })
    }

    /// The members that reads ask, and the acceptors of the next epoch: in a joint
    /// configuration the old side alone, so that dead newcomers freeze nothing.
    pub fn read_set(&self) -> &[Member] {
        match &self.phase {
            Phase::Stable { members } => members,
            Phase::Joint { old, .. } => old,
        }
    }

    /// The members that will stay: in a joint configuration the new side.
    pub fn new_set(&self) -> &[Member] {
        match &self.phase {
            Phase::Stable { members } => members,
            Phase::Joint { new, .. } => new,
        }
    }

    /// Everybody who may acknowledge: the old side, then the newcomers.
    pub fn members(&self) -> Vec<Member> {
        let mut all = self.read_set().to_vec();
        all.extend(self.newcomers());
        all
    }

    /// The members of the new side that are not on the old one; none when stable.
    pub fn newcomers(&self) -> impl Iterator<Item = Member> {
        let old = self.read_set();
        self.new_set().iter().copied().filter(|member| !old.contains(member))
    }

    /// Whether this member may acknowledge.
    pub fn is_member(&self, member: &Member) -> bool {
        self.read_set().contains(member) || self.new_set().contains(member)
    }

    /// Whether this member alone acknowledges.
    pub fn is_only(&self, member: &Member) -> bool {
        matches!(&self.phase, Phase::Stable { members } if members[..] == [*member])
    }

    /// Names exactly this configuration.
    pub fn digest(&self) -> ConfigurationDigest {
        let hash: [u8; 32] = Sha256::digest(self.encode()).into();
        let mut short = [0; 16];
        short.copy_from_slice(&hash[..16]);
        ConfigurationDigest(short)
    }

    /// Whether `next` may be decided for the epoch after this configuration's. Forward needs
    /// evidence on top (the declarations), which only its proposer can check.
    pub fn may_be_followed_by(&self, next: &Self) -> bool {
        let legal_phase = match (&self.phase, &next.phase) {
            (Phase::Stable { members }, Phase::Stable { members: after }) => {
                same_set(members, after)
            }
            (Phase::Stable { members }, Phase::Joint { old, .. }) => same_set(members, old),
            (Phase::Joint { old, new }, Phase::Stable { members }) => {
                same_set(members, new) || same_set(members, old)
            }
            (Phase::Joint { .. }, Phase::Joint { .. }) => false,
        };
        next.shard == self.shard
            && next.epoch == self.epoch.next()
            && legal_phase
            && self.legal_gc(next)
            && self.legal_retired(next)
            && next.clone().validated().is_ok()
    }

    /// Tombstones go only by deciding the same members anew (design rule D7), and not while a
    /// former member is listed: what it holds it may still hand over.
    fn legal_gc(&self, next: &Self) -> bool {
        let drained = next.retired.is_empty() || left_out(Mutant::CollectsWhileRetired);
        match next.collected {
            None => next.gc_epoch == self.gc_epoch,
            Some(_) => self.may_collect() && drained && next.gc_epoch == self.epoch,
        }
    }

    /// Whether the epoch after this configuration's may drop tombstones.
    pub fn may_collect(&self) -> bool {
        let drained = self.retired.is_empty() || left_out(Mutant::CollectsWhileRetired);
        !self.is_joint() && drained
    }

    /// The configuration that drops, in the epoch after this one, what `digest` names.
    #[must_use]
    pub fn collecting(&self, digest: GcDigest) -> Self {
        Self {
            epoch: self.epoch.next(),
            gc_epoch: self.epoch,
            collected: Some(Box::new(digest)),
            ..self.clone()
        }
    }

    /// Whoever ceases to be a member is listed, and nobody is listed out of the blue.
    fn legal_retired(&self, next: &Self) -> bool {
        let leaving = |member: &Member| !next.is_member(member);
        let all_listed = self
            .members()
            .iter()
            .filter(|member| leaving(member))
            .all(|member| next.retired.contains(member));
        let none_invented = next.retired.iter().all(|member| {
            leaving(member) && (self.retired.contains(member) || self.is_member(member))
        });
        all_listed && none_invented
    }

    /// The row as stored and hashed, format version first.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.configuration(self);
        writer.finish()
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(row: &[u8]) -> Result<Self, BadRow> {
        let mut reader = Reader::new(row);
        let configuration = reader.configuration()?;
        reader.finish()?;
        Ok(configuration)
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = |members: &[Member]| {
            let names: Vec<_> = members.iter().map(|m| m.node.to_string()).collect();
            names.join(", ")
        };
        match &self.phase {
            Phase::Stable { members } => write!(f, "Stable({}, {})", self.epoch, nodes(members)),
            Phase::Joint { old, new } => {
                let (old, new) = (nodes(old), nodes(new));
                write!(f, "Joint({}, {old} -> {new})", self.epoch)
            }
        }
    }
}

/// The smallest count of which any two overlap in a set of `size`.
pub const fn majority(size: usize) -> usize {
    size / 2 + 1
}

/// Whether two lists name the same members, in whatever order.
pub fn same_set(left: &[Member], right: &[Member]) -> bool {
    left.iter().collect::<BTreeSet<_>>() == right.iter().collect::<BTreeSet<_>>()
}

fn check_side(members: &[Member]) -> Result<(), BadConfiguration> {
    if members.is_empty() {
        return Err(BadConfiguration::NoMembers);
    }
    if members.len() > MAX_MEMBERS {
        return Err(BadConfiguration::TooManyMembers(members.len()));
    }
    let mut nodes = BTreeSet::new();
    for member in members {
        if !nodes.insert(member.node) {
            return Err(BadConfiguration::SameNodeTwice(member.node));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
