//! The durable state of a shard at a store, and how it follows from one epoch to the next.

use bytes::Bytes;
use triad_ring::ShardId;
use triad_ring::mutant::{Mutant, left_out};

use crate::configuration::{BadRow, Configuration, Epoch, Phase, Reader, Writer, same_set};
use crate::gc::GcDigest;
use crate::member::Member;
use crate::paxos::Acceptor;
use crate::store::key::ShardRow;

/// The version of the entered row written today.
const ENTERED_FORMAT: u8 = 2;

/// A change of rows; those of one call go into one batch.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Durable {
    /// Write the shard's [`EnteredRow`].
    Entered(EnteredRow),
    /// Write the shard's acceptor.
    Acceptor(Acceptor),
    /// No record of the shard is worth anything any more: delete them all, in this batch or, as the row
    /// says that they are [leftovers](EnteredRow::sweeping), in later ones. Tell
    /// [`on_swept`](super::ShardReplica::on_swept) when the last is gone.
    Forget(ShardId),
    /// A round of the epoch that was left is over ([`gc`](crate::gc)): prune what the vouch
    /// row lists if it is the one named, and delete that row.
    EndRound {
        /// The shard.
        shard: ShardId,
        /// What was decided to be collected; none when the round is void.
        collected: Option<GcDigest>,
    },
}

impl Durable {
    /// Under which key of the shard the row lies, and its bytes; none for those that are more
    /// than one row.
    pub fn row(&self) -> Option<(ShardRow, Bytes)> {
        match self {
            Self::Entered(row) => Some((ShardRow::Entered, row.encode())),
            Self::Acceptor(acceptor) => Some((ShardRow::Acceptor, acceptor.encode())),
            Self::Forget(_) | Self::EndRound { .. } => None,
        }
    }
}

/// The newest decided configuration that a store knows, member or not, and what the store
/// is worth in it. It only ever moves to greater epochs and outlives the data.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EnteredRow {
    /// The configuration.
    pub configuration: Configuration,
    /// The last epoch entered as member or joiner (not the highest heard of); none when no
    /// record of the shard is held.
    pub data_epoch: Option<Epoch>,
    /// Since which epoch it has been a member without a gap; none for others.
    pub tenure: Option<Epoch>,
    /// How often this store forgot the shard, or a part of it, or was told to collect
    /// tombstones: each begins another actor.
    pub forgotten: u64,
    /// A member that holds all that was acknowledged before it entered: it may mint.
    pub merged: bool,
    /// It declared itself merged, for this joint epoch and no other (design rule D4).
    pub declared: bool,
    /// Records that the store has forgotten may still lie in it. Until they are deleted nothing
    /// of the shard is served, taken or compared here, so nobody ever meets one.
    pub sweeping: bool,
}

impl EnteredRow {
    /// The state of the one member of a new cluster.
    pub(super) const fn bootstrap(configuration: Configuration) -> Self {
        let epoch = configuration.epoch;
        Self {
            configuration,
            data_epoch: Some(epoch),
            tenure: Some(epoch),
            forgotten: 0,
            merged: true,
            declared: false,
            sweeping: false,
        }
    }

    /// The state of a store that hears of the shard for the first time.
    fn stranger(configuration: Configuration) -> Self {
        Self { data_epoch: None, tenure: None, merged: false, ..Self::bootstrap(configuration) }
    }

    /// The state after `was` as `next` is entered, and whether the records must go in the
    /// same batch, before the first write or merge: their data epoch is below the gc epoch.
    pub(super) fn following(was: Option<Self>, next: Configuration, me: Member) -> (Self, bool) {
        let Some(was) = was else {
            return (Self::stranger(next).admitted(me), false);
        };
        // Member or not: what is too old to be merged is too old to be kept for anything.
        let discards = was.data_epoch.is_some_and(|at| at < next.gc_epoch)
            && !left_out(Mutant::StaleStoreKeepsRecords);
        let continues = !discards && was.continues_into(&next, me);
        let merged = continues && was.stays_merged(&next);
        let tenure = was.tenure.filter(|_| continues);
        // Whether or not this member prunes: the actor must not go on (see gc.rs, point 4).
        let collects = u64::from(continues && next.collected.is_some());
        let forgotten = was.forgotten.saturating_add(collects);
        let declared = was.declared && left_out(Mutant::DeclarationOutlivesEpoch);
        let mut row = Self { configuration: next, tenure, merged, declared, forgotten, ..was };
        if discards {
            row.forget();
        }
        (row.admitted(me), discards)
    }

    /// Raises the data epoch, and begins a tenure where none goes on.
    fn admitted(mut self, me: Member) -> Self {
        let epoch = self.configuration.epoch;
        if self.configuration.is_member(&me) {
            self.data_epoch = Some(epoch);
            self.tenure = self.tenure.or(Some(epoch));
            // Who is alone has nobody to copy from: after an operator's force it serves at once.
            self.merged |= self.configuration.is_only(&me) && !self.sweeping;
        } else if left_out(Mutant::DataEpochFollowsHearsay) {
            self.data_epoch = self.data_epoch.map(|_| epoch);
        }
        self
    }

    /// A member of both, with no epoch skipped between.
    pub(super) fn continues_into(&self, next: &Configuration, me: Member) -> bool {
        let was = &self.configuration;
        was.epoch.next() == next.epoch && was.is_member(&me) && next.is_member(&me)
    }

    /// A move that went forward keeps those merged who declared so; for all else the members
    /// were counted in every quorum of the epoch that ends, and are what they were.
    fn stays_merged(&self, next: &Configuration) -> bool {
        match &self.configuration.phase {
            Phase::Joint { new, .. } if same_set(new, next.new_set()) => self.declared,
            Phase::Joint { .. } | Phase::Stable { .. } => self.merged,
        }
    }

    /// No record is held any more, and whatever is minted later is by another actor.
    pub(super) fn forget(&mut self) {
        self.data_epoch = None;
        self.tenure = None;
        self.merged = false;
        self.declared = false;
        self.forgotten = self.forgotten.saturating_add(1);
        self.sweeping = true;
    }

    /// Whether the records are of a lineage that an operator's force has ended: they count for
    /// nothing in this one (design rule D1). A copy begun in a lineage's first epoch is worth
    /// what comes just before it, and is none of these.
    pub fn holds_ended_lineage(&self) -> bool {
        let lineage = self.configuration.epoch.lineage;
        self.data_epoch.is_some_and(|at| (1..lineage).contains(&at.lineage) && at.number < u64::MAX)
    }

    /// Becomes a learner's copy, worth `epoch`; older data goes if tombstones went since, or if
    /// it is of an ended lineage.
    pub(super) fn begin_copy(&mut self, epoch: Epoch) -> Vec<Durable> {
        let gc_epoch = self.configuration.gc_epoch;
        let collected = self.data_epoch.is_some_and(|at| at < gc_epoch)
            && !left_out(Mutant::StaleStoreKeepsRecords);
        let stale = collected || self.holds_ended_lineage();
        if stale {
            self.forget();
        }
        let before = self.data_epoch;
        self.data_epoch = before.max(Some(epoch));
        let mut durable = Vec::new();
        if stale {
            durable.push(Durable::Forget(self.configuration.shard));
        }
        if stale || before != self.data_epoch {
            durable.push(Durable::Entered(self.clone()));
        }
        durable
    }

    /// The row as stored.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u8(ENTERED_FORMAT);
        writer.configuration(&self.configuration);
        writer.optional(self.data_epoch, Writer::epoch);
        writer.optional(self.tenure, Writer::epoch);
        writer.u64(self.forgotten);
        writer.flag(self.merged);
        writer.flag(self.declared);
        writer.flag(self.sweeping);
        writer.finish()
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(row: &[u8]) -> Result<Self, BadRow> {
        let mut reader = Reader::new(row);
        reader.version(ENTERED_FORMAT)?;
        let entered = Self {
            configuration: reader.configuration()?,
            data_epoch: reader.optional(Reader::epoch)?,
            tenure: reader.optional(Reader::epoch)?,
            forgotten: reader.u64()?,
            merged: reader.flag()?,
            declared: reader.flag()?,
            sweeping: reader.flag()?,
        };
        reader.finish()?;
        Ok(entered)
    }
}
