//! Where does a key live? Chord as corrected by Zave, with virtual nodes, sans-io.
//!
//! The protocol is that of Pamela Zave, *How to Make Chord Correct* (arXiv 1610.01140; IEEE TSE
//! 2017), not the 2001 paper, none of whose claimed invariants holds. Each virtual node knows its
//! predecessor and a list of successors. **Join** copies the list of the one before; **stabilize
//! from successor** copies the best successor's list every period; **stabilize from predecessor**
//! adopts the successor's predecessor if that is nearer; **rectify** takes a nearer predecessor
//! that notifies us. A dead best successor is dropped for the next of the list.
//!
//! Where we differ, and why:
//! - *Virtual nodes.* A node holds V positions. Lists are long enough to hold N + 2 distinct
//!   *nodes*, for it is nodes that fail (R1), and lists of one node continue each other, so that it
//!   asks only about the stretch up to its own next position. Small clusters know the whole circle;
//!   where a list ends too early for that, lookups fill the gap.
//! - *Failure* is declared by the surroundings ([`Input::Failed`]), never concluded from a timeout.
//! - *Unchanged.* A question carries a digest of the last answer; a quiet ring sends no lists.
//! - *Nudges* make a change travel backwards faster than one hop per period.
//! - *Merging.* [`Input::Met`] joins rings that lost each other and brings back a restarted node.
//!
//! A [`RingNode`] is a value: [`Input`]s go in, [`Output`]s come out. There is no clock (timers are
//! named requests), no socket, no task, no randomness, and nothing whose order is not defined.
//! [`RingView`] is the immutable snapshot that everything else works with. [`invariant`] states the
//! safety rules R1 to R5 as functions over many nodes.

mod beyond;
mod config;
mod fingers;
mod id;
pub mod invariant;
mod join;
mod leave;
mod lookup;
mod merge;
mod message;
pub mod mutant;
mod node;
mod normal;
mod own;
mod query;
mod rectify;
mod settled;
mod shard;
mod stabilize;
mod successors;
mod view;

pub use config::RingConfig;
pub use id::{
    ClusterId, ClusterSalt, Incarnation, NodeId, ParseIdError, RING_BITS, RingId, RingRange,
    VirtualNode,
};
pub use message::{Input, LookupId, MAX_CANDIDATES, Message, Output, QueryId, Route, Timer};
pub use node::RingNode;
pub use own::{Finger, VirtualNodeState};
pub use settled::IdealRing;
pub use shard::{BadShardCount, ShardCount, ShardId};
pub use successors::SuccessorList;
pub use view::{PreferenceList, RingView, first_distinct};
