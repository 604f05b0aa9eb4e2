//! What a write leaves behind: courtesy hints for members that have not stored it.
//!
//! A client is answered as soon as its level is reached. The answers that are still out are
//! followed here, and whoever has not stored the record by the end is noted, so that the
//! handoff brings it when the member is back. A note for one that has it after all does no
//! harm: its delivery changes nothing.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use triad_replica::address::Address;
use triad_replica::configuration::Configuration;
use triad_replica::member::Member;
use triad_replica::put::PutAnswer;

use crate::deadline::Deadline;
use crate::node::Node;

/// One member's answer: what the tally counts, and a newer configuration if it told one.
pub(super) type Answer = (Member, PutAnswer, Option<Configuration>);
/// The answers to one attempt that are still out.
pub(super) type Answers = FuturesUnordered<BoxFuture<'static, Answer>>;

/// How long answers are followed that nobody waits for, at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// Follows the answers of `missing`, members that had not stored a write when it was answered.
pub(super) fn follow(
    node: &Arc<Node>,
    at: &Address,
    mut missing: Vec<Member>,
    mut answers: Answers,
    deadline: Deadline,
) {
    missing.retain(|member| *member != node.member());
    if missing.is_empty() {
        return;
    }
    let place = node.hints.follow();
    let (node, at) = (Arc::clone(node), at.clone());
    let tasks = node.tasks.clone();
    tasks.spawn(async move {
        let end = deadline.at().min(Instant::now() + PATIENCE);
        // With too many to follow, all of them are noted at once.
        while place.is_some() && !missing.is_empty() {
            match tokio::time::timeout_at(end, answers.next()).await {
                Ok(Some((member, PutAnswer::Stored { .. }, _))) => {
                    missing.retain(|other| *other != member);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        node.hints.note(&node.local, &at, &missing, node.clock.now_ms()).await;
    });
}
