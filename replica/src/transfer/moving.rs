//! The driver of one shard's move: asks, proposes, tells, and may be replaced at any point.

mod deciding;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use triad_ring::NodeId;

use self::deciding::Deciding;
use super::Moment;
use super::next_step::{NotStarted, Plan, Step, has_declared, next_step};
use crate::configuration::{Configuration, same_set};
use crate::gc::GcDigest;
use crate::member::Member;
use crate::message::{Removal, Report, ShardReply, ShardRequest};

/// How long a move waits for what.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MoveTiming {
    /// Step 0: for the newcomers' copies to come near enough.
    pub learn: Duration,
    /// For former members to say that they hold nothing any more, if that is all there is to do.
    pub clear: Duration,
    /// Steps 3 and 4: for the members of M' to declare themselves merged.
    pub merge: Duration,
    /// For a configuration to be decided, all ballots together.
    pub decide: Duration,
    /// Step 5: for everybody to acknowledge what was decided.
    pub announce: Duration,
    /// For a sign of life from those that a step waits for, before it goes on without them.
    pub silence: Duration,
    /// A newcomer that answers more slowly is not ready.
    pub answer_within: Duration,
    /// For one ballot, before a higher one is tried.
    pub ballot: Duration,
    /// Between two questions to the same member: from this, doubling,
    pub poll_min: Duration,
    /// to this.
    pub poll_max: Duration,
}

impl Default for MoveTiming {
    fn default() -> Self {
        Self {
            learn: Duration::from_mins(1),
            clear: Duration::from_secs(3),
            merge: Duration::from_secs(30),
            decide: Duration::from_secs(15),
            announce: Duration::from_secs(2),
            silence: Duration::from_secs(3),
            answer_within: Duration::from_secs(1),
            ballot: Duration::from_secs(1),
            poll_min: Duration::from_millis(10),
            poll_max: Duration::from_millis(500),
        }
    }
}

/// What happens to a move.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum MoveInput {
    /// An answer to one of its requests. `from` is who answered, with the store it named.
    Reply {
        /// The member that answered.
        from: Member,
        /// Its answer.
        reply: ShardReply,
    },
    /// The moment named by [`Move::wake_at`] came.
    Tick,
    /// The plan is not wanted any more: who was to be replaced is back, or a newcomer is needed elsewhere. It ends
    /// a move that waits for newcomers; what is proposed already goes on.
    Unwanted,
}

/// What a move wants done.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum MoveOutput {
    /// Send a request to a member, be it this node itself. It may get lost.
    Send {
        /// The member.
        to: Member,
        /// The request.
        request: ShardRequest,
    },
    /// The move is over; nothing follows.
    Finished(Outcome),
}

/// How a move ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// This stable configuration is decided and its members were told; whether it is the one
    /// that was wanted is for the caller to see.
    Settled(Configuration),
    /// Nothing was proposed.
    NotStarted(NotStarted),
    /// No majority answered in time. What was proposed may yet be decided by whoever goes on.
    Undecided(Configuration),
}

/// One shard's move, from step 0 to step 5.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Move {
    me: NodeId,
    serial: u32,
    /// The highest ballot counter used or heard of in decisions that are over.
    seen: u64,
    timing: MoveTiming,
    plan: Option<Plan>,
    /// What a round of tombstone collection wants decided, instead of a plan.
    collecting: Option<Configuration>,
    /// The newest decided configuration that the move knows.
    base: Configuration,
    stage: Stage,
    /// When the stage began.
    since: Duration,
    wake: Duration,
    interval: Duration,
    /// Who is known to know `base`.
    told: BTreeSet<Member>,
    reports: BTreeMap<Member, Report>,
    asked: BTreeMap<Member, Duration>,
    heard: BTreeMap<Member, Duration>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Stage {
    Gathering,
    Deciding(Box<Deciding>),
    Announcing,
    Finished,
}

impl Move {
    /// Begins to move a shard, whose newest known configuration is `base`, to what the plan
    /// wants. `serial` is different for every move of one process. The first
    /// [`MoveInput::Tick`] is due at once.
    pub fn start(
        me: NodeId,
        serial: u32,
        base: Configuration,
        plan: Plan,
        timing: MoveTiming,
        now: Duration,
    ) -> Self {
        Self { plan: Some(plan), ..Self::take_over(me, serial, base, timing, now) }
    }

    /// Has the end of a round decided, whose digest every member of `base` vouched for
    /// ([`gc`](crate::gc)). Whatever else is decided instead voids the round.
    pub fn collect(
        me: NodeId,
        serial: u32,
        base: Configuration,
        digest: GcDigest,
        timing: MoveTiming,
        now: Duration,
    ) -> Self {
        let collecting = Some(base.collecting(digest));
        Self { collecting, ..Self::take_over(me, serial, base, timing, now) }
    }

    /// Goes on where somebody else left off: `base` is joint, or a member accepted a
    /// successor of it and heard of no decision for a second.
    pub fn take_over(
        me: NodeId,
        serial: u32,
        base: Configuration,
        timing: MoveTiming,
        now: Duration,
    ) -> Self {
        Self {
            me,
            serial,
            seen: 0,
            timing,
            plan: None,
            collecting: None,
            base,
            stage: Stage::Gathering,
            since: now,
            wake: now,
            interval: timing.poll_min,
            told: BTreeSet::new(),
            reports: BTreeMap::new(),
            asked: BTreeMap::new(),
            heard: BTreeMap::new(),
        }
    }

    /// When the next [`MoveInput::Tick`] is due.
    pub const fn wake_at(&self) -> Duration {
        self.wake
    }

    /// The newest decided configuration that the move knows.
    pub const fn configuration(&self) -> &Configuration {
        &self.base
    }

    /// One thing happened.
    pub fn handle(&mut self, input: MoveInput, moment: Moment, out: &mut Vec<MoveOutput>) {
        if self.stage == Stage::Finished {
            return;
        }
        match input {
            MoveInput::Tick if moment.now < self.wake => {}
            MoveInput::Tick => self.on_tick(moment, out),
            MoveInput::Unwanted => self.on_unwanted(out),
            MoveInput::Reply { from, reply } => self.on_reply(from, reply, moment, out),
        }
    }

    fn on_tick(&mut self, moment: Moment, out: &mut Vec<MoveOutput>) {
        let waited = moment.now.saturating_sub(self.since);
        match &mut self.stage {
            Stage::Gathering => {
                self.take_step(moment, out);
                if self.stage == Stage::Gathering {
                    self.ask_on(moment, out);
                }
            }
            Stage::Deciding(_) if waited >= self.timing.decide => {
                self.finish(Outcome::Undecided(self.base.clone()), out);
            }
            Stage::Deciding(deciding) => {
                self.wake = deciding.on_tick(&self.base, &self.timing, moment, out);
            }
            Stage::Announcing if waited >= self.timing.announce => {
                self.finish(Outcome::Settled(self.base.clone()), out);
            }
            Stage::Announcing => self.tell_on(moment, out),
            Stage::Finished => {}
        }
    }

    fn on_reply(
        &mut self,
        from: Member,
        reply: ShardReply,
        moment: Moment,
        out: &mut Vec<MoveOutput>,
    ) {
        match reply {
            ShardReply::Superseded { newest } => self.advance(newest, moment, out),
            ShardReply::Learned { epoch } => self.on_learned(from, epoch >= self.base.epoch, out),
            ShardReply::Report(report) => self.on_report(from, report, moment, out),
            ShardReply::RemovalRefused { member } => self.on_removal_refused(member, out),
            ShardReply::Refused => {}
            ShardReply::Promised { .. }
            | ShardReply::Rejected { .. }
            | ShardReply::Accepted { .. }
            | ShardReply::Behind { .. } => {
                let Stage::Deciding(deciding) = &mut self.stage else {
                    return;
                };
                let decided = deciding.on_reply(&self.base, from, reply, &self.timing, moment, out);
                self.wake = deciding.wake_at();
                if let Some(decided) = decided {
                    self.advance(decided, moment, out);
                }
            }
        }
    }

    /// A greater epoch is decided, by this move or by somebody else's.
    fn advance(&mut self, decided: Configuration, moment: Moment, out: &mut Vec<MoveOutput>) {
        if decided.shard != self.base.shard || decided.epoch <= self.base.epoch {
            return;
        }
        let joint = decided.is_joint();
        self.base = decided;
        self.told.clear();
        self.reports.clear();
        self.asked.clear();
        self.heard.clear();
        self.enter(if joint { Stage::Gathering } else { Stage::Announcing }, moment);
        if joint {
            self.ask_on(moment, out);
        } else {
            self.tell_on(moment, out);
        }
    }

    fn enter(&mut self, stage: Stage, moment: Moment) {
        if let Stage::Deciding(ended) = &self.stage {
            self.seen = self.seen.max(ended.highest_seen());
        }
        self.stage = stage;
        self.since = moment.now;
        self.interval = self.timing.poll_min;
    }

    fn finish(&mut self, outcome: Outcome, out: &mut Vec<MoveOutput>) {
        self.stage = Stage::Finished;
        out.push(MoveOutput::Finished(outcome));
    }

    /// Does what [`next_step`] says.
    fn take_step(&mut self, moment: Moment, out: &mut Vec<MoveOutput>) {
        let impatient = self.patience_is_over(moment.now);
        match next_step(&self.base, self.plan.as_ref(), &self.reports, impatient) {
            Step::Wait => {}
            Step::Settled => self.finish(Outcome::Settled(self.base.clone()), out),
            Step::Abandon(why) => self.finish(Outcome::NotStarted(why), out),
            Step::Propose(value) => {
                let collecting = self.collecting.take();
                let legal = collecting.filter(|value| self.base.may_be_followed_by(value));
                let value = legal.unwrap_or(value);
                let removals = if value.is_joint() { self.removals() } else { Vec::new() };
                let (me, serial) = (self.me, self.serial);
                let mut deciding =
                    Deciding::new(me, serial, self.seen, &self.base, value, removals);
                self.wake = deciding.on_tick(&self.base, &self.timing, moment, out);
                self.enter(Stage::Deciding(Box::new(deciding)), moment);
            }
        }
    }

    /// Step 0 ends without one newcomer, a merge only without all that it waits for: the
    /// shard is half moved then, and whoever lives may yet bring it forward.
    fn patience_is_over(&self, now: Duration) -> bool {
        let waited = now.saturating_sub(self.since);
        let silent = |member: &Member| {
            let at = self.heard.get(member).copied().unwrap_or(self.since);
            now.saturating_sub(at) >= self.timing.silence
        };
        if self.base.is_joint() {
            let declared = |member: &&Member| has_declared(&self.base, &self.reports, member);
            let mut awaited = self.base.new_set().iter().filter(|member| !declared(member));
            waited >= self.timing.merge || awaited.all(silent)
        } else if self.only_clears() {
            waited >= self.timing.clear
        } else {
            waited >= self.timing.learn || self.newcomers_to_prepare().iter().any(silent)
        }
    }

    fn only_clears(&self) -> bool {
        let plan = self.plan.as_ref();
        plan.is_some_and(|plan| same_set(&plan.members, self.base.new_set()))
    }

    fn removals(&self) -> Vec<Removal> {
        self.plan.as_ref().map(|plan| plan.removals.clone()).unwrap_or_default()
    }

    /// Asks everybody whose state the next step needs, again and again, ever more slowly.
    fn ask_on(&mut self, moment: Moment, out: &mut Vec<MoveOutput>) {
        let newcomers = self.newcomers_to_prepare();
        let mut audience: BTreeSet<Member> = newcomers.iter().copied().collect();
        audience.extend(&self.base.retired);
        if self.base.is_joint() {
            audience.extend(self.base.members());
        }
        let shard = self.base.shard;
        for member in audience {
            let configuration = self.base.clone();
            let copies =
                self.reports.get(&member).is_some_and(|report| report.difference.is_some());
            if newcomers.contains(&member) && !copies {
                let request = ShardRequest::StartLearning { base: configuration };
                out.push(MoveOutput::Send { to: member, request });
            } else if !self.told.contains(&member) {
                let request = ShardRequest::Learn { configuration };
                out.push(MoveOutput::Send { to: member, request });
            }
            self.asked.insert(member, moment.now);
            let request = ShardRequest::Progress { shard };
            out.push(MoveOutput::Send { to: member, request });
        }
        self.wake_later(moment);
    }

    /// Step 0 concerns those whom the plan brings in.
    fn newcomers_to_prepare(&self) -> Vec<Member> {
        let wanted = self.plan.iter().filter(|_| !self.base.is_joint());
        let wanted = wanted.flat_map(|plan| plan.members.iter().copied());
        wanted.filter(|member| !self.base.is_member(member)).collect()
    }

    /// Tells everybody concerned what is decided, until all have acknowledged it. Whoever
    /// misses it learns it from the directory's digests.
    fn tell_on(&mut self, moment: Moment, out: &mut Vec<MoveOutput>) {
        for to in self.untold() {
            let configuration = self.base.clone();
            let request = ShardRequest::Learn { configuration };
            out.push(MoveOutput::Send { to, request });
        }
        self.wake_later(moment);
    }

    fn untold(&self) -> Vec<Member> {
        let mut audience = self.base.members();
        audience.extend(&self.base.retired);
        audience.retain(|member| !self.told.contains(member));
        audience
    }

    fn wake_later(&mut self, moment: Moment) {
        self.wake = moment.now + self.interval;
        self.interval = (self.interval * 2).min(self.timing.poll_max);
    }

    fn on_learned(&mut self, from: Member, knows_base: bool, out: &mut Vec<MoveOutput>) {
        if knows_base {
            self.told.insert(from);
        }
        if self.stage == Stage::Announcing && self.untold().is_empty() {
            self.finish(Outcome::Settled(self.base.clone()), out);
        }
    }

    fn on_report(
        &mut self,
        from: Member,
        report: Report,
        moment: Moment,
        out: &mut Vec<MoveOutput>,
    ) {
        self.heard.insert(from, moment.now);
        let asked = self.asked.get(&from).copied();
        let late = asked.is_none_or(|at| moment.now.saturating_sub(at) > self.timing.answer_within);
        let newest = Some(self.base.epoch);
        if report.entered < newest {
            self.told.remove(&from);
        }
        if report.entered > newest {
            // It knows a greater epoch, and answers with it when told of this one.
            let configuration = self.base.clone();
            let request = ShardRequest::Learn { configuration };
            out.push(MoveOutput::Send { to: from, request });
        }
        // A slow newcomer is not ready, but a declaration is true whenever it arrives.
        if late && !self.base.is_joint() {
            return;
        }
        self.reports.insert(from, report);
        if self.stage == Stage::Gathering {
            self.take_step(moment, out);
        }
    }

    /// Nothing was proposed, so the newcomers are bound by nothing and stop when nobody asks about them.
    fn on_unwanted(&mut self, out: &mut Vec<MoveOutput>) {
        if self.stage == Stage::Gathering && !self.newcomers_to_prepare().is_empty() {
            self.finish(Outcome::NotStarted(NotStarted::Unwanted), out);
        }
    }

    /// The plan took a member for down that is not: nothing may be proposed by this move
    /// unless something is proposed already.
    fn on_removal_refused(&mut self, member: Member, out: &mut Vec<MoveOutput>) {
        if let Stage::Deciding(deciding) = &self.stage
            && !deciding.is_accepting()
        {
            self.finish(Outcome::NotStarted(NotStarted::RemovalRefused(member)), out);
        }
    }
}

#[cfg(test)]
mod tests;
