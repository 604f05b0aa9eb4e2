//! D2: a store's epochs and data epochs never go back, as long as it is the same store.

use std::collections::BTreeMap;

use triad_replica::configuration::Epoch;
use triad_replica::member::StoreId;
use triad_ring::ShardId;

use super::{Invariant, Look};

/// The greatest epoch that each store was seen to have entered.
///
/// What was not synced may be lost in a crash, and nobody may have been told of it: an epoch counts once the store was
/// seen twice with it.
#[derive(Default)]
pub(super) struct Fences(BTreeMap<(StoreId, ShardId), Seen>);

#[derive(Clone, Copy)]
struct Seen {
    sure: Option<Epoch>,
    last: Epoch,
}

impl Invariant for Fences {
    fn name(&self) -> &'static str {
        "no store goes back to an earlier epoch"
    }

    fn check(&mut self, look: &Look<'_>) -> Result<(), String> {
        for store in look.view.stores.iter().filter(|store| store.running) {
            for (shard, row) in &store.entered {
                let epoch = row.configuration.epoch;
                let seen = self.0.entry((store.member.store, *shard));
                let seen = seen.or_insert(Seen { sure: None, last: epoch });
                if seen.sure.is_some_and(|sure| epoch < sure) {
                    return Err(format!(
                        "{:?}, shard {shard}: epoch {epoch} after {:?}",
                        store.machine, seen.sure
                    ));
                }
                if seen.last == epoch {
                    seen.sure = Some(epoch);
                }
                seen.last = epoch;
            }
        }
        Ok(())
    }
}
