//! Removes values whose time to live is over (design rule D12).
//!
//! Readers do not see a value that is due, so nothing here is urgent. Every store keeps a row for
//! each time at which something of a record is due, in the order of time. The members of a shard
//! look in turn, the first one soonest; who comes upon a due value asks the others for the time,
//! and only when a majority's clocks say "due" is the value covered: by an ordinary record that
//! covers exactly these dots, so it cannot touch what was written meanwhile.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tracing::debug;
use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::control_reply::Reply;
use triad_proto::peer::v1::control_request::Request;
use triad_replica::configuration::{Configuration, Phase};
use triad_replica::dot::Dot;
use triad_replica::member::Member;
use triad_replica::record::Record;
use triad_replica::store::{Batch, Key, KeyRange};
use triad_ring::NodeId;

use crate::deadline::Deadline;
use crate::local::{Address, Wanted};
use crate::node::Node;
use crate::peers::data;

/// How often the queue is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The same while there is more to do than fits in one round.
const BUSY_EVERY: Duration = Duration::from_millis(100);
/// Rows of the queue in one round.
const ROUND: usize = 256;
/// Records covered at the same time.
const AT_ONCE: usize = 32;
/// How much later than the member before it a member takes care of a value.
const TURN_MS: u64 = 2_000;
/// How long another member may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs until the node stops.
pub(crate) async fn expiry_task(node: Arc<Node>) {
    let mut after: Option<Bytes> = None;
    loop {
        let pause = if after.is_some() { BUSY_EVERY } else { LOOK_EVERY };
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(node.spread(pause)) => {}
        }
        let (rows, next) = due_rows(&node, after.take().as_deref());
        after = next;
        round(&node, &rows).await;
    }
}

/// One row of the queue.
struct DueRow {
    at_ms: u64,
    address: Address,
}

/// The next rows that are due, and where to go on if there may be more.
fn due_rows(node: &Node, after: Option<&[u8]>) -> (Vec<DueRow>, Option<Bytes>) {
    let now = node.clock.cluster_ms();
    let mut rows = Vec::new();
    let mut next = None;
    let scanned = node.local.store().scan(&KeyRange::expiries(), after, &mut |stored, _| {
        let Some(Key::Expiry { at_ms, shard, bucket, key }) = Key::decode(stored) else {
            return ControlFlow::Continue(());
        };
        if at_ms > now {
            return ControlFlow::Break(());
        }
        let (bucket, key) = (bucket.to_owned(), Bytes::copy_from_slice(key));
        rows.push(DueRow { at_ms, address: Address { shard, bucket, key } });
        if rows.len() < ROUND {
            return ControlFlow::Continue(());
        }
        next = Some(Bytes::copy_from_slice(stored));
        ControlFlow::Break(())
    });
    if let Err(error) = scanned {
        // The rows before the bad one are good. Readers hide what is due, removed or not.
        debug!(%error, "the queue of due values cannot be read to its end");
    }
    (rows, next)
}

/// What one record has to lose.
struct Due {
    address: Address,
    configuration: Configuration,
    dots: Vec<(Dot, u64)>,
}

async fn round(node: &Arc<Node>, rows: &[DueRow]) {
    let mut left_over = Batch::new();
    let mut due: Vec<Due> = Vec::new();
    for row in rows {
        match look(node, row) {
            Looked::Due(one) => due.push(*one),
            Looked::Gone => left_over.delete(row.key()),
            Looked::Later => {}
        }
    }
    if !left_over.is_empty() {
        left_over.set_essential();
        // The next round finds them again.
        let _ = node.local.meta(left_over).await;
    }
    if due.is_empty() {
        return;
    }
    let times = ask_time(node, &due).await;
    futures::stream::iter(due).for_each_concurrent(AT_ONCE, |one| remove(node, one, &times)).await;
}

impl DueRow {
    fn key(&self) -> Bytes {
        let Address { shard, bucket, key } = &self.address;
        Key::Expiry { at_ms: self.at_ms, shard: *shard, bucket, key }.encode()
    }
}

enum Looked {
    Due(Box<Due>),
    /// The row names nothing that this store still has.
    Gone,
    /// It is another's turn, or the shard is between two configurations.
    Later,
}

fn look(node: &Node, row: &DueRow) -> Looked {
    let Ok(record) = node.local.peek(&row.address) else {
        return Looked::Later; // damaged: the repair writes the record, and its rows, anew
    };
    if !record.siblings().values().any(|sibling| sibling.expires_at == Some(row.at_ms)) {
        return Looked::Gone;
    }
    let newest = node.local.look(row.address.shard, |replica| replica.newest().cloned());
    let Some(configuration) = newest.flatten() else {
        return Looked::Later;
    };
    let now = node.clock.cluster_ms();
    if !is_my_turn(&configuration, node.member(), now.saturating_sub(row.at_ms)) {
        return Looked::Later;
    }
    let dots = record
        .siblings()
        .iter()
        .filter_map(|(dot, sibling)| Some((*dot, sibling.expires_at.filter(|at| *at <= now)?)));
    Looked::Due(Box::new(Due { address: row.address.clone(), dots: dots.collect(), configuration }))
}

/// Members take care of what is due one after the other, so that most often only one does. None
/// does while a shard moves: its learners may still miss what is to be covered.
fn is_my_turn(configuration: &Configuration, me: Member, overdue_ms: u64) -> bool {
    let Phase::Stable { members } = &configuration.phase else {
        return false;
    };
    let place = members.iter().position(|member| *member == me);
    place.is_some_and(|place| overdue_ms >= place as u64 * TURN_MS)
}

/// The cluster's time by the clocks of all members concerned, this node's included. Who does not
/// answer is not in it.
async fn ask_time(node: &Arc<Node>, due: &[Due]) -> BTreeMap<NodeId, u64> {
    let mut others: Vec<NodeId> = due
        .iter()
        .flat_map(|one| one.configuration.members())
        .map(|member| member.node)
        .filter(|id| *id != node.me())
        .collect();
    others.sort_unstable();
    others.dedup();
    let questions = others.into_iter().map(|id| {
        let asked = node.peers.control(id, Request::Ping(wire::Ping::default()));
        async move { Some((id, told(&asked.within(PATIENCE).await.ok()?.reply?)?)) }
    });
    let answers = futures::future::join_all(questions).await;
    let own = (node.me(), node.clock.cluster_ms());
    answers.into_iter().flatten().chain([own]).collect()
}

fn told(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Pong(pong) if pong.cluster_ms > 0 => Some(pong.cluster_ms),
        _ => None,
    }
}

/// Covers what a majority calls due, here and at the other members. Whoever misses it gets it
/// like any other write that it missed.
async fn remove(node: &Arc<Node>, due: Due, times: &BTreeMap<NodeId, u64>) {
    let Due { address, configuration, dots } = due;
    let agreed = dots.into_iter().filter(|(_, at)| agreed_due(&configuration, times, *at));
    let cover = Record::covering(agreed.map(|(dot, _)| dot));
    if cover.is_absent() {
        return;
    }
    let epoch = configuration.epoch;
    let deadline = Deadline::after(PATIENCE);
    let encoded = cover.encode();
    let others: Vec<_> = configuration
        .members()
        .into_iter()
        .filter(|member| *member != node.member())
        .map(|member| {
            let request = data::in_background(data::merge_request(
                &address, epoch, epoch, &encoded, deadline,
            ));
            node.peers.data(member.node, request).within(PATIENCE)
        })
        .collect();
    let own = node.local.merge(address.clone(), epoch, epoch, cover, Wanted::in_background());
    let (own, _) = tokio::join!(own, futures::future::join_all(others));
    if let Err(refused) = own {
        debug!(%refused, "a due value stays for now");
    }
}

/// Whether a majority of the members say that `at_ms` has come.
fn agreed_due(configuration: &Configuration, times: &BTreeMap<NodeId, u64>, at_ms: u64) -> bool {
    let members = configuration.members();
    let says_due = |member: &&Member| times.get(&member.node).is_some_and(|time| *time >= at_ms);
    members.iter().filter(says_due).count() > members.len() / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use triad_replica::member::StoreId;
    use triad_ring::ShardId;

    fn member(number: u8) -> Member {
        Member { node: NodeId::from_bytes([number; 16]), store: StoreId::from_bytes([number; 16]) }
    }

    fn of(members: &[u8]) -> Configuration {
        let members = members.iter().copied().map(member).collect();
        let first = Configuration::bootstrap(ShardId::new(0), member(1));
        Configuration { phase: Phase::Stable { members }, ..first }
    }

    #[test]
    fn one_fast_clock_removes_nothing() {
        let configuration = of(&[1, 2, 3]);
        let times = |all: &[(u8, u64)]| -> BTreeMap<NodeId, u64> {
            all.iter().map(|(number, time)| (member(*number).node, *time)).collect()
        };
        assert!(!agreed_due(&configuration, &times(&[(1, 9_000), (2, 10), (3, 11)]), 1_000));
        assert!(!agreed_due(&configuration, &times(&[(1, 9_000)]), 1_000));
        assert!(!agreed_due(&configuration, &times(&[(1, 9_000), (9, 9_000)]), 1_000));
        assert!(agreed_due(&configuration, &times(&[(1, 1_000), (3, 1_001)]), 1_000));
    }

    #[test]
    fn members_take_turns_and_nobody_acts_while_a_shard_moves() {
        let configuration = of(&[1, 2, 3]);
        assert!(is_my_turn(&configuration, member(1), 0));
        assert!(!is_my_turn(&configuration, member(2), TURN_MS - 1));
        assert!(is_my_turn(&configuration, member(2), TURN_MS));
        assert!(is_my_turn(&configuration, member(3), 2 * TURN_MS));
        assert!(!is_my_turn(&configuration, member(4), u64::MAX));
        let (old, new) = (vec![member(1)], vec![member(1), member(2)]);
        let joint = Configuration { phase: Phase::Joint { old, new }, ..configuration };
        assert!(!is_my_turn(&joint, member(1), u64::MAX));
    }
}
