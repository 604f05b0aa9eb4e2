//! The client: `put`, `get` and `delete`, each a request that is chosen step by step and then awaited.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use triad_proto::v1;
use triad_proto::v1::kv_service_client::KvServiceClient;
use triad_replica::consistency::Level;
use triad_ring::RingId;

use crate::budget::Budget;
use crate::channel::{Address, Pool};
use crate::cluster::Cluster;
use crate::error::Result;
use crate::options::{ClientBuilder, Common, Settings, level_to_wire};
use crate::reply::{Context, Deleted, Versioned, Written};
use crate::retry::{Kind, Trip, order, run};
use crate::route_cache::RouteCache;

/// A connection to a cluster. Cheap to clone; clones share connections and what was learned of the cluster.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    endpoints: Vec<Address>,
    pub(crate) settings: Settings,
    pub(crate) pool: Pool,
    routes: RouteCache,
    budget: Arc<Budget>,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

impl Client {
    /// Connects by any of these endpoints (`host:port`), with the default choices.
    pub async fn connect<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Result<Self> {
        Self::builder().endpoints(endpoints).connect().await
    }

    /// Connects with choices.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Writes a value: `client.put("key", "value").await`. Without [`Put::context`] it replaces what is there.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Put<'_> {
        Put {
            client: self,
            key: Bytes::copy_from_slice(key.as_ref()),
            value: value.into(),
            context: Context::default(),
            ttl: None,
            request_id: RequestId::default(),
            common: Common::default(),
        }
    }

    /// Reads a key: `client.get("key").await`. An absent key is no error.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Get<'_> {
        Get { client: self, key: Bytes::copy_from_slice(key.as_ref()), common: Common::default() }
    }

    /// Deletes a key: `client.delete("key").await`. Without [`Delete::context`] everything goes.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Delete<'_> {
        Delete {
            client: self,
            key: Bytes::copy_from_slice(key.as_ref()),
            context: Context::default(),
            request_id: RequestId::default(),
            common: Common::default(),
        }
    }

    /// Looks at the cluster itself.
    pub fn cluster(&self) -> Cluster<'_> {
        Cluster::new(self)
    }

    /// The endpoints it was made with.
    pub fn endpoints(&self) -> &[Address] {
        &self.inner.endpoints
    }

    pub(crate) fn new(
        endpoints: Vec<Address>,
        settings: Settings,
        pool: Pool,
        routes: RouteCache,
    ) -> Self {
        let inner = Inner { endpoints, settings, pool, routes, budget: Arc::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Proves that an endpoint answers.
    pub(crate) async fn greet(&self) -> Result<()> {
        self.cluster().readiness().await.map(drop)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.inner.endpoints).finish_non_exhaustive()
    }
}

/// The choices that every request has.
macro_rules! common_choices {
    () => {
        /// The bucket; otherwise the client's, which is `default` unless the builder chose another.
        pub fn bucket(mut self, bucket: impl Into<String>) -> Self {
            self.common.bucket = Some(bucket.into());
            self
        }

        /// How many replicas must answer. Default: [`Level::Quorum`].
        pub fn level(mut self, level: Level) -> Self {
            self.common.level = level;
            self
        }

        /// How long it may take, connecting and retries included. Default: the client's.
        pub fn deadline(mut self, deadline: Duration) -> Self {
            self.common.deadline = Some(deadline);
            self
        }
    };
}

/// The choice of those that write.
macro_rules! context_choice {
    () => {
        /// What the writer has seen: the context of an earlier read or write of this very bucket and key. What it has
        /// not seen stays as a sibling.
        pub fn context(mut self, context: &Context) -> Self {
            self.context = context.clone();
            self
        }

        /// An id of your own choice, to repeat the write later under it: for a program that may end in between.
        /// An id names one write of one key; a repetition within two
        /// minutes that finds it done changes nothing.
        pub fn request_id(mut self, id: [u8; 16]) -> Self {
            self.request_id = RequestId::Chosen(id);
            self
        }
    };
}

/// A write to be sent: await it.
#[derive(Debug, Clone)]
#[must_use = "a put is sent when it is awaited"]
pub struct Put<'a> {
    client: &'a Client,
    key: Bytes,
    value: Bytes,
    context: Context,
    ttl: Option<Duration>,
    request_id: RequestId,
    common: Common,
}

/// A read to be sent: await it.
#[derive(Debug, Clone)]
#[must_use = "a get is sent when it is awaited"]
pub struct Get<'a> {
    client: &'a Client,
    key: Bytes,
    common: Common,
}

/// A deletion to be sent: await it.
#[derive(Debug, Clone)]
#[must_use = "a delete is sent when it is awaited"]
pub struct Delete<'a> {
    client: &'a Client,
    key: Bytes,
    context: Context,
    request_id: RequestId,
    common: Common,
}

impl Put<'_> {
    common_choices!();
    context_choice!();

    /// How long the value lives: 1 ms to 36,500 days. Otherwise it stays.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

impl Get<'_> {
    common_choices!();
}

impl Delete<'_> {
    common_choices!();
    context_choice!();
}

impl<'a> IntoFuture for Put<'a> {
    type Output = Result<Written>;
    type IntoFuture = Answer<'a, Written>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let named = self.client.named(self.request_id, &self.common);
            let errand = self.client.errand(named.kind, &self.common, &self.key);
            let message = v1::PutRequest {
                bucket: errand.bucket.clone(),
                key_form: Some(v1::put_request::KeyForm::Key(self.key)),
                value_form: Some(v1::put_request::ValueForm::Value(self.value)),
                context: self.context.as_bytes().clone(),
                level: level_to_wire(self.common.level),
                request_id: named.id,
                first_attempt: named.first_attempt,
                ttl: self.ttl.map(ttl_to_wire),
                want_route: errand.want_route,
                ..Default::default()
            };
            let send = |mut kv: Kv, request| async move { kv.put(request).await };
            self.client.call(errand, message, send).await.map(Written::from)
        })
    }
}

impl<'a> IntoFuture for Get<'a> {
    type Output = Result<Versioned>;
    type IntoFuture = Answer<'a, Versioned>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let errand = self.client.errand(Kind::Read, &self.common, &self.key);
            let message = v1::GetRequest {
                bucket: errand.bucket.clone(),
                key_form: Some(v1::get_request::KeyForm::Key(self.key)),
                level: level_to_wire(self.common.level),
                want_route: errand.want_route,
            };
            let send = |mut kv: Kv, request| async move { kv.get(request).await };
            self.client.call(errand, message, send).await.map(Versioned::from)
        })
    }
}

impl<'a> IntoFuture for Delete<'a> {
    type Output = Result<Deleted>;
    type IntoFuture = Answer<'a, Deleted>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let named = self.client.named(self.request_id, &self.common);
            let errand = self.client.errand(named.kind, &self.common, &self.key);
            let message = v1::DeleteRequest {
                bucket: errand.bucket.clone(),
                key_form: Some(v1::delete_request::KeyForm::Key(self.key)),
                context: self.context.as_bytes().clone(),
                level: level_to_wire(self.common.level),
                request_id: named.id,
                first_attempt: named.first_attempt,
                want_route: errand.want_route,
                ..Default::default()
            };
            let send = |mut kv: Kv, request| async move { kv.delete(request).await };
            self.client.call(errand, message, send).await.map(Deleted::from)
        })
    }
}

impl Client {
    /// Buckets that take writes whatever happens know no ids.
    fn named(&self, id: RequestId, common: &Common) -> Named {
        id.name(self.inner.settings.repeat_in_doubt && !self.bucket(common).starts_with("any."))
    }
}

/// Under which id a write is sent.
#[derive(Debug, Clone, Copy, Default)]
enum RequestId {
    /// A new one if the client may repeat by itself, else none.
    #[default]
    New,
    /// The caller's, who may have used it before.
    Chosen([u8; 16]),
}

/// A write's id as it is sent.
struct Named {
    id: Bytes,
    first_attempt: bool,
    kind: Kind,
}

impl RequestId {
    fn name(self, may_repeat: bool) -> Named {
        let mut id = [0; 16];
        match self {
            Self::Chosen(chosen) => id = chosen,
            // Without randomness there is no id, and so no repetition.
            Self::New if !may_repeat || getrandom::fill(&mut id).is_err() => {
                return Named { id: Bytes::new(), first_attempt: false, kind: Kind::Write };
            }
            Self::New => {}
        }
        Named {
            id: Bytes::copy_from_slice(&id),
            first_attempt: matches!(self, Self::New),
            kind: Kind::NamedWrite,
        }
    }
}

/// A time to live for the server to judge: one that its type cannot hold is sent as the longest.
fn ttl_to_wire(ttl: Duration) -> prost_types::Duration {
    let longest = prost_types::Duration { seconds: i64::MAX, nanos: 0 };
    prost_types::Duration::try_from(ttl).unwrap_or(longest)
}

/// A message that may be sent a second time.
trait Repeatable {
    /// From now on it is not the first attempt any more.
    fn repeat(&mut self);
}

impl Repeatable for v1::PutRequest {
    fn repeat(&mut self) {
        self.first_attempt = false;
    }
}

impl Repeatable for v1::DeleteRequest {
    fn repeat(&mut self) {
        self.first_attempt = false;
    }
}

impl Repeatable for v1::GetRequest {
    fn repeat(&mut self) {}
}

type Kv = KvServiceClient<Channel>;

/// A request on its way: where its key lives, and whom to ask.
struct Errand {
    bucket: String,
    id: RingId,
    want_route: bool,
    trip: Trip,
}

/// The replies that teach the route cache.
trait Teaching {
    fn lesson(&self) -> (Option<&v1::Route>, Option<&v1::Outcome>);
}

macro_rules! teaching {
    ($($reply:ty),*) => {$(
        impl Teaching for $reply {
            fn lesson(&self) -> (Option<&v1::Route>, Option<&v1::Outcome>) {
                (self.route.as_ref(), self.outcome.as_ref())
            }
        }
    )*};
}

teaching!(v1::PutResponse, v1::GetResponse, v1::DeleteResponse);

impl Client {
    fn bucket<'a>(&'a self, common: &'a Common) -> &'a str {
        common.bucket.as_deref().unwrap_or(&self.inner.settings.bucket)
    }

    fn errand(&self, kind: Kind, common: &Common, key: &[u8]) -> Errand {
        let bucket = self.bucket(common).to_owned();
        let id = RingId::of_key(&bucket, key);
        let plan = self.inner.routes.plan(id);
        let trip = self.trip(kind, &plan.members, common.deadline);
        Errand { bucket, id, want_route: plan.want_route, trip }
    }

    /// The conditions of a request that these nodes should answer, or else any other.
    pub(crate) fn trip(&self, kind: Kind, members: &[Address], deadline: Option<Duration>) -> Trip {
        let began = Instant::now();
        Trip {
            kind,
            candidates: order(&self.inner.pool, members, &self.inner.endpoints),
            anyone: true,
            began,
            deadline: began + deadline.unwrap_or(self.inner.settings.deadline),
            retries: self.inner.settings.retries,
            budget: Arc::clone(&self.inner.budget),
            repeats: AtomicBool::new(false),
        }
    }

    async fn call<M, R, F, S>(&self, errand: Errand, message: M, send: F) -> Result<R>
    where
        M: Clone + Repeatable,
        R: Teaching,
        F: Fn(Kv, Request<M>) -> S,
        S: Future<Output = std::result::Result<Response<R>, Status>>,
    {
        let bytes_max = self.inner.settings.response_bytes_max;
        let over = |channel, mut request: Request<M>| {
            if errand.trip.repeats.load(Ordering::Relaxed) {
                request.get_mut().repeat();
            }
            let kv = KvServiceClient::new(channel).max_decoding_message_size(bytes_max);
            send(kv, request)
        };
        let result = run(&self.inner.pool, &errand.trip, message, over).await;
        match result {
            Ok(reply) => {
                let (route, outcome) = reply.lesson();
                self.inner.routes.mend(errand.id, route, outcome);
                Ok(reply)
            }
            Err(error) => {
                self.inner.routes.distrust(errand.id);
                Err(error)
            }
        }
    }
}
