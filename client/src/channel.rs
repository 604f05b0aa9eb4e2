//! Connections: a small pool of HTTP/2 channels per node, opened when first needed.
//!
//! A channel is opened by an explicit, timed connect, so that "never connected" is known for certain: a write that
//! met it was not sent. A channel whose transport failed is dropped, and the next request opens a new one. A node
//! that could not be reached is put aside for a while, longer each time, and only asked when nobody else is left.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

/// The port of clients when an address names none.
const DEFAULT_PORT: u16 = 7420;
/// Pings on a connection this often tell a dead peer from an idle one.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long such a ping may stay unanswered.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// More nodes than this are not kept connected: the one least recently used goes.
const NODES_MAX: usize = 1024;
/// How long a node is put aside after its first failure; doubled with each further one.
const ASIDE_MIN: Duration = Duration::from_millis(250);
/// Never put aside for longer.
const ASIDE_MAX: Duration = Duration::from_secs(10);

/// Where a node listens for clients: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(Arc<str>);

/// The text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("endpoint {text:?} {why}; wanted host:port, for example localhost:7420")]
pub struct AddressError {
    text: String,
    why: &'static str,
}

impl Address {
    /// As `host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Takes `host:port`, `host` (port 7420), `[v6]:port`, each with an optional `http://` before it.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = |why| AddressError { text: text.to_owned(), why };
        let trimmed = text.trim();
        if trimmed.starts_with("https://") {
            return Err(wrong("asks for TLS, which this release does not have"));
        }
        let bare = trimmed.strip_prefix("http://").unwrap_or(trimmed);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        if bare.contains("://") {
            return Err(wrong("has an unknown scheme"));
        }
        let (host, port) = split_port(bare).ok_or_else(|| wrong("has no valid port"))?;
        let well_formed = if let Some(v6) =
            host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
        {
            v6.parse::<std::net::Ipv6Addr>().is_ok()
        } else {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        if !well_formed {
            return Err(wrong("has no valid host"));
        }
        Ok(Self(format!("{host}:{port}").into()))
    }
}

/// Host and port; the colons of a bare IPv6 address are not taken for a port's.
fn split_port(text: &str) -> Option<(&str, u16)> {
    let inside = text.rfind(']').unwrap_or(0);
    match text[inside..].rfind(':') {
        None => Some((text, DEFAULT_PORT)),
        Some(colon) => {
            let (host, port) = text.split_at(inside + colon);
            let port = port[1..].parse().ok().filter(|port| *port != 0)?;
            Some((host, port))
        }
    }
}

/// A stream of bytes in both directions that a [`Dialer`] opened.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Wire for T {}

/// Opens a stream to an address, `host:port`, by another way than TCP: a tunnel, or the network of a simulation.
pub type Dialer = Arc<
    dyn Fn(&str) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Wire>>> + Send>> + Send + Sync,
>;

/// How channels are opened.
#[derive(Clone)]
pub(crate) struct ChannelOptions {
    /// Opens streams where TCP does not.
    pub(crate) dialer: Option<Dialer>,
    /// Channels per node; requests take turns.
    pub(crate) per_node: usize,
    /// How long opening one may take.
    pub(crate) connect_timeout: Duration,
}

impl fmt::Debug for ChannelOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelOptions")
            .field("per_node", &self.per_node)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// All channels of one client.
#[derive(Debug)]
pub(crate) struct Pool {
    options: ChannelOptions,
    nodes: Mutex<BTreeMap<Address, Arc<Node>>>,
}

/// One node's channels, and how it behaved lately.
#[derive(Debug)]
struct Node {
    slots: Vec<tokio::sync::Mutex<Option<Opened>>>,
    next: AtomicUsize,
    conduct: Mutex<Conduct>,
}

/// An open channel with a number, so that a failure closes the very channel it happened on and no later one.
#[derive(Debug, Clone)]
struct Opened {
    channel: Channel,
    serial: usize,
}

#[derive(Debug)]
struct Conduct {
    failures: u32,
    aside_until: Option<Instant>,
    last_failure: Option<(Instant, String)>,
    used: Instant,
}

/// A channel for one request.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) channel: Channel,
    node: Arc<Node>,
    slot: usize,
    serial: usize,
}

impl Pool {
    pub(crate) fn new(options: ChannelOptions) -> Self {
        Self { options, nodes: Mutex::default() }
    }

    /// A channel to the node, opened if need be. An error says why it could not be: nothing was sent.
    pub(crate) async fn lease(
        &self,
        address: &Address,
        deadline: Instant,
    ) -> Result<Lease, String> {
        let node = self.node(address);
        let began = Instant::now();
        let turn = node.next.fetch_add(1, Ordering::Relaxed);
        let slot = turn % node.slots.len();
        let until = deadline.min(began + self.options.connect_timeout);
        let opening = async {
            let mut held = node.slots[slot].lock().await;
            if let Some(opened) = held.as_ref() {
                return Ok(opened.clone());
            }
            // Those that waited behind a failed attempt share its result instead of each waiting for their own.
            if let Some(why) = node.failed_since(began) {
                return Err(why);
            }
            let channel = self.open(address).await?;
            let opened = Opened { channel, serial: turn };
            *held = Some(opened.clone());
            Ok(opened)
        };
        let result = match tokio::time::timeout_at(until, opening).await {
            Ok(result) => result,
            Err(_) if until == deadline => {
                return Err("no connection before the deadline".to_owned());
            }
            Err(_) => Err(format!("no connection within {:?}", self.options.connect_timeout)),
        };
        match result {
            Ok(Opened { channel, serial }) => Ok(Lease { channel, node, slot, serial }),
            Err(why) => {
                node.failed(&why);
                Err(why)
            }
        }
    }

    /// True when the node failed so lately that others should be asked first.
    pub(crate) fn is_aside(&self, address: &Address) -> bool {
        let nodes = lock(&self.nodes);
        nodes.get(address).is_some_and(|node| node.is_aside())
    }

    /// All nodes that were ever asked and are still remembered.
    pub(crate) fn known(&self) -> Vec<Address> {
        lock(&self.nodes).keys().cloned().collect()
    }

    fn node(&self, address: &Address) -> Arc<Node> {
        let mut nodes = lock(&self.nodes);
        if let Some(node) = nodes.get(address) {
            lock(&node.conduct).used = Instant::now();
            return Arc::clone(node);
        }
        if nodes.len() >= NODES_MAX {
            let oldest = nodes
                .iter()
                .min_by_key(|(_, node)| lock(&node.conduct).used)
                .map(|(address, _)| address.clone());
            oldest.and_then(|oldest| nodes.remove(&oldest));
        }
        let node = Arc::new(Node::new(self.options.per_node.max(1)));
        nodes.insert(address.clone(), Arc::clone(&node));
        node
    }

    async fn open(&self, address: &Address) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .and_then(|endpoint| {
                endpoint.user_agent(concat!("triad-client/", env!("CARGO_PKG_VERSION")))
            })
            .map_err(|error| because(&error))?
            .tcp_nodelay(true)
            .connect_timeout(self.options.connect_timeout)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .http2_adaptive_window(true);
        let opened = match &self.options.dialer {
            None => endpoint.connect().await,
            Some(dialer) => {
                let (dialer, address) = (Arc::clone(dialer), address.clone());
                let connector = tower::service_fn(move |_: tonic::transport::Uri| {
                    let dialing = dialer(address.as_str());
                    async move { dialing.await.map(TokioIo::new) }
                });
                endpoint.connect_with_connector(connector).await
            }
        };
        opened.map_err(|error| because(&error))
    }
}

impl Lease {
    /// The node answered.
    pub(crate) fn succeeded(&self) {
        let mut conduct = lock(&self.node.conduct);
        conduct.failures = 0;
        conduct.aside_until = None;
    }

    /// The transport failed: the channel is of no more use, and the node is put aside.
    pub(crate) fn broke(self, why: &str) {
        self.node.failed(why);
        // Who holds the lock is opening a new channel already.
        let Ok(mut held) = self.node.slots[self.slot].try_lock() else {
            return;
        };
        if held.as_ref().is_some_and(|opened| opened.serial == self.serial) {
            *held = None;
        }
    }

    /// The node keeps the connection but did not answer in time: others first, for a while.
    pub(crate) fn was_slow(&self) {
        self.node.failed("no answer in time");
    }
}

impl Node {
    fn new(slots: usize) -> Self {
        Self {
            slots: (0..slots).map(|_| tokio::sync::Mutex::default()).collect(),
            next: AtomicUsize::new(0),
            conduct: Mutex::new(Conduct {
                failures: 0,
                aside_until: None,
                last_failure: None,
                used: Instant::now(),
            }),
        }
    }

    fn failed(&self, why: &str) {
        let mut conduct = lock(&self.conduct);
        let now = Instant::now();
        // Requests that were under way together fail together: that is one failure.
        if conduct.aside_until.is_none_or(|until| until <= now) {
            let aside = ASIDE_MIN * 2_u32.saturating_pow(conduct.failures.min(16));
            conduct.aside_until = Some(now + aside.min(ASIDE_MAX));
            conduct.failures += 1;
        }
        conduct.last_failure = Some((now, why.to_owned()));
    }

    fn failed_since(&self, began: Instant) -> Option<String> {
        let conduct = lock(&self.conduct);
        let (when, why) = conduct.last_failure.as_ref()?;
        (*when > began).then(|| why.clone())
    }

    fn is_aside(&self) -> bool {
        let until = lock(&self.conduct).aside_until;
        until.is_some_and(|until| Instant::now() < until)
    }
}

/// An error with its causes, in one line.
fn because(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Locks, also after a panic elsewhere: no lock of this crate is held while the data is inconsistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_addresses_are_refused_or_are_addresses() {
        let good = ["localhost", "http://node1:7420/", "[::1]:7420", "10.0.0.1:1"];
        triad_fuzz::attack_text("Address::from_str", &good, |text| text.parse::<Address>().ok());
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, wanted) in [
            ("localhost:7420", "localhost:7420"),
            ("http://localhost:7430/", "localhost:7430"),
            (" node-1.example_net ", "node-1.example_net:7420"),
            ("[::1]:7421", "[::1]:7421"),
            ("[::1]", "[::1]:7420"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().as_str(), wanted, "{text}");
        }
    }

    #[test]
    fn wrong_addresses_say_what_is_wrong() {
        for (text, why) in [
            ("", "host"),
            (":7420", "host"),
            ("localhost:0", "port"),
            ("localhost:70000", "port"),
            ("localhost:seven", "port"),
            ("https://localhost:7420", "TLS"),
            ("ftp://localhost", "scheme"),
            ("local host:7420", "host"),
            ("[::zz]:7420", "host"),
            ("::1", "host"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("host:port"), "{text}: {error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_node_is_put_aside_longer_each_time_but_one_burst_counts_once() {
        let node = Node::new(1);
        assert!(!node.is_aside());
        node.failed("refused");
        node.failed("refused");
        assert!(node.is_aside());
        tokio::time::advance(ASIDE_MIN).await;
        assert!(!node.is_aside());
        node.failed("refused");
        tokio::time::advance(ASIDE_MIN).await;
        assert!(node.is_aside(), "the second time it is longer");
        for _ in 0..40 {
            tokio::time::advance(ASIDE_MAX).await;
            assert!(!node.is_aside(), "never longer than the limit");
            node.failed("refused");
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_told_at_once_and_remembered() {
        let closed = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().to_string().parse::<Address>().unwrap()
        };
        let pool = Pool::new(ChannelOptions {
            dialer: None,
            per_node: 2,
            connect_timeout: Duration::from_secs(5),
        });
        let why = pool.lease(&closed, Instant::now() + Duration::from_secs(5)).await.unwrap_err();
        assert!(why.contains("refused"), "{why}");
        assert!(pool.is_aside(&closed));
    }
}
