//! Faults: what can go wrong, and when it does.
//!
//! Each seed draws a *swarm* (Groce et al., *Swarm Testing*, 2012): the kinds that may happen at all in this run, and
//! how often. A run with everything at once hides what a run with two kinds shows.

mod effect;
mod inject;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::load::Load;
use crate::view::View;
pub(crate) use effect::LONG;
use effect::{Case, Eyes, Trace};
pub use effect::{Feelings, Felt};
use triad_replica::member::StoreId;

use crate::network::{Link, MachineId};
use crate::rng::Rng;
use crate::world::World;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A process is asked to end, and started again.
    Restart,
    /// A process is killed and started again.
    Kill,
    /// A machine loses its power: connections say nothing, unsynced writes are lost.
    PowerCut,
    /// Several machines lose their power at once.
    Blackout,
    /// A machine comes back without its disks, as another node.
    Wipe,
    /// A process stands still.
    Pause,
    /// Two groups of machines cannot reach each other.
    Partition,
    /// Two machines cannot reach each other, but all others reach both.
    PartialPartition,
    /// A machine hears others and is not heard.
    OneWay,
    /// Segments are lost.
    Loss,
    /// Links are slow to answer.
    Delay,
    /// Links carry little; who reads from them is slow.
    SlowReader,
    /// A wall clock is wrong.
    ClockOffset,
    /// A disk takes nothing more.
    FullDisk,
    /// A write fails.
    WriteError,
    /// A read fails.
    ReadError,
    /// A sync fails.
    SyncError,
    /// A disk takes its time to sync.
    SlowDisk,
    /// Power fails in the middle of a batch, and the engine finds a part of it.
    TornBatch,
    /// A stored bit is flipped.
    FlippedBit,
    /// A node joins.
    Join,
    /// Two nodes join at once.
    TwoJoins,
    /// A node leaves politely.
    Leave,
    /// A dead node's places are given to others.
    Replace,
    /// More requests at once than can be done.
    Overload,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 25] = [
        Self::Restart,
        Self::Kill,
        Self::PowerCut,
        Self::Blackout,
        Self::Wipe,
        Self::Pause,
        Self::Partition,
        Self::PartialPartition,
        Self::OneWay,
        Self::Loss,
        Self::Delay,
        Self::SlowReader,
        Self::ClockOffset,
        Self::FullDisk,
        Self::WriteError,
        Self::ReadError,
        Self::SyncError,
        Self::SlowDisk,
        Self::TornBatch,
        Self::FlippedBit,
        Self::Join,
        Self::TwoJoins,
        Self::Leave,
        Self::Replace,
        Self::Overload,
    ];
}

/// How often each kind happened, and how often it made a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<Kind, (u64, u64)>);

impl Counts {
    fn injected(&mut self, kind: Kind) {
        self.0.entry(kind).or_default().0 += 1;
    }

    fn mattered(&mut self, kind: Kind) {
        self.0.entry(kind).or_default().1 += 1;
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (kind, (injected, mattered)) in &other.0 {
            let sum = self.0.entry(*kind).or_default();
            sum.0 += injected;
            sum.1 += mattered;
        }
    }
}

/// What is taken back after a while.
enum Undo {
    Links(Vec<(MachineId, MachineId)>),
    Clock(MachineId),
    Disk(MachineId),
    SyncTime(MachineId),
    /// The machine starts again without its disks.
    StartEmpty(MachineId),
    /// An operator gives the dead node's places away.
    GiveAway(String),
    /// The power fails as soon as some machine writes a batch; until then it is tried.
    Tear(Duration),
}

/// The faults of one run.
pub struct Faults {
    /// What has happened.
    pub counts: Counts,
    enabled: Vec<Kind>,
    /// Faults that may still show.
    cases: Vec<Case>,
    eyes: Eyes,
    /// Rows that cannot be read, by store.
    damaged: BTreeMap<StoreId, usize>,
    /// The one machine whose clock may be far off.
    wrong_clock: Option<MachineId>,
    pause: Duration,
    next: Duration,
    undo: Vec<(Duration, Kind, Undo)>,
    /// Machines whose nodes were asked to leave, and that have not begun anew since.
    leaving: BTreeSet<MachineId>,
    /// No other store may be lost before.
    next_loss: Duration,
    rng: Rng,
}

impl Faults {
    /// The swarm of a seed.
    pub fn new(mut rng: Rng, rarer: u32) -> Self {
        let share = [150, 300, 600][rng.index(3)];
        let mut enabled: Vec<Kind> = Kind::ALL.into_iter().filter(|_| rng.chance(share)).collect();
        if enabled.is_empty() {
            enabled.push(Kind::PowerCut);
        }
        // Whether a wrong clock does harm shows where little else is wrong.
        if enabled.contains(&Kind::ClockOffset) && rng.clone().chance(300) {
            enabled.retain(|kind| {
                matches!(kind, Kind::ClockOffset | Kind::SlowDisk | Kind::Overload | Kind::FullDisk)
            });
        }
        let pause = rarer * rng.between(Duration::from_millis(500), Duration::from_secs(8));
        Self {
            counts: Counts::default(),
            enabled,
            cases: Vec::new(),
            eyes: Eyes { felt: Felt::default(), mended: 0 },
            damaged: BTreeMap::new(),
            wrong_clock: None,
            pause,
            next: Duration::ZERO,
            undo: Vec::new(),
            leaving: BTreeSet::new(),
            next_loss: Duration::ZERO,
            rng,
        }
    }

    /// The kinds that may happen.
    pub fn enabled(&self) -> &[Kind] {
        &self.enabled
    }

    /// What is due now: takes faults back, and lets others happen.
    pub fn tick(&mut self, world: &mut World, load: &Load) {
        self.take_back(world, |due, now| due <= now);
        self.eyes.felt = load.feelings.now();
        if world.now() < self.next {
            return;
        }
        self.next = world.now() + self.rng.between(Duration::from_millis(10), 2 * self.pause);
        if let Some(kind) = self.rng.clone().pick(&self.enabled).copied() {
            self.rng.draw();
            if self.inject(kind, world, load) {
                self.counts.injected(kind);
            }
        }
    }

    /// Takes in what shows of faults.
    pub fn watch(&mut self, world: &World, view: &View, load: &Load) {
        self.eyes.felt = load.feelings.now();
        for store in &view.stores {
            let before = self.damaged.insert(store.member.store, store.damaged).unwrap_or(0);
            self.eyes.mended += u64::from(store.damaged < before);
        }
        let gone = |store: &StoreId| view.stores.iter().all(|one| one.member.store != *store);
        let replaced = self.damaged.iter().filter(|(store, rows)| **rows > 0 && gone(store));
        self.eyes.mended += replaced.count() as u64;
        self.damaged.retain(|store, _| !gone(store));
        let (eyes, counts) = (self.eyes, &mut self.counts);
        self.cases.retain(|case| {
            let shows = case.shows(world, view, &eyes);
            if shows {
                counts.mattered(case.kind());
            }
            !shows && !case.is_over(world.now())
        });
    }

    /// A fault has begun that lasts until then.
    fn open(&mut self, kind: Kind, over: Duration, trace: Trace, world: &World) {
        self.cases.push(Case::open(kind, over, trace, world, self.eyes));
    }

    /// All faults end. What nodes were asked to do goes on: see [`Self::tidy`].
    pub fn end(&mut self, world: &mut World) {
        self.take_back(world, |_, _| true);
        world.network.heal();
        world.revive_all();
    }

    /// Nodes that have left begin anew, in peace as well: else a cluster that many leave would stay too small.
    pub fn tidy(&mut self, world: &mut World) {
        self.take_back(world, |due, now| due <= now);
    }

    fn take_back(&mut self, world: &mut World, is_due: impl Fn(Duration, Duration) -> bool) {
        let now = world.now();
        let all = std::mem::take(&mut self.undo);
        let (due, later) = all.into_iter().partition(|(at, ..)| is_due(*at, now));
        self.undo = later;
        for (_, kind, undo) in due {
            self.undo(kind, undo, world);
        }
    }

    fn undo(&mut self, kind: Kind, undo: Undo, world: &mut World) {
        if !matches!(undo, Undo::StartEmpty(_) | Undo::Tear(_)) {
            world.trace.tell(world.now(), format_args!("{kind:?} is over"));
        }
        match undo {
            Undo::Links(links) => {
                for (from, to) in links {
                    world.network.change(from, to, |link| *link = Link::default());
                }
            }
            Undo::Clock(id) => world.machine(id).set_clock_offset(0),
            Undo::Disk(id) => {
                if let Some(store) = world.machine(id).disks.current() {
                    store.set_capacity(u64::MAX);
                }
            }
            Undo::SyncTime(id) => {
                let sync = world.sync();
                world.machine(id).set_sync_time(sync);
            }
            Undo::StartEmpty(id) => self.start_empty(id, kind, world),
            Undo::Tear(until) => {
                if !self.tear(world) && world.now() < until {
                    let again = world.now() + Duration::from_millis(3);
                    self.undo.push((again, kind, Undo::Tear(until)));
                }
            }
            Undo::GiveAway(name) => {
                let client = world.client(|builder| builder);
                drop(world.spawn(async move {
                    // Refused where it is not down long enough, or gone already.
                    let _ = client.cluster().replace(&name, false).await;
                }));
            }
        }
    }
}
