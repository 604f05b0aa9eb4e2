//! What this node's store has reached at least, remembered outside the store.
//!
//! sled takes damage in the tail of its log for the end that a crash has torn, and opens with an
//! earlier state, or with none (tested in `sled_store`). A store that went back in time has forgotten
//! promises and must not vote (design rule D6), so each start notes here which store it uses and the
//! incarnation; a store that shows less is lost. It catches a rollback to before the last
//! start, also by a restored backup; later ones show by the commit numbers that peers remember.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use triad_replica::member::StoreId;
use triad_ring::Incarnation;

use super::{DataDirError, io_error, replace_file};

const FORMAT: &str = "triad-floor-1";
const NO_STORE: &str = "none";

/// The store used last and its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Floor {
    /// `None` when the last start kept nothing on disk (the memory engine).
    pub(super) store: Option<StoreId>,
    pub(super) incarnation: Incarnation,
}

impl Floor {
    /// Reads the floor; `None` before the first start is complete.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>, DataDirError> {
        let path = dir.join("floor");
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error(&path, "read the file", source)),
        };
        let floor = Self::parse(&text);
        if floor.is_none() {
            // It is written whole or not at all, so somebody else changed it. The store may
            // well be good, and says itself which it is.
            tracing::warn!(floor = %path.display(), "the floor file is unreadable: a rolled-back store would not show");
        }
        Ok(floor)
    }

    /// Writes the floor durably.
    pub(super) fn save(&self, dir: &Path) -> Result<(), DataDirError> {
        let path = dir.join("floor");
        let store = self.store.map_or(NO_STORE.to_owned(), |store| store.to_string());
        let text = format!("{FORMAT} store {store} incarnation {}\n", self.incarnation.get());
        replace_file(&path, 0o600, text.as_bytes())
            .map_err(|source| io_error(&path, "write the file", source))
    }

    /// Notes that others know of this start of the node: the next one will be greater.
    pub(super) fn raise(dir: &Path, incarnation: Incarnation) -> Result<(), DataDirError> {
        let floor = Self::load(dir)?.unwrap_or(Self { store: None, incarnation });
        Self { incarnation: floor.incarnation.max(incarnation), ..floor }.save(dir)
    }

    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [FORMAT, "store", store, "incarnation", incarnation] = words[..] else {
            return None;
        };
        let store = if store == NO_STORE { None } else { Some(store.parse().ok()?) };
        Some(Self { store, incarnation: Incarnation::new(incarnation.parse().ok()?) })
    }
}
