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

/// All files in a directory, in order, with their sizes; empty ones are left out.
///
/// # Panics
///
/// When the directory cannot be read.
pub fn files(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a readable directory") {
        let entry = entry.expect("a readable directory");
        let kind = entry.file_type().expect("an entry has a type");
        if kind.is_dir() {
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

/// Turns one bit of a file.
///
/// # Panics
///
/// When the file cannot be read or written.
pub fn flip(file: &Path, offset: u64, bit: u64) {
    let mut bytes = fs::read(file).expect("a readable file");
    bytes[offset as usize] ^= 1 << bit;
    fs::write(file, bytes).expect("a writable file");
}
