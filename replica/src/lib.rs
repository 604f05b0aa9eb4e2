//! What is a value, who may acknowledge it, and when is that agreed?
//!
//! The `replica` crate decides; it never acts. It has no clock, no socket, no task, no
//! thread, no random generator and no randomly hashed map: what happens is handed in, what
//! is to be done is handed out, and the same inputs always give the same outputs. That is
//! what lets a model checker hash a replica's state and a simulator replay a failure.
//!
//! Read it in this order:
//!
//! 1. **A key's value.** [`address`] is where a record belongs, [`dot`] names one write, [`context`] is a set of dots (what somebody
//!    has seen), [`record`] is what a replica stores for a key: concurrent siblings and one
//!    context. Everything that travels between replicas is a record and ends in
//!    [`record::Record::merge`]. [`token`] is a context as clients carry it.
//! 2. **Who may acknowledge.** [`member`] and [`configuration`] say who votes for a shard, [`start`] whether
//!    a store is still the one that may,
//!    [`paxos`] decides each next epoch once, [`shard`] is one shard's state at one store,
//!    [`transfer`] drives a shard's move, [`message`] is their vocabulary; [`gc`] is how
//!    tombstones go for good.
//! 3. **When it is agreed.** [`consistency`] turns a level and a configuration into counts,
//!    [`put`], [`get`] and [`sloppy`] tally the answers, [`refusal`] is why a replica would not answer.
//!    [`hint`] is what is kept for members that were not there.
//! 4. **Where it is kept.** [`store`] is the contract of a storage engine, [`commit_queue`]
//!    groups commits, [`hash_tree`] and [`anti_entropy`] find what two stores disagree about.

pub mod address;
pub mod anti_entropy;
pub mod commit_queue;
pub mod configuration;
pub mod consistency;
pub mod context;
pub mod dot;
pub mod gc;
pub mod get;
pub mod hash_tree;
pub mod hint;
pub mod member;
pub mod message;
pub mod paxos;
pub mod put;
pub mod record;
pub mod refusal;
pub mod shard;
pub mod sloppy;
pub mod start;
pub mod store;
pub mod token;
pub mod transfer;
mod wire;

#[cfg(test)]
mod hostile;
