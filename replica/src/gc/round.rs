//! The proposer's side of a round: from candidates to a digest that every member vouched for.

use std::collections::BTreeSet;

use triad_ring::mutant::{Mutant, left_out};

use super::{Garbage, GcDigest, ROUND_BYTES, ROUND_KEYS, VouchReply, VouchRequest, digest};
use crate::configuration::{Configuration, majority};
use crate::member::Member;
use crate::message::Base;

/// How often a list is put to the members: whole, and once more without what one of them
/// did not hold.
const ATTEMPTS: u32 = 2;

/// One round in one configuration. It forgets everything when its process ends: the vouches
/// stay, and do nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Round {
    base: Configuration,
    members: Vec<Member>,
    garbage: Vec<Garbage>,
    vouched: BTreeSet<Member>,
    answered: BTreeSet<Member>,
    /// What somebody does not hold so.
    lacked: BTreeSet<u32>,
    attempts: u32,
}

/// What follows from an answer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum RoundStep {
    /// Others have still to answer.
    Wait,
    /// Ask everybody anew: the list is shorter now.
    AskAgain,
    /// Every member vouched: this may be decided for the next epoch.
    Ready(GcDigest),
    /// Nothing comes of this round.
    Over,
}

impl Round {
    /// Begins a round over these candidates, as many as one round takes. None when the
    /// configuration allows none, or there is nothing to collect.
    pub fn new(base: &Configuration, mut candidates: Vec<Garbage>) -> Option<Self> {
        candidates.sort();
        candidates.dedup_by(|one, other| one.bucket == other.bucket && one.key == other.key);
        let mut room = ROUND_BYTES;
        candidates.truncate(ROUND_KEYS);
        candidates.retain(|one| {
            let fits = one.bytes() <= room;
            room -= if fits { one.bytes() } else { 0 };
            fits
        });
        if !base.may_collect() || candidates.is_empty() {
            return None;
        }
        Some(Self {
            base: base.clone(),
            members: base.members(),
            garbage: candidates,
            vouched: BTreeSet::new(),
            answered: BTreeSet::new(),
            lacked: BTreeSet::new(),
            attempts: 1,
        })
    }

    /// What to ask every member, the proposer's own store too.
    pub fn request(&self) -> VouchRequest {
        VouchRequest { base: Base::of(&self.base), garbage: self.garbage.clone() }
    }

    /// The configuration that the vouches are for, and that the collection must follow.
    pub const fn base(&self) -> &Configuration {
        &self.base
    }

    /// Whom to ask.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How many records the round collects, if it succeeds.
    pub fn len(&self) -> usize {
        self.garbage.len()
    }

    /// Whether nothing is left to collect.
    pub fn is_empty(&self) -> bool {
        self.garbage.is_empty()
    }

    /// An answer to the current request. The caller drops answers to earlier ones; a vouch
    /// names its digest, so that one of those could not be mistaken anyway.
    pub fn on_reply(&mut self, from: Member, reply: VouchReply) -> RoundStep {
        if !self.members.contains(&from) {
            return RoundStep::Wait;
        }
        let wanted = digest(self.base.epoch, &self.garbage);
        match reply {
            VouchReply::Refused { .. } => return RoundStep::Over,
            VouchReply::Vouched(digest) if digest == wanted => {
                self.vouched.insert(from);
            }
            VouchReply::Vouched(_) => return RoundStep::Wait,
            VouchReply::Lacks(places) => self.lacked.extend(places),
        }
        self.answered.insert(from);
        let majority = majority(self.members.len());
        if left_out(Mutant::MajorityVouches) && self.vouched.len() >= majority {
            return RoundStep::Ready(wanted);
        }
        if self.answered.len() < self.members.len() {
            RoundStep::Wait
        } else if self.vouched.len() == self.members.len() {
            RoundStep::Ready(wanted)
        } else {
            self.shorten()
        }
    }

    fn shorten(&mut self) -> RoundStep {
        let lacked = std::mem::take(&mut self.lacked);
        let before = self.garbage.len();
        let mut places = 0..;
        self.garbage.retain(|_| places.next().is_none_or(|place| !lacked.contains(&place)));
        let shorter = self.garbage.len() < before && !self.garbage.is_empty();
        if self.attempts >= ATTEMPTS || !shorter {
            return RoundStep::Over;
        }
        self.attempts += 1;
        self.vouched.clear();
        self.answered.clear();
        RoundStep::AskAgain
    }
}
