//! A node in this process that answers as it is told and remembers what it was asked.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use triad_proto::v1;
use triad_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use triad_proto::v1::kv_service_server::{KvService, KvServiceServer};
use triad_ring::{RingId, ShardCount};

const SHARDS: u32 = 16;

/// What the node does with its next request.
#[derive(Clone)]
pub(crate) enum Step {
    /// Answers, and tells that these addresses are the members.
    Route(Vec<String>),
    Fail(Status),
    Overloaded(Duration),
    /// Never answers.
    Hang,
}

/// What the node was asked.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) bucket: String,
    pub(crate) key: Bytes,
    pub(crate) level: v1::Level,
    pub(crate) context: Bytes,
    pub(crate) request_id: Bytes,
    pub(crate) first_attempt: bool,
    pub(crate) want_route: bool,
    pub(crate) timeout: Option<Duration>,
}

#[derive(Default)]
struct Script {
    steps: VecDeque<Step>,
    always: Option<Step>,
    seen: Vec<Seen>,
}

#[derive(Clone)]
struct Service {
    script: Arc<Mutex<Script>>,
    address: SocketAddr,
}

pub(crate) struct Fake {
    service: Service,
    connections: Arc<AtomicUsize>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    pub(crate) async fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Service { script: Arc::default(), address };
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let incoming = TcpListenerStream::new(listener).map(move |stream| {
            counter.fetch_add(1, Ordering::Relaxed);
            stream
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Server::builder()
            .add_service(KvServiceServer::new(service.clone()))
            .add_service(ClusterServiceServer::new(service.clone()))
            .serve_with_incoming_shutdown(incoming, async {
                // An error means that the test is over.
                stopped.await.ok();
            });
        let task = tokio::spawn(async move { server.await.unwrap() });
        Self { service, connections, stop, task }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }

    pub(crate) fn address(&self) -> String {
        self.service.address.to_string()
    }

    pub(crate) fn will<const N: usize>(&self, steps: [Step; N]) {
        self.service.script.lock().unwrap().steps.extend(steps);
    }

    pub(crate) fn always(&self, step: Step) {
        self.service.script.lock().unwrap().always = Some(step);
    }

    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.service.script.lock().unwrap().seen.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Service {
    async fn act(&self, seen: Seen) -> Result<(Option<v1::Route>, Option<v1::Outcome>), Status> {
        let shards = ShardCount::try_new(SHARDS).unwrap();
        let shard = shards.shard_of(RingId::of_key(&seen.bucket, &seen.key)).get();
        let step = {
            let mut script = self.script.lock().unwrap();
            script.seen.push(seen);
            script.steps.pop_front().or_else(|| script.always.clone())
        };
        let epoch = Some(v1::Epoch { lineage: 1, number: 1 });
        let outcome = Some(v1::Outcome { shard, epoch, ..Default::default() });
        match step {
            None => Ok((None, outcome)),
            Some(Step::Route(members)) => {
                let members = members
                    .into_iter()
                    .map(|client_address| v1::Member { client_address, ..Default::default() })
                    .collect();
                let route =
                    v1::Route { shard, epoch, members, shard_count: SHARDS, ..Default::default() };
                Ok((Some(route), outcome))
            }
            Some(Step::Fail(status)) => Err(status),
            Some(Step::Overloaded(wait)) => {
                let mut details = details("OVERLOADED", &[("limit", "1")]);
                details.set_retry_info(Some(wait));
                Err(Status::with_error_details(Code::ResourceExhausted, "too much", details))
            }
            Some(Step::Hang) => std::future::pending().await,
        }
    }
}

/// A status as the server makes it.
pub(crate) fn status(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
    Status::with_error_details(code, "refused by the test", details(reason, metadata))
}

fn details(reason: &str, metadata: &[(&str, &str)]) -> ErrorDetails {
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ErrorDetails::with_error_info(reason, "triad", metadata)
}

/// An address where nobody listens.
pub(crate) fn closed_port() -> String {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A server that takes a connection, greets as HTTP/2 does, reads a request and hangs up.
pub(crate) fn rude_server() -> String {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // An empty SETTINGS frame.
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
            let mut total = 0;
            let mut buffer = [0; 4096];
            // The preface and its frames are short: beyond them a request has begun to arrive.
            while total < 150 {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => total += read,
                }
            }
        }
    });
    address
}

fn timeout_of<T>(request: &Request<T>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_hours(number),
        "M" => Duration::from_mins(number),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        _ => Duration::from_nanos(number),
    })
}

macro_rules! seen {
    ($request:ident, $module:ident) => {{
        let timeout = timeout_of(&$request);
        let message = $request.into_inner();
        let level = message.level();
        let key = match message.key_form {
            Some(v1::$module::KeyForm::Key(key)) => key,
            other => panic!("the client sends keys as bytes: {other:?}"),
        };
        let context = message.context;
        Seen {
            bucket: message.bucket,
            key,
            level,
            context,
            request_id: message.request_id,
            first_attempt: message.first_attempt,
            want_route: message.want_route,
            timeout,
        }
    }};
}

#[tonic::async_trait]
impl KvService for Service {
    async fn put(
        &self,
        request: Request<v1::PutRequest>,
    ) -> Result<Response<v1::PutResponse>, Status> {
        let seen = seen!(request, put_request);
        let (route, outcome) = self.act(seen).await?;
        Ok(Response::new(v1::PutResponse { route, outcome, ..Default::default() }))
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let timeout = timeout_of(&request);
        let message = request.into_inner();
        let level = message.level();
        let Some(v1::get_request::KeyForm::Key(key)) = message.key_form else {
            panic!("the client sends keys as bytes");
        };
        let seen = Seen {
            bucket: message.bucket,
            key,
            level,
            context: Bytes::new(),
            request_id: Bytes::new(),
            first_attempt: false,
            want_route: message.want_route,
            timeout,
        };
        let (route, outcome) = self.act(seen).await?;
        let context = Bytes::from_static(b"context");
        Ok(Response::new(v1::GetResponse { context, route, outcome, ..Default::default() }))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let seen = seen!(request, delete_request);
        let (route, outcome) = self.act(seen).await?;
        Ok(Response::new(v1::DeleteResponse { route, outcome, ..Default::default() }))
    }
}

#[tonic::async_trait]
impl ClusterService for Service {
    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(v1::StatusResponse::default()))
    }

    async fn locate(
        &self,
        _: Request<v1::LocateRequest>,
    ) -> Result<Response<v1::LocateResponse>, Status> {
        Ok(Response::new(v1::LocateResponse::default()))
    }

    async fn list_nodes(
        &self,
        _: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        Ok(Response::new(v1::ListNodesResponse::default()))
    }

    async fn describe_ring(
        &self,
        _: Request<v1::DescribeRingRequest>,
    ) -> Result<Response<v1::DescribeRingResponse>, Status> {
        Ok(Response::new(v1::DescribeRingResponse::default()))
    }

    async fn bootstrap(
        &self,
        _: Request<v1::BootstrapRequest>,
    ) -> Result<Response<v1::BootstrapResponse>, Status> {
        Ok(Response::new(v1::BootstrapResponse::default()))
    }

    async fn join(
        &self,
        _: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        Ok(Response::new(v1::JoinResponse::default()))
    }

    async fn leave(
        &self,
        _: Request<v1::LeaveRequest>,
    ) -> Result<Response<v1::LeaveResponse>, Status> {
        Ok(Response::new(v1::LeaveResponse::default()))
    }

    async fn decommission(
        &self,
        _: Request<v1::DecommissionRequest>,
    ) -> Result<Response<v1::DecommissionResponse>, Status> {
        Ok(Response::new(v1::DecommissionResponse::default()))
    }

    async fn replace(
        &self,
        _: Request<v1::ReplaceRequest>,
    ) -> Result<Response<v1::ReplaceResponse>, Status> {
        Ok(Response::new(v1::ReplaceResponse::default()))
    }

    async fn force(
        &self,
        _: Request<v1::ForceRequest>,
    ) -> Result<Response<v1::ForceResponse>, Status> {
        Ok(Response::new(v1::ForceResponse::default()))
    }

    async fn list_operations(
        &self,
        _: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        Ok(Response::new(v1::ListOperationsResponse::default()))
    }

    async fn cancel_operation(
        &self,
        _: Request<v1::CancelOperationRequest>,
    ) -> Result<Response<v1::CancelOperationResponse>, Status> {
        Ok(Response::new(v1::CancelOperationResponse::default()))
    }

    type WatchOperationStream = tokio_stream::Empty<Result<v1::WatchOperationResponse, Status>>;

    async fn watch_operation(
        &self,
        _: Request<v1::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }

    async fn get_readiness(
        &self,
        _: Request<v1::GetReadinessRequest>,
    ) -> Result<Response<v1::GetReadinessResponse>, Status> {
        let reasons = vec![self.address.to_string()];
        Ok(Response::new(v1::GetReadinessResponse { live: true, ready: true, reasons }))
    }
}
