//! D4: a member that declares itself merged, in a joint epoch, holds all that was acknowledged before that epoch: it has
//! merged from enough sources, and from fenced ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use triad_replica::configuration::Epoch;
use triad_replica::member::StoreId;
use triad_ring::ShardId;

use super::{Invariant, Look};

/// Looks at each store once for each epoch in which it declares itself merged.
#[derive(Default)]
pub(super) struct MergedHoldAll {
    /// Until when each epoch was not known to anybody.
    unknown_until: BTreeMap<(ShardId, Epoch), Duration>,
    judged: BTreeSet<(StoreId, ShardId, Epoch)>,
    last: Duration,
}

impl Invariant for MergedHoldAll {
    fn name(&self) -> &'static str {
        "who declares itself merged holds all that was acknowledged before its epoch"
    }

    fn check(&mut self, look: &Look<'_>) -> Result<(), String> {
        let rows = look.view.stores.iter().flat_map(|store| &store.entered);
        for (shard, row) in rows {
            self.unknown_until.entry((*shard, row.configuration.epoch)).or_insert(self.last);
        }
        self.last = look.now;
        for store in look.view.stores.iter().filter(|store| store.running && store.damaged == 0) {
            for (shard, row) in store.entered.iter().filter(|(_, row)| row.declared) {
                let epoch = row.configuration.epoch;
                if !self.judged.insert((store.member.store, *shard, epoch)) {
                    continue;
                }
                let Some(until) = self.unknown_until.get(&(*shard, epoch)) else { continue };
                let mut before = look
                    .ledger
                    .writes()
                    .filter(|write| !write.available && write.shard == *shard && write.at < *until);
                if let Some(write) = before.find(|write| !write.is_known_to(store)) {
                    return Err(format!("{:?} in {epoch} does not know {write}", store.machine));
                }
            }
        }
        Ok(())
    }
}
