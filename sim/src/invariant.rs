//! What must hold at every moment, whatever the faults: the safety rules as they show in the stores.
//!
//! One file each. An invariant sees every store from outside, at the end of a step, and remembers what it saw before.

mod acknowledged;
mod dots;
mod fences;
mod former_data;
mod hints;
mod members;
mod merged;
mod one_decision;
mod ring;
mod starts;

use std::time::Duration;

use triad_ring::RingNode;

use crate::ledger::Ledger;
use crate::view::View;

/// What can be seen at one moment.
pub struct Look<'a> {
    /// The moment.
    pub now: Duration,
    /// The stores.
    pub view: &'a View,
    /// What was acknowledged.
    pub ledger: &'a Ledger,
    /// The ring's state machines on the nodes that run.
    pub rings: Vec<RingNode>,
    /// Nothing is wrong, nothing moves.
    pub at_rest: bool,
}

/// Something that must always hold.
pub trait Invariant {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Looks at all stores; the error says what is wrong.
    fn check(&mut self, look: &Look<'_>) -> Result<(), String>;
}

/// All invariants, fresh for one run.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(one_decision::OneDecision::default()),
        Box::new(fences::Fences::default()),
        Box::new(members::DistinctMembers),
        Box::new(dots::Dots::default()),
        Box::new(former_data::FormerData),
        Box::new(acknowledged::EveryQuorumKnows),
        Box::new(merged::MergedHoldAll::default()),
        Box::new(hints::HeldBySomebody),
        Box::new(starts::OneProcess::default()),
        Box::new(ring::RingRules),
    ]
}
