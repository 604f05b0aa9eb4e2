//! What this machine can do to containers, and why it cannot do the rest.

use std::collections::BTreeMap;

use anyhow::Result;

use super::fleet::Fleet;
use super::packets::{Handled, Handling};

/// What a fault needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// What `docker` does by itself.
    Docker,
    /// Rules in a network namespace: root, `nsenter`, `iptables`.
    Rules,
    /// Limited bandwidth: the same with `tc` and the kernel's token buckets.
    Bandwidth,
    /// A queue for packets: the same with the kernel's NFQUEUE.
    Queue,
    /// A disk of its own: root, a loop device and ext4.
    Disk,
}

/// What is missing here, with the reason.
#[derive(Debug, Default)]
pub struct Means {
    missing: BTreeMap<Need, String>,
}

impl Means {
    /// Tries everything once on a node that runs.
    pub fn find(fleet: &Fleet) -> Result<Self> {
        let (process, namespace) = (fleet.process(1)?, fleet.namespace(1)?);
        let queue = Handled::start(process, Handling::Hang, 0).map(drop);
        let tried = [
            (Need::Rules, namespace.try_rules()),
            (Need::Bandwidth, namespace.try_limits()),
            (Need::Queue, namespace.try_rules().and(queue)),
        ];
        let mut means = Self::default();
        for (need, tried) in tried {
            if let Err(why) = tried {
                means.lack(need, &format!("{why:#}"));
            }
        }
        if let Err(why) = fleet.disk() {
            means.lack(Need::Disk, &why);
        }
        Ok(means)
    }

    /// Notes that something is missing.
    pub fn lack(&mut self, need: Need, why: &str) {
        let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        self.missing.insert(need, why);
    }

    /// Why something is missing, if it is.
    pub fn why_not(&self, need: Need) -> Option<&str> {
        self.missing.get(&need).map(String::as_str)
    }
}
