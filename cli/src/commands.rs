//! The commands: each asks one thing of the cluster, or runs nodes, and prints what came of it.

mod cluster;
mod config;
mod data;
mod dev;
mod operations;
mod server;
mod wait;

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use triad_client::Client;

use crate::args::{Cli, Command, Common, NodeCommand};
use crate::exit::{Exit, Failure};
use crate::output::Console;

/// Runs the command to its end.
pub(crate) fn run(cli: Cli, console: Console) -> Result<Exit, Failure> {
    let common = &cli.common;
    match cli.command {
        Command::Config(command) => config::run(&command, console),
        Command::Server(args) => server::run(&args, console),
        Command::Dev(args) => nodes_runtime()?.block_on(dev::run(&args, common, console)),
        asking => asking_runtime()?.block_on(ask(&asking, common, console)),
    }
}

/// The commands that only talk to running nodes.
async fn ask(command: &Command, common: &Common, console: Console) -> Result<Exit, Failure> {
    match command {
        Command::Put(args) => data::put(args, common, console).await,
        Command::Get(args) => data::get(args, common, console).await,
        Command::Del(args) => data::del(args, common, console).await,
        Command::Where(args) => cluster::location(args, common, console).await,
        Command::Status => cluster::status(common, console).await,
        Command::Wait(args) => wait::run(args, common, console).await,
        Command::Ring(args) => cluster::ring(args, common, console).await,
        Command::Node(NodeCommand::Ls) => cluster::nodes(common, console).await,
        Command::Node(NodeCommand::Bootstrap { force }) => {
            cluster::bootstrap(*force, common, console).await
        }
        Command::Node(change) => operations::change(change, common, console).await,
        Command::Op(command) => operations::op(command, common, console).await,
        Command::Force(args) => operations::force(args, common, console).await,
        Command::Health => cluster::health(common, console).await,
        Command::Dev(_) | Command::Server(_) | Command::Config(_) => {
            unreachable!("run() keeps the commands that do not ask a node")
        }
    }
}

/// One thread is enough to ask, and starts fastest.
fn asking_runtime() -> Result<Runtime, Failure> {
    runtime(&mut Builder::new_current_thread())
}

/// Nodes use all cores.
fn nodes_runtime() -> Result<Runtime, Failure> {
    runtime(&mut Builder::new_multi_thread())
}

fn runtime(builder: &mut Builder) -> Result<Runtime, Failure> {
    let built = builder.enable_all().build();
    built.map_err(|error| Failure::local(format!("cannot start the runtime: {error}")))
}

/// A client of the endpoints asked for. Nothing is sent yet.
fn client(endpoints: Vec<String>, deadline: Duration) -> Result<Client, Failure> {
    let builder = Client::builder().endpoints(endpoints).deadline(deadline);
    Ok(builder.connect_lazy()?)
}
