//! Whole servers in one thread, in virtual time, under faults that a seed chooses.
//!
//! Every server is the real one: tonic, all tasks, the committer, on a platform of its own. Time moves only when
//! nobody has anything left to do at the present moment; network, disks, clocks and randomness are drawn from the
//! seed. So an hour passes in a minute, and a seed that fails fails again, step by step.
//!
//! - [`world`]: machines, the network between them, time; [`network`], [`disk`], [`machine`] are its parts
//! - [`load`]: clients that write down what they asked and were told
//! - [`fault`]: what goes wrong, a different mix for each seed
//! - [`invariant`]: what must hold at every moment, one file each
//! - [`story`]: one seed from beginning to end: faults stop, the cluster must come to rest, the history must be right
//!
//! Why not turmoil, which does much of this: there a segment that meets a partition is gone for ever, so every
//! connection that a cut touches is dead, and what happens when one *resumes* is never seen; and a process cannot
//! stand still while time goes on.

pub mod clock;
pub mod disk;
pub mod fault;
pub mod invariant;
pub mod ledger;
pub mod load;
pub mod machine;
pub mod network;
mod platform;
pub mod rng;
pub mod story;
pub mod tally;
pub mod trace;
pub mod view;
pub mod world;
