//! The methods of `triad.v1.ClusterService` that change who belongs to the cluster.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use triad_proto::peer::v1 as wire;
use triad_proto::v1;
use triad_proto::v1::OperationState;

use crate::config::split_host_port;
use crate::host::Host;
use crate::node::Node;
use crate::operations::{self, OperationError};

/// How long a forced bootstrap may take: one round of questions to the seeds, and a commit.
const BOOTSTRAP_PATIENCE: Duration = Duration::from_secs(4);
/// Seeds of one join.
const SEEDS: usize = 100;
/// How often an operation that is watched is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Looks that may wait for a slow watcher.
const LOOKS: usize = 4;

/// The looks at one operation.
pub(super) type Watch = ReceiverStream<Result<v1::WatchOperationResponse, Status>>;

/// Makes a cluster of this node alone, if it is in none and no seed says that it is in one.
pub(super) async fn bootstrap(host: &Host, force: bool) -> Result<String, Status> {
    if let Some(node) = host.node() {
        let (name, id) = (&node.cluster.name, node.cluster.id);
        return Err(Status::failed_precondition(format!(
            "node {} is in cluster {id} (`{name}`) already",
            host.identity.name
        )));
    }
    if !force {
        return Err(Status::failed_precondition(format!(
            "{}; say force = true to make a cluster all the same",
            host.not_joined()
        )));
    }
    host.force_bootstrap();
    let end = tokio::time::Instant::now() + BOOTSTRAP_PATIENCE;
    while tokio::time::Instant::now() < end {
        if let Some(node) = host.node() {
            return Ok(node.cluster.id.to_string());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Status::failed_precondition(format!("no cluster was made: {}", host.not_joined())))
}

pub(super) fn join(host: &Arc<Host>, request: v1::JoinRequest) -> Result<v1::JoinResponse, Status> {
    let name = &host.identity.name;
    if let Some(node) = host.built_node() {
        let why = if host.node().is_some() {
            format!(
                "node {name} is in cluster {} (`{}`) already",
                node.cluster.id, node.cluster.name
            )
        } else {
            format!("node {name} has left its cluster: restart its process, then ask it to join")
        };
        return Err(OperationError::NotNow(why).into());
    }
    if request.seeds.is_empty() || request.seeds.len() > SEEDS {
        let given = request.seeds.len();
        let why = format!("{given} seeds were named: name 1 to {SEEDS} peer addresses of members");
        return Err(OperationError::BadRequest(why).into());
    }
    for seed in &request.seeds {
        split_host_port(seed).map_err(|why| {
            let seed: String = seed.chars().take(80).collect();
            OperationError::BadRequest(format!("seed `{seed}` {why}: expected host:port"))
        })?;
    }
    host.ask_to_join(request.seeds);
    Ok(v1::JoinResponse { operation: Some(operations::begin_join(host)) })
}

pub(super) async fn leave(
    node: &Arc<Node>,
    request: &v1::LeaveRequest,
) -> Result<v1::LeaveResponse, Status> {
    // Its own operator sends it away: nothing but the last copy keeps it.
    let leave = wire::BeginLeave {
        kind: "leave".to_owned(),
        validate_only: request.validate_only,
        allow_under_replicated: true,
    };
    let begun = operations::begin_leave(node, &leave).await?;
    Ok(v1::LeaveResponse { operation: Some(begun.0), movement: Some(begun.1) })
}

pub(super) async fn decommission(
    node: &Arc<Node>,
    request: &v1::DecommissionRequest,
) -> Result<v1::DecommissionResponse, Status> {
    let begun = operations::decommission(node, request).await?;
    Ok(v1::DecommissionResponse { operation: Some(begun.0), movement: Some(begun.1) })
}

pub(super) async fn replace(
    node: &Arc<Node>,
    request: &v1::ReplaceRequest,
) -> Result<v1::ReplaceResponse, Status> {
    let begun = operations::replace(node, request).await?;
    Ok(v1::ReplaceResponse { operation: Some(begun.0), movement: Some(begun.1) })
}

pub(super) async fn force(
    node: &Arc<Node>,
    request: &v1::ForceRequest,
) -> Result<v1::ForceResponse, Status> {
    Ok(operations::force(node, request).await?)
}

/// Also answered by a process that is in no cluster: it knows of its own join.
pub(super) async fn list(host: &Host) -> v1::ListOperationsResponse {
    let mut operations = match host.node() {
        Some(node) => operations::list(node).await,
        None => Vec::new(),
    };
    operations.extend(operations::own_join(host));
    operations.sort_by(|a, b| a.id.cmp(&b.id));
    v1::ListOperationsResponse { operations }
}

pub(super) async fn watch(host: &Arc<Host>, id: String) -> Result<Watch, Status> {
    let mut seen = find(host, &id).await?;
    let (looks, stream) = mpsc::channel(LOOKS);
    let host = Arc::clone(host);
    tokio::spawn(async move {
        loop {
            let ended = seen.state() != OperationState::Running;
            let look = v1::WatchOperationResponse { operation: Some(seen.clone()) };
            if looks.send(Ok(look)).await.is_err() || ended || host.is_draining() {
                return;
            }
            tokio::time::sleep(LOOK).await;
            match find(&host, &id).await {
                Ok(now) => seen = now,
                Err(gone) => {
                    let _ = looks.send(Err(gone)).await;
                    return;
                }
            }
        }
    });
    Ok(ReceiverStream::new(stream))
}

async fn find(host: &Host, id: &str) -> Result<v1::Operation, Status> {
    let known = list(host).await.operations.into_iter().find(|one| one.id == id);
    let unknown = || OperationError::Unknown {
        what: "operation",
        name: id.chars().take(64).collect(),
        try_this: "`triad op ls` lists them",
    };
    Ok(known.ok_or_else(unknown)?)
}

pub(super) async fn cancel(
    node: &Arc<Node>,
    id: &str,
) -> Result<v1::CancelOperationResponse, Status> {
    let operation = operations::cancel(node, id).await?;
    Ok(v1::CancelOperationResponse { operation: Some(operation) })
}
