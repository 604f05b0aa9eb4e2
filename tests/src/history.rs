//! Takes down what clients of a test write and read, by the machine's clock, and judges each read as it comes.
//!
//! What is recorded, and what may be read, is `triad_history`'s matter. Here a write is a guard that ends as
//! acknowledged, in doubt or refused; one that was dropped is in doubt. Each read is judged against all that is known
//! by then, so that a test fails where it went wrong; [`History::problems`] runs all checkers in the end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use triad_history::{
    Action, Operation, OperationId, Outcome, Recorder, Request, Rules, Time, Violation, check,
};

/// The server mints nothing for a request after its deadline, so a write whose client has given up overwrites nothing
/// that is acknowledged afterwards.
pub const RULES: Rules = Rules { grace: 0, monotonic_reads: false, configurations: 1_000_000 };

/// All that clients of a test asked.
#[derive(Debug)]
pub struct History {
    rules: Rules,
    recorder: Recorder,
    began: Instant,
    values: AtomicU64,
}

/// A write (a put or a delete) under way. It ends with [`Write::acknowledged`], [`Write::in_doubt`] or
/// [`Write::refused`]; dropped without, it is in doubt.
#[derive(Debug)]
pub struct Write<'a> {
    history: &'a History,
    id: OperationId,
    value: String,
    outcome: Outcome,
}

/// A read under way.
#[derive(Debug)]
pub struct Read<'a> {
    history: &'a History,
    id: OperationId,
}

impl Default for History {
    fn default() -> Self {
        Self::judged_by(RULES)
    }
}

impl History {
    /// Nothing asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing asked yet; to be judged by these rules.
    pub fn judged_by(rules: Rules) -> Self {
        let (recorder, values) = (Recorder::new(), AtomicU64::new(0));
        Self { rules, recorder, began: Instant::now(), values }
    }

    /// Notes that a put begins; [`Write::value`] is what to write.
    pub fn begin_write(&self, key: &str) -> Write<'_> {
        let value = self.next_value(key);
        self.begin(Request::new(0, key, Action::Put(value)))
    }

    /// Notes that a delete begins.
    pub fn begin_delete(&self, key: &str) -> Write<'_> {
        self.begin(Request::new(0, key, Action::Delete))
    }

    /// Notes that a write begins that is more than these two.
    pub fn begin(&self, request: Request) -> Write<'_> {
        let value = match &request.action {
            Action::Put(value) => value.clone(),
            _ => String::new(),
        };
        let id = self.recorder.begin(self.now(), request);
        Write { history: self, id, value, outcome: Outcome::InDoubt }
    }

    /// A value that nobody else writes.
    pub fn next_value(&self, key: &str) -> String {
        format!("{key}#{}", self.values.fetch_add(1, Ordering::Relaxed))
    }

    /// Notes that a read begins.
    pub fn begin_read(&self, key: &str) -> Read<'_> {
        self.begin_get(Request::new(0, key, Action::Get))
    }

    /// Notes that a read begins that is more than that.
    pub fn begin_get(&self, request: Request) -> Read<'_> {
        Read { history: self, id: self.recorder.begin(self.now(), request) }
    }

    /// What takes it down: for faults and notes.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The moment by its clock.
    pub fn now(&self) -> Time {
        self.began.elapsed().as_micros() as Time
    }

    /// What all checkers find in all that was recorded.
    pub fn problems(&self) -> Vec<String> {
        match check(&self.recorder.history(), &self.rules) {
            Ok(report) => report.violations.iter().map(ToString::to_string).collect(),
            Err(mistake) => vec![format!("recorded wrongly: {mistake}")],
        }
    }

    /// All keys with an acknowledged write: at the end each must be found, or be gone if it was deleted last.
    pub fn acknowledged_keys(&self) -> Vec<String> {
        let writes = self.writes();
        let keys = writes.into_iter().filter(Operation::is_acknowledged);
        keys.map(|one| one.request.key).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// How many writes there were, and how many of them are acknowledged.
    pub fn counts(&self) -> (usize, usize) {
        let writes = self.writes();
        (writes.len(), writes.iter().filter(|one| one.is_acknowledged()).count())
    }

    /// How many keys are deleted: by their last acknowledged write, and nothing later may have put them again.
    pub fn deleted(&self) -> usize {
        let (mut deleted, mut alive) = (BTreeSet::new(), BTreeSet::new());
        for one in self.writes().into_iter().rev().filter(Operation::may_have_written) {
            let key = one.request.key.clone();
            if one.value().is_some() {
                alive.insert(key);
            } else if one.is_acknowledged() && !alive.contains(&key) {
                deleted.insert(key);
            }
        }
        deleted.len()
    }

    /// In the order of their starts.
    fn writes(&self) -> Vec<Operation> {
        self.recorder.history().operations.into_iter().filter(Operation::is_write).collect()
    }
}

impl Write<'_> {
    /// The value to put, which nobody else writes.
    pub fn value(&self) -> String {
        self.value.clone()
    }

    /// Its number, to write with the context of its reply: [`Request::after`].
    pub fn id(&self) -> OperationId {
        self.id
    }

    /// The level's replicas acknowledged it.
    pub fn acknowledged(mut self) {
        self.outcome = Outcome::Acknowledged;
    }

    /// It may or may not have taken effect.
    pub fn in_doubt(self) {}

    /// The cluster said that nothing was written.
    pub fn refused(mut self) {
        self.outcome = Outcome::Refused;
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        self.history.recorder.end(self.history.now(), self.id, self.outcome.clone());
    }
}

impl Read<'_> {
    /// Its number, to write with the context of its reply: [`Request::after`].
    pub fn id(&self) -> OperationId {
        self.id
    }

    /// Notes the values that the read returned, and judges them.
    pub fn returned<V: AsRef<[u8]>>(
        self,
        values: impl IntoIterator<Item = V>,
    ) -> Result<(), Violation> {
        let text = |value: V| String::from_utf8_lossy(value.as_ref()).into_owned();
        let values = values.into_iter().map(text).collect();
        let Self { history, id } = self;
        history.recorder.end(history.now(), id, Outcome::Returned(values));
        history.recorder.judge(id, &history.rules).into_iter().next().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use triad_history::Breach;

    use super::*;

    fn written(history: &History, key: &str) -> String {
        let write = history.begin_write(key);
        let value = write.value();
        write.acknowledged();
        tick();
        value
    }

    /// What follows is later by the history's clock, too.
    fn tick() {
        let now = Instant::now();
        while now.elapsed().as_micros() < 2 {}
    }

    fn breach(history: &History, key: &str, values: &[&str]) -> Option<Breach> {
        tick();
        history.begin_read(key).returned(values).err().map(|violation| violation.breach)
    }

    #[test]
    fn reads_are_judged_as_they_come() {
        let history = History::new();
        let first = written(&history, "k");
        assert_eq!(breach(&history, "k", &[&first]), None);
        let second = written(&history, "k");
        assert_eq!(breach(&history, "k", &[&second]), None);
        assert_eq!(history.problems(), [""; 0]);
        assert!(matches!(breach(&history, "k", &[]), Some(Breach::Lost { .. })));
        let revived = breach(&history, "k", &[&first, &second]);
        assert!(matches!(revived, Some(Breach::Revived { .. })), "{revived:?}");
        let phantom = breach(&history, "k", &["k#77"]);
        assert!(matches!(phantom, Some(Breach::Phantom(_))), "{phantom:?}");
        history.begin_delete("k").acknowledged();
        assert!(matches!(breach(&history, "k", &[&second]), Some(Breach::Resurrected { .. })));
        assert!(history.problems().len() >= 4);
    }

    #[test]
    fn a_forgotten_write_is_in_doubt() {
        let history = History::new();
        let value = history.begin_write("k").value();
        assert_eq!(breach(&history, "k", &[&value]), None);
        assert_eq!(breach(&history, "k", &[]), None);
        assert!(history.acknowledged_keys().is_empty());
        assert_eq!(history.counts(), (1, 0));
    }

    #[test]
    fn a_refused_write_does_not_count() {
        let history = History::new();
        let value = written(&history, "k");
        history.begin_delete("k").refused();
        assert_eq!(breach(&history, "k", &[&value]), None);
        let refused = history.begin_write("k");
        let value = refused.value();
        refused.refused();
        assert!(matches!(breach(&history, "k", &[&value]), Some(Breach::Phantom(_))));
    }

    #[test]
    fn a_key_is_deleted_until_something_may_have_put_it_again() {
        let history = History::new();
        written(&history, "k");
        written(&history, "other");
        assert_eq!(history.deleted(), 0);
        history.begin_delete("k").acknowledged();
        history.begin_write("k").refused();
        assert_eq!(history.deleted(), 1);
        history.begin_write("k").in_doubt();
        assert_eq!(history.deleted(), 0);
        assert_eq!(history.acknowledged_keys(), ["k", "other"]);
    }
}
