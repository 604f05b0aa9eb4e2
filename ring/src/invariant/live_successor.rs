//! R1: every ring member has a live entry in its successor list, counted in *nodes* (Zave §V,
//! `OneLiveSuccessor`; with virtual nodes, nodes are what fails).

use std::collections::BTreeSet;

use super::Violation;
use crate::id::VirtualNode;
use crate::node::RingNode;
use crate::own::Own;

/// Every virtual node in the ring has a live ring member in its list, unless it is the only one.
pub fn live_successor(nodes: &[&RingNode]) -> Result<(), Violation> {
    nodes.iter().try_for_each(|node| live_successor_of(node, nodes))
}

/// The same of one node's virtual nodes: for rings of which some are alone and may be so, because
/// they were started so and nobody has come to them yet.
pub fn live_successor_of(node: &RingNode, nodes: &[&RingNode]) -> Result<(), Violation> {
    let live = members(nodes);
    for own in owns(&[node]) {
        let has_one = own.successors.entries().iter().any(|entry| live.contains(entry));
        if !has_one && live.len() > 1 {
            return Err(Violation::new("R1", format!("{:?} has no live successor", own.this)));
        }
    }
    Ok(())
}

/// In a settled ring, a list reaches N + 2 distinct nodes or all there are.
pub fn lists_reach_enough_nodes(nodes: &[&RingNode]) -> Result<(), Violation> {
    let live = members(nodes);
    for node in nodes {
        for own in node.own.iter().filter(|own| own.joined) {
            let others: BTreeSet<_> =
                live.iter().filter(|other| **other != own.this).map(|other| other.node).collect();
            let needed = others.len().min(node.config.replication_factor + 2);
            let reached = own.successors.nodes().len();
            if reached < needed {
                let detail =
                    format!("the list of {:?} reaches {reached} nodes, not {needed}", own.this);
                return Err(Violation::new("R1", detail));
            }
        }
    }
    Ok(())
}

pub(super) fn owns<'a>(nodes: &'a [&'a RingNode]) -> impl Iterator<Item = &'a Own> {
    nodes.iter().flat_map(|node| node.own.iter().filter(|own| own.joined))
}

pub(super) fn members(nodes: &[&RingNode]) -> BTreeSet<VirtualNode> {
    owns(nodes).map(|own| own.this).collect()
}
