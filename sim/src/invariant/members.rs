//! R5: the members of a shard are distinct nodes.

use std::collections::BTreeSet;

use super::{Invariant, Look};

/// Looks at each configuration by itself.
pub(super) struct DistinctMembers;

impl Invariant for DistinctMembers {
    fn name(&self) -> &'static str {
        "the members of a shard are distinct nodes"
    }

    fn check(&mut self, look: &Look<'_>) -> Result<(), String> {
        for row in look.view.stores.iter().flat_map(|store| store.entered.values()) {
            for set in [row.configuration.read_set(), row.configuration.new_set()] {
                let nodes: BTreeSet<_> = set.iter().map(|member| member.node).collect();
                if nodes.len() != set.len() || set.is_empty() {
                    return Err(format!("{:?}", row.configuration));
                }
            }
        }
        Ok(())
    }
}
