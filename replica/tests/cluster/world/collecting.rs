//! Deletes, late records and rounds of collection.

use std::collections::BTreeSet;

use bytes::Bytes;
use triad_replica::configuration::{Configuration, Epoch, majority};
use triad_replica::gc::{Garbage, GcDigest, Round, RoundStep, Vouch, VouchReply};
use triad_replica::member::Member;
use triad_replica::record::{Basis, Change, Limits, Record};
use triad_replica::shard::Access;
use triad_replica::transfer::{Move, MoveInput};

use super::{CLIENT, For, NODES, TIMING, World};
use crate::client::Attempt;
use crate::keys::{Op, RecordRead};
use crate::node::{Answer, Ask, KEYS, index_of, member};
use crate::sabotage::Sabotage;

const MAX_OPS: usize = 400;
const MAX_HINTS: usize = 12;

/// A record that somebody keeps for later, with the epoch in which it was made.
pub(super) struct Hint {
    key: u8,
    record: Record,
    stamp: Epoch,
}

impl World {
    pub(super) fn step_with_deletes(&mut self) {
        let node = self.random.below(NODES);
        match self.random.below(100) {
            0..22 => self.begin_op(),
            22..40 => self.send_op_again(),
            40..58 => self.begin_record_read(),
            58..78 => self.repair(node),
            78..84 => self.deliver_hint(node),
            84..97 => self.begin_round(node),
            97 => self.fall_asleep(),
            _ => self.sleeper_wakes(),
        }
    }

    fn fall_asleep(&mut self) {
        if self.sleeper == NODES {
            self.sleeper = self.random.below(NODES);
            self.crash(self.sleeper);
        }
    }

    fn sleeper_wakes(&mut self) {
        if self.sleeper < NODES && self.random.percent(40) {
            self.sleeper = NODES;
        }
    }

    // Clients.

    fn begin_op(&mut self) {
        if self.ops.len() >= MAX_OPS {
            return;
        }
        let key = self.random.below(usize::from(KEYS)) as u8;
        let configuration = self.believed();
        let members = configuration.members();
        let coordinator = index_of(&members[self.random.below(members.len())]);
        let at = &self.nodes[coordinator];
        if !at.up || at.replica.check(Access::Mint, configuration.epoch).is_err() {
            return;
        }
        let change = if self.random.percent(55) {
            Change::Delete
        } else {
            Change::Put { value: Bytes::new(), expires_at: None }
        };
        let basis = if self.random.percent(20) {
            Basis::Causal(self.nodes[self.random.below(NODES)].held.record(key).context().clone())
        } else {
            Basis::Overwrite
        };
        let at = &self.nodes[coordinator];
        let mut record = at.held.record(key);
        let actor = at.actor();
        let updated = record.update(actor, change, basis, &Limits::default()).expect("few writes");
        if record.is_absent() {
            return;
        }
        let life = at.life;
        let ledger = &mut self.keys[usize::from(key)];
        if let Some(dot) = updated.dot {
            assert!(ledger.minted.insert(dot), "D5: {dot:?} is minted twice");
        }
        let stamp = configuration.epoch;
        let (attempts, acknowledged) = (Vec::new(), false);
        let op = Op { key, coordinator, life, record, updated, stamp, attempts, acknowledged };
        ledger.covered.join(&op.covers());
        self.nodes[coordinator].held.records.insert(key, op.record.clone());
        if self.hints.len() < MAX_HINTS && self.random.percent(30) {
            self.hints.push(Hint { key, record: op.record.clone(), stamp });
        }
        self.ops.push(op);
        self.send_op(self.ops.len() - 1, &configuration);
    }

    /// As a coordinator does that heard of another epoch: the record stays what it was while
    /// its epoch's tombstones are kept, and is read again after.
    fn send_op_again(&mut self) {
        if self.ops.is_empty() {
            return;
        }
        let back = self.random.below(12).min(self.random.below(40)).min(self.ops.len() - 1);
        let number = self.ops.len() - 1 - back;
        let configuration = self.believed();
        let op = &self.ops[number];
        let at = &self.nodes[op.coordinator];
        if !at.up || at.life != op.life {
            return;
        }
        let epoch = configuration.epoch;
        if op.stamp <= configuration.gc_epoch && self.sabotage != Sabotage::StampAnew {
            let record = at.held.record(op.key);
            if at.replica.check(Access::Read, epoch).is_err() || !op.is_in(&record) {
                self.coverage.in_doubt += 1;
                return;
            }
            let op = &mut self.ops[number];
            op.record = record;
            op.stamp = epoch;
            self.coverage.read_again += 1;
        }
        self.send_op(number, &configuration);
    }

    fn send_op(&mut self, number: usize, configuration: &Configuration) {
        let op = &mut self.ops[number];
        let attempt = op.attempts.len();
        op.attempts.push(Attempt { configuration: configuration.clone(), by: BTreeSet::new() });
        let (key, record, coordinator) = (op.key, op.record.clone(), op.coordinator);
        let epoch = configuration.epoch;
        let stamp = if self.sabotage == Sabotage::StampAnew { epoch } else { op.stamp };
        for to in configuration.members() {
            let of = Some((number, attempt));
            let ask = Ask::Record { epoch, stamp, key, record: record.clone(), of };
            if to == member(coordinator) {
                let answer = self.answer(coordinator, ask);
                self.client_gets(to, &answer);
            } else {
                self.send(CLIENT, index_of(&to), For::Client, ask);
            }
        }
    }

    pub(super) fn op_answered(&mut self, number: usize, attempt: usize, from: Member) {
        let op = &mut self.ops[number];
        let attempt = &mut op.attempts[attempt];
        attempt.by.insert(from);
        if op.acknowledged || !attempt.is_acknowledged() {
            return;
        }
        op.acknowledged = true;
        let covers = op.covers();
        let ledger = &mut self.keys[usize::from(op.key)];
        ledger.dead.join(&covers);
        if let Some(dot) = op.updated.dot {
            ledger.alive.insert(dot);
        } else {
            self.coverage.deleted += 1;
        }
    }

    fn begin_record_read(&mut self) {
        let key = self.random.below(usize::from(KEYS)) as u8;
        let configuration = self.believed();
        let read = self.record_reads.len();
        let ledger = &self.keys[usize::from(key)];
        let (dead, alive) = (ledger.dead.clone(), ledger.alive.clone());
        for to in configuration.read_set() {
            let ask = Ask::ReadRecord { epoch: configuration.epoch, read };
            self.send(CLIENT, index_of(to), For::Client, ask);
        }
        let (seen, by, done) = (Record::default(), BTreeSet::new(), false);
        self.record_reads.push(RecordRead { key, configuration, dead, alive, seen, by, done });
    }

    pub(super) fn record_read(&mut self, number: usize, from: Member, record: &Record) {
        let read = &mut self.record_reads[number];
        if read.answer(from, record) {
            let ledger = &self.keys[usize::from(read.key)];
            let what = format!("a read in {}", read.configuration);
            ledger.check(&read.seen, &read.dead, &read.alive, &what);
            self.coverage.record_reads += 1;
        }
    }

    /// What a read would find that begins now and ends at once, at any quorum of any epoch.
    pub(super) fn no_quorum_shows_what_is_dead(&self) {
        if !self.deletes {
            return;
        }
        for configuration in self.ledger.decided.values().rev().take(4) {
            let set = configuration.read_set();
            let serves = |one: &&Member| {
                let replica = &self.nodes[index_of(one)].replica;
                replica.check(Access::Read, configuration.epoch).is_ok()
            };
            let serving: Vec<usize> = set.iter().filter(serves).map(index_of).collect();
            for chosen in 0_u32..1 << serving.len() {
                if chosen.count_ones() as usize != majority(set.len()) {
                    continue;
                }
                let quorum: Vec<usize> = (0..serving.len())
                    .filter(|one| chosen >> one & 1 == 1)
                    .map(|one| serving[one])
                    .collect();
                for (key, ledger) in (0..).zip(&self.keys) {
                    let mut seen = Record::default();
                    for node in &quorum {
                        seen.merge(&self.nodes[*node].held.record(key));
                    }
                    let what = format!("the quorum {quorum:?} of {configuration}");
                    ledger.check(&seen, &ledger.dead, &ledger.alive, &what);
                }
            }
        }
    }

    // Records on other roads.

    /// Anti-entropy and read repair: a member sends what it holds in its epoch.
    fn repair(&mut self, node: usize) {
        let at = &self.nodes[node];
        let Some(known) = at.replica.newest().filter(|_| at.up) else {
            return;
        };
        let epoch = known.epoch;
        let key = self.random.below(usize::from(KEYS)) as u8;
        if at.replica.check(Access::Read, epoch).is_ok() {
            let record = at.held.record(key);
            for to in known.members() {
                let ask =
                    Ask::Record { epoch, stamp: epoch, key, record: record.clone(), of: None };
                self.send(CLIENT, index_of(&to), For::Client, ask);
            }
        }
    }

    /// A hint comes whenever its holder likes, in whatever epoch the member is then.
    fn deliver_hint(&mut self, node: usize) {
        let at = &self.nodes[node];
        let Some(epoch) = at.replica.newest().map(|known| known.epoch).filter(|_| at.up) else {
            return;
        };
        if self.hints.is_empty() {
            return;
        }
        let chosen = self.random.below(self.hints.len());
        let Hint { key, record, stamp } = &self.hints[chosen];
        let ask = Ask::Record { epoch, stamp: *stamp, key: *key, record: record.clone(), of: None };
        self.answer(node, ask);
        if self.random.percent(30) {
            self.hints.swap_remove(chosen);
        }
    }

    pub(super) fn answer_record(
        &mut self,
        node: usize,
        epoch: Epoch,
        stamp: Epoch,
        key: u8,
        record: &Record,
        of: Option<(usize, usize)>,
    ) -> Answer {
        let at = &mut self.nodes[node];
        if at.replica.check(Access::Merge, epoch).is_err() {
            return Answer::No;
        }
        let gc_epoch = at.replica.newest().map_or(Epoch::NONE, |known| known.gc_epoch);
        let at_gc_epoch = self.sabotage == Sabotage::StampAtGcEpoch && stamp == gc_epoch;
        if stamp <= gc_epoch && !at_gc_epoch {
            self.coverage.collected_stamps += 1;
            return Answer::No;
        }
        if !record.is_absent() {
            at.held.records.entry(key).or_default().merge(record);
        }
        of.map_or(Answer::No, |of| Answer::Record { of })
    }

    // Rounds.

    fn begin_round(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        let base = at.replica.newest().filter(|_| at.up && at.replica.is_member());
        let Some(base) = base.filter(|_| !at.replica.is_fenced() && at.moving.is_none()) else {
            return;
        };
        let prunable = |record: &Record| !record.pruned().same_content(record);
        let garbage = at.held.records.iter().filter(|(_, record)| prunable(record));
        let garbage = garbage.map(|(key, record)| Garbage {
            bucket: "b".into(),
            key: Bytes::copy_from_slice(&[*key]),
            record: record.digest(),
        });
        at.round = Round::new(base, garbage.collect());
        at.vouches = 0;
        self.ask_for_vouches(node);
    }

    fn ask_for_vouches(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        at.tickets[2] += 1;
        let ticket = at.tickets[2];
        let Some(round) = at.round.clone() else {
            return;
        };
        for to in round.members() {
            self.send(node, index_of(to), For::Round(ticket), Ask::Vouch(round.request()));
        }
    }

    pub(super) fn drive_round(&mut self, node: usize, from: Member, reply: VouchReply) {
        let at = &mut self.nodes[node];
        let Some(round) = &mut at.round else {
            return;
        };
        let vouched = matches!(reply, VouchReply::Vouched(_));
        let mut step = round.on_reply(from, reply);
        if self.sabotage == Sabotage::MajorityVouch && vouched {
            at.vouches += 1;
            if at.vouches >= majority(round.members().len()) {
                step = RoundStep::Ready(round.request().digest());
            }
        }
        match step {
            RoundStep::Wait => {}
            RoundStep::AskAgain => {
                at.vouches = 0;
                self.ask_for_vouches(node);
            }
            RoundStep::Over => at.round = None,
            RoundStep::Ready(digest) => {
                let base = round.base().clone();
                at.round = None;
                at.vouches = 0;
                self.collect(node, base, digest);
            }
        }
    }

    fn collect(&mut self, node: usize, base: Configuration, digest: GcDigest) {
        self.coverage.vouched += 1;
        if self.sabotage == Sabotage::InsideEpoch {
            return self.collect_inside_the_epoch(digest);
        }
        let at = &mut self.nodes[node];
        if at.moving.is_some() {
            return;
        }
        at.moves_started += 1;
        let (me, serial) = (at.me.node, at.moves_started);
        at.moving = Some(Move::collect(me, serial, base, digest, TIMING, self.now));
        self.drive_move(node, MoveInput::Tick);
    }

    fn collect_inside_the_epoch(&mut self, digest: GcDigest) {
        for at in self.nodes.iter_mut().filter(|at| at.up) {
            let vouch = at.vouch_row.as_ref().and_then(|row| Vouch::decode(row).ok());
            if let Some(vouch) = vouch.filter(|vouch| vouch.digest() == digest) {
                at.prune(&vouch);
            }
        }
    }

    // Moves.

    /// Former members that sleep have been down for long: they are not waited for.
    pub(super) fn written_off(&mut self, base: &Configuration) -> Vec<Member> {
        let asleep = |member: &&Member| self.deletes && index_of(member) == self.sleeper;
        base.retired.iter().filter(asleep).copied().collect()
    }

    /// Grows, replaces and shrinks at random, and takes out who sleeps.
    pub(super) fn begin_move_around_sleeper(&mut self, node: usize) {
        let Some(base) = self.nodes[node].replica.newest().cloned() else {
            return;
        };
        let mut target: Vec<usize> =
            base.new_set().iter().map(index_of).filter(|one| *one != self.sleeper).collect();
        let newcomer = self.random.below(NODES);
        let displaced = self.random.below(NODES);
        if self.random.percent(30) && target.len() > 3 {
            target.retain(|one| *one != displaced);
        }
        if target.len() < 4 && !target.contains(&newcomer) && newcomer != self.sleeper {
            target.push(newcomer);
        }
        if !target.is_empty() {
            self.begin_move_to(node, &target);
        }
    }
}
