//! What time it is: by this node's wall clock, and by the cluster's.
//!
//! Data is ordered by causality, never by clocks; only a time to live needs the hour. So that one
//! wrong clock does not matter, nodes go by the *median* of their clocks (design rule D12). How
//! far another clock is off is estimated from a ping, as by Cristian (*Probabilistic Clock
//! Synchronization*, 1989): the answer was written half a round trip ago, give or take that half.
//!
//! Each clock is kept as its distance to this process's monotonic clock. So a clock that is set,
//! here or elsewhere, changes its own entry alone, and the entry of a node that died stays good
//! for as long as two quartzes agree.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;
use triad_ring::NodeId;

use crate::alarms::AlarmName;
use crate::node::Node;
use crate::platform::Platform;

/// A clock that is further than this from the cluster's is reported.
const SKEW_MS: u64 = 1_000;
/// A better reading (of a shorter round trip) is kept for this long before a worse one replaces
/// it: quartzes drift by less than a millisecond meanwhile.
const FRESH: Duration = Duration::from_secs(8);
/// A reading that was not renewed for this long is forgotten; the node is gone.
const OLD: Duration = Duration::from_mins(10);
/// Clocks that are kept; as many as nodes are pinged.
const CLOCKS: usize = 64;

/// The clocks of a node: its own, and what it knows of others.
pub(crate) struct Clock {
    started: Instant,
    platform: Arc<dyn Platform>,
    /// Added to the wall clock, for tests of wrong clocks.
    offset_ms: AtomicI64,
    readings: Mutex<Readings>,
}

impl Clock {
    /// A clock whose monotonic side begins at `started`.
    pub(crate) fn new(started: Instant, platform: Arc<dyn Platform>) -> Self {
        Self { started, platform, offset_ms: AtomicI64::new(0), readings: Mutex::default() }
    }

    /// This node's wall clock, in milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> u64 {
        millis(self.uptime()).saturating_add(self.base()).max(0).cast_unsigned()
    }

    /// The cluster's time: the median of this clock and of those of the nodes it pings, in
    /// milliseconds since the Unix epoch.
    pub(crate) fn cluster_ms(&self) -> u64 {
        let uptime = self.uptime();
        let base = self.readings().median(self.base(), uptime);
        millis(uptime).saturating_add(base).max(0).cast_unsigned()
    }

    /// A node answered a ping that was sent at `asked` (time since the start) with its wall clock.
    /// Zero: it told none.
    pub(crate) fn heard(&self, from: NodeId, wall_ms: u64, asked: Duration) {
        if wall_ms == 0 {
            return;
        }
        let reading = Reading::new(wall_ms, asked, self.uptime());
        self.readings().take(from, reading);
    }

    /// How far this clock is ahead of the cluster's, in milliseconds.
    pub(crate) fn skew_ms(&self) -> i64 {
        self.now_ms().cast_signed().saturating_sub(self.cluster_ms().cast_signed())
    }

    /// Moves this node's wall clock.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn set_offset(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::Relaxed);
    }

    fn readings(&self) -> std::sync::MutexGuard<'_, Readings> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The wall clock at the start of the monotonic one.
    fn base(&self) -> i64 {
        let wall = self.platform.wall_clock().duration_since(UNIX_EPOCH).map_or(0, millis);
        let offset = self.offset_ms.load(Ordering::Relaxed);
        wall.saturating_add(offset).saturating_sub(millis(self.uptime()))
    }
}

/// Raises the alarm of a clock that is off, and clears it when the clock is right again.
pub(crate) fn watch_skew(node: &Node) {
    let skew_ms = node.clock.skew_ms();
    let detail = (skew_ms.unsigned_abs() > SKEW_MS).then(|| {
        let direction = if skew_ms > 0 { "ahead of" } else { "behind" };
        let off = Duration::from_millis(skew_ms.unsigned_abs());
        format!(
            "the clock of node {} is {off:?} {direction} the cluster's median",
            node.identity.name
        )
    });
    node.alarms.follow(AlarmName::ClockSkew, detail);
}

/// Another clock as it was read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    /// What it would have shown when this process started.
    base: i64,
    round_trip: Duration,
    taken: Duration,
}

impl Reading {
    fn new(wall_ms: u64, asked: Duration, answered: Duration) -> Self {
        let round_trip = answered.saturating_sub(asked);
        let written = asked + round_trip / 2;
        let wall = i64::try_from(wall_ms).unwrap_or(i64::MAX);
        Self { base: wall.saturating_sub(millis(written)), round_trip, taken: answered }
    }

    /// Whether `newer` says something that this one does not say better.
    fn yields_to(&self, newer: &Self) -> bool {
        let expected = i64::try_from(self.round_trip.as_millis() / 2).unwrap_or(i64::MAX);
        let was_set = self.base.abs_diff(newer.base)
            > expected.unsigned_abs() + newer.round_trip.as_millis() as u64 / 2 + 1;
        was_set || newer.round_trip <= self.round_trip || newer.taken > self.taken + FRESH
    }
}

/// The other nodes' clocks; time comes in as an argument.
#[derive(Default)]
struct Readings {
    nodes: BTreeMap<NodeId, Reading>,
}

impl Readings {
    fn take(&mut self, from: NodeId, reading: Reading) {
        self.nodes.retain(|_, known| known.taken + OLD > reading.taken);
        let full = self.nodes.len() >= CLOCKS;
        match self.nodes.get_mut(&from) {
            Some(known) if known.yields_to(&reading) => *known = reading,
            None if !full => drop(self.nodes.insert(from, reading)),
            Some(_) | None => {}
        }
    }

    /// The median of `own` and the readings. Of an even number the lower of the two in the middle:
    /// a value goes rather late than early.
    fn median(&self, own: i64, now: Duration) -> i64 {
        let known = self.nodes.values().filter(|reading| reading.taken + OLD > now);
        let mut bases: Vec<i64> = known.map(|reading| reading.base).chain([own]).collect();
        let middle = (bases.len() - 1) / 2;
        *bases.select_nth_unstable(middle).1
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::OperatingSystem;

    const HOUR: i64 = 3_600_000;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Readings of clocks that started at these distances from ours.
    fn readings(bases: &[i64]) -> Readings {
        let mut readings = Readings::default();
        for (number, base) in (1..).zip(bases) {
            let wall = (base + 1_005).cast_unsigned();
            readings.take(node(number), Reading::new(wall, at(1_000), at(1_010)));
        }
        readings
    }

    #[test]
    fn an_answer_was_written_half_a_round_trip_ago() {
        let reading = Reading::new(50_000, at(1_000), at(1_400));
        assert_eq!(reading.base, 50_000 - 1_200);
    }

    #[test]
    fn of_three_clocks_one_may_be_wrong() {
        let own = 1_000_000_000;
        assert_eq!(readings(&[own + 3, own + HOUR]).median(own, at(2_000)), own + 3);
        assert_eq!(readings(&[own + 3, own - HOUR]).median(own, at(2_000)), own);
        // The wrong one may be ours.
        assert_eq!(readings(&[own, own + 3]).median(own + HOUR, at(2_000)), own + 3);
        // Of two nobody can say: both take the one that lets values live longer.
        assert_eq!(readings(&[own + HOUR]).median(own, at(2_000)), own);
        assert_eq!(readings(&[own]).median(own + HOUR, at(2_000)), own);
    }

    #[test]
    fn a_short_round_trip_says_more_than_a_long_one_until_it_is_old() {
        let mut readings = readings(&[500]);
        readings.take(node(1), Reading::new(2_490 + 100, at(2_000), at(2_180)));
        assert_eq!(readings.nodes[&node(1)].base, 500);
        readings.take(node(1), Reading::new(10_590, at(10_000), at(10_180)));
        assert_eq!(readings.nodes[&node(1)].base, 500);
        assert_eq!(readings.nodes[&node(1)].round_trip, at(180));
    }

    #[test]
    fn a_clock_that_was_set_is_noticed_at_once() {
        let mut readings = readings(&[500]);
        readings.take(node(1), Reading::new(3_602_590, at(2_000), at(2_180)));
        assert_eq!(readings.nodes[&node(1)].base, 500 + HOUR);
    }

    #[test]
    fn a_node_that_is_gone_is_forgotten_after_a_while() {
        let own = 1_000_000_000;
        let mut readings = readings(&[own + HOUR, own + HOUR]);
        assert_eq!(readings.median(own, at(2_000)), own + HOUR);
        assert_eq!(readings.median(own, at(2_000) + OLD), own);
        readings.take(node(9), Reading::new(1, at(2_000) + OLD, at(2_000) + OLD));
        assert_eq!(readings.nodes.len(), 1);
    }

    #[test]
    fn the_table_of_clocks_is_bounded() {
        let mut readings = Readings::default();
        for number in 0..=255 {
            readings.take(node(number), Reading::new(1_000, at(1), at(2)));
        }
        assert_eq!(readings.nodes.len(), CLOCKS);
    }

    #[tokio::test]
    async fn a_clock_that_is_moved_moves_the_clusters_time_only_when_it_is_alone() {
        let clock = Clock::new(Instant::now(), Arc::new(OperatingSystem));
        let right = clock.now_ms();
        clock.set_offset(HOUR);
        assert!(clock.now_ms() >= right + HOUR.cast_unsigned());
        assert!(clock.cluster_ms() >= right + HOUR.cast_unsigned());
        for number in [1, 2] {
            clock.heard(node(number), right, clock.uptime());
        }
        assert!(clock.cluster_ms().abs_diff(right) < 60_000, "by the two others");
        assert!(clock.skew_ms().abs_diff(HOUR) < 60_000);
    }
}
