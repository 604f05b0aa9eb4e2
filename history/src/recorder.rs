//! Takes down what clients ask and are told, while it happens. Time is an argument: simulated time works as well.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::check::{Rules, Violation, check_read};
use crate::history::{Fault, History, Holding};
use crate::operation::{Operation, OperationId, Outcome, Request, Time};

/// A history that is being written. Shared by all clients of a run.
#[derive(Debug, Default)]
pub struct Recorder {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    history: History,
    /// Bucket and key → the numbers of their operations, which are their places in the history.
    keys: BTreeMap<(String, String), Vec<usize>>,
}

impl Recorder {
    /// Nothing recorded yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that a request is sent, and answers its number. Until its end is noted it is in doubt, also for ever.
    pub fn begin(&self, now: Time, request: Request) -> OperationId {
        let Inner { history, keys } = &mut *self.lock();
        let place = history.operations.len();
        let key = (request.bucket.clone(), request.key.clone());
        keys.entry(key).or_default().push(place);
        let (id, outcome) = (place as OperationId, Outcome::InDoubt);
        history.operations.push(Operation { id, request, start: now, end: None, outcome });
        id
    }

    /// Notes what its client was told, or that it gave up.
    ///
    /// # Panics
    /// When it never began, or ended before: a mistake of the caller.
    pub fn end(&self, now: Time, id: OperationId, outcome: Outcome) {
        let history = &mut self.lock().history;
        let operation = history.operations.get_mut(id as usize).expect("an operation that began");
        assert!(operation.end.is_none(), "operation {id} ended before");
        operation.end = Some(now.max(operation.start));
        operation.outcome = outcome;
    }

    /// Notes that something is done to the cluster; answers its number for [`Recorder::heal`].
    pub fn fault(&self, now: Time, kind: &str, nodes: Vec<String>, detail: &str) -> usize {
        let history = &mut self.lock().history;
        let (kind, detail) = (kind.to_owned(), detail.to_owned());
        history.faults.push(Fault { kind, nodes, start: now, end: None, detail });
        history.faults.len() - 1
    }

    /// Notes that a fault is taken back.
    pub fn heal(&self, now: Time, fault: usize) {
        if let Some(fault) = self.lock().history.faults.get_mut(fault) {
            fault.end = Some(now.max(fault.start));
        }
    }

    /// Notes what a member was seen to hold.
    pub fn holding(&self, holding: Holding) {
        self.lock().history.holdings.push(holding);
    }

    /// Notes that the faults are over and the cluster has come to rest.
    pub fn rest(&self, now: Time) {
        self.lock().history.rest = Some(now);
    }

    /// Notes something for whoever reads of a failing run.
    pub fn note(&self, text: impl Into<String>) {
        self.lock().history.notes.push(text.into());
    }

    /// What was recorded so far.
    pub fn history(&self) -> History {
        self.lock().history.clone()
    }

    /// Judges an answered read by what is known so far, as [`check_read`] does. Empty for what is no answered read.
    pub fn judge(&self, read: OperationId, rules: &Rules) -> Vec<Violation> {
        let Inner { history, keys } = &*self.lock();
        let Some(read) = history.operations.get(read as usize) else { return Vec::new() };
        let key = (read.request.bucket.clone(), read.request.key.clone());
        let places = keys.get(&key).map_or(&[][..], Vec::as_slice);
        let mut operations: Vec<_> = places.iter().map(|one| &history.operations[*one]).collect();
        operations.sort_by_key(|one| (one.start, one.id));
        if read.returned().is_none() { Vec::new() } else { check_read(&operations, read, rules) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
