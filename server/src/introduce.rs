//! Nodes get to know each other's starts (design rule D6).
//!
//! Every stream begins with a Hello, in which a start introduces itself. The receiver records it
//! durably before it answers, or refuses it: then the store is a copy or an old state, its
//! process gives it up, and comes back with an empty one. No round trip is spent on this beyond the
//! opening of the stream. A replica serves a shard once a majority of its members have recorded the start;
//! recording others' starts needs no recorded start of one's own, so that a whole cluster may start at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use tracing::{error, info, warn};
use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::control_request::Request;
use triad_replica::member::Member;
use triad_replica::shard::ShardReplica;
use triad_replica::start::{Judgement, Start, Witnesses};
use triad_replica::store::{Batch, Key};
use triad_ring::{NodeId, ShardId};

use crate::book::{Contact, NodeState};
use crate::data_dir::LossReason;
use crate::liveness::Liveness;
use crate::node::Node;
use crate::peers::contact::Sender;
use crate::peers::{dial, learn_all};
use crate::starts::Distrust;

/// How long a start that is in doubt may take to show that it still runs.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// How often members that have not recorded the own start are looked for, while any shard waits for one.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// The same, once every shard is served.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long after a start requests wait for the shard to be served, instead of being refused.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the commits seen of others are written down, if they have grown by [`COMMITS`].
const KEEP_EVERY: Duration = Duration::from_secs(30);
const COMMITS: u64 = 16;

/// A start introduces itself: it is durably recorded when this returns, and its contact is believed.
/// An error says why nothing that it says may count.
pub(crate) async fn meet(
    node: &Arc<Node>,
    sender: &Sender,
    contacts: &[wire::Contact],
) -> Result<(), Status> {
    let start = sender.start();
    if !node.starts.is_current(&start) {
        record(node, &start).await?;
    }
    learn_all(&node.book, contacts);
    Ok(())
}

async fn record(node: &Arc<Node>, start: &Start) -> Result<(), Status> {
    suspect(node, start)?;
    if let Some(distrust) = still_runs(node, start).await {
        tell_people(node, start, &distrust);
        return Err(distrust.into());
    }
    let _one_at_a_time = node.starts.recording.lock().await;
    if node.starts.with_log(|log| log.judge(start)) == Judgement::Same {
        return Ok(());
    }
    suspect(node, start)?;
    let (row, forgotten) = node.starts.with_log(|log| {
        let mut next = log.clone();
        let forgotten = next.record(start);
        (next.row(&start.member), forgotten)
    });
    let mut batch = Batch::new();
    batch.set_essential();
    forgotten.iter().for_each(|member| batch.delete(Key::Start(*member).encode()));
    if let Some(row) = row {
        batch.put(Key::Start(start.member).encode(), row);
    }
    let written = node.local.meta(batch).await;
    written.map_err(|error| {
        Status::unavailable(format!("node {} cannot record the start: {error}", node.identity.name))
    })?;
    node.starts.with_log(|log| log.record(start));
    Ok(())
}

fn suspect(node: &Node, start: &Start) -> Result<(), Status> {
    let Some(distrust) = node.starts.distrust(start, &node.identity.name) else {
        return Ok(());
    };
    tell_people(node, start, &distrust);
    Err(distrust.into())
}

fn tell_people(node: &Node, start: &Start, distrust: &Distrust) {
    let Distrust { reason, why, .. } = distrust;
    error!(
        node = %node.book.name(start.member.node), store = %start.member.store, start = start.incarnation.get(),
        reason = reason.as_str(), why,
        "a store is refused: it is a copy or an old state, and must not vote"
    );
}

/// Whether an earlier start of the node still answers, and so the new one is a copy, whatever
/// it calls itself.
async fn still_runs(node: &Arc<Node>, start: &Start) -> Option<Distrust> {
    let id = start.member.node;
    let known = node.starts.newest(id)?;
    if node.liveness(id) != Liveness::Alive {
        return None;
    }
    let contact = node.book.get(id)?;
    let answers = tokio::time::timeout(PROBE_PATIENCE, who_is_at(node, &contact.peer_address));
    let answered = answers.await.ok()??.start();
    if !answered.is_same_process(&known) {
        return None;
    }
    Some(Distrust {
        reason: LossReason::Cloned,
        why: format!(
            "node {} says: another process runs as this node, at {} (start {}): this data directory is a copy of that one's",
            node.identity.name,
            contact.peer_address,
            known.incarnation.get()
        ),
        known: known.incarnation,
    })
}

async fn who_is_at(node: &Node, address: &str) -> Option<Sender> {
    let mut client = dial(&*node.platform, address).await.ok()?;
    let request = wire::IdentifyRequest {
        hello: Some(node.hello()),
        contact: Some(wire::Contact::from(&*node.book.own())),
        may_bootstrap: false,
    };
    let response = client.identify(request).await.ok()?.into_inner();
    Sender::try_from(&response.hello?).ok()
}

/// A node asks to be admitted to the cluster: an error if another process runs under its id.
pub(crate) async fn admit(node: &Arc<Node>, sender: &Sender) -> Result<(), Status> {
    let start = sender.start();
    suspect(node, &start)?;
    match still_runs(node, &start).await {
        Some(distrust) if !node.starts.is_current(&start) => Err(distrust.into()),
        _ => Ok(()),
    }
}

/// Takes in how a node that only asks who this one is says it can be reached: unless another start of
/// it is known, which would have to be refuted first.
pub(crate) fn hear_of(node: &Node, sender: &Sender, contact: &wire::Contact) {
    let told = Contact::try_from(contact).ok();
    let leaves = told.is_some_and(|told| told.state == NodeState::Left);
    let known = node.starts.newest(sender.node).is_some();
    if leaves || !known || node.starts.is_current(&sender.start()) {
        learn_all(&node.book, std::slice::from_ref(contact));
    }
}

/// Waits a moment for the shard to be served, when this process has only just started.
pub(crate) async fn soon_introduced(node: &Node, shard: ShardId) {
    let waits = || node.local.look(shard, ShardReplica::is_introduced) == Some(false);
    if node.now() >= PATIENCE || !waits() {
        return;
    }
    let mut told = node.starts.watch();
    let introduced = async { while waits() && told.changed().await.is_ok() {} };
    let _ = tokio::time::timeout(PATIENCE.saturating_sub(node.now()), introduced).await;
}

/// Introduces this process to the members of its shards, until the node stops or gives its store up.
pub(crate) async fn introduce_task(node: Arc<Node>) {
    let mut kept = node.starts.with_log(|log| log.members().collect());
    let mut keep_at = node.now() + KEEP_EVERY;
    let mut told = 0;
    loop {
        if let Some(distrust) = node.starts.held_against() {
            return give_up(&node, distrust).await;
        }
        let (witnesses, count) = node.starts.witnesses();
        if count != told && node.local.witness(witnesses).await.is_ok() {
            told = count;
            node.starts.told(count);
            node.moves.wake();
        }
        let pause = if ask_the_rest(&node) { ASK_EVERY } else { LOOK_EVERY };
        if node.now() >= keep_at {
            keep_commits(&node, &mut kept).await;
            keep_at = node.now() + KEEP_EVERY;
        }
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = node.starts.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Opens streams to members that have not recorded this start. True while a shard waits for them.
fn ask_the_rest(node: &Arc<Node>) -> bool {
    let me = node.member();
    let mut missing: BTreeSet<NodeId> = BTreeSet::new();
    let mut waits = false;
    node.local.each_shard(|replica| {
        let Some(known) = replica.newest().filter(|_| replica.is_member()) else {
            return;
        };
        waits |= !replica.is_introduced();
        let others = known.members().into_iter().filter(|member| *member != me);
        let others = others.filter(|member| !node.starts.is_witness(member));
        missing.extend(others.map(|member| member.node));
    });
    for to in missing {
        // The Hello of its stream is what counts.
        drop(node.peers.control(to, Request::Ping(wire::Ping::default())));
    }
    waits
}

/// Writes down how many commits the others' stores have shown.
async fn keep_commits(node: &Node, kept: &mut BTreeMap<Member, u64>) {
    let (seen, rows) = node.starts.with_log(|log| {
        let seen: BTreeMap<Member, u64> = log.members().collect();
        let grown = |member: &Member, commits: &u64| {
            kept.get(member).is_none_or(|before| commits - before.min(commits) >= COMMITS)
        };
        let rows: Vec<_> = seen
            .iter()
            .filter(|(member, commits)| member.node != node.me() && grown(member, commits))
            .filter_map(|(member, _)| Some((Key::Start(*member).encode(), log.row(member)?)))
            .collect();
        (seen, rows)
    });
    if rows.is_empty() {
        return;
    }
    let mut batch = Batch::new();
    batch.set_essential();
    rows.into_iter().for_each(|(key, row)| batch.put(key, row));
    if node.local.meta(batch).await.is_ok() {
        *kept = seen;
    }
}

/// This store must not vote any more: nothing is served from it, and the process ends.
async fn give_up(node: &Node, distrust: &Distrust) {
    if let Err(failure) = node.local.witness(Witnesses::Suspect).await {
        warn!(%failure, "the store has failed besides");
    }
    info!(known = distrust.known.get(), "another start of this node is known");
    node.losses.distrusted(distrust);
}
