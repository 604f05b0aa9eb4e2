//! Damage to the data directories of nodes that do not run.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dice::Dice;

/// The size of sled's segments in Triad's stores; sled opens them with no other.
const SEGMENT_BYTES: usize = 2 << 20;
/// The first letter of the keys of records, and of the chunks of large values.
pub const RECORDS: u8 = b'R';
/// See [`RECORDS`].
pub const CHUNKS: u8 = b'C';

/// Turns one bit in so many stored rows of a kind, in a way that the engine cannot notice: as the memory of a
/// machine does, before the engine has checksummed what it writes. Answers how many there were to choose from.
///
/// # Panics
///
/// When the store cannot be opened: its node runs, or the files are damaged already.
pub fn rot_rows(data_dir: &Path, kind: u8, count: usize, dice: &mut Dice) -> usize {
    let config = sled::Config::new().path(data_dir.join("store")).segment_size(SEGMENT_BYTES);
    let db = config.open().expect("the store of a stopped node");
    let rows: Vec<_> = db.scan_prefix([kind]).map(|row| row.expect("a good row")).collect();
    for _ in 0..count {
        let (key, value) = &rows[dice.roll(0..rows.len() as u64) as usize];
        let mut rotten = value.to_vec();
        // Behind the two bytes that say what kind of row it is.
        let place = dice.roll(2..rotten.len() as u64) as usize;
        rotten[place] ^= 1 << dice.roll(0..8);
        db.insert(key, rotten).expect("a good store");
    }
    db.flush().expect("a good store");
    rows.len()
}

/// The files of a data directory that a start reads, in order, with their sizes. Empty ones are left out, and what
/// was set aside.
///
/// # Panics
///
/// When the directory cannot be read.
pub fn files(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a readable directory") {
        let entry = entry.expect("a readable directory");
        let kind = entry.file_type().expect("an entry has a type");
        let aside = entry.file_name().to_string_lossy().starts_with("quarantine-");
        if kind.is_dir() && !aside {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            let size = entry.metadata().expect("a file has a size").len();
            found.push((entry.path(), size));
        }
    }
    found.retain(|(_, size)| *size > 0);
    found.sort();
    found
}

/// Turns one bit of a file, where it holds something if such a place is found soon. Answers where.
///
/// # Panics
///
/// When the file cannot be read or written.
pub fn flip(file: &Path, dice: &mut Dice) -> usize {
    /// Most of a store's file is empty.
    const TRIES: usize = 200;
    let mut bytes = fs::read(file).expect("a readable file");
    let mut place = 0;
    for _ in 0..TRIES {
        place = dice.roll(0..bytes.len() as u64) as usize;
        if bytes[place] != 0 {
            break;
        }
    }
    bytes[place] ^= 1 << dice.roll(0..8);
    fs::write(file, bytes).expect("a writable file");
    place
}

/// Takes away what was set aside in a data directory. Answers how many lost stores that were.
///
/// # Panics
///
/// When the directory cannot be read or changed.
pub fn clear_quarantines(data_dir: &Path) -> usize {
    let mut cleared = 0;
    for entry in fs::read_dir(data_dir).expect("a readable directory") {
        let path = entry.expect("a readable directory").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("quarantine-")) {
            fs::remove_dir_all(path).expect("a directory of ours");
            cleared += 1;
        }
    }
    cleared
}
