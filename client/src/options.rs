//! What a caller may choose: once for the client, and for each request.

use std::time::Duration;

use triad_proto::v1;
use triad_replica::consistency::Level;

use crate::channel::{Address, ChannelOptions, Dialer, Pool};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::route_cache::RouteCache;

/// Requests that name no bucket go here.
pub const DEFAULT_BUCKET: &str = "default";
/// How long a request may take, retries and all, unless told otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);
/// Servers allow no more than this.
const DEADLINE_MAX: Duration = Duration::from_mins(1);
/// Values from a key with many siblings arrive in one message: 50 of 1 MiB and what is around them.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// The level as it travels.
pub(crate) fn level_to_wire(level: Level) -> i32 {
    let level = match level {
        Level::One => v1::Level::One,
        Level::Quorum => v1::Level::Quorum,
        Level::All => v1::Level::All,
    };
    level.into()
}

/// The level that was applied.
pub(crate) fn level_of_wire(level: v1::Level) -> Level {
    match level {
        v1::Level::One => Level::One,
        v1::Level::All => Level::All,
        v1::Level::Quorum | v1::Level::Unspecified => Level::Quorum,
    }
}

/// Chooses how a [`Client`] reaches the cluster. Made by [`Client::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    settings: Settings,
    channels: ChannelOptions,
    routes_max: usize,
}

/// What all requests of a client share.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) deadline: Duration,
    pub(crate) bucket: String,
    pub(crate) retries: u32,
    pub(crate) repeat_in_doubt: bool,
    pub(crate) response_bytes_max: usize,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            settings: Settings {
                deadline: DEFAULT_DEADLINE,
                bucket: DEFAULT_BUCKET.to_owned(),
                retries: 3,
                repeat_in_doubt: false,
                response_bytes_max: RESPONSE_BYTES_MAX,
            },
            channels: ChannelOptions {
                dialer: None,
                per_node: 2,
                connect_timeout: Duration::from_secs(1),
            },
            routes_max: 65_536,
        }
    }
}

impl ClientBuilder {
    /// Adds a node by which to enter the cluster, as `host:port` (`http://` before it is allowed). One that lives is
    /// enough; name several, so that the death of one does not matter.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// Adds several.
    pub fn endpoints<E: Into<String>>(mut self, endpoints: impl IntoIterator<Item = E>) -> Self {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// Opens connections by another way than TCP.
    pub fn dialer(mut self, dialer: Dialer) -> Self {
        self.channels.dialer = Some(dialer);
        self
    }

    /// How long a request may take, connecting and retries included, unless it chooses its own. Default 5 s; more
    /// than 60 s is taken as 60 s, the most a server allows.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline.min(DEADLINE_MAX);
        self
    }

    /// The bucket of requests that name none. Default: `default`.
    pub fn bucket(mut self, bucket: impl Into<String>) -> Self {
        self.settings.bucket = bucket.into();
        self
    }

    /// How often a request that provably had no effect is sent again after a short pause, within its deadline.
    /// Default 3. Going on to another node because one cannot be reached is not counted. 0: never. All of this
    /// only while the client's budget lasts: one retry for ten requests, twenty at once.
    pub fn retries(mut self, retries: u32) -> Self {
        self.settings.retries = retries;
        self
    }

    /// Whether every write gets a request id by itself and is sent again under it, until its deadline, while it is in
    /// doubt. Default false, so that a write in doubt is reported: a first attempt that reached a minority of the
    /// replicas can show up as a sibling after its repetition was acknowledged and replaced.
    pub fn repeat_in_doubt(mut self, repeat: bool) -> Self {
        self.settings.repeat_in_doubt = repeat;
        self
    }

    /// How many connections to keep to each node: 1 to 16, default 2. More help when one core of the client is not
    /// enough for the traffic of one connection.
    pub fn channels_per_node(mut self, channels: usize) -> Self {
        self.channels.per_node = channels.clamp(1, 16);
        self
    }

    /// How long opening a connection may take before the next node is tried. Default 1 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.channels.connect_timeout = timeout;
        self
    }

    /// How many shards' routes to remember. Default 65,536, the most shards a cluster can have.
    pub fn routes_max(mut self, routes: usize) -> Self {
        self.routes_max = routes;
        self
    }

    /// Makes the client and proves that an endpoint answers.
    pub async fn connect(self) -> Result<Client> {
        let client = self.connect_lazy()?;
        client.greet().await?;
        Ok(client)
    }

    /// Makes the client without sending anything: connections are opened by the first requests. For programs that
    /// may start before the cluster.
    pub fn connect_lazy(self) -> Result<Client> {
        let mut endpoints: Vec<Address> = Vec::with_capacity(self.endpoints.len());
        for text in &self.endpoints {
            let address = text.parse()?;
            if !endpoints.contains(&address) {
                endpoints.push(address);
            }
        }
        if endpoints.is_empty() {
            return Err(Error::Endpoint(
                "".parse::<Address>().expect_err("an empty text is no address"),
            ));
        }
        let pool = Pool::new(self.channels);
        Ok(Client::new(endpoints, self.settings, pool, RouteCache::new(self.routes_max)))
    }
}

/// The choices that all requests have.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) bucket: Option<String>,
    pub(crate) level: Level,
    pub(crate) deadline: Option<Duration>,
}

impl Default for Common {
    fn default() -> Self {
        Self { bucket: None, level: Level::Quorum, deadline: None }
    }
}
