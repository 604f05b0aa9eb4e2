//! A Triad node: everything that touches network, disk, clock and randomness.
//!
//! [`Server::start`] builds a node from its parts and runs it. A client's request comes in at
//! `service`, is run by `coordinator`, which writes through `local` (the only writer of the
//! store) and reaches other nodes through `peers`. `ring_task` keeps this node's part of the
//! ring, `moves` carries shards from node to node, `background` brings what was missed. See ARCHITECTURE.md for the map.

mod alarms;
mod assembly;
mod background;
mod book;
mod bootstrap;
mod clock;
pub mod config;
mod coordinator;
pub mod data_dir;
mod deadline;
mod directory;
mod door;
mod failpoint;
mod hints;
mod host;
#[cfg(test)]
mod hostile;
mod housekeeping;
mod identity;
mod introduce;
mod liveness;
mod local;
mod losses;
mod moves;
mod node;
mod operations;
mod peers;
pub mod platform;
mod ports;
mod pulse;
mod random;
mod retry_budget;
mod reunion;
mod ring_task;
mod rows;
mod server;
mod service;
pub mod sled_store;
mod starts;
mod startup;
pub mod telemetry;
#[cfg(feature = "testing")]
mod testing;
mod throttle;
pub mod web;

pub use ports::Listener;
pub use random::NoRandomness;
pub use rows::RowError;
pub use server::{Addresses, Listeners, Server, ServerHandle, StartError};
