//! Convergence: when nothing changes for long enough, the ring is ideal (Zave §V, Theorem 2: the
//! reason for the other invariants).

use super::Violation;
use super::live_successor::{members, owns};
use crate::node::RingNode;
use crate::settled::IdealRing;

/// Every virtual node of every node is in, with the true predecessor and the true successor list.
pub fn is_ideal(nodes: &[&RingNode]) -> Result<(), Violation> {
    let ideal = IdealRing::new(members(nodes));
    if let Some(outside) = nodes.iter().find(|node| !node.is_member()) {
        return Err(Violation::new(
            "convergence",
            format!("{} is not all in the ring", outside.me),
        ));
    }
    for node in nodes {
        for own in owns(&[*node]) {
            let list = ideal.successors(own.this.id, node.config.successor_entries);
            let predecessor = ideal.predecessor(own.this.id);
            if own.successors != list || own.predecessor != predecessor {
                let detail = format!(
                    "{:?}: predecessor {:?} (should be {predecessor:?}), list {:?} (should be {list:?})",
                    own.this, own.predecessor, own.successors
                );
                return Err(Violation::new("convergence", detail));
            }
        }
    }
    Ok(())
}
