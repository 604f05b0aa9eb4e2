//! R5: members of a shard are distinct nodes, so a preference list names nobody twice.

use std::collections::BTreeSet;

use super::Violation;
use crate::id::RingId;
use crate::view::RingView;

/// The view's preference list at `id` has distinct nodes and not too many.
pub fn distinct_nodes(view: &RingView, id: RingId, count: usize) -> Result<(), Violation> {
    let Some(list) = view.preference_list(id, count) else {
        return Ok(());
    };
    let distinct: BTreeSet<_> = list.0.iter().collect();
    if distinct.len() != list.0.len() || list.0.len() > count {
        return Err(Violation::new("R5", format!("at {id}: {:?}", list.0)));
    }
    Ok(())
}
