//! The checkers, one file each, and what they find.
//!
//! A checker never guesses: what is in doubt may be so or not, now or later. So each finding is a promise broken,
//! whatever else happened. What each one demands, and of which reads, its own head says.

mod acknowledged;
mod convergence;
mod linearizable;
mod regular;
mod sessions;
mod tombstones;

use std::fmt;

use crate::history::{History, Mistake};
use crate::operation::{Mode, Operation, OperationId, Time};
use crate::register::Register;

/// How strictly to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// For how long after its client gave up a write in doubt may still overwrite what others had acknowledged
    /// meanwhile. It may *show* at any time later. Nothing being known, for ever; where the server is known to mint
    /// nothing after the deadline, 0 finds more.
    pub grace: Time,
    /// Whether a client may never miss what it has read before, even if nobody acknowledged it. Only linearizable
    /// buckets promise that: a read there may be answered from what one replica alone has so far.
    pub monotonic_reads: bool,
    /// How many configurations the check of a linearizable key may visit before it gives up.
    pub configurations: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self { grace: Time::MAX, monotonic_reads: false, configurations: 1_000_000 }
    }
}

/// What the checkers have to say of a history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The promises broken.
    pub violations: Vec<Violation>,
    /// How many keys were judged.
    pub keys: usize,
    /// How many answered reads were judged.
    pub reads: usize,
    /// Keys with something that a last read would have to show, and no last read.
    pub unread: usize,
    /// Linearizable keys whose check gave up: neither right nor wrong.
    pub undecided: usize,
}

/// A promise broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The bucket.
    pub bucket: String,
    /// The key; of convergence what was held differently.
    pub key: String,
    /// The operation that shows it, if one does.
    pub at: Option<OperationId>,
    /// What is wrong.
    pub breach: Breach,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Breach {
    /// A value that nobody wrote by then, or whose writer was told that nothing was written.
    Phantom(String),
    /// One value twice in one answer.
    Twice(String),
    /// A last read misses what was acknowledged and never touched again.
    Missing(OperationId),
    /// A read shows neither an acknowledged write nor anything that may have replaced it.
    Lost {
        /// The write.
        write: OperationId,
        /// What was returned.
        returned: Vec<String>,
    },
    /// A value came back that a later write had replaced.
    Revived {
        /// The value.
        value: String,
        /// The write that had replaced it.
        replaced_by: OperationId,
    },
    /// A value came back that a later write had deleted.
    Resurrected {
        /// The value.
        value: String,
        /// The delete.
        deleted_by: OperationId,
    },
    /// A client does not read what it has written itself.
    OwnWriteUnread(OperationId),
    /// A client does not read any more what it had read before.
    WentBack {
        /// The earlier read.
        earlier: OperationId,
        /// What it had returned.
        value: String,
    },
    /// A value stands beside one whose writer had seen and replaced it: writes of one client, or of one that had read
    /// the other's, have changed their order.
    BesideItsSuccessor {
        /// The value that was replaced.
        value: String,
        /// The value whose writer had seen it.
        successor: String,
    },
    /// After the cluster had come to rest, two looked at the same and saw different things.
    Diverged {
        /// Who saw one thing.
        one: String,
        /// Who saw the other.
        other: String,
    },
    /// No order of the operations explains this answer.
    NotLinearizable {
        /// What the key could have held when the answer came.
        possible: Vec<Option<String>>,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.bucket.is_empty() {
            write!(f, "{}/", self.bucket)?;
        }
        write!(f, "{}", self.key)?;
        if let Some(at) = self.at {
            write!(f, ", operation {at}")?;
        }
        write!(f, ": {}", self.breach)
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Phantom(value) => write!(f, "{value:?} was never written"),
            Self::Twice(value) => write!(f, "{value:?} twice in one answer"),
            Self::Missing(write) => {
                write!(f, "write {write} was acknowledged and never replaced, and is missing")
            }
            Self::Lost { write, returned } => {
                write!(f, "write {write} was acknowledged, but the read returned {returned:?}")
            }
            Self::Revived { value, replaced_by } => {
                write!(f, "{value:?} came back after write {replaced_by} had replaced it")
            }
            Self::Resurrected { value, deleted_by } => {
                write!(f, "{value:?} came back after delete {deleted_by}")
            }
            Self::OwnWriteUnread(write) => {
                write!(f, "a client that had written {write} does not read it")
            }
            Self::WentBack { earlier, value } => {
                write!(f, "a client that had read {value:?} in {earlier} does not read it any more")
            }
            Self::BesideItsSuccessor { value, successor } => {
                write!(f, "{value:?} beside {successor:?}, whose writer had seen it")
            }
            Self::Diverged { one, other } => write!(f, "{one}, but {other}"),
            Self::NotLinearizable { possible } => {
                write!(f, "no order explains it: the key could only hold one of {possible:?}")
            }
        }
    }
}

/// Runs all checkers over a history.
pub fn check(history: &History, rules: &Rules) -> Result<Report, Mistake> {
    history.validate()?;
    let mut report = Report::default();
    for operations in history.by_key().values() {
        let key =
            Key { operations, register: Register::new(operations, rules), rest: history.rest };
        report.keys += 1;
        report.reads += key.reads().count();
        acknowledged::check(&key, &mut report);
        tombstones::check(&key, &mut report);
        regular::check(&key, &mut report);
        sessions::check(&key, rules, &mut report);
        convergence::check_reads(&key, &mut report);
        if key.register.mode() == Mode::Linearizable {
            linearizable::check(&key, rules, &mut report);
        }
    }
    convergence::check_holdings(history, &mut report);
    Ok(report)
}

/// Judges one answered read by what is known so far of its key's operations, itself included, in the order of their
/// starts: for whoever wants to stop at the first violation. What a later read or outcome would show only [`check`]
/// finds.
pub fn check_read(operations: &[&Operation], read: &Operation, rules: &Rules) -> Vec<Violation> {
    let key = Key { operations, register: Register::new(operations, rules), rest: None };
    let mut report = Report::default();
    acknowledged::check_values(&key, read, &mut report);
    tombstones::check_read(&key, read, &mut report);
    regular::check_read(&key, read, &mut report);
    sessions::check_order(&key, read, &mut report);
    report.violations
}

/// What a checker looks at: one key.
struct Key<'a> {
    /// In the order of their starts.
    operations: &'a [&'a Operation],
    register: Register<'a>,
    rest: Option<Time>,
}

impl<'a> Key<'a> {
    /// The reads that were answered.
    fn reads(&self) -> impl Iterator<Item = &'a Operation> {
        self.operations.iter().copied().filter(|one| one.returned().is_some())
    }

    /// Whether the read began after the cluster had come to rest.
    fn is_at_rest(&self, read: &Operation) -> bool {
        self.rest.is_some_and(|rest| read.start >= rest)
    }
}

impl Report {
    fn add(&mut self, at: &Operation, breach: Breach) {
        let (bucket, key) = (at.request.bucket.clone(), at.request.key.clone());
        self.violations.push(Violation { bucket, key, at: Some(at.id), breach });
    }
}
