//! What nodes say to each other about one shard: deciding its next configuration
//! ([`ShardRequest`], [`ShardReply`]) and copying its records ([`PullRequest`], [`PullReply`]).
//!
//! Reads and writes of keys are not here: they carry (shard, epoch) and a record.

use bytes::Bytes;
use triad_ring::ShardId;

use crate::anti_entropy::Listing;
use crate::configuration::{Configuration, ConfigurationDigest, Epoch};
use crate::member::Member;
use crate::paxos::Ballot;

/// Names the decided configuration that a proposal builds on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Base {
    /// The shard.
    pub shard: ShardId,
    /// Its epoch e; the proposal is for next(e).
    pub epoch: Epoch,
    /// Its digest: two chains with the same numbers never mix.
    pub digest: ConfigurationDigest,
}

impl Base {
    /// Names `configuration`.
    pub fn of(configuration: &Configuration) -> Self {
        Self {
            shard: configuration.shard,
            epoch: configuration.epoch,
            digest: configuration.digest(),
        }
    }
}

/// Why a move takes a member out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RemovalReason {
    /// The ring order prefers others; the member is fine.
    Displaced,
    /// Its node leaves the cluster.
    Leaving,
    /// Its node now shows another store: the data is gone for ever. Acceptors to which it
    /// shows this store refuse.
    LostStore,
    /// Its node was not heard of for `down_after`. Acceptors that see it alive refuse.
    Down,
}

/// One member that a move takes out, and why.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Removal {
    /// The member.
    pub member: Member,
    /// The reason.
    pub reason: RemovalReason,
}

/// A request about a shard's configuration, answered by a [`ShardReply`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ShardRequest {
    /// Phase 1 of a ballot for the epoch after `base`. It carries the whole (decided)
    /// configuration, so that an acceptor that is behind enters it first.
    Prepare {
        /// The decided configuration that is to be followed.
        base: Configuration,
        /// The ballot.
        ballot: Ballot,
        /// Whom the proposer means to take out, if it is free to choose.
        removals: Vec<Removal>,
    },
    /// Phase 2 of a ballot. Who accepts is fenced for ever.
    Accept {
        /// The decided configuration that is to be followed.
        base: Base,
        /// The ballot.
        ballot: Ballot,
        /// The configuration to accept.
        value: Configuration,
    },
    /// This configuration is decided.
    Learn {
        /// The decided configuration.
        configuration: Configuration,
    },
    /// Copy the shard as a learner, without any promise.
    StartLearning {
        /// The configuration to copy from.
        base: Configuration,
    },
    /// How far are you?
    Progress {
        /// The shard.
        shard: ShardId,
    },
}

impl ShardRequest {
    /// The shard that the request is about.
    pub const fn shard(&self) -> ShardId {
        match self {
            Self::Prepare { base, .. } | Self::StartLearning { base } => base.shard,
            Self::Accept { base, .. } => base.shard,
            Self::Learn { configuration } => configuration.shard,
            Self::Progress { shard } => *shard,
        }
    }
}

/// The answer to a [`ShardRequest`]; whatever it says is durable.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ShardReply {
    /// To Prepare: no lower ballot will be accepted any more.
    Promised {
        /// The ballot that was promised.
        ballot: Ballot,
        /// The highest acceptance so far.
        accepted: Option<(Ballot, Configuration)>,
    },
    /// To Prepare and Accept: a ballot that is not lower was promised already.
    Rejected {
        /// The promised ballot.
        promised: Ballot,
    },
    /// To Accept: accepted, and fenced for the base's epoch.
    Accepted {
        /// The ballot that was accepted.
        ballot: Ballot,
    },
    /// The request builds on a configuration that is not the newest decided one.
    Superseded {
        /// The newest decided configuration known here.
        newest: Configuration,
    },
    /// To Accept: the base is not known here yet. Send it with Learn, then ask again.
    Behind {
        /// The newest epoch known here.
        newest: Option<Epoch>,
    },
    /// To Prepare: a member that is to be removed as down is alive, seen from here.
    RemovalRefused {
        /// The member.
        member: Member,
    },
    /// This store has no say here: it is no acceptor, or the value is no legal successor.
    Refused,
    /// To Learn and `StartLearning`: this is the newest decided epoch known here.
    Learned {
        /// That epoch.
        epoch: Epoch,
    },
    /// To Progress.
    Report(Report),
}

/// How far one store is with a shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Report {
    /// The epoch of the newest decided configuration known here.
    pub entered: Option<Epoch>,
    /// Whether it will never serve that epoch (it accepted a successor).
    pub fenced: bool,
    /// The joint epoch for which it durably declared itself merged, if that is `entered`.
    pub declared: Option<Epoch>,
    /// Whether it may mint: it holds all that was acknowledged before `entered`.
    pub merged: bool,
    /// How many hash-tree leaves a running copy still has to fetch; none when no comparison
    /// finished yet or no copy runs.
    pub difference: Option<u32>,
    /// Whether it holds any record of the shard, or might.
    pub holds_data: bool,
}

/// Why a store asks another for its hash tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PullPurpose {
    /// A learner copies, without any promise.
    Learn,
    /// A member of a joint configuration merges, to declare itself.
    Merge,
    /// A member of a stable configuration that is not merged catches up.
    CatchUp,
    /// A retired member looks for what the members lack.
    Drain,
    /// A member of a stable configuration looks for what the two of them do not share.
    AntiEntropy,
}

/// Bulk copying between stores, answered by a [`PullReply`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum PullRequest {
    /// Compare hash trees.
    Tree {
        /// The shard.
        shard: ShardId,
        /// The epoch that the asker is in.
        epoch: Epoch,
        /// The root of the asker's tree, as a big-endian number.
        root: u128,
        /// Why it asks.
        purpose: PullPurpose,
    },
    /// Send the records of some leaves, page by page.
    Page {
        /// The shard.
        shard: ShardId,
        /// The epoch that the asker is in.
        epoch: Epoch,
        /// The numbers of the wanted leaves.
        leaves: Vec<u8>,
        /// Where the last page ended; none for the first.
        after: Option<PageCursor>,
        /// A page has at most about this many bytes (one record is always allowed).
        max_bytes: u32,
    },
    /// Tell the keys of some leaves, with what each adds to its leaf, page by page.
    List {
        /// The shard.
        shard: ShardId,
        /// The epoch that the asker is in.
        epoch: Epoch,
        /// The numbers of the wanted leaves.
        leaves: Vec<u8>,
        /// Where the page begins; none for the first.
        after: Option<PageCursor>,
    },
    /// A retired member hands over what it holds.
    Push {
        /// The shard.
        shard: ShardId,
        /// The configuration in which the sender is retired.
        epoch: Epoch,
        /// The sender, as the configuration's retired list names it.
        from: Member,
        /// The records.
        records: Vec<PulledRecord>,
    },
}

impl PullRequest {
    /// The shard that the request is about.
    pub const fn shard(&self) -> ShardId {
        match self {
            Self::Tree { shard, .. }
            | Self::Page { shard, .. }
            | Self::List { shard, .. }
            | Self::Push { shard, .. } => *shard,
        }
    }
}

/// Where a page of records ended, as the source understands it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageCursor(pub Bytes);

/// One row as two stores compare it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ListedRow {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: Bytes,
    /// What it adds to its leaf; none for a row that cannot be read.
    pub hash: Option<u128>,
}

/// One record on its way between stores.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PulledRecord {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: Bytes,
    /// The encoded record.
    pub record: Bytes,
}

/// The answer to a [`PullRequest`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum PullReply {
    /// To Tree.
    Tree {
        /// Where the source stands; read *before* the tree.
        standing: Standing,
        /// Whether the roots are equal.
        same: bool,
        /// The source's leaves, 256 of them; empty when the roots are equal.
        leaves: Vec<u128>,
    },
    /// To Page.
    Page {
        /// The records, in the source's order.
        records: Vec<PulledRecord>,
        /// The source's data epoch, read before the records were: what they are worth.
        data_epoch: Option<Epoch>,
        /// Where to go on; none when that was all.
        next: Option<PageCursor>,
    },
    /// To List.
    List(Listing),
    /// To Push: all records are durable.
    Pushed,
    /// The asked store is no source (or no receiver) for this shard now.
    Refused {
        /// The newest decided configuration known here.
        newest: Option<Configuration>,
    },
}

/// Where a store stands with a shard, durably.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Standing {
    /// The epoch of the newest decided configuration it knows.
    pub entered: Option<Epoch>,
    /// The greatest epoch that it will never serve (again).
    pub left: Option<Epoch>,
    /// Whether it holds the shard's data as a member or a retired member does: a learner
    /// or a purged store is no source.
    pub source: bool,
}
