//! The one who sees everything and forgets nothing: the rules of design §3 as assertions.

use std::collections::{BTreeMap, BTreeSet};

use triad_replica::configuration::{Configuration, Epoch, Phase, majority};
use triad_replica::member::{ActorId, Member};
use triad_replica::paxos::Ballot;
use triad_replica::shard::Access;

use crate::node::{Node, Writes};

#[derive(Default)]
pub(crate) struct Ledger {
    /// Every configuration that was decided, by epoch.
    pub(crate) decided: BTreeMap<Epoch, Configuration>,
    /// Value and acceptors of each ballot for the epoch after a base.
    ballots: BTreeMap<(Epoch, Ballot), (Configuration, BTreeSet<Member>)>,
    /// The greatest epoch that each store must never serve again.
    left: BTreeMap<Member, Epoch>,
    /// Durable declarations.
    pub(crate) declared: BTreeSet<(Member, Epoch)>,
    /// What each actor minted.
    minted: BTreeMap<ActorId, (Member, Writes)>,
}

impl Ledger {
    /// D1: a value is decided when a majority accepted it in one ballot; one for each epoch,
    /// and one value for each ballot.
    pub(crate) fn accepted(
        &mut self,
        by: Member,
        base: Epoch,
        ballot: Ballot,
        value: &Configuration,
    ) -> bool {
        let left = self.left.entry(by).or_insert(base);
        *left = base.max(*left);
        let entry = self.ballots.entry((base, ballot));
        let (first, acceptors) = entry.or_insert_with(|| (value.clone(), BTreeSet::new()));
        assert_eq!(first, value, "two values in ballot {ballot:?} after epoch {base}");
        acceptors.insert(by);
        let set = self.decided[&base].read_set();
        let count = set.iter().filter(|member| acceptors.contains(member)).count();
        if count < majority(set.len()) {
            return false;
        }
        self.decide(value)
    }

    fn decide(&mut self, value: &Configuration) -> bool {
        let base = &self.decided[&value.epoch.previous()];
        if let Some(decided) = self.decided.get(&value.epoch) {
            assert_eq!(decided, value, "D1: two configurations decided for one epoch");
            return false;
        }
        if let (Phase::Joint { new, .. }, Phase::Stable { members }) = (&base.phase, &value.phase)
            && triad_replica::configuration::same_set(new, members)
        {
            let declared = |member: &&Member| self.declared.contains(&(**member, base.epoch));
            let evidence = new.iter().filter(declared).count();
            assert!(evidence >= majority(new.len()), "D4: forward to {value} without evidence");
        }
        self.decided.insert(value.epoch, value.clone());
        true
    }

    /// A member enters only what is decided, and only ever greater epochs.
    pub(crate) fn entered(&mut self, by: Member, before: Option<Epoch>, now: &Configuration) {
        assert_eq!(self.decided.get(&now.epoch), Some(now), "D2: entered what was not decided");
        assert!(before < Some(now.epoch), "D2: went back from {before:?} to {}", now.epoch);
        let previous = now.epoch.previous();
        let left = self.left.entry(by).or_insert(previous);
        *left = previous.max(*left);
    }

    /// D2: who accepted a successor, or entered one, serves the epoch never again.
    pub(crate) fn served(&self, by: Member, epoch: Epoch) {
        let left = self.left.get(&by).copied().unwrap_or(Epoch::NONE);
        assert!(epoch > left, "D2: {by:?} served {epoch} after it left {left}");
    }

    /// D4: in a joint epoch a newcomer answers no read, merged or not.
    pub(crate) fn answers_read(&self, by: Member, epoch: Epoch) {
        let set = self.decided[&epoch].read_set();
        assert!(set.contains(&by), "D4: newcomer {by:?} answered a read in {epoch}");
    }

    /// D4: who declares itself merged holds all that was acknowledged before the joint epoch.
    pub(crate) fn declares(&mut self, by: &Node, epoch: Epoch, acknowledged: &[(Epoch, Writes)]) {
        self.declared.insert((by.me, epoch));
        let mut earlier = acknowledged.iter().filter(|(at, _)| *at < epoch);
        let complete = earlier.all(|(_, write)| by.held.writes & write != 0);
        assert!(complete, "D4: {:?} declared itself merged in {epoch} and is not", by.me);
    }

    /// D4, seen from the write: who declared itself merged in a later epoch has it already.
    pub(crate) fn acknowledged(nodes: &[Node], at: Epoch, write: Writes) {
        for node in nodes {
            let Some(row) = node.replica.entered().filter(|row| row.declared) else {
                continue;
            };
            let late = at < row.configuration.epoch && node.held.writes & write == 0;
            assert!(!late, "D4: {:?} declared itself merged and lacks a write of {at}", node.me);
        }
    }

    /// D5: an actor never minted for a store that forgot what it minted before.
    pub(crate) fn mints(&mut self, by: &Node, actor: ActorId, write: usize) {
        let (owner, minted) = self.minted.entry(actor).or_insert((by.me, 0));
        assert_eq!(*owner, by.me, "D5: two stores mint as {actor}");
        assert_eq!(*minted & !by.held.writes, 0, "D5: {actor} mints though its store forgot");
        *minted |= 1 << write;
    }

    /// D8, at this instant: in every epoch that was ever decided, no quorum of members that
    /// would answer a read lacks an acknowledged write.
    pub(crate) fn every_quorum_sees(&self, nodes: &[Node], acknowledged: &[(Epoch, Writes)]) {
        for configuration in self.decided.values() {
            let set = configuration.read_set();
            let serves = |node: &&Node| {
                let asked = set.contains(&node.me);
                asked && node.replica.check(Access::Read, configuration.epoch).is_ok()
            };
            let held: Vec<Writes> =
                nodes.iter().filter(serves).map(|node| node.held.writes).collect();
            if held.len() < majority(set.len()) {
                continue;
            }
            for (at, write) in acknowledged {
                let lacking = held.iter().filter(|held| *held & write == 0).count();
                assert!(
                    lacking < majority(set.len()),
                    "D8: a quorum of {configuration} misses write {write:#x} of epoch {at}"
                );
            }
        }
    }
}
