//! The two kinds of streams between nodes: data (records) and control (everything that must
//! never wait behind data).

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::peer_service_client::PeerServiceClient;
use triad_ring::NodeId;

use super::link::Lane;
use super::{Direction, Faults, Introduction};
use crate::platform::{BoxedWire, Dialer, Platform};

/// How long a dial may take, name resolution included.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Pings on an idle connection: a cut network sends no goodbye.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest message between nodes: a record of 50 siblings of 1 MiB, and room for its batch.
pub(crate) const MESSAGE_BYTES: usize = 64 << 20;

/// Dials the peer port at `address`; names are resolved anew each time.
pub(crate) async fn dial(
    platform: &dyn Platform,
    address: &str,
) -> Result<PeerServiceClient<Channel>, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("bad peer address `{address}`: {error}"))?
        .connect_timeout(DIAL_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let connecting = async {
        match platform.dialer() {
            None => endpoint.connect().await,
            Some(dialer) => endpoint.connect_with_connector(connector(dialer, address)).await,
        }
    };
    match tokio::time::timeout(DIAL_TIMEOUT, connecting).await {
        Ok(Ok(channel)) => Ok(PeerServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)),
        Ok(Err(error)) => Err(format!("{address}: {}", root_cause(&error))),
        Err(_) => Err(format!("{address}: no connection within {DIAL_TIMEOUT:?}")),
    }
}

/// What opens the stream of a channel, where that is not TCP.
fn connector(
    dialer: Dialer,
    address: &str,
) -> impl tower::Service<
    http::Uri,
    Response = TokioIo<BoxedWire>,
    Error = std::io::Error,
    Future = impl Send + use<>,
> + Send
+ use<> {
    let address = address.to_owned();
    tower::service_fn(move |_: http::Uri| {
        let dialing = dialer(&address);
        async move { dialing.await.map(TokioIo::new) }
    })
}

/// The innermost reason of an error: "connection refused" says more than "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What both lanes need: whom to reach and how to say who calls.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) to: NodeId,
    pub(crate) introduction: Arc<dyn Introduction>,
    pub(crate) faults: Faults,
}

impl Route {
    async fn client(&self) -> Result<PeerServiceClient<Channel>, String> {
        self.faults.connects(self.to).await?;
        let address = self
            .introduction
            .address(self.to)
            .ok_or_else(|| format!("no address of node {} is known", self.to))?;
        dial(&*self.platform, &address).await
    }

    /// Why a stream was not opened; what was held against this start is noted.
    fn refused(&self, status: &Status) -> String {
        self.introduction.refused(self.to, status);
        status.message().to_owned()
    }

    /// What of the queued batches gets through, after the introduction.
    fn outgoing<B: Send + 'static>(
        &self,
        first: B,
        batches: mpsc::Receiver<B>,
    ) -> impl Stream<Item = B> + Send + use<B> {
        let batches = ReceiverStream::new(batches);
        tokio_stream::once(first).chain(self.faults.through(self.to, Direction::Outgoing, batches))
    }
}

/// Requests about records.
pub(crate) struct DataLane(pub(crate) Route);

impl Lane for DataLane {
    type Request = wire::DataRequest;
    type Reply = wire::DataReply;
    type Batch = wire::DataBatch;
    type ReplyBatch = wire::DataReplyBatch;
    const NAME: &'static str = "data";

    fn route(&self) -> &Route {
        &self.0
    }

    fn size(request: &Self::Request) -> usize {
        request.encoded_len()
    }

    fn expects_reply(_: &Self::Request) -> bool {
        true
    }

    fn pack(&self, requests: Vec<(u64, Self::Request)>) -> Self::Batch {
        let requests =
            requests.into_iter().map(|(id, request)| wire::DataRequest { id, ..request }).collect();
        wire::DataBatch { hello: None, requests, contacts: Vec::new() }
    }

    fn unpack(&self, batch: Self::ReplyBatch) -> Option<Vec<(u64, Self::Reply)>> {
        let route = &self.0;
        let counts = route.introduction.heard(route.to, batch.stamp.as_ref(), &batch.contacts);
        counts.then(|| batch.replies.into_iter().map(|reply| (reply.id, reply)).collect())
    }

    fn open(&self, outgoing: mpsc::Receiver<Self::Batch>) -> Opening<Self::ReplyBatch> {
        let route = self.0.clone();
        async move {
            let mut client = route.client().await?;
            let first = wire::DataBatch {
                hello: Some(route.introduction.hello()),
                requests: Vec::new(),
                contacts: vec![route.introduction.own_contact()],
            };
            let batches = route.outgoing(first, outgoing);
            let replies = client.data(batches).await.map_err(|status| route.refused(&status))?;
            introduced(&route, replies.into_inner(), |batch| batch.hello.as_ref()).await
        }
        .boxed()
    }
}

/// Ring maintenance, pings, decisions, the directory.
pub(crate) struct ControlLane(pub(crate) Route);

impl Lane for ControlLane {
    type Request = wire::ControlRequest;
    type Reply = wire::ControlReply;
    type Batch = wire::ControlBatch;
    type ReplyBatch = wire::ControlReplyBatch;
    const NAME: &'static str = "control";

    fn route(&self) -> &Route {
        &self.0
    }

    fn size(request: &Self::Request) -> usize {
        request.encoded_len()
    }

    fn expects_reply(request: &Self::Request) -> bool {
        use wire::control_request::Request;
        !matches!(request.request, Some(Request::Ring(_) | Request::Contacts(_)))
    }

    fn pack(&self, requests: Vec<(u64, Self::Request)>) -> Self::Batch {
        let requests = requests
            .into_iter()
            .map(|(id, request)| wire::ControlRequest { id, ..request })
            .collect();
        let contacts = self.0.introduction.news_for(self.0.to);
        wire::ControlBatch { hello: None, requests, contacts }
    }

    fn unpack(&self, batch: Self::ReplyBatch) -> Option<Vec<(u64, Self::Reply)>> {
        let route = &self.0;
        let counts = route.introduction.heard(route.to, batch.stamp.as_ref(), &batch.contacts);
        counts.then(|| batch.replies.into_iter().map(|reply| (reply.id, reply)).collect())
    }

    fn open(&self, outgoing: mpsc::Receiver<Self::Batch>) -> Opening<Self::ReplyBatch> {
        let route = self.0.clone();
        async move {
            let mut client = route.client().await?;
            route.introduction.forget_news_for(route.to);
            let first = wire::ControlBatch {
                hello: Some(route.introduction.hello()),
                requests: Vec::new(),
                contacts: vec![route.introduction.own_contact()],
            };
            let batches = route.outgoing(first, outgoing);
            let replies = client.control(batches).await.map_err(|status| route.refused(&status))?;
            introduced(&route, replies.into_inner(), |batch| batch.hello.as_ref()).await
        }
        .boxed()
    }
}

type Opening<B> = BoxFuture<'static, Result<Streaming<B>, String>>;

/// Reads the first reply batch, which says who answered: behind an address another node may
/// live now than the one that was meant.
async fn introduced<B>(
    route: &Route,
    mut replies: Streaming<B>,
    hello: impl Fn(&B) -> Option<&wire::Hello>,
) -> Result<Streaming<B>, String> {
    let to = route.to;
    let first = tokio::time::timeout(DIAL_TIMEOUT, replies.message())
        .await
        .map_err(|_| format!("node {to} did not introduce itself within {DIAL_TIMEOUT:?}"))?
        .map_err(|status| route.refused(&status))?
        .ok_or_else(|| format!("node {to} closed the stream"))?;
    let answered = hello(&first).ok_or_else(|| format!("node {to} did not introduce itself"))?;
    route.introduction.recorded(to, answered)?;
    Ok(replies)
}
