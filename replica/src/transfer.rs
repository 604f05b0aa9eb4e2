//! Moving a shard from one set of members to another while it is read and written.
//!
//! Three small state machines, each run by whoever it concerns, each free to die at any
//! point: what they achieved is in durable rows, and anyone may go on from there.
//!
//! ```text
//! Move (any node)          Pull (each new member)        Drain (each former member)
//! 0 newcomers copy    ───► learn: copy, no promise
//! 1 decide Joint
//! 3 tell, wait        ───► merge from fenced members,
//! 4 decide forward    ◄─── declare
//!   or give up
//! 5 tell everybody    ───► (unmerged: catch up)     ───► hand over, purge
//! ```
//!
//! [`Move`] has the decisions made, [`Pull`] copies, [`Drain`] empties a former member. None
//! of them knows the time or a random number: both come in as [`Moment`]. Each step left out
//! loses an acknowledged write; `tests/cluster.rs` shows the ones that are checked.

mod drain;
mod moving;
mod next_step;
mod pull;

use std::time::Duration;

pub use drain::{Drain, DrainInput, DrainOutput};
pub use moving::{Move, MoveInput, MoveOutput, MoveTiming, Outcome};
pub use next_step::{NotStarted, Plan, SMALL_DIFFERENCE, Step, next_step};
pub use pull::{CopyTiming, Pull, PullInput, PullOutput};

/// The time, and the chance, of one call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Moment {
    /// Since any fixed moment before the first call; never goes back.
    pub now: Duration,
    /// A random byte, so that competing proposers do not stay in step.
    pub jitter: u8,
}
