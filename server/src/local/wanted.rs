//! Until when an operation is worth doing, and what it gives way to while the store is behind.

use std::sync::{Arc, Weak};

use tokio::time::Instant;

use crate::deadline::Deadline;

/// What an operation gives way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// A client's write of which nothing is stored yet: the first moment to refuse it, and the last
    /// at which that costs nobody anything.
    New,
    /// Part of something that was let in, here or at another node, or that others build on.
    Begun,
    /// Done again later if it is not done now.
    Background,
}

/// Until when, for whom and how urgently something is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(super) urgency: Urgency,
    until: Option<Instant>,
    caller: Option<Weak<()>>,
}

/// Held by whoever waits for a client's request; when it is dropped, the caller has gone.
#[derive(Debug, Default)]
pub(crate) struct Caller(Arc<()>);

impl Caller {
    /// What the request's steps are told: to be dropped untouched when the caller has gone.
    pub(crate) fn wants(&self, deadline: Deadline) -> Wanted {
        let caller = Some(Arc::downgrade(&self.0));
        Wanted { urgency: Urgency::New, until: Some(deadline.at()), caller }
    }
}

impl Wanted {
    /// Whatever happens.
    pub(crate) fn always() -> Self {
        Self { urgency: Urgency::Begun, until: None, caller: None }
    }

    /// Part of a write that another store has or is about to have. Whether its client still waits
    /// does not matter to that store, so that replicas do not come to differ with each client that
    /// gives up: only a store that is behind drops it, after its deadline.
    pub(crate) fn begun(deadline: Deadline) -> Self {
        Self { until: Some(deadline.at()), ..Self::always() }
    }

    /// If there is time: the first to be refused.
    pub(crate) fn in_background() -> Self {
        Self { urgency: Urgency::Background, ..Self::always() }
    }

    /// Nobody waits for it at that time.
    pub(super) fn is_over(&self, at: Instant) -> bool {
        let gone = self.caller.as_ref().is_some_and(|caller| caller.strong_count() == 0);
        gone || self.until.is_some_and(|until| until <= at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_write_is_over_when_its_caller_has_gone_or_its_time() {
        let (caller, deadline) = (Caller::default(), Deadline::after(Duration::from_mins(1)));
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_mins(2));
        let wanted = caller.wants(deadline);
        assert!(!wanted.is_over(now) && wanted.is_over(later));
        drop(caller);
        assert!(wanted.is_over(now));
        assert!(!Wanted::begun(deadline).is_over(now) && Wanted::begun(deadline).is_over(later));
        assert!(!Wanted::always().is_over(later) && !Wanted::in_background().is_over(later));
    }
}
