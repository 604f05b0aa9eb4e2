//! Mounts and loop devices around a [`Disk`], taken down again whatever happens.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fuser::BackgroundSession;
use tempfile::TempDir;

use crate::disk::{Disk, DiskFs, Forget, IMAGE_NAME};

/// A file system is busy for a moment after its last process has ended.
const UNMOUNT_TRIES: u32 = 50;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(100);

/// How long a cut waits for writes that are not flushed, and how often it looks.
const VOLATILE_PATIENCE: Duration = Duration::from_millis(500);
const VOLATILE_PAUSE: Duration = Duration::from_micros(300);

/// Pieces in which an image is written to a file; pieces of zeroes stay holes.
const COPY_BYTES: usize = 64 << 10;

/// What is missing for a rig on this machine; empty when nothing is. Each line says what
/// and what for.
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root (to mount)".to_owned());
    }
    for (device, purpose) in
        [("/dev/fuse", "to serve the simulated disk"), ("/dev/loop-control", "to mount it")]
    {
        if let Err(error) = File::options().read(true).write(true).open(device) {
            missing.push(format!("{device} ({purpose}): {error}"));
        }
    }
    for tool in ["losetup", "mkfs.ext4", "mount", "umount"] {
        if Command::new(tool).arg("--help").output().is_err()
            && Command::new(tool).arg("-V").output().is_err()
        {
            missing.push(format!("the program `{tool}`"));
        }
    }
    missing
}

/// A simulated disk with an ext4 file system on it, mounted.
pub struct Rig {
    // Dropped in this order: the file system, the disk below it, the directory of both.
    live: Option<Mount>,
    session: Option<BackgroundSession>,
    disk: Disk,
    work: TempDir,
}

/// What is left after a cut: a file system of its own, mounted until dropped.
pub struct Cut {
    mount: Mount,
    image: PathBuf,
    /// Pages that the disk forgot.
    pub forgotten: usize,
}

impl Rig {
    /// Makes a disk of `mebibytes` MiB in memory, formats and mounts it.
    pub fn new(mebibytes: usize) -> Result<Self> {
        let work = tempfile::Builder::new().prefix("triad-powercut-").tempdir()?;
        for dir in ["fuse", "live", "cut"] {
            fs::create_dir(work.path().join(dir))?;
        }
        let disk = Disk::new(mebibytes);
        let fuse = work.path().join("fuse");
        let session = fuser::spawn_mount(DiskFs(disk.clone()), &fuse, &fuser::Config::default())
            .context("mount the simulated disk (FUSE)")?;
        let mut rig = Self { live: None, session: Some(session), disk, work };
        let device = LoopDevice::attach(&rig.image())?;
        run("mkfs.ext4", ["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", &device.0])?;
        rig.live = Some(Mount::new(device, &rig.live_dir())?);
        Ok(rig)
    }

    /// Where the disk's file system is mounted.
    pub fn live_dir(&self) -> PathBuf {
        self.work.path().join("live")
    }

    /// The disk itself.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Cuts the power of a copy of the disk and mounts what is left, while the live one runs on. One
    /// cut can be looked at at a time.
    ///
    /// `witness` is asked right before the cut for what the cut must not lose, and its answer
    /// comes back. The cut waits a moment for the disk to have something to forget, or it would show nothing.
    pub fn cut<W>(
        &self,
        forget: Forget,
        seed: u64,
        mut witness: impl FnMut() -> W,
    ) -> Result<(Cut, W)> {
        let patience = Instant::now() + VOLATILE_PATIENCE;
        let (witnessed, (content, forgotten)) = loop {
            // First what was acknowledged, then the cut: never the other way.
            let witnessed = witness();
            let image = self.disk.lock();
            if image.volatile_pages() > 0 || Instant::now() > patience {
                break (witnessed, image.after_cut(forget, seed));
            }
            drop(image);
            std::thread::sleep(VOLATILE_PAUSE);
        };
        let image = self.work.path().join("cut.image");
        write_sparse(&image, &content).context("write the image of a cut")?;
        let mount = Mount::new(LoopDevice::attach(&image)?, &self.work.path().join("cut"))?;
        Ok((Cut { mount, image, forgotten }, witnessed))
    }

    /// The machine comes back: the disk goes on with what a cut has left and whoever looked
    /// at it has written since. Nobody may use the live file system any more.
    pub fn come_back(&mut self, cut: Cut) -> Result<()> {
        let Cut { mount, image, .. } = cut;
        drop(mount);
        drop(self.live.take());
        self.disk.replace(fs::read(image).context("read the image of a cut")?);
        self.live = Some(Mount::new(LoopDevice::attach(&self.image())?, &self.live_dir())?);
        Ok(())
    }

    fn image(&self) -> PathBuf {
        self.work.path().join("fuse").join(IMAGE_NAME)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.live.take());
        if let Some(session) = self.session.take()
            && let Err(error) = session.umount_and_join()
        {
            complain("unmount the simulated disk", &error.into());
        }
    }
}

impl Cut {
    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.mount.dir
    }
}

/// A mounted loop device; unmounted and detached when dropped.
struct Mount {
    dir: PathBuf,
    _device: LoopDevice,
}

impl Mount {
    fn new(device: LoopDevice, dir: &Path) -> Result<Self> {
        run("mount", [OsStr::new(&device.0), dir.as_os_str()])?;
        Ok(Self { dir: dir.to_owned(), _device: device })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        for _ in 0..UNMOUNT_TRIES {
            if run("umount", [&self.dir]).is_ok() {
                return;
            }
            std::thread::sleep(UNMOUNT_PAUSE);
        }
        // Still busy: take it out of the tree; the kernel ends it with its last user.
        if let Err(error) = run("umount", [OsStr::new("-l"), self.dir.as_os_str()]) {
            complain("unmount", &error);
        }
    }
}

/// An attached loop device, by its path; detached when dropped.
struct LoopDevice(String);

impl LoopDevice {
    fn attach(image: &Path) -> Result<Self> {
        let output = run("losetup", [OsStr::new("--show"), OsStr::new("-f"), image.as_os_str()])?;
        Ok(Self(output.trim().to_owned()))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Err(error) = run("losetup", ["-d", &self.0]) {
            complain("detach", &error);
        }
    }
}

fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!("{program}: {} ({})", String::from_utf8_lossy(&output.stderr).trim(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn write_sparse(path: &Path, content: &[u8]) -> io::Result<()> {
    let file = File::create(path)?;
    file.set_len(content.len() as u64)?;
    for (index, piece) in content.chunks(COPY_BYTES).enumerate() {
        if piece.iter().any(|byte| *byte != 0) {
            file.write_all_at(piece, (index * COPY_BYTES) as u64)?;
        }
    }
    Ok(())
}

/// Nothing can be done in a destructor but say so.
#[allow(clippy::print_stderr, reason = "the last word of a command-line tool's clean-up")]
fn complain(what: &str, error: &anyhow::Error) {
    eprintln!("clean-up failed: {what}: {error:#}");
}
