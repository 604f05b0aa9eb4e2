//! Builds a node from its parts, in order, and takes it down in the reverse order.
//! The only place that decides what runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;
use triad_replica::member::StartNonce;
use triad_replica::store::{MemoryStore, SpaceRule, Store, StoreError};
use triad_ring::{NodeId, RingNode};

use crate::alarms::Alarms;
use crate::assembly::{Parts, enter};
use crate::book::{Book, Contact, NodeState};
use crate::config::{Config, Engine};
use crate::data_dir::{DataDir, DataDirError, OpenedStore, StoreLoss, StoreOrigin};
use crate::host::Host;
use crate::identity::NodeIdentity;
use crate::losses::Losses;
use crate::platform::{OperatingSystem, Platform};
use crate::ports::Listener;
use crate::random::{self, NoRandomness};
use crate::rows::{self, RowError};
use crate::sled_store::SledOptions;
use crate::{ports, web};

/// How long answers get to leave after the last request has ended.
const FLUSH: Duration = Duration::from_millis(100);
/// How long background tasks get to end.
const TASKS_END: Duration = Duration::from_secs(2);

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong.
    #[error("configuration: {0}")]
    Config(String),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A row that the start needs cannot be read.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A socket could not be opened.
    #[error("cannot listen on {address} ({leaf}): {source}")]
    Listen {
        /// The setting.
        leaf: &'static str,
        /// Its value.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data directory belongs to another cluster than the configuration names.
    #[error(
        "the data directory belongs to cluster `{stored}`, but cluster.name is `{configured}`: use the right directory, or the right name"
    )]
    OtherCluster {
        /// The cluster in the store.
        stored: String,
        /// The cluster in the configuration.
        configured: String,
    },
    /// The operating system gave no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// The sockets of a node, opened by the caller or by [`Server::start`].
pub struct Listeners {
    /// For clients.
    pub client: Listener,
    /// For other nodes.
    pub peer: Listener,
    /// For operators; a simulated node has none.
    pub admin: Option<TcpListener>,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For clients.
    pub client: SocketAddr,
    /// For other nodes.
    pub peer: SocketAddr,
    /// For operators.
    pub admin: SocketAddr,
}

impl Listeners {
    /// Opens the three sockets that the configuration names.
    pub async fn bind(config: &Config) -> Result<Self, StartError> {
        Ok(Self {
            client: Listener::Tcp(bind("listen.client", config.listen.client).await?),
            peer: Listener::Tcp(bind("listen.peer", config.listen.peer).await?),
            admin: Some(bind("listen.admin", config.listen.admin).await?),
        })
    }

    /// What the sockets were bound to; where there is none, what was configured.
    fn addresses(&self, config: &Config) -> Result<Addresses, StartError> {
        let local = |leaf, listener: Option<&TcpListener>, address| match listener {
            None => Ok(address),
            Some(listener) => {
                listener.local_addr().map_err(|source| StartError::Listen { leaf, address, source })
            }
        };
        let listen = &config.listen;
        Ok(Addresses {
            client: local("listen.client", self.client.tcp(), listen.client)?,
            peer: local("listen.peer", self.peer.tcp(), listen.peer)?,
            admin: local("listen.admin", self.admin.as_ref(), listen.admin)?,
        })
    }
}

async fn bind(leaf: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { leaf, address, source })
}

/// Starts nodes.
#[derive(Debug)]
pub struct Server;

/// A running node.
pub struct ServerHandle {
    host: Arc<Host>,
    addresses: Addresses,
    parts: Running,
}

/// What is to be ended, in the order of the fields.
struct Running {
    client_port: ports::Port,
    entering: JoinHandle<()>,
    peer_port: ports::Port,
    stop: CancellationToken,
    tasks: TaskTracker,
    failed: watch::Receiver<Option<String>>,
    /// Released last: the directory is free when everything has ended.
    _data_dir: Arc<DataDir>,
}

impl Server {
    /// Opens the data directory and the sockets and begins to serve; entering a cluster goes on in
    /// the background (see [`ServerHandle::ready`]).
    pub async fn start(
        config: Config,
        listeners: Option<Listeners>,
    ) -> Result<ServerHandle, StartError> {
        Self::start_on(Arc::new(OperatingSystem), config, listeners).await
    }

    /// The same on another platform than the operating system.
    pub async fn start_on(
        platform: Arc<dyn Platform>,
        config: Config,
        listeners: Option<Listeners>,
    ) -> Result<ServerHandle, StartError> {
        config.validate().map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            StartError::Config(problems.join("; "))
        })?;
        let (data_dir, opened) = open(&platform, &config).await?;
        let listeners = match listeners {
            Some(listeners) => listeners,
            None => Listeners::bind(&config).await?,
        };
        let addresses = listeners.addresses(&config)?;
        let identity = identity(&*platform, &config, &data_dir, &opened)?;
        info!(
            node = %identity.node, name = %identity.name, store = %identity.store,
            incarnation = identity.incarnation.get(), client = %addresses.client, peer = %addresses.peer,
            admin = %addresses.admin, version = env!("CARGO_PKG_VERSION"), "starting"
        );
        let book = Arc::new(Book::new(own_contact(&config, &identity, &addresses)));
        let (failed_tx, failed) = watch::channel(None);
        let alarms = Arc::new(Alarms::default());
        let data_path = data_dir.path().to_owned();
        let losses = Arc::new(Losses::new(data_path, Arc::clone(&alarms), failed_tx.clone()));
        if let Some((loss, new)) = opened.loss {
            losses.found(loss, new);
        }
        let host = Arc::new(Host::new(platform, identity, Arc::new(config), book, alarms, losses));
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let client_port = ports::serve_clients(&host, listeners.client, &tasks);
        let peer_port = ports::serve_peers(&host, listeners.peer);
        if let Some(admin) = listeners.admin {
            tasks.spawn(web::serve(admin, Arc::clone(&host), more(&host), stop.clone()));
        }
        tasks.spawn(host.door.clone().watch(host.platform.work(), stop.clone()));
        let parts = Parts {
            host: Arc::clone(&host),
            store: opened.store,
            stop: stop.clone(),
            tasks: tasks.clone(),
            failed: failed_tx,
        };
        let entering = tokio::spawn(enter(parts));
        let parts =
            Running { client_port, entering, peer_port, stop, tasks, failed, _data_dir: data_dir };
        Ok(ServerHandle { host, addresses, parts })
    }
}

impl ServerHandle {
    /// Where the node listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The node's id.
    pub fn node_id(&self) -> NodeId {
        self.host.identity.node
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.host.identity.name
    }

    /// Whether the node serves clients; if not, why.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        web::Health::ready(&*self.host)
    }

    /// The node's part of the ring as it is now, for who looks at many nodes at once; none outside a cluster.
    pub async fn ring_node(&self) -> Option<RingNode> {
        self.host.node()?.ring.copy().await
    }

    /// Waits until the node can no longer go on by itself, and tells why.
    pub async fn closed(&self) -> String {
        let mut failed = self.parts.failed.clone();
        let told = failed.wait_for(Option::is_some).await.map(|reason| reason.clone());
        match told {
            Ok(reason) => reason.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether the node ends because its store cannot be trusted any more: a new start in its place sets the
    /// store aside and goes on with an empty one.
    pub fn wants_new_start(&self) -> bool {
        self.host.losses.gave_up()
    }

    /// Ends the node: readiness off, requests at work finished (up to `timeouts.drain`), streams
    /// ended, everything flushed.
    pub async fn shutdown(self) {
        let Self { host, parts, .. } = self;
        info!(node = %host.identity.name, "shutting down");
        host.drain("the node is shutting down");
        parts.entering.abort();
        let busy = host.door.idle();
        let _idle = tokio::time::timeout(host.config.timeouts.drain, busy).await;
        tokio::time::sleep(FLUSH).await;
        parts.client_port.close().await;
        if let Some(node) = host.built_node() {
            node.stop.cancel();
        }
        parts.stop.cancel();
        parts.peer_port.close().await;
        parts.tasks.close();
        let _ = tokio::time::timeout(TASKS_END, parts.tasks.wait()).await;
        if let Some(node) = host.built_node().cloned() {
            // Joins the committer's thread: everything queued is durable after that.
            let closing = Arc::clone(&node);
            let _ = host.platform.work().run(move || closing.local.close()).await;
            node.local.ended().await;
        }
        info!(node = %host.identity.name, "shut down");
    }
}

/// What the admin socket serves besides the usual paths: nothing, but in programs for tests.
fn more(host: &Arc<Host>) -> axum::Router {
    #[cfg(feature = "testing")]
    return crate::testing::routes(host);
    #[cfg(not(feature = "testing"))]
    {
        let _ = host;
        axum::Router::new()
    }
}

/// An open store, whatever the engine.
struct Opened {
    store: Arc<dyn Store>,
    store_id: triad_replica::member::StoreId,
    incarnation: triad_ring::Incarnation,
    /// The last loss of a store here that is not made good yet, and whether this start found it.
    loss: Option<(StoreLoss, bool)>,
}

/// Opening reads the whole store and syncs: on a thread that may block.
async fn open(
    platform: &Arc<dyn Platform>,
    config: &Config,
) -> Result<(Arc<DataDir>, Opened), StartError> {
    let storage = config.storage.clone();
    let (work, platform) = (platform.work(), Arc::clone(platform));
    let opened = work.run(move || -> Result<_, StartError> {
        let path: PathBuf = storage.data_dir;
        let data_dir = Arc::new(DataDir::open_on(Arc::clone(&platform), &path)?);
        let opened = match storage.engine {
            Engine::Sled => {
                let space = SpaceRule {
                    quota: (storage.quota > 0).then_some(storage.quota),
                    reserve: storage.reserve,
                };
                let options =
                    SledOptions { cache_bytes: storage.cache, space, ..SledOptions::default() };
                let OpenedStore { store, store_id, incarnation, origin, loss } =
                    data_dir.open_store(&options)?;
                let loss = loss.map(|loss| (loss, origin != StoreOrigin::Existing));
                Opened { store, store_id, incarnation, loss }
            }
            Engine::Memory => Opened {
                store: Arc::new(MemoryStore::default()),
                store_id: triad_replica::member::StoreId::from_bytes(random::bytes(&*platform)?),
                incarnation: data_dir.next_incarnation()?,
                loss: None,
            },
        };
        Ok((data_dir, opened))
    });
    opened
        .await
        .map_err(|panic| StartError::Config(format!("opening the store panicked: {panic}")))?
}

fn identity(
    platform: &dyn Platform,
    config: &Config,
    data_dir: &DataDir,
    opened: &Opened,
) -> Result<NodeIdentity, StartError> {
    let node = data_dir.node();
    let name = match config.node.name.as_str() {
        "" => format!("node-{}", &node.to_string()[..8]),
        name => name.to_owned(),
    };
    Ok(NodeIdentity {
        node,
        name: name.into(),
        store: opened.store_id,
        incarnation: opened.incarnation,
        nonce: StartNonce(random::bytes(platform)?),
        commits: rows::load_commits(&*opened.store)?,
    })
}

fn own_contact(config: &Config, identity: &NodeIdentity, addresses: &Addresses) -> Contact {
    let host = ports::host_name();
    let advertised = |told: &str, bound: SocketAddr| match (told, bound.ip().is_unspecified()) {
        ("", true) => format!("{host}:{}", bound.port()),
        ("", false) => bound.to_string(),
        (told, _) => told.to_owned(),
    };
    Contact {
        node: identity.node,
        name: identity.name.to_string(),
        zone: config.node.zone.clone(),
        incarnation: identity.incarnation,
        store: identity.store,
        peer_address: advertised(&config.node.advertise_peer, addresses.peer),
        client_address: advertised(&config.node.advertise_client, addresses.client),
        admin_address: advertised("", addresses.admin),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: NodeState::Joining,
        admitted: identity.incarnation,
        revision: 0,
        operation: String::new(),
    }
}
