//! A former member hands over what the members lack, then forgets the shard.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use triad_ring::mutant::{Mutant, left_out};

use super::CopyTiming;
use crate::configuration::{Configuration, Epoch, majority};
use crate::member::Member;
use crate::message::{PageCursor, Standing};

/// One former member's hand-over to the members of one stable configuration.
///
/// Whatever a quorum acknowledged the new members have already; what is handed over is what
/// only this store took: writes at ONE, and those whose coordinator died. A majority gets it,
/// so that the next move finds it. The records are purged when *all* members have entered
/// the configuration: until then one of them may still need this store as a source.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Drain {
    configuration: Configuration,
    timing: CopyTiming,
    waiting: VecDeque<Member>,
    /// Who has everything.
    handed: BTreeSet<Member>,
    /// Who has entered the configuration, or a later one.
    entered: BTreeSet<Member>,
    current: Option<Current>,
    failures: usize,
    /// How long to rest after every one was tried in vain; doubles while that goes on.
    rest: Duration,
    wake: Duration,
    purged: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Current {
    to: Member,
    /// None while the trees are compared.
    leaves: Option<Vec<u8>>,
}

/// What happens to a hand-over. Answers are to the *last* request only: what comes later
/// than a newer request, or a second time, is dropped by the caller.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum DrainInput {
    /// The moment named by [`Drain::wake_at`] came.
    Tick,
    /// A member's tree was compared with our own.
    Compared {
        /// The member.
        from: Member,
        /// Where it stood before its tree was read.
        standing: Standing,
        /// The leaves that differ.
        differing: Vec<u8>,
    },
    /// The member has committed a page of our records.
    Pushed {
        /// The member.
        to: Member,
        /// Where the next page begins; none when that was all.
        next: Option<PageCursor>,
    },
    /// A member did not answer, or refused.
    Failed {
        /// The member.
        from: Member,
    },
}

/// What a hand-over wants done.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum DrainOutput {
    /// Compare our tree with this member's.
    Compare {
        /// The member.
        with: Member,
    },
    /// Push a page of our records of these leaves.
    Push {
        /// The member.
        to: Member,
        /// The leaves.
        leaves: Vec<u8>,
        /// Where the page begins.
        after: Option<PageCursor>,
    },
    /// All is handed over: [`purge`](crate::shard::ShardReplica::purge), and drop this.
    Purge,
}

impl Drain {
    /// Begins a hand-over to the members of a stable configuration, as
    /// [`must_drain_to`](crate::shard::ShardReplica::must_drain_to) names it. The first
    /// [`DrainInput::Tick`] is due at once.
    pub fn new(configuration: Configuration, timing: CopyTiming, now: Duration) -> Self {
        let waiting = configuration.members().into();
        Self {
            configuration,
            timing,
            waiting,
            handed: BTreeSet::new(),
            entered: BTreeSet::new(),
            current: None,
            failures: 0,
            rest: timing.retry,
            wake: now,
            purged: false,
        }
    }

    /// The epoch of the configuration; after a later one, another hand-over is needed.
    pub const fn epoch(&self) -> Epoch {
        self.configuration.epoch
    }

    /// When the next [`DrainInput::Tick`] is due.
    pub const fn wake_at(&self) -> Duration {
        self.wake
    }

    /// One thing happened.
    pub fn handle(&mut self, input: DrainInput, now: Duration, out: &mut Vec<DrainOutput>) {
        if self.purged {
            return;
        }
        match input {
            DrainInput::Tick if now < self.wake => {}
            DrainInput::Tick if self.current.is_none() => self.ask_next(now, out),
            DrainInput::Tick => self.set_aside(now, out),
            DrainInput::Failed { from } => {
                if self.is_current(from, None) {
                    self.set_aside(now, out);
                }
            }
            DrainInput::Compared { from, standing, differing } => {
                if self.is_current(from, Some(false)) {
                    self.on_compared(from, standing, differing, now, out);
                }
            }
            DrainInput::Pushed { to, next } => {
                if self.is_current(to, Some(true)) {
                    self.on_pushed(to, next, now, out);
                }
            }
        }
    }

    fn is_current(&self, member: Member, pushing: Option<bool>) -> bool {
        self.current.as_ref().is_some_and(|current| {
            current.to == member && pushing.is_none_or(|it| it == current.leaves.is_some())
        })
    }

    fn set_aside(&mut self, now: Duration, out: &mut Vec<DrainOutput>) {
        if let Some(current) = self.current.take() {
            self.waiting.push_back(current.to);
        }
        self.failures += 1;
        if self.failures >= self.waiting.len() {
            self.failures = 0;
            self.wake = now + self.rest;
            self.rest = (self.rest * 2).min(self.timing.again);
        } else {
            self.ask_next(now, out);
        }
    }

    fn ask_next(&mut self, now: Duration, out: &mut Vec<DrainOutput>) {
        let members = self.configuration.members().len();
        let handed = self.handed.len() >= majority(members) && self.entered.len() == members;
        if handed || left_out(Mutant::PurgesBeforeHandingOver) {
            self.purged = true;
            return out.push(DrainOutput::Purge);
        }
        if let Some(with) = self.waiting.pop_front() {
            let leaves = None;
            self.current = Some(Current { to: with, leaves });
            out.push(DrainOutput::Compare { with });
        }
        self.wake = now + self.timing.answer;
    }

    fn on_compared(
        &mut self,
        from: Member,
        standing: Standing,
        differing: Vec<u8>,
        now: Duration,
        out: &mut Vec<DrainOutput>,
    ) {
        if standing.entered < Some(self.configuration.epoch) {
            return self.set_aside(now, out);
        }
        self.entered.insert(from);
        let enough = self.handed.len() >= majority(self.configuration.members().len());
        if differing.is_empty() || enough {
            return self.member_done(from, differing.is_empty(), now, out);
        }
        out.push(DrainOutput::Push { to: from, leaves: differing.clone(), after: None });
        let leaves = Some(differing);
        self.current = Some(Current { to: from, leaves });
        self.wake = now + self.timing.answer;
    }

    fn on_pushed(
        &mut self,
        to: Member,
        next: Option<PageCursor>,
        now: Duration,
        out: &mut Vec<DrainOutput>,
    ) {
        if next.is_none() {
            return self.member_done(to, true, now, out);
        }
        let leaves = self.current.as_ref().and_then(|current| current.leaves.clone());
        out.push(DrainOutput::Push { to, leaves: leaves.unwrap_or_default(), after: next });
        self.wake = now + self.timing.answer;
    }

    fn member_done(
        &mut self,
        member: Member,
        has_all: bool,
        now: Duration,
        out: &mut Vec<DrainOutput>,
    ) {
        self.current = None;
        self.failures = 0;
        self.rest = self.timing.retry;
        if has_all {
            self.handed.insert(member);
        }
        self.ask_next(now, out);
    }
}

#[cfg(test)]
mod tests;
