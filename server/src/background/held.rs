//! Delivery of held records: to every member of the shard, whoever they are by now.
//!
//! A member has one when it is durable there, merged in the epoch that the member serves. The record
//! keeps the stamp of the epoch in which it was made. It goes when all members of one epoch
//! have it: then it is where a write at ALL would have been.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;
use triad_replica::configuration::Configuration;
use triad_replica::consistency::Failure;
use triad_replica::hint::{Due, HeldRecord};
use triad_replica::member::Member;
use triad_replica::put::PutAnswer;
use triad_ring::ShardId;

use super::handoff::{AT_ONCE, BATCHES, PATIENCE};
use crate::coordinator::refresh;
use crate::deadline::Deadline;
use crate::liveness::Liveness;
use crate::local::{Wanted, WriteError};
use crate::node::Node;
use crate::peers::data::{self, MergeAnswer};

/// How often the directory is asked who the members of a shard are, while some are not reached.
const REFRESH_EVERY: Duration = Duration::from_secs(5);

/// The delivery of held records.
#[derive(Default)]
pub(super) struct Held {
    /// When the members of a shard were last looked up. Emptied with every round that finds
    /// nothing to deliver.
    refreshed: BTreeMap<ShardId, Duration>,
}

/// What became of one held record.
enum Outcome {
    /// Every member has it, or it cannot be delivered any more.
    Release,
    /// Somebody still lacks it.
    Later,
}

impl Held {
    /// Delivers what is due.
    pub(super) async fn deliver_all(&mut self, node: &Arc<Node>) {
        for _ in 0..BATCHES {
            let due = node.hints.with(|book| book.due_held(node.now(), AT_ONCE));
            if due.is_empty() {
                self.refreshed.retain(|_, at| *at + REFRESH_EVERY > node.now());
                return;
            }
            if node.stop.is_cancelled() {
                return;
            }
            let deliveries = due.iter().map(|due| deliver(node, due));
            let outcomes = futures::future::join_all(deliveries).await;
            for (due, outcome) in due.into_iter().zip(outcomes) {
                match outcome {
                    // A row that stays is delivered once more after the next start.
                    Outcome::Release => drop(node.local.release_held(due).await),
                    Outcome::Later => {
                        node.hints.with(|book| book.postpone_held(&due, node.now()));
                        self.look_up(node, due.at.shard).await;
                    }
                }
            }
        }
    }

    /// The members that this node knows may all be gone.
    async fn look_up(&mut self, node: &Arc<Node>, shard: ShardId) {
        let now = node.now();
        let recent = self.refreshed.get(&shard).is_some_and(|at| now < *at + REFRESH_EVERY);
        if !recent {
            self.refreshed.insert(shard, now);
            refresh(node, shard).await;
        }
    }
}

/// Brings one record to all members that lack it and seem to be there.
async fn deliver(node: &Arc<Node>, due: &Due) -> Outcome {
    let Some(configuration) = node.directory.get(due.at.shard) else {
        return Outcome::Later;
    };
    let held = match node.local.held(&due.at) {
        Ok(Some(held)) => held,
        // Released or changed in this moment; or the process is ending.
        Ok(None) | Err(WriteError::Store(_) | WriteError::Known(_)) => return Outcome::Later,
        Err(WriteError::Refused(_)) => {
            node.hints.lost(&due.at, "its row is damaged");
            return Outcome::Release;
        }
    };
    let lacking = node.hints.with(|book| book.lacking(due, &configuration));
    let reachable = lacking
        .into_iter()
        .filter(|member| node.liveness(member.node) == Liveness::Alive)
        .map(|member| bring(node, due, &held, &configuration, member));
    let answers = futures::future::join_all(reachable).await;
    let collected = PutAnswer::Failed(Failure::Collected);
    if answers.contains(&collected) {
        // Cannot be while every node is asked before tombstones go: it was not, or was removed.
        node.hints.lost(&due.at, "tombstones of its epoch are gone");
        return Outcome::Release;
    }
    let lacking = node.hints.with(|book| book.lacking(due, &configuration));
    if lacking.is_empty() { Outcome::Release } else { Outcome::Later }
}

async fn bring(
    node: &Arc<Node>,
    due: &Due,
    held: &HeldRecord,
    configuration: &Configuration,
    member: Member,
) -> PutAnswer {
    let epoch = configuration.epoch;
    let MergeAnswer { answer, newest } = if member == node.member() {
        let record = held.record.clone();
        data::own_merge_answer(
            node.local
                .merge(due.at.clone(), epoch, held.stamp, record, Wanted::in_background())
                .await,
        )
    } else {
        let deadline = Deadline::after(PATIENCE);
        let encoded = held.record.encode();
        let request = data::in_background(data::merge_request(
            &due.at, epoch, held.stamp, &encoded, deadline,
        ));
        data::merge_answer(node.peers.data(member.node, request).within(PATIENCE).await)
    };
    if let Some(newest) = newest {
        if newest.epoch < epoch {
            crate::moves::teach(node, member.node, configuration);
        }
        crate::moves::learn(node, &newest).await;
    }
    if matches!(answer, PutAnswer::Stored { .. }) {
        node.hints.with(|book| book.delivered(due, epoch, member));
    } else if answer == PutAnswer::Failed(Failure::Damaged) {
        warn!(shard = %due.at.shard, member = %node.book.name(member.node), "a held record meets a damaged row");
    }
    answer
}
