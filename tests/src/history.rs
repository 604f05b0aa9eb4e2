//! Which writes were acknowledged, and whether a read may have returned what it did.
//!
//! Triad promises: a read at QUORUM sees every write that QUORUM acknowledged before the read began, or what replaced
//! it. The checker holds each read against that, for keys with one writer at a time whose puts and deletes bring no
//! context (so each replaces all acknowledged before). A write whose outcome is unknown may show or not, now or later: it is never
//! taken for failed, and never demanded.
//!
//! The judgement is a regular register over sets of siblings (Lamport, *On Interprocess Communication*, part II,
//! 1986), with unknown outcomes as in Jepsen's `info` operations.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All writes of a test, by key.
#[derive(Debug, Default)]
pub struct History {
    keys: Mutex<BTreeMap<String, Vec<Event>>>,
}

/// A put or a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Event {
    deletes: bool,
    fate: Fate,
}

/// What is known of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pending,
    Acknowledged,
    InDoubt,
    /// It is certain that nothing was written.
    Refused,
}

/// A write (a put or a delete) under way. It ends with [`Write::acknowledged`], [`Write::in_doubt`] or [`Write::refused`]; dropped
/// without, it is in doubt.
#[derive(Debug)]
pub struct Write<'a> {
    history: &'a History,
    key: String,
    number: usize,
    ended: bool,
}

/// A read under way: remembers what was acknowledged when it began.
#[derive(Debug)]
pub struct Read<'a> {
    history: &'a History,
    key: String,
    /// The last write acknowledged before.
    floor: Option<usize>,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Neither an acknowledged write nor a later one was returned.
    Lost {
        /// The key.
        key: String,
        /// The number of the write that must be seen, or a later one.
        acknowledged: usize,
        /// What was returned.
        returned: Vec<String>,
    },
    /// An acknowledged write came back after a later one had replaced it.
    Revived {
        /// The key.
        key: String,
        /// The number of the old write.
        old: usize,
        /// The number of the write that had replaced it.
        replaced_by: usize,
    },
    /// An acknowledged write came back after it had been deleted.
    Resurrected {
        /// The key.
        key: String,
        /// The number of the old write.
        old: usize,
        /// The number of the delete.
        deleted_by: usize,
    },
    /// A value that was never written, or whose writer was told that nothing was written.
    Phantom {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { key, acknowledged, returned } => {
                write!(
                    f,
                    "{key}: write {acknowledged} was acknowledged, but the read returned {returned:?}"
                )
            }
            Self::Revived { key, old, replaced_by } => {
                write!(f, "{key}: write {old} came back after write {replaced_by} had replaced it")
            }
            Self::Resurrected { key, old, deleted_by } => {
                write!(f, "{key}: write {old} came back after delete {deleted_by}")
            }
            Self::Phantom { key, value } => write!(f, "{key}: {value:?} was never written"),
        }
    }
}

impl History {
    /// No writes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that a write begins; [`Write::value`] is what to write. Panics if another write of the key is under
    /// way: the judgement needs one writer at a time.
    pub fn begin_write(&self, key: &str) -> Write<'_> {
        self.begin(key, false)
    }

    /// Notes that a delete begins, under the same condition.
    pub fn begin_delete(&self, key: &str) -> Write<'_> {
        self.begin(key, true)
    }

    fn begin(&self, key: &str, deletes: bool) -> Write<'_> {
        let mut keys = self.lock();
        let writes = keys.entry(key.to_owned()).or_default();
        let busy = writes.last().is_some_and(|last| last.fate == Fate::Pending);
        assert!(!busy, "{key} has two writers");
        writes.push(Event { deletes, fate: Fate::Pending });
        Write { history: self, key: key.to_owned(), number: writes.len() - 1, ended: false }
    }

    /// Notes that a read begins.
    pub fn begin_read(&self, key: &str) -> Read<'_> {
        let keys = self.lock();
        let floor =
            keys.get(key).and_then(|writes| writes.iter().rposition(|one| one.is_acknowledged()));
        Read { history: self, key: key.to_owned(), floor }
    }

    /// All keys with an acknowledged write: at the end each must be found, or be gone if it was deleted last.
    pub fn acknowledged_keys(&self) -> Vec<String> {
        let keys = self.lock();
        keys.iter()
            .filter(|(_, writes)| writes.iter().any(|one| one.is_acknowledged()))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// How many writes there were, and how many of them are acknowledged.
    pub fn counts(&self) -> (usize, usize) {
        let keys = self.lock();
        let all = keys.values().flatten();
        let acknowledged = all.clone().filter(|write| write.is_acknowledged()).count();
        (all.count(), acknowledged)
    }

    /// How many keys are deleted, by their last acknowledged write and no later one that might have put them again.
    pub fn deleted(&self) -> usize {
        let keys = self.lock();
        let gone = |writes: &&Vec<Event>| {
            let last = writes.iter().rposition(|one| one.is_acknowledged());
            last.is_some_and(|last| {
                writes[last].deletes && writes[last..].iter().all(|one| one.deletes)
            })
        };
        keys.values().filter(gone).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Event>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Event {
    fn is_acknowledged(self) -> bool {
        self.fate == Fate::Acknowledged
    }
}

impl Write<'_> {
    /// The value to put: it names the key and the write.
    pub fn value(&self) -> String {
        format!("{}#{}", self.key, self.number)
    }

    /// The level's replicas acknowledged it.
    pub fn acknowledged(mut self) {
        self.end(Fate::Acknowledged);
    }

    /// It may or may not have taken effect.
    pub fn in_doubt(mut self) {
        self.end(Fate::InDoubt);
    }

    /// The cluster said that nothing was written.
    pub fn refused(mut self) {
        self.end(Fate::Refused);
    }

    fn end(&mut self, fate: Fate) {
        self.ended = true;
        if let Some(writes) = self.history.lock().get_mut(&self.key) {
            writes[self.number].fate = fate;
        }
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Fate::InDoubt);
        }
    }
}

impl Read<'_> {
    /// Judges the values that the read returned.
    pub fn returned<V: AsRef<[u8]>>(
        self,
        values: impl IntoIterator<Item = V>,
    ) -> Result<(), Violation> {
        let texts: Vec<String> = values
            .into_iter()
            .map(|value| String::from_utf8_lossy(value.as_ref()).into_owned())
            .collect();
        let keys = self.history.lock();
        let writes = keys.get(&self.key).map_or(&[][..], Vec::as_slice);
        let mut numbers = Vec::with_capacity(texts.len());
        for text in &texts {
            let possible = |number: &usize| {
                writes.get(*number).is_some_and(|one| !one.deletes && one.fate != Fate::Refused)
            };
            let number = self.number_of(text).filter(possible);
            match number {
                Some(number) => numbers.push(number),
                None => {
                    return Err(Violation::Phantom { key: self.key, value: text.clone() });
                }
            }
        }
        let Some(floor) = self.floor else {
            return Ok(());
        };
        let old =
            numbers.iter().find(|number| **number < floor && writes[**number].is_acknowledged());
        let key = self.key;
        match old.copied() {
            Some(old) if writes[floor].deletes => {
                return Err(Violation::Resurrected { key, old, deleted_by: floor });
            }
            Some(old) if numbers.iter().any(|number| *number >= floor) => {
                return Err(Violation::Revived { key, old, replaced_by: floor });
            }
            _ => {}
        }
        // A delete since then, and be it in doubt, may have taken away all that came before it.
        let may_be_gone =
            writes[floor..].iter().any(|one| one.deletes && one.fate != Fate::Refused);
        if may_be_gone || numbers.iter().any(|number| *number >= floor) {
            return Ok(());
        }
        Err(Violation::Lost { key, acknowledged: floor, returned: texts })
    }

    fn number_of(&self, text: &str) -> Option<usize> {
        text.strip_prefix(&self.key)?.strip_prefix('#')?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(history: &History, key: &str) -> String {
        let write = history.begin_write(key);
        let value = write.value();
        write.acknowledged();
        value
    }

    #[test]
    fn the_last_acknowledged_value_or_a_later_one_is_right() {
        let history = History::new();
        let first = written(&history, "k");
        history.begin_read("k").returned([&first]).unwrap();
        let read = history.begin_read("k");
        let second = written(&history, "k");
        read.returned([&second]).unwrap();
        history.begin_read("k").returned([&second]).unwrap();
    }

    #[test]
    fn a_read_under_way_may_return_either_side_of_a_concurrent_write() {
        let history = History::new();
        let first = written(&history, "k");
        let write = history.begin_write("k");
        history.begin_read("k").returned([&first]).unwrap();
        history.begin_read("k").returned([&write.value()]).unwrap();
        history.begin_read("k").returned([first, write.value()]).unwrap();
        let none: [&str; 0] = [];
        history.begin_read("untouched").returned(none).unwrap();
    }

    #[test]
    fn an_unknown_outcome_may_be_either_for_ever() {
        let history = History::new();
        let first = written(&history, "k");
        let write = history.begin_write("k");
        let unknown = write.value();
        write.in_doubt();
        history.begin_read("k").returned([&first]).unwrap();
        history.begin_read("k").returned([&unknown]).unwrap();
        let third = written(&history, "k");
        history.begin_read("k").returned([&third]).unwrap();
        history.begin_read("k").returned([&unknown, &third]).unwrap();
        assert_eq!(history.counts(), (3, 2));
    }

    #[test]
    fn a_forgotten_write_is_in_doubt() {
        let history = History::new();
        let value = history.begin_write("k").value();
        history.begin_read("k").returned([&value]).unwrap();
        assert!(history.acknowledged_keys().is_empty());
    }

    #[test]
    fn planted_a_lost_write_is_found() {
        let history = History::new();
        let first = written(&history, "k");
        let none: [&str; 0] = [];
        assert!(matches!(
            history.begin_read("k").returned(none),
            Err(Violation::Lost { acknowledged: 0, .. })
        ));
        written(&history, "k");
        assert!(matches!(
            history.begin_read("k").returned([&first]),
            Err(Violation::Lost { acknowledged: 1, .. })
        ));
    }

    #[test]
    fn planted_a_write_in_doubt_does_not_excuse_a_lost_one() {
        let history = History::new();
        let write = history.begin_write("k");
        let unknown = write.value();
        write.in_doubt();
        written(&history, "k");
        assert!(matches!(
            history.begin_read("k").returned([&unknown]),
            Err(Violation::Lost { .. })
        ));
    }

    #[test]
    fn planted_a_replaced_value_that_comes_back_is_found() {
        let history = History::new();
        let first = written(&history, "k");
        let second = written(&history, "k");
        let verdict = history.begin_read("k").returned([&first, &second]);
        assert_eq!(verdict, Err(Violation::Revived { key: "k".into(), old: 0, replaced_by: 1 }));
    }

    fn deleted(history: &History, key: &str) {
        history.begin_delete(key).acknowledged();
    }

    #[test]
    fn a_deleted_key_may_be_absent_or_put_again_and_nothing_else() {
        let history = History::new();
        let first = written(&history, "k");
        deleted(&history, "k");
        let none: [&str; 0] = [];
        history.begin_read("k").returned(none).unwrap();
        assert_eq!(history.deleted(), 1);
        let read = history.begin_read("k");
        let again = written(&history, "k");
        read.returned([&again]).unwrap();
        history.begin_read("k").returned([&again]).unwrap();
        assert_eq!(history.deleted(), 0);
        assert!(history.begin_read("k").returned([&first, &again]).is_err());
    }

    #[test]
    fn a_delete_under_way_or_in_doubt_may_show_or_not() {
        let history = History::new();
        let first = written(&history, "k");
        let none: [&str; 0] = [];
        let delete = history.begin_delete("k");
        history.begin_read("k").returned([&first]).unwrap();
        history.begin_read("k").returned(none).unwrap();
        delete.in_doubt();
        history.begin_read("k").returned([&first]).unwrap();
        history.begin_read("k").returned(none).unwrap();
    }

    #[test]
    fn a_put_in_doubt_may_show_after_a_delete() {
        let history = History::new();
        written(&history, "k");
        let write = history.begin_write("k");
        let late = write.value();
        write.in_doubt();
        deleted(&history, "k");
        history.begin_read("k").returned([&late]).unwrap();
    }

    #[test]
    fn planted_a_deleted_value_that_comes_back_is_found() {
        let history = History::new();
        let first = written(&history, "k");
        deleted(&history, "k");
        let expected = Violation::Resurrected { key: "k".into(), old: 0, deleted_by: 1 };
        assert_eq!(history.begin_read("k").returned([&first]), Err(expected));
        // Nor does a later write excuse it.
        let write = history.begin_write("k");
        let later = write.value();
        write.in_doubt();
        assert!(matches!(
            history.begin_read("k").returned([&first, &later]),
            Err(Violation::Resurrected { .. })
        ));
    }

    #[test]
    fn planted_a_refused_delete_that_took_effect_is_found() {
        let history = History::new();
        written(&history, "k");
        history.begin_delete("k").refused();
        let none: [&str; 0] = [];
        assert!(matches!(
            history.begin_read("k").returned(none),
            Err(Violation::Lost { acknowledged: 0, .. })
        ));
    }

    #[test]
    fn planted_a_write_lost_after_a_delete_is_found() {
        let history = History::new();
        written(&history, "k");
        deleted(&history, "k");
        written(&history, "k");
        let none: [&str; 0] = [];
        assert!(matches!(
            history.begin_read("k").returned(none),
            Err(Violation::Lost { acknowledged: 2, .. })
        ));
    }

    #[test]
    fn planted_values_that_nobody_wrote_are_found() {
        let history = History::new();
        written(&history, "k");
        for value in ["k#7", "other#0", "garbage", ""] {
            let verdict = history.begin_read("k").returned([value]);
            assert!(matches!(verdict, Err(Violation::Phantom { .. })), "{value}: {verdict:?}");
        }
    }

    #[test]
    fn planted_a_refused_write_that_shows_is_found() {
        let history = History::new();
        let write = history.begin_write("k");
        let value = write.value();
        write.refused();
        assert!(matches!(
            history.begin_read("k").returned([&value]),
            Err(Violation::Phantom { .. })
        ));
    }

    #[test]
    #[should_panic(expected = "two writers")]
    fn two_writers_of_a_key_are_a_mistake_of_the_test() {
        let history = History::new();
        let _first = history.begin_write("k");
        let _second = history.begin_write("k");
    }
}
