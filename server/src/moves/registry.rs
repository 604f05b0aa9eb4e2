//! What is under way here: moves driven, copies made, hand-overs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use triad_ring::ShardId;

use crate::node::Node;

/// Hand-overs that compare or push at once. One that waits for a member holds no place.
const HANDING_OVER: usize = 16;
/// Rumours of configurations that are looked into at once.
const DOUBTS: usize = 64;

/// Which shards this node is busy with, and how.
pub(crate) struct Registry {
    state: Mutex<State>,
    wake: Notify,
    handing_over: Semaphore,
    doubts: Semaphore,
}

#[derive(Default)]
struct State {
    /// Each with whether its plan is still wanted.
    moves: BTreeMap<ShardId, bool>,
    copies: BTreeMap<ShardId, Option<u32>>,
    drains: BTreeSet<ShardId>,
    /// When somebody last asked how a copy goes: a learner that nobody asks about is forgotten.
    asked: BTreeMap<ShardId, Duration>,
    serial: u32,
}

/// The kinds of work that a shard can be under here, one of each kind at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Move,
    Copy,
    Drain,
}

/// Work on a shard that has begun. It ends when this is dropped, however that comes about.
pub(super) struct Working {
    node: Arc<Node>,
    work: Work,
    shard: ShardId,
}

impl Working {
    /// Begins work on a shard. None when it is under way already, or `limit` others are.
    pub(super) fn begin(
        node: &Arc<Node>,
        work: Work,
        shard: ShardId,
        limit: usize,
    ) -> Option<Self> {
        let begun = node.moves.begin(work, shard, limit);
        begun.then(|| Self { node: Arc::clone(node), work, shard })
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.node.moves.end(self.work, self.shard);
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            handing_over: Semaphore::new(HANDING_OVER),
            doubts: Semaphore::new(DOUBTS),
        }
    }
}

impl Registry {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets placement look at once instead of at its next tick.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    fn begin(&self, work: Work, shard: ShardId, limit: usize) -> bool {
        self.with(|state| match work {
            Work::Move => {
                let room = state.moves.len() < limit && !state.moves.contains_key(&shard);
                if room {
                    state.moves.insert(shard, true);
                }
                room
            }
            Work::Drain => state.drains.len() < limit && state.drains.insert(shard),
            Work::Copy => {
                let room = state.copies.len() < limit && !state.copies.contains_key(&shard);
                if room {
                    state.copies.insert(shard, None);
                }
                room
            }
        })
    }

    fn end(&self, work: Work, shard: ShardId) {
        self.with(|state| match work {
            Work::Move => drop(state.moves.remove(&shard)),
            Work::Drain => drop(state.drains.remove(&shard)),
            Work::Copy => drop(state.copies.remove(&shard)),
        });
        self.wake();
    }

    pub(crate) fn is_moving(&self, shard: ShardId) -> bool {
        self.with(|state| state.moves.contains_key(&shard))
    }

    /// What the move under way here was to reach is not wanted any more.
    pub(super) fn call_off(&self, shard: ShardId) {
        self.with(|state| {
            if let Some(wanted) = state.moves.get_mut(&shard) {
                *wanted = false;
            }
        });
    }

    /// Whether a move was called off since it was last asked.
    pub(super) fn is_called_off(&self, shard: ShardId) -> bool {
        self.with(|state| {
            let wanted = state.moves.get_mut(&shard);
            wanted.is_some_and(|wanted| !std::mem::replace(wanted, true))
        })
    }

    /// A place among the hand-overs that are at work. None when the node stops.
    pub(super) async fn hand_over(&self) -> Option<SemaphorePermit<'_>> {
        self.handing_over.acquire().await.ok()
    }

    /// A place among the rumours that are looked into. None while there are too many.
    pub(super) fn doubt(&self) -> Option<SemaphorePermit<'_>> {
        self.doubts.try_acquire().ok()
    }

    /// Numbers moves, so that their ballots differ.
    pub(crate) fn next_serial(&self) -> u32 {
        self.with(|state| {
            state.serial = state.serial.wrapping_add(1);
            state.serial
        })
    }

    pub(super) fn note_difference(&self, shard: ShardId, difference: Option<u32>) {
        self.with(|state| {
            if let Some(known) = state.copies.get_mut(&shard) {
                *known = difference;
            }
        });
    }

    /// How many leaves a running copy still lacks.
    pub(super) fn difference(&self, shard: ShardId) -> Option<u32> {
        self.with(|state| state.copies.get(&shard).copied().flatten())
    }

    pub(super) fn asked_about(&self, shard: ShardId, now: Duration) {
        self.with(|state| state.asked.insert(shard, now));
    }

    /// How long nobody has asked about a shard; since the start if never.
    pub(super) fn unasked_for(&self, shard: ShardId, now: Duration) -> Duration {
        self.with(|state| now.saturating_sub(state.asked.get(&shard).copied().unwrap_or_default()))
    }

    /// Shards copied by this node now.
    pub(crate) fn copying(&self) -> BTreeMap<ShardId, Option<u32>> {
        self.with(|state| state.copies.clone())
    }
}
