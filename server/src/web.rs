//! The operators' HTTP socket: is this process alive, is it ready, which version is it?
//!
//! | path | answer |
//! | --- | --- |
//! | `GET /livez` | 200, or 503 when the process should be restarted: `{"live":true}` |
//! | `GET /readyz` | 200, or 503 with reasons: `{"ready":false,"reasons":["…"]}` |
//! | `GET /version` | `{"name":"triad","version":"…"}` |
//!
//! Whoever reaches this socket can hold only bounded resources: connections, header size, body size and every wait
//! have a limit. Bytes that are not HTTP end their own connection and nothing else.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::{Service, service_fn};

/// Connections at once; probes and scrapers need a handful. The next one waits in the listen queue.
const CONNECTIONS_MAX: usize = 128;
/// A client that has not sent its headers by then is cut off; also how long an idle connection is kept.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(5);
/// A whole request, answer included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Read buffer of a connection, and so the largest head of a request: hyper's least is 8 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// No path takes a body.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// How long a connection may go on after the shutdown began.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// Pause after a failed accept (out of file descriptors, usually), instead of a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the probes ask a node. Called for each request: must not block.
pub trait Health: Send + Sync + 'static {
    /// Whether this process works. `false` asks the supervisor to restart it.
    fn live(&self) -> bool;

    /// Whether this node can serve clients.
    ///
    /// # Errors
    /// Why not: sentences for people, at least one.
    fn ready(&self) -> Result<(), Vec<String>>;
}

/// Serves the admin socket until `shutdown`, then ends the open connections within 2 s and returns.
/// Besides the paths above it serves what is in `more`.
pub async fn serve<H: Health>(
    listener: TcpListener,
    health: Arc<H>,
    more: Router,
    shutdown: CancellationToken,
) {
    let router = router(health).merge(more);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, slot)) = accepted else {
            continue;
        };
        let (router, shutdown) = (router.clone(), shutdown.clone());
        connections.spawn(async move {
            connection(stream, router, shutdown).await;
            drop(slot);
        });
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, ended).await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        Err(error) => {
            tracing::warn!(%error, "the admin socket cannot accept");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    #[cfg(feature = "testing")]
    let Some(stream) = crate::testing::serve_http2(stream, &router, &shutdown).await else {
        return;
    };
    let service =
        service_fn(move |request: Request<hyper::body::Incoming>| answer(router.clone(), request));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(serving);
    let result = tokio::select! {
        biased;
        result = &mut serving => result,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

async fn answer(
    mut router: Router,
    request: Request<hyper::body::Incoming>,
) -> Result<Response, Infallible> {
    match tokio::time::timeout(REQUEST_TIMEOUT, router.call(request)).await {
        Ok(answer) => answer,
        Err(_) => Ok(StatusCode::REQUEST_TIMEOUT.into_response()),
    }
}

fn router<H: Health>(health: Arc<H>) -> Router {
    Router::new()
        .route("/livez", get(livez::<H>))
        .route("/readyz", get(readyz::<H>))
        .route("/version", get(version))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(health)
}

async fn livez<H: Health>(State(health): State<Arc<H>>) -> Response {
    let live = health.live();
    (code(live), Json(json!({ "live": live }))).into_response()
}

async fn readyz<H: Health>(State(health): State<Arc<H>>) -> Response {
    let reasons = health.ready().err().unwrap_or_default();
    let ready = reasons.is_empty();
    (code(ready), Json(json!({ "ready": ready, "reasons": reasons }))).into_response()
}

async fn version() -> Response {
    Json(json!({ "name": "triad", "version": env!("CARGO_PKG_VERSION") })).into_response()
}

fn code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use serde_json::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::*;

    struct Node {
        live: bool,
        reasons: Mutex<Vec<String>>,
    }

    impl Health for Node {
        fn live(&self) -> bool {
            self.live
        }

        fn ready(&self) -> Result<(), Vec<String>> {
            let reasons = self.reasons.lock().unwrap().clone();
            if reasons.is_empty() { Ok(()) } else { Err(reasons) }
        }
    }

    struct Running {
        address: SocketAddr,
        node: Arc<Node>,
        shutdown: CancellationToken,
        task: JoinHandle<()>,
    }

    async fn start(live: bool) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let node = Arc::new(Node { live, reasons: Mutex::default() });
        let task = tokio::spawn(serve(listener, node.clone(), Router::new(), shutdown.clone()));
        Running { address, node, shutdown, task }
    }

    /// Sends bytes and reads until the other side closes.
    async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn fetch(address: SocketAddr, path: &str) -> (u16, Value) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: triad\r\nconnection: close\r\n\r\n");
        let answer = exchange(address, request.as_bytes()).await;
        let code = answer
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("{answer:?}"));
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (code, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    #[tokio::test]
    async fn a_node_that_is_not_ready_says_why_and_changes_its_mind_by_itself() {
        let running = start(true).await;
        running.node.reasons.lock().unwrap().push("waiting for seed node2:7421".into());
        let expected = json!({ "ready": false, "reasons": ["waiting for seed node2:7421"] });
        assert_eq!(fetch(running.address, "/readyz").await, (503, expected));
        assert_eq!(fetch(running.address, "/livez").await, (200, json!({ "live": true })));
        running.node.reasons.lock().unwrap().clear();
        assert_eq!(
            fetch(running.address, "/readyz").await,
            (200, json!({ "ready": true, "reasons": [] }))
        );
    }

    #[tokio::test]
    async fn a_node_that_should_be_restarted_answers_503() {
        let running = start(false).await;
        assert_eq!(fetch(running.address, "/livez").await, (503, json!({ "live": false })));
        let (code, version) = fetch(running.address, "/version").await;
        assert_eq!((code, version["version"].as_str()), (200, Some(env!("CARGO_PKG_VERSION"))));
        assert_eq!(fetch(running.address, "/nothing").await.0, 404);
    }

    #[tokio::test]
    async fn garbage_and_endless_headers_end_their_own_connection_only() {
        let running = start(true).await;
        let garbage: Vec<u8> = (0..100_000_u32).map(|n| (n * 7 % 251) as u8).collect();
        exchange(running.address, &garbage).await;
        let mut endless = b"GET /livez HTTP/1.1\r\n".to_vec();
        endless.extend(b"x-filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(4000));
        assert!(!exchange(running.address, &endless).await.contains(" 200 "));
        exchange(running.address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        assert_eq!(fetch(running.address, "/livez").await.0, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn silent_connections_are_cut_off_so_that_probes_get_through() {
        let running = start(true).await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(running.address).await.unwrap());
        }
        assert_eq!(fetch(running.address, "/readyz").await.0, 200);
    }

    #[tokio::test]
    async fn the_end_does_not_wait_for_those_who_only_listen() {
        let running = start(true).await;
        let idle = TcpStream::connect(running.address).await.unwrap();
        assert_eq!(fetch(running.address, "/livez").await.0, 200);
        running.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), running.task)
            .await
            .expect("ends by itself")
            .unwrap();
        assert!(TcpStream::connect(running.address).await.is_err());
        drop(idle);
    }
}
