//! The world of one run: five nodes, a network, clients, and what may happen to them.

mod clients;
mod collecting;
mod coverage;
mod healing;
mod requests;

use std::time::Duration;

use triad_replica::configuration::{Configuration, Epoch};
use triad_replica::member::Member;
use triad_replica::message::{Removal, RemovalReason, ShardRequest};
use triad_replica::shard::{Durable, ShardReplica};
use triad_replica::transfer::{
    Drain, DrainInput, DrainOutput, Moment, Move, MoveInput, MoveOutput, MoveTiming, Outcome, Plan,
    Pull, PullInput, PullOutput,
};

use self::collecting::Hint;
pub(crate) use self::coverage::Coverage;
use crate::client::{Read, Write};
use crate::keys::{KeyLedger, Op, RecordRead};
use crate::ledger::Ledger;
use crate::node::{Answer, Ask, COPYING, KEYS, Node, SHARD, Writes, index_of, member};
use crate::random::Random;
use crate::sabotage::Sabotage;

const NODES: usize = 5;
const CLIENT: usize = NODES;
const MAX_IN_FLIGHT: usize = 120;

/// What placement wants, one after the other: growth, replacement, return, shrinking.
const CHAIN: [&[usize]; 8] =
    [&[0, 1], &[0, 1, 2], &[0, 1, 3], &[0, 1, 2], &[2, 3, 4], &[2, 3], &[0, 1, 2], &[0]];

const TIMING: MoveTiming = MoveTiming {
    learn: Duration::from_millis(150),
    clear: Duration::from_millis(300),
    merge: Duration::from_millis(150),
    decide: Duration::from_millis(400),
    announce: Duration::from_millis(60),
    silence: Duration::from_millis(80),
    answer_within: Duration::from_millis(80),
    ballot: Duration::from_millis(50),
    poll_min: Duration::from_millis(10),
    poll_max: Duration::from_millis(60),
};

struct Envelope {
    from: usize,
    to: usize,
    /// Which life of the asker: an answer never reaches a later process.
    life: u64,
    for_whom: For,
    /// Takes a detour, and so arrives after what was sent much later.
    slow: bool,
    load: Load,
}

impl Envelope {
    const fn is_for_shard(&self) -> bool {
        matches!(self.load, Load::Ask(Ask::Shard(_)))
    }
}

/// Which of the asker's machines waits for the answer, by which ticket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Move,
    Pull(u64),
    Drain(u64),
    Round(u64),
    Client,
}

enum Load {
    Ask(Ask),
    Answer(Answer),
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ask(ask) => write!(f, "{ask:?}"),
            Self::Answer(answer) => write!(f, "{answer:?}"),
        }
    }
}

pub(crate) struct World {
    seed: u64,
    random: Random,
    now: Duration,
    nodes: Vec<Node>,
    network: Vec<Envelope>,
    lossy: bool,
    /// A node (or none) that hardly anybody gets through to about configurations.
    shy: usize,
    /// Print what arrives, for one seed alone.
    pub(crate) traced: bool,
    writes: Vec<Write>,
    reads: Vec<Read>,
    acknowledged: Vec<(Epoch, Writes)>,
    ledger: Ledger,
    wish: usize,
    coverage: Coverage,
    /// Keys are deleted, too, and tombstones collected.
    deletes: bool,
    sabotage: Sabotage,
    /// A node that sleeps for long.
    sleeper: usize,
    keys: Vec<KeyLedger>,
    ops: Vec<Op>,
    record_reads: Vec<RecordRead>,
    hints: Vec<Hint>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut nodes: Vec<Node> = (0..NODES).map(Node::new).collect();
        let nonce = triad_replica::member::StartNonce([9; 16]);
        let (replica, durable) = ShardReplica::bootstrap(SHARD, member(0), nonce);
        nodes[0].replica = replica;
        nodes[0].commit(&durable);
        let mut ledger = Ledger::default();
        let first = Configuration::bootstrap(SHARD, member(0));
        ledger.decided.insert(first.epoch, first);
        let wish = random.below(2);
        let shy = random.below(3);
        Self {
            seed,
            random,
            now: Duration::from_secs(1),
            nodes,
            network: Vec::new(),
            lossy: true,
            shy,
            traced: false,
            writes: Vec::new(),
            reads: Vec::new(),
            acknowledged: Vec::new(),
            ledger,
            wish,
            coverage: Coverage::default(),
            deletes: false,
            sabotage: Sabotage::None,
            sleeper: NODES,
            keys: vec![KeyLedger::default(); usize::from(KEYS)],
            ops: Vec::new(),
            record_reads: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// A run in which keys are deleted too, and tombstones collected.
    pub(crate) fn with_deletes(seed: u64, sabotage: Sabotage) -> Self {
        let mut world = Self { deletes: true, sabotage, ..Self::new(seed) };
        world.nodes.iter_mut().for_each(|node| node.sabotage = sabotage);
        world
    }

    pub(crate) fn coverage(&self) -> Coverage {
        self.coverage.clone()
    }

    /// A little time passes, some messages arrive, and something happens.
    pub(crate) fn faulty_step(&mut self) {
        self.now += Duration::from_micros(self.random.next() % 4_000);
        for _ in 0..self.random.below(9) {
            self.deliver_any();
        }
        if self.deletes {
            self.step_with_deletes();
        }
        let node = self.random.below(NODES);
        // Every third run is one of duelling proposers that die young.
        let duel = if self.seed % 3 == 1 { 10 } else { 0 };
        match self.random.below(100 + 2 * duel) {
            0..40 => self.tick(node),
            40..55 => self.begin_write(),
            55..65 => self.retry_write(),
            65..80 => self.begin_read(),
            80..88 => self.gossip(node),
            88..92 => self.begin_move(node),
            92..97 => self.restart(node),
            97 => self.nodes[node].replica.stop_learning(),
            98 => self.shy = self.random.below(NODES + 1),
            99 => self.crash(node),
            chance if chance < 100 + duel => self.begin_move_anew(node),
            _ => {
                self.crash(node);
                self.restart(node);
            }
        }
        self.look_at_everything();
    }

    fn look_at_everything(&mut self) {
        self.ledger.every_quorum_sees(&self.nodes, &self.acknowledged);
        self.no_quorum_shows_what_is_dead();
        let wanted: Vec<Member> = CHAIN[self.wish].iter().copied().map(member).collect();
        let newest = self.newest();
        if !newest.is_joint() && triad_replica::configuration::same_set(newest.new_set(), &wanted) {
            self.wish = (self.wish + 1) % CHAIN.len();
        }
    }

    fn newest(&self) -> &Configuration {
        self.ledger.decided.values().last().expect("the first is decided")
    }

    fn moment(&mut self) -> Moment {
        let jitter = self.random.next() as u8;
        Moment { now: self.now, jitter }
    }

    // Network.

    fn send(&mut self, from: usize, to: usize, for_whom: For, ask: Ask) {
        let life = self.nodes.get(from).map_or(0, |node| node.life);
        let chance = if matches!(ask, Ask::Merge { .. }) { 40 } else { 6 };
        let load = Load::Ask(ask);
        let slow = self.lossy && self.random.percent(chance);
        self.network.push(Envelope { from, to, life, for_whom, slow, load });
        if self.lossy && self.network.len() > MAX_IN_FLIGHT {
            let lost = self.random.below(self.network.len());
            self.network.swap_remove(lost);
        }
    }

    fn deliver_any(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = self.random.below(self.network.len());
        if self.network[at].slow && self.random.percent(90) {
            return;
        }
        let to_shy = self.network[at].is_for_shard() && self.network[at].to == self.shy;
        if self.random.percent(if to_shy { 90 } else { 6 }) {
            self.network.swap_remove(at);
        } else if self.random.percent(6) {
            let load = match &self.network[at].load {
                Load::Ask(ask) => Load::Ask(ask.clone()),
                Load::Answer(answer) => Load::Answer(answer.clone()),
            };
            let Envelope { from, to, life, for_whom, slow, .. } = self.network[at];
            self.deliver(Envelope { from, to, life, for_whom, slow, load });
        } else {
            let envelope = self.network.swap_remove(at);
            self.deliver(envelope);
        }
    }

    fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, life, for_whom, load, .. } = envelope;
        if self.traced {
            let held = self.nodes.get(to).map_or(0, |node| node.held.writes);
            println!("{:?} {from} -> {to} ({held:b}): {load}", self.now);
        }
        match load {
            Load::Ask(ask) if self.nodes[to].up => {
                let answer = self.answer(to, ask);
                let load = Load::Answer(answer);
                let (from, to, slow) = (to, from, false);
                self.network.push(Envelope { from, to, life, for_whom, slow, load });
            }
            Load::Answer(answer) if to == CLIENT => self.client_gets(member(from), &answer),
            Load::Answer(answer) if self.nodes[to].up && self.nodes[to].life == life => {
                self.driver_gets(to, member(from), for_whom, answer);
            }
            Load::Ask(_) | Load::Answer(_) => {}
        }
    }

    // Nodes.

    fn crash(&mut self, node: usize) {
        self.nodes[node].crash();
        self.coverage.crashes += 1;
    }

    fn restart(&mut self, node: usize) {
        if node != self.sleeper {
            self.nodes[node].up = true;
        }
    }

    /// Commits what a call wants durable, and lets the ledger see what it means.
    fn commit(&mut self, node: usize, before: Option<Epoch>, durable: &[Durable]) {
        self.nodes[node].commit(durable);
        let gone = |change: &Durable| matches!(change, Durable::Forget(_));
        self.coverage.discarded +=
            u64::from(durable.iter().any(gone) && self.nodes[node].replica.is_member());
        let at = &self.nodes[node];
        let Some(now) = at.replica.newest() else {
            return;
        };
        if before != Some(now.epoch) {
            self.ledger.entered(at.me, before, now);
            self.coverage.skipped += u64::from(before.is_some_and(|it| it.next() != now.epoch));
        }
        let declared = at.replica.entered().is_some_and(|row| row.declared);
        if declared && !self.ledger.declared.contains(&(at.me, now.epoch)) {
            self.coverage.returned +=
                u64::from(at.replica.entered().is_some_and(|row| row.forgotten > 0));
            self.ledger.declares(at, now.epoch, &self.acknowledged);
        }
    }

    fn tick(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        // Forgotten records go some time after they were forgotten.
        let swept = self.nodes[node].replica.on_swept();
        self.nodes[node].commit(&swept);
        self.tick_copies(node);
        if self.nodes[node].moving.is_some() {
            self.drive_move(node, MoveInput::Tick);
        }
        self.consider_take_over(node);
        self.consider_leftover(node);
    }

    fn tick_copies(&mut self, node: usize) {
        let now = self.now;
        let at = &mut self.nodes[node];
        let plan = at.replica.pull_plan();
        if at.pull.as_ref().map(Pull::plan) != plan.as_ref() {
            at.pull = plan.map(|plan| Pull::new(plan, COPYING, now));
        }
        let to = at.replica.must_drain_to();
        if at.drain.as_ref().map(Drain::epoch) != to.map(|to| to.epoch) {
            at.drain = to.map(|to| Drain::new(to.clone(), COPYING, now));
        }
        self.drive_pull(node, PullInput::Tick);
        self.drive_drain(node, DrainInput::Tick);
    }

    fn drive_pull(&mut self, node: usize, input: PullInput) {
        let mut out = Vec::new();
        if let Some(pull) = &mut self.nodes[node].pull {
            pull.handle(input, self.now, &mut out);
        }
        for output in out {
            match output {
                PullOutput::Compare { with } => self.copy(node, &with, Ask::Tree),
                PullOutput::Fetch { from, leaves, after } => {
                    self.copy(node, &from, Ask::Page { leaves, after });
                }
                PullOutput::Complete { epoch, purpose } => {
                    self.coverage.completed(purpose);
                    let before = self.nodes[node].replica.newest().map(|known| known.epoch);
                    let durable = self.nodes[node].replica.on_merged(epoch);
                    self.commit(node, before, &durable);
                }
            }
        }
    }

    fn drive_drain(&mut self, node: usize, input: DrainInput) {
        let mut out = Vec::new();
        if let Some(drain) = &mut self.nodes[node].drain {
            drain.handle(input, self.now, &mut out);
        }
        for output in out {
            match output {
                DrainOutput::Compare { with } => self.hand_over(node, &with, Ask::Tree),
                DrainOutput::Push { to, leaves, after } => {
                    let (content, next) = self.nodes[node].held.page(&leaves, after.as_ref());
                    let from = self.nodes[node].me;
                    let epoch = self.nodes[node].drain.as_ref().map_or(Epoch::NONE, Drain::epoch);
                    self.hand_over(node, &to, Ask::Push { from, epoch, content, next });
                }
                DrainOutput::Purge => {
                    self.coverage.purged += 1;
                    self.nodes[node].drain = None;
                    self.purge(node);
                }
            }
        }
    }

    fn copy(&mut self, node: usize, to: &Member, ask: Ask) {
        self.nodes[node].tickets[0] += 1;
        let ticket = self.nodes[node].tickets[0];
        self.send(node, index_of(to), For::Pull(ticket), ask);
    }

    fn hand_over(&mut self, node: usize, to: &Member, ask: Ask) {
        self.nodes[node].tickets[1] += 1;
        let ticket = self.nodes[node].tickets[1];
        self.send(node, index_of(to), For::Drain(ticket), ask);
    }

    fn purge(&mut self, node: usize) {
        let before = self.nodes[node].replica.newest().map(|known| known.epoch);
        let durable = self.nodes[node].replica.purge();
        self.commit(node, before, &durable);
    }

    fn drive_move(&mut self, node: usize, input: MoveInput) {
        let moment = self.moment();
        let mut out = Vec::new();
        if let Some(moving) = &mut self.nodes[node].moving {
            moving.handle(input, moment, &mut out);
        }
        for output in out {
            match output {
                MoveOutput::Send { to, request } => {
                    self.send(node, index_of(&to), For::Move, Ask::Shard(request));
                }
                MoveOutput::Finished(outcome) => {
                    self.nodes[node].moving = None;
                    match outcome {
                        Outcome::Settled(_) => self.coverage.settled += 1,
                        Outcome::NotStarted(_) => self.coverage.not_started += 1,
                        Outcome::Undecided(_) => self.coverage.undecided += 1,
                    }
                }
            }
        }
    }

    fn begin_move(&mut self, node: usize) {
        let wish = self.wish;
        let target = if self.random.percent(80) { wish } else { self.random.below(CHAIN.len()) };
        if self.deletes {
            return self.begin_move_around_sleeper(node);
        }
        self.begin_move_to(node, CHAIN[target]);
    }

    /// Whatever this node did before, it proposes anew.
    fn begin_move_anew(&mut self, node: usize) {
        self.nodes[node].moving = None;
        self.begin_move(node);
    }

    fn begin_move_to(&mut self, node: usize, target: &[usize]) {
        let at = &mut self.nodes[node];
        let Some(base) = at.replica.newest().filter(|_| at.up && at.moving.is_none()) else {
            return;
        };
        let members: Vec<Member> = target.iter().copied().map(member).collect();
        let gone = base.new_set().iter().filter(|member| !members.contains(member));
        let reason = RemovalReason::Displaced;
        let removals = gone.map(|member| Removal { member: *member, reason }).collect();
        let base = base.clone();
        let written_off = self.written_off(&base);
        let at = &mut self.nodes[node];
        let plan = Plan { members, removals, written_off };
        at.moves_started += 1;
        at.moving = Some(Move::start(at.me.node, at.moves_started, base, plan, TIMING, self.now));
        self.drive_move(node, MoveInput::Tick);
    }

    /// A joint shard, or one that waits for a decision, is everybody's business after a while.
    fn consider_take_over(&mut self, node: usize) {
        let patience = Duration::from_millis(100 + self.random.next() % 300);
        let at = &mut self.nodes[node];
        let Some(known) = at.replica.newest() else {
            return;
        };
        // Deciding the same members again is always allowed, wanted or not.
        let uncalled_for = self.lossy && at.up && self.random.percent(1);
        if !known.is_joint() && !at.replica.is_fenced() && !uncalled_for {
            at.unsettled_since = None;
            return;
        }
        let since = *at.unsettled_since.get_or_insert(self.now);
        if at.moving.is_some() || (self.now < since + patience && !uncalled_for) {
            return;
        }
        let base = known.clone();
        at.unsettled_since = None;
        at.moves_started += 1;
        at.moving = Some(Move::take_over(at.me.node, at.moves_started, base, TIMING, self.now));
        self.coverage.took_over += 1;
    }

    fn consider_leftover(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        if !at.replica.is_leftover() {
            at.leftover_since = None;
            return;
        }
        let since = *at.leftover_since.get_or_insert(self.now);
        if self.now > since + Duration::from_millis(200) {
            self.purge(node);
        }
    }

    /// The directory: somebody tells somebody what it knows.
    fn gossip(&mut self, node: usize) {
        let to = self.random.below(NODES);
        let newest = self.nodes[node].replica.newest().filter(|_| self.nodes[node].up);
        if let Some(configuration) = newest.cloned() {
            self.send(node, to, For::Move, Ask::Shard(ShardRequest::Learn { configuration }));
        }
    }
}
