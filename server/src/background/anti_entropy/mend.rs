//! From shards that differ to keys that are mended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use triad_replica::anti_entropy::{Listing, ShardRoot, differing_keys};
use triad_replica::configuration::Epoch;
use triad_replica::get::GetAnswer;
use triad_replica::hash_tree::HashTree;
use triad_replica::member::Member;
use triad_replica::message::{PageCursor, PullPurpose, PullReply, PullRequest};
use triad_replica::put::PutAnswer;

use super::Compared;
use crate::deadline::Deadline;
use crate::local::{Address, Wanted};
use crate::moves::call;
use crate::node::Node;
use crate::peers::data;

/// A difference counts when it is still there after this: a write on its way to all members
/// makes one, too.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// Shards looked at, at once.
const SHARDS: usize = 16;
/// Keys mended at once.
const KEYS: usize = 32;
/// How long one key may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Mends the shards that differ with another member.
pub(super) async fn mend(node: &Arc<Node>, with: Member, shards: Vec<ShardRoot>) -> Compared {
    let mut whole = Compared::Whole;
    let mut seen = Vec::new();
    let mut looks = futures::stream::iter(shards)
        .map(|root| async move { (root, leaves(node, with, root).await) })
        .buffer_unordered(SHARDS);
    while let Some((root, leaves)) = looks.next().await {
        match leaves {
            Some(leaves) if leaves.is_empty() => {
                node.anti_entropy.note(root.shard, with.node, false);
            }
            Some(leaves) => seen.push((root, leaves)),
            None => whole = Compared::InPart,
        }
    }
    drop(looks);
    if !seen.is_empty() {
        tokio::time::sleep(ON_ITS_WAY).await;
    }
    for (root, before) in seen {
        whole = whole.max(mend_shard(node, with, root, &before).await);
    }
    whole
}

/// Mends one shard, if some of the leaves that differed a while ago still do.
async fn mend_shard(node: &Arc<Node>, with: Member, root: ShardRoot, before: &[u8]) -> Compared {
    let both = |now: Vec<u8>| now.into_iter().filter(|leaf| before.contains(leaf)).collect();
    let Some(differing) = leaves(node, with, root).await.map(both) else {
        return Compared::InPart;
    };
    let differing: Vec<u8> = differing;
    if differing.is_empty() {
        node.anti_entropy.note(root.shard, with.node, false);
        return Compared::Whole;
    }
    node.anti_entropy.note(root.shard, with.node, true);
    let mended = mend_leaves(node, with, root, &differing).await;
    // What is written meanwhile is in other leaves, or the next round's.
    let left = leaves(node, with, root).await;
    let still = |now: Vec<u8>| now.iter().any(|leaf| differing.contains(leaf));
    if mended.is_none() || left.is_none_or(still) {
        return Compared::InPart;
    }
    node.anti_entropy.note(root.shard, with.node, false);
    Compared::Whole
}

/// The leaves in which the other member's tree differs. None: it cannot be compared now.
async fn leaves(node: &Arc<Node>, with: Member, root: ShardRoot) -> Option<Vec<u8>> {
    let ShardRoot { shard, epoch, .. } = root;
    if !super::may_compare(node, shard, epoch) {
        return None;
    }
    let (_, own) = node.local.tree(shard).await.ok()?;
    let own_root = u128::from_be_bytes(own.root().0);
    let purpose = PullPurpose::AntiEntropy;
    let request = PullRequest::Tree { shard, epoch, root: own_root, purpose };
    match call(node, with, request).await? {
        PullReply::Tree { same: true, .. } => Some(Vec::new()),
        PullReply::Tree { leaves, .. } => Some(own.diff(&HashTree::from_leaves(leaves)?)),
        _ => None,
    }
}

/// Lists the leaves on both sides and mends each key that differs. None: not to the end.
async fn mend_leaves(node: &Arc<Node>, with: Member, root: ShardRoot, leaves: &[u8]) -> Option<()> {
    let ShardRoot { shard, epoch, .. } = root;
    let mut after: Option<PageCursor> = None;
    let mut all = Some(());
    loop {
        let request =
            PullRequest::List { shard, epoch, leaves: leaves.to_vec(), after: after.clone() };
        let PullReply::List(theirs) = call(node, with, request).await? else {
            return None;
        };
        let own = own_listing(node, root, leaves, after.clone()).await?;
        let (keys, next) = differing_keys(shard, own, theirs);
        let addresses = keys.into_iter().map(|(bucket, key)| Address { shard, bucket, key });
        let mut mending = futures::stream::iter(addresses)
            .map(|at| mend_key(node, with, epoch, at))
            .buffer_unordered(KEYS);
        while let Some(mended) = mending.next().await {
            all = all.and(mended);
        }
        if next.is_none() {
            return all;
        }
        if next <= after {
            return None; // the other side lists in circles
        }
        after = next;
    }
}

async fn own_listing(
    node: &Arc<Node>,
    root: ShardRoot,
    leaves: &[u8],
    after: Option<PageCursor>,
) -> Option<Listing> {
    let (at, leaves) = (Arc::clone(node), leaves.to_vec());
    let work = node.platform.work();
    let listed = work.run(move || at.local.list(root.shard, &leaves, after));
    let listed = listed.await.ok()?.ok()?;
    super::may_compare(node, root.shard, root.epoch).then_some(listed)
}

/// Reads the key on both sides in the epoch, and merges on each side what it lacks, in that
/// epoch: who has left it by then refuses. None: one side still lacks something.
async fn mend_key(node: &Arc<Node>, with: Member, epoch: Epoch, at: Address) -> Option<()> {
    let own = node.local.read(&at, epoch).ok()?;
    let read = data::read_request(&at, epoch, own.digest(), Deadline::after(PATIENCE));
    let answer = node.peers.data(with.node, read).within(PATIENCE).await;
    let theirs = match data::read_answer(answer).0 {
        GetAnswer::Same => return Some(()),
        GetAnswer::Record(theirs) => theirs,
        GetAnswer::Failed(_) => return None,
    };
    let mut merged = own.clone();
    merged.merge(&theirs);
    let encoded: Bytes = merged.encode();
    let behind = !merged.same_content(&theirs);
    if !merged.same_content(&own) {
        node.throttle.take(encoded.len() as u64).await;
        node.local.merge(at.clone(), epoch, epoch, merged, Wanted::in_background()).await.ok()?;
        node.anti_entropy.mended(1);
    }
    if behind {
        node.throttle.take(encoded.len() as u64).await;
        // From now on: the throttle may have taken long.
        let deadline = Deadline::after(PATIENCE);
        let merge = data::in_background(data::merge_request(&at, epoch, epoch, &encoded, deadline));
        let answer = node.peers.data(with.node, merge).within(PATIENCE).await;
        match data::merge_answer(answer).answer {
            PutAnswer::Stored { .. } => node.anti_entropy.mended(1),
            PutAnswer::Failed(_) => return None,
        }
    }
    Some(())
}
