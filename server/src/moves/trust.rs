//! Whose word about a configuration counts.
//!
//! A decision carries no signature, so what counts is who tells of it. The members of the configuration known
//! here, and the former ones that it lists, decide what follows; what they tell is believed. Anybody else's word
//! is a rumour: the members themselves are asked. When none of them knows of anything newer, for all may have left
//! since, a majority of the nodes that keep the shard's configuration must tell the very same. So one node that lies and is
//! no member makes nobody leave an epoch, discard a record or send a write where it is lost.
//!
//! Who has never heard of a shard believes the first word, for there is nothing else to hold it against.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;
use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::control_reply::Reply;
use triad_proto::peer::v1::control_request::Request;
use triad_replica::configuration::{Configuration, Epoch, majority};
use triad_replica::member::Member;
use triad_replica::message::{ShardReply, ShardRequest};
use triad_ring::{NodeId, ShardId};

use super::publish::keepers;
use crate::coordinator::refresh;
use crate::liveness::Liveness;
use crate::node::Node;

/// How long a node may take to say what it knows.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many epochs, at most, are made up for by asking those who took part in the last one heard of.
const STEPS: usize = 8;

/// Takes in a configuration that another node tells of, if that node's word counts, or is borne out.
pub(crate) async fn learn_from(node: &Arc<Node>, from: NodeId, told: &Configuration) {
    if is_believed(node, from, told).await {
        super::learn(node, told).await;
    }
}

/// Does a step of deciding for another node, if its word counts. None when the store has failed.
pub(crate) async fn handle_from(
    node: &Arc<Node>,
    from: NodeId,
    request: ShardRequest,
) -> Option<ShardReply> {
    let told = match &request {
        ShardRequest::Prepare { base, .. } | ShardRequest::StartLearning { base } => {
            // Members alone drive moves.
            if !base.members().iter().any(|member| member.node == from) {
                return Some(ShardReply::Refused);
            }
            Some(base)
        }
        ShardRequest::Learn { configuration } => Some(configuration),
        ShardRequest::Accept { .. } | ShardRequest::Progress { .. } => None,
    };
    if let Some(told) = told
        && !is_believed(node, from, told).await
    {
        let newer = known(node, told.shard).filter(|newest| newest.epoch >= told.epoch);
        return Some(newer.map_or(ShardReply::Refused, |newest| ShardReply::Superseded { newest }));
    }
    let ballot = match &request {
        ShardRequest::Prepare { base, ballot, .. } => Some((base.epoch, ballot)),
        ShardRequest::Accept { base, ballot, .. } => Some((base.epoch, ballot)),
        _ => None,
    };
    if let Some((epoch, ballot)) = ballot
        && (ballot.node != from || !may_propose(node, from, request.shard(), epoch))
    {
        return Some(ShardReply::Refused);
    }
    super::handle(node, request).await
}

/// Ballots are begun by members. What builds on another configuration than the store's is answered, not obeyed.
fn may_propose(node: &Node, from: NodeId, shard: ShardId, epoch: Epoch) -> bool {
    let may = |known: &Configuration| {
        known.epoch != epoch || known.members().iter().any(|member| member.node == from)
    };
    node.local.look(shard, |replica| replica.newest().is_none_or(may)) == Some(true)
}

/// Whether an epoch is, or was, by this node's knowledge or that of the shard's members: nobody is bound to what lies
/// ahead of all of them.
pub(crate) async fn has_come(node: &Arc<Node>, from: NodeId, shard: ShardId, epoch: Epoch) -> bool {
    if known(node, shard).is_none() {
        refresh(node, shard).await;
    }
    let Some(before) = known(node, shard) else {
        return false;
    };
    if epoch <= before.epoch || took_part(&before, from) {
        return true;
    }
    ask_members(node, &before, from).await;
    known(node, shard).is_some_and(|newest| epoch <= newest.epoch)
}

/// Whether a node is a member of the shard in the epoch that is known to the store here, or a former one that is listed.
pub(crate) fn acts_as_member(node: &Node, from: NodeId, shard: ShardId) -> bool {
    let newest = |known: &Configuration| took_part(known, from);
    node.local.look(shard, |replica| replica.newest().is_some_and(newest)) == Some(true)
}

/// The newest configuration that this node knows, in its store or by the directory.
fn known(node: &Node, shard: ShardId) -> Option<Configuration> {
    let stored = node.local.look(shard, |replica| replica.newest().cloned()).flatten();
    let heard = node.directory.get(shard).map(|heard| (*heard).clone());
    stored.into_iter().chain(heard).max_by_key(|one| one.epoch)
}

fn took_part(known: &Configuration, node: NodeId) -> bool {
    let sides = [known.read_set(), known.new_set(), &known.retired];
    sides.into_iter().flatten().any(|member| member.node == node)
}

async fn is_believed(node: &Arc<Node>, from: NodeId, told: &Configuration) -> bool {
    if !node.cluster.shards.has(told.shard) {
        return false;
    }
    let Some(before) = known(node, told.shard) else {
        return true;
    };
    if took_part(&before, from) || *told == before {
        return true;
    }
    if told.epoch <= before.epoch {
        return false;
    }
    if is_forced(node, &before, told) {
        return true;
    }
    // Its teller says it again, or another does: what is not looked into now is lost to nobody.
    let Some(_permit) = node.moves.doubt() else {
        return false;
    };
    let borne_out = is_borne_out(node, from, told).await;
    if !borne_out {
        let (shard, epoch) = (told.shard, told.epoch);
        warn!(%shard, %epoch, from = %node.book.name(from), "not believed: a configuration that nobody else knows");
    }
    borne_out
}

/// What an operator's force would have decided, as far as can be seen from here: a majority is gone, and those that
/// are left go on with what they have. Whoever may speak for an operator may do so anyway.
fn is_forced(node: &Node, before: &Configuration, told: &Configuration) -> bool {
    let is_here = |member: &Member| {
        *member == node.member()
            || (node.liveness(member.node) == Liveness::Alive && node.shows_store(*member))
    };
    let acceptors = before.read_set();
    let left = before.members().into_iter().filter(is_here).count();
    let acceptors_left = acceptors.iter().filter(|member| is_here(member)).count();
    let was_there = |member: &Member| before.is_member(member) || before.retired.contains(member);
    told.epoch == (Epoch { lineage: before.epoch.lineage.saturating_add(1), number: 1 })
        && told.gc_epoch == before.gc_epoch
        && told.collected.is_none()
        && !told.is_joint()
        && acceptors_left < majority(acceptors.len())
        && (left == 0 || told.new_set().iter().all(was_there))
}

/// Whether those whose word counts tell the same.
async fn is_borne_out(node: &Arc<Node>, from: NodeId, told: &Configuration) -> bool {
    let mut asked = None;
    for _ in 0..STEPS {
        let Some(before) = known(node, told.shard) else {
            return false;
        };
        if told.epoch <= before.epoch {
            return *told == before;
        }
        if before.is_only(&node.member()) {
            return false; // nothing is decided without this store
        }
        if asked == Some(before.epoch) {
            break;
        }
        asked = Some(before.epoch);
        ask_members(node, &before, from).await;
    }
    let keepers: BTreeSet<NodeId> = keepers(node, told.shard)
        .into_iter()
        .filter(|keeper| *keeper != node.me() && node.liveness(*keeper) != Liveness::Down)
        .collect();
    let others = keepers.iter().copied().filter(|keeper| *keeper != from);
    let answers = ask(node, others, told.shard).await;
    let same = answers.iter().filter(|answer| *answer == told).count();
    same + usize::from(keepers.contains(&from)) >= majority(keepers.len())
}

/// Asks those who decide what follows, and takes in what they know.
async fn ask_members(node: &Arc<Node>, before: &Configuration, except: NodeId) {
    let others = before.members().into_iter().chain(before.retired.iter().copied());
    let others: BTreeSet<NodeId> = others.map(|member| member.node).collect();
    let others = others.into_iter().filter(|one| *one != node.me() && *one != except);
    for answer in ask(node, others, before.shard).await {
        super::learn(node, &answer).await;
    }
}

async fn ask(
    node: &Arc<Node>,
    nodes: impl Iterator<Item = NodeId>,
    shard: ShardId,
) -> Vec<Configuration> {
    let find = wire::FindConfiguration { shard: shard.get() };
    let asked = nodes.map(|one| node.peers.control(one, Request::Find(find)).within(PATIENCE));
    let replies = futures::future::join_all(asked).await;
    let found = replies.into_iter().flatten().filter_map(|reply| match reply.reply {
        Some(Reply::Found(found)) => Configuration::try_from(found.newest?).ok(),
        _ => None,
    });
    found.filter(|one| one.shard == shard).collect()
}
