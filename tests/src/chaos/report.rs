//! What a run tells in the end, and what it keeps when it fails.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use triad_history::{History, Operation, Outcome, Report, picture};

use super::fault::Fault;
use super::round::{Changed, Wrong};
use crate::containers::root;

/// So many rounds that went well are kept until the run has.
const ROUNDS: u64 = 100;

/// The counts of a run.
#[derive(Debug, Default)]
pub struct Figures {
    /// How long it went on.
    pub took: Duration,
    /// What happened how often.
    pub faults: BTreeMap<Fault, usize>,
    /// Requests in all.
    pub operations: usize,
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Writes of which nobody knows.
    pub in_doubt: usize,
    /// Reads that were answered and judged.
    pub reads: usize,
    /// Promises broken.
    pub wrong: BTreeMap<Wrong, usize>,
}

impl Figures {
    /// Adds a round.
    pub fn add(&mut self, history: &History, report: &Report) {
        let count = |is: &dyn Fn(&Operation) -> bool| {
            history.operations.iter().filter(|one| is(one)).count()
        };
        self.operations += history.operations.len();
        self.acknowledged += count(&Operation::is_acknowledged);
        self.in_doubt += count(&|one| one.is_write() && one.outcome == Outcome::InDoubt);
        self.reads += report.reads;
        for violation in &report.violations {
            *self.wrong.entry(Wrong::of(&violation.breach)).or_default() += 1;
        }
    }

    /// Adds what was found when keys of former rounds were read again.
    pub fn add_changes(&mut self, read: usize, changed: &[Changed]) {
        self.operations += read;
        self.reads += read;
        for one in changed {
            let wrong = if one.is_lost() { Wrong::Lost } else { Wrong::Resurrected };
            *self.wrong.entry(wrong).or_default() += 1;
        }
    }

    fn wrong(&self, wrong: Wrong) -> usize {
        self.wrong.get(&wrong).copied().unwrap_or_default()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> =
            self.faults.iter().map(|(fault, count)| format!("{count} {}", fault.name())).collect();
        let (seconds, faults) = (self.took.as_secs(), self.faults.values().sum::<usize>());
        write!(f, "{seconds} s; {faults} faults ({}); ", kinds.join(", "))?;
        let Self { operations, acknowledged, in_doubt, reads, .. } = self;
        write!(f, "{operations} operations, {acknowledged} writes acknowledged, ")?;
        write!(f, "{in_doubt} in doubt, {reads} reads judged; ")?;
        let [lost, resurrected, stale, other] =
            [Wrong::Lost, Wrong::Resurrected, Wrong::Stale, Wrong::Other]
                .map(|one| self.wrong(one));
        write!(f, "{lost} lost, {resurrected} resurrected, {stale} stale, {other} otherwise wrong")
    }
}

/// Where a run keeps its logs, and when it fails everything else.
#[derive(Debug)]
pub struct Kept(PathBuf);

impl Kept {
    /// A directory for this seed, empty.
    pub fn of(seed: u64) -> Result<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR");
        let target = target.map_or_else(|| root().join("target"), PathBuf::from);
        let path = target.join("chaos").join(seed.to_string());
        if path.exists() {
            fs::remove_dir_all(&path).context("remove what an earlier run of this seed kept")?;
        }
        fs::create_dir_all(&path).context("a directory for what is kept")?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Keeps a history and its picture.
    pub fn keep(&self, history: &History, report: &Report) -> Result<()> {
        let mut lines = BufWriter::new(File::create(self.0.join("history.jsonl"))?);
        history.write_lines(&mut lines)?;
        fs::write(self.0.join("picture.html"), picture::html(history, report))?;
        Ok(())
    }

    /// Keeps the history of a round that went well, in case that a later one tells of its keys; of many rounds the last.
    pub fn keep_round(&self, number: u64, history: &History) -> Result<()> {
        let path = |number: u64| self.0.join(format!("round{number}.jsonl"));
        history.write_lines(&mut BufWriter::new(File::create(path(number))?))?;
        if number > ROUNDS {
            fs::remove_file(path(number - ROUNDS))?;
        }
        Ok(())
    }

    /// Nothing is to be kept.
    pub fn discard(self) -> Result<()> {
        fs::remove_dir_all(&self.0).context("remove the logs of a run that went well")
    }
}

#[cfg(test)]
mod tests {
    use triad_history::{Action, Breach, Recorder, Request, Violation};

    use super::*;

    #[test]
    fn figures_count_what_was_asked_and_what_was_wrong() {
        let recorder = Recorder::new();
        for outcome in [Outcome::Acknowledged, Outcome::InDoubt, Outcome::Refused] {
            let put = recorder.begin(0, Request::new(1, "k", Action::Put(format!("{outcome:?}"))));
            recorder.end(10, put, outcome);
        }
        let violation =
            |breach| Violation { bucket: String::new(), key: "k".to_owned(), at: None, breach };
        let violations = vec![violation(Breach::Missing(0)), violation(Breach::Twice("v".into()))];
        let report = Report { violations, reads: 4, ..Report::default() };
        let mut figures = Figures { took: Duration::from_secs(9), ..Figures::default() };
        figures.faults.insert(Fault::Kill, 2);
        figures.add(&recorder.history(), &report);
        let lost = Changed { key: "k".into(), expected: vec!["v".into()], found: Vec::new() };
        figures.add_changes(10, &[lost]);
        let expected = "9 s; 2 faults (2 kill); 13 operations, 1 writes acknowledged, 1 in doubt, \
                        14 reads judged; 2 lost, 0 resurrected, 0 stale, 1 otherwise wrong";
        assert_eq!(figures.to_string(), expected);
    }

    #[test]
    fn a_failing_run_keeps_its_history_and_its_picture() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept(directory.path().join("7"));
        fs::create_dir_all(kept.path()).unwrap();
        kept.keep(&History::default(), &Report::default()).unwrap();
        for number in 1..=ROUNDS + 2 {
            kept.keep_round(number, &History::default()).unwrap();
        }
        assert!(!kept.path().join("round2.jsonl").exists());
        assert!(kept.path().join("round3.jsonl").exists());
        assert!(kept.path().join("history.jsonl").exists());
        let picture = fs::read_to_string(kept.path().join("picture.html")).unwrap();
        assert!(picture.contains("<svg"));
        kept.discard().unwrap();
        assert!(!directory.path().join("7").exists());
    }
}
