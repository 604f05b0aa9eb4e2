//! Starts of stores: which this node has met, and who has met this one.
//!
//! The rules are in [`triad_replica::start`]; here they are kept, and shared by whoever opens a
//! stream, serves one, or must know whether this store may vote.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{Notify, watch};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use triad_replica::member::Member;
use triad_replica::start::{Judgement, Start, StartLog, Witnesses};
use triad_ring::{Incarnation, NodeId};

use crate::data_dir::LossReason;

/// Reasons in the status by which a start is refused.
const CLONED: &str = "STORE_CLONED";
const ROLLED_BACK: &str = "STORE_ROLLED_BACK";
const DOMAIN: &str = "triad";
/// The newest start that the refusing node knows of, in the status's metadata.
const KNOWN: &str = "known_incarnation";

/// Why a start is not met with trust: its store must not vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Distrust {
    /// In one word.
    pub(crate) reason: LossReason,
    /// In a sentence.
    pub(crate) why: String,
    /// The greatest incarnation of the node that is known to whoever says so.
    pub(crate) known: Incarnation,
}

impl From<Distrust> for Status {
    fn from(distrust: Distrust) -> Self {
        let reason = if distrust.reason == LossReason::Cloned { CLONED } else { ROLLED_BACK };
        let known = HashMap::from([(KNOWN.to_owned(), distrust.known.get().to_string())]);
        let details = ErrorDetails::with_error_info(reason, DOMAIN, known);
        Self::with_error_details(Code::FailedPrecondition, distrust.why, details)
    }
}

impl Distrust {
    /// What another node's status says of the own store; none if it is about something else.
    pub(crate) fn of_status(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info()?;
        let reason = match info.reason.as_str() {
            CLONED => LossReason::Cloned,
            ROLLED_BACK => LossReason::RolledBack,
            _ => return None,
        };
        let known = info.metadata.get(KNOWN).and_then(|known| known.parse().ok()).unwrap_or(0);
        let why = status.message().to_owned();
        Some(Self { reason, why, known: Incarnation::new(known) })
    }
}

/// What one process knows of starts.
pub(crate) struct Starts {
    log: Mutex<StartLog>,
    /// Held while a start is recorded: two processes on copies of one store must not both be new.
    pub(crate) recording: tokio::sync::Mutex<()>,
    /// Who has recorded this process's start.
    witnesses: Mutex<Arc<BTreeSet<Member>>>,
    /// What another node holds against this process's store.
    distrusted: OnceLock<Distrust>,
    /// Something above has changed.
    changed: Notify,
    /// The shards have been told of so many witnesses.
    told: watch::Sender<usize>,
}

impl Starts {
    /// Those of the store, and this process's own.
    pub(crate) fn new(mut log: StartLog, own: &Start) -> Self {
        // In memory alone: a process on a copy that reaches this one is refused like by any other.
        log.record(own);
        Self {
            log: Mutex::new(log),
            recording: tokio::sync::Mutex::default(),
            witnesses: Mutex::default(),
            distrusted: OnceLock::new(),
            changed: Notify::new(),
            told: watch::Sender::new(0),
        }
    }

    /// Looks at the recorded starts, or changes them.
    pub(crate) fn with_log<T>(&self, look: impl FnOnce(&mut StartLog) -> T) -> T {
        look(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this start is the newest of its node and recorded.
    pub(crate) fn is_current(&self, start: &Start) -> bool {
        self.with_log(|log| log.judge(start)) == Judgement::Same
    }

    /// What a suspect start is told; none when it is not suspect.
    pub(crate) fn distrust(&self, start: &Start, by: &str) -> Option<Distrust> {
        self.with_log(|log| {
            let Judgement::Suspect(suspicion) = log.judge(start) else {
                return None;
            };
            let newest = log.newest(start.member.node);
            let known = newest.map_or(start.incarnation, |newest| newest.incarnation);
            let why = format!("node {by} says: {suspicion}");
            Some(Distrust { reason: LossReason::RolledBack, why, known })
        })
    }

    /// Whether what a node shows of itself in a reply is not older than what was recorded.
    pub(crate) fn may_count(&self, member: Member, incarnation: Incarnation) -> bool {
        self.with_log(|log| counts(log, member, incarnation))
    }

    /// The same for a reply with the commits that its store has made, which are remembered if it counts.
    pub(crate) fn heard(&self, member: Member, incarnation: Incarnation, commits: u64) -> bool {
        self.with_log(|log| {
            let counts = counts(log, member, incarnation);
            if counts {
                log.saw_commits(member, incarnation, commits);
            }
            counts
        })
    }

    /// Another member has recorded this process's start.
    pub(crate) fn recorded_by(&self, witness: Member) {
        let mut witnesses = self.witnesses.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::make_mut(&mut witnesses).insert(witness) {
            self.changed.notify_one();
        }
    }

    /// Another node refuses this process's start.
    pub(crate) fn distrusted(&self, distrust: Distrust) {
        if self.distrusted.set(distrust).is_ok() {
            self.changed.notify_one();
        }
    }

    /// What another node holds against this process's store.
    pub(crate) fn held_against(&self) -> Option<&Distrust> {
        self.distrusted.get()
    }

    /// Who has recorded this process's start, and how many that are.
    pub(crate) fn witnesses(&self) -> (Witnesses, usize) {
        let witnesses = self.witnesses.lock().unwrap_or_else(PoisonError::into_inner);
        (Witnesses::Members(Arc::clone(&witnesses)), witnesses.len())
    }

    /// Whether this member has recorded this process's start.
    pub(crate) fn is_witness(&self, member: &Member) -> bool {
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner).contains(member)
    }

    /// Waits for news of witnesses.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The shards know of so many witnesses now.
    pub(crate) fn told(&self, witnesses: usize) {
        self.told.send_replace(witnesses);
    }

    /// Changes when the shards are told of another witness.
    pub(crate) fn watch(&self) -> watch::Receiver<usize> {
        self.told.subscribe()
    }

    /// The newest start of a node that is recorded here.
    pub(crate) fn newest(&self, node: NodeId) -> Option<Start> {
        self.with_log(|log| log.newest(node))
    }
}

fn counts(log: &StartLog, member: Member, incarnation: Incarnation) -> bool {
    log.newest(member.node).is_none_or(|newest| {
        incarnation > newest.incarnation
            || (incarnation == newest.incarnation && member == newest.member)
    })
}

#[cfg(test)]
mod tests {
    use triad_replica::member::{StartNonce, StoreId};

    use super::*;

    fn start(node: u8, store: u8, incarnation: u64, commits: u64) -> Start {
        let member = Member {
            node: NodeId::from_bytes([node; 16]),
            store: StoreId::from_bytes([store; 16]),
        };
        let nonce = StartNonce([incarnation as u8; 16]);
        Start { member, incarnation: Incarnation::new(incarnation), nonce, commits }
    }

    #[test]
    fn what_an_earlier_start_or_another_store_says_counts_for_nothing() {
        let starts = Starts::new(StartLog::default(), &start(1, 1, 1, 0));
        let known = start(2, 2, 3, 10);
        starts.with_log(|log| log.record(&known));
        let Start { member, incarnation, .. } = known;
        assert!(starts.may_count(member, incarnation));
        assert!(!starts.may_count(member, Incarnation::new(2)));
        assert!(!starts.may_count(start(2, 9, 3, 0).member, incarnation));
        assert!(starts.may_count(member, Incarnation::new(4)), "its Hello is on its way");
    }

    #[test]
    fn the_commits_that_answers_show_are_held_against_the_next_start() {
        let starts = Starts::new(StartLog::default(), &start(1, 1, 1, 0));
        let known = start(2, 2, 3, 10);
        starts.with_log(|log| log.record(&known));
        assert!(starts.heard(known.member, known.incarnation, 20));
        assert!(!starts.heard(known.member, Incarnation::new(2), 90), "an earlier start's");
        let rolled_back = starts.distrust(&start(2, 2, 4, 19), "one");
        assert_eq!(rolled_back.map(|distrust| distrust.reason), Some(LossReason::RolledBack));
        assert_eq!(starts.distrust(&start(2, 2, 4, 20), "one"), None);
    }
}
