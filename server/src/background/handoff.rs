//! Hinted handoff: brings members that are back what they missed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use triad_replica::address::Address;
use triad_replica::configuration::Configuration;
use triad_replica::hint::Due;
use triad_replica::member::Member;
use triad_replica::put::PutAnswer;
use triad_replica::record::Record;
use triad_replica::shard::Access;
use triad_replica::store::Batch;
use triad_ring::NodeId;

use super::held::Held;
use crate::alarms::AlarmName;
use crate::deadline::Deadline;
use crate::hints::courtesy_key;
use crate::liveness::Liveness;
use crate::local::WriteError;
use crate::node::Node;
use crate::peers::data::{self, MergeAnswer};

/// How often it is looked whom there is something for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Deliveries to one member under way at once, and of held records.
pub(super) const AT_ONCE: usize = 64;
/// Members that are delivered to at once.
const MEMBERS_AT_ONCE: usize = 8;
/// Batches for one member before it is looked at the others again.
pub(super) const BATCHES: usize = 64;
/// How long one delivery may take; the other's fsync is in it.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Runs until the node stops.
pub(crate) async fn handoff_task(node: Arc<Node>) {
    let mut seen = BTreeMap::new();
    let mut held = Held::default();
    loop {
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(node.spread(LOOK_EVERY)) => {}
        }
        wake_for_the_returned(&node, &mut seen);
        drop_needless(&node).await;
        tokio::join!(deliver_courtesies(&node), held.deliver_all(&node));
        clear_alarm(&node);
    }
}

/// What failed while a node was away is tried again at once when it is back.
fn wake_for_the_returned(node: &Node, seen: &mut BTreeMap<NodeId, Liveness>) {
    let contacts = node.book.all();
    seen.retain(|known, _| contacts.iter().any(|contact| contact.node == *known));
    for contact in contacts {
        let now = node.liveness(contact.node);
        let before = seen.insert(contact.node, now);
        if now == Liveness::Alive && before.is_some_and(|before| before != Liveness::Alive) {
            node.hints.with(|book| book.wake(contact.node));
        }
    }
}

/// There is room again, and a tenth to spare.
fn clear_alarm(node: &Node) {
    let spare = node.config.storage.hint_bytes / 10;
    if node.hints.with(|book| book.has_room(spare, 1)) {
        node.alarms.clear(AlarmName::HintsFull);
    }
}

/// Drops what is too old, and what was noted for who is no member any more: such a node may never
/// come back, and its heirs got all by their transfer.
async fn drop_needless(node: &Node) {
    // Of a shard that is not known here the delivery decides.
    let of_use = |target: &Member, shard| {
        node.directory.get(shard).is_none_or(|known| both_are_members(node, *target, &known))
    };
    let dropped = node.hints.with(|book| book.drop_needless(node.clock.now_ms(), of_use));
    node.hints.dropped(dropped.given_up);
    remove_rows(node, &dropped.rows).await;
}

async fn remove_rows(node: &Node, gone: &[(Member, Address)]) {
    let mut batch = Batch::new();
    batch.set_essential();
    gone.iter().for_each(|(target, at)| batch.delete(courtesy_key(*target, at)));
    if !batch.is_empty() {
        // A row that stays is delivered once more after the next start.
        let _ = node.local.hint_rows(batch).await;
    }
}

async fn deliver_courtesies(node: &Arc<Node>) {
    let mut targets = node.hints.with(|book| book.targets());
    targets.retain(|target| node.liveness(target.node) == Liveness::Alive);
    futures::stream::iter(targets)
        .for_each_concurrent(MEMBERS_AT_ONCE, |target| courtesies_for(node, target))
        .await;
}

/// What became of one courtesy hint.
enum Courtesy {
    Delivered,
    /// Nobody needs it any more, or this store has nothing to bring.
    Pointless,
    Failed,
}

async fn courtesies_for(node: &Arc<Node>, target: Member) {
    for _ in 0..BATCHES {
        let due = node.hints.with(|book| book.due_courtesy(target, node.now(), AT_ONCE));
        if due.is_empty() || node.stop.is_cancelled() {
            return;
        }
        let results =
            futures::future::join_all(due.iter().map(|due| courtesy(node, target, &due.at))).await;
        let failed = results.iter().any(|result| matches!(result, Courtesy::Failed));
        let gone = settle(node, target, due, results);
        remove_rows(node, &gone).await;
        if failed {
            return;
        }
    }
}

/// Takes the results into the book; returns the hints whose rows are to be removed.
fn settle(
    node: &Node,
    target: Member,
    due: Vec<Due>,
    results: Vec<Courtesy>,
) -> Vec<(Member, Address)> {
    let mut gone = Vec::new();
    for (due, result) in due.into_iter().zip(results) {
        let ended = node.hints.with(|book| match result {
            Courtesy::Delivered => book.courtesy_delivered(target, &due),
            Courtesy::Pointless => book.drop_courtesy(target, &due.at),
            Courtesy::Failed => {
                book.postpone_courtesy(target, &due.at, node.now());
                false
            }
        });
        if ended {
            gone.push((target, due.at));
        }
    }
    gone
}

/// Only a member has something to bring, and only a member needs it.
fn both_are_members(node: &Node, target: Member, configuration: &Configuration) -> bool {
    configuration.is_member(&target) && configuration.is_member(&node.member())
}

/// Sends a member what this store has of a key *now*, as an ordinary merge in the epoch in which
/// it was read. What was deleted and collected since is not there to be sent.
async fn courtesy(node: &Arc<Node>, target: Member, at: &Address) -> Courtesy {
    let Some(configuration) = node.directory.get(at.shard) else {
        return Courtesy::Pointless;
    };
    if !both_are_members(node, target, &configuration) {
        return Courtesy::Pointless;
    }
    match read(node, at, &configuration) {
        Ok(Some(record)) if record.is_absent() => Courtesy::Pointless,
        Ok(Some(record)) => deliver(node, target, at, &configuration, &record).await,
        // Between two epochs, or the row is damaged: repaired by others, it is sent later.
        Ok(None) | Err(_) => Courtesy::Failed,
    }
}

/// The stored record, if this store is a serving member of this configuration's epoch before and
/// after the reading.
fn read(
    node: &Node,
    at: &Address,
    configuration: &Configuration,
) -> Result<Option<Record>, WriteError> {
    let serves = || {
        node.local.look(at.shard, |shard| shard.check(Access::Merge, configuration.epoch).is_ok())
    };
    if serves() != Some(true) {
        return Ok(None);
    }
    let record = node.local.peek(at)?;
    Ok((serves() == Some(true)).then_some(record))
}

async fn deliver(
    node: &Arc<Node>,
    target: Member,
    at: &Address,
    configuration: &Configuration,
    record: &Record,
) -> Courtesy {
    let epoch = configuration.epoch;
    let deadline = Deadline::after(PATIENCE);
    let request =
        data::in_background(data::merge_request(at, epoch, epoch, &record.encode(), deadline));
    let reply = node.peers.data(target.node, request).within(PATIENCE).await;
    let MergeAnswer { answer, newest } = data::merge_answer(reply);
    if let Some(newest) = newest {
        crate::moves::learn(node, &newest).await;
    }
    match answer {
        PutAnswer::Stored { .. } => Courtesy::Delivered,
        PutAnswer::Failed(_) => Courtesy::Failed,
    }
}
