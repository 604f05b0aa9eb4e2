//! Builds the node once its cluster is known.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;
use triad_replica::shard::ShardReplica;
use triad_replica::store::{Store, StoreError};
use triad_ring::{RingConfig, RingNode};

use crate::alarms;
use crate::background::anti_entropy::{AntiEntropy, anti_entropy_task};
use crate::background::tombstone_gc::tombstone_gc_task;
use crate::background::{acquaint_task, expiry_task, handoff_task, mender_task, scrub_task};
use crate::clock::Clock;
use crate::coordinator::{Repairs, Room};
use crate::data_dir::LossReason;
use crate::directory::Directory;
use crate::hints::Hints;
use crate::host::Host;
use crate::housekeeping;
use crate::identity::ClusterIdentity;
use crate::introduce::introduce_task;
use crate::liveness::Detector;
use crate::local::LocalReplica;
use crate::losses;
use crate::moves::{Registry, placement_task};
use crate::node::Node;
use crate::operations::departure_task;
use crate::peers::{Introductions, Peers};
use crate::pulse::pulse_task;
use crate::random::Jitter;
use crate::retry_budget::RetryBudget;
use crate::reunion::reunion_task;
use crate::ring_task::{RingSender, ring_task};
use crate::rows::{self, RowError};
use crate::server::StartError;
use crate::starts::Starts;
use crate::startup::{self, Entry, Membership};
use crate::throttle::Throttle;

/// What a node is built from.
pub(crate) struct Parts {
    pub(crate) host: Arc<Host>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// Told why, when the process cannot go on.
    pub(crate) failed: watch::Sender<Option<String>>,
}

/// Finds the cluster, becomes a node of it, and enters the ring.
pub(crate) async fn enter(parts: Parts) {
    let failed = parts.failed.clone();
    let entered = match startup::enter(&parts.host, &parts.store).await {
        Ok(membership) => build(&parts, membership),
        Err(error) => Err(error),
    };
    match entered {
        Ok((node, entry)) => {
            parts.host.become_node(Arc::clone(&node));
            let cluster = node.cluster.id;
            parts.tasks.spawn(housekeeping::enter_ring(node, entry));
            if entry == Entry::Resume
                && let Some(reason) = startup::verify_seeds(&parts.host, cluster).await
            {
                error!(%reason, "cannot go on");
                parts.host.drain(&reason);
                let _ = failed.send(Some(reason));
            }
        }
        // Whole when the store was opened, and not any more.
        Err(StartError::Row(RowError::Store(damage @ StoreError::Damaged { .. }))) => {
            parts.host.losses.give_up(LossReason::Damaged, &damage.to_string());
        }
        Err(reason) => {
            error!(%reason, "cannot go on");
            let _ = failed.send(Some(reason.to_string()));
        }
    }
}

fn build(parts: &Parts, membership: Membership) -> Result<(Arc<Node>, Entry), StartError> {
    let Parts { host, store, tasks, .. } = parts;
    let Membership { cluster, replicas, entry } = membership;
    let stop = parts.stop.child_token();
    let own_start = host.identity.start(host.identity.commits);
    let starts = Arc::new(Starts::new(rows::load_starts(&**store)?, &own_start));
    let commits = Arc::new(AtomicU64::new(own_start.commits));
    let (book, met, counted) = (Arc::clone(&host.book), Arc::clone(&starts), Arc::clone(&commits));
    let identity = host.identity.clone();
    let introductions = Arc::new(Introductions::new(identity, cluster.id, book, met, counted));
    let platform = Arc::clone(&host.platform);
    let peers = Arc::new(Peers::new(platform, introductions, tasks.clone(), stop.clone()));
    let ring =
        RingConfig::new(cluster.salt, cluster.virtual_nodes, cluster.replication_factor as usize);
    let sender = RingSender::new(Arc::clone(&peers));
    let beliefs = Arc::new(RwLock::new(Detector::default()));
    let (ring, ring_loop) = ring_task(
        RingNode::new(host.identity.node, ring),
        sender,
        Arc::clone(&beliefs),
        Jitter::new(&*host.platform)?,
        stop.clone(),
    );
    let directory = Directory::new(cluster.shards);
    for newest in replicas.iter().filter_map(|replica| replica.newest()) {
        directory.learn(newest);
    }
    let hints = Arc::new(Hints::load(&**store, &host.config)?);
    let local = local(parts, &cluster, replicas, Arc::clone(&hints), commits)?;
    let started = Instant::now();
    let node = Arc::new(Node {
        platform: Arc::clone(&host.platform),
        identity: host.identity.clone(),
        cluster,
        config: Arc::clone(&host.config),
        book: Arc::clone(&host.book),
        directory,
        local,
        peers,
        ring,
        moves: Registry::default(),
        repairs: Repairs::default(),
        operations: Arc::clone(&host.operations),
        throttle: Throttle::new(host.config.repair.bytes_per_second),
        anti_entropy: AntiEntropy::default(),
        beliefs,
        jitter: std::sync::Mutex::new(Jitter::new(&*host.platform)?),
        hints,
        door: host.door.clone(),
        retries: RetryBudget::default(),
        room: Room::default(),
        alarms: Arc::clone(&host.alarms),
        losses: Arc::clone(&host.losses),
        starts,
        started,
        clock: Clock::new(started, Arc::clone(&host.platform)),
        tasks: tasks.clone(),
        stop,
    });
    tasks.spawn(ring_loop);
    tasks.spawn(pulse_task(Arc::clone(&node)));
    tasks.spawn(reunion_task(Arc::clone(&node)));
    tasks.spawn(placement_task(Arc::clone(&node)));
    tasks.spawn(alarms::watch_space(Arc::clone(&node)));
    tasks.spawn(losses::watch_losses(Arc::clone(&node)));
    spawn_background(&node, tasks);
    tasks.spawn(housekeeping::keep_contacts(Arc::clone(&node)));
    tasks.spawn(departure_task(Arc::clone(&node), Arc::clone(host)));
    Ok((node, entry))
}

/// The only writer of the store.
fn local(
    parts: &Parts,
    cluster: &ClusterIdentity,
    replicas: Vec<ShardReplica>,
    hints: Arc<Hints>,
    commits: Arc<AtomicU64>,
) -> Result<LocalReplica, StartError> {
    let failed = parts.failed.clone();
    let on_failure = Box::new(move |failure: StoreError| {
        let _ = failed.send(Some(format!("the store has failed: {failure}")));
    });
    let (config, store) = (&parts.host.config, Arc::clone(&parts.store));
    let (limits, longest) = (startup::record_limits(config), config.limits.queue_wait);
    LocalReplica::start(
        store,
        replicas,
        cluster.shards,
        limits,
        hints,
        longest,
        commits,
        parts.host.platform.work(),
        on_failure,
    )
    .map_err(StartError::Thread)
}

/// What a node does beside requests.
fn spawn_background(node: &Arc<Node>, tasks: &TaskTracker) {
    tasks.spawn(mender_task(Arc::clone(node)));
    tasks.spawn(scrub_task(Arc::clone(node)));
    tasks.spawn(introduce_task(Arc::clone(node)));
    tasks.spawn(handoff_task(Arc::clone(node)));
    tasks.spawn(tombstone_gc_task(Arc::clone(node)));
    tasks.spawn(anti_entropy_task(Arc::clone(node)));
    tasks.spawn(acquaint_task(Arc::clone(node)));
    tasks.spawn(expiry_task(Arc::clone(node)));
}
