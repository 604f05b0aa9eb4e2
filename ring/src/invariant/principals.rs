//! R2: at least r + 1 principals. A principal is a member that no member's list skips (Zave §V);
//! they are the backbone that a ring keeps while others come and go.

use std::collections::BTreeSet;

use super::Violation;
use super::live_successor::{members, owns};
use crate::id::{NodeId, VirtualNode};
use crate::node::RingNode;

/// The live members that no live member's list leaves out: no list, preceded by its owner, has two
/// neighbours with the member strictly between them.
pub fn principals(nodes: &[&RingNode]) -> BTreeSet<VirtualNode> {
    let mut found = members(nodes);
    let sorted: Vec<_> = found.iter().copied().collect();
    for own in owns(nodes) {
        let mut before = own.this;
        for entry in own.successors.entries() {
            let from = sorted.partition_point(|member| member.id <= before.id);
            let skipped = sorted[from..].iter().chain(&sorted[..from]);
            for member in skipped.take_while(|member| member.id.is_between(before.id, entry.id)) {
                found.remove(member);
            }
            before = *entry;
        }
    }
    found
}

/// The principals belong to at least `needed` distinct nodes. In Zave's model `needed` is r + 1; a
/// cluster that has not grown to that many nodes yet has as many as it has.
pub fn enough_principals(nodes: &[&RingNode], needed: usize) -> Result<(), Violation> {
    let holders: BTreeSet<NodeId> = principals(nodes).iter().map(|member| member.node).collect();
    if holders.len() < needed {
        let detail = format!("principals of {} nodes, not {needed}", holders.len());
        return Err(Violation::new("R2", detail));
    }
    Ok(())
}
