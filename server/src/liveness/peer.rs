//! What is known of one watched node.

use std::time::Duration;

use triad_ring::{Incarnation, NodeId};

use super::health::Health;
use super::round_trip::RoundTrip;
use super::{DOWN_AFTER, Liveness, PERIOD, SUSPECT_AFTER};

/// One watched node. Silences are counted from pings, so nobody is silent who was not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) liveness: Liveness,
    /// None: nothing was heard of it yet.
    incarnation: Option<Incarnation>,
    pub(super) round_trip: RoundTrip,
    /// When the oldest ping was sent that no direct answer has followed.
    unanswered_since: Option<Duration>,
    /// When the oldest ping was sent that no sign of life has followed.
    silent_since: Option<Duration>,
    /// Whether helpers were asked in this silence.
    helpers_asked: bool,
    pub(super) pinged_at: Option<Duration>,
    /// Where the round of helpers goes on.
    next_helper: usize,
}

/// What a sign of life has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It is a word of a process that is gone.
    Outdated,
    /// It lives, as was known.
    Nothing,
    /// It was never heard before, or it is a new process.
    Process,
}

impl Peer {
    pub(super) fn new(node: NodeId) -> Self {
        Self {
            liveness: Liveness::Suspect,
            incarnation: None,
            round_trip: RoundTrip::default(),
            unanswered_since: None,
            silent_since: None,
            helpers_asked: false,
            pinged_at: None,
            // Not everybody's first helper should be the same.
            next_helper: usize::from(node.as_bytes()[15]),
        }
    }

    pub(super) fn pinged(&mut self, now: Duration) {
        self.pinged_at = Some(now);
        self.unanswered_since.get_or_insert(now);
        self.silent_since.get_or_insert(now);
    }

    /// A sign of life, by whatever road.
    pub(super) fn lives(&mut self, incarnation: Incarnation) -> News {
        if self.incarnation.is_some_and(|known| incarnation < known) {
            return News::Outdated;
        }
        let news = self.incarnation.replace(incarnation) != Some(incarnation);
        self.silent_since = None;
        self.helpers_asked = false;
        if news { News::Process } else { News::Nothing }
    }

    /// It answered a ping of ours.
    pub(super) fn answered(&mut self, took: Duration) {
        self.round_trip.add(took);
        self.unanswered_since = None;
    }

    /// Whether it ever showed life.
    pub(super) fn was_heard(&self) -> bool {
        self.incarnation.is_some()
    }

    /// Whether a ping is unanswered.
    pub(super) fn is_doubted(&self) -> bool {
        self.unanswered_since.is_some()
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent_since.is_some()
    }

    pub(super) fn silent_for(&self, now: Duration) -> Duration {
        since(self.silent_since, now)
    }

    /// The next `count` of these helpers, in turn.
    pub(super) fn helpers(&mut self, alive: &[NodeId], count: usize) -> Vec<NodeId> {
        let count = count.min(alive.len());
        let first = self.next_helper;
        self.next_helper = first.wrapping_add(count);
        self.helpers_asked |= count > 0;
        (0..count).map(|step| alive[first.wrapping_add(step) % alive.len()]).collect()
    }

    /// This process stood still for `pause`: that is not the node's silence.
    pub(super) fn forgive(&mut self, pause: Duration, now: Duration) {
        for start in [&mut self.unanswered_since, &mut self.silent_since] {
            *start = start.map(|start| (start + pause).min(now));
        }
    }

    /// What to believe now. With helpers about, nobody is down before one was asked.
    pub(super) fn judge(&self, now: Duration, health: Health, any_helpers: bool) -> Liveness {
        let suspect_after = SUSPECT_AFTER.max(self.round_trip.patience() + PERIOD);
        let others_asked = self.helpers_asked || !any_helpers;
        if self.silent_for(now) >= health.stretch(DOWN_AFTER) && others_asked {
            Liveness::Down
        } else if since(self.unanswered_since, now) >= health.stretch(suspect_after) {
            self.liveness.max(Liveness::Suspect)
        } else {
            self.liveness
        }
    }
}

fn since(start: Option<Duration>, now: Duration) -> Duration {
    start.map_or(Duration::ZERO, |start| now.saturating_sub(start))
}
