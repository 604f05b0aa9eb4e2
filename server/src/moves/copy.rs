//! Copying a shard between stores: the copier's side, the former member's side, and pages.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use triad_proto::peer::v1 as wire;
use triad_replica::configuration::Configuration;
use triad_replica::hash_tree::HashTree;
use triad_replica::member::Member;
use triad_replica::message::{
    PageCursor, PullPurpose, PullReply, PullRequest, PulledRecord, Standing,
};
use triad_replica::shard::PullPlan;
use triad_replica::store::{Key, KeyRange};
use triad_replica::transfer::{
    CopyTiming, Drain, DrainInput, DrainOutput, Pull, PullInput, PullOutput,
};
use triad_ring::{RingId, ShardId};

use super::registry::Working;
use super::steps;
use crate::failpoint::Point;
use crate::liveness::Liveness;
use crate::local::{Adoption, Milestone, WriteError};
use crate::node::Node;
use crate::throttle;

/// How long one step of copying may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Shortest pause between two looks at a copy.
const BREATH: Duration = Duration::from_millis(10);
/// Longest sleep without a look whether the copy is still wanted.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Runs one copy until its plan is fulfilled or not the shard's plan any more.
pub(super) async fn pull(node: Arc<Node>, plan: PullPlan, _working: Working) {
    let shard = plan.shard;
    let mut machine = Pull::new(plan, CopyTiming::default(), node.now());
    let mut inputs = vec![PullInput::Tick];
    let mut outputs = Vec::new();
    loop {
        if !is_wanted(&node, machine.plan()) {
            return;
        }
        for input in inputs.drain(..) {
            machine.handle(input, node.now(), &mut outputs);
        }
        node.moves.note_difference(shard, machine.difference());
        let mut over = false;
        for output in outputs.drain(..) {
            match pull_step(&node, &machine, output).await {
                Ok(input) => inputs.extend(input),
                Err(Over) => over = true,
            }
        }
        if over {
            return; // placement begins the copy anew
        }
        if inputs.is_empty() {
            // Waking now and then shows a plan that has changed meanwhile.
            let wake = (node.started + machine.wake_at())
                .max(tokio::time::Instant::now() + BREATH)
                .min(tokio::time::Instant::now() + LOOK_AGAIN);
            tokio::time::sleep_until(wake).await;
            inputs.push(PullInput::Tick);
        }
    }
}

/// Whether a copy still follows the shard's plan.
fn is_wanted(node: &Node, plan: &PullPlan) -> bool {
    let still = node.local.look(plan.shard, |replica| replica.pull_plan().as_ref() == Some(plan));
    still == Some(true) && !node.stop.is_cancelled()
}

/// Waits for a learner's turn to fetch a page. What a shard waits for does not wait for others.
async fn turn_of<'a>(node: &'a Node, plan: &PullPlan) -> Result<Option<throttle::Page<'a>>, Over> {
    if plan.purpose != PullPurpose::Learn {
        return Ok(None);
    }
    // The plan may change meanwhile, to one that waits for nothing.
    let unwanted = async {
        while is_wanted(node, plan) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::select! {
        biased;
        page = node.throttle.page() => Ok(Some(page)),
        () = unwanted => Err(Over),
    }
}

async fn pull_step(
    node: &Arc<Node>,
    machine: &Pull,
    output: PullOutput,
) -> Result<Option<PullInput>, Over> {
    let plan = machine.plan();
    Ok(match output {
        PullOutput::Compare { with } => {
            let compared = compare(node, plan.shard, plan.epoch, with, plan.purpose).await;
            Some(match compared {
                Some((standing, differing)) => {
                    PullInput::Compared { from: with, standing, differing }
                }
                None => PullInput::Failed { from: with },
            })
        }
        PullOutput::Fetch { from, leaves, after } => {
            let turn = turn_of(node, plan).await?;
            let request = PullRequest::Page {
                shard: plan.shard,
                epoch: plan.epoch,
                leaves,
                after,
                max_bytes: node.throttle.page_bytes(),
            };
            let Some(PullReply::Page { records, data_epoch, next }) =
                call(node, from, request).await
            else {
                return Ok(Some(PullInput::Failed { from }));
            };
            let bytes = size_of(&records);
            match turn {
                Some(page) => page.moved(bytes),
                None => {
                    node.throttle.note(bytes);
                }
            }
            let pulled = Adoption::Pulled { source: data_epoch };
            let adopted = node.local.adopt(plan.shard, plan.epoch, pulled, records).await;
            Some(match adopted {
                Ok(()) => PullInput::Merged { from, next },
                Err(_) => PullInput::Failed { from },
            })
        }
        PullOutput::Complete { purpose: PullPurpose::Learn, .. } => None,
        PullOutput::Complete { epoch, .. } => {
            steps::at(node, Point::MoveMerge, plan.shard).await.map_err(|_| Over)?;
            let merged = node.local.milestone(plan.shard, Milestone::Merged(epoch)).await;
            merged.map_err(|_| Over)?;
            None
        }
    })
}

/// A copy is not wanted any more, or was completed and could not be written down: it counts for nothing.
struct Over;

/// Hands over what the members lack, then forgets the shard.
pub(super) async fn drain(node: Arc<Node>, configuration: Configuration, _working: Working) {
    let (shard, epoch) = (configuration.shard, configuration.epoch);
    let mut machine = Drain::new(configuration, CopyTiming::default(), node.now());
    let mut inputs = vec![DrainInput::Tick];
    let mut outputs = Vec::new();
    loop {
        let still = node.local.look(shard, |replica| {
            replica.must_drain_to().is_some_and(|current| current.epoch == epoch)
        });
        if still != Some(true) || node.stop.is_cancelled() {
            return;
        }
        for input in inputs.drain(..) {
            machine.handle(input, node.now(), &mut outputs);
        }
        for output in outputs.drain(..) {
            // Only while there is something to do: a hand-over to a member that is down would
            // keep others from theirs.
            let Some(_place) = node.moves.hand_over().await else {
                return;
            };
            match output {
                DrainOutput::Purge => {
                    if steps::at(&node, Point::MoveRetire, shard).await.is_err() {
                        return;
                    }
                    drop(node.local.milestone(shard, Milestone::Purge(epoch)).await);
                    return;
                }
                other => inputs.extend(drain_step(&node, shard, &machine, other).await),
            }
        }
        if inputs.is_empty() {
            let wake = (node.started + machine.wake_at())
                .max(tokio::time::Instant::now() + BREATH)
                .min(tokio::time::Instant::now() + Duration::from_millis(500));
            tokio::time::sleep_until(wake).await;
            inputs.push(DrainInput::Tick);
        }
    }
}

async fn drain_step(
    node: &Arc<Node>,
    shard: ShardId,
    machine: &Drain,
    output: DrainOutput,
) -> Option<DrainInput> {
    match output {
        DrainOutput::Compare { with } => {
            let compared = compare(node, shard, machine.epoch(), with, PullPurpose::Drain).await;
            Some(match compared {
                Some((standing, differing)) => {
                    DrainInput::Compared { from: with, standing, differing }
                }
                None => DrainInput::Failed { from: with },
            })
        }
        DrainOutput::Push { to, leaves, after } => {
            let turn = tokio::select! {
                biased;
                () = node.stop.cancelled() => return None,
                page = node.throttle.page() => page,
            };
            let most = node.throttle.page_bytes();
            let Ok((records, next)) = page(node, shard, &leaves, after, most) else {
                return Some(DrainInput::Failed { from: to });
            };
            let bytes = size_of(&records);
            let request =
                PullRequest::Push { shard, epoch: machine.epoch(), from: node.member(), records };
            Some(match call(node, to, request).await {
                Some(PullReply::Pushed) => {
                    turn.moved(bytes);
                    DrainInput::Pushed { to, next }
                }
                _ => DrainInput::Failed { from: to },
            })
        }
        DrainOutput::Purge => None,
    }
}

/// What the throttle counts of a page.
fn size_of(records: &[PulledRecord]) -> u64 {
    records.iter().map(|row| (row.bucket.len() + row.key.len() + row.record.len()) as u64).sum()
}

/// Compares a member's tree with ours: where it stood, and the leaves that differ.
async fn compare(
    node: &Arc<Node>,
    shard: ShardId,
    epoch: triad_replica::configuration::Epoch,
    with: Member,
    purpose: PullPurpose,
) -> Option<(Standing, Vec<u8>)> {
    let (_, own) = node.local.tree(shard).await.ok()?;
    let tree = PullRequest::Tree { shard, epoch, root: u128::from_be_bytes(own.root().0), purpose };
    match call(node, with, tree).await? {
        PullReply::Tree { standing, same: true, .. } => Some((standing, Vec::new())),
        PullReply::Tree { standing, leaves, .. } => {
            Some((standing, own.diff(&HashTree::from_leaves(leaves)?)))
        }
        _ => None,
    }
}

/// One bulk call to a member. None: no answer that can be used.
pub(crate) async fn call(node: &Arc<Node>, to: Member, request: PullRequest) -> Option<PullReply> {
    // One that is down would cost the dial's patience each time.
    if !node.shows_store(to) || node.liveness(to.node) == Liveness::Down {
        return None;
    }
    let mut client = node.peers.bulk(to.node).await.ok()?;
    let mut request = wire::PullRequest::from(request);
    request.hello = Some(node.hello());
    if let Ok(Ok(response)) = tokio::time::timeout(PATIENCE, client.pull(request)).await {
        let reply = PullReply::try_from(response.into_inner()).ok()?;
        if let PullReply::Refused { newest: Some(newest) } = &reply {
            super::learn(node, newest).await;
        }
        Some(reply)
    } else {
        node.peers.forget_bulk(to.node).await;
        None
    }
}

/// A page of the shard's records in some leaves: at least one record, then as many as fit.
/// A damaged row is an error: a store that cannot show all it has is no source.
pub(crate) fn page(
    node: &Node,
    shard: ShardId,
    leaves: &[u8],
    after: Option<PageCursor>,
    max_bytes: u32,
) -> Result<(Vec<PulledRecord>, Option<PageCursor>), WriteError> {
    let mut wanted = [false; triad_replica::hash_tree::LEAVES];
    leaves.iter().for_each(|leaf| wanted[usize::from(*leaf)] = true);
    let mut page = Page { records: Vec::new(), bytes: 0, full: false };
    let after = after.map(|cursor| cursor.0);
    let mut last = after.clone();
    let scanned = node.local.store().scan(
        &KeyRange::shard_records(shard),
        after.as_deref(),
        &mut |row, value| {
            let Some(Key::Record { bucket, key, .. }) = Key::decode(row) else {
                return ControlFlow::Continue(());
            };
            let leaf = HashTree::leaf_of(RingId::of_key(bucket, key), node.cluster.shards);
            if wanted[usize::from(leaf)] && !page.add(bucket, key, value, max_bytes as usize) {
                return ControlFlow::Break(());
            }
            last = Some(Bytes::copy_from_slice(row));
            ControlFlow::Continue(())
        },
    );
    scanned.inspect_err(|error| node.local.damage().unreadable(error))?;
    Ok((page.records, last.filter(|_| page.full).map(PageCursor)))
}

struct Page {
    records: Vec<PulledRecord>,
    bytes: usize,
    full: bool,
}

impl Page {
    /// False when the record has to wait for the next page.
    fn add(&mut self, bucket: &str, key: &[u8], record: Bytes, max_bytes: usize) -> bool {
        let size = bucket.len() + key.len() + record.len();
        if !self.records.is_empty() && self.bytes + size > max_bytes {
            self.full = true;
            return false;
        }
        self.bytes += size;
        self.records.push(PulledRecord {
            bucket: bucket.to_owned(),
            key: Bytes::copy_from_slice(key),
            record,
        });
        true
    }
}
