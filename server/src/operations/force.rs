//! Force: a shard that lost a majority of its stores for ever goes on with what is left.
//!
//! No ballot can decide without a majority, so this is the operator's word alone (design rule
//! D1): a new lineage, with the stores that are left as its first members. Whatever only lost
//! stores had acknowledged is gone; if one of them returns, it finds the higher lineage and
//! counts for nothing, and its records of the shard are kept aside.

use std::sync::Arc;

use tracing::{error, warn};
use triad_proto::peer::v1 as wire;
use triad_proto::v1;
use triad_replica::configuration::{Configuration, Epoch, Phase, majority};
use triad_replica::member::Member;
use triad_replica::message::{ShardReply, ShardRequest};
use triad_ring::ShardId;

use super::survey::Survey;
use super::{OperationError, short};
use crate::node::Node;

/// Forces the shards that were asked for, one after the other.
pub(crate) async fn force(
    node: &Arc<Node>,
    request: &v1::ForceRequest,
) -> Result<v1::ForceResponse, OperationError> {
    if request.shards.is_empty() && !request.all_frozen {
        return Err(OperationError::BadRequest(
            "name the shards, or say all_frozen for all that have no living majority".to_owned(),
        ));
    }
    if !request.accept_loss && !request.validate_only {
        return Err(OperationError::BadRequest(
            "forcing loses what only the lost stores had acknowledged: say accept_loss = true"
                .to_owned(),
        ));
    }
    let survey = Survey::take(node).await;
    let shards = wanted(node, &survey, request)?;
    let mut plans = Vec::new();
    for shard in shards {
        let known = survey.configuration(shard).ok_or_else(|| {
            OperationError::NotNow(format!("no node that answers knows who held shard {shard}"))
        })?;
        plans.push(plan(node, &survey, known)?);
    }
    let mut response = v1::ForceResponse {
        operation: Some(super::planned("force")),
        shards: plans.iter().map(|plan| plan.shown(node)).collect(),
    };
    if request.validate_only {
        return Ok(response);
    }
    for plan in &plans {
        decide(node, plan).await?;
    }
    let id = format!("force-{}-{}", short(node.me()), node.moves.next_serial());
    node.operations.remember(wire::OperationPart {
        id: id.clone(),
        state: v1::OperationState::Done.into(),
        total: plans.len() as u32,
        ..Default::default()
    });
    response.operation = Some(v1::Operation {
        id,
        state: v1::OperationState::Done.into(),
        percent: 100.0,
        ..super::planned("force")
    });
    node.moves.wake();
    Ok(response)
}

fn wanted(
    node: &Node,
    survey: &Survey,
    request: &v1::ForceRequest,
) -> Result<Vec<ShardId>, OperationError> {
    if request.all_frozen {
        let frozen = survey.configurations().filter(|known| is_frozen(node, survey, known));
        return Ok(frozen.map(|known| known.shard).collect());
    }
    let count = node.cluster.shards.get();
    if let Some(beyond) = request.shards.iter().find(|shard| **shard >= count) {
        return Err(OperationError::BadRequest(format!(
            "shard {beyond} does not exist: the cluster has {count}, from 0"
        )));
    }
    let mut shards: Vec<ShardId> = request.shards.iter().copied().map(ShardId::new).collect();
    shards.sort_unstable();
    shards.dedup();
    Ok(shards)
}

fn is_frozen(node: &Node, survey: &Survey, known: &Configuration) -> bool {
    let members = known.read_set();
    let present = members.iter().filter(|member| survey.is_present(node, member)).count();
    present < majority(members.len())
}

/// What a shard becomes.
struct Plan {
    before: Configuration,
    after: Configuration,
    lost: Vec<Member>,
    emptied: bool,
}

fn plan(node: &Node, survey: &Survey, known: &Configuration) -> Result<Plan, OperationError> {
    if !is_frozen(node, survey, known) {
        return Err(OperationError::NotNow(format!(
            "a majority of the members of shard {} is there: it needs no force",
            known.shard
        )));
    }
    let (mut survivors, lost): (Vec<Member>, Vec<Member>) =
        known.members().into_iter().partition(|member| survey.is_present(node, member));
    let retired: Vec<Member> = known
        .retired
        .iter()
        .copied()
        .filter(|member| survey.is_present(node, member) && !survivors.contains(member))
        .collect();
    let emptied = survivors.is_empty() && retired.is_empty();
    if survivors.is_empty() {
        // A former member that has not handed over holds more than nobody.
        survivors.extend(retired.first().copied().or_else(|| Some(node.member())));
    }
    let retired = retired.into_iter().filter(|member| !survivors.contains(member)).collect();
    let after = Configuration {
        shard: known.shard,
        epoch: Epoch { lineage: known.epoch.lineage.saturating_add(1), number: 1 },
        phase: Phase::Stable { members: survivors },
        gc_epoch: known.gc_epoch,
        retired,
        collected: None,
    };
    let after = after.validated().map_err(|bad| OperationError::NotNow(bad.to_string()))?;
    Ok(Plan { before: known.clone(), after, lost, emptied })
}

impl Plan {
    fn shown(&self, node: &Node) -> v1::ForcedShard {
        let names = |members: &[Member]| {
            members.iter().map(|member| node.book.name(member.node)).collect::<Vec<_>>()
        };
        v1::ForcedShard {
            shard: self.before.shard.get(),
            before: Some(self.before.epoch.into()),
            after: Some(self.after.epoch.into()),
            survivors: names(self.after.new_set()),
            lost: names(&self.lost),
            emptied: self.emptied,
        }
    }
}

/// Has the survivors enter the new lineage, the first one first: it settles between two operators
/// who force at the same time.
async fn decide(node: &Arc<Node>, plan: &Plan) -> Result<(), OperationError> {
    let (shard, after) = (plan.before.shard, &plan.after);
    for (index, member) in after.new_set().iter().enumerate() {
        let request = ShardRequest::Learn { configuration: after.clone() };
        match crate::moves::ask(node, *member, request).await {
            Some(ShardReply::Learned { epoch }) if epoch >= after.epoch => {}
            Some(ShardReply::Superseded { newest }) => {
                return Err(OperationError::NotNow(format!(
                    "shard {shard} is in epoch {} by now: somebody else has forced or saved it; look again",
                    newest.epoch
                )));
            }
            _ if index == 0 => {
                return Err(OperationError::Unreachable {
                    node: node.book.name(member.node),
                    why: format!("it should go on with shard {shard}"),
                });
            }
            // It hears of it from the directory.
            _ => {
                warn!(%shard, node = %node.book.name(member.node), "not told yet of the forced epoch");
            }
        }
    }
    let names = |members: &[Member]| {
        members.iter().map(|member| node.book.name(member.node)).collect::<Vec<_>>().join(", ")
    };
    error!(
        %shard, before = %plan.before.epoch, after = %after.epoch, survivors = %names(after.new_set()),
        lost = %names(&plan.lost), emptied = plan.emptied,
        "FORCED by an operator: writes that only the lost stores had acknowledged are gone"
    );
    crate::moves::learn(node, after).await;
    crate::moves::publish(node, vec![after.clone()]).await;
    Ok(())
}
