//! Which members have no room for writes that grow.
//!
//! A store refuses such a write by itself, but by then others have it: the write is in doubt. So nodes tell
//! in their signs of life that they are full, a refusal tells it at once, and a write that too few of its members
//! can take is refused before it is sent to anybody.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use triad_replica::configuration::Configuration;
use triad_replica::consistency::{Failure, ReplicaResult, Requirement};
use triad_replica::member::Member;
use triad_replica::record::Change;
use triad_ring::NodeId;

use super::error::RequestError;
use super::{Write, expected_of, refuse_short};
use crate::node::Node;

/// How long a node that was full counts as full without saying so again.
const REMEMBERED: Duration = Duration::from_secs(5);

/// The nodes that said lately that they are full.
#[derive(Debug, Default)]
pub(crate) struct Room {
    full: Mutex<BTreeMap<NodeId, Instant>>,
}

impl Room {
    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<NodeId, Instant>) -> T) -> T {
        change(&mut self.full.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A node has told whether it is full.
    pub(crate) fn heard(&self, from: NodeId, full: bool) {
        self.with(|known| {
            if full {
                known.retain(|_, since| since.elapsed() < REMEMBERED);
                known.insert(from, Instant::now());
            } else {
                known.remove(&from);
            }
        });
    }

    fn is_full(&self, node: NodeId) -> bool {
        self.with(|known| known.get(&node).is_some_and(|since| since.elapsed() < REMEMBERED))
    }
}

/// Refuses a write that grows when too few of the members that are there have room for it.
pub(super) fn refuse_without_room(
    node: &Node,
    write: &Write,
    configuration: &Configuration,
    requirement: &Requirement,
) -> Result<(), RequestError> {
    let full = |member: &Member| node.room.is_full(member.node);
    if !requirement.members().iter().any(full) {
        return Ok(());
    }
    let expected = |member: &Member| {
        if full(member) {
            ReplicaResult::Failed(Failure::NoSpace)
        } else {
            expected_of(node, member)
        }
    };
    match refuse_short(node, write.level, configuration, requirement, expected) {
        Err(progress) if grows(node, write) => Err(RequestError::NoSpace(progress)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether the write adds to what is stored, as far as the own store can tell.
fn grows(node: &Node, write: &Write) -> bool {
    let Change::Put { value, .. } = &write.change else {
        return false;
    };
    let held = node.local.peek(&write.at).map_or(0, |record| {
        record.siblings().values().map(|sibling| sibling.value.len()).sum::<usize>()
    });
    value.len() > held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_full_counts_as_full_until_it_says_otherwise_or_says_nothing() {
        let room = Room::default();
        let (one, two) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
        room.heard(one, true);
        assert!(room.is_full(one) && !room.is_full(two));
        room.heard(one, false);
        assert!(!room.is_full(one));
        room.heard(two, true);
        tokio::time::advance(REMEMBERED).await;
        assert!(!room.is_full(two));
        room.heard(one, true);
        assert_eq!(room.with(|known| known.len()), 1, "what is old is forgotten");
    }
}
