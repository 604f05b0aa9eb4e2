//! A network of detectors for tests: one seed, one course of events. Messages are delayed, lost and
//! cut off, processes stand still, die and restart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use triad_ring::{Incarnation, NodeId};

use super::{
    Change, Detector, INDIRECT_PING, Input, LATEST_ANSWER, Liveness, Output, PERIOD, ProbeId,
    Watched, Word,
};

/// `SplitMix64`.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What travels, and what it is for.
#[derive(Clone, Copy, Debug)]
enum Message {
    Ping {
        probe: ProbeId,
    },
    Pong {
        probe: ProbeId,
        incarnation: u64,
    },
    Ask {
        target: usize,
        probe: ProbeId,
    },
    /// A helper's own ping and what comes back.
    PingFor {
        asker: usize,
        probe: ProbeId,
    },
    PongFor {
        asker: usize,
        probe: ProbeId,
        incarnation: u64,
    },
    Reached {
        probe: ProbeId,
        word: Word,
    },
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Period,
    Arrives { from: usize, message: Message },
    Patience { probe: ProbeId },
    HelperPatience { helper: usize, probe: ProbeId },
    GivesUpFor { asker: usize, probe: ProbeId },
}

struct Process {
    detector: Detector,
    incarnation: u64,
    /// Pings and helpers that have not answered, as the driver's tasks would know them.
    open: BTreeSet<ProbeId>,
    open_helpers: BTreeSet<(usize, ProbeId)>,
    helping: BTreeSet<(usize, ProbeId)>,
}

pub(super) struct Network {
    processes: BTreeMap<usize, Process>,
    queue: BTreeMap<(u64, u64), (usize, u64, Event)>,
    pub(super) random: Random,
    pub(super) size: usize,
    /// Directed links that carry nothing.
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// Messages lost, in thousandths.
    pub(super) loss: u64,
    /// One way, in microseconds: at least, and at most so much more.
    pub(super) delay: (u64, u64),
    /// Until when a process stands still.
    paused: BTreeMap<usize, u64>,
    pub(super) changes: Vec<(Duration, usize, Change)>,
    pub(super) pings: u64,
    pub(super) helpers_asked: u64,
    /// Who shares shards with whom.
    pub(super) near: BTreeSet<(usize, usize)>,
    now: u64,
    sequence: u64,
}

pub(super) fn id(number: usize) -> NodeId {
    let mut bytes = [7; 16];
    bytes[14] = (number >> 8) as u8;
    bytes[15] = number as u8;
    NodeId::from_bytes(bytes)
}

fn number(node: NodeId) -> usize {
    usize::from(node.as_bytes()[14]) << 8 | usize::from(node.as_bytes()[15])
}

impl Network {
    /// So many processes that know of each other and have found each other alive.
    pub(super) fn settled(seed: u64, size: usize) -> Self {
        let mut network = Self {
            processes: BTreeMap::new(),
            queue: BTreeMap::new(),
            random: Random(seed),
            size,
            cut: BTreeSet::new(),
            loss: 0,
            delay: (200, 2_000),
            paused: BTreeMap::new(),
            changes: Vec::new(),
            pings: 0,
            helpers_asked: 0,
            near: BTreeSet::new(),
            now: 0,
            sequence: 0,
        };
        (0..size).for_each(|at| network.start(at, 1));
        network.run(Duration::from_secs(3));
        network
    }

    pub(super) fn start(&mut self, at: usize, incarnation: u64) {
        let process = Process {
            detector: Detector::default(),
            incarnation,
            open: BTreeSet::new(),
            open_helpers: BTreeSet::new(),
            helping: BTreeSet::new(),
        };
        assert!(self.processes.insert(at, process).is_none(), "{at} runs already");
        let wait = self.random.below(500_000);
        self.schedule(wait, at, Event::Period);
    }

    pub(super) fn kill(&mut self, at: usize) {
        self.processes.remove(&at).expect("it runs");
    }

    pub(super) fn pause(&mut self, at: usize, time: Duration) {
        self.paused.insert(at, self.now + time.as_micros() as u64);
    }

    pub(super) fn cut_between(&mut self, a: usize, b: usize) {
        self.cut.extend([(a, b), (b, a)]);
    }

    pub(super) fn now(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    /// What `at` believes of `of`.
    pub(super) fn belief(&self, at: usize, of: usize) -> Liveness {
        self.processes[&at].detector.liveness(id(of))
    }

    pub(super) fn detector(&self, at: usize) -> &Detector {
        &self.processes[&at].detector
    }

    pub(super) fn declared_down(&self) -> Vec<(Duration, usize, usize)> {
        let down = self.changes.iter().filter(|(_, _, change)| change.now == Liveness::Down);
        down.map(|(when, at, change)| (*when, *at, number(change.node))).collect()
    }

    fn schedule(&mut self, wait: u64, at: usize, event: Event) {
        self.sequence += 1;
        let incarnation = self.processes.get(&at).map_or(0, |process| process.incarnation);
        self.queue.insert((self.now + wait, self.sequence), (at, incarnation, event));
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time.as_micros() as u64;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            self.now = entry.key().0;
            let (at, incarnation, event) = entry.remove();
            if let Some(until) = self.paused.get(&at).copied().filter(|until| *until > self.now) {
                self.sequence += 1;
                self.queue.insert((until, self.sequence), (at, incarnation, event));
                continue;
            }
            let travels = matches!(event, Event::Arrives { .. });
            let same = self.processes.get(&at).is_some_and(|p| p.incarnation == incarnation);
            if same || (travels && self.processes.contains_key(&at)) {
                self.event(at, event);
            }
        }
        self.now = end;
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        if self.cut.contains(&(from, to)) || self.random.below(1_000) < self.loss {
            return;
        }
        let wait = self.delay.0 + self.random.below(self.delay.1 + 1);
        self.schedule(wait, to, Event::Arrives { from, message });
    }

    fn event(&mut self, at: usize, event: Event) {
        match event {
            Event::Period => {
                let jitter = self.random.below(100_000);
                self.schedule(PERIOD.as_micros() as u64 - 50_000 + jitter, at, Event::Period);
                let others = (0..self.size).filter(|other| *other != at);
                let watched = others.map(|other| Watched {
                    node: id(other),
                    near: self.near.contains(&(at, other)),
                });
                self.input(at, Input::Period(watched.collect()));
            }
            Event::Arrives { from, message } => self.arrives(at, from, message),
            Event::Patience { probe } => {
                if self.process(at).open.contains(&probe) {
                    self.input(at, Input::Unanswered { probe });
                }
            }
            Event::HelperPatience { helper, probe } => {
                if self.process(at).open_helpers.remove(&(helper, probe)) {
                    self.input(at, Input::Helped { probe, word: Word::None });
                }
            }
            Event::GivesUpFor { asker, probe } => {
                if self.process(at).helping.remove(&(asker, probe)) {
                    self.send(at, asker, Message::Reached { probe, word: Word::NotReached });
                }
            }
        }
    }

    fn process(&mut self, at: usize) -> &mut Process {
        self.processes.get_mut(&at).expect("events reach running processes only")
    }

    fn arrives(&mut self, at: usize, from: usize, message: Message) {
        let own = self.process(at).incarnation;
        match message {
            Message::Ping { probe } => {
                let incarnation = self.processes.get(&from).map(|process| process.incarnation);
                if let Some(incarnation) = incarnation.map(Incarnation::new) {
                    self.input(at, Input::Heard { node: id(from), incarnation });
                }
                self.send(at, from, Message::Pong { probe, incarnation: own });
            }
            Message::Pong { probe, incarnation } => {
                if self.process(at).open.remove(&probe) {
                    let incarnation = Incarnation::new(incarnation);
                    self.input(at, Input::Answered { probe, incarnation });
                }
            }
            Message::Ask { target, probe } => {
                self.process(at).helping.insert((from, probe));
                self.send(at, target, Message::PingFor { asker: from, probe });
                let wait = INDIRECT_PING.as_micros() as u64;
                self.schedule(wait, at, Event::GivesUpFor { asker: from, probe });
            }
            Message::PingFor { asker, probe } => {
                self.send(at, from, Message::PongFor { asker, probe, incarnation: own });
            }
            Message::PongFor { asker, probe, incarnation } => {
                if self.process(at).helping.remove(&(asker, probe)) {
                    let word = Word::Reached(Incarnation::new(incarnation));
                    self.send(at, asker, Message::Reached { probe, word });
                }
            }
            Message::Reached { probe, word } => {
                if self.process(at).open_helpers.remove(&(from, probe)) {
                    self.input(at, Input::Helped { probe, word });
                }
            }
        }
    }

    fn input(&mut self, at: usize, input: Input) {
        let now = self.now();
        let mut out = Vec::new();
        self.process(at).detector.handle(input, now, &mut out);
        for output in out {
            match output {
                Output::Ping { node, probe, patience } => {
                    assert!(patience <= LATEST_ANSWER);
                    self.pings += 1;
                    self.process(at).open.insert(probe);
                    self.send(at, number(node), Message::Ping { probe });
                    self.schedule(patience.as_micros() as u64, at, Event::Patience { probe });
                }
                Output::AskHelper { node, helper, probe, patience } => {
                    self.helpers_asked += 1;
                    let helper = number(helper);
                    self.process(at).open_helpers.insert((helper, probe));
                    self.send(at, helper, Message::Ask { target: number(node), probe });
                    let wait = patience.as_micros() as u64;
                    self.schedule(wait, at, Event::HelperPatience { helper, probe });
                }
                Output::Changed(change) => self.changes.push((now, at, change)),
            }
        }
    }
}
