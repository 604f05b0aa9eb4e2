//! `dev`: a whole cluster in this process, in a second, and nothing of it left behind.

mod demo;
mod plan;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tempfile::TempDir;
use triad_server::config::{LogFormat, Telemetry};
use triad_server::{Server, ServerHandle, telemetry};

use self::plan::{Address, NodePlan};
use super::server::stop_signal;
use super::wait;
use crate::args::{Common, DevArgs, WaitArgs};
use crate::exit::{Exit, Failure};
use crate::output::{self, Console};

/// How long the nodes may take to find each other and spread the shards, unless `--timeout` says otherwise: seconds
/// on a quick machine, but a laptop on battery may start 32 nodes.
const START_TIMEOUT: Duration = Duration::from_mins(2);

/// What `-o json` prints when the cluster is there.
#[derive(Serialize)]
struct Report<'a> {
    nodes: Vec<Address>,
    data_dir: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    demo: Option<demo::Shown>,
}

/// Where the data is: a folder of the caller's, or one that goes with this value.
enum Home {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Home {
    fn new(wanted: Option<&Path>) -> Result<Self, Failure> {
        let made = match wanted {
            Some(path) => std::fs::create_dir_all(path).map(|()| Self::Kept(path.to_owned())),
            None => tempfile::Builder::new().prefix("triad-dev-").tempdir().map(Self::Temporary),
        };
        made.map_err(|error| Failure::local(format!("cannot make the data folder: {error}")))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

pub(super) async fn run(
    args: &DevArgs,
    common: &Common,
    console: Console,
) -> Result<Exit, Failure> {
    let stop = stop_signal()?;
    let home = Home::new(args.data_dir.as_deref())?;
    let plans = plan::nodes(args, home.path())?;
    let logs = Telemetry { log_format: LogFormat::Text, log_level: args.log_level.clone() };
    telemetry::init(&logs).map_err(|error| Failure::usage(error.to_string()))?;
    let mut running = Vec::new();
    let result = tokio::select! {
        result = session(args, common, console, &plans, &home, &mut running) => result,
        () = stop => Ok(()),
    };
    end(running).await;
    result.map(|()| Exit::Ok)
}

/// From the first node's start to the moment when the cluster is no longer wanted, or one of its nodes ends by
/// itself.
async fn session(
    args: &DevArgs,
    common: &Common,
    console: Console,
    plans: &[NodePlan],
    home: &Home,
    running: &mut Vec<ServerHandle>,
) -> Result<(), Failure> {
    if !console.is_json() {
        output::talk(&format!("starting {} nodes …", plans.len()));
    }
    for plan in plans {
        let started = Server::start(plan.config.clone(), None).await;
        let failed =
            |error| Failure::local(format!("{} does not start: {error}", plan.address.node));
        running.push(started.map_err(|error| failed(error.to_string()))?);
    }
    let endpoints: Vec<String> = plans.iter().map(|plan| plan.address.client.clone()).collect();
    let all = WaitArgs { nodes: Some(args.nodes.into()), settled: true, ready: true };
    tokio::select! {
        settled = wait::until(&all, endpoints.clone(), common.timeout_or(START_TIMEOUT)) => settled?,
        closed = first_closed(running) => return Err(closed),
    }
    present(args, console, plans, home, &endpoints).await?;
    if args.exit {
        return Ok(());
    }
    Err(first_closed(running).await)
}

/// Says what is there and, if wanted, shows it at work.
async fn present(
    args: &DevArgs,
    console: Console,
    plans: &[NodePlan],
    home: &Home,
    endpoints: &[String],
) -> Result<(), Failure> {
    let wants_demo =
        args.demo || (!console.is_json() && std::io::IsTerminal::is_terminal(&std::io::stdout()));
    if !console.is_json() {
        output::data(introduction(plans, home, args).as_bytes())?;
    }
    let shown = if wants_demo { Some(demo::run(endpoints).await?) } else { None };
    let text = shown.as_ref().map_or_else(String::new, |shown| shown.text().to_owned());
    let nodes = plans.iter().map(|plan| plan.address.clone()).collect();
    console.result(&Report { nodes, data_dir: home.path(), demo: shown }, || text)
}

fn introduction(plans: &[NodePlan], home: &Home, args: &DevArgs) -> String {
    use std::fmt::Write as _;
    let mut text = match home {
        Home::Kept(path) => {
            format!("{} nodes are ready, data in {}\n\n", plans.len(), path.display())
        }
        Home::Temporary(_) => {
            format!("{} nodes are ready; their data goes when they end\n\n", plans.len())
        }
    };
    for NodePlan { address, .. } in plans {
        let Address { node, client, peer, admin } = address;
        let _ = writeln!(text, "  {node:<6}  clients {client}  peers {peer}  admin http://{admin}");
    }
    let endpoint = if args.port == 7420 {
        String::new()
    } else {
        format!("--endpoints localhost:{} ", args.port)
    };
    let _ =
        write!(text, "\ntry: triad {endpoint}put greeting hello && triad {endpoint}get greeting\n");
    if !args.exit {
        text.push_str("Ctrl-C ends the cluster\n");
    }
    text
}

/// Waits until a node ends by itself, and tells which and why.
async fn first_closed(running: &[ServerHandle]) -> Failure {
    let closing = running.iter().map(|handle| Box::pin(handle.closed()));
    let (reason, index, _) = futures::future::select_all(closing).await;
    Failure::local(format!("{} stopped: {reason}", running[index].name()))
}

/// Ends all nodes at once, so that none waits for another that has already gone.
async fn end(running: Vec<ServerHandle>) {
    futures::future::join_all(running.into_iter().map(ServerHandle::shutdown)).await;
}
