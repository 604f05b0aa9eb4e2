//! Mends damaged rows from the other replicas, and raises CORRUPTION until it has.
//!
//! What was acknowledged with this store's copy is on a majority of the members, this one perhaps among
//! them: so it is on one of any `n - majority + 1` of the *others*, and so many must tell their
//! record of the key, in one epoch. With fewer the row stays damaged. It is not begun before every request
//! that may have counted this store's answer is over: its record may still be on its way to the others.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tracing::{debug, warn};
use triad_replica::configuration::{Configuration, majority};
use triad_replica::get::GetAnswer;
use triad_replica::record::Record;

use crate::alarms::AlarmName;
use crate::deadline::Deadline;
use crate::local::{Address, Replacement, position};
use crate::node::Node;
use crate::peers::data;

/// How often rows are looked for that wait.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Rows mended in one round, and at once.
const ROUND: usize = 256;
const AT_ONCE: usize = 8;
/// How long the others may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs until the node stops, or its store proves to be beyond mending.
pub(crate) async fn mender_task(node: Arc<Node>) {
    loop {
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = node.local.damage().news() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if let Some((reason, why)) = node.local.damage().hopeless() {
            node.local.condemn(&why);
            node.losses.give_up(reason, &why);
            return;
        }
        follow(&node);
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = round(&node) => {}
        }
    }
}

fn follow(node: &Node) {
    let store = node.config.storage.data_dir.join("store");
    let detail = node.local.damage().detail();
    let detail = detail.map(|detail| format!("{detail}, of the store in {}", store.display()));
    node.alarms.follow(AlarmName::Corruption, detail);
}

async fn round(node: &Arc<Node>) {
    let settled = node.config.timeouts.request_max;
    let due = node.local.damage().due(settled, ROUND);
    if due.is_empty() {
        return;
    }
    futures::stream::iter(due).for_each_concurrent(AT_ONCE, |at| mend(node, at)).await;
    follow(node);
}

async fn mend(node: &Arc<Node>, at: Address) {
    let (shard, key) = (at.shard, position(&at));
    let known =
        node.local.look(shard, |replica| replica.newest().filter(|_| replica.is_member()).cloned());
    let replacement = match known.flatten() {
        None => Replacement::Nothing,
        Some(configuration) => {
            let Some(record) = gather(node, &at, &configuration).await else {
                debug!(%shard, %key, "a damaged row cannot be mended now: too few replicas tell theirs");
                return;
            };
            if record.is_absent() {
                warn!(%shard, %key, "no other replica holds anything of a damaged row: what it held is gone");
            }
            node.throttle.take(record.encoded_len() as u64).await;
            Replacement::Record(configuration.epoch, record)
        }
    };
    if let Err(error) = node.local.mend(at, replacement).await {
        debug!(%shard, %key, %error, "a damaged row was not mended");
    }
}

/// What the other members that are read hold, merged. None when too few of them answer; that nobody
/// has anything is believed of all alone.
async fn gather(node: &Arc<Node>, at: &Address, configuration: &Configuration) -> Option<Record> {
    let me = node.member();
    let set = configuration.read_set();
    let needed = set.len() + 1 - majority(set.len());
    let others = set.iter().filter(|member| **member != me && node.shows_store(**member));
    let mut answers: FuturesUnordered<_> = others
        .map(|member| {
            let deadline = Deadline::after(PATIENCE);
            let read = data::whole_record_request(at, configuration.epoch, deadline);
            node.peers.data(member.node, read).within(PATIENCE)
        })
        .collect();
    let (mut merged, mut told) = (Record::default(), 0);
    while let Some(answer) = answers.next().await {
        match data::read_answer(answer) {
            (GetAnswer::Record(record), _) => {
                merged.merge(&record);
                told += 1;
            }
            (_, Some(newest)) => crate::moves::learn(node, &newest).await,
            _ => {}
        }
    }
    let all = set.iter().filter(|member| **member != me).count();
    (told >= needed && (told == all || !merged.is_absent())).then_some(merged)
}
