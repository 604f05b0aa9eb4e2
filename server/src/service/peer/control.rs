//! What must never wait behind data: ring maintenance, pings, decisions, the directory.

use std::sync::{Arc, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use prost::Message as _;
use tonic::Status;
use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::control_reply::Reply;
use triad_proto::peer::v1::control_request::Request;
use triad_replica::configuration::{Configuration, Epoch};
use triad_replica::member::Member;
use triad_replica::message::{Removal, RemovalReason, ShardRequest};
use triad_replica::start::Start;
use triad_ring::{Message, NodeId, ShardId};

use crate::book::NodeState;
use crate::liveness::{INDIRECT_PING, Liveness};
use crate::node::Node;
use crate::peers::contact::Sender;
use crate::peers::{Inbound, learn_all, stamp};
use crate::pulse::heard;

/// One node's control stream to this node.
pub(super) struct ControlInbound {
    node: Arc<Node>,
    from: NodeId,
    /// The start that the stream belongs to.
    start: Start,
}

impl ControlInbound {
    pub(super) fn new(node: Arc<Node>, sender: &Sender) -> Self {
        Self { node, from: sender.node, start: sender.start() }
    }
}

impl Inbound for ControlInbound {
    type Batch = wire::ControlBatch;
    type Reply = wire::ControlReply;
    type ReplyBatch = wire::ControlReplyBatch;

    fn accept(
        &mut self,
        batch: wire::ControlBatch,
    ) -> Result<Vec<BoxFuture<'static, Option<wire::ControlReply>>>, Status> {
        // Asked before the batch is read: the one that tells of a leave is answered yet.
        let sender = self.node.book.get(self.from);
        if sender.is_some_and(|contact| contact.state == NodeState::Left) {
            return Err(Status::failed_precondition("the calling node has left the cluster"));
        }
        if let Some(distrust) = outdated(&self.node, &self.start) {
            return Err(distrust);
        }
        learn_all(&self.node.book, &batch.contacts);
        heard(&self.node, self.from, self.start.incarnation);
        let mut running = Vec::new();
        for request in batch.requests {
            match request.request {
                Some(Request::Ring(message)) => {
                    // One that was declared failed is heard again once it is alive (rule R4).
                    let heard = self.node.liveness(self.from) != Liveness::Down;
                    if let (true, Ok(message)) = (heard, Message::try_from(message)) {
                        self.node.ring.message(self.from, message);
                    }
                }
                Some(Request::Contacts(list)) => learn_all(&self.node.book, &list.contacts),
                Some(other) => {
                    let (node, from, id) = (Arc::clone(&self.node), self.from, request.id);
                    let reply = async move {
                        let reply = Some(answer(&node, from, other).await?);
                        Some(wire::ControlReply { id, reply })
                    };
                    running.push(reply.boxed());
                }
                None => {}
            }
        }
        Ok(running)
    }

    fn size(reply: &wire::ControlReply) -> usize {
        reply.encoded_len()
    }

    fn pack(&self, replies: Vec<wire::ControlReply>) -> wire::ControlReplyBatch {
        wire::ControlReplyBatch {
            hello: None,
            stamp: Some(stamp(&self.node)),
            replies,
            contacts: Vec::new(),
        }
    }
}

/// Why nothing more of a start counts, when the node has started again since.
pub(super) fn outdated(node: &Node, start: &Start) -> Option<Status> {
    node.starts.distrust(start, &node.identity.name).map(Status::from)
}

/// None for what cannot be answered: the asker's own patience ends.
async fn answer(node: &Arc<Node>, from: NodeId, request: Request) -> Option<Reply> {
    match request {
        Request::Ping(ping) => Some(Reply::Pong(pong(node, &ping).await)),
        Request::Shard(request) => shard(node, from, ShardRequest::try_from(request).ok()?).await,
        Request::Digests(digests) => Some(Reply::Digests(compare(node, &digests))),
        Request::Publish(publish) => Some(Reply::Digests(publish_all(node, from, publish).await)),
        Request::Find(find) => {
            let newest = node.directory.get(ShardId::new(find.shard));
            let newest = newest.map(|known| wire::Configuration::from(&*known));
            Some(Reply::Found(wire::FoundConfiguration { newest }))
        }
        Request::PromiseNoHints(asked) => {
            let epoch = asked.epoch.map_or(Epoch::NONE, Epoch::from);
            let shard = ShardId::new(asked.shard);
            // A promise about epochs to come would give what is held later too new a stamp.
            let promised = crate::moves::has_come(node, from, shard, epoch).await
                && node.local.promise_no_hints(shard, epoch).await.ok()?;
            Some(Reply::HintsPromised(wire::HintsPromised { promised }))
        }
        Request::Ring(_) | Request::Contacts(_) => None,
    }
}

async fn pong(node: &Node, ping: &wire::Ping) -> wire::Pong {
    let incarnation = node.identity.incarnation.get();
    let (wall_ms, cluster_ms) = (node.clock.now_ms(), node.clock.cluster_ms());
    let held = node.hints.counts().acknowledging;
    let full = node.local.stats().full.is_some();
    let own = wire::Pong { reached: true, incarnation, wall_ms, cluster_ms, held, full };
    let Ok(target) = <[u8; 16]>::try_from(ping.target.as_ref()) else {
        return own;
    };
    let target = NodeId::from_bytes(target);
    if target == node.me() {
        return own;
    }
    let not_reached = wire::Pong::default();
    if node.book.get(target).is_none() {
        return not_reached; // no road is laid to whom nobody knows
    }
    let direct = Request::Ping(wire::Ping::default());
    match node.peers.control(target, direct).within(INDIRECT_PING).await.map(|reply| reply.reply) {
        Ok(Some(Reply::Pong(pong))) => pong,
        _ => not_reached,
    }
}

/// A step of deciding: made durable by the committer, then answered.
async fn shard(node: &Arc<Node>, from: NodeId, request: ShardRequest) -> Option<Reply> {
    let reply = crate::moves::handle_from(node, from, request).await?;
    Some(Reply::Shard(reply.into()))
}

/// Of the members that a proposal would remove as down, those that show life here, if only by the
/// word of others; and of those whose store it calls lost, those that still show it.
pub(crate) fn seen_alive(node: &Node, request: &ShardRequest) -> Vec<Member> {
    let ShardRequest::Prepare { removals, .. } = request else {
        return Vec::new();
    };
    let beliefs = node.beliefs.read().unwrap_or_else(PoisonError::into_inner);
    let there = |removal: &&Removal| {
        let alive = beliefs.liveness(removal.member.node) == Liveness::Alive;
        match removal.reason {
            RemovalReason::Down => beliefs.shows_life(removal.member.node),
            RemovalReason::LostStore => alive && node.shows_store(removal.member),
            RemovalReason::Displaced | RemovalReason::Leaving => false,
        }
    };
    removals.iter().filter(there).map(|removal| removal.member).collect()
}

/// Compares another node's epochs with the directory here.
fn compare(node: &Node, digests: &wire::ConfigurationDigests) -> wire::DigestReply {
    let mut reply = wire::DigestReply::default();
    for digest in &digests.digests {
        let theirs = digest.epoch.map_or(Epoch::NONE, Epoch::from);
        match node.directory.get(ShardId::new(digest.shard)) {
            Some(known) if known.epoch > theirs => {
                reply.newer.push(wire::Configuration::from(&*known));
            }
            Some(known) if known.epoch == theirs => {}
            _ => reply.wanted.push(digest.shard),
        }
    }
    reply
}

/// Keeps configurations; those that this store is part of are entered, too.
async fn publish_all(
    node: &Arc<Node>,
    from: NodeId,
    publish: wire::PublishConfigurations,
) -> wire::DigestReply {
    let told: Vec<Configuration> = publish
        .configurations
        .into_iter()
        .filter_map(|one| Configuration::try_from(one).ok())
        .collect();
    let learn = |one| crate::moves::learn_from(node, from, one);
    futures::future::join_all(told.iter().map(learn)).await;
    let newer = told.iter().filter_map(|one| {
        let known = node.directory.get(one.shard)?;
        (known.epoch > one.epoch).then(|| wire::Configuration::from(&*known))
    });
    wire::DigestReply { newer: newer.collect(), ..Default::default() }
}
