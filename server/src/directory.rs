//! The newest configuration this node has heard of, shard by shard.
//!
//! Every reply between nodes that says "stale" carries a newer configuration and ends
//! here, so the table mends itself in use. Reading takes no lock: a request
//! loads one pointer. An old entry is harmless, because replicas serve only their own
//! epoch and answer anything else with what they know (design §2.3).

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use triad_replica::configuration::Configuration;
use triad_ring::{ShardCount, ShardId};

/// Newest known configurations; only ever replaced by greater epochs.
pub(crate) struct Directory {
    entries: Vec<ArcSwapOption<Configuration>>,
}

impl Directory {
    /// An empty table for all shards of a cluster.
    pub(crate) fn new(shards: ShardCount) -> Self {
        let entries = shards.iter().map(|_| ArcSwapOption::empty()).collect();
        Self { entries }
    }

    /// The newest configuration known for `shard`.
    pub(crate) fn get(&self, shard: ShardId) -> Option<Arc<Configuration>> {
        self.entries.get(shard.get() as usize)?.load_full()
    }

    /// Takes in a decided configuration. True when it was news.
    pub(crate) fn learn(&self, configuration: &Configuration) -> bool {
        let Some(entry) = self.entries.get(configuration.shard.get() as usize) else {
            return false;
        };
        let mut news = false;
        entry.rcu(|current| {
            news = current.as_ref().is_none_or(|known| known.epoch < configuration.epoch);
            if news { Some(Arc::new(configuration.clone())) } else { current.clone() }
        });
        news
    }
}
