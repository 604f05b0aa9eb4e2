//! The Rust client of Triad, a masterless replicated key-value store.
//!
//! ```no_run
//! use triad_client::{Client, Level};
//!
//! # async fn example() -> triad_client::Result<()> {
//! let client = Client::connect(["localhost:7420", "localhost:7430"]).await?;
//!
//! // The easy way: the last write wins over all that was acknowledged before it.
//! client.put("greeting", "hello").await?;
//!
//! // The careful way: what others wrote meanwhile is kept beside it.
//! let seen = client.get("greeting").bucket("default").level(Level::Quorum).await?;
//! if let Some(value) = seen.value() {
//!     let longer = [value, &b", world"[..]].concat();
//!     client.put("greeting", longer).context(&seen.context).await?;
//! }
//! client.delete("greeting").await?;
//! assert!(!client.get("greeting").await?.is_found());
//! # Ok(())
//! # }
//! ```
//!
//! The client learns from every reply who holds which shard and sends each request straight to a member of its
//! key's shard (`route_cache`). When a node cannot be reached or answers that nothing was done, it goes on to
//! another within the request's deadline (`retry`), as far as its budget for retries goes. A write that may or may not
//! have taken effect is reported as [`Error::InDoubt`], and what to do is the caller's decision: to repeat it under
//! its request id, if it has one, for example ([`ClientBuilder::repeat_in_doubt`]).

mod budget;
mod channel;
mod client;
mod cluster;
mod error;
mod options;
mod reply;
mod retry;
mod route_cache;

#[cfg(test)]
mod tests;

pub use channel::{Address, AddressError, Dialer, Wire};
pub use client::{Client, Delete, Get, Put};
pub use cluster::Cluster;
pub use error::{Detail, Error, ReplicaReport, Result};
pub use options::{ClientBuilder, DEFAULT_BUCKET, DEFAULT_DEADLINE};
pub use reply::{
    Context, Deleted, Outcome, ReplicaAnswer, ReplicaResult, Sibling, Versioned, Written,
};
pub use triad_replica::configuration::Epoch;
pub use triad_replica::consistency::Level;
