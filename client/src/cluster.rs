//! Looking at a cluster and changing it: the raw messages of `triad.v1.ClusterService`, for tools that print them.

use std::time::Duration;

use bytes::Bytes;
use triad_proto::v1;
use triad_proto::v1::cluster_service_client::ClusterServiceClient;

use crate::channel::Address;
use crate::client::Client;
use crate::error::Result;
use crate::retry::{Kind, Trip, run};

/// Asks about the cluster, made by [`Client::cluster`]. Any endpoint may answer, unless [`Cluster::at`] names one.
#[derive(Debug, Clone)]
#[must_use]
pub struct Cluster<'a> {
    client: &'a Client,
    at: Option<Address>,
    deadline: Option<Duration>,
}

/// One method: sends the request, gives the reply as it came.
macro_rules! ask {
    ($self:ident, $method:ident, $request:expr) => {{
        let trip = $self.trip();
        let bytes_max = $self.client.inner.settings.response_bytes_max;
        let send = |channel, request| async move {
            ClusterServiceClient::new(channel)
                .max_decoding_message_size(bytes_max)
                .$method(request)
                .await
        };
        run(&$self.client.inner.pool, &trip, $request, send).await
    }};
}

impl<'a> Cluster<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client, at: None, deadline: None }
    }

    /// Asks this node and no other, as `host:port`.
    pub fn at(mut self, endpoint: &str) -> Result<Self> {
        self.at = Some(endpoint.parse()?);
        Ok(self)
    }

    /// How long an answer may take. Default: the client's.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sums up the cluster.
    pub async fn status(&self) -> Result<v1::StatusResponse> {
        ask!(self, status, v1::StatusRequest {})
    }

    /// Finds where a key lives; with its versions on each replica, if wanted.
    pub async fn locate(
        &self,
        bucket: &str,
        key: impl AsRef<[u8]>,
        with_versions: bool,
    ) -> Result<v1::LocateResponse> {
        let request = v1::LocateRequest {
            bucket: bucket.to_owned(),
            key_form: Some(v1::locate_request::KeyForm::Key(Bytes::copy_from_slice(key.as_ref()))),
            with_versions,
        };
        ask!(self, locate, request)
    }

    /// Lists all nodes, page after page.
    pub async fn list_nodes(&self) -> Result<Vec<v1::NodeInfo>> {
        let mut nodes = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListNodesRequest { page_size: 1000, page_token };
            let page = ask!(self, list_nodes, request)?;
            nodes.extend(page.nodes);
            if page.next_page_token.is_empty() {
                return Ok(nodes);
            }
            page_token = page.next_page_token;
        }
    }

    /// Shows one node's virtual nodes with their places in the ring.
    pub async fn describe_ring(&self) -> Result<v1::DescribeRingResponse> {
        ask!(self, describe_ring, v1::DescribeRingRequest {})
    }

    /// Tells whether a node lives and is ready, and if not, why.
    pub async fn readiness(&self) -> Result<v1::GetReadinessResponse> {
        ask!(self, get_readiness, v1::GetReadinessRequest {})
    }

    /// Makes a new cluster of one node alone, although it waits for its seeds. Ask one node, by
    /// [`at`](Self::at).
    pub async fn bootstrap(&self, force: bool) -> Result<v1::BootstrapResponse> {
        ask!(self, bootstrap, v1::BootstrapRequest { force })
    }

    /// Lets one node that waits outside join a cluster through these seeds. Ask that node, by
    /// [`at`](Self::at).
    pub async fn join(&self, seeds: Vec<String>) -> Result<v1::JoinResponse> {
        ask!(self, join, v1::JoinRequest { seeds: seeds.clone() })
    }

    /// Lets one node hand over its shards and leave. Ask that node, by [`at`](Self::at).
    pub async fn leave(&self, validate_only: bool) -> Result<v1::LeaveResponse> {
        ask!(self, leave, v1::LeaveRequest { validate_only })
    }

    /// Takes a node out of the cluster.
    pub async fn decommission(
        &self,
        request: v1::DecommissionRequest,
    ) -> Result<v1::DecommissionResponse> {
        ask!(self, decommission, request.clone())
    }

    /// Gives the places of a node that is down to others now.
    pub async fn replace(&self, node: &str, validate_only: bool) -> Result<v1::ReplaceResponse> {
        ask!(self, replace, v1::ReplaceRequest { node: node.to_owned(), validate_only })
    }

    /// Lets shards that lost a majority of their stores for ever go on with what is left.
    pub async fn force(&self, request: v1::ForceRequest) -> Result<v1::ForceResponse> {
        ask!(self, force, request.clone())
    }

    /// Lists the long operations that any node knows of.
    pub async fn list_operations(&self) -> Result<Vec<v1::Operation>> {
        let listed = ask!(self, list_operations, v1::ListOperationsRequest {})?;
        Ok(listed.operations)
    }

    /// Takes an operation back.
    pub async fn cancel_operation(&self, id: &str) -> Result<v1::CancelOperationResponse> {
        ask!(self, cancel_operation, v1::CancelOperationRequest { id: id.to_owned() })
    }

    fn trip(&self) -> Trip {
        let mut trip = self.client.trip(Kind::Read, &[], self.deadline);
        if let Some(only) = &self.at {
            trip.candidates = vec![only.clone()];
            trip.anyone = false;
        }
        trip
    }
}
