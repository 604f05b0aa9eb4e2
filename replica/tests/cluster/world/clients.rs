//! What clients and coordinators do.

use std::collections::BTreeSet;

use triad_replica::configuration::{Configuration, Epoch};
use triad_replica::shard::Access;

use super::{CLIENT, For, World};
use crate::client::{Attempt, Read, Write};
use crate::node::{Ask, index_of, member};

const MAX_WRITES: usize = 60;

impl World {
    /// A coordinator believes in any configuration that ever was, more likely in a late one.
    pub(super) fn believed(&mut self) -> Configuration {
        let back = self.random.below(4).min(self.random.below(12));
        let mut newest_first = self.ledger.decided.values().rev();
        let believed = newest_first.nth(back).unwrap_or(&self.ledger.decided[&Epoch::FIRST]);
        believed.clone()
    }

    pub(super) fn begin_write(&mut self) {
        if self.writes.len() < MAX_WRITES {
            let write = self.writes.len();
            let configuration = self.believed();
            let members = configuration.members();
            let coordinator = index_of(&members[self.random.below(members.len())]);
            if self.mint(coordinator, configuration.epoch, write) {
                let acknowledged = None;
                self.writes.push(Write { attempts: Vec::new(), acknowledged });
                self.attempt(coordinator, &configuration, write);
            }
        }
    }

    pub(super) fn mint(&mut self, node: usize, epoch: Epoch, write: usize) -> bool {
        let at = &mut self.nodes[node];
        if !at.up {
            return false;
        }
        match at.replica.check(Access::Mint, epoch) {
            Ok(()) => {
                let actor = at.actor();
                self.ledger.mints(at, actor, write);
                at.held.writes |= 1 << write;
                true
            }
            Err(refusal) => {
                self.coverage.refused(&refusal);
                false
            }
        }
    }

    /// Keeps the dot, counts from zero.
    pub(super) fn retry_write(&mut self) {
        if self.writes.is_empty() {
            return;
        }
        let write = self.random.below(self.writes.len());
        let configuration = self.believed();
        let members = configuration.members();
        let coordinator = index_of(&members[self.random.below(members.len())]);
        let at = &self.nodes[coordinator];
        if at.up && at.held.writes & (1 << write) != 0 {
            self.attempt(coordinator, &configuration, write);
        }
    }

    fn attempt(&mut self, coordinator: usize, configuration: &Configuration, write: usize) {
        let attempts = &mut self.writes[write].attempts;
        let attempt = attempts.len();
        let by = BTreeSet::new();
        attempts.push(Attempt { configuration: configuration.clone(), by });
        for to in configuration.members() {
            let configuration = configuration.clone();
            let ask = Ask::Merge { configuration, write, attempt };
            if to == member(coordinator) {
                let answer = self.answer(coordinator, ask);
                self.client_gets(to, &answer);
            } else {
                self.send(CLIENT, index_of(&to), For::Client, ask);
            }
        }
    }

    pub(super) fn begin_read(&mut self) {
        let configuration = self.believed();
        let read = self.reads.len();
        let must_see = self.acknowledged.iter().fold(0, |all, (_, write)| all | write);
        // It counts the answers of the read set alone, but asks newcomers too.
        for to in configuration.members() {
            let configuration = configuration.clone();
            self.send(CLIENT, index_of(&to), For::Client, Ask::Read { configuration, read });
        }
        let (seen, by, done) = (0, BTreeSet::new(), false);
        self.reads.push(Read { configuration, must_see, seen, by, done });
    }
}
