//! `triad.test.v1.FaultService`, on the admin port.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};
use tracing::{error, warn};
use triad_proto::test::v1 as wire;
use triad_proto::test::v1::fault_service_server::{FaultService, FaultServiceServer};
use triad_ring::{NodeId, ShardId};

use super::links::{Direction, Fault};
use super::points;
use crate::host::Host;
use crate::node::Node;

/// The gRPC services that a program for tests adds to its admin port.
pub(crate) fn routes(host: &Arc<Host>) -> axum::Router {
    warn!("built with the feature `testing`: whoever reaches the admin port can break this node");
    let mut routes = tonic::service::Routes::new(FaultServiceServer::new(Faults(Arc::clone(host))));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(triad_proto::test::v1::FILE_DESCRIPTOR_SET)
    };
    match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => routes = routes.add_service(v1).add_service(v1alpha),
        (Err(error), _) | (_, Err(error)) => {
            error!(%error, "no reflection: the descriptors do not fit");
        }
    }
    // Other paths are the admin socket's own business.
    routes.into_axum_router().reset_fallback()
}

struct Faults(Arc<Host>);

impl Faults {
    #[allow(clippy::result_large_err)]
    fn node(&self) -> Result<&Arc<Node>, Status> {
        self.0.node().ok_or_else(|| self.0.not_joined().into())
    }
}

/// The node of this id or name; none for `*`.
#[allow(clippy::result_large_err)]
fn find(node: &Node, peer: &str) -> Result<Option<NodeId>, Status> {
    if peer == "*" {
        return Ok(None);
    }
    let contacts = node.book.all();
    let named = contacts.iter().find(|one| one.name == peer || one.node.to_string() == peer);
    match named {
        Some(contact) if contact.node == node.me() => Err(Status::invalid_argument(format!(
            "`{peer}` is this node: it has no link to itself"
        ))),
        Some(contact) => Ok(Some(contact.node)),
        None => Err(Status::not_found(format!("no node `{peer}` is known here"))),
    }
}

#[tonic::async_trait]
impl FaultService for Faults {
    async fn set_clock_offset(
        &self,
        request: Request<wire::SetClockOffsetRequest>,
    ) -> Result<Response<wire::SetClockOffsetResponse>, Status> {
        let node = self.node()?;
        let offset = request.into_inner().offset.unwrap_or_default();
        let (seconds, nanos) = (offset.seconds, i64::from(offset.nanos));
        let offset_ms = seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000);
        warn!(offset_ms, "clock offset set");
        node.clock.set_offset(offset_ms);
        Ok(Response::new(wire::SetClockOffsetResponse {}))
    }

    async fn set_failpoint(
        &self,
        request: Request<wire::SetFailpointRequest>,
    ) -> Result<Response<wire::SetFailpointResponse>, Status> {
        let wire::SetFailpointRequest { name, action, role, skip } = request.into_inner();
        points::set(&name, &action, &role, skip).map_err(Status::invalid_argument)?;
        warn!(name, action, role, skip, "failpoint set");
        Ok(Response::new(wire::SetFailpointResponse {}))
    }

    async fn list_failpoints(
        &self,
        _: Request<wire::ListFailpointsRequest>,
    ) -> Result<Response<wire::ListFailpointsResponse>, Status> {
        let failpoints = points::list().into_iter().map(|told| wire::Failpoint {
            name: told.name.to_owned(),
            action: told.action.to_owned(),
            role: told.role.to_owned(),
            reached: told.reached,
            acted: told.acted,
        });
        Ok(Response::new(wire::ListFailpointsResponse { failpoints: failpoints.collect() }))
    }

    async fn set_link_fault(
        &self,
        request: Request<wire::SetLinkFaultRequest>,
    ) -> Result<Response<wire::SetLinkFaultResponse>, Status> {
        use wire::set_link_fault_request::Fault as Asked;
        let node = self.node()?;
        let request = request.into_inner();
        let directions = match request.direction() {
            wire::LinkDirection::Unspecified => &[Direction::Incoming, Direction::Outgoing][..],
            wire::LinkDirection::Incoming => &[Direction::Incoming],
            wire::LinkDirection::Outgoing => &[Direction::Outgoing],
        };
        let fault = match request.fault {
            None | Some(Asked::Cut(false)) => None,
            Some(Asked::Cut(true)) => Some(Fault::Cut),
            Some(Asked::DelayMs(ms)) => Some(Fault::Delay(Duration::from_millis(ms.into()))),
            Some(Asked::DropPercent(percent)) => Some(Fault::DropPercent(percent)),
        };
        let peer = find(node, &request.peer)?;
        warn!(peer = request.peer, ?directions, ?fault, "link fault set");
        node.peers.faults().set(peer, directions, fault);
        Ok(Response::new(wire::SetLinkFaultResponse {}))
    }

    async fn digest(
        &self,
        request: Request<wire::DigestRequest>,
    ) -> Result<Response<wire::DigestResponse>, Status> {
        let node = self.node()?;
        let shard = request.into_inner().shard;
        let count = node.cluster.shards.get();
        if shard >= count {
            let message = format!("there is no shard {shard}: they are 0 to {}", count - 1);
            return Err(Status::invalid_argument(message));
        }
        let digest = super::digest::digest(node, ShardId::new(shard)).await;
        digest.map(Response::new).map_err(Status::internal)
    }
}
