//! R4: one declared failed returns only by showing itself: what others still say of it is not
//! believed.

use super::Violation;
use crate::node::RingNode;

/// No list, predecessor, finger or candidate names a node that this node holds for failed.
pub fn failed_stay_out(node: &RingNode) -> Result<(), Violation> {
    for own in &node.own {
        let known = own
            .successors
            .entries()
            .iter()
            .chain(own.predecessor.iter())
            .chain(own.candidate.iter())
            .chain(own.fingers.values())
            .chain(own.beyond.iter().flat_map(|beyond| beyond.entries.entries()));
        for entry in known {
            if node.failed.contains(&entry.node) {
                return Err(Violation::new("R4", format!("{:?} still knows {entry:?}", own.this)));
            }
        }
    }
    Ok(())
}
