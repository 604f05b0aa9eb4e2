//! One shard's state at one store: what may it serve, whom may it vote for, what does it owe?
//!
//! [`ShardReplica`] is pure. Every call that changes it returns the rows ([`Durable`]) that
//! must be durable, in one batch, before its answer leaves or anything that depends on the
//! new state is done. All calls go through the store's one committer, in order, so a write
//! and an acceptance for the next epoch never pass each other (design rule D2).
//!
//! - [`check`](ShardReplica::check): may this read, write or mint be served in its epoch?
//! - [`vote`](self): `on_prepare`, `on_accept`, `on_learn` decide and enter configurations.
//! - [`pull_plan`](ShardReplica::pull_plan): from whom does it have to copy, and what for?
//! - `on_merged`, `start_learning`, `purge` follow the [`transfer`](crate::transfer) of data.

mod row;
mod vote;

use triad_ring::ShardId;
use triad_ring::mutant::{Mutant, left_out};

pub use row::{Durable, EnteredRow};

use crate::configuration::{Configuration, Epoch, Phase, majority};
use crate::member::{ActorId, Member, StartNonce};
use crate::message::{Base, PullPurpose, Report, ShardReply, Standing};
use crate::paxos::Acceptor;
use crate::refusal::Refusal;
use crate::start::Witnesses;

/// What a request wants of a replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Access {
    /// Merge a record that a coordinator made.
    Merge,
    /// Answer with the stored record, or its digest.
    Read,
    /// Coordinate a write: mint its dot from the stored record.
    Mint,
}

/// One shard at one store. Its rows survive a crash; what is not in a row is rebuilt.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ShardReplica {
    shard: ShardId,
    me: Member,
    nonce: StartNonce,
    entered: Option<EnteredRow>,
    /// For the epoch after the entered one.
    acceptor: Acceptor,
    /// Volatile: who wants this copy asks again after a restart.
    learning: bool,
    /// Who has recorded this start of the store.
    witnesses: Witnesses,
}

/// From whom a store has to copy a shard, and what makes the copy good.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PullPlan {
    /// The shard.
    pub shard: ShardId,
    /// The epoch that the copy is for; the result counts in no other.
    pub epoch: Epoch,
    /// What it is for.
    pub purpose: PullPurpose,
    /// Who may be copied from.
    pub sources: Vec<Member>,
    /// How many different sources must have been copied from.
    pub needed: usize,
    /// The epoch that a source must have left for ever before its scan begins.
    pub left: Option<Epoch>,
}

impl ShardReplica {
    /// A shard as found in the store (or not) at start. `nonce` is new for every start.
    pub fn restore(
        shard: ShardId,
        me: Member,
        nonce: StartNonce,
        entered: Option<EnteredRow>,
        acceptor: Option<Acceptor>,
    ) -> Self {
        let epoch = entered.as_ref().map(|row| row.configuration.epoch);
        let epoch = epoch.unwrap_or(Epoch::NONE);
        // A row for an older epoch was answered for by the decision that was entered since.
        let acceptor = acceptor.filter(|acceptor| acceptor.base() == epoch);
        Self {
            shard,
            me,
            nonce,
            entered,
            acceptor: acceptor.unwrap_or(Acceptor::new(epoch)),
            learning: false,
            witnesses: Witnesses::NotCounted,
        }
    }

    /// These have recorded this start of the store; until they are enough, it serves nothing and
    /// votes for nothing. A real start begins with [`Witnesses::none`].
    pub fn witnessed_by(&mut self, witnesses: Witnesses) {
        self.witnesses = witnesses;
    }

    /// Whether a majority of the members, on both sides of a joint configuration, have recorded
    /// this start of the store (design rule D6).
    pub fn is_introduced(&self) -> bool {
        let enough = |set: &[Member]| self.witnesses.are_majority_of(set, &self.me);
        self.newest().is_none_or(|known| enough(known.read_set()) && enough(known.new_set()))
    }

    /// The shard of a new cluster, with its first member alone.
    pub fn bootstrap(shard: ShardId, me: Member, nonce: StartNonce) -> (Self, Vec<Durable>) {
        let row = EnteredRow::bootstrap(Configuration::bootstrap(shard, me));
        let replica = Self::restore(shard, me, nonce, Some(row.clone()), None);
        (replica, vec![Durable::Entered(row)])
    }

    /// The newest decided configuration that this store knows; durably.
    pub fn newest(&self) -> Option<&Configuration> {
        self.entered.as_ref().map(|row| &row.configuration)
    }

    /// The durable state, if this store ever heard of the shard.
    pub const fn entered(&self) -> Option<&EnteredRow> {
        self.entered.as_ref()
    }

    /// Whether this store is a member of the newest configuration it knows.
    pub fn is_member(&self) -> bool {
        self.newest().is_some_and(|known| known.is_member(&self.me))
    }

    /// Whether this store accepted a successor and so never serves its epoch again.
    pub fn is_fenced(&self) -> bool {
        self.acceptor.accepted().is_some_and(|(ballot, _)| {
            !left_out(Mutant::HigherPromiseUnfences) || self.acceptor.promised() == Some(*ballot)
        })
    }

    /// May this be done in `epoch`? Exactly the entered epoch is served, by its members,
    /// until they are fenced. To be asked in the committer, and for a read again after it.
    pub fn check(&self, access: Access, epoch: Epoch) -> Result<(), Refusal> {
        let Some(row) = &self.entered else {
            return Err(Refusal::NotMember { newest: None });
        };
        let known = &row.configuration;
        if !known.is_member(&self.me) {
            let newest = Some(known.clone());
            return Err(Refusal::NotMember { newest });
        }
        let other = epoch != known.epoch && !left_out(Mutant::ServesAnyEpoch);
        if other || (self.is_fenced() && !left_out(Mutant::AcceptingDoesNotFence)) {
            let newest = known.clone();
            return Err(Refusal::StaleEpoch { newest });
        }
        if !self.is_introduced() {
            return Err(Refusal::NotIntroduced);
        }
        match access {
            // What it still holds is forgotten; it is empty only when that is deleted.
            Access::Read if row.sweeping => Err(Refusal::Learner),
            Access::Merge if row.sweeping => Err(Refusal::Overloaded),
            // A newcomer takes writes but lacks what was acknowledged before it came.
            Access::Read
                if !known.read_set().contains(&self.me)
                    && !left_out(Mutant::NewcomersAnswerReads) =>
            {
                Err(Refusal::Learner)
            }
            Access::Mint if !row.merged || row.sweeping => Err(Refusal::NotMerged),
            Access::Merge | Access::Read | Access::Mint => Ok(()),
        }
    }

    /// May a record of the epoch `stamp` be merged here, hint or write sent again? Only while
    /// the tombstones of that epoch are kept (design rules D7, D10).
    pub fn check_stamp(&self, stamp: Epoch) -> Result<(), Refusal> {
        let kept = |gc_epoch| {
            stamp > gc_epoch
                || (stamp == gc_epoch && left_out(Mutant::MergesStampOfGcEpoch))
                || left_out(Mutant::StampedRecordsAlwaysMerge)
        };
        let collected = self.newest().is_some_and(|known| !kept(known.gc_epoch));
        if collected { Err(Refusal::Collected) } else { Ok(()) }
    }

    /// Under which actor this store mints now, if it may at all (design rule D5).
    pub fn actor(&self) -> Option<ActorId> {
        let row = self.entered.as_ref()?;
        self.check(Access::Mint, row.configuration.epoch).ok()?;
        let entry = row.tenure?;
        if left_out(Mutant::ActorOutlivesForgetting) {
            return Some(ActorId::of_tenure(self.nonce, self.shard, Epoch::FIRST, 0));
        }
        let store = StartNonce(*self.me.store.as_bytes());
        let nonce = if left_out(Mutant::ActorOutlivesStart) { store } else { self.nonce };
        Some(ActorId::of_tenure(nonce, self.shard, entry, row.forgotten))
    }

    /// Whether a former member may hand its records over: the configuration lists it. `epoch`
    /// is the one in which it read them, and must be this: in another it may have been
    /// written off since, and tombstones collected.
    pub fn takes_push_from(&self, from: &Member, epoch: Epoch) -> bool {
        let listed = |known: &Configuration| {
            (known.epoch == epoch && known.retired.contains(from))
                || left_out(Mutant::TakesAnyHandOver)
        };
        self.is_member() && !self.is_sweeping() && self.newest().is_some_and(listed)
    }

    /// Whether records that a running copy fetched may be merged: its plan stands, and the
    /// source's data epoch, read *before* they were, is not below the gc epoch (a source that
    /// is far behind may hold what was collected since).
    pub fn takes_page(&self, epoch: Epoch, source: Option<Epoch>) -> bool {
        let fresh = |known: &Configuration| source >= Some(known.gc_epoch);
        self.pull_plan().is_some_and(|plan| plan.epoch == epoch) && self.newest().is_some_and(fresh)
    }

    /// What the records of this store are worth: see [`EnteredRow::data_epoch`].
    pub fn data_epoch(&self) -> Option<Epoch> {
        self.entered().and_then(|row| row.data_epoch)
    }

    /// Whether this store may vouch for what it holds ([`gc`](crate::gc)): it serves as a
    /// member of that configuration, which allows a round.
    pub fn may_vouch(&self, base: &Base) -> bool {
        let same = |known: &Configuration| known.may_collect() && Base::of(known) == *base;
        let serves = self.is_member() && !self.is_fenced() && !self.is_sweeping();
        serves && self.is_introduced() && self.newest().is_some_and(same)
    }

    /// The stable configuration to whose members this store, a former one, has to hand over
    /// what they lack ([`Drain`](crate::transfer::Drain)) before it purges its records. While
    /// the shard moves, that waits; and who copies it anew is about to come back.
    pub fn must_drain_to(&self) -> Option<&Configuration> {
        let owes = self.holds_data() && !self.is_member() && self.is_listed_as_retired();
        let owes = owes && !self.learning && !self.is_sweeping();
        self.newest().filter(|known| owes && !known.is_joint())
    }

    /// Whether it holds a copy that nobody waits for any more: it may be purged at once.
    pub fn is_leftover(&self) -> bool {
        let owed = self.is_member() || self.is_listed_as_retired() || self.learning;
        self.holds_data() && !owed
    }

    /// Whether forgotten records may still lie in the store: they must be deleted, and
    /// [`on_swept`](Self::on_swept) told, before anything of the shard is served or taken.
    pub fn is_sweeping(&self) -> bool {
        self.entered.as_ref().is_some_and(|row| row.sweeping)
    }

    fn is_listed_as_retired(&self) -> bool {
        let listed = |known: &Configuration| known.retired.contains(&self.me);
        self.newest().is_some_and(listed)
    }

    fn holds_data(&self) -> bool {
        self.entered.as_ref().is_some_and(|row| row.data_epoch.is_some())
    }

    /// Where this store stands as a source; to be read before its tree is.
    pub fn standing(&self) -> Standing {
        let entered = self.newest().map(|known| known.epoch);
        let promised = self.acceptor.promised().is_some() && left_out(Mutant::PromiseMakesSource);
        let fenced = self.is_fenced() || promised;
        let left = entered.map(|epoch| if fenced { epoch } else { epoch.previous() });
        let source = self.holds_data() && (self.is_member() || self.is_listed_as_retired());
        let source = source && !self.is_sweeping() && self.is_introduced();
        Standing { entered, left, source }
    }

    /// The answer to Progress. `difference` is what a running copy still lacks.
    pub fn report(&self, difference: Option<u32>) -> ShardReply {
        let row = self.entered.as_ref();
        let epoch = row.map(|row| row.configuration.epoch);
        ShardReply::Report(Report {
            entered: epoch,
            fenced: self.is_fenced(),
            declared: epoch.filter(|_| row.is_some_and(|row| row.declared)),
            merged: row.is_some_and(|row| row.merged),
            difference,
            holds_data: self.holds_data(),
        })
    }

    /// What this store has to copy now, if anything. A running copy whose plan is not this
    /// any more is to be dropped: what it did counts for nothing else.
    ///
    /// - In a joint epoch every member of the new side merges from a majority of the old one
    ///   that left the epoch before. Its own store is one of them if it was an old member:
    ///   it left that epoch by entering this one.
    /// - In a stable epoch a member that is not merged (it came through Joint without
    ///   declaring, or skipped an epoch) catches up. Every write acknowledged in an earlier
    ///   epoch is on a majority of the members, each of which had it when it entered this
    ///   epoch. So sources that entered it, and that make a majority *with this store*, hold
    ///   all that this store lacks: if the overlap is this store, then it lacks nothing.
    /// - A learner copies from whichever old member answers; it counts for nothing.
    ///
    /// A member copies only once its start is recorded: nothing that it declares counts before.
    pub fn pull_plan(&self) -> Option<PullPlan> {
        let row = self.entered.as_ref().filter(|row| !row.sweeping)?;
        let known = &row.configuration;
        if self.is_member() && !self.is_introduced() {
            return None;
        }
        let (purpose, set) = match &known.phase {
            Phase::Joint { old, new } if new.contains(&self.me) => {
                (!row.declared).then_some((PullPurpose::Merge, old))?
            }
            Phase::Stable { members } if members.contains(&self.me) => {
                (!row.merged).then_some((PullPurpose::CatchUp, members))?
            }
            Phase::Stable { members: set } | Phase::Joint { old: set, .. } => {
                // A copy that has no data epoch is not begun, or was thrown away.
                let learns = self.learning && !self.is_member() && self.holds_data();
                learns.then_some((PullPurpose::Learn, set))?
            }
        };
        let learns = purpose == PullPurpose::Learn;
        let own = usize::from(set.contains(&self.me));
        let others = set.iter().copied().filter(|member| *member != self.me);
        Some(PullPlan {
            shard: self.shard,
            epoch: known.epoch,
            purpose,
            sources: others.collect(),
            needed: match majority(set.len()) {
                _ if learns => 1,
                _ if left_out(Mutant::MergesFromOne) => 1 - own,
                enough => enough - own,
            },
            left: match known.epoch.previous() {
                _ if learns || left_out(Mutant::MergesFromUnfenced) => None,
                left if left_out(Mutant::MergesFromFencedLongAgo) => Some(left.previous()),
                left => Some(left),
            },
        })
    }

    /// A copy by the plan of `epoch` is complete and its records were committed before this.
    /// In a joint epoch that is the declaration; a plan of another epoch declares nothing.
    pub fn on_merged(&mut self, epoch: Epoch) -> Vec<Durable> {
        if !self.is_introduced() {
            return Vec::new();
        }
        let me = self.me;
        let Some(row) = &mut self.entered else {
            return Vec::new();
        };
        let known = &row.configuration;
        let stays = known.new_set().contains(&me);
        let done = row.merged && row.declared == known.is_joint();
        if known.epoch != epoch || !stays || done || row.sweeping {
            return Vec::new();
        }
        row.merged = true;
        row.declared = known.is_joint();
        vec![Durable::Entered(row.clone())]
    }

    /// Step 0 of a move: copy the shard, without any promise.
    pub fn start_learning(&mut self, base: Configuration) -> (Vec<Durable>, ShardReply) {
        if let Some(known) = self.newest().filter(|known| known.epoch > base.epoch) {
            let newest = known.clone();
            return (Vec::new(), ShardReply::Superseded { newest });
        }
        let epoch = base.epoch;
        let mut durable = self.enter_if_newer(base);
        if !self.is_member()
            && let Some(row) = &mut self.entered
        {
            // It did not vouch for the tombstones of `epoch`, so if they are collected its
            // copy must go too: it is worth what left the epoch before.
            durable.extend(row.begin_copy(epoch.previous()));
            self.learning = true;
        }
        (durable, ShardReply::Learned { epoch })
    }

    /// Whoever wanted the copy has given up: to be called when nobody asked for it again in
    /// the time that a move waits for its newcomers.
    pub const fn stop_learning(&mut self) {
        self.learning = false;
    }

    /// The last forgotten record is deleted, in the batch that these rows go into or before it.
    pub fn on_swept(&mut self) -> Vec<Durable> {
        match &mut self.entered {
            Some(row) if row.sweeping => {
                row.sweeping = false;
                vec![Durable::Entered(row.clone())]
            }
            _ => Vec::new(),
        }
    }

    /// A part of what this store held is lost, though the store is not: whatever it mints from now
    /// on is by another actor, for it may have minted what is lost (design rule D5).
    pub fn on_part_lost(&mut self) -> Vec<Durable> {
        match &mut self.entered {
            Some(row) => {
                row.forgotten = row.forgotten.saturating_add(1);
                vec![Durable::Entered(row.clone())]
            }
            None => Vec::new(),
        }
    }

    /// Forgets the shard's records, after a drain or a copy that led nowhere. A member never
    /// does. The tenure ends in the same batch; what was decided is known for ever.
    pub fn purge(&mut self) -> Vec<Durable> {
        self.learning = false;
        match &mut self.entered {
            Some(row) if !row.configuration.is_member(&self.me) && row.data_epoch.is_some() => {
                row.forget();
                let durable = vec![Durable::Forget(self.shard), Durable::Entered(row.clone())];
                self.entered.take_if(|_| left_out(Mutant::PurgeForgetsEpoch));
                durable
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
