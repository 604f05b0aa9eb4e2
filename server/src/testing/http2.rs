//! HTTP/2 beside HTTP/1 on the admin socket, because the test service speaks gRPC.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// How every HTTP/2 connection begins, and nothing else does.
const BEGINNING: &[u8] = b"PRI";
/// How long a client may take to begin, and to answer a ping.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves a connection that begins as HTTP/2 does; any other is given back, with all it has sent.
pub(crate) async fn serve(
    stream: TcpStream,
    router: &Router,
    shutdown: &CancellationToken,
) -> Option<TcpStream> {
    let mut beginning = [0; BEGINNING.len()];
    let peeked = tokio::time::timeout(PATIENCE, stream.peek(&mut beginning)).await;
    if !matches!(peeked, Ok(Ok(_))) || beginning != BEGINNING {
        return Some(stream);
    }
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(PATIENCE))
        .keep_alive_timeout(PATIENCE);
    let service = TowerToHyperService::new(router.clone());
    let serving = builder.serve_connection(TokioIo::new(stream), service);
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
    None
}
