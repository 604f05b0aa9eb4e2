//! A small disk of its own for a node: a file with a file system, mounted here and bound into the container. So its end
//! can be reached, and what is on it outlives a killed container.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::containers::run;

/// Much more than the node keeps free by itself (`storage.reserve`). The file is sparse.
const SIZE: u64 = 512 << 20;
/// The user of the image, to whom the disk belongs.
const OWNER: &str = "root_owner=65532:65532";
/// What fills it.
const BALLAST: &str = "ballast";

/// A mounted disk. It goes when dropped.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// A new one, with its file and its mount in this directory.
    pub fn make(directory: &Path, name: &str) -> Result<Self> {
        let disk =
            Self { image: directory.join(format!("{name}.img")), mount: directory.join(name) };
        fs::create_dir_all(&disk.mount).context("where to mount a disk")?;
        disk.format()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Takes all that is left of it.
    pub fn fill(&self) -> Result<()> {
        let ballast = File::create(self.mount.join(BALLAST)).context("a ballast")?;
        let (mut taken, mut step) = (0, SIZE);
        // Where the rest is smaller than a step, a smaller one may fit.
        while step >= statvfs(&self.mount)?.f_frsize {
            match fallocate(&ballast, FallocateFlags::empty(), taken, step) {
                Ok(()) => taken += step,
                Err(rustix::io::Errno::NOSPC) => step /= 2,
                Err(error) => return Err(error).context("fill the disk"),
            }
        }
        Ok(())
    }

    /// Gives back what [`fill`](Self::fill) took.
    pub fn empty(&self) -> Result<()> {
        fs::remove_file(self.mount.join(BALLAST)).context("remove the ballast")
    }

    /// Another disk in its place, with nothing on it. Nobody may use it meanwhile.
    pub fn exchange(&self) -> Result<()> {
        unmount(&self.mount)?;
        self.format()
    }

    fn format(&self) -> Result<()> {
        File::create(&self.image)?.set_len(SIZE)?;
        let mut format = Command::new("mkfs.ext4");
        // No part of it is reserved for the superuser, who fills it.
        format.args(["-q", "-F", "-m", "0", "-E", OWNER]).arg(&self.image);
        run(format)?;
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).args([&self.image, &self.mount]);
        run(mount).map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What cannot be unmounted now is a leftover, and the next run tries again.
        let _ = unmount(&self.mount);
    }
}

/// Unmounts, and lets the loop device go with it.
pub(crate) fn unmount(mount: &Path) -> Result<()> {
    let mut command = Command::new("umount");
    command.arg(mount);
    run(command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_and_then_has_room_again() {
        let directory = tempfile::tempdir().unwrap();
        let disk = match Disk::make(directory.path(), "small") {
            Ok(disk) => disk,
            Err(why) => {
                // The tests with containers insist on what they need.
                eprintln!("skipped: no small disk can be made here: {why:#}");
                return;
            }
        };
        let write = || fs::write(disk.path().join("data"), vec![1; 1 << 20]);
        disk.fill().unwrap();
        assert!(write().is_err(), "a full disk");
        disk.empty().unwrap();
        write().unwrap();
        disk.exchange().unwrap();
        assert!(!disk.path().join("data").exists());
    }
}
