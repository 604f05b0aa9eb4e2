//! What must hold at every moment, whatever the faults: the safety rules as they show in the stores.
//!
//! One file each. An invariant sees every store from outside, at the end of a step, and remembers what it saw before.

mod dots;
mod fences;
mod former_data;
mod members;
mod one_decision;

use crate::view::View;

/// Something that must always hold.
pub trait Invariant {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Looks at all stores; the error says what is wrong.
    fn check(&mut self, view: &View) -> Result<(), String>;
}

/// All invariants, fresh for one run.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(one_decision::OneDecision::default()),
        Box::new(fences::Fences::default()),
        Box::new(members::DistinctMembers),
        Box::new(dots::Dots::default()),
        Box::new(former_data::FormerData),
    ]
}
