//! Single-decree Paxos over a shard's next configuration: Lamport, *Paxos Made Simple*, §2.
//!
//! The acceptors of next(e) are the members of epoch e, in a joint epoch those of the old
//! side alone. Phase 1 asks a majority to promise; phase 2 asks them to accept. Three rules
//! carry the safety, and each left out gives two decisions for one epoch:
//!
//! 1. promise and acceptance are durable before the answer leaves;
//! 2. a proposer takes the value of the highest acceptance that its majority reports;
//! 3. a value is decided by a majority of acceptances in *one* ballot.
//!
//! No ballot ever carries two values: its counter names the proposer's attempt and move, so a
//! process uses each once, and a ballot is promised at most once, even to the proposer that
//! asks again. So nobody completes phase 1 of one ballot twice: a node that restarts and
//! repeats a counter is turned away and goes higher (an answer never reaches a later process
//! than the one that asked).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use triad_ring::NodeId;
use triad_ring::mutant::{Mutant, left_out};

use crate::configuration::{BadRow, Configuration, Epoch, Reader, Writer, majority};
use crate::member::Member;

/// One attempt to decide. Totally ordered; a node never uses one twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ballot {
    /// Upper half: counts up, past every ballot the proposer has heard of. Lower half: tells
    /// the moves of one process apart.
    pub counter: u64,
    /// The proposer's node, so that two proposers never share a ballot.
    pub node: NodeId,
}

/// One store's promise and acceptance for the epoch after `base`: a durable row.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Acceptor {
    base: Epoch,
    promised: Option<Ballot>,
    accepted: Option<(Ballot, Configuration)>,
}

/// A ballot that is not lower was promised already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outbid(pub Ballot);

/// The version of the acceptor row written today.
const ACCEPTOR_FORMAT: u8 = 1;

impl Acceptor {
    /// An acceptor that promised and accepted nothing yet.
    pub const fn new(base: Epoch) -> Self {
        Self { base, promised: None, accepted: None }
    }

    /// The epoch whose successor it helps to decide.
    pub const fn base(&self) -> Epoch {
        self.base
    }

    /// The highest acceptance. Once there is one, there is one for ever.
    pub const fn accepted(&self) -> Option<&(Ballot, Configuration)> {
        self.accepted.as_ref()
    }

    /// The highest ballot that was promised or accepted.
    pub const fn promised(&self) -> Option<Ballot> {
        self.promised
    }

    /// Phase 1: promises to accept nothing below `ballot`.
    pub fn prepare(&mut self, ballot: Ballot) -> Result<(), Outbid> {
        match self.promised {
            Some(promised) if ballot == promised && left_out(Mutant::PromisesTwice) => Ok(()),
            Some(promised) if ballot <= promised => Err(Outbid(promised)),
            _ => {
                self.promised = Some(ballot);
                Ok(())
            }
        }
    }

    /// Phase 2: accepts unless a higher ballot was promised.
    pub fn accept(&mut self, ballot: Ballot, value: Configuration) -> Result<(), Outbid> {
        match self.promised {
            Some(promised) if ballot < promised && !left_out(Mutant::AcceptsBelowPromise) => {
                Err(Outbid(promised))
            }
            _ => {
                self.promised = Some(ballot);
                self.accepted = Some((ballot, value));
                Ok(())
            }
        }
    }

    /// The row as stored.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u8(ACCEPTOR_FORMAT);
        writer.epoch(self.base);
        writer.optional(self.promised, write_ballot);
        writer.optional(self.accepted.as_ref(), |writer, (ballot, value)| {
            write_ballot(writer, *ballot);
            writer.configuration(value);
        });
        writer.finish()
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(row: &[u8]) -> Result<Self, BadRow> {
        let mut reader = Reader::new(row);
        reader.version(ACCEPTOR_FORMAT)?;
        let acceptor = Self {
            base: reader.epoch()?,
            promised: reader.optional(read_ballot)?,
            accepted: reader
                .optional(|reader| Ok((read_ballot(reader)?, reader.configuration()?)))?,
        };
        reader.finish()?;
        Ok(acceptor)
    }
}

fn write_ballot(writer: &mut Writer, ballot: Ballot) {
    writer.u64(ballot.counter);
    writer.node(ballot.node);
}

fn read_ballot(reader: &mut Reader<'_>) -> Result<Ballot, BadRow> {
    Ok(Ballot { counter: reader.u64()?, node: reader.node()? })
}

/// One node's attempt to have something decided for the epoch after one configuration.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Proposer {
    ballot: Ballot,
    acceptors: Vec<Member>,
    highest_seen: u64,
    serial: u32,
    phase: ProposerPhase,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum ProposerPhase {
    /// Promises so far, each with the acceptance it reported.
    Preparing(BTreeMap<Member, Option<(Ballot, Configuration)>>),
    /// The value of this ballot and who accepted it.
    Accepting(Configuration, BTreeSet<Member>),
}

/// What a majority of promises leaves a proposer to propose.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Choice {
    /// Nothing was decided below this ballot, nor can be: any legal value.
    Free,
    /// This may have been decided: it and nothing else.
    Obliged(Configuration),
}

impl Proposer {
    /// Starts the first ballot towards these acceptors. `serial` is different for every
    /// proposer of one process.
    pub fn new(node: NodeId, serial: u32, acceptors: Vec<Member>) -> Self {
        let counter = counter_above(0, serial);
        Self {
            ballot: Ballot { counter, node },
            acceptors,
            highest_seen: counter,
            serial,
            phase: ProposerPhase::Preparing(BTreeMap::new()),
        }
    }

    /// The same, above every ballot up to `seen`: what an earlier proposer of the same move
    /// used for another decision is never used again, so its late answers count for nothing.
    pub fn above(seen: u64, node: NodeId, serial: u32, acceptors: Vec<Member>) -> Self {
        let mut proposer = Self::new(node, serial, acceptors);
        if seen > 0 {
            proposer.highest_seen = seen;
            proposer.start_higher();
        }
        proposer
    }

    /// The highest counter used or heard of.
    pub const fn highest_seen(&self) -> u64 {
        self.highest_seen
    }

    /// The ballot that runs now.
    pub const fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Starts a new ballot, above every one heard of, from phase 1.
    pub fn start_higher(&mut self) {
        self.highest_seen = counter_above(self.highest_seen, self.serial);
        self.ballot.counter = self.highest_seen;
        self.phase = ProposerPhase::Preparing(BTreeMap::new());
    }

    /// A promise came. Says what may be proposed, once: when the majority is complete.
    pub fn on_promised(
        &mut self,
        from: Member,
        ballot: Ballot,
        accepted: Option<(Ballot, Configuration)>,
    ) -> Option<Choice> {
        if ballot != self.ballot || !self.acceptors.contains(&from) {
            return None;
        }
        let ProposerPhase::Preparing(promises) = &mut self.phase else {
            return None;
        };
        let known = promises.insert(from, accepted).is_some();
        if known || promises.len() != enough(&self.acceptors, Mutant::ProposesAfterOnePromise) {
            return None;
        }
        let reported = promises.values().flatten();
        let highest = if left_out(Mutant::TakesLowestReported) {
            reported.min_by_key(|(ballot, _)| *ballot)
        } else {
            reported.max_by_key(|(ballot, _)| *ballot)
        };
        let highest = highest.filter(|_| !left_out(Mutant::IgnoresReported));
        Some(highest.map_or(Choice::Free, |(_, value)| Choice::Obliged(value.clone())))
    }

    /// Begins phase 2 with a value that the [`Choice`] allows.
    pub fn propose(&mut self, value: Configuration) {
        self.phase = ProposerPhase::Accepting(value, BTreeSet::new());
    }

    /// An acceptance came. Returns the value if it is decided now.
    pub fn on_accepted(&mut self, from: Member, ballot: Ballot) -> Option<Configuration> {
        let counts = ballot == self.ballot || left_out(Mutant::CountsAnyBallot);
        if !counts || !self.acceptors.contains(&from) {
            return None;
        }
        let ProposerPhase::Accepting(value, accepted) = &mut self.phase else {
            return None;
        };
        accepted.insert(from);
        let enough = enough(&self.acceptors, Mutant::DecidedByOne);
        (accepted.len() >= enough).then(|| value.clone())
    }

    /// A rejection came. True if this ballot cannot be expected to succeed any more.
    pub fn on_rejected(&mut self, promised: Ballot) -> bool {
        self.highest_seen = self.highest_seen.max(promised.counter);
        // An equal one is the answer to a Prepare that arrived twice, and an Accept is not
        // refused by its own ballot. A restarted proposer meets its own old ballot, gets no
        // majority, and goes higher when its patience ends.
        promised > self.ballot
    }

    /// The value of phase 2, if that runs.
    pub const fn proposed(&self) -> Option<&Configuration> {
        match &self.phase {
            ProposerPhase::Preparing(_) => None,
            ProposerPhase::Accepting(value, _) => Some(value),
        }
    }

    /// The acceptors whose answer to the running phase has not come.
    pub fn silent(&self) -> Vec<Member> {
        let answered = |member: &Member| match &self.phase {
            ProposerPhase::Preparing(promises) => promises.contains_key(member),
            ProposerPhase::Accepting(_, accepted) => accepted.contains(member),
        };
        let silent = self.acceptors.iter().filter(|member| !answered(member));
        silent.copied().collect()
    }
}

/// A majority of the acceptors; one, where the rule is left out.
fn enough(acceptors: &[Member], rule: Mutant) -> usize {
    if left_out(rule) { 1 } else { majority(acceptors.len()) }
}

/// The next attempt's counter after every one of the attempt in `seen`.
const fn counter_above(seen: u64, serial: u32) -> u64 {
    let attempt = (seen >> u32::BITS).saturating_add(1);
    (attempt << u32::BITS) | serial as u64
}

#[cfg(test)]
mod tests;
