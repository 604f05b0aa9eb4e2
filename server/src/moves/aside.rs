//! Records of a lineage that an operator's force has ended (design rule D1): they count for nothing
//! any more, but nobody but the operator may throw them away. They go into a file before the shard
//! is forgotten or copied anew.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{error, warn};
use triad_replica::store::{Key, KeyRange, Store};
use triad_ring::ShardId;

use crate::local::Milestone;
use crate::node::Node;

/// Where the files are, in the data directory.
const DIRECTORY: &str = "aside";

/// If this store holds records of a lower lineage without being a member, writes them to a file and
/// forgets them. An error: they are still there, and nothing may be done with the shard.
pub(super) async fn keep_aside(node: &Arc<Node>, shard: ShardId) -> io::Result<()> {
    let found = node.local.look(shard, |replica| {
        let row = replica.entered()?;
        let ended = row.holds_ended_lineage() && !replica.is_member();
        Some((row.data_epoch?, row.configuration.epoch)).filter(|_| ended)
    });
    let Some(Some((holds, known))) = found else {
        return Ok(());
    };
    let incarnation = node.identity.incarnation;
    let name = format!("shard-{shard}-epoch-{holds}-start-{incarnation}.records");
    let path = node.config.storage.data_dir.join(DIRECTORY).join(name);
    let store = Arc::clone(node.local.store());
    let written = {
        let path = path.clone();
        node.platform.work().run(move || write_all(&*store, shard, &path)).await
    };
    let written = written.map_err(io::Error::other).and_then(|result| result);
    match written {
        Ok(records) => warn!(
            %shard, %holds, %known, records, file = %path.display(),
            "the shard was forced to a new lineage while this store was away: its records were put aside"
        ),
        Err(error) => {
            error!(%shard, %error, file = %path.display(), "cannot put the records of an ended lineage aside");
            return Err(error);
        }
    }
    let forgotten = node.local.milestone(shard, Milestone::Purge(known)).await;
    forgotten.map(|_| ()).map_err(io::Error::other)
}

/// One record after the other: the lengths of bucket, key and record, 4 bytes each, big endian, then the
/// three. Returns how many.
fn write_all(store: &dyn Store, shard: ShardId, path: &Path) -> io::Result<u64> {
    let directory = path.parent().map(PathBuf::from).unwrap_or_default();
    fs::create_dir_all(&directory)?;
    let mut file = BufWriter::new(File::create(path)?);
    let mut records = 0;
    let mut failed = None;
    let scanned = store.scan(&KeyRange::shard_records(shard), None, &mut |row, value| {
        let Some(Key::Record { bucket, key, .. }) = Key::decode(row) else {
            return ControlFlow::Continue(());
        };
        records += 1;
        match write_one(&mut file, [bucket.as_bytes(), key, &value]) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    scanned.map_err(io::Error::other)?;
    if let Some(error) = failed {
        return Err(error);
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    File::open(directory)?.sync_all()?;
    Ok(records)
}

fn write_one(file: &mut impl Write, parts: [&[u8]; 3]) -> io::Result<()> {
    for part in parts {
        file.write_all(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes())?;
    }
    parts.into_iter().try_for_each(|part| file.write_all(part))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use triad_replica::store::{Batch, MemoryStore};

    use super::*;

    #[test]
    fn every_record_of_the_shard_is_in_the_file_and_no_other() {
        let store = MemoryStore::default();
        let mut batch = Batch::new();
        for (shard, key) in [(1, "a"), (2, "b"), (2, "cc"), (3, "d")] {
            let shard = ShardId::new(shard);
            let row = Key::Record { shard, bucket: "default", key: key.as_bytes() }.encode();
            batch.put(row, Bytes::from_static(b"value"));
        }
        store.apply(batch).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(DIRECTORY).join("two");
        assert_eq!(write_all(&store, ShardId::new(2), &path).unwrap(), 2);
        let file = fs::read(path).unwrap();
        let expected = b"\0\0\0\x07\0\0\0\x01\0\0\0\x05defaultbvalue\0\0\0\x07\0\0\0\x02\0\0\0\x05defaultccvalue";
        assert_eq!(file, expected);
    }
}
