//! Copying a shard from other stores, by hash tree and page: the merging side.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::next_step::SMALL_DIFFERENCE;
use crate::configuration::Epoch;
use crate::member::Member;
use crate::message::{PageCursor, PullPurpose, Standing};
use crate::shard::PullPlan;

/// How long copying waits for what.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CopyTiming {
    /// For an answer, before another store is asked.
    pub answer: Duration,
    /// After every store was tried in vain; doubles while that goes on, up to `again`.
    pub retry: Duration,
    /// For a learner that is up to date, before it compares again.
    pub again: Duration,
}

impl Default for CopyTiming {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(5),
            retry: Duration::from_millis(50),
            again: Duration::from_secs(1),
        }
    }
}

/// One copy by one [`PullPlan`]. It asks one source after the other, so that what the first
/// had is not fetched from the second again.
///
/// A source counts once its whole difference was merged, and if it had left the plan's epoch
/// for ever *before* its tree was read: what it acknowledges later is in an epoch in which
/// the copier takes part.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Pull {
    plan: PullPlan,
    timing: CopyTiming,
    /// Sources not copied from yet, the next one first.
    waiting: VecDeque<Member>,
    done: BTreeSet<Member>,
    current: Option<Current>,
    failures: usize,
    /// How long to rest after every one was tried in vain; doubles while that goes on.
    rest: Duration,
    wake: Duration,
    difference: Option<u32>,
    /// Whether everything that one source had was here at some time.
    copied: bool,
    complete: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Current {
    from: Member,
    /// None while the trees are compared.
    leaves: Option<Vec<u8>>,
}

/// What happens to a copy. Answers are to the *last* request only: what comes later than a
/// newer request, or a second time, is dropped by the caller.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum PullInput {
    /// The moment named by [`Pull::wake_at`] came.
    Tick,
    /// A source's tree was compared with our own.
    Compared {
        /// The source.
        from: Member,
        /// Where it stood before its tree was read.
        standing: Standing,
        /// The leaves that differ.
        differing: Vec<u8>,
    },
    /// A page's records were merged, and committed.
    Merged {
        /// The source.
        from: Member,
        /// Where the next page begins; none when that was all.
        next: Option<PageCursor>,
    },
    /// A source did not answer, or refused.
    Failed {
        /// The source.
        from: Member,
    },
}

/// What a copy wants done.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum PullOutput {
    /// Compare our tree with this member's.
    Compare {
        /// The source.
        with: Member,
    },
    /// Fetch a page of these leaves' records and merge it.
    Fetch {
        /// The source.
        from: Member,
        /// The leaves.
        leaves: Vec<u8>,
        /// Where the page begins.
        after: Option<PageCursor>,
    },
    /// The plan is fulfilled: tell the shard
    /// ([`on_merged`](crate::shard::ShardReplica::on_merged)), unless it is a learner's.
    Complete {
        /// The plan's epoch.
        epoch: Epoch,
        /// The plan's purpose.
        purpose: PullPurpose,
    },
}

impl Pull {
    /// Begins a copy. The first [`PullInput::Tick`] is due at once.
    pub fn new(plan: PullPlan, timing: CopyTiming, now: Duration) -> Self {
        let waiting = plan.sources.iter().copied().collect();
        Self {
            plan,
            timing,
            waiting,
            done: BTreeSet::new(),
            current: None,
            failures: 0,
            rest: timing.retry,
            wake: now,
            difference: None,
            copied: false,
            complete: false,
        }
    }

    /// The plan that the copy follows; with another plan, another copy is needed.
    pub const fn plan(&self) -> &PullPlan {
        &self.plan
    }

    /// How many leaves the copy lacked when last compared and has not fetched since. Before it has fetched
    /// everything once it is not near, and says so, however few leaves that is: one may hold all there is, and what a
    /// learner leaves to the merge is not throttled.
    pub fn difference(&self) -> Option<u32> {
        let far = self.plan.purpose == PullPurpose::Learn && !self.copied;
        let least = if far { SMALL_DIFFERENCE + 1 } else { 0 };
        self.difference.map(|leaves| leaves.max(least))
    }

    /// When the next [`PullInput::Tick`] is due.
    pub const fn wake_at(&self) -> Duration {
        self.wake
    }

    /// One thing happened.
    pub fn handle(&mut self, input: PullInput, now: Duration, out: &mut Vec<PullOutput>) {
        if self.complete {
            return;
        }
        match input {
            PullInput::Tick if now < self.wake => {}
            PullInput::Tick => self.on_tick(now, out),
            PullInput::Failed { from } => {
                if self.is_current(from, None) {
                    self.set_aside(now, out);
                }
            }
            PullInput::Compared { from, standing, differing } => {
                if self.is_current(from, Some(false)) {
                    self.on_compared(from, standing, differing, now, out);
                }
            }
            PullInput::Merged { from, next } => {
                if self.is_current(from, Some(true)) {
                    self.on_merged(from, next, now, out);
                }
            }
        }
    }

    fn is_current(&self, from: Member, fetching: Option<bool>) -> bool {
        self.current.as_ref().is_some_and(|current| {
            current.from == from && fetching.is_none_or(|it| it == current.leaves.is_some())
        })
    }

    fn on_tick(&mut self, now: Duration, out: &mut Vec<PullOutput>) {
        if self.current.is_some() {
            self.set_aside(now, out);
        } else {
            self.ask_next(now, out);
        }
    }

    /// The current source is of no use now: try the others, then this one again.
    fn set_aside(&mut self, now: Duration, out: &mut Vec<PullOutput>) {
        if let Some(current) = self.current.take() {
            self.waiting.push_back(current.from);
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

    fn ask_next(&mut self, now: Duration, out: &mut Vec<PullOutput>) {
        if self.done.len() >= self.plan.needed {
            return self.fulfil(now, out);
        }
        if let Some(with) = self.waiting.pop_front() {
            let leaves = None;
            self.current = Some(Current { from: with, leaves });
            out.push(PullOutput::Compare { with });
        }
        self.wake = now + self.timing.answer;
    }

    fn on_compared(
        &mut self,
        from: Member,
        standing: Standing,
        differing: Vec<u8>,
        now: Duration,
        out: &mut Vec<PullOutput>,
    ) {
        // An option's order puts None first: no demand is met by all, None meets no demand.
        if !standing.source || standing.left < self.plan.left {
            return self.set_aside(now, out);
        }
        self.difference = u32::try_from(differing.len()).ok();
        if differing.is_empty() {
            return self.source_done(from, now, out);
        }
        out.push(PullOutput::Fetch { from, leaves: differing.clone(), after: None });
        let leaves = Some(differing);
        self.current = Some(Current { from, leaves });
        self.wake = now + self.timing.answer;
    }

    fn on_merged(
        &mut self,
        from: Member,
        next: Option<PageCursor>,
        now: Duration,
        out: &mut Vec<PullOutput>,
    ) {
        if next.is_none() {
            self.difference = Some(0);
            return self.source_done(from, now, out);
        }
        let leaves = self.current.as_ref().and_then(|current| current.leaves.clone());
        out.push(PullOutput::Fetch { from, leaves: leaves.unwrap_or_default(), after: next });
        self.wake = now + self.timing.answer;
    }

    fn source_done(&mut self, from: Member, now: Duration, out: &mut Vec<PullOutput>) {
        self.current = None;
        self.failures = 0;
        self.rest = self.timing.retry;
        self.copied = true;
        self.done.insert(from);
        self.ask_next(now, out);
    }

    fn fulfil(&mut self, now: Duration, out: &mut Vec<PullOutput>) {
        let (epoch, purpose) = (self.plan.epoch, self.plan.purpose);
        out.push(PullOutput::Complete { epoch, purpose });
        if purpose == PullPurpose::Learn {
            // Until the move begins, the copy falls behind: compare again.
            self.waiting.extend(std::mem::take(&mut self.done));
            self.wake = now + self.timing.again;
        } else {
            self.complete = true;
        }
    }
}

#[cfg(test)]
mod tests;
