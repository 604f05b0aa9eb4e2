//! The second attempt of an overwriting write: some replica held what the first had not covered (see
//! the head of `record.rs`).
//!
//! A put that was itself replaced meanwhile has no second attempt. It must not be acknowledged while
//! a value stands that it had to replace, and it must not remove that value itself: what is covered
//! without a new dot is deleted, and several puts that did that to each other would leave nothing. But
//! whoever replaced it was minted later, and meets all that was acknowledged before; as soon as that
//! one is acknowledged, nothing is left to be replaced. So a majority is looked at until it shows
//! that, and gets it stored.

use std::sync::Arc;

use triad_replica::context::Context;
use triad_replica::record::{Basis, Updated};

use super::error::RequestError;
use super::put::{Mint, may_mint_soon, mint, replicate};
use super::repeat::ask;
use super::{Outcome, Pauses, Write};
use crate::deadline::Deadline;
use crate::local::Minted;
use crate::node::Node;

/// Makes the second attempt over what the replicas reported (`uncovered`). The first is stored by
/// now, so whatever keeps this one from being made leaves the write in doubt, and it is not made
/// elsewhere: there it could replace what came after the first.
pub(super) async fn again(
    node: &Arc<Node>,
    write: &Write,
    (first, uncovered): (Updated, Context),
    outcome: Outcome,
    deadline: Deadline,
) -> Result<(Updated, Outcome), RequestError> {
    let basis = Basis::OverwriteAgain { first: first.clone(), uncovered: uncovered.clone() };
    let Ok(Mint::Here(configuration, minted)) = mint(node, write, basis, true, deadline).await
    else {
        return Err(outcome.in_doubt());
    };
    let Minted { record, updated, durable } = minted;
    if updated.dot.is_some() && updated.dot == first.dot {
        let settled = outlived(node, write, &first, &uncovered, deadline).await;
        return settled.map(|outcome| (first, outcome)).ok_or_else(|| outcome.in_doubt());
    }
    let (outcome, _) =
        replicate(node, write, configuration, record, &updated, Some(durable), deadline).await?;
    Ok((updated, outcome))
}

/// Acknowledges the put once nothing of `uncovered` stands at a majority any more. None if that did
/// not come about in time: the write is in doubt.
async fn outlived(
    node: &Arc<Node>,
    write: &Write,
    first: &Updated,
    uncovered: &Context,
    deadline: Deadline,
) -> Option<Outcome> {
    let mut pauses = Pauses::new();
    while !deadline.passed() {
        let configuration = node.directory.get(write.at.shard)?;
        if !may_mint_soon(node, &configuration) {
            return None;
        }
        // None: the epoch is over.
        let seen = ask(node, write, None, &configuration, deadline).await.ok()?;
        let merged = seen.map(|seen| {
            let mut merged = seen.merged;
            merged.settle();
            merged
        });
        if let Some(merged) = merged
            && first.dot.is_some_and(|dot| merged.context().covers(&dot))
            && !merged.siblings().keys().any(|dot| uncovered.covers(dot))
        {
            let stored = replicate(node, write, configuration, merged, first, None, deadline);
            return stored.await.ok().map(|(outcome, _)| outcome);
        }
        if !node.may_try_again() {
            return None;
        }
        pauses.pause(node, deadline).await;
    }
    None
}
