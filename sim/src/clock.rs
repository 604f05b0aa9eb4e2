//! Virtual time on one machine.

use std::time::Duration;

use tokio::time::Instant;

/// Ties the clock of a machine's runtime to the world's.
#[derive(Clone, Debug)]
pub struct MachineClock {
    started: Instant,
    at: Duration,
}

impl MachineClock {
    /// The clock of a runtime that starts now, at this time of the world. Call it in the runtime.
    pub fn start(at: Duration) -> Self {
        Self { started: Instant::now(), at }
    }

    /// The time of the world. Only in the runtime.
    pub fn now(&self) -> Duration {
        self.at + self.started.elapsed()
    }

    /// When the runtime's clock shows this time of the world.
    pub fn instant(&self, at: Duration) -> Instant {
        self.started + at.saturating_sub(self.at)
    }
}
