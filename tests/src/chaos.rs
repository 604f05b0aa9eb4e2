//! Five containers of the real image under whatever can happen to machines, disks and networks, while clients write,
//! read and delete; and what the clients were told, judged.
//!
//! - [`fault`]: what can happen, how it is done and how it is taken back.
//! - [`fleet`]: the containers, and what is done to them from outside.
//! - [`network`], [`packets`], [`disk`]: rules and a queue of packets in a container's network namespace, small disks.
//! - [`load`]: the clients; [`round`]: some minutes of them, judged and then forgotten.
//! - [`story`]: one run by its seed; [`report`]: what it tells, and what it keeps when it fails.
//! - [`leftovers`]: what earlier runs that were killed have left.
//!
//! What this machine has no means for is told as such, with the reason, and left out ([`means`]).

#![allow(clippy::print_stdout, reason = "a run is told by its seed and its faults")]

pub mod disk;
pub mod fault;
pub mod fleet;
pub mod leftovers;
pub mod load;
pub mod means;
pub mod network;
pub mod packets;
pub mod report;
pub mod round;
pub mod story;
