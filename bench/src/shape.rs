//! The shape of a load: what is asked for, and by how many clients.

use std::time::Duration;

use anyhow::{Result, ensure};
use triad_client::{Client, Level};

use crate::keys::{KEYS_MAX, Keys, Popularity};
use crate::ledger::VALUE_BYTES_MIN;
use crate::load::{Generator, Workload};

/// The most clients of one load.
const CLIENTS_MAX: usize = 1_024;
/// No value is larger.
const VALUE_BYTES_MAX: usize = 4 << 20;

/// From which a [`Generator`] is made.
#[derive(Debug, Clone)]
pub struct Shape {
    /// How many keys there are.
    pub keys: u64,
    /// How unevenly they are asked for.
    pub popularity: Popularity,
    /// Which of 0 to 1 are reads.
    pub reads: f64,
    /// Size of the values.
    pub value_bytes: usize,
    /// The bucket.
    pub bucket: String,
    /// The level of all operations.
    pub level: Level,
    /// How long after its intended start an operation is given up.
    pub deadline: Duration,
    /// What chooses keys and kinds.
    pub seed: u64,
    /// Clients that know nothing of each other.
    pub clients: usize,
    /// Connections of each to each node.
    pub connections: usize,
    /// How often each repeats what was refused.
    pub retries: u32,
}

impl Shape {
    /// A load of this shape on the cluster behind these endpoints.
    pub fn generator(&self, endpoints: &[String]) -> Result<Generator> {
        self.check()?;
        let client = || {
            Client::builder()
                .endpoints(endpoints)
                .channels_per_node(self.connections)
                .retries(self.retries)
                .deadline(self.deadline)
                .connect_lazy()
        };
        let clients = (0..self.clients).map(|_| client()).collect::<Result<_, _>>()?;
        let workload = Workload {
            keys: Keys::new(self.keys, self.popularity),
            reads: self.reads,
            value_bytes: self.value_bytes,
            bucket: self.bucket.clone(),
            level: self.level,
            deadline: self.deadline,
            seed: self.seed,
        };
        Generator::new(clients, workload)
    }

    fn check(&self) -> Result<()> {
        let Self { keys, reads, value_bytes, clients, .. } = self;
        ensure!((1..=KEYS_MAX).contains(keys), "{keys} keys: wanted 1 to {KEYS_MAX}");
        ensure!((0.0..=1.0).contains(reads), "a share of reads of {reads}: wanted 0 to 1");
        ensure!(
            (VALUE_BYTES_MIN..=VALUE_BYTES_MAX).contains(value_bytes),
            "values of {value_bytes} bytes: wanted {VALUE_BYTES_MIN} to {VALUE_BYTES_MAX}"
        );
        ensure!((1..=CLIENTS_MAX).contains(clients), "{clients} clients: 1 to {CLIENTS_MAX}");
        Ok(())
    }
}
