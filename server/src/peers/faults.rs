//! Faults that tests put on the links to other nodes; without the cargo feature `testing` there
//! are none, and all of this compiles to nothing.

#[cfg(feature = "testing")]
pub(crate) use crate::testing::links::{Direction, Faults};

#[cfg(not(feature = "testing"))]
pub(crate) use none::{Direction, Faults};

#[cfg(not(feature = "testing"))]
mod none {
    use std::future::{Pending, Ready, pending, ready};

    use futures::Stream;
    use triad_ring::NodeId;

    /// Which way a message goes, seen from this node.
    #[derive(Clone, Copy)]
    pub(crate) enum Direction {
        Incoming,
        Outgoing,
    }

    /// No faults.
    #[derive(Clone, Default)]
    pub(crate) struct Faults;

    #[allow(clippy::unused_self)]
    impl Faults {
        /// A connection is being made, by this node or the other.
        pub(crate) fn connects(&self, _: NodeId) -> Ready<Result<(), String>> {
            ready(Ok(()))
        }

        /// A question goes out and its answer comes back, outside the streams.
        pub(crate) fn call(&self, _: NodeId) -> Ready<Result<(), String>> {
            ready(Ok(()))
        }

        /// Resolves when a connection that is open would be given up.
        pub(crate) fn severed(&self, _: NodeId) -> Pending<()> {
            pending()
        }

        /// The messages of a stream that get through.
        pub(crate) fn through<S>(&self, _: NodeId, _: Direction, messages: S) -> S
        where
            S: Stream + Send + Unpin + 'static,
        {
            messages
        }
    }
}
