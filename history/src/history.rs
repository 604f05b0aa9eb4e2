//! All that was recorded of a run: operations, faults, and what the members held in the end.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::operation::{Action, Operation, OperationId, Outcome, Time};

/// A recorded run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// What clients asked, in any order.
    pub operations: Vec<Operation>,
    /// What was done to the cluster.
    pub faults: Vec<Fault>,
    /// What members were seen to hold.
    pub holdings: Vec<Holding>,
    /// When the faults were over and the cluster had come to rest, if it was waited for.
    pub rest: Option<Time>,
    /// What else a reader of a failing run wants to know: its seed, its command.
    pub notes: Vec<String>,
}

/// Something that was done to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which kind: "kill", "partition".
    pub kind: String,
    /// To which nodes.
    pub nodes: Vec<String>,
    /// When it began.
    pub start: Time,
    /// When it was taken back. None: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Time>,
    /// What else there is to say of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What a member was seen to hold of a shard or a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// The shard or key. All members of it must come to hold the same.
    pub of: String,
    /// Who holds it.
    pub node: String,
    /// When it was looked at.
    pub at: Time,
    /// A digest of what is held.
    pub digest: String,
}

/// One line of a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Note(String),
    Operation(Operation),
    Fault(Fault),
    Holding(Holding),
    Rest(Time),
}

/// A file that is no history.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A line is nothing that a history has.
    #[error("line {line}: {error}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// Its operations do not fit together.
    #[error(transparent)]
    Mistake(#[from] Mistake),
}

/// A history that no checker can judge: who recorded it did it wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Mistake {
    /// Two operations with one number.
    #[error("two operations are number {0}")]
    SameNumber(OperationId),
    /// Two writes of one key with one value: a read cannot tell which it saw.
    #[error("operations {0} and {1} write the same value to one key")]
    SameValue(OperationId, OperationId),
    /// Its end is before its start.
    #[error("operation {0} ends before it starts")]
    EndsFirst(OperationId),
    /// Its context comes from no operation on its key that had ended when it started.
    #[error("operation {0} has a context that no earlier operation on its key returned")]
    UnknownContext(OperationId),
    /// Its outcome does not belong to its action: a read that is acknowledged, a write that returns values.
    #[error("operation {0} has an outcome that does not belong to its action")]
    WrongOutcome(OperationId),
}

/// Operations by bucket and key, each in the order of their starts.
pub(crate) type ByKey<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a Operation>>;

impl History {
    /// Operations by bucket and key, in the order of their starts.
    pub(crate) fn by_key(&self) -> ByKey<'_> {
        let mut keys = ByKey::new();
        for operation in &self.operations {
            let key = (operation.request.bucket.as_str(), operation.request.key.as_str());
            keys.entry(key).or_default().push(operation);
        }
        for operations in keys.values_mut() {
            operations.sort_by_key(|one| (one.start, one.id));
        }
        keys
    }

    /// Whether the checkers can judge it.
    pub fn validate(&self) -> Result<(), Mistake> {
        let mut by_id = BTreeMap::new();
        let mut values = BTreeMap::new();
        for one in &self.operations {
            let (id, request) = (one.id, &one.request);
            if by_id.insert(id, one).is_some() {
                return Err(Mistake::SameNumber(id));
            }
            if one.end.is_some_and(|end| end < one.start) {
                return Err(Mistake::EndsFirst(id));
            }
            if !fits(one) {
                return Err(Mistake::WrongOutcome(id));
            }
            if let Some(value) = one.value()
                && let Some(other) = values.insert((&request.bucket, &request.key, value), id)
            {
                return Err(Mistake::SameValue(other, id));
            }
        }
        for one in &self.operations {
            let Some(source) = one.request.context else { continue };
            let known = by_id.get(&source).is_some_and(|source| {
                source.id != one.id
                    && source.request.key == one.request.key
                    && source.request.bucket == one.request.bucket
                    && source.end.is_some_and(|end| end <= one.start)
                    && matches!(source.outcome, Outcome::Returned(_) | Outcome::Acknowledged)
            });
            if !known {
                return Err(Mistake::UnknownContext(one.id));
            }
        }
        Ok(())
    }

    /// Writes it as lines of JSON, one for each thing that was recorded.
    pub fn write_lines(&self, to: &mut impl Write) -> io::Result<()> {
        let notes = self.notes.iter().cloned().map(Line::Note);
        let operations = self.operations.iter().cloned().map(Line::Operation);
        let faults = self.faults.iter().cloned().map(Line::Fault);
        let holdings = self.holdings.iter().cloned().map(Line::Holding);
        let rest = self.rest.map(Line::Rest);
        for line in notes.chain(operations).chain(faults).chain(holdings).chain(rest) {
            serde_json::to_writer(&mut *to, &line)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    /// Reads what [`History::write_lines`] wrote.
    pub fn read_lines(from: impl BufRead) -> Result<Self, ReadError> {
        let mut history = Self::default();
        for (index, text) in from.lines().enumerate() {
            let text = text?;
            if text.trim().is_empty() {
                continue;
            }
            let line = serde_json::from_str(&text)
                .map_err(|error| ReadError::Line { line: index + 1, error })?;
            match line {
                Line::Note(note) => history.notes.push(note),
                Line::Operation(operation) => history.operations.push(operation),
                Line::Fault(fault) => history.faults.push(fault),
                Line::Holding(holding) => history.holdings.push(holding),
                Line::Rest(at) => history.rest = Some(at),
            }
        }
        history.validate()?;
        Ok(history)
    }
}

/// Whether the outcome is one that the action can have.
fn fits(one: &Operation) -> bool {
    match (&one.request.action, &one.outcome) {
        (_, Outcome::Refused | Outcome::InDoubt) => true,
        (Action::Get, Outcome::Returned(_)) | (Action::CompareAndSet { .. }, Outcome::Conflict) => {
            one.end.is_some()
        }
        (Action::Get, _) => false,
        (_, outcome) => *outcome == Outcome::Acknowledged && one.end.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::told;

    #[test]
    fn a_kept_history_is_read_back_as_it_was() {
        let mut history = told(
            "1 put a 0-10 ok\n1 put b 20- after:0\n2 get 30-40 =a,b one\n3 delete 30-40 refused any
            4 cas ->a 50-60 conflict lin\nrest 70\nhold shard1 node1 aa 80",
        );
        history.notes.push("seed 7".to_owned());
        let (kind, nodes) = ("kill".to_owned(), vec!["node1".to_owned()]);
        history.faults.push(Fault { kind, nodes, start: 5, end: None, detail: String::new() });
        let mut file = Vec::new();
        history.write_lines(&mut file).unwrap();
        assert_eq!(History::read_lines(&file[..]).unwrap(), history);
        let first = String::from_utf8(file).unwrap().lines().nth(1).unwrap().to_owned();
        let expected = r#"{"operation":{"id":0,"client":1,"key":"k","action":{"put":"a"},"level":"quorum","start":0,"end":10,"outcome":"acknowledged"}}"#;
        assert_eq!(first, expected, "the form of kept histories has changed");
    }

    #[test]
    fn a_file_that_is_no_history_is_refused_by_the_line() {
        let error = History::read_lines(&b"{\"rest\":1}\n{\"lunch\":2}\n"[..]).unwrap_err();
        assert!(error.to_string().starts_with("line 2: "), "{error}");
    }

    #[test]
    fn histories_that_cannot_be_judged_are_refused() {
        let mistake = |story: &str| told(story).validate().unwrap_err();
        let twice = "1 put a 0-10 ok\n2 put a 0-10 ok";
        assert_eq!(mistake(twice), Mistake::SameValue(0, 1));
        assert_eq!(mistake("1 put a 10-5 ok"), Mistake::EndsFirst(0));
        assert_eq!(mistake("1 get 0-5 ok"), Mistake::WrongOutcome(0));
        assert_eq!(mistake("1 put a 0- ok"), Mistake::WrongOutcome(0));
        for source in ["0", "7"] {
            let story = format!("1 put a 0-10 ok after:{source}");
            assert_eq!(mistake(&story), Mistake::UnknownContext(0));
        }
        let late = "1 put a 0-10 ok\n1 put b 5-20 ok after:0";
        assert_eq!(mistake(late), Mistake::UnknownContext(1));
        let mut history = told("1 put a 0-10 ok");
        history.operations.push(history.operations[0].clone());
        assert_eq!(history.validate(), Err(Mistake::SameNumber(0)));
        assert_eq!(told("1 put a 0-10 ok\n2 put a 0-10 ok any").validate(), Ok(()));
    }
}
