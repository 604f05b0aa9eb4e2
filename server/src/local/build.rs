//! Building hash trees beside the committer, a slice at a time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use triad_replica::hash_tree::HashTree;
use triad_replica::message::Standing;
use triad_replica::refusal::Refusal;
use triad_replica::store::Store;
use triad_ring::{ShardCount, ShardId};

use super::damage::Damage;
use super::operation::Operation;
use super::trees::{Begin, Ended, SliceLimit, Trees, lock, scan};
use super::{LocalReplica, WriteError};

/// What is read at once, with the trees unlocked.
const SLICE: SliceLimit = SliceLimit { rows: 1_024, bytes: 1 << 20 };
/// Pause before looking again at a shard of which somebody else reads a slice.
const BUSY: Duration = Duration::from_millis(1);

/// How fast to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Somebody waits for it.
    AtOnce,
    /// Nobody does: rest as long as each slice took.
    Gently,
}

/// What a tree turned out to be when it was built from the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TreeCheck {
    /// The tree that was in use said something else than the rows.
    pub(crate) differed: bool,
    /// A row cannot be read.
    pub(crate) damaged: bool,
}

impl LocalReplica {
    /// The shard's hash tree, and where this store stood *before* the tree was read. A tree that is
    /// not there is built first, while the committer goes on.
    pub(crate) async fn tree(&self, shard: ShardId) -> Result<(Standing, HashTree), WriteError> {
        loop {
            if let Some(found) = self.ask(|tree| Operation::Tree { shard, tree }).await? {
                return Ok(found);
            }
            self.build_tree(shard, Pace::AtOnce).await?;
        }
    }

    /// Builds the shard's tree unless it is there.
    pub(crate) async fn build_tree(&self, shard: ShardId, pace: Pace) -> Result<(), WriteError> {
        self.build(shard, false, pace).await.map(drop)
    }

    /// Builds the shard's tree from its rows although there is one, and uses the new one: a tree that
    /// lies, or a row that rotted unseen, would hide a difference for ever.
    pub(crate) async fn check_tree(&self, shard: ShardId) -> Result<TreeCheck, WriteError> {
        self.build(shard, true, Pace::Gently).await
    }

    /// The roots of those of these shards whose trees are there.
    pub(crate) fn roots(&self, shards: &[ShardId]) -> Vec<Option<u128>> {
        let mut trees = lock(&self.trees);
        let root = |shard: &ShardId| Some(u128::from_be_bytes(trees.root(*shard)?.0));
        shards.iter().map(root).collect()
    }

    async fn build(
        &self,
        shard: ShardId,
        mut anew: bool,
        pace: Pace,
    ) -> Result<TreeCheck, WriteError> {
        loop {
            let began = Instant::now();
            match self.slice(shard, anew).await? {
                Some(Ended::Built { differed, damaged }) => {
                    return Ok(TreeCheck { differed, damaged });
                }
                Some(Ended::More) => {}
                // Another has built it, or it was forgotten: the shard is not what it was.
                Some(Ended::Gone) => anew = false,
                None => tokio::time::sleep(BUSY).await,
            }
            if pace == Pace::Gently {
                tokio::time::sleep(began.elapsed()).await;
            }
        }
    }

    /// Reads one slice, on a thread that may block; one at a time in this node, so that whoever
    /// builds leaves the disk and the processors to others. None: somebody else reads this shard's.
    async fn slice(&self, shard: ShardId, anew: bool) -> Result<Option<Ended>, WriteError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let (trees, store, shards) =
            (Arc::clone(&self.trees), Arc::clone(&self.store), self.shard_count);
        let damage = Arc::clone(&self.damage);
        let read = self.work.run(move || {
            let _turn = turn;
            read_slice(&trees, &*store, &damage, shards, shard, anew)
        });
        // A panic in it must not leave the slice begun for ever.
        read.await.unwrap_or_else(|_| {
            lock(&self.trees).give_up(shard);
            Err(Refusal::Overloaded.into())
        })
    }
}

fn read_slice(
    trees: &Mutex<Trees>,
    store: &dyn Store,
    damage: &Damage,
    shards: ShardCount,
    shard: ShardId,
    anew: bool,
) -> Result<Option<Ended>, WriteError> {
    let begun = match lock(trees).begin(shard, anew) {
        Begin::Slice(begun) => begun,
        Begin::Ready => return Ok(Some(Ended::Built { differed: false, damaged: false })),
        Begin::Busy => return Ok(None),
        Begin::Sweeping => return Err(Refusal::Learner.into()),
    };
    match scan(store, shards, shard, begun.after.as_ref(), SLICE) {
        Ok(scanned) => {
            scanned.damaged.iter().for_each(|row| damage.found(row));
            Ok(Some(lock(trees).end(shard, &begun, scanned)))
        }
        Err(error) => {
            damage.unreadable(&error);
            lock(trees).give_up(shard);
            Err(error.into())
        }
    }
}
