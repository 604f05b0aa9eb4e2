//! What a simulated server stands on instead of the operating system.

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{FutureExt, StreamExt};
use triad_replica::store::Store;
use triad_server::platform::{BoxedWire, Dialer, Platform, Work};
use triad_server::sled_store::{OpenStoreError, SledOptions};
use triad_server::{Listener, Listeners, NoRandomness};

use crate::clock::MachineClock;
use crate::disk::Disks;
use crate::network::{MachineId, Network};
use crate::rng::Rng;

/// The hour at which every simulation begins, in seconds since 1970.
const EPOCH: u64 = 1_800_000_000;
/// A sync that takes longer is slow, in microseconds.
const SLOW_SYNC: u64 = 100_000;
/// Where clients and other nodes reach a machine.
pub(crate) const CLIENT_PORT: u16 = 7420;
pub(crate) const PEER_PORT: u16 = 7421;

/// What can be changed on a machine while a process runs on it.
#[derive(Clone, Default)]
pub(crate) struct Knobs {
    /// How far the clock is off, in milliseconds.
    pub(crate) hour_ms: Arc<AtomicI64>,
    /// How long a sync takes at most, in microseconds.
    pub(crate) sync_micros: Arc<AtomicU64>,
    /// Syncs so far that took noticeably long.
    pub(crate) slow_syncs: Arc<AtomicU64>,
}

/// The platform of one process.
pub(crate) struct SimPlatform {
    pub(crate) machine: MachineId,
    pub(crate) network: Network,
    pub(crate) clock: MachineClock,
    pub(crate) disks: Disks,
    pub(crate) knobs: Knobs,
    pub(crate) rng: Arc<Mutex<Rng>>,
}

impl SimPlatform {
    /// The ports of the process.
    pub(crate) fn listeners(&self) -> Listeners {
        let open = |port| {
            let clock = self.clock.clone();
            let accepted = self.network.listen(self.machine, port).map(move |accepted| {
                accepted.map(|wire| Box::new(wire.at(clock.clone())) as BoxedWire)
            });
            Listener::Other(accepted.boxed())
        };
        Listeners { client: open(CLIENT_PORT), peer: open(PEER_PORT), admin: None }
    }
}

impl std::fmt::Debug for SimPlatform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimPlatform").field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl Platform for SimPlatform {
    fn fill_random(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
        Ok(())
    }

    fn wall_clock(&self) -> SystemTime {
        let now = UNIX_EPOCH + Duration::from_secs(EPOCH) + self.clock.now();
        let off = self.knobs.hour_ms.load(Ordering::Relaxed);
        let by = Duration::from_millis(off.unsigned_abs());
        if off < 0 { now - by } else { now + by }
    }

    fn work(&self) -> Work {
        let (rng, most) = (Arc::clone(&self.rng), Arc::clone(&self.knobs.sync_micros));
        let slow = Arc::clone(&self.knobs.slow_syncs);
        Work::Tasks(Arc::new(move || {
            let most = most.load(Ordering::Relaxed);
            let micros = rng.lock().unwrap_or_else(PoisonError::into_inner).below(most);
            slow.fetch_add(u64::from(micros > SLOW_SYNC), Ordering::Relaxed);
            Duration::from_micros(micros)
        }))
    }

    fn dialer(&self) -> Option<Dialer> {
        let (network, machine, clock) = (self.network.clone(), self.machine, self.clock.clone());
        Some(Arc::new(move |address: &str| {
            let dialing = network.clone().dial(machine, clock.clone(), address.to_owned());
            async move { dialing.await.map(|wire| Box::new(wire) as BoxedWire) }.boxed()
        }))
    }

    fn open_store(
        &self,
        dir: &Path,
        options: &SledOptions,
    ) -> Result<Arc<dyn Store>, OpenStoreError> {
        self.disks.open(dir, options)
    }
}
