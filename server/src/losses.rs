//! Stores that this node has lost: told, counted, and forgotten once made good.
//!
//! Whatever finds out that the store cannot be trusted calls [`Losses::give_up`]: the process
//! ends, and its next start sets the store aside and goes on with an empty one, as a learner
//! (design rule D6).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::watch;
use tracing::{error, info, warn};
use triad_ring::ShardId;

use crate::alarms::{AlarmName, Alarms};
use crate::data_dir::{self, LossReason, StoreLoss};
use crate::moves::{facts, ideal_members};
use crate::node::Node;
use crate::starts::Distrust;

/// How often it is looked whether a loss is made good.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So often in a row it must be: just after a start little is known of the ring.
const LOOKS: u32 = 5;

/// What one process knows of lost stores.
pub(crate) struct Losses {
    data_dir: PathBuf,
    alarms: Arc<Alarms>,
    /// The last one, until it is made good.
    pending: Mutex<Option<StoreLoss>>,
    /// How many stores were lost in this process's time.
    counts: Mutex<BTreeMap<LossReason, u64>>,
    /// The running process has given its store up.
    gave_up: AtomicBool,
    /// Ends the process.
    failed: watch::Sender<Option<String>>,
}

impl Losses {
    pub(crate) fn new(
        data_dir: PathBuf,
        alarms: Arc<Alarms>,
        failed: watch::Sender<Option<String>>,
    ) -> Self {
        let (pending, counts) = (Mutex::default(), Mutex::default());
        let gave_up = AtomicBool::new(false);
        Self { data_dir, alarms, pending, counts, gave_up, failed }
    }

    /// A start found that a store was lost, now or (not `new`) earlier: raises `STORE_LOST`.
    pub(crate) fn found(&self, loss: StoreLoss, new: bool) {
        self.alarms.raise(AlarmName::StoreLost, detail(&loss));
        if new {
            self.count(loss.reason);
        }
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(loss);
    }

    /// The running process finds that its store cannot be trusted: raises `STORE_LOST`, notes that the
    /// next start must set the store aside, and ends the process. Nothing may be acknowledged
    /// from it any more; the caller sees to that until the process has ended.
    pub(crate) fn give_up(&self, reason: LossReason, why: &str) {
        let store = self.data_dir.join("store");
        error!(
            store = %store.display(), reason = reason.as_str(), why,
            "STORE LOST: this process ends; its next start sets the store aside and fetches the data from the other replicas"
        );
        self.count(reason);
        self.gave_up.store(true, Ordering::Relaxed);
        let path = store.display();
        self.alarms.raise(AlarmName::StoreLost, format!("the store in {path} is lost: {why}"));
        if let Err(failure) = data_dir::condemn(&self.data_dir, reason, why) {
            error!(%failure, store = %path, "cannot note that the store is lost: the next start must find out by itself");
        }
        let _ = self.failed.send(Some(format!("the store in {path} is lost: {why}")));
    }

    /// Another node knows that the store is a copy or an old state: gives it up, so that the next start is
    /// new to everybody.
    pub(crate) fn distrusted(&self, distrust: &Distrust) {
        if let Err(failure) = data_dir::start_above(&self.data_dir, distrust.known) {
            error!(%failure, "cannot note the start that others know: the next one may be refused, too");
        }
        self.give_up(distrust.reason, &distrust.why);
    }

    /// Whether the store was given up: the next start replaces it.
    pub(crate) fn gave_up(&self) -> bool {
        self.gave_up.load(Ordering::Relaxed)
    }

    /// The last loss, if it is not made good yet.
    pub(crate) fn pending(&self) -> Option<StoreLoss> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, reason: LossReason) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    fn forget(&self, because: &str) {
        if let Err(failure) = data_dir::forget(&self.data_dir) {
            warn!(%failure, "cannot remove the note of a lost store");
            return;
        }
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = None;
        info!(because, "the loss of a store is made good");
        self.alarms.clear(AlarmName::StoreLost);
    }
}

fn detail(loss: &StoreLoss) -> String {
    let when = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(loss.at));
    let remains = loss
        .quarantine
        .as_ref()
        .map_or(String::new(), |path| format!("; its files were set aside in {}", path.display()));
    format!("at {when} its store was found lost ({}): {}{remains}", loss.reason.as_str(), loss.why)
}

/// Ends the alarm when this node holds again, with others, all that the ring gives it; or when an
/// operator has removed the remains.
pub(crate) async fn watch_losses(node: Arc<Node>) {
    let mut whole = 0;
    while let Some(loss) = node.losses.pending() {
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let removed = loss.quarantine.as_ref().is_some_and(|remains| !remains.exists());
        if removed {
            node.losses.forget("its remains were removed");
        }
        whole = if holds_its_share(&node) { whole + 1 } else { 0 };
        if whole >= LOOKS {
            node.losses.forget("this node holds all its shards again");
        }
    }
}

/// Whether this node is a whole member of every shard that the ring gives it, together with others:
/// what is held by it alone came from nobody, and may be what was lost.
fn holds_its_share(node: &Node) -> bool {
    if !node.book.own().state.is_ring_member() {
        return false;
    }
    let copying = node.moves.copying();
    let facts = facts(node);
    let mine = |shard: &ShardId| ideal_members(node, &facts, *shard).contains(&node.me());
    let mine: Vec<ShardId> = node.cluster.shards.iter().filter(mine).collect();
    let holds = |shard: &ShardId| {
        let whole = node.local.look(*shard, |replica| {
            let merged = replica.entered().is_some_and(|row| row.merged);
            let shared = replica.newest().is_some_and(|known| known.members().len() > 1);
            merged && shared && replica.is_member()
        });
        whole == Some(true) && !copying.contains_key(shard)
    };
    !mine.is_empty() && mine.iter().all(holds)
}
