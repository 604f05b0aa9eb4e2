//! A machine with at most one server process on it.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use triad_ring::RingNode;
use triad_server::config::Config;
use triad_server::{Server, ServerHandle};

use crate::clock::MachineClock;
use crate::disk::Disks;
use crate::network::{MachineId, Network};
use crate::platform::{Knobs, SimPlatform};
use crate::rng::Rng;
use crate::story::LOOK_EVERY;

type RingSlot = Arc<Mutex<Option<(Duration, RingNode)>>>;

/// A virtual processor: a runtime whose clock moves only when the world says so.
pub(crate) struct Processor {
    pub(crate) runtime: Runtime,
    pub(crate) clock: MachineClock,
}

impl Processor {
    /// One that starts at this time of the world.
    pub(crate) fn start(at: Duration) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without input and output needs nothing of the operating system");
        let clock = runtime.block_on(async { MachineClock::start(at) });
        Self { runtime, clock }
    }

    /// Runs everything that happens here until then.
    pub(crate) fn run_until(&self, now: Duration) {
        self.runtime.block_on(async { tokio::time::sleep_until(self.clock.instant(now)).await });
    }

    /// The processor stood still, but not time.
    pub(crate) fn skip_to(&self, now: Duration) {
        self.runtime.block_on(async {
            let late = now.saturating_sub(self.clock.now());
            tokio::time::advance(late).await;
        });
    }
}

/// A running process.
struct Process {
    processor: Processor,
    /// Why it has ended by itself.
    ended: Arc<Mutex<Option<String>>>,
    stop: mpsc::UnboundedSender<()>,
}

/// How a process is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The process is killed; its machine goes on and closes its connections.
    Kill,
    /// The machine loses its power.
    PowerCut,
}

/// A machine.
pub struct Machine {
    /// Its place in the list of all.
    pub id: MachineId,
    /// Its name, under which others dial it.
    pub name: String,
    /// Its disks.
    pub disks: Disks,
    pub(crate) knobs: Knobs,
    network: Network,
    rng: Rng,
    data_dir: PathBuf,
    config: Config,
    process: Option<Process>,
    /// It stands still until then.
    paused_until: Option<Duration>,
    starts: u32,
    /// How often its process has ended by itself.
    pub(crate) ended: u64,
    /// Its part of the ring, and when it was like this.
    ring: RingSlot,
}

impl Machine {
    /// A machine without a process.
    pub(crate) fn new(id: MachineId, config: Config, network: Network, rng: Rng) -> Self {
        let name = config.node.name.clone();
        network.add(&name, id);
        let data_dir = config.storage.data_dir.clone();
        let knobs = Knobs::default();
        Self {
            id,
            name,
            disks: Disks::default(),
            knobs,
            network,
            rng,
            data_dir,
            config,
            process: None,
            paused_until: None,
            starts: 0,
            ended: 0,
            ring: RingSlot::default(),
        }
    }

    /// Whether a process runs here, paused or not.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Whether its process stands still.
    pub fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// Starts the server.
    pub(crate) fn start(&mut self, now: Duration) {
        self.starts += 1;
        self.network.lighten(self.id);
        let processor = Processor::start(now);
        let rng = self.rng.fork(&format!("start {}", self.starts));
        let platform = Arc::new(SimPlatform {
            machine: self.id,
            network: self.network.clone(),
            clock: processor.clock.clone(),
            disks: self.disks.clone(),
            knobs: self.knobs.clone(),
            rng: Arc::new(Mutex::new(rng)),
        });
        let ended = Arc::new(Mutex::new(None));
        self.ring = RingSlot::default();
        let ring = (Arc::clone(&self.ring), processor.clock.clone());
        let (stop, stopped) = mpsc::unbounded_channel();
        let serving = serve(platform, self.config.clone(), Arc::clone(&ended), stopped, ring);
        processor.runtime.spawn(serving);
        self.process = Some(Process { processor, ended, stop });
    }

    /// Takes the process away. Answers how many batches were not synced.
    pub(crate) fn die(&mut self, how: Death) -> usize {
        if how == Death::PowerCut {
            self.network.darken(self.id);
        }
        self.paused_until = None;
        // Everything that the process was about to do ends here.
        drop(self.process.take());
        self.ring = RingSlot::default();
        self.disks.crash(self.rng.draw())
    }

    /// Everything on the disks is gone, the node's key, too.
    pub(crate) fn wipe(&mut self) {
        // It holds nothing if the node never came so far.
        let _ = std::fs::remove_dir_all(&self.data_dir);
        self.disks = Disks::default();
    }

    /// Asks the process to end in an orderly way.
    pub(crate) fn stop(&self) {
        if let Some(process) = &self.process {
            let _ = process.stop.send(());
        }
    }

    /// Its part of the ring, and when it was like this.
    pub fn ring(&self) -> Option<(Duration, RingNode)> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many syncs were slow so far.
    pub(crate) fn slow_syncs(&self) -> u64 {
        self.knobs.slow_syncs.load(Ordering::Relaxed)
    }

    /// Sets the clock on the wall wrong by so much.
    pub fn set_clock_offset(&self, millis: i64) {
        self.knobs.hour_ms.store(millis, Ordering::Relaxed);
    }

    /// How long a sync takes at most.
    pub fn set_sync_time(&self, most: Duration) {
        self.knobs.sync_micros.store(most.as_micros() as u64, Ordering::Relaxed);
    }

    /// The process stands still until then.
    pub(crate) fn pause(&mut self, until: Duration) {
        self.paused_until = Some(until);
    }

    /// Lets the process run until `now`. Answers why it has ended, if it has.
    pub(crate) fn run_until(&mut self, before: Duration, now: Duration) -> Option<String> {
        let process = self.process.as_ref()?;
        if let Some(until) = self.paused_until {
            if until > before {
                return None;
            }
            self.paused_until = None;
            process.processor.skip_to(before);
        }
        process.processor.run_until(now);
        let ended = process.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if ended.is_some() {
            self.ended += 1;
            self.die(Death::Kill);
        }
        ended
    }
}

/// Shows the node's part of the ring, at the same moments on all machines.
async fn show_ring(server: &ServerHandle, (slot, clock): (RingSlot, MachineClock)) {
    let every = LOOK_EVERY.as_micros();
    loop {
        let next = (clock.now().as_micros() / every + 1) * every;
        let next = Duration::from_micros(next as u64);
        tokio::time::sleep_until(clock.instant(next)).await;
        let shown = server.ring_node().await.map(|node| (next, node));
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }
}

async fn serve(
    platform: Arc<SimPlatform>,
    config: Config,
    ended: Arc<Mutex<Option<String>>>,
    mut stop: mpsc::UnboundedReceiver<()>,
    ring: (RingSlot, MachineClock),
) {
    let listeners = platform.listeners();
    let why = match Server::start_on(platform, config, Some(listeners)).await {
        Err(error) => format!("cannot start: {error}"),
        Ok(server) => {
            let stopped = tokio::select! {
                biased;
                why = server.closed() => Some(why),
                _ = stop.recv() => None,
                () = show_ring(&server, ring) => None,
            };
            if stopped.is_none() {
                server.shutdown().await;
            }
            stopped.unwrap_or_else(|| "stopped".to_owned())
        }
    };
    *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
}
