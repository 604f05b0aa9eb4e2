//! D7: a store that enters an epoch after a collection that it missed has discarded the shard before.

use super::{Invariant, Look};

/// Looks at each store by itself.
pub(super) struct FormerData;

impl Invariant for FormerData {
    fn name(&self) -> &'static str {
        "no member holds data from before a collection"
    }

    fn check(&mut self, look: &Look<'_>) -> Result<(), String> {
        for store in &look.view.stores {
            for (shard, row) in &store.entered {
                let configuration = &row.configuration;
                let member = configuration.is_member(&store.member);
                let old = row.data_epoch.is_some_and(|at| at < configuration.gc_epoch);
                if member && old {
                    return Err(format!(
                        "{:?} is a member of shard {shard} in {} with data of {:?}, collected up to {}",
                        store.machine, configuration.epoch, row.data_epoch, configuration.gc_epoch
                    ));
                }
            }
        }
        Ok(())
    }
}
