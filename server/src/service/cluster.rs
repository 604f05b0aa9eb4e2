//! `triad.v1.ClusterService`: the cluster seen from any of its nodes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};
use triad_proto::convert::{Limits, RecordKey};
use triad_proto::peer::v1 as wire;
use triad_proto::v1;
use triad_proto::v1::cluster_service_server::ClusterService;
use triad_replica::configuration::{Configuration, majority};
use triad_replica::consistency::{Failure, ReplicaResult};
use triad_replica::get::GetAnswer;
use triad_replica::member::Member;
use triad_replica::record::{Record, RecordDigest};
use triad_ring::{NodeId, RingId};

use super::kv::shard_of;
use super::operations;
use super::outcome;
use super::peer::{ShardTable, node_seen, node_status, placement};
use crate::alarms::{AlarmName, alarm};
use crate::book::NodeState;
use crate::coordinator::error::RequestError;
use crate::coordinator::{locate, locate_by_ring};
use crate::deadline::Deadline;
use crate::host::Host;
use crate::liveness::Liveness;
use crate::local::{Address, WriteError};
use crate::moves::{facts, ideal_members, misplaced};
use crate::node::Node;
use crate::peers::data::{read_answer, read_request};
use crate::web::Health;

/// How long another node may take to tell its part.
const PATIENCE: Duration = Duration::from_secs(2);
/// Nodes on a page of the list.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// The cluster service of a node.
pub(crate) struct Clusters {
    host: Arc<Host>,
}

impl Clusters {
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }

    fn node(&self) -> Result<&Arc<Node>, RequestError> {
        self.host.node().ok_or_else(|| self.host.not_joined())
    }
}

#[tonic::async_trait]
impl ClusterService for Clusters {
    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(status(self.node()?).await))
    }

    async fn locate(
        &self,
        request: Request<v1::LocateRequest>,
    ) -> Result<Response<v1::LocateResponse>, Status> {
        let node = self.node()?;
        let timeouts = &node.config.timeouts;
        let deadline =
            Deadline::of_request(request.metadata(), timeouts.request, timeouts.request_max);
        Ok(Response::new(locate_key(node, &request.into_inner(), deadline).await?))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        list_nodes(self.node()?, &request.into_inner()).await.map(Response::new)
    }

    async fn describe_ring(
        &self,
        _: Request<v1::DescribeRingRequest>,
    ) -> Result<Response<v1::DescribeRingResponse>, Status> {
        Ok(Response::new(describe_ring(self.node()?).await))
    }

    async fn bootstrap(
        &self,
        request: Request<v1::BootstrapRequest>,
    ) -> Result<Response<v1::BootstrapResponse>, Status> {
        let cluster_id = operations::bootstrap(&self.host, request.into_inner().force).await?;
        Ok(Response::new(v1::BootstrapResponse { cluster_id }))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        operations::join(&self.host, request.into_inner()).map(Response::new)
    }

    async fn leave(
        &self,
        request: Request<v1::LeaveRequest>,
    ) -> Result<Response<v1::LeaveResponse>, Status> {
        operations::leave(self.node()?, &request.into_inner()).await.map(Response::new)
    }

    async fn decommission(
        &self,
        request: Request<v1::DecommissionRequest>,
    ) -> Result<Response<v1::DecommissionResponse>, Status> {
        operations::decommission(self.node()?, &request.into_inner()).await.map(Response::new)
    }

    async fn replace(
        &self,
        request: Request<v1::ReplaceRequest>,
    ) -> Result<Response<v1::ReplaceResponse>, Status> {
        operations::replace(self.node()?, &request.into_inner()).await.map(Response::new)
    }

    async fn force(
        &self,
        request: Request<v1::ForceRequest>,
    ) -> Result<Response<v1::ForceResponse>, Status> {
        operations::force(self.node()?, &request.into_inner()).await.map(Response::new)
    }

    async fn list_operations(
        &self,
        _: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        Ok(Response::new(operations::list(&self.host).await))
    }

    type WatchOperationStream = operations::Watch;

    async fn watch_operation(
        &self,
        request: Request<v1::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        operations::watch(&self.host, request.into_inner().id).await.map(Response::new)
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Result<Response<v1::CancelOperationResponse>, Status> {
        operations::cancel(self.node()?, &request.into_inner().id).await.map(Response::new)
    }

    async fn get_readiness(
        &self,
        _: Request<v1::GetReadinessRequest>,
    ) -> Result<Response<v1::GetReadinessResponse>, Status> {
        let ready = self.host.ready();
        Ok(Response::new(v1::GetReadinessResponse {
            live: self.host.live(),
            ready: ready.is_ok(),
            reasons: ready.err().unwrap_or_default(),
        }))
    }
}

/// One node's part of the status, asked for over the network.
pub(crate) async fn ask_status(node: &Arc<Node>, of: NodeId) -> Option<wire::NodeStatusResponse> {
    if of == node.me() {
        return Some(node_status(node));
    }
    if node.liveness(of) == Liveness::Down {
        return None;
    }
    let ask = async {
        let mut client = node.peers.bulk(of).await.ok()?;
        let hello = Some(node.hello());
        client.node_status(wire::NodeStatusRequest { hello }).await.ok()
    };
    if let Ok(Some(response)) = tokio::time::timeout(PATIENCE, ask).await {
        // At the address of a node that is gone another one may live by now.
        let answer = response.into_inner();
        let meant = answer.node.as_ref().is_some_and(|told| told.node_id == of.to_string());
        meant.then_some(answer)
    } else {
        node.peers.forget_bulk(of).await;
        None
    }
}

/// Everybody who is, or was, a ring member: a node that is down still counts.
fn cluster_nodes(node: &Node) -> Vec<Arc<crate::book::Contact>> {
    node.book.all().into_iter().filter(|contact| contact.state.is_ring_member()).collect()
}

async fn status(node: &Arc<Node>) -> v1::StatusResponse {
    let contacts = cluster_nodes(node);
    let asked = contacts.iter().map(|contact| ask_status(node, contact.node));
    let answers = futures::future::join_all(asked).await;
    let mut table = ShardTable::default();
    answers.iter().flatten().for_each(|answer| table.add(answer));
    let unreachable: Vec<String> = contacts
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| answer.is_none())
        .map(|(contact, _)| contact.name.clone())
        .collect();
    let mut nodes = v1::NodeCounts { total: contacts.len() as u32, ..Default::default() };
    for contact in &contacts {
        match node.liveness(contact.node) {
            Liveness::Alive => nodes.alive += 1,
            Liveness::Suspect => nodes.suspect += 1,
            Liveness::Down => nodes.down += 1,
        }
    }
    let answered: BTreeSet<NodeId> = contacts
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| answer.is_some())
        .map(|(contact, _)| contact.node)
        .collect();
    let (shards, tolerated) = shard_counts(node, &table, contacts.len(), &answered);
    let view = node.ring.view();
    let moves = misplaced(&mut placement(node), &view, &facts(node), table.newest.values());
    let trees_different: BTreeSet<u32> =
        answers.iter().flatten().flat_map(|told| told.trees_different.iter().copied()).collect();
    let complete = unreachable.is_empty();
    let mut alarms: Vec<v1::Alarm> =
        answers.iter().flatten().flat_map(|answer| answer.alarms.iter().cloned()).collect();
    alarms.extend(quorum_alarm(&shards, &node.identity.name));
    v1::StatusResponse {
        cluster_id: node.cluster.id.to_string(),
        cluster_name: node.cluster.name.clone(),
        healthy: complete
            && nodes.alive == nodes.total
            && shards.unavailable == 0
            && shards.under_replicated == 0
            && alarms.is_empty(),
        complete,
        failures_tolerated: tolerated,
        nodes: Some(nodes),
        operations_running: shards.joint.max(moves as u32).max(crate::operations::running(node)),
        shards: Some(shards),
        hints: Some(hints(answers.iter().flatten())),
        trees_different: trees_different.len() as u32,
        alarms,
        unreachable,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        parameters: Some(v1::ClusterParameters {
            replication_factor: node.cluster.replication_factor,
            shards: node.cluster.shards.get(),
            virtual_nodes: u32::from(node.cluster.virtual_nodes),
        }),
    }
}

/// The hints of all nodes that answered.
fn hints<'a>(answers: impl Iterator<Item = &'a wire::NodeStatusResponse>) -> v1::HintCounts {
    let told = answers.filter_map(|answer| answer.hints);
    told.fold(v1::HintCounts::default(), |sum, one| v1::HintCounts {
        pending: sum.pending + one.pending,
        bytes: sum.bytes + one.bytes,
        acknowledging: sum.acknowledging + one.acknowledging,
        lost: sum.lost + one.lost,
    })
}

/// Counts shards by state, and how many more nodes may fail before a shard loses its quorum.
fn shard_counts(
    node: &Node,
    table: &ShardTable,
    nodes: usize,
    answered: &BTreeSet<NodeId>,
) -> (v1::ShardCounts, u32) {
    let total = node.cluster.shards.get();
    let wanted = (node.cluster.replication_factor as usize).min(nodes);
    let mut counts =
        v1::ShardCounts { total, learning: table.learning.len() as u32, ..Default::default() };
    let mut tolerated = usize::MAX;
    for configuration in table.newest.values() {
        counts.joint += u32::from(configuration.is_joint());
        counts.draining += u32::from(!configuration.retired.is_empty());
        let members = configuration.read_set();
        let living = members.iter().filter(|member| is_present(node, answered, member)).count();
        counts.under_replicated += u32::from(living < wanted);
        let spare = living.checked_sub(majority(members.len()));
        counts.unavailable += u32::from(spare.is_none());
        tolerated = tolerated.min(spare.unwrap_or(0));
    }
    // A shard of which no node that answered is a member has lost all of them for now.
    let unseen = total.saturating_sub(table.newest.len() as u32);
    counts.unavailable += unseen;
    counts.under_replicated += unseen;
    let tolerated = if unseen > 0 || tolerated == usize::MAX { 0 } else { tolerated as u32 };
    (counts, tolerated)
}

/// Whether a member's node has answered just now, with the store that votes: one that lost it
/// counts for nothing.
fn is_present(node: &Node, answered: &BTreeSet<NodeId>, member: &Member) -> bool {
    let same_store =
        node.book.get(member.node).is_some_and(|contact| contact.store == member.store);
    same_store && answered.contains(&member.node)
}

/// Nobody has it of its own: whoever asks all nodes sees it.
fn quorum_alarm(shards: &v1::ShardCounts, seen_from: &str) -> Option<v1::Alarm> {
    let (lost, total) = (shards.unavailable, shards.total);
    let detail = format!("{lost} of {total} shards have no majority of living members");
    (lost > 0).then(|| alarm(AlarmName::QuorumLost, seen_from, detail))
}

async fn list_nodes(
    node: &Arc<Node>,
    request: &v1::ListNodesRequest,
) -> Result<v1::ListNodesResponse, Status> {
    let size = match request.page_size {
        0 => PAGE,
        size @ ..0 => {
            return Err(Status::invalid_argument(format!(
                "page_size is {size}: it must not be negative"
            )));
        }
        size => usize::try_from(size).unwrap_or(PAGE_MAX).min(PAGE_MAX),
    };
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(token.parse::<NodeId>().map_err(|_| {
            Status::invalid_argument(format!(
                "page_token `{}` was given by no answer",
                token.chars().take(64).collect::<String>()
            ))
        })?),
    };
    let contacts: Vec<_> = node
        .book
        .all()
        .into_iter()
        .filter(|contact| contact.state != NodeState::Left)
        .filter(|contact| after.is_none_or(|id| contact.node > id))
        .collect();
    let page = &contacts[..size.min(contacts.len())];
    let asked = page.iter().map(|contact| ask_status(node, contact.node));
    let answers = futures::future::join_all(asked).await;
    let nodes = page
        .iter()
        .zip(answers)
        .map(|(contact, answer)| {
            let known = node_seen(node, contact);
            match answer.and_then(|answer| answer.node) {
                // Its own word, but liveness as seen from here.
                Some(told) => v1::NodeInfo {
                    liveness: known.liveness,
                    silent: known.silent,
                    round_trip: known.round_trip,
                    ..told
                },
                None => known,
            }
        })
        .collect();
    let more = contacts.len() > page.len();
    let next_page_token =
        page.last().filter(|_| more).map(|last| last.node.to_string()).unwrap_or_default();
    Ok(v1::ListNodesResponse { nodes, next_page_token })
}

async fn describe_ring(node: &Arc<Node>) -> v1::DescribeRingResponse {
    let neighbor = |one: &triad_ring::VirtualNode| v1::Neighbor {
        ring_id: one.id.to_string(),
        node_id: one.node.to_string(),
        node: node.book.name(one.node),
    };
    let virtual_nodes = node
        .ring
        .describe()
        .await
        .into_iter()
        .map(|state| v1::VirtualNode {
            ring_id: state.virtual_node.id.to_string(),
            node_id: state.virtual_node.node.to_string(),
            node: node.book.name(state.virtual_node.node),
            index: u32::from(state.virtual_node.index),
            predecessor: state.predecessor.as_ref().map(neighbor),
            successors: state.successors.iter().map(neighbor).collect(),
            fingers: state
                .fingers
                .iter()
                .map(|finger| v1::Finger {
                    start: finger.start.to_string(),
                    ring_id: finger.virtual_node.id.to_string(),
                    node_id: finger.virtual_node.node.to_string(),
                    node: node.book.name(finger.virtual_node.node),
                })
                .collect(),
        })
        .collect();
    v1::DescribeRingResponse { cluster_id: node.cluster.id.to_string(), virtual_nodes }
}

async fn locate_key(
    node: &Arc<Node>,
    request: &v1::LocateRequest,
    deadline: Deadline,
) -> Result<v1::LocateResponse, RequestError> {
    let key = RecordKey::of_locate(request, &Limits::default())?;
    let id = RingId::of_key(&key.bucket, &key.key);
    let shard = shard_of(node, &key.bucket, &key.key);
    let at = Address { shard, bucket: key.bucket, key: key.key };
    let configuration = locate(node, shard, deadline).await?;
    let walked = locate_by_ring(node, shard).await;
    let names = |nodes: &[NodeId]| nodes.iter().map(|id| node.book.name(*id)).collect::<Vec<_>>();
    let ideal = ideal_members(node, &facts(node), shard);
    let replicas = if request.with_versions {
        replica_states(node, &at, &configuration, deadline).await
    } else {
        Vec::new()
    };
    let range = node.cluster.shards.range(shard);
    Ok(v1::LocateResponse {
        ring_id: id.to_string(),
        route: Some(outcome::route(node, &configuration)),
        ideal_members: names(&ideal),
        path: walked.as_ref().map(|route| names(&route.path)).unwrap_or_default(),
        hops: walked.map(|route| route.hops).unwrap_or_default(),
        replicas,
        range_start: range.start.to_string(),
        range_end: range.end.to_string(),
    })
}

/// What each member stores for the key.
async fn replica_states(
    node: &Arc<Node>,
    at: &Address,
    configuration: &Configuration,
    deadline: Deadline,
) -> Vec<v1::ReplicaState> {
    let patience = Deadline::after(deadline.left().min(PATIENCE));
    let states = configuration.members().into_iter().map(|member| async move {
        let (result, record) = stored(node, at, configuration, member, patience).await;
        // Who holds nothing of the key has no digest to tell.
        let record = record.filter(|one| !one.is_absent());
        v1::ReplicaState {
            node: node.book.name(member.node),
            result: v1::ReplicaResult::from(result).into(),
            dots: record
                .iter()
                .flat_map(|one| one.siblings().keys())
                .map(ToString::to_string)
                .collect(),
            digest: record.map(|one| hex(&one.digest())).unwrap_or_default(),
        }
    });
    futures::future::join_all(states).await
}

async fn stored(
    node: &Arc<Node>,
    at: &Address,
    configuration: &Configuration,
    member: Member,
    deadline: Deadline,
) -> (ReplicaResult, Option<Record>) {
    if member == node.member() {
        return match node.local.peek(at) {
            Ok(record) => (ReplicaResult::Ok, Some(record)),
            Err(WriteError::Refused(refusal)) => {
                (ReplicaResult::Failed(Failure::from(&refusal)), None)
            }
            Err(WriteError::Store(_) | WriteError::Known(_)) => {
                (ReplicaResult::Failed(Failure::Unreachable), None)
            }
        };
    }
    // No record has this digest, so the whole record comes back.
    let nobody = RecordDigest([0; 16]);
    let asked =
        node.peers.data(member.node, read_request(at, configuration.epoch, nobody, deadline));
    match tokio::time::timeout_at(deadline.at(), asked.wait()).await {
        Err(_) => (ReplicaResult::Failed(Failure::Timeout), None),
        Ok(reply) => match read_answer(reply).0 {
            GetAnswer::Record(record) => (ReplicaResult::Ok, Some(record)),
            GetAnswer::Same => (ReplicaResult::Ok, None),
            GetAnswer::Failed(failure) => (ReplicaResult::Failed(failure), None),
        },
    }
}

fn hex(digest: &RecordDigest) -> String {
    format!("{:032x}", u128::from_be_bytes(digest.0))
}
