//! What clients asked and were told in a run, and whether that keeps Triad's promises.
//!
//! A test records: each client takes a number from [`Recorder::begin`] when it sends a request and gives it back with
//! [`Recorder::end`] and what it was told. Afterwards [`check`] runs all checkers over the [`History`]:
//!
//! ```
//! use triad_history::{Action, Outcome, Recorder, Request, Rules, check};
//!
//! let recorder = Recorder::new();
//! let put = recorder.begin(0, Request::new(1, "key", Action::Put("value".to_owned())));
//! recorder.end(10, put, Outcome::Acknowledged);
//! let get = recorder.begin(20, Request::new(2, "key", Action::Get));
//! recorder.end(30, get, Outcome::Returned(Vec::new()));
//!
//! let report = check(&recorder.history(), &Rules::default()).unwrap();
//! assert!(report.violations[0].to_string().contains("acknowledged"));
//! ```
//!
//! - [`Operation`]: a request, and what became of it. An unknown outcome stays unknown: [`Outcome::InDoubt`].
//! - [`check`]: the acknowledged set, a regular register over contexts, session guarantees, tombstones, convergence,
//!   and linearizability; which of them judge a key follows from its bucket's name.
//! - [`picture`]: operations and faults on a time line, as one static page.
//!
//! Everything here is pure: time is an argument (microseconds, real or simulated), so that the same checkers judge
//! processes, containers and simulations. A history can be kept as lines of JSON and checked again:
//! `cargo run -p triad-history -- check FILE`.

pub mod picture;

mod check;
mod history;
mod operation;
mod recorder;
mod register;
#[cfg(test)]
mod story;

pub use check::{Breach, Report, Rules, Violation, check, check_read};
pub use history::{Fault, History, Holding, Mistake, ReadError};
pub use operation::{Action, Level, Mode, Operation, OperationId, Outcome, Request, Time};
pub use recorder::Recorder;
