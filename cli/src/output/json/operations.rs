//! `op`, `force`, and what changes the members.

use serde::Serialize;
use triad_proto::v1;

use super::{epoch, operation_state};

/// `op ls`.
#[derive(Serialize)]
pub(crate) struct OperationList<'a> {
    operations: Vec<Operation<'a>>,
}

/// What began, was taken back, or has ended.
#[derive(Serialize)]
pub(crate) struct Begun<'a> {
    operation: Operation<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    movement: Option<Movement>,
}

#[derive(Serialize)]
struct Operation<'a> {
    id: &'a str,
    kind: &'a str,
    state: String,
    percent: f64,
    eta_ms: Option<u64>,
    moved_bytes: u64,
    error: &'a str,
}

#[derive(Serialize)]
struct Movement {
    shards: u32,
    bytes: u64,
    nodes_left: u32,
    under_replicated: bool,
}

impl<'a> Operation<'a> {
    fn of(operation: &'a v1::Operation) -> Self {
        let eta = operation.eta.and_then(|eta| std::time::Duration::try_from(eta).ok());
        Self {
            id: &operation.id,
            kind: &operation.kind,
            state: operation_state(operation.state()),
            percent: operation.percent,
            eta_ms: eta.map(|eta| u64::try_from(eta.as_millis()).unwrap_or(u64::MAX)),
            moved_bytes: operation.moved_bytes,
            error: &operation.error,
        }
    }
}

pub(crate) fn operations(operations: &[v1::Operation]) -> OperationList<'_> {
    OperationList { operations: operations.iter().map(Operation::of).collect() }
}

pub(crate) fn begun<'a>(
    operation: &'a v1::Operation,
    movement: Option<&v1::Movement>,
) -> Begun<'a> {
    let movement = movement.map(|movement| Movement {
        shards: movement.shards,
        bytes: movement.bytes,
        nodes_left: movement.nodes_left,
        under_replicated: movement.under_replicated,
    });
    Begun { operation: Operation::of(operation), movement }
}

/// `force`.
#[derive(Serialize)]
pub(crate) struct Forced<'a> {
    shards: Vec<ForcedShard<'a>>,
}

#[derive(Serialize)]
struct ForcedShard<'a> {
    shard: u32,
    before: String,
    after: String,
    survivors: &'a [String],
    lost: &'a [String],
    emptied: bool,
}

pub(crate) fn forced(response: &v1::ForceResponse) -> Forced<'_> {
    Forced { shards: response.shards.iter().map(ForcedShard::of).collect() }
}

impl<'a> ForcedShard<'a> {
    fn of(forced: &'a v1::ForcedShard) -> Self {
        Self {
            shard: forced.shard,
            before: epoch(forced.before.as_ref()),
            after: epoch(forced.after.as_ref()),
            survivors: &forced.survivors,
            lost: &forced.lost,
            emptied: forced.emptied,
        }
    }
}
