//! What a node does by itself, beside requests.

mod acquaint;
pub(crate) mod anti_entropy;
mod expiry;
mod handoff;
mod held;
mod mender;
mod promises;
mod scrub;
pub(crate) mod tombstone_gc;

pub(crate) use acquaint::acquaint_task;
pub(crate) use expiry::expiry_task;
pub(crate) use handoff::handoff_task;
pub(crate) use mender::mender_task;
pub(crate) use scrub::scrub_task;
