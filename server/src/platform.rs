//! What a process stands on: randomness, the hour, threads, the network, the storage engine.
//!
//! A node runs on the [`OperatingSystem`]. A simulation hands in a platform of its own, and then whole servers run in
//! one thread, in virtual time, over a network and on disks that fail as a seed says (the crate `sim`). Nothing else
//! in this crate may reach for these things: what is not asked for here makes two runs of one seed differ.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinError;
use triad_replica::store::Store;

use crate::random::NoRandomness;
use crate::sled_store::{OpenStoreError, SledOptions, SledStore};

/// A stream of bytes in both directions.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Wire for T {}

/// A stream that is not the operating system's.
pub type BoxedWire = Box<dyn Wire>;

/// Opens streams to addresses (`host:port`) in a network that is not the operating system's.
pub type Dialer = Arc<dyn Fn(&str) -> BoxFuture<'static, io::Result<BoxedWire>> + Send + Sync>;

/// Streams as they are opened to a port in a network that is not the operating system's.
pub type Accepted = BoxStream<'static, io::Result<BoxedWire>>;

/// Where work is done that blocks: reading and writing a store.
#[derive(Clone)]
pub enum Work {
    /// On threads that may block, the committer on one of its own.
    Threads,
    /// Where it is asked for, and the committer is a task. A store in memory does not block; how long its next sync
    /// takes is what the function says.
    Tasks(Arc<dyn Fn() -> Duration + Send + Sync>),
}

impl Work {
    /// Does what may block. The error is a panic of it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work).await,
            Self::Tasks(_) => Ok(work()),
        }
    }
}

/// What a process stands on.
pub trait Platform: std::fmt::Debug + Send + Sync + 'static {
    /// Fills `bytes` with randomness that nobody can guess.
    fn fill_random(&self, bytes: &mut [u8]) -> Result<(), NoRandomness>;

    /// The hour, as this machine has it.
    fn wall_clock(&self) -> SystemTime;

    /// Where blocking work is done.
    fn work(&self) -> Work;

    /// How other nodes are reached; None: by TCP.
    fn dialer(&self) -> Option<Dialer>;

    /// Opens the store in the directory, or makes one there.
    fn open_store(
        &self,
        dir: &Path,
        options: &SledOptions,
    ) -> Result<Arc<dyn Store>, OpenStoreError>;
}

/// The platform of every node that is not simulated.
#[derive(Clone, Copy, Debug, Default)]
pub struct OperatingSystem;

impl Platform for OperatingSystem {
    fn fill_random(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        Ok(getrandom::fill(bytes)?)
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::now()
    }

    fn work(&self) -> Work {
        Work::Threads
    }

    fn dialer(&self) -> Option<Dialer> {
        None
    }

    fn open_store(
        &self,
        dir: &Path,
        options: &SledOptions,
    ) -> Result<Arc<dyn Store>, OpenStoreError> {
        Ok(Arc::new(SledStore::open(dir, options)?))
    }
}
