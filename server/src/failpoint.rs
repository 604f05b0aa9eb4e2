//! Named steps at which a test can stop a node, end it or make it fail.
//!
//! Without the cargo feature `testing` all of this compiles to nothing.

/// The steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// A member has durably accepted what follows the epoch, or the proposer hears that one has.
    MoveFence,
    /// A joint epoch is decided: before the proposer tells, after another node has entered it.
    MoveJoint,
    /// Before a member declares itself merged, or while another one merges from it.
    MoveMerge,
    /// The stable epoch after a joint one is decided: before the proposer tells, after another
    /// node has entered it.
    MoveFinal,
    /// Before a retired member purges the shard, or while it hands over to this one.
    MoveRetire,
    /// Before a group is applied to the store.
    StoreCommit,
    /// Before a group is made durable.
    StoreSync,
    /// A write is on its way to all members, and no answer was counted yet.
    PutSent,
    /// A write has reached its level, and its client was not told yet.
    PutQuorum,
}

/// As whom a node comes by a step of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It drives the move.
    Proposer,
    /// It becomes a member.
    Learner,
    /// It is a member and will not be one.
    Leaver,
    /// It is a member before and after.
    Stayer,
}

#[cfg(feature = "testing")]
pub(crate) use crate::testing::points::{hit, hit_as, hit_blocking};

/// The step fails, because a test wants it to.
#[cfg(feature = "testing")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

#[cfg(not(feature = "testing"))]
pub(crate) use without::{hit, hit_as, hit_blocking};

#[cfg(not(feature = "testing"))]
mod without {
    use std::convert::Infallible;
    use std::future::{Ready, ready};

    use super::{Point, Role};

    #[inline]
    pub(crate) fn hit(_: Point) -> Ready<Result<(), Infallible>> {
        ready(Ok(()))
    }

    #[inline]
    pub(crate) fn hit_as(
        _: Point,
        _: impl FnOnce() -> Option<Role>,
    ) -> Ready<Result<(), Infallible>> {
        ready(Ok(()))
    }

    #[inline]
    pub(crate) fn hit_blocking(_: Point) -> Result<(), Infallible> {
        Ok(())
    }
}
