//! Read repair: members that a read found behind are sent what the read merged.
//!
//! The merged record is the union of what members answered in one epoch, so any member may
//! take it in that epoch, and nobody in another: it travels under the epoch in which it was
//! read, like the second half of a Put, and a receiver that has moved on refuses it (design
//! rule D7). In a joint epoch reads ask the old members alone, so only these are found behind;
//! the new ones copy from them anyway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use triad_replica::configuration::Configuration;
use triad_replica::get::GetTally;
use triad_replica::member::Member;
use triad_replica::put::PutAnswer;

use super::get::Answers;
use super::heard_of;
use crate::deadline::Deadline;
use crate::local::{Address, Wanted};
use crate::node::Node;
use crate::peers::data::{self, MergeAnswer};

/// Reads that may be followed up at once; one more is not, and anti-entropy finds what it missed.
const AT_ONCE: usize = 256;
/// How long a follow-up waits for replicas that had not answered when the read was.
const LATE: Duration = Duration::from_secs(1);
/// How long the repairs of a follow-up may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The repairs of one node.
pub(crate) struct Repairs {
    room: Arc<Semaphore>,
    repaired: AtomicU64,
    skipped: AtomicU64,
}

impl Default for Repairs {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(AT_ONCE)),
            repaired: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        }
    }
}

/// What a read knows of its replicas once it can be answered.
pub(super) struct Finding {
    pub(super) at: Address,
    pub(super) configuration: Arc<Configuration>,
    pub(super) tally: GetTally,
}

/// Looks at the answers that come after the read's own, and repairs who turns out to be behind.
/// Nobody waits for it.
pub(super) fn follow_up(node: &Arc<Node>, mut finding: Finding, late: Answers) {
    if late.is_empty() && !finding.tally.diverged() {
        return;
    }
    let Ok(place) = Arc::clone(&node.repairs.room).try_acquire_owned() else {
        node.repairs.skipped.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let node = Arc::clone(node);
    let tasks = node.tasks.clone();
    tasks.spawn(async move {
        let _place = place;
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = late_answers(&node, &mut finding, late) => {}
        }
        mend(&node, &finding, Deadline::after(PATIENCE)).await;
    });
}

async fn late_answers(node: &Arc<Node>, finding: &mut Finding, mut late: Answers) {
    let end = Instant::now() + LATE;
    while let Ok(Some((member, answer, newest))) = timeout_at(end, late.next()).await {
        if let Some(newest) = newest {
            heard_of(node, member, &finding.configuration, &newest);
        }
        finding.tally.record(member, answer);
    }
}

/// Brings every member that is behind up to what the read merged. Returns how many said before
/// the deadline that they have it, durably.
pub(super) async fn mend(node: &Arc<Node>, finding: &Finding, deadline: Deadline) -> u32 {
    let behind = finding.tally.repairs();
    if behind.is_empty() {
        return 0;
    }
    let encoded = finding.tally.merged().encode();
    let mut merges = FuturesUnordered::<BoxFuture<'_, (Member, MergeAnswer)>>::new();
    for member in behind {
        let Finding { at, configuration, tally, .. } = finding;
        if member == node.member() {
            merges.push(Box::pin(async move {
                let (epoch, record) = (configuration.epoch, tally.merged().clone());
                let merged = node
                    .local
                    .merge(at.clone(), epoch, epoch, record, Wanted::in_background())
                    .await;
                (member, data::own_merge_answer(merged))
            }));
        } else {
            let epoch = configuration.epoch;
            let request =
                data::in_background(data::merge_request(at, epoch, epoch, &encoded, deadline));
            let answer = node.peers.data(member.node, request);
            merges.push(Box::pin(async move { (member, data::merge_answer(answer.wait().await)) }));
        }
    }
    let mut repaired = 0;
    while let Ok(Some((member, answer))) = timeout_at(deadline.at(), merges.next()).await {
        if let Some(newest) = answer.newest {
            heard_of(node, member, &finding.configuration, &newest);
        }
        match answer.answer {
            PutAnswer::Stored { .. } => repaired += 1,
            PutAnswer::Failed(failure) => debug!(
                shard = %finding.at.shard, member = %node.book.name(member.node), ?failure,
                "a replica that is behind was not repaired"
            ),
        }
    }
    node.repairs.repaired.fetch_add(u64::from(repaired), Ordering::Relaxed);
    repaired
}
