//! The only writer of this node's store.
//!
//! Everything that changes data or votes is an [`Operation`] in one queue, taken in groups by
//! one committer thread: one batch, one sync, then all answers. Epochs are checked there, in
//! order, so an acceptance that is durable is never followed by a write of the epoch it
//! closed (design rule D2). Reads go beside the queue and check their epoch again after
//! reading.

mod build;
mod committer;
mod damage;
mod garbage;
mod group;
mod hints;
mod list;
mod mend;
mod operation;
mod queue;
mod scrub;
mod shards;
mod sweep;
mod trees;
mod wanted;

#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use triad_replica::configuration::Epoch;
use triad_replica::gc::{VouchReply, VouchRequest};
use triad_replica::hint::{Due, HeldRecord};
use triad_replica::member::Member;
use triad_replica::message::{PulledRecord, ShardReply, ShardRequest};
use triad_replica::record::{Basis, Change, Limits, Record};
use triad_replica::refusal::Refusal;
use triad_replica::shard::ShardReplica;
use triad_replica::start::Witnesses;
use triad_replica::store::{Batch, Key, Store, StoreError, StoreStats};
use triad_ring::{ShardCount, ShardId};

pub(crate) use build::Pace;
#[cfg(test)]
use build::TreeCheck;
use committer::{Committer, Shared};
use damage::Damage;
pub(crate) use damage::position;
pub(crate) use garbage::GarbageCounts;
pub(crate) use hints::HeldMint;
use hints::{HeldMinted, HintOperation};
pub(crate) use mend::Replacement;
use operation::Operation;
pub(crate) use operation::{Address, Adoption, Merged, Milestone, Minted, Remembered, WriteError};
use queue::{Queue, Wake};
use shards::Shards;
use trees::Trees;
pub(crate) use wanted::{Caller, Wanted};

use crate::hints::Hints;
use crate::platform::Work;

/// How the committer tells that the store has failed.
pub(crate) type OnFailure = Box<dyn FnOnce(StoreError) + Send>;

/// The committer at work.
enum Running {
    Thread(std::thread::JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

impl Running {
    fn start(committer: Committer, work: &Work, on_failure: OnFailure) -> std::io::Result<Self> {
        match work {
            Work::Threads => std::thread::Builder::new()
                .name("committer".to_owned())
                .spawn(move || committer.run(on_failure))
                .map(Self::Thread),
            Work::Tasks(sync_takes) => {
                let task = committer.run_as_task(Arc::clone(sync_takes), on_failure);
                Ok(Self::Task(tokio::spawn(task)))
            }
        }
    }
}

/// One node's replica of everything it holds.
pub(crate) struct LocalReplica {
    store: Arc<dyn Store>,
    shards: Arc<Shards>,
    queue: Arc<Queue>,
    commits: Arc<AtomicU64>,
    garbage: Arc<GarbageCounts>,
    trees: Arc<Mutex<Trees>>,
    /// Held by whoever reads a slice for a tree.
    turn: Arc<tokio::sync::Mutex<()>>,
    shard_count: ShardCount,
    hints: Arc<Hints>,
    damage: Arc<Damage>,
    work: Work,
    running: Mutex<Option<Running>>,
}

impl LocalReplica {
    /// Starts the committer over a store and the shards loaded from it. New writes are refused once
    /// they would wait for longer than `queue_wait`. `commits` is how many commits it has made durable so far,
    /// and is kept up to date.
    #[allow(clippy::too_many_arguments)] // each is another part of the node, and one caller has them
    pub(crate) fn start(
        store: Arc<dyn Store>,
        replicas: Vec<ShardReplica>,
        shard_count: ShardCount,
        limits: Limits,
        hints: Arc<Hints>,
        queue_wait: Duration,
        commits: Arc<AtomicU64>,
        work: Work,
        on_failure: OnFailure,
    ) -> std::io::Result<Self> {
        let shards = Arc::new(Shards::new(replicas));
        let queue = Arc::new(Queue::new(queue_wait, Wake::of(&work)));
        let garbage = Arc::new(GarbageCounts::new(shard_count));
        let trees = Arc::new(Mutex::new(Trees::default()));
        let damage = Arc::new(Damage::new(shard_count));
        let shared = Shared {
            store: Arc::clone(&store),
            shards: Arc::clone(&shards),
            queue: Arc::clone(&queue),
            commits: Arc::clone(&commits),
            trees: Arc::clone(&trees),
            garbage: Arc::clone(&garbage),
            hints: Arc::clone(&hints),
            damage: Arc::clone(&damage),
        };
        let committer = Committer::new(shared, shard_count, limits);
        let running = Mutex::new(Some(Running::start(committer, &work, on_failure)?));
        let turn = Arc::default();
        Ok(Self {
            store,
            shards,
            queue,
            commits,
            garbage,
            trees,
            turn,
            shard_count,
            hints,
            damage,
            work,
            running,
        })
    }

    /// A client's write, minted here, and remembered under its request id if it has one. It is durable when [`Minted::durable`] says so.
    pub(crate) async fn update(
        &self,
        at: Address,
        epoch: Epoch,
        change: Change,
        basis: Basis,
        request: Option<Remembered>,
        wanted: Wanted,
    ) -> Result<Minted, WriteError> {
        self.ask(|minted| Operation::Update { at, epoch, change, basis, request, wanted, minted })
            .await
    }

    /// Merges a coordinator's record, made in the epoch `stamp`; durable when this returns.
    pub(crate) async fn merge(
        &self,
        at: Address,
        epoch: Epoch,
        stamp: Epoch,
        record: Record,
        wanted: Wanted,
    ) -> Result<Merged, WriteError> {
        self.ask(|merged| Operation::Merge { at, epoch, stamp, record, wanted, merged }).await
    }

    /// Merges records copied in bulk; durable when this returns.
    pub(crate) async fn adopt(
        &self,
        shard: ShardId,
        epoch: Epoch,
        from: Adoption,
        records: Vec<PulledRecord>,
    ) -> Result<(), WriteError> {
        self.ask(|adopted| Operation::Adopt { shard, epoch, from, records, adopted }).await
    }

    /// A step of deciding a configuration; what it answers is durable.
    pub(crate) async fn shard(
        &self,
        request: ShardRequest,
        alive: Vec<Member>,
    ) -> Result<ShardReply, WriteError> {
        self.ask(|reply| Operation::Shard { request, alive, reply }).await
    }

    /// Vouches for tombstones, durably, or says which are not held so.
    pub(crate) async fn vouch(&self, request: VouchRequest) -> Result<VouchReply, WriteError> {
        self.ask(|vouched| Operation::Vouch { request, vouched }).await
    }

    /// What may be collected one day, and what was.
    pub(crate) fn garbage(&self) -> &GarbageCounts {
        &self.garbage
    }

    /// Records a step of this store's own copying. False when its epoch has passed.
    pub(crate) async fn milestone(
        &self,
        shard: ShardId,
        milestone: Milestone,
    ) -> Result<bool, WriteError> {
        self.ask(|done| Operation::Milestone { shard, milestone, done }).await
    }

    /// Tells all shards who has recorded this start of the store.
    pub(crate) async fn witness(&self, witnesses: Witnesses) -> Result<(), WriteError> {
        self.ask(|done| Operation::Witness { witnesses, done }).await
    }

    /// Writes rows of the node itself.
    pub(crate) async fn meta(&self, batch: Batch) -> Result<(), WriteError> {
        self.ask(|done| Operation::Meta { batch, done }).await
    }

    /// Writes or removes rows of courtesy hints.
    pub(crate) async fn hint_rows(&self, batch: Batch) -> Result<(), WriteError> {
        self.ask(|done| Operation::Hint(HintOperation::Rows { batch, done })).await
    }

    /// Holds a record for the members of its shard; durable when this returns.
    pub(crate) async fn hold(&self, at: Address, held: HeldRecord) -> Result<Merged, WriteError> {
        self.ask(|done| Operation::Hint(HintOperation::Hold { at, held, done })).await
    }

    /// Mints a client's write as one who is no member, and holds it; durable when this returns.
    pub(crate) async fn mint_held(&self, mint: HeldMint) -> Result<HeldMinted, WriteError> {
        self.ask(|done| Operation::Hint(HintOperation::Mint { mint, done })).await
    }

    /// Ends the holding of a record that every member has, or that cannot be delivered. False when
    /// it has changed since.
    pub(crate) async fn release_held(&self, due: Due) -> Result<bool, WriteError> {
        self.ask(|done| Operation::Hint(HintOperation::Release { due, done })).await
    }

    /// Promises that nothing of the shard made in `epoch` or before is held, nor ever will be;
    /// durable when this returns. False when something is held. No epoch's tombstones may go
    /// before every node of the cluster has promised this (design rule D10), *after* it was
    /// fixed which tombstones these are.
    pub(crate) async fn promise_no_hints(
        &self,
        shard: ShardId,
        epoch: Epoch,
    ) -> Result<bool, WriteError> {
        self.ask(|done| Operation::Hint(HintOperation::Promise { shard, epoch, done })).await
    }

    /// The record that is held for a key.
    pub(crate) fn held(&self, at: &Address) -> Result<Option<HeldRecord>, WriteError> {
        if self.hints.with(|book| book.held(at).is_none()) {
            return Ok(None);
        }
        hints::load(&*self.store, at)
    }

    /// The stored record of a key, if this store may answer reads of `epoch`. The epoch is checked
    /// again after reading: a fence that fell meanwhile makes the answer worthless.
    pub(crate) fn read(&self, at: &Address, epoch: Epoch) -> Result<Record, WriteError> {
        self.shards.may_read(at.shard, epoch)?;
        let record = self.peek(at)?;
        self.shards.may_read(at.shard, epoch)?;
        Ok(record)
    }

    /// The stored record whatever the epoch, for people who look (`triad where`).
    pub(crate) fn peek(&self, at: &Address) -> Result<Record, WriteError> {
        if self.look(at.shard, ShardReplica::is_sweeping) == Some(true) {
            return Err(Refusal::Learner.into());
        }
        let key = Key::Record { shard: at.shard, bucket: &at.bucket, key: &at.key }.encode();
        let record = group::load(&*self.store, &key);
        match &record {
            Err(WriteError::Refused(Refusal::Damaged)) => {
                trees::lock(&self.trees).distrust(at.shard);
                self.damage.found(&key);
            }
            Err(WriteError::Store(error)) => self.damage.unreadable(error),
            Ok(_) | Err(WriteError::Refused(_) | WriteError::Known(_)) => {}
        }
        record
    }

    /// Looks at one shard.
    pub(crate) fn look<T>(
        &self,
        shard: ShardId,
        look: impl FnOnce(&ShardReplica) -> T,
    ) -> Option<T> {
        self.shards.look(shard, look)
    }

    /// Looks at all shards, one after the other.
    pub(crate) fn each_shard(&self, look: impl FnMut(&ShardReplica)) {
        self.shards.each(look);
    }

    /// The store itself, for scans.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Sizes of the store.
    pub(crate) fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    /// How many commits the store has made durable in its life.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Nothing is taken or acknowledged any more: the store cannot be trusted.
    pub(crate) fn condemn(&self, why: &str) {
        self.queue.fail_all(&StoreError::Poisoned { why: why.to_owned() });
    }

    /// How long a write that came now would wait for its turn to be committed.
    pub(crate) fn expected_wait(&self) -> Duration {
        self.queue.expected_wait()
    }

    /// Commits what waits, then ends the committer. Later operations are refused.
    pub(crate) fn close(&self) {
        self.queue.close();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running.take() {
            // A panic of the committer was already reported through `on_failure`.
            Some(Running::Thread(thread)) => drop(thread.join()),
            task => *running = task,
        }
    }

    /// Waits for the end of a committer that is a task, after [`Self::close`].
    pub(crate) async fn ended(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running::Task(task)) = running {
            let _ = task.await;
        }
    }

    async fn ask<T>(
        &self,
        operation: impl FnOnce(oneshot::Sender<Result<T, WriteError>>) -> Operation,
    ) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(operation(reply));
        answer.await.unwrap_or_else(|_| {
            let why = "the committer has ended".to_owned();
            Err(WriteError::Store(StoreError::Poisoned { why }))
        })
    }
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace { .. } => Self::Refused(Refusal::NoSpace),
            StoreError::Damaged { .. } => Self::Refused(Refusal::Damaged),
            other => Self::Store(other),
        }
    }
}

/// A record as it travels: decoded where it arrives, so that a malformed one goes no further.
pub(crate) fn decode_record(bytes: Bytes) -> Result<Record, Refusal> {
    Record::decode(bytes).map_err(|_| Refusal::Damaged)
}
