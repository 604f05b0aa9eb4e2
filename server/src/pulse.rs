//! The pulse: drives the detector, and tells the ring who came and who went.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};
use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::control_reply::Reply;
use triad_proto::peer::v1::control_request::Request;
use triad_ring::{Incarnation, NodeId};

use crate::book::NodeState;
use crate::liveness::{
    Change, Input, LATEST_ANSWER, Liveness, Output, PERIOD, ProbeId, Watched, Word,
};
use crate::node::Node;
use crate::peers::LinkError;

/// In a cluster of up to so many nodes all are pinged in every period, and it need not be known who
/// shares shards with whom.
const SMALL: usize = 64;
/// Strangers shown to the ring in one period.
const STRANGERS: usize = 8;

/// Runs until the node stops.
pub(crate) async fn pulse_task(node: Arc<Node>) {
    loop {
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(node.spread(PERIOD)) => {}
        }
        detect(&node, Input::Period(watched(&node)));
        show_strangers(&node);
        crate::clock::watch_skew(&node);
    }
}

/// Another node has sent something of its own.
pub(crate) fn heard(node: &Arc<Node>, from: NodeId, incarnation: Incarnation) {
    if from != node.me() {
        detect(node, Input::Heard { node: from, incarnation });
    }
}

/// Hands the detector an input and does what it asks.
fn detect(node: &Arc<Node>, input: Input) {
    let mut outputs = Vec::new();
    let now = node.now();
    {
        let mut detector = node.beliefs.write().unwrap_or_else(PoisonError::into_inner);
        detector.handle(input, now, &mut outputs);
        // Before the next input can change its mind: the ring hears of changes in their order.
        outputs.iter().for_each(|output| tell_ring(node, output));
    }
    for output in outputs {
        match output {
            Output::Ping { node: to, probe, patience } => {
                drop(node.tasks.spawn(ping(Arc::clone(node), to, probe, patience)));
            }
            Output::AskHelper { node: of, helper, probe, patience } => {
                drop(node.tasks.spawn(ask_helper(Arc::clone(node), of, helper, probe, patience)));
            }
            Output::Changed(change) => tell_people(node, change),
        }
    }
}

/// Pings a node. An answer counts even when it was given up, if it is not much too late.
async fn ping(node: Arc<Node>, to: NodeId, probe: ProbeId, patience: Duration) {
    let request = Request::Ping(wire::Ping::default());
    let asked_at = node.now();
    let mut answer = pin!(node.peers.control(to, request).wait());
    let mut given_up = false;
    let answered = if let Ok(answered) = timeout(patience, answer.as_mut()).await {
        answered
    } else {
        detect(&node, Input::Unanswered { probe });
        given_up = true;
        let longer = LATEST_ANSWER.saturating_sub(patience);
        timeout(longer, answer).await.unwrap_or(Err(LinkError::Lost))
    };
    match answered.map(|reply| reply.reply) {
        Ok(Some(Reply::Pong(pong))) => {
            node.clock.heard(to, pong.wall_ms, asked_at);
            node.hints.heard(to, pong.held);
            node.room.heard(to, pong.full);
            let incarnation = Incarnation::new(pong.incarnation);
            detect(&node, Input::Answered { probe, incarnation });
        }
        _ if given_up => {}
        _ => detect(&node, Input::Unanswered { probe }),
    }
}

/// Asks a helper to ping a node.
async fn ask_helper(
    node: Arc<Node>,
    of: NodeId,
    helper: NodeId,
    probe: ProbeId,
    patience: Duration,
) {
    let target = of.as_bytes().to_vec().into();
    let asked = node.peers.control(helper, Request::Ping(wire::Ping { target }));
    let word = match asked.within(patience).await.map(|reply| reply.reply) {
        Ok(Some(Reply::Pong(pong))) if pong.reached => {
            Word::Reached(Incarnation::new(pong.incarnation))
        }
        Ok(Some(Reply::Pong(_))) => Word::NotReached,
        _ => Word::None,
    };
    detect(&node, Input::Helped { probe, word });
}

fn tell_ring(node: &Node, output: &Output) {
    let Output::Changed(Change { node: id, before, now }) = *output else {
        return;
    };
    if now == Liveness::Down {
        node.ring.input(triad_ring::Input::Failed(id));
    } else if (now == Liveness::Alive || before != Liveness::Alive) && is_ring_member(node, id) {
        node.ring.input(triad_ring::Input::Met(id));
    }
}

fn tell_people(node: &Node, Change { node: id, before, now }: Change) {
    let name = node.book.name(id);
    match (before, now) {
        (Liveness::Alive, Liveness::Alive) => info!(node = %name, "restarted"),
        (_, Liveness::Alive) => info!(node = %name, "alive"),
        (Liveness::Alive, Liveness::Suspect) => info!(node = %name, "suspected: no answer"),
        (Liveness::Down, Liveness::Suspect) => {
            info!(node = %name, "a sign of life, but no answer to this node yet");
        }
        (Liveness::Suspect, Liveness::Suspect) => {}
        (_, Liveness::Down) => {
            let silent = node.silent_for(id);
            warn!(node = %name, ?silent, "down: no answer for too long, and nobody reaches it");
        }
    }
    node.moves.wake();
}

fn is_ring_member(node: &Node, id: NodeId) -> bool {
    node.book.get(id).is_some_and(|contact| contact.state.is_ring_member())
}

/// Some that answer and say that they are ring members, but that our part of the ring does not
/// know: there are two rings, or ours has forgotten them.
fn show_strangers(node: &Node) {
    let known = node.ring.view().nodes();
    let mut strangers: Vec<NodeId> = node
        .book
        .all()
        .iter()
        .filter(|contact| contact.state.is_ring_member() && !known.contains(&contact.node))
        .map(|contact| contact.node)
        .filter(|id| *id != node.me() && node.liveness(*id) == Liveness::Alive)
        .collect();
    if strangers.len() > STRANGERS {
        let first = node.random_below(strangers.len() as u64) as usize;
        strangers.rotate_left(first);
    }
    for stranger in strangers.into_iter().take(STRANGERS) {
        node.ring.input(triad_ring::Input::Met(stranger));
    }
}

/// Everybody in the book; in a large cluster, those that share shards with this node are marked.
fn watched(node: &Node) -> Vec<Watched> {
    let mut contacts = node.book.all();
    contacts.retain(|contact| contact.state != NodeState::Left);
    let mut near = BTreeSet::new();
    if contacts.len() > SMALL {
        node.local.each_shard(|replica| {
            let members = replica
                .newest()
                .filter(|_| replica.is_member())
                .map(triad_replica::configuration::Configuration::members);
            near.extend(members.unwrap_or_default().iter().map(|member| member.node));
        });
    }
    let others = contacts.iter().map(|contact| contact.node).filter(|id| *id != node.me());
    others.map(|id| Watched { node: id, near: near.contains(&id) }).collect()
}
