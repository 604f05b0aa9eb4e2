//! Looks after this node's shards: proposes moves, goes on with abandoned ones, copies what
//! is to be copied, hands over what is to be handed over, and tells the directory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use triad_replica::configuration::{Configuration, Epoch, Phase};
use triad_replica::member::Member;
use triad_replica::message::{PullPurpose, Removal};
use triad_replica::shard::{PullPlan, ShardReplica};
use triad_replica::transfer::{Outcome, Plan};
use triad_ring::{NodeId, RingView, ShardId};

use super::drive::Aim;
use super::publish::{publish, publish_all, unknown_of_own};
use super::registry::{Work, Working};
use super::target::{Facts, Place, Placement, Presence, is_settled};
use super::{aside, copy, drive};
use crate::liveness::Liveness;
use crate::local::Milestone;
use crate::node::Node;

/// How often all shards are looked at, when nothing wakes placement earlier.
const TICK: Duration = Duration::from_millis(500);
/// Shortest pause between two looks.
const BREATH: Duration = Duration::from_millis(20);
/// Moves that one node drives at once: its movements are throttled.
const MOVES: usize = 48;
/// The same, before a list of former members is looked through: that waits for everything else.
const CLEARS: usize = 8;
/// Copies and hand-overs that one node makes at once.
const COPIES: usize = 64;
/// Hand-overs begun and not ended; most of them may be waiting for a member.
const DRAINS: usize = 1_024;
/// Silence after which a joint epoch is taken over; each later member in ring order waits
/// this much longer.
const TAKE_OVER: Duration = Duration::from_secs(4);
/// Silence after which an acceptance without decision is carried on.
const UNDECIDED: Duration = Duration::from_secs(1);
/// A learner's copy that nobody asked about for so long is given up: a move that waits for its newcomers asks all
/// the time, but it may have ended for want of one of them, and wait for its turn to begin again.
const LEARNER_PATIENCE: Duration = Duration::from_secs(90);
/// The same, when this node itself finds that the shard needs no newcomer.
const UNWANTED_PATIENCE: Duration = Duration::from_secs(3);
/// How often members tell the directory what they know.
const PUBLISH_EVERY: Duration = Duration::from_secs(30);
/// How often a keeper of the directory asks the others for what it does not know: after a restart
/// it is not ready before it knows.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Pause after a move that could not begin.
const RETRY: Duration = Duration::from_secs(2);
/// How long a shard has to be at rest before its list of former members is looked through, and
/// how long between two looks.
const REST: Duration = Duration::from_secs(3);
const CLEAR_EVERY: Duration = Duration::from_secs(10);
/// How long each member waits for those before it in ring order to propose what is needed.
const NEXT_TURN: Duration = Duration::from_secs(20);

/// What was seen of a shard, and since when.
struct Seen {
    epoch: Option<Epoch>,
    fenced: bool,
    since: Duration,
}

struct Keeper {
    node: Arc<Node>,
    placement: Placement,
    seen: BTreeMap<ShardId, Seen>,
    not_before: BTreeMap<ShardId, Duration>,
    /// When the list of former members was last looked through.
    cleared: BTreeMap<ShardId, Duration>,
    /// Since when a move has been wanted that is not this node's turn to propose.
    wanting: BTreeMap<ShardId, Duration>,
    facts: Facts,
    view: Arc<RingView>,
    /// What was last computed for each shard; good for one view and one epoch.
    targets: BTreeMap<ShardId, (Epoch, Option<Vec<Place>>)>,
    ring: Vec<NodeId>,
    quiet_since: Duration,
    published: Option<Duration>,
    publishing: Option<tokio::task::JoinHandle<()>>,
}

/// What a look at one shard found to do.
enum Task {
    Move(Configuration, Plan, Working),
    TakeOver(Configuration, Working),
    Copy(PullPlan, Working),
    Drain(Configuration, Working),
    Forget(Epoch),
    StopLearning,
}

/// Runs until the node stops.
pub(crate) async fn placement_task(node: Arc<Node>) {
    let cluster = &node.cluster;
    let placement = Placement::new(
        cluster.salt,
        cluster.virtual_nodes,
        cluster.shards,
        cluster.replication_factor as usize,
    );
    let mut keeper = Keeper {
        quiet_since: node.now(),
        node: Arc::clone(&node),
        placement,
        seen: BTreeMap::new(),
        not_before: BTreeMap::new(),
        cleared: BTreeMap::new(),
        wanting: BTreeMap::new(),
        facts: Facts::new(),
        view: node.ring.view(),
        targets: BTreeMap::new(),
        ring: Vec::new(),
        published: None,
        publishing: None,
    };
    loop {
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = node.moves.woken() => tokio::time::sleep(BREATH).await,
            () = tokio::time::sleep(node.spread(TICK)) => {}
        }
        keeper.look().await;
    }
}

impl Keeper {
    async fn look(&mut self) {
        self.watch_ring();
        self.watch_nodes();
        let node = Arc::clone(&self.node);
        let mut tasks = Vec::new();
        for shard in node.cluster.shards.iter() {
            let found = node.local.look(shard, |replica| self.look_at(replica));
            tasks.extend(found.flatten().map(|task| (shard, task)));
        }
        for (shard, task) in tasks {
            self.start(shard, task).await;
        }
        self.publish();
    }

    /// Proposals wait until the set of living ring members was quiet for a while.
    fn watch_ring(&mut self) {
        let view = self.node.ring.view();
        if !Arc::ptr_eq(&view, &self.view) {
            self.view = view;
            self.targets.clear();
        }
        let ring: Vec<NodeId> = self.view.nodes().into_iter().collect();
        if ring != self.ring {
            self.ring = ring;
            self.quiet_since = self.node.now();
            self.published = None;
        }
    }

    /// Targets depend on who is there with which store.
    fn watch_nodes(&mut self) {
        let facts = super::facts(&self.node);
        if facts != self.facts {
            self.facts = facts;
            self.targets.clear();
        }
    }

    fn is_quiet(&self) -> bool {
        let quiet = self.node.now().saturating_sub(self.quiet_since);
        quiet >= self.node.config.cluster.placement_settle
    }

    fn look_at(&mut self, replica: &ShardReplica) -> Option<Task> {
        let known = replica.newest()?;
        let shard = known.shard;
        let waited = self.watch(shard, Some(known.epoch), replica.is_fenced());
        if let Some(plan) = replica.pull_plan() {
            let learns = plan.purpose == PullPurpose::Learn;
            if learns && self.learns_in_vain(known) {
                return Some(Task::StopLearning);
            }
            // A learner's copy waits for nobody: members that must merge go first.
            let limit = if learns { COPIES / 2 } else { COPIES };
            if let Some(working) = Working::begin(&self.node, Work::Copy, shard, limit) {
                return Some(Task::Copy(plan, working));
            }
        }
        if let Some(configuration) = replica.must_drain_to() {
            let working = Working::begin(&self.node, Work::Drain, shard, DRAINS)?;
            return Some(Task::Drain(configuration.clone(), working));
        }
        if replica.is_leftover() {
            return Some(Task::Forget(known.epoch));
        }
        if !known.is_member(&self.node.member()) {
            return None;
        }
        if self.node.moves.is_moving(shard) {
            if self.needs_nobody(known) {
                self.node.moves.call_off(shard);
            }
            return None;
        }
        if known.is_joint() || replica.is_fenced() {
            return self.take_over(known, replica.is_fenced(), waited);
        }
        self.propose(known).or_else(|| self.clear(known, waited))
    }

    /// Whether nobody seems to wait for the copy that this node, which is no member and has promised nothing, makes.
    fn learns_in_vain(&mut self, known: &Configuration) -> bool {
        let unasked = self.node.moves.unasked_for(known.shard, self.node.now());
        unasked > UNWANTED_PATIENCE && (unasked > LEARNER_PATIENCE || self.needs_nobody(known))
    }

    /// Whether the members are the right ones for all that this node knows, and it has known that for a while.
    fn needs_nobody(&mut self, known: &Configuration) -> bool {
        let Phase::Stable { members } = &known.phase else {
            return false;
        };
        self.is_quiet() && self.target(known).is_some_and(|target| is_settled(members, &target))
    }

    /// For how long the shard has been as it is.
    fn watch(&mut self, shard: ShardId, epoch: Option<Epoch>, fenced: bool) -> Duration {
        let now = self.node.now();
        let seen = self.seen.entry(shard).or_insert(Seen { epoch, fenced, since: now });
        if seen.epoch != epoch || seen.fenced != fenced {
            *seen = Seen { epoch, fenced, since: now };
        }
        now.saturating_sub(seen.since)
    }

    /// A move that its driver seems to have left: the members wait their turn in ring order.
    fn take_over(&mut self, known: &Configuration, fenced: bool, waited: Duration) -> Option<Task> {
        let order = self.placement.in_ring_order(known);
        let me = self.node.member();
        let turn = order.iter().position(|member| *member == me).unwrap_or(order.len());
        let patience = if fenced { UNDECIDED } else { TAKE_OVER };
        let patience = patience * u32::try_from(turn + 1).unwrap_or(u32::MAX);
        if waited < self.node.spread(patience) {
            return None;
        }
        let working = Working::begin(&self.node, Work::Move, known.shard, 2 * MOVES)?;
        Some(Task::TakeOver(known.clone(), working))
    }

    /// The first member in ring order that is there proposes: manners, not leadership. What it does
    /// not propose for long, the next one does.
    fn propose(&mut self, known: &Configuration) -> Option<Task> {
        let shard = known.shard;
        if !self.is_quiet() || self.must_wait(shard) {
            return None;
        }
        let Phase::Stable { members } = &known.phase else {
            return None;
        };
        let target = self.target(known).filter(|target| !is_settled(members, target));
        let Some(target) = target else {
            self.wanting.remove(&shard);
            return None;
        };
        let now = self.node.now();
        let since = *self.wanting.entry(shard).or_insert(now);
        let turn = NEXT_TURN * self.turn(known)?;
        if now.saturating_sub(since) < turn {
            return None;
        }
        let plan = self.plan(known, &target)?;
        let working = Working::begin(&self.node, Work::Move, shard, MOVES)?;
        Some(Task::Move(known.clone(), plan, working))
    }

    /// Has a shard that is where it belongs decided anew without those former members that hold
    /// nothing any more, or never will hand it over.
    fn clear(&mut self, known: &Configuration, waited: Duration) -> Option<Task> {
        let shard = known.shard;
        let Phase::Stable { members } = &known.phase else {
            return None;
        };
        let rested = waited >= REST.max(self.node.config.cluster.placement_settle);
        let now = self.node.now();
        let lately = self.cleared.get(&shard).is_some_and(|at| now < *at + CLEAR_EVERY);
        let idle = !known.retired.is_empty() && rested && self.is_quiet() && !self.must_wait(shard);
        if lately || !idle || self.turn(known) != Some(0) {
            return None;
        }
        let plan = Plan {
            members: members.clone(),
            removals: Vec::new(),
            written_off: self.written_off(known),
        };
        let working = Working::begin(&self.node, Work::Move, shard, CLEARS)?;
        self.cleared.insert(shard, now);
        Some(Task::Move(known.clone(), plan, working))
    }

    fn must_wait(&self, shard: ShardId) -> bool {
        self.not_before.get(&shard).is_some_and(|until| self.node.now() < *until)
    }

    fn target(&mut self, known: &Configuration) -> Option<Vec<Place>> {
        match self.targets.get(&known.shard) {
            Some((epoch, target)) if *epoch == known.epoch => target.clone(),
            _ => {
                let target = self.placement.target(&self.view, known, &self.facts);
                self.targets.insert(known.shard, (known.epoch, target.clone()));
                target
            }
        }
    }

    /// How many members that are there stand before this one in ring order.
    fn turn(&mut self, known: &Configuration) -> Option<u32> {
        let order = self.placement.in_ring_order(known);
        let me = self.node.member();
        let there = |member: &&Member| {
            let alive = self.node.liveness(member.node) == Liveness::Alive;
            **member == me || (alive && self.node.shows_store(**member))
        };
        let turn = order.iter().filter(there).position(|member| *member == me)?;
        u32::try_from(turn).ok()
    }

    /// The plan that makes these places the members. None while a newcomer cannot be reached.
    fn plan(&self, known: &Configuration, target: &[Place]) -> Option<Plan> {
        let place = |place: &Place| match place {
            Place::Stays(member) => Some(*member),
            Place::Newcomer(node) => self.newcomer(*node),
        };
        let members: Vec<Member> = target.iter().map(place).collect::<Option<_>>()?;
        let gone = known.new_set().iter().filter(|member| !members.contains(member));
        let reason = |member: &Member| Presence::of(member, &self.facts).reason();
        let removals =
            gone.map(|member| Removal { member: *member, reason: reason(member) }).collect();
        Some(Plan { members, removals, written_off: self.written_off(known) })
    }

    /// Former members that will never hand over what they may hold.
    fn written_off(&self, known: &Configuration) -> Vec<Member> {
        let lost = |member: &&Member| {
            let gone = self.facts.get(&member.node).is_some_and(|facts| facts.gone);
            gone || matches!(
                Presence::of(member, &self.facts),
                Presence::LostStore | Presence::Dead
            )
        };
        known.retired.iter().filter(lost).copied().collect()
    }

    fn newcomer(&self, id: NodeId) -> Option<Member> {
        let alive = self.node.liveness(id) == Liveness::Alive;
        let contact = self.node.book.get(id).filter(|_| alive)?;
        Some(Member { node: id, store: contact.store })
    }

    async fn start(&mut self, shard: ShardId, task: Task) {
        let node = Arc::clone(&self.node);
        match task {
            Task::Move(base, plan, working) => {
                // A move that cannot begin is not tried again at once; one that ended well
                // leaves nothing to do.
                let until = self.not_before.entry(shard).or_default();
                *until = (*until).max(node.now() + RETRY);
                drop(self.node.tasks.spawn(run_move(node, base, Aim::Plan(plan), working)));
            }
            Task::TakeOver(base, working) => {
                drop(self.node.tasks.spawn(run_move(node, base, Aim::GoOn, working)));
            }
            Task::Copy(plan, working) => {
                drop(self.node.tasks.spawn(copy::pull(node, plan, working)));
            }
            Task::Drain(configuration, working) => {
                drop(self.node.tasks.spawn(copy::drain(node, configuration, working)));
            }
            Task::Forget(epoch) => {
                if aside::keep_aside(&node, shard).await.is_ok() {
                    drop(node.local.milestone(shard, Milestone::Purge(epoch)).await);
                }
            }
            Task::StopLearning => {
                // The copy is then a leftover, which the next look forgets.
                drop(node.local.milestone(shard, Milestone::StopLearning).await);
            }
        }
    }

    /// Tells the directory what this store is a member of: every 30 s, and when the ring has
    /// changed; more often as long as this node, a keeper of the directory, has gaps itself.
    fn publish(&mut self) {
        let now = self.node.now();
        let since = self.published.map(|at| now.saturating_sub(at));
        let due = since.is_none_or(|since| since >= PUBLISH_EVERY);
        let gaps = || since >= Some(ASK_EVERY) && unknown_of_own(&self.node) > 0;
        // One round at a time: to a keeper that hangs, each next one would only wait as well.
        let busy = self.publishing.as_ref().is_some_and(|round| !round.is_finished());
        if busy || !due && !gaps() {
            return;
        }
        self.published = Some(now);
        self.publishing = Some(self.node.tasks.spawn(publish_all(Arc::clone(&self.node))));
    }
}

pub(super) async fn run_move(node: Arc<Node>, base: Configuration, aim: Aim, working: Working) {
    let outcome = drive::drive_move(Arc::clone(&node), base, aim, working).await;
    if let Outcome::Settled(configuration) = outcome {
        super::learn(&node, &configuration).await;
        publish(&node, vec![configuration]).await;
    }
    node.moves.wake();
}
