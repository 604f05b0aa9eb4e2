//! How many answers a level needs, and from whom.
//!
//! In a stable epoch there is one group of members and one count. In a joint epoch a write
//! counts on both sides at once, and a read on the old side alone (design rule D3; the joint
//! consensus of Ongaro, *Consensus: Bridging Theory and Practice*, section 4.3, with Triad's
//! asymmetry of reads and writes).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use triad_ring::mutant::{Mutant, left_out};

use crate::configuration::{Configuration, Phase, majority};
use crate::member::Member;
use crate::refusal::Refusal;

/// How many members must answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// One member: no promise of freshness, and a write survives no store's loss.
    One,
    /// A majority: what was acknowledged so is seen by every later read so.
    #[default]
    Quorum,
    /// Every member.
    All,
}

impl Level {
    /// How many of `size` members the level asks for.
    pub fn needed_of(self, size: usize) -> usize {
        match self {
            Self::One => 1,
            Self::Quorum if left_out(Mutant::HalfIsMajority) => (size / 2).max(1),
            Self::Quorum => majority(size),
            Self::All => size,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "ONE",
            Self::Quorum => "QUORUM",
            Self::All => "ALL",
        })
    }
}

/// What is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A Get.
    Read,
    /// A Put or a Delete.
    Write,
}

/// A set of members of which so many must answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// Distinct members, in ring order.
    pub members: Vec<Member>,
    /// How many of them must answer; at least 1, unless there are none at all.
    pub needed: usize,
}

impl Group {
    fn new(level: Level, members: &[Member]) -> Self {
        // Counted over distinct members, however the list came about.
        let mut distinct: Vec<Member> = Vec::with_capacity(members.len());
        for member in members {
            if !distinct.contains(member) {
                distinct.push(*member);
            }
        }
        let needed = level.needed_of(distinct.len());
        Self { members: distinct, needed }
    }

    fn count(&self, holds: impl Fn(&Member) -> bool) -> usize {
        self.members.iter().filter(|member| holds(member)).count()
    }
}

/// What must be answered before an operation is acknowledged: every group its count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    groups: Vec<Group>,
}

impl Requirement {
    /// What `level` means for `operation` in this configuration.
    pub fn new(level: Level, configuration: &Configuration, operation: Operation) -> Self {
        let sides = match (&configuration.phase, operation) {
            (Phase::Stable { members }, _) => vec![members],
            (Phase::Joint { old, .. }, Operation::Read) => vec![old],
            (Phase::Joint { old, .. }, _) if left_out(Mutant::JointWritesCountOldSide) => vec![old],
            (Phase::Joint { new, .. }, _) if left_out(Mutant::JointWritesCountNewSide) => vec![new],
            (Phase::Joint { old, new }, Operation::Write) => vec![old, new],
        };
        let mut groups: Vec<_> = sides.into_iter().map(|side| Group::new(level, side)).collect();
        if operation == Operation::Read && left_out(Mutant::NewcomersAnswerReads) {
            groups[0].members.extend(configuration.newcomers());
        }
        Self { groups }
    }

    /// The groups; two for a write in a joint epoch (old, new), else one.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Everybody to ask: distinct members, old side first, then the newcomers.
    pub fn members(&self) -> Vec<Member> {
        let mut seen = BTreeSet::new();
        let all = self.groups.iter().flat_map(|group| &group.members);
        all.copied().filter(|member| seen.insert(*member)).collect()
    }

    /// The number reported as "needed": the fewest distinct members that can suffice. A member
    /// on both sides of a joint epoch counts on both, so moving {A,B,C} to {A,B,X} needs 2 at
    /// QUORUM like either side alone, and moving {A} to {B} needs 2.
    pub fn needed(&self) -> usize {
        let sum: usize = self.groups.iter().map(|group| group.needed).sum();
        let [old, new] = self.groups.as_slice() else {
            return sum;
        };
        let on_both = old.count(|member| new.members.contains(member));
        sum - on_both.min(old.needed).min(new.needed)
    }

    fn verdict(&self, results: &Results) -> Verdict {
        let enough = |group: &Group| group.count(|member| results.is_ok(member)) >= group.needed;
        let possible =
            |group: &Group| group.count(|member| !results.has_failed(member)) >= group.needed;
        if self.groups.iter().all(enough) {
            Verdict::Enough
        } else if self.groups.iter().all(possible) {
            Verdict::Pending
        } else {
            Verdict::Impossible
        }
    }
}

/// The state of a tally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Answers that are still out may make it enough.
    Pending,
    /// The level is reached.
    Enough,
    /// Too few can still answer.
    Impossible,
}

/// Why a member's answer does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// It could not be reached: nothing was sent, or the connection broke.
    Unreachable,
    /// It did not answer in time.
    Timeout,
    /// It serves another epoch, or is not a member in its own view.
    StaleEpoch,
    /// The tombstones of the epoch in which the record was made are gone: sending it again is
    /// of no use.
    Collected,
    /// It has not merged the shard yet.
    Learner,
    /// Its store is full.
    NoSpace,
    /// Its row of the key is damaged.
    Damaged,
    /// A hint is kept for it, which does not count in a strict bucket.
    Hinted,
    /// It sheds load.
    Overloaded,
}

impl From<&Refusal> for Failure {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::StaleEpoch { .. } | Refusal::NotMember { .. } => Self::StaleEpoch,
            Refusal::Learner | Refusal::NotMerged => Self::Learner,
            Refusal::Collected => Self::Collected,
            Refusal::NoSpace | Refusal::HintsFull => Self::NoSpace,
            Refusal::Damaged => Self::Damaged,
            Refusal::NotIntroduced => Self::Unreachable,
            // The key's own limits are met where a dot is minted; a merge has none.
            Refusal::Overloaded | Refusal::SiblingLimit { .. } | Refusal::ContextLimit { .. } => {
                Self::Overloaded
            }
        }
    }
}

/// What became of one member's part, as told in every reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicaResult {
    /// Asked, not answered yet.
    Pending,
    /// It answered, and counts.
    Ok,
    /// It will not count.
    Failed(Failure),
}

/// A [`ReplicaResult`] in lower case, as in JSON and in messages.
impl fmt::Display for ReplicaResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Ok => "ok",
            Self::Failed(Failure::Unreachable) => "unreachable",
            Self::Failed(Failure::Timeout) => "timeout",
            Self::Failed(Failure::StaleEpoch | Failure::Collected) => "stale_epoch",
            Self::Failed(Failure::Learner) => "learner",
            Self::Failed(Failure::NoSpace) => "no_space",
            Self::Failed(Failure::Damaged) => "damaged",
            Self::Failed(Failure::Hinted) => "hinted",
            Self::Failed(Failure::Overloaded) => "overloaded",
        })
    }
}

/// The members asked and what became of each: the common half of both tallies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Results {
    requirement: Requirement,
    by_member: BTreeMap<Member, ReplicaResult>,
}

impl Results {
    pub(crate) fn new(requirement: Requirement) -> Self {
        let asked = requirement.members().into_iter();
        let by_member = asked.map(|member| (member, ReplicaResult::Pending)).collect();
        Self { requirement, by_member }
    }

    pub(crate) fn requirement(&self) -> &Requirement {
        &self.requirement
    }

    /// Notes a member that counts; false when it is none of those asked or counts already.
    pub(crate) fn ok(&mut self, member: Member) -> bool {
        match self.by_member.get_mut(&member) {
            None | Some(ReplicaResult::Ok) => false,
            Some(result) => {
                *result = ReplicaResult::Ok;
                true
            }
        }
    }

    /// Notes a failure, unless the member counts already. What was done stays done: a success
    /// is not taken back by a connection that breaks afterwards.
    pub(crate) fn failed(&mut self, member: Member, failure: Failure) {
        if let Some(result) = self.by_member.get_mut(&member)
            && *result != ReplicaResult::Ok
        {
            *result = ReplicaResult::Failed(failure);
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.requirement.verdict(self)
    }

    /// In the order of [`Requirement::members`].
    pub(crate) fn in_order(&self) -> Vec<(Member, ReplicaResult)> {
        let members = self.requirement.members().into_iter();
        members.map(|member| (member, self.of(&member))).collect()
    }

    pub(crate) fn acknowledged(&self) -> usize {
        let results = self.by_member.values();
        results.filter(|result| **result == ReplicaResult::Ok).count()
    }

    pub(crate) fn missing(&self) -> Vec<Member> {
        let mut members = self.requirement.members();
        members.retain(|member| !self.is_ok(member));
        members
    }

    fn of(&self, member: &Member) -> ReplicaResult {
        self.by_member.get(member).copied().unwrap_or(ReplicaResult::Pending)
    }

    fn is_ok(&self, member: &Member) -> bool {
        self.of(member) == ReplicaResult::Ok
    }

    fn has_failed(&self, member: &Member) -> bool {
        matches!(self.of(member), ReplicaResult::Failed(_))
    }
}

#[cfg(test)]
pub(crate) mod twin;
