//! Leaving the cluster: by one's own wish, or because the others have sent this node away.
//!
//! The wish is a durable row and part of the node's contact, so that it survives every crash and
//! everybody's placement moves the shards away. The node is a source to the last: it goes when
//! it is a member of nothing and holds nothing any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};
use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::control_request::Request;
use triad_proto::v1;
use triad_replica::store::Batch;
use triad_ring::{Input, NodeId};

use super::{OperationError, begun, kind_of, planned, short, staying};
use crate::book::{Contact, NodeState};
use crate::host::Host;
use crate::liveness::Liveness;
use crate::node::Node;
use crate::rows::{self, Enrolment};

/// How often a node that leaves looks whether it is done.
const LOOK: Duration = Duration::from_millis(300);
/// How long others get to acknowledge a change of state.
const TELL: Duration = Duration::from_secs(2);
/// How long the last messages get to leave.
const FAREWELL: Duration = Duration::from_millis(300);

/// Begins this node's leave, or tells what it would move.
pub(crate) async fn begin_leave(
    node: &Arc<Node>,
    kind: &str,
    validate_only: bool,
) -> Result<(v1::Operation, v1::Movement), OperationError> {
    let own = node.book.own();
    let left = staying(node, own.node).len() as u32;
    let movement = v1::Movement {
        shards: shards_held(node),
        bytes: node.local.stats().live_bytes,
        nodes_left: left,
        under_replicated: left < node.cluster.replication_factor,
    };
    match own.state {
        NodeState::Leaving => return Ok((begun(&own.operation), movement)),
        NodeState::Joining | NodeState::Left => {
            return Err(OperationError::NotNow(format!("node {} is not in the ring", own.name)));
        }
        NodeState::Active => {}
    }
    if left == 0 {
        return Err(OperationError::Unsafe(format!(
            "node {} is the last one: its data would be gone; stop it instead",
            own.name
        )));
    }
    if validate_only {
        return Ok((planned(kind), movement));
    }
    let id = format!("{kind}-{}-{}.{}", short(own.node), own.incarnation, own.revision + 1);
    change_state(node, NodeState::Leaving, &id).await?;
    info!(operation = %id, shards = movement.shards, "leaving the cluster");
    Ok((begun(&id), movement))
}

/// Takes this node's leave back.
pub(crate) async fn cancel_leave(
    node: &Arc<Node>,
    id: &str,
) -> Result<v1::Operation, OperationError> {
    let own = node.book.own();
    if own.state != NodeState::Leaving || own.operation != id {
        return Err(OperationError::NotNow(format!("operation {id} has ended")));
    }
    end_leave(node, v1::OperationState::Cancelled, "").await?;
    info!(operation = %id, "staying in the cluster: the leave was taken back");
    Ok(v1::Operation {
        id: id.to_owned(),
        kind: kind_of(id),
        state: v1::OperationState::Cancelled.into(),
        ..Default::default()
    })
}

/// Back to an ordinary node.
async fn end_leave(
    node: &Arc<Node>,
    state: v1::OperationState,
    error: &str,
) -> Result<(), OperationError> {
    let id = node.book.own().operation.clone();
    change_state(node, NodeState::Active, "").await?;
    node.operations.remember(wire::OperationPart {
        id,
        state: state.into(),
        error: error.to_owned(),
        ..Default::default()
    });
    Ok(())
}

/// Makes a change of this node's state durable, then known.
async fn change_state(
    node: &Arc<Node>,
    state: NodeState,
    operation: &str,
) -> Result<(), OperationError> {
    let own = node.book.own();
    let enrolment = Enrolment {
        state,
        admitted: own.admitted,
        revision: own.revision + 1,
        operation: operation.to_owned(),
    };
    let mut batch = Batch::new();
    batch.set_essential();
    rows::put_enrolment(&mut batch, &enrolment);
    let written = node.local.meta(batch).await;
    written.map_err(|error| OperationError::Store(error.to_string()))?;
    node.book.update_own(|contact| {
        contact.state = state;
        contact.revision = enrolment.revision;
        contact.operation = enrolment.operation;
    });
    node.moves.wake();
    tell_own_state(node).await;
    Ok(())
}

/// The contact travels beside any control message; its answer says that it has arrived.
async fn tell_own_state(node: &Arc<Node>) {
    let contacts = node.book.all();
    let told = contacts
        .iter()
        .filter(|contact| contact.node != node.me())
        .filter(|contact| node.liveness(contact.node) == Liveness::Alive)
        .map(|contact| {
            node.peers.control(contact.node, Request::Ping(wire::Ping::default())).within(TELL)
        });
    futures::future::join_all(told).await;
}

/// Shards of which this node is a member, or whose records it still holds.
pub(super) fn shards_held(node: &Node) -> u32 {
    let mut held = 0;
    node.local.each_shard(|replica| {
        let holds = replica.entered().is_some_and(|row| row.data_epoch.is_some());
        held += u32::from(replica.is_member() || holds);
    });
    held
}

/// Takes in, durably, that a node was sent away.
pub(super) async fn note_departed(
    node: &Arc<Node>,
    contact: Contact,
) -> Result<(), OperationError> {
    let id = contact.node;
    node.book.learn(contact);
    let Some(known) = node.book.get(id).filter(|known| known.state == NodeState::Left) else {
        return Ok(());
    };
    let mut batch = Batch::new();
    batch.set_essential();
    rows::put_contact(&mut batch, &known);
    let written = node.local.meta(batch).await;
    written.map_err(|error| OperationError::Store(error.to_string()))?;
    node.ring.input(Input::Failed(id));
    node.moves.wake();
    Ok(())
}

/// Sees a leave through to its end, and a node that was sent away out of the door.
pub(crate) async fn departure_task(node: Arc<Node>, host: Arc<Host>) {
    let mut gone = BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(node.spread(LOOK)) => {}
        }
        tell_ring(&node, &mut gone);
        if node.book.is_sent_away() {
            warn!("this node was taken out of the cluster by an operator while it was away");
            return go(&node, &host, "was taken out of it by an operator").await;
        }
        let own = node.book.own();
        if own.state != NodeState::Leaving {
            continue;
        }
        if stays_as_the_last(&node) {
            let why = "every other node was leaving too: this one stays as the last";
            if end_leave(&node, v1::OperationState::Failed, why).await.is_ok() {
                warn!(operation = %own.operation, "{why}");
            }
        } else if *node.ring.joined().borrow()
            && shards_held(&node) == 0
            // What it holds for members is brought to them first.
            && node.hints.counts().acknowledging == 0
        {
            return go(&node, &host, "has left it").await;
        }
    }
}

/// Who has left is not pinged any more, so nobody else tells the ring, which may have heard of it from
/// one who knows less.
fn tell_ring(node: &Node, gone: &mut BTreeSet<NodeId>) {
    let contacts = node.book.all();
    let left = contacts.iter().filter(|contact| contact.state == NodeState::Left);
    let now: BTreeSet<NodeId> = left.map(|contact| contact.node).collect();
    now.difference(gone).for_each(|id| node.ring.input(Input::Failed(*id)));
    *gone = now;
}

/// If all leave at once, the one with the smallest id stays.
fn stays_as_the_last(node: &Node) -> bool {
    let contacts = node.book.all();
    let mut others = contacts.iter().filter(|contact| contact.node != node.me());
    !others.any(|contact| match contact.state {
        NodeState::Active => true,
        NodeState::Leaving => contact.node < node.me(),
        NodeState::Joining | NodeState::Left => false,
    })
}

/// Leaves the ring for good. The process goes on in the lobby until it is stopped.
async fn go(node: &Arc<Node>, host: &Host, how: &str) {
    let operation = node.book.own().operation.clone();
    if let Err(error) = change_state(node, NodeState::Left, &operation).await {
        // A store that takes nothing ends the process; after its restart this is tried again.
        warn!(%error, "cannot note that this node has left");
        return;
    }
    node.ring.input(Input::Leave);
    tokio::time::sleep(FAREWELL).await;
    node.hints.abandon(); // of the last moment: who leaves has nothing left otherwise
    let cluster = &node.cluster;
    host.leave_cluster(format!(
        "this node was in cluster `{}` ({}) and {how}; restart it and ask it to join to take it back: triad node join",
        cluster.name, cluster.id
    ));
    // What it has passed on to members is answered first: its links end with it.
    let _ = tokio::time::timeout(node.config.timeouts.drain, node.door.idle()).await;
    info!(%operation, "out of the cluster");
    node.stop.cancel();
}
