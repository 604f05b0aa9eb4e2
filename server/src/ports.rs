//! The gRPC ports: what is served where, and within which bounds.

mod connections;
mod stream;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::util::MapResponseLayer;
use tracing::{debug, error};
use triad_proto::peer::v1::peer_service_server::PeerServiceServer;
use triad_proto::v1::cluster_service_server::ClusterServiceServer;
use triad_proto::v1::kv_service_server::KvServiceServer;

pub(crate) use connections::Standing;
use connections::{Connection, Places};
use stream::Stream as PortStream;

use crate::host::Host;
use crate::peers::MESSAGE_BYTES;
use crate::platform::Accepted;
use crate::service::cluster::Clusters;
use crate::service::kv::Keys;
use crate::service::peer::PeerPort;
use crate::web::Health;

/// Requests that were given up before this node looked at them, for each that a connection may have open. One more
/// is taken for an attack (CVE-2023-44487) and closes the connection, with all that is under way on it. Clients of a
/// node that is behind give up many at once when their deadlines pass: closing their connections then turns
/// slowness into failures, and writes into writes in doubt.
const RESETS: u32 = 4;
/// Requests, for each that a connection may have open, that a connection may give up so late that more of them
/// arrives. The transport never forgets them: without a bound of our own, a connection would end with the 1,024th
/// deadline that passes on it, however long ago the others were.
const LATE_RESETS: u32 = 256;
/// Largest request of a client. A value over `limits.value_bytes` but under this gets our own error.
const REQUEST_BYTES: usize = 8 << 20;
/// Largest reply: all siblings of a key.
const REPLY_BYTES: usize = 64 << 20;
/// Streams of one peer's connection: two long ones and its rare calls.
const PEER_STREAMS: u32 = 256;
/// Header lists are small.
const HEADER_BYTES: u32 = 16 << 10;
/// Pings on client connections: a network that was cut says no goodbye.
const CLIENT_KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
const PEER_KEEPALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(2));
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often health follows readiness.
const HEALTH_EVERY: Duration = Duration::from_millis(100);
/// How long a port may take to end its connections before they are cut.
const CLOSE: Duration = Duration::from_millis(500);

/// Where connections come in.
pub enum Listener {
    /// At a socket of the operating system.
    Tcp(TcpListener),
    /// From a network that is not the operating system's.
    Other(Accepted),
}

impl Listener {
    /// The socket, if it is one.
    pub(crate) fn tcp(&self) -> Option<&TcpListener> {
        match self {
            Self::Tcp(listener) => Some(listener),
            Self::Other(_) => None,
        }
    }
}

/// A port that is served.
pub(crate) struct Port {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Port {
    /// Accepts nothing more, ends the connections, cuts those that do not end.
    pub(crate) async fn close(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(CLOSE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

fn builder(streams: u32, (every, timeout): (Duration, Duration)) -> Server {
    Server::builder()
        .max_concurrent_streams(streams)
        .http2_keepalive_interval(Some(every))
        .http2_keepalive_timeout(Some(timeout))
        .http2_max_header_list_size(HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(streams.saturating_mul(RESETS) as usize))
        .http2_max_local_error_reset_streams(Some(streams.saturating_mul(LATE_RESETS) as usize))
        .max_frame_size(1 << 20)
}

/// Serves clients: keys, the cluster, health, reflection.
pub(crate) fn serve_clients(host: &Arc<Host>, listener: Listener, tasks: &TaskTracker) -> Port {
    let (reporter, health) = tonic_health::server::health_reporter();
    let stop = CancellationToken::new();
    tasks.spawn(follow_readiness(Arc::clone(host), reporter, stop.clone()));
    let keys = KvServiceServer::new(Keys::new(Arc::clone(host)))
        .max_decoding_message_size(REQUEST_BYTES)
        .max_encoding_message_size(REPLY_BYTES);
    let clusters = ClusterServiceServer::new(Clusters::new(Arc::clone(host)))
        .max_decoding_message_size(REQUEST_BYTES)
        .max_encoding_message_size(REPLY_BYTES);
    let mut router = builder(host.config.limits.streams, CLIENT_KEEPALIVE)
        .layer(MapResponseLayer::new(|response| name_malformed(response, REQUEST_BYTES)))
        .add_service(health)
        .add_service(keys)
        .add_service(clusters);
    match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => router = router.add_service(v1).add_service(v1alpha),
        (Err(error), _) | (_, Err(error)) => {
            error!(%error, "no reflection: the descriptors do not fit");
        }
    }
    let incoming = counted(listener, host.config.limits.connections);
    let stopped = stop.clone().cancelled_owned();
    serve("client", stop, router.serve_with_incoming_shutdown(incoming, stopped))
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(triad_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// Serves other nodes.
pub(crate) fn serve_peers(host: &Arc<Host>, listener: Listener) -> Port {
    let peers = PeerServiceServer::new(PeerPort::new(Arc::clone(host)))
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let router = builder(PEER_STREAMS, PEER_KEEPALIVE)
        .layer(MapResponseLayer::new(|response| name_malformed(response, MESSAGE_BYTES)))
        .add_service(peers);
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    serve("peer", stop, router.serve_with_incoming_shutdown(incoming(listener), stopped))
}

/// Connections as they come. Small answers must not wait for the acknowledgement of the packet
/// before; and when none can be accepted (out of file descriptors, usually), a pause keeps the
/// port from spinning.
fn incoming(listener: Listener) -> BoxStream<'static, std::io::Result<PortStream>> {
    let listener = match listener {
        Listener::Tcp(listener) => listener,
        Listener::Other(accepted) => {
            return accepted.map(|stream| stream.map(PortStream::Other)).boxed();
        }
    };
    let accepted = TcpIncoming::from(listener).with_nodelay(Some(true)).then(|accepted| async {
        if accepted.is_err() {
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        accepted.map(PortStream::Tcp)
    });
    accepted.boxed()
}

/// The same, at most so many at once and a few that are told that they are too many.
fn counted(
    listener: Listener,
    connections: u32,
) -> impl Stream<Item = std::io::Result<Connection>> {
    let places = Places::new(connections);
    incoming(listener).filter_map(move |accepted| {
        let seated = accepted.map(|stream| places.seat(stream)).transpose();
        if seated.is_none() {
            debug!(
                limit = connections,
                "a connection was closed: there are limits.connections and more"
            );
        }
        std::future::ready(seated)
    })
}

fn serve(
    port: &'static str,
    stop: CancellationToken,
    serving: impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static,
) -> Port {
    let task = tokio::spawn(async move {
        if let Err(error) = serving.await {
            error!(port, %error, "the port has failed");
        }
    });
    Port { stop, task }
}

/// A message that is too large or not protobuf at all is the caller's mistake and is answered as
/// one; the library below answers before any of our code has seen it.
fn name_malformed<B: Default>(response: http::Response<B>, limit: usize) -> http::Response<B> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let too_large = status.message().contains("message length too large");
    let garbage = status.message().contains("failed to decode Protobuf message");
    if !status.details().is_empty() || !(too_large || garbage) {
        return response;
    }
    let (reason, message) = if too_large {
        let message = format!(
            "the request is larger than the {limit} bytes that a message may have ({})",
            status.message()
        );
        ("VALUE_TOO_LARGE", message)
    } else {
        (
            "BAD_MESSAGE",
            format!("the request is not the message of this method: {}", status.message()),
        )
    };
    let mut metadata = HashMap::from([("field".to_owned(), "message".to_owned())]);
    if too_large {
        metadata.insert("limit".to_owned(), limit.to_string());
    }
    let details = ErrorDetails::with_error_info(reason, "triad", metadata);
    Status::with_error_details(Code::InvalidArgument, message, details).into_http()
}

/// Keeps `grpc.health.v1` in step: "" and the services when ready, `liveness` always.
async fn follow_readiness(
    host: Arc<Host>,
    reporter: tonic_health::server::HealthReporter,
    stop: CancellationToken,
) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    reporter.set_service_status("liveness", Serving).await;
    let mut last = None;
    while !stop.is_cancelled() {
        let ready = host.ready().is_ok();
        if last != Some(ready) {
            let status = if ready { Serving } else { NotServing };
            for service in ["", "triad.v1.KvService", "triad.v1.ClusterService"] {
                reporter.set_service_status(service, status).await;
            }
            last = Some(ready);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(HEALTH_EVERY) => {}
        }
    }
}

/// What others may call this machine: its name, else the loopback address.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "127.0.0.1".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// Frame types of HTTP/2 (RFC 9113, section 6).
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// So many requests on one connection, each given up at once, and a ping after them. Answers whether the ping
    /// was answered: otherwise the connection was closed.
    async fn survives(streams: u32, given_up: u32) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_, health) = tonic_health::server::health_reporter();
        let router = builder(streams, PEER_KEEPALIVE).add_service(health);
        let server = tokio::spawn(router.serve_with_incoming(incoming(Listener::Tcp(listener))));
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        sent.extend(frame(4, 0, 0, &[]));
        // POST, http, a path and an authority of one letter, by RFC 7541.
        let head = [0x83, 0x86, 0x04, 1, b'/', 0x01, 1, b'a'];
        for stream in (0..given_up).map(|n| 2 * n + 1) {
            sent.extend(frame(HEADERS, 4, stream, &head));
            sent.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
        sent.extend(frame(PING, 0, 0, &[7; 8]));
        // A server that has closed the connection need not read to the end, nor be heard saying so.
        let answered = match client.write_all(&sent).await {
            Ok(()) => ping_is_answered(&mut client).await.unwrap_or(false),
            Err(_) => false,
        };
        server.abort();
        answered
    }

    async fn ping_is_answered(client: &mut TcpStream) -> std::io::Result<bool> {
        loop {
            let mut head = [0; 9];
            client.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            client.read_exact(&mut vec![0; length as usize]).await?;
            match (head[3], head[4]) {
                (GOAWAY, _) => return Ok(false),
                (PING, 1) => return Ok(true),
                _ => {}
            }
        }
    }

    #[tokio::test]
    async fn clients_may_give_up_all_that_they_have_open_and_not_without_end() {
        assert!(survives(256, 256).await);
        assert!(survives(256, 900).await, "others have taken the places meanwhile");
        assert!(!survives(256, 5_000).await);
    }
}
