//! A node of a cluster: the parts that requests use, built once and shared.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use triad_proto::peer::v1 as wire;
use triad_replica::member::Member;
use triad_ring::NodeId;

use crate::alarms::Alarms;
use crate::background::anti_entropy::AntiEntropy;
use crate::book::Book;
use crate::clock::Clock;
use crate::config::Config;
use crate::coordinator::{Repairs, Room};
use crate::directory::Directory;
use crate::door::Door;
use crate::hints::Hints;
use crate::identity::{ClusterIdentity, NodeIdentity};
use crate::liveness::{Detector, Liveness};
use crate::local::LocalReplica;
use crate::losses::Losses;
use crate::moves::Registry;
use crate::operations::Operations;
use crate::peers::{self, Peers};
use crate::platform::Platform;
use crate::random::Jitter;
use crate::retry_budget::RetryBudget;
use crate::ring_task::RingHandle;
use crate::starts::Starts;
use crate::throttle::Throttle;

/// Everything a running node consists of.
pub(crate) struct Node {
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) identity: NodeIdentity,
    pub(crate) cluster: ClusterIdentity,
    pub(crate) config: Arc<Config>,
    pub(crate) book: Arc<Book>,
    pub(crate) directory: Directory,
    pub(crate) local: LocalReplica,
    pub(crate) peers: Arc<Peers>,
    pub(crate) ring: RingHandle,
    pub(crate) moves: Registry,
    pub(crate) repairs: Repairs,
    pub(crate) operations: Arc<Operations>,
    /// All background copies of this node go through it.
    pub(crate) throttle: Throttle,
    pub(crate) anti_entropy: AntiEntropy,
    pub(crate) beliefs: Arc<RwLock<Detector>>,
    pub(crate) jitter: Mutex<Jitter>,
    pub(crate) door: Door,
    /// What trying again is paid from.
    pub(crate) retries: RetryBudget,
    pub(crate) room: Room,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) losses: Arc<Losses>,
    pub(crate) starts: Arc<Starts>,
    pub(crate) hints: Arc<Hints>,
    pub(crate) started: Instant,
    pub(crate) clock: Clock,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Node {
    /// This node.
    pub(crate) fn me(&self) -> NodeId {
        self.identity.node
    }

    /// This node with its store.
    pub(crate) fn member(&self) -> Member {
        self.identity.member()
    }

    /// How this process introduces itself to others.
    pub(crate) fn hello(&self) -> wire::Hello {
        peers::hello(&self.identity, Some(self.cluster.id), self.local.commits())
    }

    /// Whether this member's node shows the store that votes: one that lost it, or whose contact is
    /// not known, counts for nothing.
    pub(crate) fn shows_store(&self, member: Member) -> bool {
        self.book.get(member.node).is_some_and(|contact| contact.store == member.store)
    }

    /// Time since the start, the clock of everything that takes time as an input.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// What is believed of a node.
    pub(crate) fn liveness(&self, node: NodeId) -> Liveness {
        if node == self.me() {
            return Liveness::Alive;
        }
        self.beliefs.read().unwrap_or_else(PoisonError::into_inner).liveness(node)
    }

    /// How long nothing has been heard of a node, by any road. Counted from this process's start at the
    /// earliest; zero for this node and for one that is not watched.
    pub(crate) fn silent_for(&self, node: NodeId) -> Duration {
        let now = self.now();
        self.beliefs.read().unwrap_or_else(PoisonError::into_inner).silent_for(node, now)
    }

    /// Whether a node has been down for longer than `cluster.down_after`.
    pub(crate) fn is_down_for_good(&self, node: NodeId) -> bool {
        self.liveness(node) == Liveness::Down
            && self.silent_for(node) >= self.config.cluster.down_after
    }

    /// The smoothed round trip to a node; None before its first answer.
    pub(crate) fn rtt(&self, node: NodeId) -> Option<Duration> {
        self.beliefs.read().unwrap_or_else(PoisonError::into_inner).round_trip(node)
    }

    /// Nodes in the order in which to ask them: this one, then the living, then the suspected, the
    /// dead last; within these, as given.
    pub(crate) fn by_liveness(&self, nodes: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
        let mut ordered: Vec<NodeId> = nodes.collect();
        ordered.sort_by_key(|node| (*node != self.me(), self.liveness(*node)));
        ordered
    }

    /// Pays for one more try on behalf of a client. False: this node has tried again too often lately.
    pub(crate) fn may_try_again(&self) -> bool {
        self.retries.spend(self.now())
    }

    /// A number below `bound`.
    pub(crate) fn random_below(&self, bound: u64) -> u64 {
        self.jitter.lock().unwrap_or_else(PoisonError::into_inner).below(bound)
    }

    /// `period`, give or take a tenth.
    pub(crate) fn spread(&self, period: Duration) -> Duration {
        self.jitter.lock().unwrap_or_else(PoisonError::into_inner).spread(period)
    }
}
