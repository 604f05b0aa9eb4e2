//! Histories as text, for the checkers' tests: one line for each operation, numbered from 0.
//!
//! `CLIENT put VALUE`, `CLIENT delete`, `CLIENT get`, `CLIENT cas OLD>NEW` (`-` is none), then `START-END` (no END: never
//! known), then the outcome: `ok`, `=A,B` (returned), `refused`, `doubt`, `conflict`; and where needed `one` or `all`
//! (level), `after:N` (with the context of operation N), `any` or `lin` (bucket). `rest AT` and
//! `hold WHAT NODE DIGEST AT` stand on lines of their own.

use crate::check::{Rules, check};
use crate::history::{History, Holding};
use crate::operation::{Action, Level, Operation, Outcome, Request};

/// The history that the text tells.
pub(crate) fn told(text: &str) -> History {
    let mut history = History::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["rest", at] => history.rest = Some(at.parse().unwrap()),
            ["hold", of, node, digest, at] => history.holdings.push(Holding {
                of: of.to_owned(),
                node: node.to_owned(),
                at: at.parse().unwrap(),
                digest: digest.to_owned(),
            }),
            _ => {
                let id = history.operations.len() as u64;
                history.operations.push(operation(id, &words));
            }
        }
    }
    history
}

/// What the checkers find, in words, nothing in doubt being able to overwrite after its end.
pub(crate) fn found(text: &str) -> Vec<String> {
    found_by(text, Rules { grace: 0, ..Rules::default() })
}

pub(crate) fn found_by(text: &str, rules: Rules) -> Vec<String> {
    let report = check(&told(text), &rules).unwrap();
    report.violations.iter().map(ToString::to_string).collect()
}

fn operation(id: u64, words: &[&str]) -> Operation {
    let mut words = words.iter();
    let mut next = || *words.next().unwrap();
    let client = next().parse().unwrap();
    let some = |value: &str| (value != "-").then(|| value.to_owned());
    let action = match next() {
        "put" => Action::Put(next().to_owned()),
        "get" => Action::Get,
        "delete" => Action::Delete,
        "cas" => {
            let (expected, value) = next().split_once('>').unwrap();
            Action::CompareAndSet { expected: some(expected), value: some(value) }
        }
        other => panic!("{other}"),
    };
    let (start, end) = next().split_once('-').unwrap();
    let mut request = Request::new(client, "k", action);
    let mut outcome = Outcome::InDoubt;
    for word in words {
        match *word {
            "ok" => outcome = Outcome::Acknowledged,
            "refused" => outcome = Outcome::Refused,
            "doubt" => outcome = Outcome::InDoubt,
            "conflict" => outcome = Outcome::Conflict,
            "one" => request.level = Level::One,
            "all" => request.level = Level::All,
            "any" => request.bucket = "any.b".to_owned(),
            "lin" => request.bucket = "lin.b".to_owned(),
            word => match word.split_once([':', '=']).unwrap() {
                ("after", source) => request.context = Some(source.parse().unwrap()),
                (_, values) => {
                    let values = values.split(',').filter(|one| !one.is_empty());
                    outcome = Outcome::Returned(values.map(str::to_owned).collect());
                }
            },
        }
    }
    Operation { id, request, start: start.parse().unwrap(), end: end.parse().ok(), outcome }
}
