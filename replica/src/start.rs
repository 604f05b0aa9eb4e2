//! Which starts of other nodes' stores has this store met, and may the next one vote?
//!
//! A store that was copied, or put back as it once was, has forgotten promises. No rule on epochs
//! finds that out, so its starts are counted: each makes a greater incarnation durable and draws a
//! nonce, and introduces itself to the others with both. Whoever meets it records that, durably,
//! before answering (design rule D6). The next start must come with a greater incarnation and
//! with no fewer commits than were seen before; the same incarnation under another nonce is
//! another process on a copy, or on an old state, of the same files.
//!
//! [`StartLog`] remembers the starts, [`Witnesses`] are the members that have recorded one's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use triad_ring::{Incarnation, NodeId};

use crate::configuration::majority;
use crate::member::{Member, StartNonce, StoreId};

/// Stores of one node that are remembered: those of its greatest incarnations.
pub const STORES_MAX: usize = 4;
/// Stores that are remembered in all; beyond, what was recorded longest ago is forgotten.
pub const MEMBERS_MAX: usize = 4_096;

const FORMAT: u8 = 1;
const ROW_BYTES: usize = 1 + 8 + 16 + 8 + 8;

/// One start of a node on one store, as it tells of itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Start {
    /// The node and its store.
    pub member: Member,
    /// Counts the node's starts.
    pub incarnation: Incarnation,
    /// Drawn at random by this start.
    pub nonce: StartNonce,
    /// How many commits the store has made durable in its life.
    pub commits: u64,
}

impl Start {
    /// Whether the two are the same process.
    pub fn is_same_process(&self, other: &Self) -> bool {
        self.member == other.member
            && self.incarnation == other.incarnation
            && self.nonce == other.nonce
    }
}

/// What is to be made of a start that introduces itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Judgement {
    /// It is recorded already.
    Same,
    /// It is new: to be recorded, durably, before it is answered.
    New,
    /// Its store must not vote.
    Suspect(Suspicion),
}

/// Why a store must not vote under its id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Suspicion {
    /// The node has started again since, or this is what it was before.
    Older {
        /// The node's newest start.
        known: Incarnation,
        /// The one that introduces itself.
        told: Incarnation,
    },
    /// Another process has had this incarnation.
    Twin {
        /// The incarnation of both.
        incarnation: Incarnation,
    },
    /// The store had made more commits already.
    FewerCommits {
        /// How many were seen.
        known: u64,
        /// How many it shows.
        told: u64,
    },
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Older { known, told } => write!(
                f,
                "this is start {told} of the node, but start {known} has been since: an old copy of its data directory was put back, or \
                 another process runs on a copy"
            ),
            Self::Twin { incarnation } => write!(
                f,
                "there was another start {incarnation} of the node: an old copy of its data directory was put back, or another process \
                 runs on a copy"
            ),
            Self::FewerCommits { known, told } => write!(
                f,
                "the store shows {told} commits, but had made {known} already: an old copy of its data directory was put back"
            ),
        }
    }
}

/// What is remembered of a store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Known {
    incarnation: Incarnation,
    nonce: StartNonce,
    /// The greatest number seen.
    commits: u64,
    /// Grows with each start that is recorded here.
    order: u64,
}

/// A stored row could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the row of a recorded start has an unknown format")]
pub struct BadStart;

/// The newest start of each store that was met.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct StartLog {
    known: BTreeMap<Member, Known>,
}

impl StartLog {
    /// What is to be made of a start?
    pub fn judge(&self, start: &Start) -> Judgement {
        let Some((member, newest)) = self.newest_of(start.member.node) else {
            return Judgement::New;
        };
        let told = start.incarnation;
        if told < newest.incarnation {
            let known = newest.incarnation;
            return Judgement::Suspect(Suspicion::Older { known, told });
        }
        if told == newest.incarnation {
            return if member == start.member && newest.nonce == start.nonce {
                Judgement::Same
            } else {
                Judgement::Suspect(Suspicion::Twin { incarnation: told })
            };
        }
        let known = self.known.get(&start.member).map_or(0, |known| known.commits);
        if start.commits < known {
            let told = start.commits;
            return Judgement::Suspect(Suspicion::FewerCommits { known, told });
        }
        Judgement::New
    }

    /// The newest start of a node that was recorded here, and the commits seen of its store.
    pub fn newest(&self, node: NodeId) -> Option<Start> {
        let (member, known) = self.newest_of(node)?;
        let Known { incarnation, nonce, commits, .. } = *known;
        Some(Start { member, incarnation, nonce, commits })
    }

    fn newest_of(&self, node: NodeId) -> Option<(Member, &Known)> {
        self.of(node).max_by_key(|(_, known)| known.incarnation)
    }

    fn of(&self, node: NodeId) -> impl Iterator<Item = (Member, &Known)> {
        let store = |byte| Member { node, store: StoreId::from_bytes([byte; 16]) };
        self.known.range(store(0)..=store(u8::MAX)).map(|(member, known)| (*member, known))
    }

    /// The recorded start of this member has shown so many commits. Those of a start that is not recorded yet do not
    /// count: its Hello may be older than its answers, and would seem to show too few.
    pub fn saw_commits(&mut self, member: Member, incarnation: Incarnation, commits: u64) {
        let known = self.known.get_mut(&member);
        if let Some(known) = known.filter(|known| known.incarnation == incarnation) {
            known.commits = known.commits.max(commits);
        }
    }

    /// Records a start that was judged to be new. Answers which members are forgotten for it.
    pub fn record(&mut self, start: &Start) -> Vec<Member> {
        let order = self.known.values().map(|known| known.order + 1).max().unwrap_or(0);
        let Start { member, incarnation, nonce, commits } = *start;
        self.known.insert(member, Known { incarnation, nonce, commits, order });
        let mut forgotten = Vec::new();
        if self.of(member.node).count() > STORES_MAX {
            let oldest = self.of(member.node).min_by_key(|(_, known)| known.incarnation);
            forgotten.extend(oldest.map(|(member, _)| member));
        } else if self.known.len() > MEMBERS_MAX {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.order);
            forgotten.extend(oldest.map(|(member, _)| *member));
        }
        self.known.retain(|member, _| !forgotten.contains(member));
        forgotten
    }

    /// What is remembered of a member, as stored.
    pub fn row(&self, member: &Member) -> Option<Bytes> {
        let known = self.known.get(member)?;
        let mut row = BytesMut::with_capacity(ROW_BYTES);
        row.put_u8(FORMAT);
        row.put_u64(known.incarnation.get());
        row.put_slice(&known.nonce.0);
        row.put_u64(known.commits);
        row.put_u64(known.order);
        Some(row.freeze())
    }

    /// Takes in a stored row.
    pub fn restore(&mut self, member: Member, mut row: &[u8]) -> Result<(), BadStart> {
        if row.len() != ROW_BYTES || row.get_u8() != FORMAT {
            return Err(BadStart);
        }
        let incarnation = Incarnation::new(row.get_u64());
        let mut nonce = [0; 16];
        row.copy_to_slice(&mut nonce);
        let (commits, order) = (row.get_u64(), row.get_u64());
        let nonce = StartNonce(nonce);
        self.known.insert(member, Known { incarnation, nonce, commits, order });
        Ok(())
    }

    /// All members that are remembered, with the commits seen of them.
    pub fn members(&self) -> impl Iterator<Item = (Member, u64)> {
        self.known.iter().map(|(member, known)| (*member, known.commits))
    }
}

/// Which members have recorded this start of the own store.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Witnesses {
    /// No start is counted: for models of what happens between starts.
    NotCounted,
    /// These.
    Members(Arc<BTreeSet<Member>>),
    /// One of them says that this store must not vote. That is never taken back.
    Suspect,
}

impl Witnesses {
    /// Those of a start that nobody has heard of.
    pub fn none() -> Self {
        Self::Members(Arc::default())
    }

    /// Whether a majority of these have recorded the start; the own store has itself.
    pub fn are_majority_of(&self, members: &[Member], me: &Member) -> bool {
        match self {
            Self::NotCounted => true,
            Self::Suspect => false,
            Self::Members(witnesses) => {
                let recorded = members.iter().filter(|one| *one == me || witnesses.contains(one));
                recorded.count() >= majority(members.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(node: u8, store: u8) -> Member {
        Member { node: NodeId::from_bytes([node; 16]), store: StoreId::from_bytes([store; 16]) }
    }

    fn start(node: u8, store: u8, incarnation: u64, nonce: u8, commits: u64) -> Start {
        let (incarnation, nonce) = (Incarnation::new(incarnation), StartNonce([nonce; 16]));
        Start { member: member(node, store), incarnation, nonce, commits }
    }

    fn log(starts: &[Start]) -> StartLog {
        let mut log = StartLog::default();
        for start in starts {
            assert_eq!(log.judge(start), Judgement::New, "{start:?}");
            log.record(start);
        }
        log
    }

    #[test]
    fn each_start_of_a_store_is_new_once_and_then_the_same() {
        let log = log(&[start(1, 1, 1, 7, 0), start(1, 1, 2, 8, 5), start(2, 2, 1, 9, 0)]);
        assert_eq!(log.judge(&start(1, 1, 2, 8, 5)), Judgement::Same);
        assert_eq!(log.judge(&start(1, 1, 3, 6, 5)), Judgement::New);
    }

    #[test]
    fn a_copy_started_beside_its_original_is_noticed() {
        let log = log(&[start(1, 1, 4, 7, 9)]);
        let twin = Suspicion::Twin { incarnation: Incarnation::new(4) };
        assert_eq!(log.judge(&start(1, 1, 4, 8, 9)), Judgement::Suspect(twin));
        assert_eq!(log.judge(&start(1, 2, 4, 7, 9)), Judgement::Suspect(twin), "another store");
    }

    #[test]
    fn an_old_copy_put_back_is_noticed_by_its_starts_or_its_commits() {
        let mut log = log(&[start(1, 1, 4, 7, 100)]);
        log.saw_commits(member(1, 1), Incarnation::new(4), 250);
        log.saw_commits(member(1, 1), Incarnation::new(4), 240);
        let (known, told) = (Incarnation::new(4), Incarnation::new(3));
        let older = Suspicion::Older { known, told };
        assert_eq!(log.judge(&start(1, 1, 3, 8, 90)), Judgement::Suspect(older));
        // Copied while start 4 ran, and put back after more was written.
        let fewer = Suspicion::FewerCommits { known: 250, told: 180 };
        assert_eq!(log.judge(&start(1, 1, 5, 8, 180)), Judgement::Suspect(fewer));
        assert_eq!(log.judge(&start(1, 1, 5, 8, 250)), Judgement::New);
    }

    #[test]
    fn a_start_is_not_held_against_itself_when_its_answers_overtake_its_hello() {
        let mut log = log(&[start(1, 1, 4, 7, 100)]);
        log.saw_commits(member(1, 1), Incarnation::new(5), 103);
        let hello = start(1, 1, 5, 8, 102);
        assert_eq!(log.judge(&hello), Judgement::New);
        log.record(&hello);
        log.saw_commits(member(1, 1), Incarnation::new(5), 103);
        assert_eq!(log.judge(&hello), Judgement::Same);
    }

    #[test]
    fn a_store_that_was_replaced_stays_out_when_it_returns() {
        let log = log(&[start(1, 1, 4, 7, 100), start(1, 2, 5, 8, 0)]);
        assert!(matches!(log.judge(&start(1, 1, 5, 9, 100)), Judgement::Suspect(_)));
        assert_eq!(log.newest(NodeId::from_bytes([1; 16])), Some(start(1, 2, 5, 8, 0)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
        let mut log = StartLog::default();
        for store in 1..=STORES_MAX as u8 {
            assert_eq!(log.record(&start(1, store, store.into(), 1, 0)), []);
        }
        assert_eq!(log.record(&start(1, 9, 9, 1, 0)), [member(1, 1)]);
        let mut log = StartLog::default();
        for number in 0..=MEMBERS_MAX {
            let mut one = start(1, 1, 1, 1, 0);
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(number as u64).to_be_bytes());
            one.member.node = NodeId::from_bytes(id);
            assert_eq!(log.record(&one).len(), usize::from(number == MEMBERS_MAX));
        }
        assert_eq!(log.members().count(), MEMBERS_MAX);
    }

    #[test]
    fn a_majority_counts_the_own_store_and_each_witness_once() {
        let members = [member(1, 1), member(2, 2), member(3, 3)];
        let me = members[0];
        let by = |names: &[Member]| Witnesses::Members(Arc::new(names.iter().copied().collect()));
        assert!(Witnesses::none().are_majority_of(&members[..1], &me));
        assert!(!Witnesses::none().are_majority_of(&members, &me));
        assert!(by(&members[1..2]).are_majority_of(&members, &me));
        // A node that has lost its store since counts for nothing, and so does one's own word elsewhere.
        assert!(!by(&[member(2, 9), me]).are_majority_of(&members, &me));
        assert!(!by(&members[1..2]).are_majority_of(&members, &member(4, 4)));
        assert!(!Witnesses::Suspect.are_majority_of(&members[..1], &me));
    }

    proptest! {
        /// Of all processes on copies of one store at most one is recorded per incarnation, and
        /// none after a greater one.
        #[test]
        fn no_two_processes_of_one_node_are_recorded_under_one_incarnation(
            told in proptest::collection::vec((1_u8..3, 1_u64..6, 0_u8..4, 0_u64..5), 1..40),
        ) {
            let mut log = StartLog::default();
            let mut recorded: Vec<Start> = Vec::new();
            for (store, incarnation, nonce, commits) in told {
                let one = start(1, store, incarnation, nonce, commits);
                match log.judge(&one) {
                    Judgement::New => {
                        prop_assert!(recorded.iter().all(|was| was.incarnation < one.incarnation));
                        let before = recorded.iter().filter(|was| was.member == one.member);
                        prop_assert!(before.map(|was| was.commits).max() <= Some(one.commits));
                        log.record(&one);
                        recorded.push(one);
                    }
                    Judgement::Same => {
                        prop_assert!(recorded.last().is_some_and(|was| was.is_same_process(&one)));
                    }
                    Judgement::Suspect(_) => {}
                }
                let mut again = StartLog::default();
                for (member, _) in log.members() {
                    let row = log.row(&member).expect("it is remembered");
                    prop_assert_eq!(again.restore(member, &row), Ok(()));
                }
                prop_assert_eq!(&again, &log);
            }
        }
    }
}
