//! What only programs for tests have (cargo feature `testing`): faults on demand, and digests of
//! what a store holds.

mod digest;
mod http2;
pub(crate) mod links;
pub(crate) mod points;
mod service;

pub(crate) use http2::serve as serve_http2;
pub(crate) use service::routes;
