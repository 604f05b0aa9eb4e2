//! The safety rules of the ring, one per file, as pure functions over many nodes: for the test
//! driver, the simulator and the model checker alike. "Live" nodes are those given; whoever is not
//! given is dead.

mod busy;
mod distinct;
mod failed_stay_out;
mod ideal;
mod live_successor;
mod principals;

use thiserror::Error;

pub use busy::busy_while_asking;
pub use distinct::distinct_nodes;
pub use failed_stay_out::{failed_stay_out, is_unknown_to};
pub use ideal::is_ideal;
pub use live_successor::{lists_reach_enough_nodes, live_successor, live_successor_of};
pub use principals::{enough_principals, principals};

/// A rule that does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{rule} is broken: {detail}")]
pub struct Violation {
    /// The rule's name in the design, such as "R1".
    pub rule: &'static str,
    /// Who breaks it and how.
    pub detail: String,
}

impl Violation {
    fn new(rule: &'static str, detail: impl Into<String>) -> Self {
        Self { rule, detail: detail.into() }
    }
}
