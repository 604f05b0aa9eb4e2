//! A deterministic network of ring nodes: one seed, one course of events. Messages are delayed and
//! lost, processes die and restart, and a perfect but slow failure detector tells the others.
#![allow(dead_code)] // each test program uses its part

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use triad_ring::{
    Input, LookupId, Message, NodeId, Output, RingConfig, RingId, RingNode, Route, Timer,
};

/// `SplitMix64`: small, well mixed, the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0..bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn id(&mut self) -> RingId {
        RingId::new((u128::from(self.next()) << 64) | u128::from(self.next()))
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

#[derive(Clone, Debug)]
enum Event {
    Deliver { to: NodeId, from: NodeId, born: u64, message: Message },
    Timer { at: NodeId, timer: Timer, set: u64 },
    Failed { at: NodeId, who: NodeId, born: u64 },
    Met { at: NodeId, who: NodeId },
}

/// One running process.
struct Process {
    node: RingNode,
    born: u64,
    timers: BTreeMap<Timer, u64>,
    /// Declared failed here, by the number of the process.
    declared: BTreeMap<NodeId, u64>,
}

/// What the messages of a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) messages: u64,
    /// Virtual nodes named in them: what they weigh.
    pub(crate) entries: u64,
    pub(crate) lost: u64,
}

pub(crate) struct Network {
    pub(crate) random: Random,
    pub(crate) config: RingConfig,
    pub(crate) traffic: Traffic,
    /// Messages lost, in thousandths.
    pub(crate) loss: u64,
    pub(crate) found: BTreeMap<LookupId, Option<Route>>,
    pub(crate) joined: BTreeSet<NodeId>,
    processes: BTreeMap<NodeId, Process>,
    queue: BTreeMap<(u64, u64), Event>,
    /// Who died, which process it was, and when.
    dead: Vec<(NodeId, u64, u64)>,
    now: u64,
    sequence: u64,
}

impl Network {
    pub(crate) fn new(seed: u64, config: RingConfig) -> Self {
        Self {
            random: Random(seed),
            config,
            traffic: Traffic::default(),
            loss: 0,
            found: BTreeMap::new(),
            joined: BTreeSet::new(),
            processes: BTreeMap::new(),
            queue: BTreeMap::new(),
            dead: Vec::new(),
            now: 0,
            sequence: 0,
        }
    }

    pub(crate) fn nodes(&self) -> Vec<&RingNode> {
        self.processes.values().map(|process| &process.node).collect()
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.processes.keys().copied().collect()
    }

    pub(crate) fn node(&self, id: NodeId) -> &RingNode {
        &self.processes[&id].node
    }

    /// Grows with every event.
    pub(crate) fn turn(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn milliseconds(&self) -> u64 {
        self.now / 1_000
    }

    pub(crate) fn start(&mut self, id: NodeId, input: Input) {
        self.sequence += 1;
        let node = RingNode::new(id, self.config.clone());
        let process = Process {
            node,
            born: self.sequence,
            timers: BTreeMap::new(),
            declared: BTreeMap::new(),
        };
        assert!(self.processes.insert(id, process).is_none(), "{id} runs already");
        // Its failure detector finds out by itself about those that died just before.
        for (who, born, when) in self.dead.clone() {
            if who != id && self.now < when + 5_000_000 {
                let wait = 1_000_000 + self.random.below(2_000_000);
                self.schedule(wait, Event::Failed { at: id, who, born });
            }
        }
        self.input(id, input);
    }

    /// Puts another state in the place of a process's own.
    pub(crate) fn replace(&mut self, node: RingNode) {
        let id = node.id();
        self.processes.get_mut(&id).expect("a running process").node = node;
    }

    /// The process dies; every other one is told within one to three seconds.
    pub(crate) fn kill(&mut self, id: NodeId) {
        let born = self.processes.remove(&id).expect("a running process").born;
        self.joined.remove(&id);
        self.dead.push((id, born, self.now));
        for at in self.ids() {
            let wait = 1_000_000 + self.random.below(2_000_000);
            self.schedule(wait, Event::Failed { at, who: id, born });
        }
    }

    /// Everybody meets this node, and it everybody, within two seconds.
    pub(crate) fn meet(&mut self, id: NodeId) {
        for other in self.ids().into_iter().filter(|other| *other != id) {
            for (at, who) in [(other, id), (id, other)] {
                let wait = self.random.below(2_000_000);
                self.schedule(wait, Event::Met { at, who });
            }
        }
    }

    pub(crate) fn lookup(&mut self, at: NodeId, target: RingId) -> LookupId {
        self.sequence += 1;
        let lookup = LookupId::new(self.sequence);
        self.input(at, Input::Lookup { lookup, target });
        lookup
    }

    pub(crate) fn input(&mut self, at: NodeId, input: Input) {
        let mut out = Vec::new();
        let Some(process) = self.processes.get_mut(&at) else {
            return;
        };
        process.node.handle(input, &mut out);
        let born = process.born;
        assert_batched(&out);
        for output in out {
            self.output(at, born, output);
        }
    }

    /// Lets this much time pass; `check` sees the nodes after every sixteenth event.
    pub(crate) fn run_checked(&mut self, time: Duration, mut check: impl FnMut(&Self)) {
        let end = self.now + time.as_micros() as u64;
        let mut events = 0_u64;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            self.now = entry.key().0;
            let event = entry.remove();
            self.event(event);
            events += 1;
            if events.is_multiple_of(16) {
                check(self);
            }
        }
        self.now = end;
    }

    pub(crate) fn run(&mut self, time: Duration) {
        self.run_checked(time, |_| {});
    }

    fn schedule(&mut self, wait: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + wait, self.sequence), event);
    }

    fn output(&mut self, at: NodeId, born: u64, output: Output) {
        match output {
            Output::Send { to, message } => {
                self.traffic.messages += 1;
                self.traffic.entries += entries_in(&message);
                if self.random.below(1_000) < self.loss {
                    self.traffic.lost += 1;
                    return;
                }
                let wait = 500 + self.random.below(20_000);
                self.schedule(wait, Event::Deliver { to, from: at, born, message });
            }
            Output::SetTimer(timer, after) => self.set_timer(at, timer, after),
            Output::Await { query, at_most, .. } => {
                self.set_timer(at, Timer::Query(query), at_most);
            }
            Output::Found { lookup, route } => {
                self.found.insert(lookup, Some(route));
            }
            Output::LookupFailed { lookup, .. } => {
                self.found.insert(lookup, None);
            }
            Output::Joined => self.on_joined(at),
            Output::ViewChanged => {}
        }
    }

    fn set_timer(&mut self, at: NodeId, timer: Timer, after: Duration) {
        let after = after.as_micros() as u64;
        let wait = after * 9 / 10 + self.random.below(after / 5 + 1);
        let set = self.sequence + 1;
        self.schedule(wait, Event::Timer { at, timer, set });
        if let Some(process) = self.processes.get_mut(&at) {
            process.timers.insert(timer, set);
        }
    }

    fn on_joined(&mut self, at: NodeId) {
        self.joined.insert(at);
        // The transport of those that had given it up meets its new incarnation.
        for other in self.ids() {
            if self.processes[&other].declared.contains_key(&at) {
                let wait = self.random.below(500_000);
                self.schedule(wait, Event::Met { at: other, who: at });
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Deliver { to, from, born, message } => {
                let declared =
                    self.processes.get(&to).and_then(|process| process.declared.get(&from));
                if declared.is_none_or(|declared| *declared < born) {
                    self.input(to, Input::Message { from, message });
                }
            }
            Event::Timer { at, timer, set } => {
                let Some(process) = self.processes.get_mut(&at) else {
                    return;
                };
                if process.timers.get(&timer) == Some(&set) {
                    process.timers.remove(&timer);
                    self.input(at, Input::Timer(timer));
                }
            }
            Event::Failed { at, who, born } => {
                let back = self.processes.get(&who).is_some_and(|process| process.born != born);
                let Some(process) = self.processes.get_mut(&at) else {
                    return;
                };
                process.declared.insert(who, born);
                if !back {
                    self.input(at, Input::Failed(who));
                }
            }
            Event::Met { at, who } => {
                if self.processes.get(&who).is_some_and(|process| process.node.is_member()) {
                    self.input(at, Input::Met(who));
                }
            }
        }
    }
}

fn entries_in(message: &Message) -> u64 {
    match message {
        Message::State { successors, .. } => 1 + successors.len() as u64,
        Message::Owner { list, .. } => 1 + list.len() as u64,
        Message::Closer { candidates, .. } => candidates.len() as u64,
        _ => 1,
    }
}

/// The transport counts on it: messages to one node come out next to each other.
fn assert_batched(out: &[Output]) {
    let to = |output: &Output| match output {
        Output::Send { to, .. } => Some(*to),
        _ => None,
    };
    let receivers: Vec<_> = out.iter().filter_map(to).collect();
    let runs = receivers.windows(2).filter(|pair| pair[0] != pair[1]).count()
        + usize::from(!receivers.is_empty());
    let distinct: BTreeSet<_> = receivers.iter().collect();
    assert_eq!(runs, distinct.len());
}
