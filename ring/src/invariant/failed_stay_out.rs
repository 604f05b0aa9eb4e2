//! R4: one declared failed returns only by showing itself: what others still say of it is not
//! believed.

use super::Violation;
use crate::id::{NodeId, VirtualNode};
use crate::node::RingNode;
use crate::own::Own;

/// No list, predecessor, finger or candidate names a node that this node holds for failed.
pub fn failed_stay_out(node: &RingNode) -> Result<(), Violation> {
    node.failed.iter().try_for_each(|failed| is_unknown_to(node, *failed))
}

/// No list, predecessor, finger or candidate of `node` names `gone`, whatever the node itself holds
/// of it: for who knows that `gone` was declared failed to it and has not been there since.
pub fn is_unknown_to(node: &RingNode, gone: NodeId) -> Result<(), Violation> {
    for own in &node.own {
        if let Some(entry) = known(own).find(|entry| entry.node == gone) {
            return Err(Violation::new("R4", format!("{:?} still knows {entry:?}", own.this)));
        }
    }
    Ok(())
}

fn known(own: &Own) -> impl Iterator<Item = &VirtualNode> {
    own.successors
        .entries()
        .iter()
        .chain(own.predecessor.iter())
        .chain(own.candidate.iter())
        .chain(own.fingers.values())
        .chain(own.beyond.iter().flat_map(|beyond| beyond.entries.entries()))
}
