//! What this node does for other nodes: `triad.peer.v1`.

mod control;
mod data;
mod pull;
mod status;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};
use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::peer_service_server::PeerService;
use triad_replica::member::Member;
use triad_ring::NodeId;

use crate::background::{anti_entropy, tombstone_gc};
use crate::book::{Contact, NodeState};
use crate::host::Host;
use crate::introduce;
use crate::node::Node;
use crate::peers::contact::{BadPeer, Sender};
use crate::peers::{self, Direction, Inbound, PROTOCOL_VERSION};

pub(crate) use control::seen_alive;
pub(crate) use status::{ShardTable, node_seen, node_status, placement};

/// Reply messages that may wait for a slow reader.
const REPLIES: usize = 16;
/// How long a stream may take to introduce itself.
const INTRODUCTION: Duration = Duration::from_secs(2);

/// The peer port of a node.
pub(crate) struct PeerPort {
    host: Arc<Host>,
}

impl PeerPort {
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }

    /// The node, once it is in a cluster.
    #[allow(clippy::result_large_err)]
    fn node(&self) -> Result<&Arc<Node>, Status> {
        self.host.built_node().ok_or_else(|| self.host.not_joined().into())
    }

    /// Holds a Hello against this node's cluster, and its start against those that were met before.
    async fn meet(
        &self,
        node: &Arc<Node>,
        hello: Option<&wire::Hello>,
        contacts: &[wire::Contact],
    ) -> Result<Sender, Status> {
        let sender = self.admit(node, hello)?;
        introduce::meet(node, &sender, contacts).await?;
        Ok(sender)
    }

    /// Holds a Hello against this node's cluster.
    #[allow(clippy::result_large_err)]
    fn admit(&self, node: &Node, hello: Option<&wire::Hello>) -> Result<Sender, Status> {
        let hello = hello.ok_or_else(|| {
            Status::invalid_argument("a stream or request of a peer begins with a Hello")
        })?;
        if hello.protocol_version != PROTOCOL_VERSION {
            let told = hello.protocol_version;
            return Err(Status::failed_precondition(format!(
                "node {} speaks peer protocol {PROTOCOL_VERSION}, not {told}: run one version of Triad on all nodes",
                self.host.identity.name
            )));
        }
        let sender = Sender::try_from(hello)?;
        if sender.cluster != Some(node.cluster.id) {
            return Err(wrong_cluster(node, &sender));
        }
        Ok(sender)
    }
}

fn wrong_cluster(node: &Node, sender: &Sender) -> Status {
    let theirs =
        sender.cluster.map_or_else(|| "no cluster".to_owned(), |id| format!("cluster {id}"));
    let message = format!(
        "node {} belongs to cluster {} (`{}`), the caller {} to {theirs}: they never mix",
        node.identity.name, node.cluster.id, node.cluster.name, sender.node
    );
    let details =
        ErrorDetails::with_error_info("WRONG_CLUSTER", "triad", std::collections::HashMap::new());
    Status::with_error_details(tonic::Code::FailedPrecondition, message, details)
}

impl From<BadPeer> for Status {
    fn from(bad: BadPeer) -> Self {
        Self::invalid_argument(bad.to_string())
    }
}

/// The contact of a node that has left, or was sent away.
fn departed(node: &Node, sender: NodeId) -> Option<Arc<Contact>> {
    node.book.get(sender).filter(|contact| contact.state == NodeState::Left)
}

/// Reads the first message of a stream.
async fn first_message<T>(requests: &mut Streaming<T>) -> Result<T, Status> {
    tokio::time::timeout(INTRODUCTION, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded(format!("no Hello within {INTRODUCTION:?}")))??
        .ok_or_else(|| Status::invalid_argument("the stream ended before its Hello"))
}

type Replies<B> = BoxStream<'static, Result<B, Status>>;

/// Serves one stream as a task of its own; its replies begin with the introduction.
async fn serve<I: Inbound>(
    node: &Arc<Node>,
    from: NodeId,
    inbound: I,
    requests: Streaming<I::Batch>,
    introduction: I::ReplyBatch,
) -> Result<Replies<I::ReplyBatch>, Status> {
    let faults = node.peers.faults().clone();
    faults.connects(from).await.map_err(Status::unavailable)?;
    let (replies, stream) = mpsc::channel(REPLIES);
    let requests = faults.through(from, Direction::Incoming, requests);
    let stream = faults.through(from, Direction::Outgoing, ReceiverStream::new(stream));
    let serving = peers::serve(inbound, requests, replies, node.stop.clone());
    node.tasks.spawn(async move {
        tokio::select! {
            biased;
            () = serving => {}
            () = faults.severed(from) => {}
        }
    });
    Ok(tokio_stream::once(Ok(introduction)).chain(stream).boxed())
}

#[tonic::async_trait]
impl PeerService for PeerPort {
    type DataStream = Replies<wire::DataReplyBatch>;
    type ControlStream = Replies<wire::ControlReplyBatch>;

    async fn identify(
        &self,
        request: Request<wire::IdentifyRequest>,
    ) -> Result<Response<wire::IdentifyResponse>, Status> {
        let asked = request.into_inner();
        let host = &self.host;
        let node = host.node();
        if let (Some(node), Some(contact)) = (node, &asked.contact) {
            let same = asked.hello.as_ref().and_then(|hello| Sender::try_from(hello).ok());
            if let Some(sender) = same {
                node.peers.faults().connects(sender.node).await.map_err(Status::unavailable)?;
            }
            if let Some(sender) = same.filter(|one| one.cluster == Some(node.cluster.id)) {
                introduce::hear_of(node, &sender, contact);
            }
        }
        let own = host.book.own();
        Ok(Response::new(wire::IdentifyResponse {
            hello: Some(node.map_or_else(
                || peers::hello(&host.identity, None, host.identity.commits),
                |node| node.hello(),
            )),
            contact: Some(wire::Contact::from(&*own)),
            may_bootstrap: host.may_bootstrap(),
            ring_member: own.state.is_ring_member(),
            cluster_name: node.map(|node| node.cluster.name.clone()).unwrap_or_default(),
        }))
    }

    async fn admit(
        &self,
        request: Request<wire::AdmitRequest>,
    ) -> Result<Response<wire::AdmitResponse>, Status> {
        let node = self.node()?;
        let asked = request.into_inner();
        let hello =
            asked.hello.as_ref().ok_or_else(|| Status::invalid_argument("hello is missing"))?;
        let sender = Sender::try_from(hello)?;
        if sender.cluster.is_some_and(|cluster| cluster != node.cluster.id) {
            return Err(wrong_cluster(node, &sender));
        }
        node.peers.faults().connects(sender.node).await.map_err(Status::unavailable)?;
        introduce::admit(node, &sender).await?;
        if let Some(contact) = &asked.contact {
            let contact = Contact::try_from(contact)?;
            tracing::info!(name = %contact.name, node = %contact.node, address = %contact.peer_address, "admitted");
            node.book.learn(contact);
        }
        Ok(Response::new(wire::AdmitResponse {
            parameters: Some(crate::rows::parameters(&node.cluster)),
            contacts: node
                .book
                .all()
                .iter()
                .map(|contact| wire::Contact::from(&**contact))
                .collect(),
        }))
    }

    async fn data(
        &self,
        request: Request<Streaming<wire::DataBatch>>,
    ) -> Result<Response<Self::DataStream>, Status> {
        let node = Arc::clone(self.node()?);
        let mut requests = request.into_inner();
        let first = first_message(&mut requests).await?;
        let sender = self.meet(&node, first.hello.as_ref(), &first.contacts).await?;
        let hello = Some(node.hello());
        let introduction = wire::DataReplyBatch { hello, ..Default::default() };
        if departed(&node, sender.node).is_some() {
            return Err(Status::failed_precondition("the calling node has left the cluster"));
        }
        let inbound = data::DataInbound::new(Arc::clone(&node), &sender);
        let stream = serve(&node, sender.node, inbound, requests, introduction).await?;
        Ok(Response::new(stream))
    }

    async fn control(
        &self,
        request: Request<Streaming<wire::ControlBatch>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let node = Arc::clone(self.node()?);
        let mut requests = request.into_inner();
        let first = first_message(&mut requests).await?;
        let sender = self.meet(&node, first.hello.as_ref(), &first.contacts).await?;
        let hello = Some(node.hello());
        let introduction = wire::ControlReplyBatch { hello, ..Default::default() };
        if let Some(contact) = departed(&node, sender.node) {
            // All that a node which was sent away is told, so that it learns of it.
            let contacts = vec![wire::Contact::from(&*contact)];
            let told = wire::ControlReplyBatch { contacts, ..Default::default() };
            let replies = futures::stream::iter([Ok(introduction), Ok(told)]);
            return Ok(Response::new(replies.boxed()));
        }
        let inbound = control::ControlInbound::new(Arc::clone(&node), &sender);
        let stream = serve(&node, sender.node, inbound, requests, introduction).await?;
        Ok(Response::new(stream))
    }

    async fn pull(
        &self,
        request: Request<wire::PullRequest>,
    ) -> Result<Response<wire::PullResponse>, Status> {
        let node = Arc::clone(self.node()?);
        let asked = request.into_inner();
        let sender = self.meet(&node, asked.hello.as_ref(), &[]).await?;
        node.peers.faults().connects(sender.node).await.map_err(Status::unavailable)?;
        pull::answer(&node, sender.node, asked).await.map(Response::new)
    }

    async fn vouch(
        &self,
        request: Request<wire::VouchRequest>,
    ) -> Result<Response<wire::VouchResponse>, Status> {
        let node = Arc::clone(self.node()?);
        let asked = request.into_inner();
        let sender = self.meet(&node, asked.hello.as_ref(), &[]).await?;
        tombstone_gc::vouch(&node, sender.node, asked).await.map(Response::new)
    }

    async fn compare_trees(
        &self,
        request: Request<wire::CompareTreesRequest>,
    ) -> Result<Response<wire::CompareTreesResponse>, Status> {
        let node = self.node()?;
        let asked = request.into_inner();
        let sender = self.meet(node, asked.hello.as_ref(), &[]).await?;
        let from = Member { node: sender.node, store: sender.store };
        Ok(Response::new(anti_entropy::answer(node, from, &asked).await))
    }

    async fn node_status(
        &self,
        request: Request<wire::NodeStatusRequest>,
    ) -> Result<Response<wire::NodeStatusResponse>, Status> {
        let node = self.node()?;
        let sender = self.meet(node, request.into_inner().hello.as_ref(), &[]).await?;
        node.peers.faults().connects(sender.node).await.map_err(Status::unavailable)?;
        Ok(Response::new(node_status(node)))
    }

    async fn operate(
        &self,
        request: Request<wire::OperateRequest>,
    ) -> Result<Response<wire::OperateResponse>, Status> {
        let node = self.node()?;
        let asked = request.into_inner();
        let sender = self.meet(node, asked.hello.as_ref(), &[]).await?;
        node.peers.faults().connects(sender.node).await.map_err(Status::unavailable)?;
        crate::operations::serve(node, asked.action).await.map(Response::new)
    }
}
