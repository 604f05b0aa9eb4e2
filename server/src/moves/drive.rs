//! Runs the machines: their ticks, their messages, their ends.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{debug, info};
use triad_replica::configuration::Configuration;
use triad_replica::gc::GcDigest;
use triad_replica::transfer::{Moment, Move, MoveInput, MoveOutput, MoveTiming, Outcome, Plan};

use super::registry::Working;
use super::steps;
use crate::failpoint::{Role, hit_as};
use crate::node::Node;

/// Replies of one move that may wait.
const REPLIES: usize = 256;

/// What a move is for.
pub(super) enum Aim {
    /// Other members.
    Plan(Plan),
    /// To go on with what somebody else left.
    GoOn,
    /// The end of a round of tombstone collection.
    Collect(GcDigest),
}

/// Drives one move to its end.
pub(super) async fn drive_move(
    node: Arc<Node>,
    base: Configuration,
    aim: Aim,
    _working: Working,
) -> Outcome {
    let shard = base.shard;
    let serial = node.moves.next_serial();
    let (me, timing, now) = (node.me(), MoveTiming::default(), node.now());
    let mut machine = match aim {
        Aim::Plan(plan) => Move::start(me, serial, base, plan, timing, now),
        Aim::GoOn => Move::take_over(me, serial, base, timing, now),
        Aim::Collect(digest) => Move::collect(me, serial, base, digest, timing, now),
    };
    let (replies, mut inbox) = mpsc::channel(REPLIES);
    let mut outputs = Vec::new();
    let outcome = 'running: loop {
        let input = tokio::select! {
            biased;
            () = node.stop.cancelled() => break Outcome::Undecided(machine.configuration().clone()),
            Some(input) = inbox.recv() => input,
            () = tokio::time::sleep_until(node.started + machine.wake_at()) => {
                if node.moves.is_called_off(shard) { MoveInput::Unwanted } else { MoveInput::Tick }
            }
        };
        if let Some(point) = steps::of_input(&input)
            && hit_as(point, || Some(Role::Proposer)).await.is_err()
        {
            continue;
        }
        let moment = Moment { now: node.now(), jitter: node.random_below(256) as u8 };
        machine.handle(input, moment, &mut outputs);
        for output in outputs.drain(..) {
            if let Some(point) = steps::of_output(&output)
                && hit_as(point, || Some(Role::Proposer)).await.is_err()
            {
                continue;
            }
            match output {
                MoveOutput::Send { to, request } => {
                    let (node, replies) = (Arc::clone(&node), replies.clone());
                    let tasks = node.tasks.clone();
                    tasks.spawn(async move {
                        if let Some(reply) = super::ask(&node, to, request).await {
                            // A move that has ended needs no more replies.
                            let _ = replies.send(MoveInput::Reply { from: to, reply }).await;
                        }
                    });
                }
                MoveOutput::Finished(outcome) => break 'running outcome,
            }
        }
    };
    report(&outcome, shard);
    outcome
}

fn report(outcome: &Outcome, shard: triad_ring::ShardId) {
    match outcome {
        Outcome::Settled(configuration) => {
            debug!(%shard, epoch = %configuration.epoch, "move ended");
        }
        Outcome::NotStarted(why) => info!(%shard, %why, "move not begun"),
        Outcome::Undecided(configuration) => {
            info!(%shard, epoch = %configuration.epoch, "no majority answered: the move goes on later");
        }
    }
}
