//! Small chores of a node.

use std::sync::Arc;
use std::time::Duration;

use tracing::info;
use triad_replica::store::Batch;
use triad_ring::{Input, NodeId};

use crate::book::{Contact, NodeState};
use crate::liveness::Liveness;
use crate::node::Node;
use crate::rows;
use crate::startup::Entry;

/// How often changed contacts are written down.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// How long a join may take before another node is asked.
const JOIN_PATIENCE: Duration = Duration::from_secs(5);

/// Enters the ring and marks the node active once all its virtual nodes are in it; its contact
/// then tells others. A join through a node that dies goes on through another.
pub(crate) async fn enter_ring(node: Arc<Node>, entry: Entry) {
    node.ring.input(match entry {
        Entry::Create => Input::Create,
        Entry::Join(via) => Input::Join { via },
        Entry::Resume => Input::Resume,
    });
    let mut joined = node.ring.joined();
    loop {
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            entered = joined.wait_for(|joined| *joined) => match entered {
                Ok(_) => break,
                Err(_) => return,
            },
            () = tokio::time::sleep(JOIN_PATIENCE) => {}
        }
        if let (Entry::Join(_), Some(via)) = (entry, living_member(&node)) {
            node.ring.input(Input::Join { via });
        }
    }
    let enrolled = rows::load_enrolment(&**node.local.store());
    let leaves = enrolled.is_ok_and(|enrolled| enrolled.state == NodeState::Leaving);
    node.book.update_own(|contact| {
        contact.state = if leaves { NodeState::Leaving } else { NodeState::Active };
    });
    node.moves.wake();
    info!(node = %node.identity.name, "joined the ring");
}

/// A node to join through.
fn living_member(node: &Node) -> Option<NodeId> {
    let alive = |contact: &&Arc<Contact>| {
        contact.node != node.me()
            && contact.state == NodeState::Active
            && node.liveness(contact.node) == Liveness::Alive
    };
    node.book.all().iter().find(alive).map(|contact| contact.node)
}

/// Writes contacts down when they have changed, dead ones included: a node that starts alone
/// finds the others through any of them.
pub(crate) async fn keep_contacts(node: Arc<Node>) {
    let mut kept: Vec<Arc<Contact>> = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(SAVE_EVERY) => {}
        }
        let contacts = node.book.all();
        if contacts == kept {
            continue;
        }
        let mut batch = Batch::new();
        batch.set_essential();
        contacts
            .iter()
            .filter(|contact| contact.node != node.me())
            .for_each(|contact| rows::put_contact(&mut batch, contact));
        if node.local.meta(batch).await.is_ok() {
            kept = contacts;
        }
    }
}
