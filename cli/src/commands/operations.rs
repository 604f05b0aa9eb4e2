//! `node leave|decommission|replace|join`, `op`, `force`: who belongs to the cluster.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::Code;
use triad_client::Client;
use triad_proto::v1;
use triad_proto::v1::OperationState;

use crate::args::{Common, ForceArgs, NodeCommand, OpCommand};
use crate::exit::{Exit, Failure};
use crate::output::{self, Console, json, text};

/// A change is durable on several nodes before it is answered.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long an operation is watched unless told otherwise: it may move all of a node's data.
const WATCH_TIMEOUT: Duration = Duration::from_hours(24);
/// Pause between two looks at an operation.
const LOOK: Duration = Duration::from_millis(500);

/// What began, and what it moves.
type Begun = (Option<v1::Operation>, Option<v1::Movement>);

pub(super) async fn change(
    command: &NodeCommand,
    common: &Common,
    console: Console,
) -> Result<Exit, Failure> {
    let endpoints = common.endpoints();
    let client = super::client(endpoints.clone(), common.timeout_or(TIMEOUT))?;
    let begun: Begun = match command {
        NodeCommand::Leave { dry_run } => {
            let answer = client.cluster().at(&endpoints[0])?.leave(*dry_run).await?;
            (answer.operation, answer.movement)
        }
        NodeCommand::Decommission { node, dry_run, allow_under_replicated } => {
            let request = v1::DecommissionRequest {
                node: node.clone(),
                validate_only: *dry_run,
                allow_under_replicated: *allow_under_replicated,
            };
            let answer = client.cluster().decommission(request).await?;
            (answer.operation, answer.movement)
        }
        NodeCommand::Replace { node, dry_run } => {
            let answer = client.cluster().replace(node, *dry_run).await?;
            (answer.operation, answer.movement)
        }
        NodeCommand::Join { seeds } => {
            let answer = client.cluster().at(&endpoints[0])?.join(seeds.clone()).await?;
            (answer.operation, None)
        }
        NodeCommand::Ls | NodeCommand::Bootstrap { .. } => {
            unreachable!("ask() keeps the commands that change nothing")
        }
    };
    let (operation, movement) = (begun.0.unwrap_or_default(), begun.1);
    console.result(&json::begun(&operation, movement.as_ref()), || {
        text::begun(&operation, movement.as_ref())
    })?;
    Ok(Exit::Ok)
}

pub(super) async fn op(
    command: &OpCommand,
    common: &Common,
    console: Console,
) -> Result<Exit, Failure> {
    let client = super::client(common.endpoints(), common.timeout_or(TIMEOUT))?;
    match command {
        OpCommand::Ls => {
            let operations = client.cluster().list_operations().await?;
            console.result(&json::operations(&operations), || text::operations(&operations))?;
            Ok(Exit::Ok)
        }
        OpCommand::Watch { id } => {
            watch(&client, id, common.timeout_or(WATCH_TIMEOUT), console).await
        }
        OpCommand::Cancel { id } => {
            let cancelled = client.cluster().cancel_operation(id).await?;
            let operation = cancelled.operation.unwrap_or_default();
            console.result(&json::begun(&operation, None), || text::begun(&operation, None))?;
            Ok(Exit::Ok)
        }
    }
}

/// Asks again and again, whoever answers: the node that was asked first may be the one that leaves.
async fn watch(
    client: &Client,
    id: &str,
    patience: Duration,
    console: Console,
) -> Result<Exit, Failure> {
    let deadline = Instant::now() + patience;
    let mut told = String::new();
    loop {
        let operations = client.cluster().deadline(TIMEOUT).list_operations().await?;
        let Some(operation) = operations.into_iter().find(|operation| operation.id == id) else {
            let message = format!("operation `{id}` is not known: `triad op ls` lists them");
            return Err(Failure::new(Exit::NotFound, Code::NotFound, message));
        };
        if operation.state() != OperationState::Running {
            console.result(&json::begun(&operation, None), || text::begun(&operation, None))?;
            return Ok(match operation.state() {
                OperationState::Failed => Exit::Error,
                OperationState::Cancelled => Exit::ConditionFailed,
                _ => Exit::Ok,
            });
        }
        let now = text::begun(&operation, None);
        if !console.is_json() && now != told {
            output::talk(&now);
            told = now;
        }
        if Instant::now() + LOOK >= deadline {
            let patience = humantime::format_duration(patience);
            let message = format!("operation {id} has not ended within {patience}: it goes on");
            return Err(Failure::new(Exit::Deadline, Code::DeadlineExceeded, message));
        }
        sleep(LOOK).await;
    }
}

pub(super) async fn force(
    args: &ForceArgs,
    common: &Common,
    console: Console,
) -> Result<Exit, Failure> {
    if !args.yes && !args.dry_run {
        return Err(Failure::usage(
            "what only the lost stores held is given up for ever: look with --dry-run, then say --yes",
        ));
    }
    let client = super::client(common.endpoints(), common.timeout_or(TIMEOUT))?;
    let request = v1::ForceRequest {
        shards: args.shards.clone(),
        all_frozen: args.all_frozen,
        accept_loss: args.yes,
        validate_only: args.dry_run,
    };
    let forced = client.cluster().force(request).await?;
    console.result(&json::forced(&forced), || text::forced(&forced))?;
    Ok(Exit::Ok)
}
