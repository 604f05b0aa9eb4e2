//! Anti-entropy: compares this store's shards with the other members', and mends what differs.
//!
//! What is compared and how it is narrowed down is in [`triad_replica::anti_entropy`]; here are
//! the rounds. Of two nodes the one with the lower id begins, once in `repair.interval`, with
//! one question for all shards that both are members of; if nothing differs, that was all.
//! A round comes sooner when a member is back or a shard has changed hands. Nothing of a round
//! must be remembered for the next: what was mended does not differ any more, so one that was
//! cut short, by whatever, is gone on with.

mod mend;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{debug, warn};
use triad_proto::peer::v1 as wire;
use triad_replica::anti_entropy::{Differing, ShardRoot, differing_shards, digest};
use triad_replica::configuration::{Epoch, Phase};
use triad_replica::member::Member;
use triad_replica::shard::{Access, ShardReplica};
use triad_ring::{NodeId, ShardId};

use crate::liveness::Liveness;
use crate::local::Pace;
use crate::node::Node;
use crate::peers;
use schedule::Schedule;

/// How often it is looked whether a round is due.
const TICK: Duration = Duration::from_millis(500);
/// Shards compared by one question.
const WINDOW: u32 = 1_024;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Every tree is built anew, as a check, about once in this time.
const CHECK_ROUND: Duration = Duration::from_hours(6);

/// What anti-entropy has found and done here.
#[derive(Default)]
pub(crate) struct AntiEntropy {
    /// Shards that differed from these members when last compared.
    different: Mutex<BTreeMap<ShardId, BTreeSet<NodeId>>>,
    /// Records merged, here or at the other member, because they differed.
    mended: AtomicU64,
}

impl AntiEntropy {
    /// Shards of which two members' trees differed when last compared from here.
    pub(crate) fn different(&self) -> Vec<ShardId> {
        self.with(|different| different.keys().copied().collect())
    }

    fn mended(&self, records: u64) {
        self.mended.fetch_add(records, Ordering::Relaxed);
    }

    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<ShardId, BTreeSet<NodeId>>) -> T) -> T {
        look(&mut self.different.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, shard: ShardId, with: NodeId, differs: bool) {
        self.with(|different| {
            if differs {
                different.entry(shard).or_default().insert(with);
            } else if let Some(nodes) = different.get_mut(&shard) {
                nodes.remove(&with);
                if nodes.is_empty() {
                    different.remove(&shard);
                }
            }
        });
    }

    /// Forgets what was found with members that are none any more.
    fn keep_only(&self, shared: &BTreeMap<Member, Vec<(ShardId, Epoch)>>) {
        let still = |shard: ShardId, node: NodeId| {
            shared.iter().any(|(member, shards)| {
                member.node == node && shards.binary_search_by_key(&shard, |it| it.0).is_ok()
            })
        };
        self.with(|different| {
            different.retain(|shard, nodes| {
                nodes.retain(|node| still(*shard, *node));
                !nodes.is_empty()
            });
        });
    }
}

/// How a comparison with another member ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Compared {
    /// All of it, and what differed was mended.
    Whole,
    /// Something could not be compared, or not mended, now.
    InPart,
}

/// Runs until the node stops.
pub(crate) async fn anti_entropy_task(node: Arc<Node>) {
    if node.config.repair.interval.is_zero() {
        return;
    }
    let mut schedule = Schedule::new(node.me(), node.config.repair.interval);
    let mut checks = Checks { next: None, at: node.now() };
    loop {
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(node.spread(TICK)) => {}
        }
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = look(&node, &mut schedule, &mut checks) => {}
        }
    }
}

async fn look(node: &Arc<Node>, schedule: &mut Schedule, checks: &mut Checks) {
    let shared = shared(node);
    node.anti_entropy.keep_only(&shared);
    let alive = |member: &Member| node.liveness(member.node) == Liveness::Alive;
    let peers = shared.iter().map(|(member, shards)| (*member, alive(member), shards));
    for with in schedule.due(peers, node.now()) {
        let compared = round(node, with).await;
        let whole = compared == Compared::Whole;
        schedule.done(with, whole, node.now() + node.spread(schedule.rest(whole)));
    }
    checks.look(node, &shared).await;
}

/// Whether this store may be compared with others in a shard: a merged member of a stable
/// configuration that serves. Who copies anyway is no measure of anything.
fn comparable(replica: &ShardReplica) -> Option<(Epoch, &[Member])> {
    let known = replica.newest()?;
    let merged = replica.entered().is_some_and(|row| row.merged);
    replica.check(Access::Read, known.epoch).ok().filter(|()| merged)?;
    match &known.phase {
        Phase::Stable { members } => Some((known.epoch, members)),
        Phase::Joint { .. } => None,
    }
}

/// Whether this store may be compared in that epoch.
pub(crate) fn may_compare(node: &Node, shard: ShardId, epoch: Epoch) -> bool {
    let serves = |replica: &ShardReplica| comparable(replica).is_some_and(|(at, _)| at == epoch);
    node.local.look(shard, serves) == Some(true)
}

/// With whom this store shares which shards, in their order.
fn shared(node: &Node) -> BTreeMap<Member, Vec<(ShardId, Epoch)>> {
    let me = node.member();
    let mut shared: BTreeMap<Member, Vec<(ShardId, Epoch)>> = BTreeMap::new();
    node.local.each_shard(|replica| {
        let Some((epoch, members)) = comparable(replica) else {
            return;
        };
        let Some(shard) = replica.newest().map(|known| known.shard) else {
            return;
        };
        for member in members.iter().filter(|member| **member != me) {
            shared.entry(*member).or_default().push((shard, epoch));
        }
    });
    shared
}

/// This store's roots of the shards in a range that it shares with another, and the shards of
/// which there is no tree yet.
async fn roots(
    node: &Arc<Node>,
    with: Member,
    range: std::ops::Range<u32>,
) -> (Vec<ShardRoot>, Vec<ShardId>) {
    let shards: Vec<(ShardId, Epoch)> = shared(node)
        .remove(&with)
        .unwrap_or_default()
        .into_iter()
        .filter(|(shard, _)| range.contains(&shard.get()))
        .collect();
    let numbers: Vec<ShardId> = shards.iter().map(|(shard, _)| *shard).collect();
    let at = Arc::clone(node);
    // Waits for the committer's group, and may hash: not on a thread that others need.
    let looked = node.platform.work().run(move || at.local.roots(&numbers)).await;
    let (mut known, mut missing) = (Vec::new(), Vec::new());
    for ((shard, epoch), root) in shards.into_iter().zip(looked.unwrap_or_default()) {
        match root {
            Some(root) => known.push(ShardRoot { shard, epoch, root }),
            None => missing.push(shard),
        }
    }
    (known, missing)
}

/// Answers another member's question.
pub(crate) async fn answer(
    node: &Arc<Node>,
    from: Member,
    request: &wire::CompareTreesRequest,
) -> wire::CompareTreesResponse {
    let (roots, _) = roots(node, from, request.first..request.end).await;
    let same = digest(&roots).to_be_bytes().as_slice() == request.digest.as_ref();
    let roots = if same { Vec::new() } else { roots.into_iter().map(Into::into).collect() };
    wire::CompareTreesResponse { stamp: Some(peers::stamp(node)), same, roots }
}

/// Compares all that this store shares with another, and mends what differs.
async fn round(node: &Arc<Node>, with: Member) -> Compared {
    let mut whole = Compared::Whole;
    let count = node.cluster.shards.get();
    for first in (0..count).step_by(WINDOW as usize) {
        let range = first..first.saturating_add(WINDOW).min(count);
        whole = whole.max(window(node, with, range).await);
    }
    whole
}

async fn window(node: &Arc<Node>, with: Member, range: std::ops::Range<u32>) -> Compared {
    let (mut own, missing) = roots(node, with, range.clone()).await;
    if !missing.is_empty() {
        for shard in missing {
            if let Err(error) = node.local.build_tree(shard, Pace::Gently).await {
                debug!(%shard, %error, "its hash tree could not be built");
            }
        }
        own = roots(node, with, range.clone()).await.0;
    }
    let Some(reply) = ask(node, with, &range, digest(&own)).await else {
        return Compared::InPart;
    };
    let theirs: Vec<ShardRoot> =
        reply.roots.into_iter().filter_map(|root| ShardRoot::try_from(root).ok()).collect();
    let found = if reply.same { Differing::default() } else { differing_shards(&own, &theirs) };
    for root in &own {
        let differs = found.different.iter().any(|other| other.shard == root.shard);
        if !differs && !found.unknown.contains(&root.shard) {
            node.anti_entropy.note(root.shard, with.node, false);
        }
    }
    let mended = mend::mend(node, with, found.different).await;
    if found.unknown.is_empty() { mended } else { Compared::InPart }
}

async fn ask(
    node: &Arc<Node>,
    with: Member,
    range: &std::ops::Range<u32>,
    digest: u128,
) -> Option<wire::CompareTreesResponse> {
    if !node.shows_store(with) {
        return None;
    }
    let mut client = node.peers.bulk(with.node).await.ok()?;
    let request = wire::CompareTreesRequest {
        hello: Some(node.hello()),
        first: range.start,
        end: range.end,
        digest: digest.to_be_bytes().to_vec().into(),
    };
    let asked = tokio::time::timeout(PATIENCE, client.compare_trees(request)).await;
    if let Ok(Ok(response)) = asked {
        return Some(response.into_inner());
    }
    node.peers.forget_bulk(with.node).await;
    None
}

/// The slow check of every tree.
struct Checks {
    next: Option<ShardId>,
    at: Duration,
}

impl Checks {
    async fn look(&mut self, node: &Arc<Node>, shared: &BTreeMap<Member, Vec<(ShardId, Epoch)>>) {
        if node.now() < self.at {
            return;
        }
        let shards: BTreeSet<ShardId> =
            shared.values().flatten().map(|(shard, _)| *shard).collect();
        let every = CHECK_ROUND / u32::try_from(shards.len().max(1)).unwrap_or(u32::MAX);
        self.at = node.now() + node.spread(every.max(TICK));
        let after = shards.iter().find(|shard| self.next.is_none_or(|next| **shard >= next));
        let Some(&shard) = after.or(shards.first()) else {
            return;
        };
        self.next = Some(ShardId::new(shard.get().saturating_add(1)));
        match node.local.check_tree(shard).await {
            Ok(check) if check.damaged => {
                warn!(%shard, "a stored row cannot be read; it is told from the other members'");
            }
            Ok(check) if check.differed => {
                warn!(%shard, "the hash tree was not what the rows say, and was replaced");
            }
            Ok(_) => {}
            Err(error) => debug!(%shard, %error, "its hash tree could not be checked"),
        }
    }
}
