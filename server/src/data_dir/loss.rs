//! What is noted of a store that was lost: why, when, and where its remains lie.
//!
//! Two small files. `store/condemned` is written by a process that finds out while it runs that its
//! store cannot be trusted: the process ends, and the next start sets the store aside,
//! whatever it looks like then. `store-lost` remembers the last loss until it is made good, so
//! that the alarm outlives a restart. Whoever damages them can only make a store count as lost.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{DataDirError, io_error, replace_file};

const FORMAT: &str = "triad-store-lost-1";
const CONDEMNED: &str = "condemned";
const LOST: &str = "store-lost";
const NOWHERE: &str = "-";

/// Why a store is not trusted any more. The names are labels of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LossReason {
    /// Its files cannot be opened or read: truncated, overwritten, a page with a wrong checksum.
    Unreadable,
    /// A row without which nobody may vote is damaged.
    Damaged,
    /// It shows an earlier state than it once had, or none.
    RolledBack,
    /// Another store lies where this node's should be.
    Exchanged,
    /// Another process runs on a copy of it.
    Cloned,
    /// It is gone.
    Missing,
}

impl LossReason {
    const ALL: [Self; 6] = [
        Self::Unreadable,
        Self::Damaged,
        Self::RolledBack,
        Self::Exchanged,
        Self::Cloned,
        Self::Missing,
    ];

    /// One word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Damaged => "damaged",
            Self::RolledBack => "rolled_back",
            Self::Exchanged => "exchanged",
            Self::Cloned => "cloned",
            Self::Missing => "missing",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

/// The loss of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLoss {
    /// In one word.
    pub reason: LossReason,
    /// In a sentence.
    pub why: String,
    /// When it was noticed, in seconds since 1970 by this machine's clock.
    pub at: u64,
    /// Where the remains lie; nowhere if nothing was left.
    pub quarantine: Option<PathBuf>,
}

impl StoreLoss {
    /// A loss noticed now.
    pub(super) fn now(reason: LossReason, why: String, quarantine: Option<PathBuf>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self { reason, why, at: since.map_or(0, |since| since.as_secs()), quarantine }
    }

    /// Remembers it, durably, until [`forget`] is called.
    pub(super) fn save(&self, dir: &Path) -> Result<(), DataDirError> {
        let path = dir.join(LOST);
        let name = self.quarantine.as_deref().and_then(Path::file_name);
        let name = name.map_or(NOWHERE.into(), |name| name.to_string_lossy());
        let text = format!(
            "{FORMAT}\nreason {}\nat {}\nin {name}\nwhy {}\n",
            self.reason.as_str(),
            self.at,
            one_line(&self.why)
        );
        replace_file(&path, 0o600, text.as_bytes())
            .map_err(|source| io_error(&path, "write the file", source))
    }

    /// The last loss, if it is not made good yet.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>, DataDirError> {
        let path = dir.join(LOST);
        let Some(text) = read(&path)? else {
            return Ok(None);
        };
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let quarantine = field("in").filter(|name| *name != NOWHERE && !name.contains('/'));
        Ok(Some(Self {
            reason: field("reason").and_then(LossReason::parse).unwrap_or(LossReason::Unreadable),
            why: field("why").unwrap_or("the note about it cannot be read").to_owned(),
            at: field("at").and_then(|at| at.parse().ok()).unwrap_or(0),
            quarantine: quarantine.map(|name| dir.join(name)),
        }))
    }
}

/// The loss is made good, or an operator knows of it.
pub(crate) fn forget(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(LOST)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Notes in the data directory that its store must not be used again: the next start sets it aside.
pub(crate) fn condemn(dir: &Path, reason: LossReason, why: &str) -> io::Result<()> {
    let text = format!("{FORMAT}\nreason {}\nwhy {}\n", reason.as_str(), one_line(why));
    replace_file(&dir.join("store").join(CONDEMNED), 0o600, text.as_bytes())
}

/// Whether an earlier process has condemned the store, and why. That the file is there is enough.
pub(super) fn condemned(store: &Path) -> Result<Option<(LossReason, String)>, DataDirError> {
    let Some(text) = read(&store.join(CONDEMNED))? else {
        return Ok(None);
    };
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let reason = field("reason").and_then(LossReason::parse).unwrap_or(LossReason::Unreadable);
    Ok(Some((reason, field("why").unwrap_or("an earlier process said so").to_owned())))
}

fn read(path: &Path) -> Result<Option<String>, DataDirError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error(path, "read the file", source)),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
