//! A disk with a volatile write cache, offered as one file on a FUSE file system.
//!
//! The loop device turns the block layer's FLUSH into an fsync of its file, and FUSE hands that to us:
//! it is the moment from which everything written before is safe.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::mixed;

/// What the disk keeps or forgets as a unit.
pub const PAGE_BYTES: usize = 4096;

/// Name of the one file.
pub const IMAGE_NAME: &str = "image";

/// How long a FLUSH takes: what a fast disk needs. Until it is over, nothing is safe.
const FLUSH_TIME: Duration = Duration::from_micros(500);

/// What is forgotten in a cut, of the pages written since the last FLUSH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forget {
    /// All of them: nothing was on its way.
    All,
    /// Each with probability ½: the disk wrote some, in an order of its own.
    Random,
}

/// The content of a disk, and what it would forget.
#[derive(Debug)]
pub struct Image {
    content: Vec<u8>,
    /// Flushed content of the pages written since the last flush, by page number.
    flushed: BTreeMap<usize, Box<[u8]>>,
    flushes: u64,
}

impl Image {
    /// An empty disk of `pages` pages.
    pub fn new(pages: usize) -> Self {
        Self { content: vec![0; pages * PAGE_BYTES], flushed: BTreeMap::new(), flushes: 0 }
    }

    /// Bytes from `offset`, fewer at the end of the disk.
    pub fn read(&self, offset: usize, length: usize) -> &[u8] {
        let start = offset.min(self.content.len());
        let end = offset.saturating_add(length).min(self.content.len());
        &self.content[start..end]
    }

    /// Writes into the volatile cache. False when it would pass the end of the disk.
    pub fn write(&mut self, offset: usize, data: &[u8]) -> bool {
        let end = offset.saturating_add(data.len());
        if end > self.content.len() {
            return false;
        }
        for page in offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            let start = page * PAGE_BYTES;
            let content = &self.content[start..start + PAGE_BYTES];
            self.flushed.entry(page).or_insert_with(|| content.into());
        }
        self.content[offset..end].copy_from_slice(data);
        true
    }

    /// Makes everything written so far safe.
    pub fn flush(&mut self) {
        self.flushed.clear();
        self.flushes += 1;
    }

    /// The content that a power cut at this moment leaves, and how many pages it forgot.
    pub fn after_cut(&self, forget: Forget, seed: u64) -> (Vec<u8>, usize) {
        let mut content = self.content.clone();
        let mut forgotten = 0;
        for (page, flushed) in &self.flushed {
            if forget == Forget::All || mixed(&[seed, *page as u64]) & 1 == 0 {
                content[page * PAGE_BYTES..(page + 1) * PAGE_BYTES].copy_from_slice(flushed);
                forgotten += 1;
            }
        }
        (content, forgotten)
    }

    /// Pages that a cut at this moment could forget.
    pub fn volatile_pages(&self) -> usize {
        self.flushed.len()
    }

    /// Flushes so far.
    pub fn flushes(&self) -> u64 {
        self.flushes
    }
}

/// A handle on a disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<Image>>);

impl Disk {
    /// An empty disk of `mebibytes` MiB.
    pub fn new(mebibytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Image::new((mebibytes << 20) / PAGE_BYTES))))
    }

    /// The disk's content, locked.
    pub fn lock(&self) -> MutexGuard<'_, Image> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts other content on the disk, all of it flushed. Nothing may be mounted from it.
    pub fn replace(&self, content: Vec<u8>) {
        let mut image = self.lock();
        image.content = content;
        image.flush();
    }
}

/// The file system around a [`Disk`]: a root directory with one file.
pub struct DiskFs(pub Disk);

const ROOT: u64 = 1;
const FILE: u64 = 2;
const CACHE_FOR: Duration = Duration::from_hours(1);

impl DiskFs {
    fn attributes(&self, inode: u64) -> FileAttr {
        let size = if inode == FILE { self.0.lock().content.len() as u64 } else { 0 };
        FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if inode == ROOT { FileType::Directory } else { FileType::RegularFile },
            perm: if inode == ROOT { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: PAGE_BYTES as u32,
        }
    }
}

impl Filesystem for DiskFs {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == IMAGE_NAME {
            reply.entry(&CACHE_FOR, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&CACHE_FOR, &self.attributes(inode.0));
    }

    // The loop device sets times; the size never changes.
    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.attr(&CACHE_FOR, &self.attributes(inode.0));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(self.0.lock().read(offset as usize, size as usize));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if self.0.lock().write(offset as usize, data) {
            reply.written(data.len() as u32);
        } else {
            reply.error(Errno::ENOSPC);
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        std::thread::sleep(FLUSH_TIME);
        self.0.lock().flush();
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // close(2), not a disk FLUSH: promises nothing.
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(content: &[u8]) -> Vec<u8> {
        content.chunks(PAGE_BYTES).map(|page| page[0]).collect()
    }

    #[test]
    fn a_cut_forgets_what_was_not_flushed() {
        let mut image = Image::new(3);
        assert!(image.write(0, &[1; 2 * PAGE_BYTES]));
        image.flush();
        image.write(PAGE_BYTES, &[2; 2 * PAGE_BYTES]);
        image.write(PAGE_BYTES, &[3; PAGE_BYTES]);
        assert_eq!(pages(image.read(0, 3 * PAGE_BYTES)), [1, 3, 2]);
        let (left, forgotten) = image.after_cut(Forget::All, 0);
        assert_eq!((pages(&left), forgotten), (vec![1, 1, 0], 2));
    }

    #[test]
    fn a_random_cut_keeps_each_page_or_not() {
        let mut image = Image::new(2);
        image.write(0, &[1; 2 * PAGE_BYTES]);
        let outcomes: std::collections::BTreeSet<_> =
            (0..40).map(|seed| pages(&image.after_cut(Forget::Random, seed).0)).collect();
        assert_eq!(outcomes.len(), 4);
    }

    #[test]
    fn a_write_of_part_of_a_page_keeps_the_rest_and_the_end_is_the_end() {
        let mut image = Image::new(1);
        image.write(10, b"abc");
        assert_eq!(image.read(9, 5), b"\0abc\0");
        assert!(!image.write(PAGE_BYTES - 1, b"xy"));
        assert_eq!(image.read(PAGE_BYTES - 1, 100), [0]);
    }
}
