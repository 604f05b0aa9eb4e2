//! How each kind of fault is done.

use std::time::Duration;

use triad_replica::store::Store;
use triad_replica::store::memory::Fault;

use triad_replica::member::Member;

use super::effect::Trace;
use super::{Faults, Kind, Undo};
use crate::load::Load;
use crate::machine::Death;
use crate::network::{Link, MachineId};
use crate::view::View;
use crate::world::{MACHINES, World};

/// Copies of each shard.
pub(crate) const COPIES: usize = 3;
/// How long no other store may be lost after one was: scrubs and moves must have had their turn.
const BETWEEN_LOSSES: Duration = Duration::from_secs(40);
/// How long a process may take to end and start again, and too many requests to be done.
const RESTART: Duration = Duration::from_secs(3);
/// How often a node that leaves is looked at, whether it has.
const LEAVE_AGAIN: Duration = Duration::from_secs(2);

fn tell(world: &World, kind: Kind, what: &str) {
    world.trace.tell(world.now(), format_args!("{kind:?}: {what}"));
}

impl Faults {
    /// Lets one happen. False when it cannot happen now.
    pub(super) fn inject(&mut self, kind: Kind, world: &mut World, load: &Load) -> bool {
        match kind {
            Kind::Restart => {
                let Some(id) = self.running(world) else { return false };
                tell(world, kind, &world.name(id));
                world.machine(id).stop();
                self.open(kind, world.now() + RESTART, Trace::Clients, world);
                true
            }
            Kind::Kill => self.kill(world, Death::Kill, kind),
            Kind::PowerCut => self.kill(world, Death::PowerCut, kind),
            Kind::Blackout => self.blackout(world),
            Kind::Wipe => self.wipe(world, kind),
            Kind::Replace => self.replace(world),
            Kind::Pause => self.pause(world),
            Kind::Partition | Kind::PartialPartition | Kind::OneWay => self.cut(world, kind),
            Kind::Loss | Kind::Delay | Kind::SlowReader => self.spoil(world, kind),
            Kind::ClockOffset => self.set_clock(world),
            Kind::FullDisk
            | Kind::WriteError
            | Kind::ReadError
            | Kind::SyncError
            | Kind::SlowDisk => self.hurt_disk(world, kind),
            Kind::TornBatch => {
                let until = world.now() + Duration::from_secs(5);
                self.undo.push((world.now(), kind, Undo::Tear(until)));
                true
            }
            Kind::FlippedBit => self.flip(world),
            Kind::Join => self.join(world, kind, 1),
            Kind::TwoJoins => self.join(world, kind, 2),
            Kind::Leave => self.leave(world),
            Kind::Overload => {
                let requests = 100 + self.rng.below(300) as u32;
                tell(world, kind, &format!("{requests} requests"));
                self.open(kind, world.now() + RESTART, Trace::Overload, world);
                load.burst(world, requests, &mut self.rng);
                true
            }
        }
    }

    fn running(&mut self, world: &World) -> Option<MachineId> {
        let running: Vec<MachineId> = world
            .machines
            .iter()
            .filter(|machine| machine.is_running() && !machine.is_paused())
            .map(|machine| machine.id)
            .collect();
        self.rng.pick(&running).copied()
    }

    fn seconds(&mut self, least: f64, most: f64) -> Duration {
        self.rng.between(Duration::from_secs_f64(least), Duration::from_secs_f64(most))
    }

    fn kill(&mut self, world: &mut World, how: Death, kind: Kind) -> bool {
        let Some(id) = self.running(world) else { return false };
        let again = world.now() + self.seconds(0.05, 12.0);
        let unsynced = world.kill(id, how, again);
        tell(world, kind, &format!("{} with {unsynced} batches", world.name(id)));
        self.gone(world, kind, unsynced, again);
        true
    }

    /// Processes are gone until then: that matters when batches are lost, or clients feel it.
    fn gone(&mut self, world: &World, kind: Kind, unsynced: usize, again: Duration) {
        if unsynced > 0 && kind != Kind::Kill {
            self.counts.mattered(kind);
        } else {
            self.open(kind, again, Trace::Clients, world);
        }
    }

    fn blackout(&mut self, world: &mut World) -> bool {
        let again = world.now() + self.seconds(0.05, 6.0);
        let mut unsynced = 0;
        for id in world.ids() {
            if world.machine(id).is_running() && self.rng.chance(800) {
                let apart = self.seconds(0.0, 5.0);
                unsynced += world.kill(id, Death::PowerCut, again + apart);
            }
        }
        tell(world, Kind::Blackout, &format!("{unsynced} batches"));
        self.gone(world, Kind::Blackout, unsynced, again + Duration::from_secs(5));
        true
    }

    /// Whether one store may be lost now, for ever.
    fn may_lose(&mut self, world: &World) -> bool {
        if world.now() < self.next_loss || !View::of(world).is_whole(COPIES) {
            return false;
        }
        self.next_loss = world.now() + BETWEEN_LOSSES;
        true
    }

    fn wipe(&mut self, world: &mut World, kind: Kind) -> bool {
        let Some(id) = self.running(world).filter(|_| self.may_lose(world)) else { return false };
        tell(world, kind, &world.name(id));
        let again = world.now() + self.seconds(0.05, 10.0);
        self.loses(world, kind, id);
        world.kill(id, Death::PowerCut, again);
        world.machine(id).wipe();
        true
    }

    /// The machine's store is lost now: that matters when its place is given to another.
    fn loses(&mut self, world: &World, kind: Kind, id: MachineId) {
        let view = View::of(world);
        let newest = view.newest();
        let is_member = |member: &Member| newest.values().any(|known| known.is_member(member));
        let store = view.stores.iter().find(|store| store.machine == id);
        if let Some(member) = store.map(|store| store.member).filter(is_member) {
            self.open(kind, world.now(), Trace::Replaced(member), world);
        }
    }

    /// The power fails where a batch is being written. False when none is, or no store may be lost.
    pub(super) fn tear(&mut self, world: &mut World) -> bool {
        let writes = |id: &MachineId| {
            let machine = &world.machines[usize::from(id.0)];
            let store = machine.disks.current().filter(|_| machine.is_running());
            store.is_some_and(|store| store.unsynced() > 0)
        };
        let Some(id) = world.ids().into_iter().find(writes) else { return false };
        if !self.may_lose(world) {
            return false;
        }
        tell(world, Kind::TornBatch, &world.name(id));
        self.loses(world, Kind::TornBatch, id);
        let again = world.now() + self.seconds(0.05, 10.0);
        world.machine(id).disks.tear();
        world.kill(id, Death::PowerCut, again);
        true
    }

    fn replace(&mut self, world: &mut World) -> bool {
        let Some(id) = self.running(world).filter(|_| self.may_lose(world)) else { return false };
        let name = world.name(id);
        tell(world, Kind::Replace, &name);
        let now = world.now();
        let again = now + self.seconds(20.0, 40.0);
        self.loses(world, Kind::Replace, id);
        world.kill(id, Death::PowerCut, again);
        world.machine(id).wipe();
        let given = now + self.seconds(4.0, 12.0);
        self.undo.push((given, Kind::Replace, Undo::GiveAway(name)));
        true
    }

    pub(super) fn start_empty(&mut self, id: MachineId, kind: Kind, world: &mut World) {
        // Only who is a member of nothing any more may lose its store without its counting as lost.
        let view = View::of(world);
        let Some(store) = view.stores.iter().find(|store| store.machine == id) else {
            self.leaving.remove(&id);
            return;
        };
        let holds = view
            .newest()
            .values()
            .any(|known| known.is_member(&store.member) || known.retired.contains(&store.member));
        if holds || store.hints > 0 {
            let later = world.now() + LEAVE_AGAIN;
            self.undo.push((later, kind, Undo::StartEmpty(id)));
            return;
        }
        self.leaving.remove(&id);
        let again = world.now() + self.seconds(0.05, 5.0);
        world.kill(id, Death::Kill, again);
        world.machine(id).wipe();
        tell(world, kind, &format!("{} has left and begins anew", world.name(id)));
        self.counts.mattered(kind);
    }

    fn pause(&mut self, world: &mut World) -> bool {
        let Some(id) = self.running(world) else { return false };
        let long = self.seconds(0.1, 12.0);
        tell(world, Kind::Pause, &format!("{} for {long:?}", world.name(id)));
        let until = world.now() + long;
        world.machine(id).pause(until);
        self.open(Kind::Pause, until, Trace::Clients, world);
        true
    }

    fn change(
        &mut self,
        world: &mut World,
        kind: Kind,
        links: Vec<(MachineId, MachineId)>,
        change: impl Fn(&mut Link),
    ) {
        for (from, to) in &links {
            world.network.change(*from, *to, &change);
        }
        let until = world.now() + self.seconds(0.5, 20.0);
        self.open(kind, until, Trace::Links(links.clone()), world);
        self.undo.push((until, kind, Undo::Links(links)));
    }

    fn cut(&mut self, world: &mut World, kind: Kind) -> bool {
        let mut all = world.ids();
        all.push(world.clients_id());
        let servers = &all[..all.len() - 1];
        let (Some(one), Some(other)) =
            (self.rng.pick(servers).copied(), self.rng.pick(servers).copied())
        else {
            return false;
        };
        let links: Vec<(MachineId, MachineId)> = match kind {
            Kind::Partition => {
                let sides: Vec<bool> = all.iter().map(|_| self.rng.chance(400)).collect();
                let pairs = all.iter().zip(&sides).flat_map(|(from, here)| {
                    let across = all.iter().zip(&sides).filter(move |(_, there)| here != *there);
                    across.map(move |(to, _)| (*from, *to))
                });
                pairs.collect()
            }
            Kind::PartialPartition => vec![(one, other), (other, one)],
            _ => all.iter().filter(|to| **to != one).map(|to| (one, *to)).collect(),
        };
        if links.is_empty() || (kind == Kind::PartialPartition && one == other) {
            return false;
        }
        tell(world, kind, &format!("{} links", links.len()));
        self.change(world, kind, links, |link| link.cut = true);
        true
    }

    fn spoil(&mut self, world: &mut World, kind: Kind) -> bool {
        let mut all = world.ids();
        all.push(world.clients_id());
        let Some(one) = self.rng.pick(&all).copied() else { return false };
        let everywhere = self.rng.chance(300);
        let links: Vec<(MachineId, MachineId)> = all
            .iter()
            .flat_map(|from| all.iter().map(move |to| (*from, *to)))
            .filter(|(from, to)| from != to && (everywhere || *from == one || *to == one))
            .collect();
        let loss = 10 + self.rng.below(300) as u32;
        let (delay, jitter) = (self.seconds(0.001, 1.0), self.seconds(0.001, 1.0));
        let rate = 2_000 + self.rng.below(50_000);
        tell(world, kind, &format!("{} links", links.len()));
        self.change(world, kind, links, |link| match kind {
            Kind::Loss => link.loss = loss,
            Kind::Delay => (link.delay, link.jitter) = (delay, jitter),
            _ => link.rate = rate,
        });
        true
    }

    fn set_clock(&mut self, world: &mut World) -> bool {
        let Some(id) = self.running(world) else { return false };
        // Of the clocks one may be far off; a few milliseconds are any clock's.
        let id = *self.wrong_clock.get_or_insert(id);
        let most = [100, 5_000, 3_600_000][self.rng.index(3)];
        let off = self.rng.below(2 * most).cast_signed() - most.cast_signed();
        tell(world, Kind::ClockOffset, &format!("{} by {off} ms", world.name(id)));
        world.machine(id).set_clock_offset(off);
        if off.unsigned_abs() > 100 {
            world.steady.clock_is_wrong();
        }
        let until = world.now() + self.seconds(1.0, 60.0);
        self.undo.push((until, Kind::ClockOffset, Undo::Clock(id)));
        if off.unsigned_abs() > 2_000 {
            self.open(Kind::ClockOffset, until, Trace::Lives, world);
        }
        true
    }

    fn hurt_disk(&mut self, world: &mut World, kind: Kind) -> bool {
        let Some(id) = self.running(world) else { return false };
        let Some(store) = world.machine(id).disks.current() else { return false };
        // A store that cannot be read at some places cannot be trusted: its node may begin a new one.
        if kind == Kind::ReadError && !self.may_lose(world) {
            return false;
        }
        tell(world, kind, &world.name(id));
        let until = world.now() + self.seconds(0.5, 15.0);
        let skip = self.rng.below(6) as u32;
        match kind {
            Kind::FullDisk => {
                store.set_capacity(store.stats().disk_bytes + self.rng.below(10_000));
                self.undo.push((until, kind, Undo::Disk(id)));
            }
            Kind::SlowDisk => {
                let most = self.seconds(0.01, 0.4);
                world.machine(id).set_sync_time(most);
                self.open(kind, until, Trace::SlowSyncs(id), world);
                self.undo.push((until, kind, Undo::SyncTime(id)));
            }
            Kind::WriteError => store.inject(Fault::Apply { skip }),
            Kind::ReadError => store.inject(Fault::Read { skip: 10 * skip }),
            _ => store.inject(Fault::Sync { skip }),
        }
        if kind != Kind::SlowDisk {
            self.open(kind, until, Trace::Store(store), world);
        }
        true
    }

    fn flip(&mut self, world: &mut World) -> bool {
        let Some(id) = self.running(world).filter(|_| self.may_lose(world)) else { return false };
        let Some(store) = world.machine(id).disks.current() else { return false };
        let Some(row) = store.flip_any_bit(self.rng.draw()) else { return false };
        let row = format!("{:?}", triad_replica::store::Key::decode(&row));
        tell(world, Kind::FlippedBit, &format!("{} in {row}", world.name(id)));
        self.open(Kind::FlippedBit, world.now(), Trace::Mended, world);
        true
    }

    fn join(&mut self, world: &mut World, kind: Kind, nodes: u8) -> bool {
        if world.machines.len() + usize::from(nodes) > usize::from(MACHINES.min(7)) {
            return false;
        }
        let joining = (0..nodes).filter_map(|_| world.add_machine()).collect();
        self.open(kind, world.now(), Trace::Together(joining), world);
        true
    }

    fn leave(&mut self, world: &mut World) -> bool {
        // A cluster shrinks as far as its nodes are asked to leave: enough must stay.
        let staying = world.machines.len() - self.leaving.len();
        let asked = self.running(world).filter(|id| staying > COPIES && !self.leaving.contains(id));
        let Some(id) = asked else { return false };
        self.leaving.insert(id);
        let name = world.name(id);
        tell(world, Kind::Leave, &name);
        let client = world.client(|builder| builder.deadline(Duration::from_secs(20)));
        let (trace, clock) = (world.trace.clone(), world.clients_clock());
        drop(world.spawn(async move {
            let asked = match client.cluster().at(&format!("{name}:7420")) {
                Ok(cluster) => cluster.leave(false).await.map(drop),
                Err(error) => Err(error),
            };
            let said = asked.err().map_or_else(|| "yes".to_owned(), |error| error.to_string());
            trace.tell(clock.now(), format_args!("{name} may leave: {said}"));
        }));
        let until = world.now() + self.seconds(15.0, 40.0);
        self.undo.push((until, Kind::Leave, Undo::StartEmpty(id)));
        true
    }
}
