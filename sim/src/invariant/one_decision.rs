//! D1: at most one configuration is decided per shard and epoch, and each follows from the one before.

use std::collections::BTreeMap;

use triad_replica::configuration::{Configuration, Epoch};
use triad_ring::ShardId;

use super::{Invariant, Look};

/// Every configuration that any store ever knew as decided.
#[derive(Default)]
pub(super) struct OneDecision(BTreeMap<(ShardId, Epoch), Configuration>);

impl Invariant for OneDecision {
    fn name(&self) -> &'static str {
        "one decision for each shard and epoch"
    }

    fn check(&mut self, look: &Look<'_>) -> Result<(), String> {
        for row in look.view.stores.iter().flat_map(|store| store.entered.values()) {
            let told = &row.configuration;
            let (shard, epoch) = (told.shard, told.epoch);
            let known = self.0.entry((shard, epoch)).or_insert_with(|| told.clone());
            if known != told {
                return Err(format!("shard {shard}, epoch {epoch}: {known:?} and {told:?}"));
            }
        }
        for (after, before) in self.0.values().zip(self.0.values().skip(1)).map(|(a, b)| (b, a)) {
            let follows = before.shard == after.shard && before.epoch.next() == after.epoch;
            if follows && !before.may_be_followed_by(after) {
                return Err(format!("{after:?} cannot follow {before:?}"));
            }
        }
        Ok(())
    }
}
