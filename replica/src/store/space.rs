//! When a store is full.
//!
//! A real ENOSPC fails a write half-way and poisons the store, so Triad refuses growing
//! batches well before. sled's file is several times the live data under overwriting and
//! never shrinks: the file's size says little, the live bytes say it all. Measured with 2 MiB
//! segments, over 40 rounds of overwriting everything, with 15 to 60 MiB live: rows of 300 to 900 bytes
//! reach 3.4 to 4.4 times the live bytes, rows of 12 kB 5.6 times, large values in chunks 8 to
//! 10 times (chunks of 4 KiB or 16 KiB, alike). The rule therefore counts rows six times and chunks
//! ten times against the capacity, less what an engine needs for itself and a reserve, which
//! deletions and garbage collection may use.

use super::StoreError;

/// Size of the file per live byte of rows that the rule reckons with.
pub const ROW_AMPLIFICATION: u64 = 6;

/// Size of the file per live byte of chunks that the rule reckons with.
pub const CHUNK_AMPLIFICATION: u64 = 10;

/// What is kept free unless configured otherwise.
pub const DEFAULT_RESERVE: u64 = 64 << 20;

/// Space that an engine uses and has left, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size of the engine's files.
    pub disk_bytes: u64,
    /// What the file system still has free for them; `u64::MAX` when unlimited.
    pub free_bytes: u64,
    /// Files kept outside the log, which must not exist.
    pub blob_files: u64,
    /// What the engine's files take however little is in them.
    pub overhead_bytes: u64,
}

/// Bytes that are live, keys and row headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// In rows with small values, and heads of large ones.
    pub rows: u64,
    /// In chunks of large values.
    pub chunks: u64,
}

impl Live {
    /// All of them.
    pub fn total(self) -> u64 {
        self.rows + self.chunks
    }

    /// How large the engine's file may get with them.
    fn on_disk(self) -> u64 {
        let rows = self.rows.saturating_mul(ROW_AMPLIFICATION);
        rows.saturating_add(self.chunks.saturating_mul(CHUNK_AMPLIFICATION))
    }
}

impl Space {
    /// An engine without limits.
    pub const UNLIMITED: Space =
        Space { disk_bytes: 0, free_bytes: u64::MAX, blob_files: 0, overhead_bytes: 0 };

    fn capacity(&self) -> u64 {
        self.disk_bytes.saturating_add(self.free_bytes)
    }
}

/// The limits of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceRule {
    /// Bytes that the engine's files may reach; `None` = what the file system has.
    pub quota: Option<u64>,
    /// Bytes kept free for deletions, though never more than a tenth of the capacity.
    pub reserve: u64,
}

impl Default for SpaceRule {
    fn default() -> Self {
        Self { quota: None, reserve: DEFAULT_RESERVE }
    }
}

impl SpaceRule {
    /// Decides on a batch after which `live` is live, of which it adds `growth` bytes.
    /// Shrinking batches always pass.
    pub fn check(
        &self,
        space: &Space,
        live: Live,
        growth: u64,
        essential: bool,
    ) -> Result<(), StoreError> {
        if growth == 0 {
            return Ok(());
        }
        let capacity = space.capacity().min(self.quota.unwrap_or(u64::MAX));
        let reserve = self.reserve.min(capacity / 10);
        // Essential batches leave an eighth of the reserve: a real ENOSPC would poison the store.
        let kept = if essential { reserve / 8 } else { reserve };
        let needed = live.on_disk().saturating_add(space.overhead_bytes).saturating_add(kept);
        if !essential && needed > capacity {
            return Err(StoreError::NoSpace {
                why: format!(
                    "{} live bytes in rows × {ROW_AMPLIFICATION}, {} in chunks × {CHUNK_AMPLIFICATION}, {} for the \
                     engine and a reserve of {kept} exceed the capacity of {capacity} bytes",
                    live.rows, live.chunks, space.overhead_bytes
                ),
            });
        }
        if space.free_bytes < kept.saturating_add(growth) {
            return Err(StoreError::NoSpace {
                why: format!(
                    "the file system has {} bytes free, {growth} more would leave less than {kept} in reserve",
                    space.free_bytes
                ),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn disk(used: u64, free: u64) -> Space {
        Space { disk_bytes: used, free_bytes: free, blob_files: 0, overhead_bytes: 0 }
    }

    fn rows(rows: u64) -> Live {
        Live { rows, chunks: 0 }
    }

    #[test]
    fn the_quota_counts_live_bytes_as_they_lie_on_disk_and_the_reserve() {
        let rule = SpaceRule { quota: Some(100 * MIB), ..SpaceRule::default() };
        let space = disk(0, 1_000 * MIB);
        assert!(rule.check(&space, rows(15 * MIB), 1, false).is_ok());
        assert!(rule.check(&space, rows(16 * MIB), 1, false).is_err(), "6 × 16 + 10 > 100");
        assert!(
            rule.check(&space, rows(16 * MIB), 1, true).is_ok(),
            "deletions may use the reserve"
        );
        assert!(rule.check(&space, rows(230 * MIB), 0, false).is_ok(), "no growth always passes");
        let chunks = |chunks| Live { rows: 0, chunks };
        assert!(rule.check(&space, chunks(9 * MIB), 1, false).is_ok());
        assert!(rule.check(&space, chunks(10 * MIB), 1, false).is_err(), "10 × 10 + 10 > 100");
        let space = Space { overhead_bytes: 16 * MIB, ..space };
        assert!(rule.check(&space, rows(13 * MIB), 1, false).is_err(), "6 × 13 + 16 + 10 > 100");
    }

    #[test]
    fn a_small_disk_is_full_before_the_kernel_says_so() {
        let rule = SpaceRule::default();
        let (full, fuller) = (disk(60 * MIB, 4 * MIB), disk(64 * MIB, MIB / 2));
        assert!(rule.check(&full, rows(MIB), 1, false).is_err(), "reserve is 6.4 MiB");
        assert!(rule.check(&full, rows(MIB), 1, true).is_ok());
        assert!(rule.check(&fuller, rows(MIB), 1, true).is_err(), "an eighth stays");
    }

    #[test]
    fn without_limits_everything_fits() {
        let much = rows(1 << 40);
        assert!(SpaceRule::default().check(&Space::UNLIMITED, much, 1 << 30, false).is_ok());
    }
}
