//! One seed from the beginning to the end: a cluster, clients, faults, and the peace afterwards.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Once;
use std::time::Duration;

use triad_client::Level;
use triad_history::{History, Rules};
use triad_ring::RingNode;
use triad_ring::invariant::is_ideal;

use crate::fault::{Counts, Faults, Felt, Kind};
use crate::invariant::{self, Invariant, Look};
use crate::ledger::Ledger;
use crate::load::{Habits, Load};
use crate::machine::Machine;
use crate::network::NetworkCounts;
use crate::rng::Rng;
use crate::trace::Trace;
use crate::view::View;
use crate::world::{Size, World};

/// How often the invariants are looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a new cluster may take to come to rest, and one whose faults are over.
const REST: Duration = Duration::from_mins(5);
/// Copies of each shard.
const COPIES: usize = 3;

/// What one seed is like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// The cluster.
    pub size: Size,
    /// The clients.
    pub habits: Habits,
    /// How long a sync takes at most.
    pub sync: Duration,
    /// How long faults happen.
    pub faults_for: Duration,
    /// So many times rarer they are than they might be.
    pub rarer: u32,
}

impl Plan {
    /// What the seed says.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork("plan");
        let size = Size {
            servers: 3 + rng.below(3) as u8,
            shards: [4, 8, 16][rng.index(3)],
            virtual_nodes: [4, 8][rng.index(2)],
            step: Duration::from_millis([1, 2, 5][rng.index(3)]),
            in_flight: 4_096,
        };
        let habits = Habits {
            clients: 2 + rng.below(4) as u32,
            keys: 3 + rng.below(20) as u32,
            pause: Duration::from_millis([50, 200, 800][rng.index(3)]),
            deletes: [0, 100, 400][rng.index(3)],
            available: [0, 0, 300][rng.index(3)],
            other_levels: [0, 50, 200][rng.index(3)],
            large: [0, 20][rng.index(2)],
            deadline: Duration::from_millis([700, 3_000, 8_000][rng.index(3)]),
        };
        let faults_for = rng.between(Duration::from_secs(20), Duration::from_secs(70));
        let sync = Duration::from_millis([3, 15, 60][rng.index(3)]);
        let mut plan = Self { seed, size, habits, sync, faults_for, rarer: 1 };
        plan.size.in_flight = [4_096, 64, 16][rng.index(3)];
        plan
    }

    /// A shorter story with fewer requests: for many seeds in little time.
    pub fn short(seed: u64) -> Self {
        let mut plan = Self::of(seed);
        plan.faults_for /= 3;
        plan.size.step = plan.size.step.max(Duration::from_millis(4));
        plan.habits.pause = plan.habits.pause.max(Duration::from_millis(400));
        plan
    }

    /// A story of six minutes in which everything takes its time: for many hours.
    pub fn long(seed: u64) -> Self {
        let mut plan = Self::of(seed);
        plan.faults_for = Duration::from_secs(330);
        plan.rarer = 4;
        plan.size.step = 4 * plan.size.step;
        plan.habits.pause = plan.habits.pause.max(Duration::from_secs(2));
        plan
    }
}

/// How a seed went.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What is wrong; none when all is well.
    pub failure: Option<String>,
    /// The trace's hash and length: the same for each run of a seed.
    pub trace: (u64, u64),
    /// The last lines of the trace.
    pub last: Vec<String>,
    /// Faults.
    pub faults: Counts,
    /// What the network's faults have done.
    pub network: NetworkCounts,
    /// The kinds that were allowed to happen.
    pub swarm: Vec<Kind>,
    /// Requests of clients, and how many of them were answered as wished.
    pub requests: (usize, usize),
    /// Answered reads that were judged.
    pub reads: usize,
    /// What clients have felt.
    pub felt: Felt,
    /// Simulated time.
    pub simulated: Duration,
    /// All that clients asked and were told.
    pub history: History,
}

/// Runs one seed.
pub fn run(plan: &Plan, trace: Trace) -> std::io::Result<Report> {
    watch_panics();
    let mut rng = Rng::new(plan.seed);
    let world = World::new(plan.size, plan.sync, rng.fork("world"), trace)?;
    let faults = Faults::new(rng.fork("faults"), plan.rarer);
    let mut story = Story {
        world,
        faults,
        load: None,
        ledger: Ledger::default(),
        invariants: invariant::all(),
        looked: Duration::ZERO,
        at_rest: false,
        reads: 0,
    };
    let mut load_rng = rng.fork("load");
    let settled = story.settle("the new cluster");
    let load = Rc::new(Load::start(&story.world, plan.habits, &mut load_rng));
    story.load = Some(Rc::clone(&load));
    let outcome = settled.and_then(|()| story.tell(plan, &load));
    Ok(story.report(plan, &load, outcome.err()))
}

struct Story {
    world: World,
    faults: Faults,
    load: Option<Rc<Load>>,
    ledger: Ledger,
    invariants: Vec<Box<dyn Invariant>>,
    looked: Duration,
    at_rest: bool,
    reads: usize,
}

impl Story {
    fn tell(&mut self, plan: &Plan, load: &Load) -> Result<(), String> {
        let end = self.world.now() + plan.faults_for;
        self.at_rest = false;
        while self.world.now() < end {
            self.faults.tick(&mut self.world, load);
            self.step()?;
        }
        self.world.trace.tell(self.world.now(), format_args!("the faults end"));
        self.faults.end(&mut self.world);
        let calm = self.world.now() + Duration::from_secs(5);
        while self.world.now() < calm {
            self.step()?;
        }
        load.stop();
        self.settle("the cluster after its faults")?;
        load.recorder.rest(self.world.now().as_micros() as u64);
        for level in [Level::Quorum, Level::All] {
            let reading = load.read_all(&self.world, level);
            let failed = self.world.wait_for(&reading, Duration::from_mins(2));
            if failed != Some(0) {
                return Err(format!("after the rest, {failed:?} reads at {level:?} fail"));
            }
        }
        self.look()?;
        let report = triad_history::check(&load.recorder.history(), &Rules::default())
            .map_err(|mistake| format!("the history is none: {mistake}"))?;
        self.reads = report.reads;
        match report.violations.first() {
            None => Ok(()),
            Some(first) => Err(format!("{} promises broken: {first}", report.violations.len())),
        }
    }

    fn step(&mut self) -> Result<(), String> {
        self.world.step();
        if let Some(panic) = PANICS.with_borrow_mut(Vec::pop) {
            return Err(format!("a panic: {panic}"));
        }
        if self.world.now() < self.looked + LOOK_EVERY {
            return Ok(());
        }
        self.looked = self.world.now();
        self.look()
    }

    fn look(&mut self) -> Result<(), String> {
        let view = View::of(&self.world);
        if let Some(load) = &self.load {
            if let Some(complaint) = load.complaint() {
                return Err(format!("a time to live: {complaint}"));
            }
            self.ledger.look(load.acknowledged(), &view);
            self.faults.watch(&self.world, &view, load);
        }
        let look = Look {
            now: self.world.now(),
            view: &view,
            ledger: &self.ledger,
            rings: self.rings(),
            at_rest: self.at_rest,
        };
        for invariant in &mut self.invariants {
            invariant.check(&look).map_err(|why| format!("{}: {why}", invariant.name()))?;
        }
        Ok(())
    }

    /// The running nodes' parts of the ring, all of one moment.
    fn rings(&self) -> Vec<RingNode> {
        let shown: Vec<_> = self.world.machines.iter().filter_map(Machine::ring).collect();
        let latest = shown.iter().map(|(at, _)| *at).max();
        shown.into_iter().filter(|(at, _)| Some(*at) == latest).map(|(_, ring)| ring).collect()
    }

    fn unrest(&self) -> Option<String> {
        let unrest = View::of(&self.world).unrest(self.world.shards(), COPIES);
        let rings = self.rings();
        let rings: Vec<&RingNode> = rings.iter().collect();
        unrest.or_else(|| is_ideal(&rings).err().map(|why| why.to_string()))
    }

    /// Lets time pass until the cluster is at rest.
    fn settle(&mut self, who: &str) -> Result<(), String> {
        let end = self.world.now() + REST;
        self.at_rest = false;
        loop {
            let next = self.world.now() + Duration::from_secs(1);
            while self.world.now() < next {
                self.step()?;
            }
            self.faults.tidy(&mut self.world);
            let Some(why) = self.unrest() else { break };
            if self.world.now() >= end {
                return Err(format!("{who} does not come to rest: {why}"));
            }
        }
        self.world.trace.tell(self.world.now(), format_args!("{who} is at rest"));
        self.at_rest = true;
        Ok(())
    }

    fn report(self, plan: &Plan, load: &Load, failure: Option<String>) -> Report {
        let history = load.recorder.history();
        let answered = |operation: &&triad_history::Operation| {
            operation.is_acknowledged() || operation.returned().is_some()
        };
        let requests =
            (history.operations.len(), history.operations.iter().filter(answered).count());
        Report {
            seed: plan.seed,
            failure,
            trace: self.world.trace.digest(),
            last: self.world.trace.last(),
            swarm: self.faults.enabled().to_vec(),
            faults: self.faults.counts,
            network: self.world.network.counts(),
            requests,
            reads: self.reads,
            felt: load.feelings.now(),
            simulated: self.world.now(),
            history,
        }
    }
}

thread_local! {
    /// Panics of simulated servers, which run in the thread of their world.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn watch_panics() {
    static WATCHED: Once = Once::new();
    PANICS.with_borrow_mut(Vec::clear);
    WATCHED.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let _ = PANICS.try_with(|panics| {
                if let Ok(mut panics) = panics.try_borrow_mut() {
                    panics.push(panic.to_string());
                }
            });
            usual(panic);
        }));
    });
}
