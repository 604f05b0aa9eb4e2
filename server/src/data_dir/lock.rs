//! One process per data directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{DataDirError, io_error};

/// Takes the lock or says who holds it. The kernel drops it with the process, however that
/// ends; the file stays, because removing it would let two processes lock two files
/// of one name.
pub(super) fn acquire(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join("LOCK");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|source| io_error(&path, "open the lock file for writing", source))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(DataDirError::InUse { path: dir.to_owned(), holder: holder(&mut file) });
        }
        Err(errno) => return Err(io_error(&path, "lock the file", errno.into())),
    }
    write_pid(&mut file).map_err(|source| io_error(&path, "write the lock file", source))?;
    Ok(file)
}

/// For people who wonder who holds the lock; the lock itself is the kernel's.
fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
