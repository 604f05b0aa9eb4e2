//! `where`, `status`, `node ls`, `ring`, `health`.

use std::time::Duration;

use serde::Serialize;
use triad_proto::v1;

use super::data::milliseconds;
use super::{KeyForm, Subject, epoch, liveness, node_state, phase, replica_result};

/// `where`.
#[derive(Serialize)]
pub(crate) struct Where<'a> {
    bucket: &'a str,
    #[serde(flatten)]
    key: KeyForm<'a>,
    ring_id: &'a str,
    shard: u32,
    range: Range<'a>,
    configuration: Configuration<'a>,
    ideal: &'a [String],
    replicas: Vec<ReplicaState<'a>>,
    path: &'a [String],
    hops: u32,
}

#[derive(Serialize)]
struct Range<'a> {
    start: &'a str,
    end: &'a str,
}

#[derive(Serialize)]
struct Configuration<'a> {
    epoch: String,
    phase: String,
    members: Vec<&'a str>,
    next_members: Vec<&'a str>,
    retired: Vec<&'a str>,
}

#[derive(Serialize)]
struct ReplicaState<'a> {
    node: &'a str,
    result: String,
    dots: &'a [String],
    digest: &'a str,
}

pub(crate) fn location<'a>(subject: Subject<'a>, located: &'a v1::LocateResponse) -> Where<'a> {
    static NO_ROUTE: v1::Route = v1::Route {
        shard: 0,
        epoch: None,
        phase: 0,
        members: Vec::new(),
        next_members: Vec::new(),
        gc_epoch: None,
        retired: Vec::new(),
        shard_count: 0,
    };
    let route = located.route.as_ref().unwrap_or(&NO_ROUTE);
    let replicas = located.replicas.iter().map(|replica| ReplicaState {
        node: &replica.node,
        result: replica_result(replica.result()),
        dots: &replica.dots,
        digest: &replica.digest,
    });
    Where {
        bucket: subject.bucket,
        key: KeyForm::of(subject.key),
        ring_id: &located.ring_id,
        shard: route.shard,
        range: Range { start: &located.range_start, end: &located.range_end },
        configuration: Configuration {
            epoch: epoch(route.epoch.as_ref()),
            phase: phase(route.phase()),
            members: names(&route.members),
            next_members: names(&route.next_members),
            retired: names(&route.retired),
        },
        ideal: &located.ideal_members,
        replicas: replicas.collect(),
        path: &located.path,
        hops: located.hops,
    }
}

fn names(members: &[v1::Member]) -> Vec<&str> {
    members.iter().map(|member| member.node.as_str()).collect()
}

/// `status`.
#[derive(Serialize)]
pub(crate) struct Status<'a> {
    cluster: ClusterObject<'a>,
    healthy: bool,
    complete: bool,
    failures_tolerated: u32,
    nodes: Nodes,
    shards: Shards,
    hints: Hints,
    trees_different: u32,
    operations: Operations,
    alarms: Vec<Alarm<'a>>,
    unreachable: &'a [String],
    version: &'a str,
}

#[derive(Serialize)]
struct ClusterObject<'a> {
    id: &'a str,
    name: &'a str,
    replication_factor: u32,
    shards: u32,
    virtual_nodes: u32,
}

#[derive(Serialize)]
struct Nodes {
    total: u32,
    alive: u32,
    suspect: u32,
    down: u32,
}

#[derive(Serialize)]
struct Shards {
    total: u32,
    joint: u32,
    under_replicated: u32,
    unavailable: u32,
    learning: u32,
    draining: u32,
}

#[derive(Serialize)]
struct Hints {
    pending: u64,
    bytes: u64,
    acknowledging: u64,
    lost: u64,
}

#[derive(Serialize)]
struct Operations {
    running: u32,
}

#[derive(Serialize)]
struct Alarm<'a> {
    name: &'a str,
    node: &'a str,
    detail: &'a str,
    cure: &'a str,
}

pub(crate) fn status(status: &v1::StatusResponse) -> Status<'_> {
    let parameters = status.parameters.unwrap_or_default();
    let (nodes, shards) = (status.nodes.unwrap_or_default(), status.shards.unwrap_or_default());
    let hints = status.hints.unwrap_or_default();
    let alarms = status.alarms.iter().map(|alarm| Alarm {
        name: &alarm.name,
        node: &alarm.node,
        detail: &alarm.detail,
        cure: &alarm.cure,
    });
    Status {
        cluster: ClusterObject {
            id: &status.cluster_id,
            name: &status.cluster_name,
            replication_factor: parameters.replication_factor,
            shards: parameters.shards,
            virtual_nodes: parameters.virtual_nodes,
        },
        healthy: status.healthy,
        complete: status.complete,
        failures_tolerated: status.failures_tolerated,
        nodes: Nodes {
            total: nodes.total,
            alive: nodes.alive,
            suspect: nodes.suspect,
            down: nodes.down,
        },
        shards: Shards {
            total: shards.total,
            joint: shards.joint,
            under_replicated: shards.under_replicated,
            unavailable: shards.unavailable,
            learning: shards.learning,
            draining: shards.draining,
        },
        hints: Hints {
            pending: hints.pending,
            bytes: hints.bytes,
            acknowledging: hints.acknowledging,
            lost: hints.lost,
        },
        trees_different: status.trees_different,
        operations: Operations { running: status.operations_running },
        alarms: alarms.collect(),
        unreachable: &status.unreachable,
        version: &status.version,
    }
}

/// `node ls`.
#[derive(Serialize)]
pub(crate) struct NodeList<'a> {
    nodes: Vec<NodeInfo<'a>>,
}

#[derive(Serialize)]
struct NodeInfo<'a> {
    node_id: &'a str,
    node: &'a str,
    store_id: &'a str,
    incarnation: u64,
    liveness: String,
    state: String,
    client_address: &'a str,
    peer_address: &'a str,
    admin_address: &'a str,
    zone: &'a str,
    version: &'a str,
    virtual_nodes: u32,
    shards: u32,
    ideal_shards: u32,
    keys: u64,
    live_bytes: u64,
    disk_bytes: u64,
    silent_ms: Option<u64>,
    round_trip_ms: Option<f64>,
}

pub(crate) fn nodes(nodes: &[v1::NodeInfo]) -> NodeList<'_> {
    NodeList { nodes: nodes.iter().map(NodeInfo::of).collect() }
}

impl<'a> NodeInfo<'a> {
    fn of(node: &'a v1::NodeInfo) -> Self {
        Self {
            node_id: &node.node_id,
            node: &node.node,
            store_id: &node.store_id,
            incarnation: node.incarnation,
            liveness: liveness(node.liveness()),
            state: node_state(node.state()),
            client_address: &node.client_address,
            peer_address: &node.peer_address,
            admin_address: &node.admin_address,
            zone: &node.zone,
            version: &node.version,
            virtual_nodes: node.virtual_nodes,
            shards: node.shards,
            ideal_shards: node.ideal_shards,
            keys: node.keys,
            live_bytes: node.live_bytes,
            disk_bytes: node.disk_bytes,
            silent_ms: node.silent.and_then(span).map(|silent| silent.as_millis() as u64),
            round_trip_ms: node.round_trip.and_then(span).map(milliseconds),
        }
    }
}

fn span(wire: impl TryInto<Duration>) -> Option<Duration> {
    wire.try_into().ok()
}

/// `ring`: neighbours are told by their identifiers.
#[derive(Serialize)]
pub(crate) struct Ring<'a> {
    cluster_id: &'a str,
    virtual_nodes: Vec<VirtualNode<'a>>,
}

#[derive(Serialize)]
struct VirtualNode<'a> {
    ring_id: &'a str,
    node: &'a str,
    index: u32,
    predecessor: Option<&'a str>,
    successors: Vec<&'a str>,
    fingers: Vec<Finger<'a>>,
}

#[derive(Serialize)]
struct Finger<'a> {
    start: &'a str,
    ring_id: &'a str,
    node: &'a str,
}

pub(crate) fn ring(ring: &v1::DescribeRingResponse) -> Ring<'_> {
    Ring {
        cluster_id: &ring.cluster_id,
        virtual_nodes: ring.virtual_nodes.iter().map(VirtualNode::of).collect(),
    }
}

impl<'a> VirtualNode<'a> {
    fn of(position: &'a v1::VirtualNode) -> Self {
        let id = |neighbor: &'a v1::Neighbor| neighbor.ring_id.as_str();
        let fingers = position.fingers.iter().map(|finger| Finger {
            start: &finger.start,
            ring_id: &finger.ring_id,
            node: &finger.node,
        });
        Self {
            ring_id: &position.ring_id,
            node: &position.node,
            index: position.index,
            predecessor: position.predecessor.as_ref().map(id),
            successors: position.successors.iter().map(id).collect(),
            fingers: fingers.collect(),
        }
    }
}

/// `health`.
#[derive(Serialize)]
pub(crate) struct Health<'a> {
    live: bool,
    ready: bool,
    reasons: &'a [String],
}

/// What `node bootstrap` prints.
#[derive(Serialize)]
pub(crate) struct Bootstrap<'a> {
    cluster_id: &'a str,
}

pub(crate) fn bootstrap(made: &v1::BootstrapResponse) -> Bootstrap<'_> {
    Bootstrap { cluster_id: &made.cluster_id }
}

pub(crate) fn health(readiness: &v1::GetReadinessResponse) -> Health<'_> {
    Health { live: readiness.live, ready: readiness.ready, reasons: &readiness.reasons }
}
