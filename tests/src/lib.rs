//! What the end-to-end tests share: real `triad` processes on this machine, and the checker that holds their answers
//! against what was promised.
//!
//! - [`processes`]: starts, kills and restarts nodes.
//! - [`chaos`]: whatever can happen to a cluster of containers.
//! - [`commands`]: runs the command line.
//! - [`containers`]: the same with whole clusters in Docker.
//! - [`convergence`]: whether a cluster has come to rest, and all members hold the same.
//! - [`dice`]: choices that a seed repeats.
//! - [`faults`]: wrong clocks, cut links, steps that stop, and digests of stores.
//! - [`history`]: takes down what clients ask and are told, and judges every read.
//! - [`liar`]: a peer that is no member and tells lies.
//! - [`rot`]: damage to the files of stopped nodes.
//! - [`schema`]: messages that nobody meant, for every method of an API.
//! - [`wait`]: waits for a condition with a deadline, never for a time.
//!
//! The tests themselves are one story per file in `tests/`. They run in parallel: each has its own ports and its own
//! temporary directory, and kills what it started.

// A harness fails by panicking, and tells about it on stderr.
#![allow(clippy::panic, clippy::print_stderr)]

pub mod binary;
pub mod chaos;
pub mod commands;
pub mod containers;
pub mod convergence;
pub mod dice;
pub mod faults;
pub mod history;
pub mod liar;
pub mod ports;
pub mod processes;
pub mod raw;
pub mod rot;
pub mod schema;
pub mod wait;
pub mod workload;
