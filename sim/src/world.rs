//! All machines, the network between them, and time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use triad_client::{Client, ClientBuilder, Dialer, Wire};
use triad_server::config::Config;

use crate::machine::{Death, Machine, Processor};
use crate::network::{MachineId, Network};
use crate::platform::CLIENT_PORT;
use crate::rng::Rng;
use crate::trace::Trace;
use futures::FutureExt;

/// Machines of a world at most; the clients' machine has the number behind.
pub const MACHINES: u8 = 9;
const CLIENTS: MachineId = MachineId(MACHINES);

/// What a world is made of.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// How many machines have a server from the start on.
    pub servers: u8,
    /// Shards of the cluster.
    pub shards: u32,
    /// Virtual nodes of each node.
    pub virtual_nodes: u16,
    /// How long a step is: what happens on two machines within one is concurrent.
    pub step: Duration,
    /// Requests that a node lets in at once.
    pub in_flight: u32,
}

/// All machines, the network between them, and time.
pub struct World {
    /// What has happened.
    pub trace: Trace,
    /// The network between the machines.
    pub network: Network,
    /// Since when nothing is wrong.
    pub steady: Steady,
    /// The machines that have, had or may get servers.
    pub machines: Vec<Machine>,
    size: Size,
    sync: Duration,
    rng: Rng,
    now: Duration,
    /// When the machines whose processes have ended start theirs again.
    restarts: BTreeMap<MachineId, Duration>,
    /// Where all clients run. It never fails; its links may.
    clients: Processor,
    root: TempDir,
}

impl World {
    /// A world with so many servers, of which the first makes the cluster and the others join it.
    pub fn new(size: Size, sync: Duration, mut rng: Rng, trace: Trace) -> std::io::Result<Self> {
        let network = Network::new(rng.fork("network"), trace.clone());
        network.add("clients", CLIENTS);
        let clients = Processor::start(Duration::ZERO);
        let mut world = Self {
            trace,
            network,
            steady: Steady::default(),
            machines: Vec::new(),
            size,
            sync,
            rng,
            now: Duration::ZERO,
            restarts: BTreeMap::new(),
            clients,
            root: root()?,
        };
        for _ in 0..size.servers {
            world.add_machine();
        }
        Ok(world)
    }

    /// How long a sync takes at most on a disk with which nothing is wrong.
    pub fn sync(&self) -> Duration {
        self.sync
    }

    /// How many shards the cluster has.
    pub fn shards(&self) -> u32 {
        self.size.shards
    }

    /// The time that has passed.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The machine of this number.
    pub fn machine(&mut self, id: MachineId) -> &mut Machine {
        &mut self.machines[usize::from(id.0)]
    }

    /// The numbers of all machines.
    pub fn ids(&self) -> Vec<MachineId> {
        self.machines.iter().map(|machine| machine.id).collect()
    }

    /// What the machine is called.
    pub fn name(&self, id: MachineId) -> String {
        self.machines[usize::from(id.0)].name.clone()
    }

    /// The machine of the clients.
    pub fn clients_id(&self) -> MachineId {
        CLIENTS
    }

    /// Adds a machine and starts its server; none when there are [enough](MACHINES).
    pub fn add_machine(&mut self) -> Option<MachineId> {
        let number = u8::try_from(self.machines.len()).ok().filter(|number| *number < MACHINES)?;
        let id = MachineId(number);
        let config = self.config(number);
        let rng = self.rng.fork(&format!("machine {number}"));
        let mut machine = Machine::new(id, config, self.network.clone(), rng);
        machine.set_sync_time(self.sync);
        machine.start(self.now);
        self.steady.ends(self.now);
        self.trace.tell(self.now, format_args!("{} starts for the first time", machine.name));
        self.machines.push(machine);
        Some(id)
    }

    fn config(&self, number: u8) -> Config {
        let name = format!("n{}", number + 1);
        let mut config = Config::default();
        config.storage.data_dir = self.root.path().join(&name);
        config.storage.reserve = 0;
        config.node.advertise_client = format!("{name}:{CLIENT_PORT}");
        config.node.advertise_peer = format!("{name}:{}", crate::platform::PEER_PORT);
        config.node.name = name;
        config.cluster.bootstrap = Some(number == 0);
        config.cluster.seeds =
            (1..=3).map(|seed| format!("n{seed}:{}", crate::platform::PEER_PORT)).collect();
        config.cluster.shards = self.size.shards;
        config.cluster.virtual_nodes = self.size.virtual_nodes;
        config.cluster.down_after = Duration::from_secs(15);
        config.cluster.placement_settle = Duration::from_millis(500);
        config.limits.in_flight = self.size.in_flight;
        config.repair.interval = Duration::from_secs(2);
        config.repair.scrub = Duration::from_secs(10);
        config
    }

    /// Lets one step pass.
    pub fn step(&mut self) {
        let (before, now) = (self.now, self.now + self.size.step);
        self.network.advance(before);
        self.restart_due(before);
        for machine in &mut self.machines {
            if let Some(why) = machine.run_until(before, now) {
                // The place of the files is another in each run.
                let why = why.replace(&*self.root.path().to_string_lossy(), "");
                let again =
                    now + self.rng.between(Duration::from_millis(50), Duration::from_secs(2));
                self.trace.tell(now, format_args!("{} has ended: {why}", machine.name));
                self.restarts.insert(machine.id, again);
            }
        }
        self.clients.run_until(now);
        let there = |machine: &Machine| machine.is_running() && !machine.is_paused();
        if !self.network.is_well() || !self.machines.iter().all(there) {
            self.steady.ends(now);
        }
        self.now = now;
        self.trace.reach(now);
    }

    /// Lets this time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn restart_due(&mut self, now: Duration) {
        let due: Vec<MachineId> =
            self.restarts.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for id in due {
            self.restarts.remove(&id);
            self.start(id);
        }
    }

    /// Starts the machine's server, if none runs.
    pub fn start(&mut self, id: MachineId) {
        let now = self.now;
        let machine = self.machine(id);
        if !machine.is_running() {
            machine.start(now);
            let name = machine.name.clone();
            self.steady.ends(now);
            self.trace.tell(now, format_args!("{name} starts"));
        }
    }

    /// Takes the machine's process away, and starts it again at `again`. Answers how many batches were not synced.
    pub fn kill(&mut self, id: MachineId, how: Death, again: Duration) -> usize {
        let unsynced = self.machine(id).die(how);
        self.restarts.insert(id, again);
        unsynced
    }

    /// Every machine whose process does not run starts it soon.
    pub fn revive_all(&mut self) {
        let now = self.now;
        for machine in &mut self.machines {
            if !machine.is_running() {
                let at = self.restarts.entry(machine.id).or_insert(now);
                *at = (*at).min(now);
            }
            if machine.is_paused() {
                machine.pause(now);
            }
        }
    }

    /// A client on the clients' machine that knows all servers.
    pub fn client(&self, build: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
        let (network, clock) = (self.network.clone(), self.clients.clock.clone());
        let dialer: Dialer = Arc::new(move |address: &str| {
            let dialing = network.clone().dial(CLIENTS, clock.clone(), address.to_owned());
            async move { dialing.await.map(|wire| Box::new(wire) as Box<dyn Wire>) }.boxed()
        });
        let addresses =
            self.machines.iter().map(|machine| format!("{}:{CLIENT_PORT}", machine.name));
        let builder = Client::builder().endpoints(addresses).dialer(dialer);
        let _in = self.clients.runtime.enter();
        build(builder).connect_lazy().expect("names of machines are addresses")
    }

    /// Runs a task on the clients' machine. What it returns is there once it has ended.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Promise<T> {
        let promise = Promise(Arc::new(Mutex::new(None)));
        let kept = Promise(Arc::clone(&promise.0));
        self.clients.runtime.spawn(async move {
            let result = task.await;
            *kept.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        promise
    }

    /// The clock of the clients' machine.
    pub fn clients_clock(&self) -> crate::clock::MachineClock {
        self.clients.clock.clone()
    }

    /// Lets time pass until the task has ended, `limit` at most.
    pub fn wait_for<T>(&mut self, promise: &Promise<T>, limit: Duration) -> Option<T> {
        let end = self.now + limit;
        while self.now < end {
            if let Some(result) = promise.take() {
                return Some(result);
            }
            self.step();
        }
        promise.take()
    }
}

/// Since when nothing is wrong with any machine or link, in microseconds; and whether a clock was ever wrong.
#[derive(Clone, Default)]
pub struct Steady {
    since: Arc<AtomicU64>,
    clocks: Arc<AtomicBool>,
}

impl Steady {
    fn ends(&self, now: Duration) {
        self.since.store(now.as_micros() as u64, Ordering::Relaxed);
    }

    /// A clock is wrong.
    pub fn clock_is_wrong(&self) {
        self.clocks.store(true, Ordering::Relaxed);
    }

    /// Whether what began then, and lasted until now, can be judged by the clock: nothing else was wrong since `before`
    /// it, or no clock ever was.
    pub fn may_judge(&self, began: Duration, before: Duration) -> bool {
        let since = Duration::from_micros(self.since.load(Ordering::Relaxed));
        !self.clocks.load(Ordering::Relaxed) || since + before <= began
    }
}

/// The result of a task that may still run.
pub struct Promise<T>(Arc<Mutex<Option<T>>>);

impl<T> Promise<T> {
    /// The result, once.
    pub fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Small files are synced at each start: in memory, where there is such a place.
fn root() -> std::io::Result<TempDir> {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir()
        && let Ok(root) = TempDir::with_prefix_in("triad-sim-", memory)
    {
        return Ok(root);
    }
    TempDir::with_prefix("triad-sim-")
}
