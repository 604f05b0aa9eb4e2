//! The sections of the configuration: each leaf with its meaning, its bounds and how to choose it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::size;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// `[node]`: who this node is, and how others reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// The name people see in `status`, in replica lists and in errors. Up to 63 of `[A-Za-z0-9._-]`; empty (the
    /// default) means `node-` and the first 8 digits of the node id. Give each node its own: nothing depends on it
    /// being unique except the reader.
    pub name: String,
    /// The failure domain (rack, availability zone) shown with the node. Up to 63 of `[A-Za-z0-9._-]`; default empty.
    /// It does not influence placement yet.
    pub zone: String,
    /// `host:port` that *clients* should dial, when it is not what other nodes dial: a node in a container network is
    /// reached from outside by a published port. Empty (the default) means `listen.client`, with this machine's name if
    /// that is every address.
    pub advertise_client: String,
    /// `host:port` that *other nodes* should dial. Prefer a name to an address: names are resolved anew at every
    /// dial, so a container that comes back with another address is found. Empty (the default) means `listen.peer`,
    /// with this machine's name if that is every address.
    pub advertise_peer: String,
}

/// `[listen]`: the sockets this node opens. Port 0 takes a free one. The three must differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Clients' gRPC (`triad.v1`, health, reflection). Default `0.0.0.0:7420`.
    pub client: SocketAddr,
    /// Other nodes' gRPC (`triad.peer.v1`). Default `0.0.0.0:7421`. Only nodes of the cluster should be able to reach
    /// it.
    pub peer: SocketAddr,
    /// HTTP for operators: `/livez`, `/readyz`, `/version`. Default `0.0.0.0:7422`. Not for the open internet.
    pub admin: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        let on = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Self { client: on(7420), peer: on(7421), admin: on(7422) }
    }
}

/// `[cluster]`: which cluster this node belongs to.
///
/// `name`, `replication_factor`, `virtual_nodes` and `shards` are read by the node that *makes* the cluster and are
/// fixed from then on; a node that joins takes them from the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// The cluster's name for people. 1 to 63 of `[A-Za-z0-9._-]`; default `triad`.
    pub name: String,
    /// Whether this node may make a new cluster when its data directory belongs to none. Exactly one node of a new
    /// cluster should say `true`; with seeds it still waits until *every* seed answered "I have no cluster". Unset
    /// (the default) means: only without seeds. Symptom of two: both wait, not ready, and say so.
    pub bootstrap: Option<bool>,
    /// `host:port` of other nodes' peer sockets, to be asked at the start; as a list, or separated by commas. One
    /// that answers is enough to join; three or more are wise. The node's own address may be among them. Default
    /// none.
    pub seeds: Vec<String>,
    /// N, copies of each shard: 1 to 7, default 3. Odd numbers are best: 3 survives the loss of one store, 5 of two.
    pub replication_factor: u16,
    /// V, positions of each node on the ring: 1 to 1,024, default 64. More spread the shards more evenly but cost
    /// maintenance: keep V × nodes under 16,384.
    pub virtual_nodes: u16,
    /// Q, shards of the circle: a power of two from 1 to 65,536, default 1,024. At least 8 × the largest number of
    /// nodes meant, for it can never change.
    pub shards: u32,
    /// How long a node must be silent before living ones take its places: 1 s to 7 d, default 10 min. Longer than a
    /// restart or a reboot takes, or each of them moves all its data twice.
    #[serde(with = "humantime_serde")]
    pub down_after: Duration,
    /// How long the ring must have looked the same before this node proposes to move a shard: 10 ms to 1 h, default 5
    /// s. Shorter moves sooner; too short moves data that the next joiner moves again.
    #[serde(with = "humantime_serde")]
    pub placement_settle: Duration,
}

impl Cluster {
    /// Whether this node may make a cluster when it belongs to none: as told, else only when it knows nobody to ask.
    pub fn may_bootstrap(&self) -> bool {
        self.bootstrap.unwrap_or(self.seeds.is_empty())
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: "triad".into(),
            bootstrap: None,
            seeds: Vec::new(),
            replication_factor: 3,
            virtual_nodes: 64,
            shards: 1024,
            down_after: Duration::from_mins(10),
            placement_settle: Duration::from_secs(5),
        }
    }
}

/// The storage engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Engine {
    /// sled on disk, durable.
    #[default]
    Sled,
    /// Nothing on disk but the node's key: for experiments and tests. A node that restarts comes back as a new, empty
    /// store.
    Memory,
}

impl TryFrom<String> for Engine {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.as_str() {
            "sled" => Ok(Self::Sled),
            "memory" => Ok(Self::Memory),
            _ => Err("must be sled or memory"),
        }
    }
}

/// `[storage]`: where and how this node keeps its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// `sled` (the default) or `memory` (nothing survives the process).
    pub engine: Engine,
    /// The node's own directory: key, lock and store. One process per directory. Default `triad-data` under the
    /// working directory.
    pub data_dir: PathBuf,
    /// Memory for the engine's page cache: 4 MiB to 1 TiB, default 64 MiB. Reads of data outside it go to the disk.
    #[serde(with = "size")]
    pub cache: u64,
    /// Space this node may use: 0 (the default) means all that the file system has, else at least 64 MiB. Because the
    /// engine's file grows to several times the live data, writes are refused (`NO_SPACE`) when six times the live bytes (ten times, of values over 16 KiB) would
    /// pass it; reads and deletes go on.
    #[serde(with = "size")]
    pub quota: u64,
    /// Space kept free so that deletes and housekeeping still work on a full node: up to 1 TiB, default 64 MiB, and
    /// never more than a tenth of the space there is.
    #[serde(with = "size")]
    pub reserve: u64,
    /// Space for hints, which this node keeps for members of shards that were not there: 0 (none) to 1 TiB, default 128
    /// MiB. They count like other data towards `quota`. When it is used up, courtesy hints are dropped (anti-entropy
    /// brings what they would have brought), and writes to `any.` buckets that need this node to stand in for a member
    /// are refused (`NO_SPACE`, alarm `HINTS_FULL`): make it hold what is written during the longest outage meant.
    #[serde(with = "size")]
    pub hint_bytes: u64,
    /// How old a courtesy hint may get: 1 s to 7 d, default 3 h. Whoever is away for longer is brought up to date by
    /// anti-entropy, which compares everything. Hints that were counted as acknowledgements (`any.` buckets) are kept
    /// until they are delivered, whatever their age.
    #[serde(with = "humantime_serde")]
    pub hint_age: Duration,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            engine: Engine::Sled,
            data_dir: "triad-data".into(),
            cache: 64 * MIB,
            quota: 0,
            reserve: 64 * MIB,
            hint_bytes: 128 * MIB,
            hint_age: Duration::from_hours(3),
        }
    }
}

/// `[limits]`: how much this node accepts. Every refusal names the limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Greatest value: 1 KiB to 4 MiB, default 1 MiB. Give all nodes the same.
    #[serde(with = "size")]
    pub value_bytes: u64,
    /// Siblings of one key that are worth a look: 1 up to `siblings_hard`, default 10. More than a few mean that writers
    /// do not send back the context they read. Nothing depends on it yet: it is for a metric that comes later.
    pub siblings_soft: u32,
    /// Siblings of one key at which a causal write is refused (`SIBLING_LIMIT`): up to 1,000, default 50.
    pub siblings_hard: u32,
    /// Client requests at work at once in this node: 1 to 1,000,000, default 4,096. One more is refused at once
    /// (`OVERLOADED`).
    pub in_flight: u32,
    /// How long a request may have to wait inside this node, for the disk or for a processor: 10 ms to 1 min, default
    /// 500 ms. Requests that would wait longer are refused before anything is done (`OVERLOADED`, with the time after
    /// which to try again), so that the others are done in time. Shorter keeps latency low when too much comes, and
    /// refuses bursts that would have been worked off; longer than clients wait, and it protects nobody.
    #[serde(with = "humantime_serde")]
    pub queue_wait: Duration,
    /// Bytes of keys and values in the client requests at work at once in this node: 16 MiB to 1 TiB, default 256 MiB.
    /// Requests that would be over it are refused at once (`OVERLOADED`). They stay in memory, in several places, until they are
    /// done: make it an eighth of what the node has.
    #[serde(with = "size")]
    pub in_flight_bytes: u64,
    /// Connections of clients at once: 1 to 1,000,000, default 1,000. Requests on further ones are refused
    /// (`OVERLOADED`), and beyond 64 of these, connections are closed. Keep it under the process's limit of open
    /// files.
    pub connections: u32,
    /// Requests at once on one client connection: 1 to 65,536, default 256.
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            value_bytes: 1024 * KIB,
            siblings_soft: 10,
            siblings_hard: 50,
            in_flight: 4096,
            in_flight_bytes: 256 * MIB,
            connections: 1000,
            queue_wait: Duration::from_millis(500),
            streams: 256,
        }
    }
}

/// `[timeouts]`: how long this node waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Deadline of a client request that brings none: 10 ms up to `request_max`, default 5 s.
    #[serde(with = "humantime_serde")]
    pub request: Duration,
    /// Longest deadline a client may ask for; a longer one is cut to it. Up to 1 h, default 60 s.
    #[serde(with = "humantime_serde")]
    pub request_max: Duration,
    /// How long a node that was asked to answer a Get in another's stead may take before the next member is asked: 10 ms
    /// to 1 min, default 1 s. A few round trips; too long and one hung node delays reads that others could answer.
    #[serde(with = "humantime_serde")]
    pub peer: Duration,
    /// How long a graceful stop waits for requests at work: up to 10 min, default 10 s. Keep it under the
    /// supervisor's own patience.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(5),
            request_max: Duration::from_mins(1),
            peer: Duration::from_secs(1),
            drain: Duration::from_secs(10),
        }
    }
}

/// `[repair]`: how this node copies and compares data in the background.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Repair {
    /// How often this node compares its shards with each of their other members, to mend what no read has mended: 100 ms
    /// to 7 d, default 10 s; 0 for never. A round in which nothing differs is one short question to each of them,
    /// however many shards and keys there are. Much longer, and replicas stay behind for so long after a fault.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Bytes a second that this node copies in the background, all its moves and repairs together: 0 for as fast as it
    /// goes, else at least 64 KiB; default 64 MiB. Copies are at most a second's worth ahead of it, or one record that
    /// is larger; what was written during a move and a shard waits for is not held up, and other copies wait for it. Lower it when clients feel a join or a leave; too low and a dead
    /// node's replacement takes hours in which a second loss may cost a quorum.
    #[serde(with = "size")]
    pub bytes_per_second: u64,
    /// In which time this node reads its whole store once, to find damaged rows and have them mended while other
    /// replicas can: 1 s to 90 d, default 7 d; 0 for never. Much longer, and damage may be found too late.
    #[serde(with = "humantime_serde")]
    pub scrub: Duration,
}

impl Default for Repair {
    fn default() -> Self {
        let (interval, scrub) = (Duration::from_secs(10), Duration::from_hours(7 * 24));
        Self { interval, bytes_per_second: 64 * MIB, scrub }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

impl TryFrom<String> for LogFormat {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be text or json"),
        }
    }
}

/// `[telemetry]`: what this node tells about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// `text` (the default) or `json`. Logs go to stderr.
    pub log_format: LogFormat,
    /// `error`, `warn`, `info` (the default), `debug`, `trace` or `off`, also by part:
    /// `info,triad_server::placement_task=debug`.
    pub log_level: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log_format: LogFormat::Text, log_level: "info".into() }
    }
}
