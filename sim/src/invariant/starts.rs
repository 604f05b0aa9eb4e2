//! D6: no two processes of a node are recorded under one incarnation, by anybody.

use std::collections::BTreeMap;

use triad_replica::member::{StartNonce, StoreId};
use triad_ring::{Incarnation, NodeId};

use super::{Invariant, Look};

/// Every start that any store was ever seen to have recorded.
#[derive(Default)]
pub(super) struct OneProcess(BTreeMap<(NodeId, Incarnation), (StoreId, StartNonce)>);

impl Invariant for OneProcess {
    fn name(&self) -> &'static str {
        "one process for each incarnation"
    }

    fn check(&mut self, look: &Look<'_>) -> Result<(), String> {
        for start in look.view.stores.iter().flat_map(|store| &store.starts) {
            let told = (start.member.store, start.nonce);
            let known = self.0.entry((start.member.node, start.incarnation)).or_insert(told);
            if *known != told {
                return Err(format!("{start:?} was {known:?} before"));
            }
        }
        Ok(())
    }
}
