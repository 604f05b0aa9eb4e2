//! What a store holds of a shard, in numbers that tests compare.

use std::ops::ControlFlow;

use sha2::{Digest as _, Sha256};
use triad_proto::test::v1 as wire;
use triad_proto::v1;
use triad_replica::hash_tree::LeafHash;
use triad_replica::record::Record;
use triad_replica::store::{Key, KeyRange, Store, StoreError};
use triad_ring::ShardId;

use crate::node::Node;

/// Everything that this node's store holds of the shard.
pub(super) async fn digest(node: &Node, shard: ShardId) -> Result<wire::DigestResponse, String> {
    // The tree goes through the committer and so waits for all that was queued before.
    let root = node.local.tree(shard).await.ok().map(|(_, tree)| hex(&tree.root().0));
    let store = node.local.store().clone();
    let counted = node.platform.work().run(move || count(&*store, shard)).await;
    let mut response =
        counted.map_err(|panic| panic.to_string())?.map_err(|error| error.to_string())?;
    response.root = root.unwrap_or_default();
    let me = node.member();
    node.local.look(shard, |replica| {
        if let Some(newest) = replica.newest() {
            response.epoch = Some(newest.epoch.into());
            let phase = if newest.is_joint() { v1::Phase::Joint } else { v1::Phase::Stable };
            response.set_phase(phase);
            response.member = newest.is_member(&me);
        }
    });
    Ok(response)
}

fn count(store: &dyn Store, shard: ShardId) -> Result<wire::DigestResponse, StoreError> {
    let mut response = wire::DigestResponse::default();
    let mut hash = Sha256::new();
    let mut after = None;
    loop {
        let range = KeyRange::shard_records(shard);
        let scanned = store.scan(&range, after.as_deref(), &mut |row, value| {
            let key = Key::decode(row);
            match (key, Record::decode(value)) {
                (Some(Key::Record { bucket, key, .. }), Ok(record)) if !record.is_absent() => {
                    hash.update(LeafHash::of(bucket, key, &record).0.to_be_bytes());
                    let siblings = record.siblings().len() as u64;
                    response.siblings += siblings;
                    response.keys += u64::from(siblings > 0);
                    response.tombstones += u64::from(siblings == 0);
                }
                (Some(Key::Record { .. }), Ok(_)) => {}
                _ => response.damaged += 1,
            }
            ControlFlow::Continue(())
        });
        match scanned {
            Ok(()) => break,
            Err(StoreError::Damaged { key, .. }) => {
                response.damaged += 1;
                after = Some(key);
            }
            Err(error) => return Err(error),
        }
    }
    let whole: [u8; 32] = hash.finalize().into();
    response.digest = hex(&whole);
    Ok(response)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
