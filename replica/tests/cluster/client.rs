//! Clients that count acknowledgements by the rules of design D3, over plain integers.

use std::collections::BTreeSet;

use triad_replica::configuration::{Configuration, Epoch, Phase, majority};
use triad_replica::member::Member;

use crate::node::Writes;

/// One write: one dot, perhaps several attempts, each counted on its own in its epoch.
pub(crate) struct Write {
    pub(crate) attempts: Vec<Attempt>,
    /// In which epoch it was acknowledged first.
    pub(crate) acknowledged: Option<Epoch>,
}

pub(crate) struct Attempt {
    pub(crate) configuration: Configuration,
    pub(crate) by: BTreeSet<Member>,
}

impl Attempt {
    pub(crate) fn is_acknowledged(&self) -> bool {
        let side = |members: &[Member]| {
            let count = members.iter().filter(|member| self.by.contains(member)).count();
            count >= majority(members.len())
        };
        match &self.configuration.phase {
            Phase::Stable { members } => side(members),
            Phase::Joint { old, new } => side(old) && side(new),
        }
    }
}

/// One read: it must see what was acknowledged before it began.
pub(crate) struct Read {
    pub(crate) configuration: Configuration,
    pub(crate) must_see: Writes,
    pub(crate) seen: Writes,
    pub(crate) by: BTreeSet<Member>,
    pub(crate) done: bool,
}

impl Read {
    /// True when the majority is complete with this answer.
    pub(crate) fn answer(&mut self, from: Member, held: Writes) -> bool {
        let set = self.configuration.read_set();
        if self.done || !set.contains(&from) {
            return false;
        }
        self.seen |= held;
        self.by.insert(from);
        self.done = self.by.len() >= majority(set.len());
        self.done
    }
}
