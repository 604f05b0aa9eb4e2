//! `server`: one node, until it is told to end or cannot go on.

use triad_server::config::Config;
use triad_server::{Server, telemetry};

use super::{config, nodes_runtime};
use crate::args::ServerArgs;
use crate::exit::{Exit, Failure};
use crate::output::Console;

pub(super) fn run(args: &ServerArgs, console: Console) -> Result<Exit, Failure> {
    if args.check {
        config::check(&args.settings, console)?;
        return Ok(Exit::Ok);
    }
    let config = config::load(&args.settings)?.config;
    telemetry::init(&config.telemetry).map_err(|error| Failure::local(error.to_string()))?;
    nodes_runtime()?.block_on(serve(config))
}

/// Starts in one process at most: each has set a lost store aside.
const STARTS_MAX: usize = 8;

/// Runs the node. SIGTERM or SIGINT ends it politely: exit 0. A node whose store is lost starts anew at once, with
/// an empty one; one that ends by itself for another reason has failed and says why.
async fn serve(config: Config) -> Result<Exit, Failure> {
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let mut starts = 0;
    loop {
        starts += 1;
        let starting = Server::start(config.clone(), None);
        let server = tokio::select! {
            started = starting => started.map_err(|error| Failure::local(error.to_string()))?,
            () = &mut stop => return Ok(Exit::Ok),
        };
        let reason = tokio::select! {
            () = &mut stop => {
                tracing::info!("asked to stop: finishing what is at work");
                server.shutdown().await;
                return Ok(Exit::Ok);
            }
            reason = server.closed() => reason,
        };
        if !server.wants_new_start() || starts == STARTS_MAX {
            return Err(Failure::local(format!("the node stopped: {reason}")));
        }
        tracing::warn!(%reason, "starting anew");
        server.shutdown().await;
    }
}

/// Resolves at the first SIGTERM or SIGINT. Both are taken over at once, so none is lost between the call and the
/// await.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| {
        signal(kind).map_err(|error| Failure::local(format!("cannot listen for signals: {error}")))
    };
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
