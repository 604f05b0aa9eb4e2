//! Load on a cluster, and what comes of it.
//!
//! - [`load`]: the generator, open loop and closed loop.
//! - [`keys`]: which keys are asked for how often.
//! - [`recorder`]: latencies, failures by reason, successes over time.
//! - [`shape`]: the load as one asks for it.
//! - [`ledger`]: whether what was acknowledged is still there at the end.
//! - [`watch`]: memory and processor time of the nodes.
//! - [`overload`]: a cluster of real processes before, during and after three times what it can do.
//!
//! Nothing here judges a time: figures are printed, people compare them. Lost writes are an error. How to run it and
//! what was measured: `bench/README.md`.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "figures are rounded for people in the end"
)]

pub mod keys;
pub mod ledger;
pub mod load;
pub mod overload;
pub mod recorder;
pub mod shape;
pub mod watch;
