//! What needs an operator: alarms that are raised while something is wrong, and cleared when it
//! is mended.
//!
//! Each node keeps its own; `ClusterService.Status` shows those of all nodes, and a cluster with one
//! raised is not healthy. An alarm is a state, not an event: raising it again only renews
//! its detail, and it survives no restart, because its cause is looked for again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{error, info};
use triad_proto::v1;

use crate::node::Node;

/// How often the store is asked whether it has room.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Every alarm there is. The names are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AlarmName {
    /// Growing writes are refused: the store has no room for them.
    NoSpace,
    /// The node's store could not be trusted any more and was set aside.
    StoreLost,
    /// The node's clock is far from the others'.
    ClockSkew,
    /// Shards have no majority of living members.
    QuorumLost,
    /// The space for hints is used up.
    HintsFull,
    /// Stored rows are damaged and not repaired yet.
    Corruption,
}

impl AlarmName {
    /// All of them, in the order in which they are shown: what threatens data first.
    const ALL: [Self; 6] = [
        Self::QuorumLost,
        Self::StoreLost,
        Self::Corruption,
        Self::NoSpace,
        Self::HintsFull,
        Self::ClockSkew,
    ];

    /// The name as the interface shows it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoSpace => "NOSPACE",
            Self::StoreLost => "STORE_LOST",
            Self::ClockSkew => "CLOCK_SKEW",
            Self::QuorumLost => "QUORUM_LOST",
            Self::HintsFull => "HINTS_FULL",
            Self::Corruption => "CORRUPTION",
        }
    }

    /// What an operator should do about it.
    pub(crate) fn cure(self) -> &'static str {
        match self {
            Self::NoSpace => {
                "delete keys, raise storage.quota, enlarge the disk, or add nodes; reads and deletes go on meanwhile"
            }
            Self::StoreLost => {
                "nothing for the data: the node fetches it from the other replicas, and the alarm ends with that; check \
                 the disk, and remove the quarantine-* directory when nobody needs it any more"
            }
            Self::ClockSkew => "set the node's clock right and keep it so (NTP)",
            Self::QuorumLost => {
                "bring the nodes that are down back with their data directories; if a majority of a shard's stores is \
                 lost for ever, see `triad force --all-frozen --dry-run`"
            }
            Self::HintsFull => "bring the nodes that are down back, or raise storage.hint_bytes",
            Self::Corruption => {
                "bring the shard's other replicas back: the rows are repaired from a majority of them; then check the \
                 disk and the memory of this node"
            }
        }
    }
}

/// The alarms that one process has raised.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    raised: Mutex<BTreeMap<AlarmName, String>>,
}

impl Alarms {
    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<AlarmName, String>) -> T) -> T {
        change(&mut self.raised.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Raises an alarm, or renews the detail of one that is raised.
    pub(crate) fn raise(&self, name: AlarmName, detail: impl Into<String>) {
        let detail = detail.into();
        let news = self.with(|raised| raised.insert(name, detail.clone()).is_none());
        if news {
            error!(alarm = name.as_str(), %detail, cure = name.cure(), "alarm raised");
        }
    }

    /// Clears an alarm; one that is not raised stays so.
    pub(crate) fn clear(&self, name: AlarmName) {
        if self.with(|raised| raised.remove(&name)).is_some() {
            info!(alarm = name.as_str(), "alarm cleared");
        }
    }

    /// Raises the alarm with this detail, or clears it when there is none.
    pub(crate) fn follow(&self, name: AlarmName, detail: Option<String>) {
        match detail {
            Some(detail) => self.raise(name, detail),
            None => self.clear(name),
        }
    }

    /// All that are raised, as the node of this name tells them.
    pub(crate) fn all(&self, node: &str) -> Vec<v1::Alarm> {
        self.with(|raised| {
            let shown = AlarmName::ALL.into_iter().filter_map(|name| raised.get_key_value(&name));
            shown.map(|(name, detail)| alarm(*name, node, detail.clone())).collect()
        })
    }
}

/// An alarm on the wire.
pub(crate) fn alarm(name: AlarmName, node: &str, detail: String) -> v1::Alarm {
    v1::Alarm {
        name: name.as_str().to_owned(),
        node: node.to_owned(),
        detail,
        cure: name.cure().to_owned(),
    }
}

/// Raises NOSPACE while the store refuses to grow.
pub(crate) async fn watch_space(node: Arc<Node>) {
    loop {
        node.alarms.follow(AlarmName::NoSpace, node.local.stats().full);
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_raised_once_renewed_and_cleared() {
        let alarms = Alarms::default();
        alarms.clear(AlarmName::NoSpace);
        alarms.raise(AlarmName::NoSpace, "one");
        alarms.raise(AlarmName::NoSpace, "two");
        alarms.raise(AlarmName::StoreLost, "three");
        let all = alarms.all("node1");
        let told: Vec<(&str, &str, &str)> = all
            .iter()
            .map(|one| (one.name.as_str(), one.node.as_str(), one.detail.as_str()))
            .collect();
        assert_eq!(told, [("STORE_LOST", "node1", "three"), ("NOSPACE", "node1", "two")]);
        assert!(all.iter().all(|one| !one.cure.is_empty()));
        alarms.follow(AlarmName::NoSpace, None);
        alarms.clear(AlarmName::StoreLost);
        assert!(alarms.all("node1").is_empty());
    }
}
