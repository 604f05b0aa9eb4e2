//! Some minutes of a run: judged when they are over, and then forgotten but for what each key holds.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use anyhow::{Context as _, Result};
use triad_client::{Client, Level};
use triad_history::{Action, Breach, History, Holding, Level as Asked, Report, Request, check};
use triad_proto::v1;

use super::fleet::Fleet;
use super::load::{Load, STRICTNESS};
use crate::processes::client_of;

/// For a cluster without faults to hold the same everywhere.
const CONVERGED: Duration = Duration::from_mins(3);
/// For one answer, repetitions included.
const PATIENCE: Duration = Duration::from_secs(10);
/// The number of the client that reads everything in the end.
const LAST_READER: u32 = 1_000;
/// How often a read that is not answered is tried again.
const TRIES: u32 = 6;

/// What a round was like.
#[derive(Debug)]
pub struct Judged {
    /// All that was asked and told.
    pub history: History,
    /// What the checkers say.
    pub report: Report,
}

/// What the keys of former rounds hold, of which nobody writes any more.
#[derive(Debug, Default)]
pub struct Memory {
    holds: BTreeMap<String, Vec<String>>,
    /// The key up to which they were read again last.
    read: String,
}

/// Waits until all members hold the same of the load's keys, which must be stopped, reads all of them, and judges.
pub async fn judge(fleet: &Fleet, load: &Load) -> Result<Judged> {
    converge(fleet, load).await?;
    let recorder = load.history.recorder();
    recorder.rest(load.history.now());
    let client = client_of(fleet.addresses());
    for key in load.keys() {
        for (level, asked) in [(Level::Quorum, Asked::Quorum), (Level::One, Asked::One)] {
            let request = Request::new(LAST_READER, &key, Action::Get).at(asked);
            let read = load.history.begin_get(request);
            let values = read_at(&client, &key, level).await?;
            // All is judged below.
            let _ = read.returned(values);
        }
    }
    let history = recorder.history();
    let report = check(&history, &STRICTNESS).context("a history that can be judged")?;
    Ok(Judged { history, report })
}

/// Waits until each key's record is the same on every member, and no write waits for an absent one. If they never come
/// to hold the same, what each holds is recorded, and judged like everything.
async fn converge(fleet: &Fleet, load: &Load) -> Result<()> {
    let until = tokio::time::Instant::now() + CONVERGED;
    let mut open = load.keys();
    loop {
        let mut differing = Vec::new();
        for key in open {
            let held = held(fleet, &key).await?;
            let same = held.windows(2).all(|pair| pair[0].1 == pair[1].1);
            if !same {
                differing.push((key, held));
            }
        }
        if differing.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() > until {
            record(load, differing);
            return Ok(());
        }
        open = differing.into_iter().map(|(key, _)| key).collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn record(load: &Load, differing: Vec<(String, Vec<(String, String)>)>) {
    for (of, held) in differing {
        for (node, digest) in held {
            let (of, at) = (of.clone(), load.history.now());
            load.history.recorder().holding(Holding { of, node, at, digest });
        }
    }
}

/// What each member says that it holds of a key.
async fn held(fleet: &Fleet, key: &str) -> Result<Vec<(String, String)>> {
    let mut tries = 0;
    loop {
        tries += 1;
        let located = fleet.client().cluster().deadline(PATIENCE).locate("", key, true).await;
        let replicas = located.map(|located| located.replicas);
        match replicas {
            Ok(replicas) if !replicas.is_empty() && replicas.iter().all(has_answered) => {
                return Ok(replicas.into_iter().map(|one| (one.node, one.digest)).collect());
            }
            other if tries == TRIES => {
                let told = other.map(|replicas| format!("{replicas:?}"));
                anyhow::bail!("not all members of {key} tell what they hold: {told:?}");
            }
            _ => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

fn has_answered(replica: &v1::ReplicaState) -> bool {
    matches!(replica.result(), v1::ReplicaResult::Ok)
}

/// All values, sorted.
async fn read_at(client: &Client, key: &str, level: Level) -> Result<Vec<String>> {
    let mut tries = 0;
    loop {
        tries += 1;
        match client.get(key).level(level).deadline(PATIENCE).await {
            Ok(answer) => {
                let text = |value: &bytes::Bytes| String::from_utf8_lossy(value).into_owned();
                let mut values: Vec<String> = answer.values().map(text).collect();
                values.sort_unstable();
                return Ok(values);
            }
            Err(error) if tries == TRIES => return Err(error).context(format!("read {key}")),
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

impl Memory {
    /// Remembers what the keys of a judged round hold. Where a write is in doubt it may still show, so such keys are
    /// forgotten.
    pub fn keep(&mut self, history: &History) {
        for one in &history.operations {
            if one.request.client == LAST_READER
                && one.request.level == Asked::Quorum
                && let Some(values) = one.returned()
            {
                self.holds.insert(one.request.key.clone(), values.to_vec());
            }
        }
        for one in history.operations.iter().filter(|one| one.may_have_written()) {
            if !one.is_acknowledged() {
                self.holds.remove(&one.request.key);
            }
        }
    }

    /// Reads the next so many keys again, all by turns; answers how many, and what has changed.
    pub async fn check(&mut self, fleet: &Fleet, most: usize) -> Result<(usize, Vec<Changed>)> {
        let client = client_of(fleet.addresses());
        let turn = self.turn(most);
        let mut changed = Vec::new();
        for key in &turn {
            let expected = &self.holds[key];
            let found = read_at(&client, key, Level::Quorum).await?;
            if found != *expected {
                changed.push(Changed { key: key.clone(), expected: expected.clone(), found });
            }
        }
        Ok((turn.len(), changed))
    }

    /// The keys whose turn it is.
    fn turn(&mut self, most: usize) -> Vec<String> {
        let later = (Bound::Excluded(self.read.clone()), Bound::Unbounded);
        let before = (Bound::Unbounded, Bound::Included(self.read.clone()));
        let circle = self.holds.range(later).chain(self.holds.range(before));
        let turn: Vec<String> = circle.take(most).map(|(key, _)| key.clone()).collect();
        if let Some(last) = turn.last() {
            self.read.clone_from(last);
        }
        turn
    }
}

/// A key that holds another thing although nobody wrote to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The key.
    pub key: String,
    /// What it held.
    pub expected: Vec<String>,
    /// What it holds.
    pub found: Vec<String>,
}

impl Changed {
    /// Whether something is missing.
    pub fn is_lost(&self) -> bool {
        self.expected.iter().any(|value| !self.found.contains(value))
    }
}

/// What kind of promise was broken, for the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// What was acknowledged is gone.
    Lost,
    /// What was deleted or replaced is back.
    Resurrected,
    /// A read at QUORUM did not see what it must.
    Stale,
    /// All others: values from nowhere, members that differ.
    Other,
}

impl Wrong {
    /// That of a finding.
    pub fn of(breach: &Breach) -> Self {
        match breach {
            Breach::Missing(_) => Self::Lost,
            Breach::Resurrected { .. } | Breach::Revived { .. } => Self::Resurrected,
            Breach::Lost { .. }
            | Breach::OwnWriteUnread(_)
            | Breach::WentBack { .. }
            | Breach::BesideItsSuccessor { .. } => Self::Stale,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use triad_history::{Outcome, Recorder};

    use super::*;

    fn last_read(recorder: &Recorder, key: &str, values: &[&str]) {
        let read = recorder.begin(50, Request::new(LAST_READER, key, Action::Get));
        let values = values.iter().map(ToString::to_string).collect();
        recorder.end(60, read, Outcome::Returned(values));
    }

    #[test]
    fn keys_are_remembered_unless_a_write_is_in_doubt() {
        let recorder = Recorder::new();
        for (key, outcome) in [("sure", Outcome::Acknowledged), ("doubt", Outcome::InDoubt)] {
            let put = recorder.begin(0, Request::new(1, key, Action::Put("v".to_owned())));
            recorder.end(10, put, outcome);
            last_read(&recorder, key, &["v"]);
        }
        let mut memory = Memory::default();
        memory.keep(&recorder.history());
        assert_eq!(memory.holds.keys().collect::<Vec<_>>(), ["sure"]);
        for key in ["a", "b"] {
            memory.holds.insert(key.to_owned(), Vec::new());
        }
        assert_eq!(memory.turn(2), ["a", "b"]);
        assert_eq!(memory.turn(2), ["sure", "a"], "all have their turn");
        assert_eq!(memory.turn(usize::MAX), ["b", "sure", "a"]);
    }

    #[test]
    fn what_is_missing_is_lost_and_what_is_more_is_resurrected() {
        let changed = |expected: &[&str], found: &[&str]| {
            let owned = |values: &[&str]| values.iter().map(ToString::to_string).collect();
            Changed { key: "k".to_owned(), expected: owned(expected), found: owned(found) }
        };
        assert!(changed(&["a"], &[]).is_lost() && !changed(&[], &["a"]).is_lost());
        assert_eq!(Wrong::of(&Breach::Missing(1)), Wrong::Lost);
        assert_eq!(Wrong::of(&Breach::Lost { write: 1, returned: Vec::new() }), Wrong::Stale);
        assert_eq!(Wrong::of(&Breach::Phantom(String::new())), Wrong::Other);
    }
}
