//! A write that meets the collection of tombstones is read again before it is sent again.
//!
//! Who sends a record in an epoch must have read it from a member's store in that epoch, once
//! tombstones of the one in which it was made are gone (design rule D7): it could be what was
//! written, read, deleted and forgotten meanwhile.

use std::sync::Arc;

use triad_replica::configuration::Configuration;
use triad_replica::record::{Record, Updated};

use crate::local::Address;
use crate::node::Node;

/// What the own store says of a write that was minted here in an earlier epoch.
pub(super) enum Reread {
    /// The record as it is in this epoch; it holds the write, or what came after it.
    Found(Record),
    /// The store does not serve this epoch (yet).
    NotNow,
    /// The write is not there any more: nobody may send it again.
    Gone,
}

/// Reads the record of a write again, in the epoch of `configuration`.
pub(super) async fn read_again(
    node: &Arc<Node>,
    at: &Address,
    updated: &Updated,
    configuration: &Configuration,
) -> Reread {
    if !configuration.is_member(&node.member()) {
        return Reread::Gone;
    }
    crate::moves::learn(node, configuration).await;
    let Ok(record) = node.local.read(at, configuration.epoch) else {
        return Reread::NotNow;
    };
    let holds = match updated.dot {
        Some(dot) => record.context().covers(&dot),
        // A delete has no dot: what it covered must still be covered.
        None => record.context().covers_all(&updated.client_context),
    };
    if holds { Reread::Found(record) } else { Reread::Gone }
}
