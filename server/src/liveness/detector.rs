//! The detector: inputs in, outputs out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use triad_ring::{Incarnation, NodeId};

use super::health::Health;
use super::peer::{News, Peer};
use super::{
    Change, HELPER_PATIENCE, Input, LATEST_ANSWER, Liveness, Output, PERIOD, ProbeId, Watched,
    Word, roster,
};

/// How many helpers are asked after an unanswered ping.
const HELPERS: usize = 3;
/// Helpers asked in one period at most.
const HELPERS_A_PERIOD: usize = 96;
/// Nodes watched at most; the book of contacts is no larger.
const PEERS: usize = 1_024;

/// A ping under way.
#[derive(Clone, Copy, Debug)]
struct Probe {
    node: NodeId,
    sent: Duration,
}

/// What one node believes of the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Detector {
    peers: BTreeMap<NodeId, Peer>,
    probes: BTreeMap<ProbeId, Probe>,
    next_probe: u64,
    health: Health,
    last_period: Option<Duration>,
    helpers_left: usize,
}

impl Detector {
    /// Takes one input and appends what follows from it to `out`.
    pub(crate) fn handle(&mut self, input: Input, now: Duration, out: &mut Vec<Output>) {
        match input {
            Input::Period(watched) => self.on_period(&watched, now, out),
            Input::Answered { probe, incarnation } => {
                self.on_answered(probe, incarnation, now, out);
            }
            Input::Unanswered { probe } => self.on_unanswered(probe, out),
            Input::Helped { probe, word } => self.on_helped(probe, word, now, out),
            Input::Heard { node, incarnation } => self.on_heard(node, incarnation, now, out),
        }
    }

    /// What is believed of `node`; one that is not watched is suspected.
    pub(crate) fn liveness(&self, node: NodeId) -> Liveness {
        self.peers.get(&node).map_or(Liveness::Suspect, |peer| peer.liveness)
    }

    /// Whether a sign of life of `node` came to this process, by whatever road, and not too long ago.
    pub(crate) fn shows_life(&self, node: NodeId) -> bool {
        self.peers
            .get(&node)
            .is_some_and(|peer| peer.was_heard() && peer.liveness != Liveness::Down)
    }

    /// The time since the first ping that no sign of life of `node` has followed. Pauses of this
    /// process do not count, and against a node that is not watched nothing is held.
    pub(crate) fn silent_for(&self, node: NodeId, now: Duration) -> Duration {
        self.peers.get(&node).map_or(Duration::ZERO, |peer| peer.silent_for(now))
    }

    /// The smoothed round trip to `node`; None before its first answer.
    pub(crate) fn round_trip(&self, node: NodeId) -> Option<Duration> {
        self.peers.get(&node)?.round_trip.smoothed()
    }

    /// How long an answer of `node` may take; None before its first.
    pub(crate) fn patience(&self, node: NodeId) -> Option<Duration> {
        let round_trip = self.peers.get(&node)?.round_trip;
        round_trip.smoothed().map(|_| self.health.stretch(round_trip.patience()))
    }

    fn on_period(&mut self, watched: &[Watched], now: Duration, out: &mut Vec<Output>) {
        self.note_own_pause(now);
        self.helpers_left = HELPERS_A_PERIOD;
        self.probes.retain(|_, probe| now < probe.sent + LATEST_ANSWER + HELPER_PATIENCE);
        let wanted: BTreeSet<NodeId> = watched.iter().map(|watched| watched.node).collect();
        self.peers.retain(|node, _| wanted.contains(node));
        for &node in wanted.iter().take(PEERS) {
            self.peers.entry(node).or_insert_with(|| Peer::new(node));
        }
        self.judge_all(now, out);
        let near = watched.iter().filter(|one| one.near).map(|one| one.node).collect();
        for node in roster::due(&self.peers, &near, now) {
            self.ping(node, now, out);
        }
    }

    /// A process that was held up has heard nobody: that is not the others' silence.
    fn note_own_pause(&mut self, now: Duration) {
        let gap = self.last_period.map_or(PERIOD, |last| now.saturating_sub(last));
        self.last_period = Some(now);
        if gap <= 2 * PERIOD {
            self.health.mend();
            return;
        }
        self.health.worsen();
        let pause = gap.saturating_sub(PERIOD);
        self.peers.values_mut().for_each(|peer| peer.forgive(pause, now));
        self.probes.values_mut().for_each(|probe| probe.sent = (probe.sent + pause).min(now));
    }

    fn judge_all(&mut self, now: Duration, out: &mut Vec<Output>) {
        let alive = self.peers.values().filter(|peer| peer.liveness == Liveness::Alive).count();
        for (&node, peer) in &mut self.peers {
            let before = peer.liveness;
            let any_helpers = alive > usize::from(before == Liveness::Alive);
            peer.liveness = peer.judge(now, self.health, any_helpers);
            if peer.liveness != before {
                out.push(Output::Changed(Change { node, before, now: peer.liveness }));
            }
        }
    }

    fn ping(&mut self, node: NodeId, now: Duration, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.pinged(now);
        let patience = self.health.stretch(peer.round_trip.patience()).min(LATEST_ANSWER);
        self.next_probe += 1;
        let probe = ProbeId(self.next_probe);
        self.probes.insert(probe, Probe { node, sent: now });
        out.push(Output::Ping { node, probe, patience });
    }

    fn on_answered(
        &mut self,
        probe: ProbeId,
        incarnation: Incarnation,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        let Some(Probe { node, sent }) = self.probes.remove(&probe) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let news = peer.lives(incarnation);
        if news == News::Outdated {
            return;
        }
        peer.answered(now.saturating_sub(sent));
        self.health.mend();
        let before = std::mem::replace(&mut peer.liveness, Liveness::Alive);
        if before != Liveness::Alive || news == News::Process {
            out.push(Output::Changed(Change { node, before, now: Liveness::Alive }));
        }
    }

    fn on_unanswered(&mut self, probe: ProbeId, out: &mut Vec<Output>) {
        let Some(&Probe { node, .. }) = self.probes.get(&probe) else {
            return;
        };
        let alive: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(helper, peer)| **helper != node && peer.liveness == Liveness::Alive)
            .map(|(helper, _)| *helper)
            .collect();
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.is_silent()) else {
            return;
        };
        let wanted = if peer.liveness == Liveness::Down { 1 } else { HELPERS };
        let helpers = peer.helpers(&alive, wanted.min(self.helpers_left));
        self.helpers_left -= helpers.len();
        let patience = HELPER_PATIENCE;
        let ask = |helper| Output::AskHelper { node, helper, probe, patience };
        out.extend(helpers.into_iter().map(ask));
    }

    fn on_helped(&mut self, probe: ProbeId, word: Word, now: Duration, out: &mut Vec<Output>) {
        let Some(&Probe { node, .. }) = self.probes.get(&probe) else {
            return;
        };
        match word {
            // It should have said "not reached": perhaps nobody's answers come through to us.
            Word::None => self.health.worsen(),
            Word::NotReached => {}
            Word::Reached(incarnation) => self.on_heard(node, incarnation, now, out),
        }
    }

    fn on_heard(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        if self.peers.len() < PEERS {
            self.peers.entry(node).or_insert_with(|| Peer::new(node));
        }
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let news = peer.lives(incarnation);
        if news == News::Outdated {
            return;
        }
        let before = peer.liveness;
        peer.liveness = before.min(Liveness::Suspect);
        if before == peer.liveness && news == News::Nothing {
            return;
        }
        out.push(Output::Changed(Change { node, before, now: peer.liveness }));
        // It may answer us, too: no need to wait for the period.
        self.ping(node, now, out);
    }
}
