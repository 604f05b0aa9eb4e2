//! Steps 1 and 4 of a move: running ballots until something is decided.

use std::time::Duration;

use triad_ring::NodeId;

use super::{MoveOutput, MoveTiming};
use crate::configuration::Configuration;
use crate::member::Member;
use crate::message::{Base, Removal, ShardReply, ShardRequest};
use crate::paxos::{Choice, Proposer};
use crate::transfer::Moment;

/// A decision in the making: a [`Proposer`] with the requests it sends and its patience.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Deciding {
    proposer: Proposer,
    /// What is proposed if phase 1 leaves the choice free.
    wanted: Configuration,
    removals: Vec<Removal>,
    ballots: u32,
    /// When the running ballot is given up for a higher one.
    deadline: Option<Duration>,
    /// Outbid: nothing is sent before the deadline.
    backing_off: bool,
    wake: Duration,
    interval: Duration,
}

impl Deciding {
    /// `seen`: the highest ballot counter of the move's earlier decisions.
    pub(super) fn new(
        me: NodeId,
        serial: u32,
        seen: u64,
        base: &Configuration,
        wanted: Configuration,
        removals: Vec<Removal>,
    ) -> Self {
        Self {
            proposer: Proposer::above(seen, me, serial, base.read_set().to_vec()),
            wanted,
            removals,
            ballots: 0,
            deadline: None,
            backing_off: false,
            wake: Duration::ZERO,
            interval: Duration::ZERO,
        }
    }

    pub(super) const fn wake_at(&self) -> Duration {
        self.wake
    }

    /// The highest ballot counter used or heard of.
    pub(super) const fn highest_seen(&self) -> u64 {
        self.proposer.highest_seen()
    }

    pub(super) const fn is_accepting(&self) -> bool {
        self.proposer.proposed().is_some()
    }

    /// Asks whoever is silent again, or starts a higher ballot. Says when to be called next.
    pub(super) fn on_tick(
        &mut self,
        base: &Configuration,
        timing: &MoveTiming,
        moment: Moment,
        out: &mut Vec<MoveOutput>,
    ) -> Duration {
        let over = self.deadline.is_none_or(|deadline| moment.now >= deadline);
        if over {
            if self.ballots > 0 {
                self.proposer.start_higher();
            }
            self.ballots = self.ballots.saturating_add(1);
            self.backing_off = false;
            self.deadline = Some(moment.now + self.patience(timing));
            self.interval = timing.poll_min;
        }
        if !self.backing_off {
            self.ask_silent(base, out);
            self.wake = moment.now + self.interval;
            self.interval = (self.interval * 2).min(timing.poll_max);
        }
        self.wake
    }

    /// Takes an answer. Returns what is decided, if it is.
    pub(super) fn on_reply(
        &mut self,
        base: &Configuration,
        from: Member,
        reply: ShardReply,
        timing: &MoveTiming,
        moment: Moment,
        out: &mut Vec<MoveOutput>,
    ) -> Option<Configuration> {
        match reply {
            ShardReply::Promised { ballot, accepted } => {
                let value = match self.proposer.on_promised(from, ballot, accepted)? {
                    Choice::Free => self.wanted.clone(),
                    Choice::Obliged(value) => value,
                };
                self.proposer.propose(value);
                // Two fsyncs by a majority: each phase has its own time. Who was outbid by a minority
                // and is promised by a majority all the same does not wait any more.
                self.deadline = Some(moment.now + self.patience(timing));
                self.backing_off = false;
                self.wake = moment.now + timing.poll_min;
                self.ask_silent(base, out);
                None
            }
            ShardReply::Accepted { ballot } => self.proposer.on_accepted(from, ballot),
            ShardReply::Rejected { promised } => {
                if self.proposer.on_rejected(promised) {
                    self.back_off(moment);
                }
                None
            }
            ShardReply::Behind { .. } => {
                let configuration = base.clone();
                let request = ShardRequest::Learn { configuration };
                out.push(MoveOutput::Send { to: from, request });
                None
            }
            _ => None,
        }
    }

    /// For one phase: ballots that fail because disks are slow get more time.
    fn patience(&self, timing: &MoveTiming) -> Duration {
        timing.ballot * self.ballots.clamp(1, 8)
    }

    /// Leaves the field to whoever outbid this proposer, for a random while that grows.
    fn back_off(&mut self, moment: Moment) {
        if self.backing_off {
            return;
        }
        let steps = u32::from(moment.jitter) * self.ballots.min(8);
        let until = moment.now + Duration::from_micros(500) * (1 + steps);
        self.backing_off = true;
        self.deadline = Some(until);
        self.wake = until;
    }

    fn ask_silent(&self, base: &Configuration, out: &mut Vec<MoveOutput>) {
        let ballot = self.proposer.ballot();
        for to in self.proposer.silent() {
            let request = match self.proposer.proposed() {
                None => ShardRequest::Prepare {
                    base: base.clone(),
                    ballot,
                    removals: self.removals.clone(),
                },
                Some(value) => {
                    ShardRequest::Accept { base: Base::of(base), ballot, value: value.clone() }
                }
            };
            out.push(MoveOutput::Send { to, request });
        }
    }
}
