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

use super::parts::progress;
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
/// What an operation is called that sends another node away.
pub(super) const DECOMMISSION: &str = "decommission";
/// How long the last messages get to leave.
const FAREWELL: Duration = Duration::from_millis(300);

/// Begins this node's leave, or tells what it would move.
pub(crate) async fn begin_leave(
    node: &Arc<Node>,
    leave: &wire::BeginLeave,
) -> Result<(v1::Operation, v1::Movement), OperationError> {
    let own = node.book.own();
    let left = staying(node, own.node).len() as u32;
    let movement = v1::Movement {
        shards: shards_held(node),
        bytes: node.local.stats().live_bytes,
        nodes_left: left,
        under_replicated: left < node.cluster.replication_factor,
    };
    let kind = &leave.kind;
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
    if movement.under_replicated && !leave.allow_under_replicated {
        return Err(too_few(&own.name, left, node.cluster.replication_factor));
    }
    if leave.validate_only {
        return Ok((planned(kind), movement));
    }
    let id = format!("{kind}-{}-{}.{}", short(own.node), own.incarnation, own.revision + 1);
    change_state(node, NodeState::Leaving, &id, leave.allow_under_replicated).await?;
    info!(operation = %id, shards = movement.shards, "leaving the cluster");
    Ok((begun(&id), movement))
}

/// A node is not to go, because too few would be left.
pub(super) fn too_few(name: &str, left: u32, wanted: u32) -> OperationError {
    OperationError::Unsafe(format!(
        "there should be {wanted} copies of everything, and without node {name} only {left} node(s) would be left to hold them; \
         say allow_under_replicated to go on with fewer copies"
    ))
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
    let so_far = progress(node, &id, shards_held(node));
    change_state(node, NodeState::Active, "", false).await?;
    let error = error.to_owned();
    node.operations.remember(wire::OperationPart { state: state.into(), error, ..so_far });
    Ok(())
}

/// Makes a change of this node's state durable, then known.
async fn change_state(
    node: &Arc<Node>,
    state: NodeState,
    operation: &str,
    allow_under_replicated: bool,
) -> Result<(), OperationError> {
    let own = node.book.own();
    let enrolment = Enrolment {
        state,
        admitted: own.admitted,
        revision: own.revision + 1,
        operation: operation.to_owned(),
        allow_under_replicated,
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
        if let Some(operation) = node.book.sent_away() {
            warn!("this node was taken out of the cluster by an operator while it was away");
            return go(&node, &host, operation, "was taken out of it by an operator").await;
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
        } else if steps_back(&node) {
            let copies = node.cluster.replication_factor;
            let why = format!(
                "several nodes were sent away at the same time, and fewer than {copies} would stay to hold {copies} copies: this one stays; \
                 say allow_under_replicated to go on with fewer copies"
            );
            if end_leave(&node, v1::OperationState::Failed, &why).await.is_ok() {
                warn!(operation = %own.operation, "{why}");
            }
        } else if *node.ring.joined().borrow()
            && shards_held(&node) == 0
            // What it holds for members is brought to them first.
            && node.hints.counts().acknowledging == 0
        {
            return go(&node, &host, &own.operation, "has left it").await;
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

/// Whether this node stays after all. Each of several that are sent away at once was the only one when
/// that was asked for.
fn steps_back(node: &Node) -> bool {
    let enrolment = rows::load_enrolment(&**node.local.store());
    // A row that cannot be read allows nothing.
    let allowed = enrolment.is_ok_and(|row| row.allow_under_replicated);
    !allowed && is_needed(&node.book.own(), &node.book.all(), node.cluster.replication_factor)
}

/// Whether fewer would stay than there should be copies, unless this leaver does. Of all that were sent away
/// those with the smallest ids stay, so that they need not ask each other. Whether one of them may leave
/// fewer copies behind only that one knows: if it goes, too, then because it may.
fn is_needed(own: &Contact, all: &[Arc<Contact>], copies: u32) -> bool {
    let stay = all.iter().filter(|other| other.state == NodeState::Active).count();
    let before = all.iter().filter(|other| {
        other.state == NodeState::Leaving
            && kind_of(&other.operation) == DECOMMISSION
            && other.node < own.node
    });
    stay + before.count() < copies as usize
}

/// Leaves the ring for good. The process goes on in the lobby until it is stopped.
async fn go(node: &Arc<Node>, host: &Host, operation: &str, how: &str) {
    if let Err(error) = change_state(node, NodeState::Left, operation, false).await {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::tests::contact;

    fn leaver(node: u8, kind: &str) -> Contact {
        Contact { operation: format!("{kind}-{node}"), ..contact(node, 1, NodeState::Leaving) }
    }

    /// Which of these leavers stay, when all look at the same time.
    fn staying(all: &[Contact], copies: u32) -> Vec<u8> {
        let all: Vec<_> = all.iter().cloned().map(Arc::new).collect();
        let leavers = all.iter().filter(|one| one.state == NodeState::Leaving);
        let needed = leavers.filter(|one| is_needed(one, &all, copies));
        needed.map(|one| one.node.as_bytes()[0]).collect()
    }

    #[test]
    fn of_those_sent_away_at_once_so_many_stay_as_there_are_copies() {
        let active = |node| contact(node, 1, NodeState::Active);
        let three = [2, 3, 4].map(|node| leaver(node, DECOMMISSION));
        assert_eq!(staying(&[&[active(1)], &three[..]].concat(), 3), [2, 3]);
        assert_eq!(staying(&[&[active(1), active(5)], &three[..]].concat(), 3), [2]);
        assert_eq!(staying(&[&[active(1), active(5), active(6)], &three[..]].concat(), 3), [0; 0]);
    }

    #[test]
    fn one_that_leaves_by_itself_is_not_counted_on() {
        let all = [
            contact(1, 1, NodeState::Active),
            contact(5, 1, NodeState::Active),
            contact(6, 1, NodeState::Left),
            leaver(2, "leave"),
            leaver(3, DECOMMISSION),
        ];
        assert_eq!(staying(&all, 3), [2, 3], "2 may go all the same, for it is allowed to");
    }
}
