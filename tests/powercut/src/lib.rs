//! Power cuts without a power switch.
//!
//! `kill -9` says nothing about durability: the kernel keeps what a dead process wrote. Only a
//! disk that forgets what was never flushed shows whether an acknowledged write was really
//! on it. This crate makes such a disk from parts that every Linux has:
//!
//! ```text
//! store under load → ext4 → loop device → one file on FUSE → memory, with the old content of every
//!                                                            4 KiB page written since the last FLUSH
//! ```
//!
//! A *cut* takes the memory, puts the old content back for pages that were not flushed (all of
//! them, or each with probability ½: a disk may write what it likes in any order), mounts
//! the result as a second file system and compares what the store shows there with
//! what was acknowledged. The load goes on meanwhile, so one run gives many cuts; after some cuts
//! the machine "comes back": the load continues on the cut disk.
//!
//! [`engines`] lists what is put to the test (the engine in [`memory`] crashes by its own model, without a disk),
//! [`disk`] is the forgetful disk, [`rig`] the mounts and loop devices around it, [`load`] writes
//! and notes acknowledgements, [`verify`] knows what must be left. The rig is of use for
//! anything that keeps files, a whole node for instance.
//!
//! What it does not show: torn sectors, file systems other than ext4 with its defaults, disks
//! that lie about FLUSH.

pub mod disk;
pub mod engines;
pub mod load;
pub mod memory;
pub mod rig;
pub mod verify;

/// A number that depends on all of `parts` and looks random (`SplitMix64`'s finalizer, chained).
pub fn mixed(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |sum, part| {
        let mut z = (sum ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}
