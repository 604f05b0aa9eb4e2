//! The roads to other nodes: one data stream, one control stream and one channel for bulk
//! transfer to each, opened when first needed.

pub(crate) mod contact;
pub(crate) mod data;
mod faults;
mod inbound;
mod introduction;
mod lanes;
mod link;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::peer_service_client::PeerServiceClient;
use triad_ring::NodeId;

pub(crate) use faults::{Direction, Faults};
pub(crate) use inbound::{Inbound, serve};
pub(crate) use introduction::{Introduction, Introductions, PROTOCOL_VERSION, hello, learn_all};
pub(crate) use lanes::{MESSAGE_BYTES, dial};
pub(crate) use link::LinkError;

use lanes::{ControlLane, DataLane, Route};
use link::Link;

use crate::node::Node;
use crate::platform::Platform;

/// What is open to one node.
struct Roads {
    data: Link<DataLane>,
    control: Link<ControlLane>,
    bulk: tokio::sync::Mutex<Option<PeerServiceClient<Channel>>>,
}

/// All roads of a node.
pub(crate) struct Peers {
    platform: Arc<dyn Platform>,
    roads: RwLock<BTreeMap<NodeId, Arc<Roads>>>,
    introduction: Arc<dyn Introduction>,
    faults: Faults,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Peers {
    /// Roads that end when `stop` is cancelled; their tasks are tracked in `tasks`.
    pub(crate) fn new(
        platform: Arc<dyn Platform>,
        introduction: Arc<dyn Introduction>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (roads, faults) = (RwLock::default(), Faults::default());
        Self { platform, roads, introduction, faults, tasks, stop }
    }

    /// What tests do to the links.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Roads lead to nodes of the book only: whatever others say, there are no more of them.
    fn roads(&self, to: NodeId) -> Result<Arc<Roads>, LinkError> {
        if let Some(roads) = self.roads.read().unwrap_or_else(PoisonError::into_inner).get(&to) {
            return Ok(Arc::clone(roads));
        }
        self.address(to)?;
        let mut all = self.roads.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(all.entry(to).or_insert_with(|| Arc::new(self.build(to)))))
    }

    fn address(&self, of: NodeId) -> Result<String, LinkError> {
        let unknown = || LinkError::NotSent(format!("no address of node {of} is known"));
        self.introduction.address(of).ok_or_else(unknown)
    }

    fn build(&self, to: NodeId) -> Roads {
        let (platform, faults) = (Arc::clone(&self.platform), self.faults.clone());
        let route = Route { platform, to, introduction: Arc::clone(&self.introduction), faults };
        let (data, data_task) = Link::new(DataLane(route.clone()), self.stop.clone());
        let (control, control_task) = Link::new(ControlLane(route), self.stop.clone());
        self.tasks.spawn(data_task);
        self.tasks.spawn(control_task);
        Roads { data, control, bulk: tokio::sync::Mutex::new(None) }
    }

    /// Queues a request about records.
    pub(crate) fn data(&self, to: NodeId, request: wire::DataRequest) -> Answer<wire::DataReply> {
        self.roads(to).map_or_else(Answer::failed, |roads| Answer(roads.data.send(request)))
    }

    /// Queues a control request.
    pub(crate) fn control(
        &self,
        to: NodeId,
        request: wire::control_request::Request,
    ) -> Answer<wire::ControlReply> {
        let request = wire::ControlRequest { id: 0, request: Some(request) };
        self.roads(to).map_or_else(Answer::failed, |roads| Answer(roads.control.send(request)))
    }

    /// A client for unary calls on a channel of their own, so that bulk never delays others.
    pub(crate) async fn bulk(&self, to: NodeId) -> Result<PeerServiceClient<Channel>, LinkError> {
        self.faults.call(to).await.map_err(LinkError::NotSent)?;
        let roads = self.roads(to)?;
        let mut bulk = roads.bulk.lock().await;
        if let Some(client) = &*bulk {
            return Ok(client.clone());
        }
        let client = dial(&*self.platform, &self.address(to)?).await.map_err(LinkError::NotSent)?;
        Ok(bulk.insert(client).clone())
    }

    /// Forgets the bulk channel after a failed call, so that the next dials anew.
    pub(crate) async fn forget_bulk(&self, to: NodeId) {
        if let Ok(roads) = self.roads(to) {
            *roads.bulk.lock().await = None;
        }
    }
}

/// The state of this node's store, as every reply tells it.
pub(crate) fn stamp(node: &Node) -> wire::ReplyStamp {
    wire::ReplyStamp {
        store_id: node.identity.store.as_bytes().to_vec().into(),
        incarnation: node.identity.incarnation.get(),
        commit_number: node.local.commits(),
    }
}

/// An answer that will come.
pub(crate) struct Answer<R>(oneshot::Receiver<Result<R, LinkError>>);

impl<R> Answer<R> {
    fn failed(error: LinkError) -> Self {
        let (reply, answer) = oneshot::channel();
        let _ = reply.send(Err(error));
        Self(answer)
    }

    /// Waits for it. An answer that cannot come any more counts as lost.
    pub(crate) async fn wait(self) -> Result<R, LinkError> {
        self.0.await.unwrap_or(Err(LinkError::Lost))
    }

    /// Waits at most `patience`; after that the answer counts as lost.
    pub(crate) async fn within(self, patience: Duration) -> Result<R, LinkError> {
        tokio::time::timeout(patience, self.wait()).await.unwrap_or(Err(LinkError::Lost))
    }
}
