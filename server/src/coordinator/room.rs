//! Which members have no room for writes that grow.
//!
//! A store refuses such a write by itself, but by then others have it: the write is in doubt. So nodes tell
//! in their signs of life that they are full, a refusal tells it at once, and a write that too few of its members
//! can take is refused before it is sent to anybody. Whoever is to run a write and has no room itself has
//! written nothing yet, so it passes the write on to a member that may have some.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use triad_replica::configuration::Configuration;
use triad_replica::consistency::{Failure, ReplicaResult, Requirement};
use triad_replica::member::Member;
use triad_replica::record::Change;
use triad_ring::NodeId;

use super::error::{Progress, RequestError};
use super::forward::{Forwardable, candidates, pass_on};
use super::{Completed, HOPS_MAX, Write, Written, expected_of, refuse_short};
use crate::deadline::Deadline;
use crate::liveness::Liveness;
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

    pub(super) fn is_full(&self, node: NodeId) -> bool {
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

/// Passes on a write that this node's store has no room for, to the members that are not known to have none
/// either. Nothing was written; when nobody else takes it, `progress` tells why.
pub(super) async fn pass_on_for_room(
    node: &Arc<Node>,
    write: &Write,
    original: &Forwardable,
    progress: Progress,
    deadline: Deadline,
) -> Result<Completed<Written>, RequestError> {
    let full = || RequestError::NoSpace(progress);
    let Some(known) = node.directory.get(write.at.shard).filter(|_| original.hops < HOPS_MAX)
    else {
        return Err(full());
    };
    let mut members = candidates(node, &known, original);
    members
        .retain(|member| node.liveness(*member) == Liveness::Alive && !node.room.is_full(*member));
    let passed = pass_on(node, &known, write.level, original, members, deadline).await?;
    passed.map(|reply| Completed::Elsewhere(Box::new(reply))).ok_or_else(full)
}

/// Nodes in the order in which to have them run a write that may grow: as given, but of those that are
/// equally alive the full ones last. A full one that is alive finds another; one that is not there does not.
pub(super) fn roomy_first<L: Ord>(
    nodes: &mut [NodeId],
    liveness: impl Fn(NodeId) -> L,
    full: impl Fn(NodeId) -> bool,
) {
    nodes.sort_by_key(|node| (liveness(*node), full(*node)));
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

    #[test]
    fn full_members_are_asked_last_but_before_those_that_are_not_there() {
        let [full, silent, roomy] = [1, 2, 3].map(|byte| NodeId::from_bytes([byte; 16]));
        let liveness = |node| if node == silent { Liveness::Down } else { Liveness::Alive };
        let mut nodes = [full, silent, roomy];
        roomy_first(&mut nodes, liveness, |node| node == full);
        assert_eq!(nodes, [roomy, full, silent]);
        roomy_first(&mut nodes, liveness, |_| false);
        assert_eq!(nodes, [roomy, full, silent], "otherwise they stay as they are");
    }

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
