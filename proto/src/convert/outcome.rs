//! What became of a request at each replica, and why a replica refuses.

use triad_replica::configuration::Configuration;
use triad_replica::consistency::{Failure, ReplicaResult};
use triad_replica::refusal::Refusal;

use super::BadField;
use crate::peer::v1 as peer;
use crate::peer::v1::RefusalReason as Reason;
use crate::v1;

impl From<ReplicaResult> for v1::ReplicaResult {
    fn from(result: ReplicaResult) -> Self {
        match result {
            ReplicaResult::Pending => Self::Pending,
            ReplicaResult::Ok => Self::Ok,
            ReplicaResult::Failed(Failure::Unreachable) => Self::Unreachable,
            ReplicaResult::Failed(Failure::Timeout) => Self::Timeout,
            ReplicaResult::Failed(Failure::StaleEpoch | Failure::Collected) => Self::StaleEpoch,
            ReplicaResult::Failed(Failure::Learner) => Self::Learner,
            ReplicaResult::Failed(Failure::NoSpace) => Self::NoSpace,
            ReplicaResult::Failed(Failure::Damaged) => Self::Damaged,
            ReplicaResult::Failed(Failure::Hinted) => Self::Hinted,
            ReplicaResult::Failed(Failure::Overloaded) => Self::Overloaded,
        }
    }
}

impl TryFrom<v1::ReplicaResult> for ReplicaResult {
    type Error = BadField;

    fn try_from(result: v1::ReplicaResult) -> Result<Self, BadField> {
        Ok(match result {
            v1::ReplicaResult::Unspecified => return Err(BadField::missing("result")),
            v1::ReplicaResult::Ok => Self::Ok,
            v1::ReplicaResult::Pending => Self::Pending,
            v1::ReplicaResult::Unreachable => Self::Failed(Failure::Unreachable),
            v1::ReplicaResult::Timeout => Self::Failed(Failure::Timeout),
            v1::ReplicaResult::StaleEpoch => Self::Failed(Failure::StaleEpoch),
            v1::ReplicaResult::Learner => Self::Failed(Failure::Learner),
            v1::ReplicaResult::NoSpace => Self::Failed(Failure::NoSpace),
            v1::ReplicaResult::Damaged => Self::Failed(Failure::Damaged),
            v1::ReplicaResult::Hinted => Self::Failed(Failure::Hinted),
            v1::ReplicaResult::Overloaded => Self::Failed(Failure::Overloaded),
        })
    }
}

impl From<Refusal> for peer::Refusal {
    fn from(refusal: Refusal) -> Self {
        let reason = match &refusal {
            Refusal::StaleEpoch { .. } => Reason::StaleEpoch,
            Refusal::NotMember { .. } => Reason::NotMember,
            Refusal::Learner => Reason::Learner,
            Refusal::NotMerged => Reason::NotMerged,
            Refusal::NoSpace => Reason::NoSpace,
            Refusal::Damaged => Reason::Damaged,
            Refusal::Overloaded => Reason::Overloaded,
            Refusal::Collected => Reason::Collected,
            Refusal::HintsFull => Reason::HintsFull,
            Refusal::NotIntroduced => Reason::NotIntroduced,
            Refusal::SiblingLimit { .. } => Reason::SiblingLimit,
            Refusal::ContextLimit { .. } => Reason::ContextLimit,
        };
        let (size, limit) = match refusal {
            Refusal::SiblingLimit { siblings, limit } => (siblings as u64, limit as u64),
            Refusal::ContextLimit { entries, limit } => (entries as u64, limit as u64),
            _ => (0, 0),
        };
        let newest = match refusal {
            Refusal::StaleEpoch { newest } => Some(newest),
            Refusal::NotMember { newest } => newest,
            _ => None,
        };
        Self { reason: reason.into(), newest: newest.map(peer::Configuration::from), size, limit }
    }
}

impl TryFrom<peer::Refusal> for Refusal {
    type Error = BadField;

    fn try_from(refusal: peer::Refusal) -> Result<Self, BadField> {
        let unknown =
            || BadField::peer("refusal.reason", refusal.reason, "no refusal has this number");
        let newest = || refusal.newest.clone().map(Configuration::try_from).transpose();
        let (size, limit) = (count(refusal.size), count(refusal.limit));
        Ok(match Reason::try_from(refusal.reason).map_err(|_| unknown())? {
            Reason::Unspecified => return Err(BadField::missing("refusal.reason")),
            Reason::StaleEpoch => Self::StaleEpoch {
                newest: newest()?.ok_or_else(|| BadField::missing("refusal.newest"))?,
            },
            Reason::NotMember => Self::NotMember { newest: newest()? },
            Reason::Learner => Self::Learner,
            Reason::NotMerged => Self::NotMerged,
            Reason::NoSpace => Self::NoSpace,
            Reason::Damaged => Self::Damaged,
            Reason::Overloaded => Self::Overloaded,
            Reason::Collected => Self::Collected,
            Reason::HintsFull => Self::HintsFull,
            Reason::NotIntroduced => Self::NotIntroduced,
            Reason::SiblingLimit => Self::SiblingLimit { siblings: size, limit },
            Reason::ContextLimit => Self::ContextLimit { entries: size, limit },
        })
    }
}

/// For messages to people only, so a number beyond the platform's is as good as its greatest.
fn count(wire: u64) -> usize {
    usize::try_from(wire).unwrap_or(usize::MAX)
}
