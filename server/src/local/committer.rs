//! The committer: takes what waits, applies one batch, syncs once, answers all.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::error;
use triad_replica::gc::VouchReply;
use triad_replica::hash_tree::HashTree;
use triad_replica::message::{ShardReply, Standing};
use triad_replica::record::{Limits, Record, Updated};
use triad_replica::refusal::Refusal;
use triad_replica::shard::ShardReplica;
use triad_replica::store::{Store, StoreError};
use triad_ring::{ShardCount, ShardId};

use super::OnFailure;
use super::damage::Damage;
use super::garbage::{GarbageChange, GarbageCounts};
use super::group::{Finished, Group};
use super::hints::{HintGroup, HintOutcome};
use super::operation::{Merged, Minted, Operation, WriteError};
use super::queue::Queue;
use super::shards::Shards;
use super::sweep::sweep;
use super::trees::{Begin, SliceLimit, Trees, lock, scan};
use crate::failpoint::{Point, hit_blocking};
use crate::hints::Hints;
use crate::rows::numbered;

/// A shard that is no larger gets its tree at once, when it is first asked for; a larger one's is built
/// beside the committer.
const SMALL: SliceLimit = SliceLimit { rows: 64, bytes: 64 << 10 };

/// What became of one operation of a group.
enum Outcome {
    Update(Result<(Record, Updated), WriteError>),
    Merge(Result<Merged, WriteError>),
    Adopt(Result<(), WriteError>),
    Mend(Result<(), WriteError>),
    Shard(Result<ShardReply, WriteError>),
    Vouch(Result<VouchReply, WriteError>),
    Milestone(Result<bool, WriteError>),
    Hint(HintOutcome),
    Tree(Result<Option<(Standing, HashTree)>, WriteError>),
    Witness,
    Meta,
}

/// An answer that waits for the sync.
#[allow(clippy::large_enum_variant)] // there are at most 128 at a time, in one vector
enum Waiting {
    Durable(oneshot::Sender<Result<(), WriteError>>),
    Ready(Operation, Outcome),
}

/// A group that is visible and not durable yet.
struct Begun {
    waiting: Vec<Waiting>,
    result: Result<(), StoreError>,
}

/// How long the next sync of a simulated disk takes.
type SyncTakes = Arc<dyn Fn() -> Duration + Send + Sync>;

/// What the committer shares with those who ask it.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) shards: Arc<Shards>,
    pub(super) queue: Arc<Queue>,
    pub(super) commits: Arc<AtomicU64>,
    pub(super) trees: Arc<Mutex<Trees>>,
    pub(super) garbage: Arc<GarbageCounts>,
    pub(super) hints: Arc<Hints>,
    pub(super) damage: Arc<Damage>,
}

/// The one writer of a store.
pub(super) struct Committer {
    store: Arc<dyn Store>,
    shards: Arc<Shards>,
    queue: Arc<Queue>,
    commits: Arc<AtomicU64>,
    shard_count: ShardCount,
    limits: Limits,
    trees: Arc<Mutex<Trees>>,
    garbage: Arc<GarbageCounts>,
    hints: Arc<Hints>,
    damage: Arc<Damage>,
    /// Something was applied since the last sync.
    dirty: bool,
    /// How many commits were applied in the store's life.
    applied: u64,
}

impl Committer {
    pub(super) fn new(shared: Shared, shard_count: ShardCount, limits: Limits) -> Self {
        let Shared { store, shards, queue, commits, trees, garbage, hints, damage } = shared;
        // What an earlier process had forgotten and not deleted yet.
        shards.each(|replica| {
            if let Some(known) = replica.newest().filter(|_| replica.is_sweeping()) {
                lock(&trees).forget(known.shard, false);
            }
        });
        let dirty = false;
        let applied = commits.load(Ordering::Relaxed);
        Self {
            store,
            shards,
            queue,
            commits,
            shard_count,
            limits,
            trees,
            garbage,
            hints,
            damage,
            dirty,
            applied,
        }
    }

    /// Runs until the queue is closed and drained, or the store fails, or something here panics:
    /// then every waiting and later operation fails too, and `on_failure` ends the process.
    pub(super) fn run(mut self, on_failure: OnFailure) {
        let queue = Arc::clone(&self.queue);
        let ended = std::panic::catch_unwind(AssertUnwindSafe(|| self.commit_all()));
        let failure = match ended {
            Ok(None) => return,
            Ok(Some(failure)) => failure,
            Err(_) => StoreError::Poisoned { why: "the committer has panicked".to_owned() },
        };
        error!(%failure, "the store has failed: nothing more is acknowledged");
        queue.fail_all(&failure);
        on_failure(failure);
    }

    /// The same as a task, for a simulation. Each sync takes as long as `sync_takes` says, and what it makes durable
    /// is visible meanwhile, as on a disk. A panic ends the task; whoever simulates sees it.
    pub(super) async fn run_as_task(mut self, sync_takes: SyncTakes, on_failure: OnFailure) {
        if let Some(failure) = self.commit_all_as_task(&sync_takes).await {
            error!(%failure, "the store has failed: nothing more is acknowledged");
            self.queue.fail_all(&failure);
            on_failure(failure);
        }
    }

    async fn commit_all_as_task(&mut self, sync_takes: &SyncTakes) -> Option<StoreError> {
        if let Err(failure) = self.garbage.load(&*self.store) {
            return Some(failure);
        }
        loop {
            let sweeping = lock(&self.trees).to_sweep();
            if sweeping.is_none() {
                self.queue.filled().await;
            }
            let group = self.queue.next_group(false)?;
            let begun = self.begin(group);
            if self.dirty {
                tokio::time::sleep(sync_takes()).await;
            }
            if let Err(failure) = self.finish(begun) {
                return Some(failure);
            }
            self.queue.synced();
            if let Some(shard) = sweeping {
                self.dirty = true;
                if let Err(failure) = self.sweep(shard) {
                    return Some(failure);
                }
            }
        }
    }

    /// Commits group after group. Returns why it had to stop; none when the queue was closed.
    fn commit_all(&mut self) -> Option<StoreError> {
        if let Err(failure) = self.garbage.load(&*self.store) {
            return Some(failure);
        }
        loop {
            let sweeping = lock(&self.trees).to_sweep();
            let group = self.queue.next_group(sweeping.is_none())?;
            if !group.is_empty()
                && let Err(failure) = self.commit(group)
            {
                return Some(failure);
            }
            self.queue.synced();
            // A slice between two groups: a large shard that goes holds nobody up.
            if let Some(shard) = sweeping {
                self.dirty = true;
                if let Err(failure) = self.sweep(shard) {
                    return Some(failure);
                }
            }
        }
    }

    fn sweep(&self, shard: ShardId) -> Result<(), StoreError> {
        sweep(&*self.store, &self.shards, &self.trees, &self.garbage, shard)
    }

    /// One group from the queue to its answers. An error means that the store has failed; the
    /// group has been answered with it.
    fn commit(&mut self, group: Vec<Operation>) -> Result<(), StoreError> {
        let begun = self.begin(group);
        self.finish(begun)
    }

    /// Makes the group visible.
    fn begin(&mut self, group: Vec<Operation>) -> Begun {
        let mut waiting = Vec::with_capacity(group.len());
        let trees = Arc::clone(&self.trees);
        // Locked until what the group writes is visible and the trees have followed.
        let result = self.apply(&mut lock(&trees), group, &mut waiting);
        Begun { waiting, result }
    }

    /// Makes it durable, and answers.
    fn finish(&mut self, Begun { waiting, result }: Begun) -> Result<(), StoreError> {
        let result = result.and_then(|()| self.sync());
        if let Err(failure) = &result {
            let error = WriteError::Store(failure.clone());
            for one in waiting {
                match one {
                    Waiting::Durable(durable) => drop(durable.send(Err(error.clone()))),
                    Waiting::Ready(operation, _) => operation.fail(&error),
                }
            }
            return result;
        }
        // Before anybody is answered: who counts on an answer has seen its commit.
        self.commits.store(self.applied, Ordering::Relaxed);
        waiting.into_iter().for_each(answer);
        Ok(())
    }

    /// Nothing was written, nothing needs a sync: refusals and questions are cheap.
    fn sync(&mut self) -> Result<(), StoreError> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(());
        }
        reach(Point::StoreSync, "store.sync")?;
        self.store.sync()
    }

    /// Applies the operations as one batch; when that batch has no room, one by one, so that
    /// a large write does not take others down with it.
    fn apply(
        &mut self,
        trees: &mut Trees,
        operations: Vec<Operation>,
        waiting: &mut Vec<Waiting>,
    ) -> Result<(), StoreError> {
        let (outcomes, finished) = self.step_all(trees, &operations);
        match self.install(trees, finished) {
            Ok(()) => {
                for (operation, outcome) in operations.into_iter().zip(outcomes) {
                    hand_out(operation, outcome, waiting);
                }
                Ok(())
            }
            Err(error @ StoreError::NoSpace { .. }) => {
                if operations.len() == 1 {
                    let error = WriteError::from(error);
                    operations.into_iter().for_each(|op| op.fail(&error));
                    return Ok(());
                }
                operations
                    .into_iter()
                    .try_for_each(|operation| self.apply(trees, vec![operation], waiting))
            }
            Err(error) => {
                let failed = WriteError::Store(error.clone());
                operations.into_iter().for_each(|op| op.fail(&failed));
                Err(error)
            }
        }
    }

    fn step_all(&self, trees: &mut Trees, operations: &[Operation]) -> (Vec<Outcome>, Finished) {
        // Trees first: one that is built now must follow all that this group changes. And what
        // changes all shards, before the group works on copies of them.
        let mut asked: Vec<Option<Outcome>> = operations
            .iter()
            .map(|operation| match operation {
                Operation::Tree { shard, .. } => Some(Outcome::Tree(self.tree(trees, *shard))),
                Operation::Witness { witnesses, .. } => {
                    self.shards.witnessed_by(witnesses);
                    Some(Outcome::Witness)
                }
                _ => None,
            })
            .collect();
        let hints = HintGroup::new(&*self.store, &self.hints);
        let mut group =
            Group::new(&*self.store, &self.shards, trees, self.limits, self.shard_count, hints);
        let outcomes = operations
            .iter()
            .zip(&mut asked)
            .map(|(operation, tree)| tree.take().unwrap_or_else(|| step(&mut group, operation)))
            .collect();
        (outcomes, group.finish())
    }

    /// Standing and tree as the last group left them: this group's own changes come later for
    /// whoever asked, which is as if it had asked a moment earlier. None when the tree must be
    /// built first, which would take too long here.
    fn tree(
        &self,
        trees: &mut Trees,
        shard: ShardId,
    ) -> Result<Option<(Standing, HashTree)>, WriteError> {
        let mut standing = self
            .shards
            .look(shard, ShardReplica::standing)
            .ok_or(Refusal::NotMember { newest: None })?;
        match trees.begin(shard, false) {
            Begin::Sweeping => return Err(Refusal::Learner.into()),
            Begin::Ready | Begin::Busy => {}
            Begin::Slice(begun) => {
                let after = begun.after.as_ref();
                match scan(&*self.store, self.shard_count, shard, after, SMALL) {
                    Ok(scanned) => {
                        scanned.damaged.iter().for_each(|row| self.damage.found(row));
                        trees.end(shard, &begun, scanned);
                    }
                    Err(error) => {
                        trees.give_up(shard);
                        return Err(error.into());
                    }
                }
            }
        }
        let Some(ready) = trees.ready(shard) else {
            return Ok(None);
        };
        standing.source &= !ready.damaged;
        Ok(Some((standing, ready.tree.clone())))
    }

    /// Makes the group visible: rows first, then the shards' states and the trees.
    fn install(&mut self, kept: &mut Trees, finished: Finished) -> Result<(), StoreError> {
        let Finished { batch, shards, trees, emptied, damaged, mended, garbage, hints } = finished;
        let emptied_shards = emptied.iter().map(|(shard, _)| *shard);
        let pruned = garbage.iter().filter_map(GarbageChange::pruned);
        let losing: Vec<ShardId> = emptied_shards.clone().chain(pruned).collect();
        self.shards.close(&losing, true);
        if !batch.is_empty() {
            let applied = reach(Point::StoreCommit, "store.commit")
                .and_then(|()| self.store.apply(numbered(batch, self.applied + 1)));
            if let Err(error) = applied {
                self.shards.close(&losing, false);
                return Err(error);
            }
            self.applied += 1;
            self.dirty = true;
        }
        self.shards.install(shards);
        hints.install(&self.hints);
        self.shards.close(&losing, false);
        self.garbage.apply(emptied_shards, &garbage);
        kept.apply(trees);
        for (shard, swept) in emptied {
            kept.forget(shard, swept);
            self.damage.forget(shard);
        }
        for (shard, row) in damaged {
            kept.distrust(shard);
            self.damage.found(&row);
        }
        for (shard, row) in mended {
            kept.build_anew(shard);
            self.damage.mended(&row);
        }
        Ok(())
    }
}

/// Where tests let the store fail.
fn reach(point: Point, name: &str) -> Result<(), StoreError> {
    hit_blocking(point).map_err(|_| StoreError::Engine(format!("failpoint {name}")))
}

/// One operation on top of those before it in the group.
fn step(group: &mut Group<'_>, operation: &Operation) -> Outcome {
    match operation {
        Operation::Update { at, epoch, change, basis, request, .. } => {
            Outcome::Update(group.update(at, *epoch, change.clone(), basis.clone(), *request))
        }
        Operation::Merge { at, epoch, stamp, record, .. } => {
            Outcome::Merge(group.merge(at, *epoch, *stamp, record))
        }
        Operation::Adopt { shard, epoch, from, records, .. } => {
            Outcome::Adopt(group.adopt(*shard, *epoch, *from, records))
        }
        Operation::Mend { at, replacement, .. } => Outcome::Mend(group.mend(at, replacement)),
        Operation::Shard { request, alive, .. } => {
            Outcome::Shard(group.shard_request(request, alive))
        }
        Operation::Vouch { request, .. } => Outcome::Vouch(group.vouch(request)),
        Operation::Milestone { shard, milestone, .. } => {
            Outcome::Milestone(group.milestone(*shard, *milestone))
        }
        Operation::Hint(hint) => Outcome::Hint(group.hint(hint)),
        Operation::Meta { batch, .. } => {
            group.meta(batch);
            Outcome::Meta
        }
        Operation::Tree { .. } | Operation::Witness { .. } => {
            unreachable!("these are answered before the group is stepped through")
        }
    }
}

/// A minted record may travel at once; everything else waits for the sync.
fn hand_out(operation: Operation, outcome: Outcome, waiting: &mut Vec<Waiting>) {
    match (operation, outcome) {
        (Operation::Update { minted, .. }, Outcome::Update(Ok((record, updated)))) => {
            let (tell, durable) = oneshot::channel();
            let _ = minted.send(Ok(Minted { record, updated, durable }));
            waiting.push(Waiting::Durable(tell));
        }
        (operation, outcome) => waiting.push(Waiting::Ready(operation, outcome)),
    }
}

fn answer(waiting: Waiting) {
    match waiting {
        Waiting::Durable(durable) => drop(durable.send(Ok(()))),
        Waiting::Ready(operation, outcome) => match (operation, outcome) {
            (Operation::Update { minted, .. }, Outcome::Update(Err(error))) => {
                drop(minted.send(Err(error)));
            }
            (Operation::Merge { merged, .. }, Outcome::Merge(result)) => drop(merged.send(result)),
            (Operation::Adopt { adopted, .. }, Outcome::Adopt(result)) => {
                drop(adopted.send(result));
            }
            (Operation::Mend { done, .. }, Outcome::Mend(result)) => drop(done.send(result)),
            (Operation::Shard { reply, .. }, Outcome::Shard(result)) => drop(reply.send(result)),
            (Operation::Vouch { vouched, .. }, Outcome::Vouch(result)) => {
                drop(vouched.send(result));
            }
            (Operation::Milestone { done, .. }, Outcome::Milestone(result)) => {
                drop(done.send(result));
            }
            (Operation::Tree { tree, .. }, Outcome::Tree(result)) => drop(tree.send(result)),
            (Operation::Hint(hint), Outcome::Hint(outcome)) => hint.answer(outcome),
            (Operation::Witness { done, .. }, Outcome::Witness)
            | (Operation::Meta { done, .. }, Outcome::Meta) => drop(done.send(Ok(()))),
            _ => unreachable!("step() answers each kind of operation with its own kind of outcome"),
        },
    }
}
