//! How far the store was synced, remembered beside its log.
//!
//! sled takes damage in its log for the end that a crash has torn, and opens with what lies before:
//! one flipped bit makes it forget all that was synced behind it, without a word. So every sync
//! counts. The number goes into the log, behind all that is being synced, and once the log is on the
//! disk into a file of its own. A log that shows a smaller number than the file has lost
//! what it had synced, and with it promises: the store is lost.
//!
//! The file itself is never synced. It is written after the log's sync has returned, so whatever a power
//! cut leaves of it is no greater than what the log has; one that says nothing condemns nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The file's name, and its first word.
pub(super) const FILE: &str = "synced";
const FORMAT: &str = "triad-synced-1";

/// The file, and what became of the last number.
pub(super) struct SyncMark {
    file: File,
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    last: u64,
    /// It was told already that it cannot be written.
    told: bool,
}

impl SyncMark {
    /// Opens or makes the file in the store's directory.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        Ok(Self { file: file.open(dir.join(FILE))?, written: Mutex::default() })
    }

    /// What the file says. None: it is new, or damaged.
    pub(super) fn load(&self) -> io::Result<Option<u64>> {
        let mut bytes = [0; 64];
        let length = self.file.read_at(&mut bytes, 0)?;
        Ok(std::str::from_utf8(&bytes[..length]).ok().and_then(parse))
    }

    /// Notes that all up to this number is on the disk. Where that fails the log is as good as before: a
    /// rollback to somewhere behind the last mark would not show.
    pub(super) fn raise(&self, synced: u64) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if synced <= written.last {
            return;
        }
        // One write of a fixed length within a sector: there is no half of it.
        match self.file.write_all_at(line(synced).as_bytes(), 0) {
            Ok(()) => written.last = synced,
            Err(error) if !written.told => {
                tracing::warn!(%error, "the sync mark cannot be written: a rolled-back store would not show");
                written.told = true;
            }
            Err(_) => {}
        }
    }
}

fn line(synced: u64) -> String {
    let text = format!("{FORMAT} {synced:020}");
    let crc = crc32fast::hash(text.as_bytes());
    format!("{text} {crc:08x}\n")
}

fn parse(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let (Some(FORMAT), Some(number)) = (words.next(), words.next()) else {
        return None;
    };
    let synced = number.parse().ok()?;
    (line(synced) == text).then_some(synced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_mark_says_nothing() {
        let whole = line(4_711);
        assert_eq!(parse(&whole), Some(4_711));
        for place in 0..whole.len() {
            let mut bytes = whole.clone().into_bytes();
            bytes[place] ^= 1;
            let text = String::from_utf8(bytes).unwrap();
            assert_eq!(parse(&text), None, "{text:?}");
        }
        assert_eq!(parse(""), None);
        assert_eq!(parse(&whole[..20]), None);
    }

    #[test]
    fn hostile_marks_say_nothing_or_what_was_written() {
        triad_fuzz::Target::new("mark::parse", [line(0), line(4_711)])
            .canonical()
            .attack(|bytes| Some(line(parse(std::str::from_utf8(bytes).ok()?)?).into_bytes()));
    }

    #[test]
    fn a_mark_is_never_lowered() {
        let dir = tempfile::tempdir().unwrap();
        let mark = SyncMark::open(dir.path()).unwrap();
        assert_eq!(mark.load().unwrap(), None);
        mark.raise(7);
        mark.raise(5);
        assert_eq!(SyncMark::open(dir.path()).unwrap().load().unwrap(), Some(7));
    }
}
