//! Chains of configurations with data: what a client sees while a shard moves (D1 to D8).
//!
//! Stores run the production [`ShardReplica`](triad_replica::shard::ShardReplica) over rows that
//! survive a restart. Drivers decide the next epoch with the production proposer and
//! [`next_step`](triad_replica::transfer::next_step); copies and hand-overs are steps of the production
//! `Pull` and `Drain`; clients count with `PutTally` and `GetTally`, and what they write are
//! records under dots that the coordinator's store mints.
//!
//! # What one step is
//!
//! - *Ballot*: a driver completes phase 1 at one majority, and chooses. (Promises one by one are the
//!   model [`deciding`](crate::deciding).) *Accept*: one acceptor gets its Accept, now or ever.
//!   *Learn*: one store is told any configuration that was ever decided, in whatever order.
//! - *Copy* and *hand over*: one source, or one receiver, is done with.
//! - *Mint*, then *deliver* to one member, at any time, in whatever order, or never. *Retry*: the same
//!   record in another epoch, which the coordinator may believe in although it is long over.
//! - *Late*: a member's record on its way, one at a time; a *hint* comes whenever it likes.
//! - *Restart*: rows stay, all else goes. *Lose*: the store is gone for ever.
//!
//! # What is looked at
//!
//! After each step, in every epoch that was ever decided, the read is made that has the worst luck
//! with whom it asks first. It must show every write that was acknowledged, or what came after it, and
//! nothing that an acknowledged write replaced. Reads are instantaneous: one that takes long asks
//! members of one epoch, of which each re-checks the epoch, and is covered by seeds (`replica/tests/cluster`).
//!
//! `Scenario` says the bounds; `scenarios.rs` has them all.

mod clients;
mod collecting;
mod copying;
mod deciding;
mod model;
mod reading;
mod scenarios;
mod state;
mod store;

pub use scenarios::CASES;
use state::{Driver, Flying, Op, State};
use store::{Store, index_of, member};
use triad_ring::mutant::Mutant;

/// What there is, and how much of it: the bounds of one case.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a bound of its own")]
struct Scenario {
    /// The members of the first epoch, by number.
    first: &'static [u8],
    /// Which sets of members a driver may want.
    wishes: &'static [&'static [u8]],
    /// After this epoch nothing is decided.
    last_epoch: u64,
    /// Ballots in all.
    ballots: u8,
    /// Whose promises complete phase 1, by number; any majority's if that is empty.
    promising: &'static [u8],
    /// Who coordinates writes; anybody if that is empty.
    coordinators: &'static [u8],
    /// A driver may also go on from the configuration before the newest.
    stale_drivers: bool,
    /// Drivers may have the same members decided again.
    goes_on: bool,
    /// Drivers that are at work at a time; 0: what a ballot's majority promised it accepts in the same step.
    drivers: u8,
    /// What clients do, in this order.
    writes: &'static [Write],
    /// So many of these are made by the first member, and stored by all, before the search begins.
    settled: usize,
    /// How often a client tries one write again.
    retries: u8,
    /// Stores that restart.
    restarts: u8,
    /// Stores that are lost.
    losses: u8,
    /// Former members hand over and purge.
    drains: bool,
    /// Learners copy before a move begins.
    learns: bool,
    /// Former members that have not handed over may be written off.
    writes_off: bool,
    /// Rounds of tombstone collection.
    rounds: u8,
    /// Records that members send each other, and that arrive late.
    late: u8,
    /// Every write is held as a hint, too.
    hints: bool,
    /// What must be met.
    goals: &'static [Goal],
    /// The rule that is left out.
    mutant: Option<Mutant>,
}

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Write {
    /// Puts a value beside all others.
    Add,
    /// Puts a value that replaces what its coordinator holds.
    Replace,
    /// Deletes what its coordinator holds.
    Delete,
}

/// What a case must have met, to prove anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Goal {
    /// A move went forward, and a write was acknowledged.
    Forward,
    /// A move was given up, and a later one went forward.
    ForwardAfterGivingUp,
    /// A write was acknowledged in a joint epoch.
    AcknowledgedInJoint,
    /// A write was acknowledged by a later attempt than its first.
    AcknowledgedByRetry,
    /// A former member purged what it held.
    Purged,
    /// Tombstones were collected everywhere.
    Collected,
    /// A store that came back discarded what it held.
    Discarded,
}

/// A scenario without anything but the chain itself.
const QUIET: Scenario = Scenario {
    first: &[0, 1, 2],
    wishes: &[],
    last_epoch: 3,
    ballots: 1,
    promising: &[],
    coordinators: &[],
    stale_drivers: false,
    goes_on: false,
    drivers: 1,
    writes: &[],
    settled: 0,
    retries: 0,
    restarts: 0,
    losses: 0,
    drains: false,
    learns: false,
    writes_off: false,
    rounds: 0,
    late: 0,
    hints: false,
    goals: &[],
    mutant: None,
};
