//! Comparing and copying shards for other nodes.

use std::sync::Arc;

use tonic::Status;
use triad_proto::peer::v1 as wire;
use triad_replica::message::{PullPurpose, PullReply, PullRequest};
use triad_replica::refusal::Refusal;
use triad_ring::{NodeId, ShardId};

use crate::background::anti_entropy::may_compare;
use crate::local::{Adoption, WriteError};
use crate::node::Node;
use crate::peers::stamp;

/// Most bytes of records in one page, whatever the asker wants.
const PAGE_BYTES_MAX: u32 = 4 << 20;

/// Answers one step.
pub(super) async fn answer(
    node: &Arc<Node>,
    from: NodeId,
    request: wire::PullRequest,
) -> Result<wire::PullResponse, Status> {
    let request =
        PullRequest::try_from(request).map_err(|bad| Status::invalid_argument(bad.to_string()))?;
    let shard = request.shard();
    let stopped = |_| Status::unavailable("stopped by a test");
    crate::moves::asked(node, &request).await.map_err(stopped)?;
    let reply = match run(node, from, request).await {
        Ok(reply) => reply,
        Err(WriteError::Refused(_)) => PullReply::Refused { newest: newest(node, shard) },
        Err(error @ (WriteError::Store(_) | WriteError::Known(_))) => {
            return Err(Status::unavailable(error.to_string()));
        }
    };
    let mut response = wire::PullResponse::from(reply);
    response.stamp = Some(stamp(node));
    Ok(response)
}

async fn run(
    node: &Arc<Node>,
    caller: NodeId,
    request: PullRequest,
) -> Result<PullReply, WriteError> {
    match request {
        PullRequest::Tree { shard, epoch, purpose: PullPurpose::AntiEntropy, .. }
            if !may_compare(node, shard, epoch) =>
        {
            Ok(PullReply::Refused { newest: newest(node, shard) })
        }
        PullRequest::Tree { shard, root, .. } => {
            let (standing, tree) = node.local.tree(shard).await?;
            let same = u128::from_be_bytes(tree.root().0) == root;
            let leaves = if same { Vec::new() } else { tree.leaves().to_vec() };
            Ok(PullReply::Tree { standing, same, leaves })
        }
        PullRequest::Page { shard, leaves, after, max_bytes, .. } => {
            // Before the records are: they may be newer than that, never older.
            let stands =
                node.local.look(shard, |replica| (replica.standing().source, replica.data_epoch()));
            let Some((true, data_epoch)) = stands else {
                return Ok(PullReply::Refused { newest: newest(node, shard) });
            };
            let max_bytes = max_bytes.clamp(1, PAGE_BYTES_MAX);
            // A scan reads the disk: not on a thread that others need.
            let (work, node) = (node.platform.work(), Arc::clone(node));
            let page = work.run(move || {
                let page = crate::moves::page(&node, shard, &leaves, after, max_bytes)?;
                // What was forgotten meanwhile may be missing in it.
                let source = node.local.look(shard, |replica| replica.standing().source);
                if source == Some(true) {
                    Ok(page)
                } else {
                    Err(WriteError::Refused(Refusal::Learner))
                }
            });
            let (records, next) = page.await.map_err(|_| Refusal::Overloaded)??;
            Ok(PullReply::Page { records, data_epoch, next })
        }
        PullRequest::List { shard, epoch, .. } if !may_compare(node, shard, epoch) => {
            Ok(PullReply::Refused { newest: newest(node, shard) })
        }
        PullRequest::List { shard, epoch, leaves, after } => {
            let (work, at) = (node.platform.work(), Arc::clone(node));
            let listed = work.run(move || at.local.list(shard, &leaves, after));
            let listed = listed.await.map_err(|_| Refusal::Overloaded)??;
            if may_compare(node, shard, epoch) {
                Ok(PullReply::List(listed)) // nothing was forgotten while it was made
            } else {
                Ok(PullReply::Refused { newest: newest(node, shard) })
            }
        }
        PullRequest::Push { shard, epoch, from, records } => {
            if from.node != caller {
                return Ok(PullReply::Refused { newest: newest(node, shard) });
            }
            node.local.adopt(shard, epoch, Adoption::Pushed(from), records).await?;
            Ok(PullReply::Pushed)
        }
    }
}

fn newest(node: &Node, shard: ShardId) -> Option<triad_replica::configuration::Configuration> {
    node.directory.get(shard).map(|known| (*known).clone())
}
