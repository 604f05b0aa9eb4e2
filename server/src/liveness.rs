//! Which nodes answer: alive, suspected, down. A machine without clock, randomness or I/O:
//! [`Input`] and the time go in, [`Output`] comes out, `pulse.rs` drives it.
//!
//! It is SWIM (Das, Gupta and Motivala, DSN 2002) with the local health of Lifeguard (Dadgar,
//! Phillips and Currey, 2017). A node is pinged; if no answer comes within what its round trips
//! let expect, a few others are asked to ping it. Two silences are counted apart:
//!
//! - no *direct* answer makes a node suspected: requests go to others first;
//! - no *sign of life by any road* (an answer, a helper's word, a message of its own) makes it
//!   down: the ring closes over it.
//!
//! So a node that somebody else can reach is suspected at worst, for as long as it takes, and a
//! cut between two nodes moves nothing. When this process itself is late, or helpers do not
//! answer either, it is itself what is ill, and everybody gets more time.
//!
//! Unlike SWIM, nobody tells others whom it suspects: each node judges by its own pings and its
//! helpers' words, so a false suspicion never travels. Neither state moves data: a member that is
//! down stays a member until it is replaced, and replacement has rules of its own (design §3).

mod detector;
mod health;
mod peer;
mod roster;
mod round_trip;

#[cfg(test)]
mod network;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod tests;

use std::time::Duration;

use triad_ring::{Incarnation, NodeId};

pub(crate) use detector::Detector;

/// How often nodes are pinged.
pub(crate) const PERIOD: Duration = Duration::from_millis(500);
/// How long a helper pings on behalf of another node.
pub(crate) const INDIRECT_PING: Duration = Duration::from_millis(700);
/// An answer this late still counts as one, although its ping has been given up.
pub(crate) const LATEST_ANSWER: Duration = Duration::from_secs(2);
/// How long to wait for the word of a helper.
const HELPER_PATIENCE: Duration = Duration::from_millis(1_200);
/// Without direct answers for so long a node is suspected.
const SUSPECT_AFTER: Duration = Duration::from_millis(1_300);
/// Without any sign of life for so long a node is declared down.
const DOWN_AFTER: Duration = Duration::from_millis(3_500);

/// What is believed of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Liveness {
    /// It answered a moment ago.
    Alive,
    /// It has not answered for a while, or only others reach it: it is asked last.
    Suspect,
    /// Nothing shows that it lives, and no helper reached it: the ring closes over it.
    Down,
}

/// A change of belief, or the news that a living node has restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) node: NodeId,
    pub(crate) before: Liveness,
    pub(crate) now: Liveness,
}

/// The name of a ping; whatever follows from it carries it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ProbeId(u64);

/// A node to be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) node: NodeId,
    /// This node shares shards with it: where not all can be pinged in every period, it comes first.
    pub(crate) near: bool,
}

/// What a helper says of the node it was asked to ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The helper itself did not answer.
    None,
    /// It got no answer.
    NotReached,
    /// It got one, from this incarnation.
    Reached(Incarnation),
}

/// All that can happen to the detector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A period is over. Nodes that are not named any more are forgotten.
    Period(Vec<Watched>),
    /// A ping was answered.
    Answered { probe: ProbeId, incarnation: Incarnation },
    /// A ping was not answered within its patience, or could not be sent.
    Unanswered { probe: ProbeId },
    /// A helper has spoken, or its patience is over.
    Helped { probe: ProbeId, word: Word },
    /// The node sent something of its own.
    Heard { node: NodeId, incarnation: Incarnation },
}

/// All that the detector asks of its surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Ping the node. Say [`Input::Unanswered`] after `patience`, and [`Input::Answered`] even
    /// then, up to [`LATEST_ANSWER`].
    Ping { node: NodeId, probe: ProbeId, patience: Duration },
    /// Ask `helper` to ping the node, and wait for its word at most `patience`.
    AskHelper { node: NodeId, helper: NodeId, probe: ProbeId, patience: Duration },
    /// Something is believed anew.
    Changed(Change),
}
