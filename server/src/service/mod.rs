//! The gRPC edge: convert, call one function, convert.

pub(crate) mod cluster;
pub(crate) mod kv;
pub(crate) mod operations;
pub(crate) mod outcome;
pub(crate) mod peer;
mod status;

pub(crate) use status::is_no_space;
