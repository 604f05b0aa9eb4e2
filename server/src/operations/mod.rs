//! Long operations: who comes, who goes, and how far that is.
//!
//! What an operation is *for* is kept durably where it matters, and everybody learns it from the
//! contact of the node concerned: it leaves, it has left, it was sent away. Placement does the
//! work from that alone, whoever dies meanwhile. An operation is the view onto it: each node
//! tells its [part](parts), and whoever is asked puts the parts together.

mod departure;
mod error;
mod force;
mod parts;
mod remote;
mod removal;
mod survey;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use triad_proto::peer::v1 as wire;
use triad_proto::v1;
use triad_ring::NodeId;

use crate::book::{Contact, NodeState};
use crate::liveness::Liveness;
use crate::node::Node;

pub(crate) use departure::{begin_leave, departure_task};
pub(crate) use error::OperationError;
pub(crate) use force::force;
pub(crate) use parts::{begin_join, list, own_join, running};
pub(crate) use remote::serve;
pub(crate) use removal::{cancel, decommission, replace};

/// Ended operations that a node remembers.
const ENDED: usize = 32;

/// The operations of one process.
#[derive(Default)]
pub(crate) struct Operations {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The latest last.
    ended: VecDeque<wire::OperationPart>,
    /// Since when, and from how many shards, each operation was watched here.
    watched: BTreeMap<String, Watched>,
    /// Nodes whose places an operator gave to others; until they are heard of again.
    given_up: BTreeSet<NodeId>,
    /// The join that this process was asked for, while it has not ended.
    join: Option<String>,
}

impl State {
    fn remember(&mut self, part: wire::OperationPart) {
        self.join.take_if(|join| *join == part.id);
        self.watched.remove(&part.id);
        self.ended.retain(|known| known.id != part.id);
        if self.ended.len() == ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(part);
    }
}

/// What was there when an operation was first seen here.
#[derive(Clone, Copy, Debug)]
struct Watched {
    since: Duration,
    shards: u32,
    moved: u64,
    /// How many bytes had been moved when nothing was left to do.
    ended: Option<u64>,
}

impl Operations {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn remember(&self, part: wire::OperationPart) {
        self.with(|state| state.remember(part));
    }

    fn ended(&self) -> Vec<wire::OperationPart> {
        self.with(|state| state.ended.iter().cloned().collect())
    }

    /// What was there when this operation was first asked about here.
    fn watch(&self, id: &str, now: Watched) -> Watched {
        self.with(|state| {
            let watched = state.watched.entry(id.to_owned()).or_insert(now);
            watched.shards = watched.shards.max(now.shards);
            watched.ended = watched.ended.or(now.ended);
            *watched
        })
    }

    /// Forgets what was noted of operations that nobody knows of any more.
    fn watch_only(&self, parts: &[wire::OperationPart]) {
        self.with(|state| {
            state.watched.retain(|id, _| parts.iter().any(|part| part.id == *id));
        });
    }

    /// A node is given up: its places go to others now.
    pub(crate) fn give_up(&self, node: NodeId) {
        self.with(|state| {
            if state.given_up.insert(node) {
                state.ended.retain(|part| part.id != replace_id(node));
            }
        });
    }

    /// It keeps what is left of its places. True if it was given up.
    fn take_back(&self, node: NodeId) -> bool {
        self.with(|state| state.given_up.remove(&node))
    }

    fn join(&self) -> Option<String> {
        self.with(|state| state.join.clone())
    }

    fn given_up(&self) -> Vec<NodeId> {
        self.with(|state| state.given_up.iter().copied().collect())
    }
}

/// Whether a node is given up. One that is heard of again is not any more.
pub(crate) fn is_given_up(node: &Node, other: NodeId, liveness: Liveness) -> bool {
    if liveness == Liveness::Alive && node.operations.take_back(other) {
        parts::end_replacement(node, other, "the node is alive again");
    }
    node.operations.with(|state| state.given_up.contains(&other))
}

/// The first digits of an id: enough for people.
fn short(node: NodeId) -> String {
    node.to_string().chars().take(8).collect()
}

fn replace_id(node: NodeId) -> String {
    format!("replace-{}", short(node))
}

/// The kind of an operation, which its id begins with.
fn kind_of(id: &str) -> String {
    id.split('-').next().unwrap_or_default().to_owned()
}

/// An operation that has just begun.
fn begun(id: &str) -> v1::Operation {
    v1::Operation {
        id: id.to_owned(),
        kind: kind_of(id),
        state: v1::OperationState::Running.into(),
        ..Default::default()
    }
}

/// A plan that was only asked for.
fn planned(kind: &str) -> v1::Operation {
    v1::Operation { kind: kind.to_owned(), ..Default::default() }
}

/// The nodes that stay and answer: those that could take what another one gives away.
fn staying(node: &Node, without: NodeId) -> Vec<NodeId> {
    let stays = |contact: &Contact| {
        contact.node != without
            && contact.state == NodeState::Active
            && node.liveness(contact.node) == Liveness::Alive
    };
    node.book.all().iter().filter(|contact| stays(contact)).map(|contact| contact.node).collect()
}
