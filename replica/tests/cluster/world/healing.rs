//! When the faults stop, the shard must settle: liveness.

use std::fmt::Write as _;
use std::time::Duration;

use triad_replica::configuration::same_set;
use triad_replica::member::Member;
use triad_replica::shard::Access;

use super::{NODES, World};
use crate::node::member;

/// Where the shard is wanted in the end.
const HOME: &[usize] = &[0, 1, 2];

impl World {
    pub(crate) fn heal(&mut self) {
        self.lossy = false;
        self.sleeper = NODES;
        for node in 0..NODES {
            self.restart(node);
        }
    }

    pub(crate) fn healing_step(&mut self) {
        self.now += Duration::from_millis(2);
        let arrived = self.network.len().min(12);
        for envelope in self.network.drain(..arrived).collect::<Vec<_>>() {
            self.deliver(envelope);
        }
        for node in 0..NODES {
            self.tick(node);
        }
        let node = self.random.below(NODES);
        if self.random.percent(10) {
            self.gossip(node);
        }
        let knows = self.nodes[node].replica.newest() == Some(self.newest());
        let moves = self.nodes.iter().any(|node| node.moving.is_some());
        if !moves && knows && !self.is_home() {
            self.begin_move_to(node, HOME);
        }
        if !moves && self.is_home() {
            self.nodes[node].replica.stop_learning();
        }
        self.ledger.every_quorum_sees(&self.nodes, &self.acknowledged);
    }

    fn is_home(&self) -> bool {
        let home: Vec<Member> = HOME.iter().copied().map(member).collect();
        let newest = self.newest();
        !newest.is_joint() && same_set(newest.new_set(), &home)
    }

    /// The wanted members serve and mint, and nobody else holds anything.
    pub(crate) fn is_settled(&self) -> bool {
        let epoch = self.newest().epoch;
        let idle = |at: &crate::node::Node| {
            if HOME.contains(&at.index()) {
                at.replica.check(Access::Mint, epoch).is_ok()
            } else {
                at.replica.entered().is_none_or(|row| row.data_epoch.is_none())
            }
        };
        self.is_home() && self.nodes.iter().all(idle)
    }

    pub(crate) fn final_checks(&mut self) {
        // What the rows say is what was in memory: nothing durable was forgotten.
        for at in &self.nodes {
            let restored = at.restored();
            assert_eq!(restored.entered(), at.replica.entered());
            assert_eq!(restored.standing(), at.replica.standing());
        }
        let newest = self.newest().clone();
        for coordinator in HOME {
            assert!(self.mint(*coordinator, newest.epoch, 62), "everyone coordinates again");
        }
    }

    pub(crate) fn describe(&self) -> String {
        let mut text = format!("seed {} at {:?}: newest {}\n", self.seed, self.now, self.newest());
        for at in &self.nodes {
            let known = at.replica.newest().map(ToString::to_string);
            let standing = at.replica.standing();
            let _ =
                writeln!(text, "{} {known:?} {standing:?} held {:b}", at.index(), at.held.writes);
            let _ = writeln!(
                text,
                "  move {:?}\n  pull {:?}\n  drain {:?}",
                at.moving, at.pull, at.drain
            );
        }
        text
    }
}
