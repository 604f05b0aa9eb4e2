//! Collects tombstones, and prunes contexts, of the shards for which this node proposes.
//!
//! What makes that safe is in `triad_replica::gc`; here are only manners and pace. A round
//! needs every member, so it is begun when all are alive. It changes the shard's epoch, after
//! which requests under way begin anew, so a shard has one at most every [`ROUND_EVERY`],
//! unless it is full of tombstones. Where nothing was deleted, a look is all it costs.

mod notes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::debug;
use triad_proto::peer::v1 as wire;
use triad_replica::configuration::Configuration;
use triad_replica::gc::{GcDigest, ROUND_KEYS, Round, RoundStep, VouchReply, VouchRequest};
use triad_replica::member::Member;
use triad_ring::{NodeId, ShardId};

use self::notes::{Notes, Ripe};
use crate::liveness::Liveness;
use crate::moves::{self, Placement};
use crate::node::Node;
use crate::peers;

/// How often shards are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Rounds that this node runs at once.
const ROUNDS: usize = 32;
/// Keys of all of them together: their rows are read by every member's committer.
const KEYS: usize = 2 * ROUND_KEYS;
/// Pause between two rounds of one shard.
const ROUND_EVERY: Duration = Duration::from_secs(30);
/// The same, while a shard has more tombstones than one round takes.
const ROUND_EVERY_IF_MANY: Duration = Duration::from_secs(2);
/// Pause before a shard is looked at again that had nothing to collect yet.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a member may take to vouch for all rounds that it is asked about.
const PATIENCE: Duration = Duration::from_secs(5);

struct Collector {
    node: Arc<Node>,
    placement: Placement,
    notes: Notes,
    not_before: BTreeMap<ShardId, Duration>,
    /// The shard to begin with: all get their turn.
    next: u32,
}

struct Running {
    round: Round,
    ready: Option<GcDigest>,
}

/// Runs until the node stops.
pub(crate) async fn tombstone_gc_task(node: Arc<Node>) {
    let mut collector = Collector {
        placement: crate::service::peer::placement(&node),
        notes: Notes::default(),
        not_before: BTreeMap::new(),
        next: 0,
        node: Arc::clone(&node),
    };
    loop {
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(node.spread(TICK)) => {}
        }
        let rounds = collector.gather().await;
        if !rounds.is_empty() {
            run(&node, rounds).await;
        }
    }
}

impl Collector {
    /// The rounds to run now.
    async fn gather(&mut self) -> Vec<Running> {
        let count = self.node.cluster.shards.get();
        let (mut rounds, mut keys) = (Vec::new(), 0);
        for step in 0..count {
            let shard = ShardId::new((self.next + step) % count);
            if rounds.len() >= ROUNDS || keys + ROUND_KEYS > KEYS {
                self.next = shard.get();
                break;
            }
            if let Some(running) = self.consider(shard).await {
                keys += running.round.len();
                rounds.push(running);
            }
        }
        rounds
    }

    async fn consider(&mut self, shard: ShardId) -> Option<Running> {
        let garbage = self.node.local.garbage().of(shard);
        if garbage == 0 {
            self.notes.forget(shard);
            self.not_before.remove(&shard);
            return None;
        }
        let now = self.node.now();
        if self.not_before.get(&shard).is_some_and(|at| now < *at) {
            return None;
        }
        let Some(base) = self.proposes_for(shard) else {
            self.notes.forget(shard);
            return None;
        };
        let Ripe { garbage: candidates, next_after } = self.candidates(shard).await;
        let round = Round::new(&base, candidates);
        let pause = match &round {
            None => next_after.clamp(LOOK_EVERY, ROUND_EVERY),
            Some(_) if garbage > ROUND_KEYS as u64 => ROUND_EVERY_IF_MANY,
            Some(_) => ROUND_EVERY,
        };
        self.not_before.insert(shard, now + self.node.spread(pause));
        Some(Running { round: round?, ready: None })
    }

    /// The configuration, if this node is the one to propose and a round can succeed in it.
    fn proposes_for(&mut self, shard: ShardId) -> Option<Configuration> {
        let node = &self.node;
        let base = node.local.look(shard, |replica| {
            let quiet = replica.is_member() && !replica.is_fenced();
            replica.newest().filter(|known| quiet && known.may_collect()).cloned()
        })??;
        let alive = |member: &Member| node.liveness(member.node) == Liveness::Alive;
        let able = base.members().iter().all(alive) && !node.moves.is_moving(shard);
        let first = self.placement.in_ring_order(&base).first().copied();
        (able && first == Some(node.member())).then_some(base)
    }

    /// What has been garbage, unchanged, for long enough.
    async fn candidates(&mut self, shard: ShardId) -> Ripe {
        let (node, after) = (Arc::clone(&self.node), self.notes.cursor(shard));
        // It reads rows: not on a thread that others need.
        let work = node.platform.work();
        let looked = work.run(move || notes::look(&**node.local.store(), shard, after.as_ref()));
        let Ok(Ok(found)) = looked.await else {
            return Ripe::default(); // the store has failed, which others will tell
        };
        self.notes.take(shard, found, self.node.now())
    }
}

/// Runs rounds side by side: one message to each member for all of them, then the decisions.
async fn run(node: &Arc<Node>, mut rounds: Vec<Running>) {
    let mut asked: Vec<usize> = (0..rounds.len()).collect();
    while !asked.is_empty() {
        let again = ask_all(node, &mut rounds, &asked).await;
        asked = again;
    }
    let ready = rounds.into_iter().filter_map(|running| Some((running.round, running.ready?)));
    let decisions = ready.map(|(round, digest)| async move {
        let base = round.base().clone();
        let shard = base.shard;
        if !node.hints_promised(shard, base.epoch).await {
            debug!(%shard, "some node holds a record of this epoch for members, or does not answer");
            return;
        }
        if !moves::collect(node, base, digest).await {
            debug!(%shard, "a move has come before the collection of tombstones");
        }
    });
    futures::future::join_all(decisions).await;
}

/// Puts some rounds to all members. Those that have become shorter are to be put again.
async fn ask_all(node: &Arc<Node>, rounds: &mut [Running], asked: &[usize]) -> Vec<usize> {
    let mut by_member: BTreeMap<Member, Vec<usize>> = BTreeMap::new();
    for &index in asked {
        for member in rounds[index].round.members() {
            by_member.entry(*member).or_default().push(index);
        }
    }
    let questions = by_member.into_iter().map(|(member, indices)| {
        let requests = indices.iter().map(|index| rounds[*index].round.request()).collect();
        async move { (member, indices, ask(node, member, requests).await) }
    });
    let answers = futures::future::join_all(questions).await;
    let mut again = Vec::new();
    for (member, indices, replies) in answers {
        // Without an answer its rounds wait for ever, which is that they are over.
        for (index, reply) in indices.into_iter().zip(replies.into_iter().flatten()) {
            if let VouchReply::Refused { newest: Some(newest) } = &reply {
                moves::learn(node, newest).await;
            }
            let running = &mut rounds[index];
            match running.round.on_reply(member, reply) {
                RoundStep::Ready(digest) => running.ready = Some(digest),
                RoundStep::AskAgain => again.push(index),
                RoundStep::Wait => {}
                RoundStep::Over => {
                    debug!(shard = %running.round.base().shard, "tombstones are not alike on all members yet");
                }
            }
        }
    }
    again
}

/// One member's answers, in the order of the requests. None: they cannot be had, or come
/// from another store than the member's.
async fn ask(node: &Arc<Node>, to: Member, requests: Vec<VouchRequest>) -> Option<Vec<VouchReply>> {
    if to == node.member() {
        let vouches = requests.into_iter().map(|request| node.local.vouch(request));
        return futures::future::try_join_all(vouches).await.ok();
    }
    let wanted = requests.len();
    let request = wire::VouchRequest {
        hello: Some(node.hello()),
        rounds: requests.into_iter().map(Into::into).collect(),
    };
    let mut client = node.peers.bulk(to.node).await.ok()?;
    let Ok(Ok(response)) = tokio::time::timeout(PATIENCE, client.vouch(request)).await else {
        node.peers.forget_bulk(to.node).await;
        return None;
    };
    let response = response.into_inner();
    let same_store = response.stamp?.store_id.as_ref() == to.store.as_bytes();
    let replies: Vec<VouchReply> =
        response.vouches.into_iter().map(VouchReply::try_from).collect::<Result<_, _>>().ok()?;
    (same_store && replies.len() == wanted).then_some(replies)
}

/// Vouches for another node's rounds.
pub(crate) async fn vouch(
    node: &Arc<Node>,
    from: NodeId,
    request: wire::VouchRequest,
) -> Result<wire::VouchResponse, tonic::Status> {
    if request.rounds.len() > ROUNDS {
        let told = request.rounds.len();
        return Err(tonic::Status::invalid_argument(format!("{told} rounds, at most {ROUNDS}")));
    }
    let bad =
        |bad: triad_proto::convert::BadField| tonic::Status::invalid_argument(bad.to_string());
    let requests: Vec<VouchRequest> = request
        .rounds
        .into_iter()
        .map(VouchRequest::try_from)
        .collect::<Result<_, _>>()
        .map_err(bad)?;
    let vouches = requests.into_iter().map(|request| vouch_one(node, from, request));
    let vouches = futures::future::try_join_all(vouches).await?;
    let stamp = Some(peers::stamp(node));
    Ok(wire::VouchResponse { stamp, vouches: vouches.into_iter().map(Into::into).collect() })
}

async fn vouch_one(
    node: &Arc<Node>,
    from: NodeId,
    request: VouchRequest,
) -> Result<VouchReply, tonic::Status> {
    use crate::local::WriteError;
    let shard = request.base.shard;
    if !moves::acts_as_member(node, from, shard) {
        let newest = node.directory.get(shard).map(|known| (*known).clone());
        return Ok(VouchReply::Refused { newest }); // it would take the place of a member's round
    }
    match node.local.vouch(request).await {
        Ok(reply) => Ok(reply),
        Err(WriteError::Refused(_)) => {
            let newest = node.directory.get(shard).map(|known| (*known).clone());
            Ok(VouchReply::Refused { newest })
        }
        Err(error @ (WriteError::Store(_) | WriteError::Known(_))) => {
            Err(tonic::Status::unavailable(error.to_string()))
        }
    }
}
