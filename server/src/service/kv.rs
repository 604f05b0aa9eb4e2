//! `triad.v1.KvService`: Put, Get, Delete.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status};
use tracing::{Instrument, debug, info_span};
use triad_proto::convert::{self, BadField, BucketMode, Limits, RecordKey};
use triad_proto::peer::v1::forward::Request as Forwarded;
use triad_proto::v1;
use triad_proto::v1::kv_service_server::KvService;
use triad_replica::context::Context;
use triad_replica::record::{Change, Request as WriteRequest, Sibling};
use triad_replica::token;
use triad_ring::{RingId, ShardId};

use super::outcome;
use crate::coordinator::error::RequestError;
use crate::coordinator::{self, Asked, Completed, Forwardable, Found, Reply, Write, Written};
use crate::deadline::Deadline;
use crate::door::{self, Door, Place, Shut};
use crate::host::Host;
use crate::local::{Address, Caller};
use crate::node::Node;
use crate::ports::Standing;

/// How long after its deadline a request is broken off.
const OVERDUE: Duration = Duration::from_millis(20);

/// The key service of a node.
pub(crate) struct Keys {
    host: Arc<Host>,
}

impl Keys {
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }

    /// Admits a client's request, runs it, and bounds it by its deadline.
    async fn serve(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
        request: Forwarded,
    ) -> Result<Reply, Status> {
        let timeouts = &self.host.config.timeouts;
        let deadline = Deadline::of_request(metadata, timeouts.request, timeouts.request_max);
        let node = self.host.node().ok_or_else(|| self.host.not_joined())?;
        if self.host.is_draining() {
            let node = node.identity.name.to_string();
            return Err(RequestError::ShuttingDown { node }.into());
        }
        let write = !matches!(request, Forwarded::Get(_));
        if extensions.get::<Standing>() == Some(&Standing::Guest) {
            return Err(coordinator::overloaded(node, too_many_connections(node)).into());
        }
        let door = &self.host.door;
        let place = enter(door, &request).map_err(|shut| coordinator::overloaded(node, shut))?;
        let place = Arc::new(place);
        let trace = format!("{:016x}", node.random_below(u64::MAX));
        let span = info_span!("request", kind = kind(&request), trace);
        let original = Forwardable { request, hops: 0, trace, _place: Some(Arc::clone(&place)) };
        // Every step has this deadline already; this is for a step that hangs.
        let running = run(node, original, deadline).instrument(span.clone());
        let result = tokio::time::timeout_at(deadline.at() + OVERDUE, running).await;
        let overdue = RequestError::Overdue { waited: deadline.waited(), write };
        let result = result.unwrap_or(Err(overdue));
        match &result {
            Ok(_) => place.done(),
            Err(error) => span.in_scope(|| debug!(%error, "request failed")),
        }
        Ok(result?)
    }
}

fn too_many_connections(node: &Node) -> Shut {
    let limit = node.config.limits.connections;
    let why = format!(
        "limits.connections = {limit} clients are connected, and this connection is one more"
    );
    Shut { why, limit: "limits.connections" }
}

/// Lets a request in, or not.
pub(crate) fn enter(door: &Door, request: &Forwarded) -> Result<Place, Shut> {
    let kind = match request {
        Forwarded::Get(_) => door::Kind::Read,
        Forwarded::Put(_) | Forwarded::Delete(_) => door::Kind::Write,
    };
    let bytes = match request {
        Forwarded::Get(get) => get.encoded_len(),
        Forwarded::Put(put) => put.encoded_len(),
        Forwarded::Delete(delete) => delete.encoded_len(),
    };
    door.enter(kind, bytes as u64)
}

fn kind(request: &Forwarded) -> &'static str {
    match request {
        Forwarded::Put(_) => "put",
        Forwarded::Get(_) => "get",
        Forwarded::Delete(_) => "delete",
    }
}

#[tonic::async_trait]
impl KvService for Keys {
    async fn put(
        &self,
        request: Request<v1::PutRequest>,
    ) -> Result<Response<v1::PutResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        match self.serve(&metadata, &extensions, Forwarded::Put(message)).await? {
            Reply::Put(response) => Ok(Response::new(response)),
            Reply::Get(_) | Reply::Delete(_) => Err(wrong_reply()),
        }
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        match self.serve(&metadata, &extensions, Forwarded::Get(message)).await? {
            Reply::Get(response) => Ok(Response::new(response)),
            Reply::Put(_) | Reply::Delete(_) => Err(wrong_reply()),
        }
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        match self.serve(&metadata, &extensions, Forwarded::Delete(message)).await? {
            Reply::Delete(response) => Ok(Response::new(response)),
            Reply::Get(_) | Reply::Put(_) => Err(wrong_reply()),
        }
    }
}

fn wrong_reply() -> Status {
    Status::internal("another node answered a forwarded request with a reply of another kind")
}

/// Runs a request, a client's own or a forwarded one.
pub(crate) async fn run(
    node: &Arc<Node>,
    original: Forwardable,
    deadline: Deadline,
) -> Result<Reply, RequestError> {
    node.retries.earn();
    match original.request.clone() {
        Forwarded::Put(request) => put(node, request, original, deadline).await,
        Forwarded::Get(request) => get(node, request, original, deadline).await,
        Forwarded::Delete(request) => delete(node, request, original, deadline).await,
    }
}

fn limits(node: &Node) -> Limits {
    Limits { value_bytes: node.config.limits.value_bytes as usize, ..Limits::default() }
}

/// The key's address, if its bucket is one that this version serves.
fn address(node: &Node, key: &RecordKey) -> Result<Address, RequestError> {
    let unsupported =
        |mode, prefix| RequestError::UnsupportedMode { bucket: key.bucket.clone(), mode, prefix };
    match key.mode() {
        BucketMode::Strict | BucketMode::Available => {}
        BucketMode::Linearizable => return Err(unsupported("linearizable", "lin.")),
    }
    let shard = shard_of(node, &key.bucket, &key.key);
    Ok(Address { shard, bucket: key.bucket.clone(), key: key.key.clone() })
}

/// The shard of a key.
pub(crate) fn shard_of(node: &Node, bucket: &str, key: &[u8]) -> ShardId {
    node.cluster.shards.shard_of(RingId::of_key(bucket, key))
}

/// The context that a client brought back, if it is one that this cluster gave it for this key.
fn context(node: &Node, at: &Address, sealed: Bytes) -> Result<Option<Context>, RequestError> {
    if sealed.is_empty() {
        return Ok(None);
    }
    let context = token::open(&node.cluster.secret, &at.bucket, &at.key, sealed)
        .map_err(|bad| BadField::context(&bad))?;
    Ok(Some(context))
}

fn refuse_unserved(fields: &[(&'static str, bool)]) -> Result<(), RequestError> {
    match fields.iter().find(|(_, used)| *used) {
        Some((field, _)) => Err(RequestError::UnsupportedField { field }),
        None => Ok(()),
    }
}

async fn put(
    node: &Arc<Node>,
    request: v1::PutRequest,
    original: Forwardable,
    deadline: Deadline,
) -> Result<Reply, RequestError> {
    let key = RecordKey::of_put(&request, &limits(node))?;
    let level = convert::level(request.level)?;
    let at = address(node, &key)?;
    refuse_unserved(&[
        ("if_absent", request.if_absent),
        ("if_version", !request.if_version.is_empty()),
    ])?;
    let context = context(node, &at, request.context)?;
    let value = convert::put_value(request.value_form, &limits(node))?;
    let ttl = convert::ttl(request.ttl.as_ref())?;
    let expires_at = ttl.map(|ttl| node.clock.cluster_ms().saturating_add(millis(ttl)));
    let change = Change::Put { value, expires_at };
    let request_id = asked(node, &key, &request.request_id, request.first_attempt, &change)?;
    // Who asked the wrong node learns the right ones.
    let want_route = request.want_route || original.hops > 0;
    let trace = original.trace.clone();
    let caller = Caller::default();
    let wanted = caller.wants(deadline);
    let write = Write { at: at.clone(), change, context, level, request: request_id, wanted };
    match coordinator::write(node, write, original, deadline).await? {
        Completed::Elsewhere(reply) => Ok(*reply),
        Completed::Here(written) => {
            let Written { dot, client_context, outcome: facts } = *written;
            Ok(Reply::Put(v1::PutResponse {
                context: seal(node, &at, &client_context),
                dot: dot.map(|dot| dot.to_string()).unwrap_or_default(),
                route: want_route.then(|| outcome::route(node, &facts.configuration)),
                outcome: Some(outcome::outcome(node, &facts, trace)),
                version: Bytes::new(),
            }))
        }
    }
}

async fn delete(
    node: &Arc<Node>,
    request: v1::DeleteRequest,
    original: Forwardable,
    deadline: Deadline,
) -> Result<Reply, RequestError> {
    let key = RecordKey::of_delete(&request, &limits(node))?;
    let level = convert::level(request.level)?;
    let at = address(node, &key)?;
    refuse_unserved(&[("if_version", !request.if_version.is_empty())])?;
    let request_id =
        asked(node, &key, &request.request_id, request.first_attempt, &Change::Delete)?;
    let context = context(node, &at, request.context)?;
    // Who asked the wrong node learns the right ones.
    let want_route = request.want_route || original.hops > 0;
    let trace = original.trace.clone();
    let change = Change::Delete;
    let caller = Caller::default();
    let wanted = caller.wants(deadline);
    let write = Write { at: at.clone(), change, context, level, request: request_id, wanted };
    match coordinator::write(node, write, original, deadline).await? {
        Completed::Elsewhere(reply) => Ok(*reply),
        Completed::Here(written) => {
            let Written { client_context, outcome: facts, .. } = *written;
            Ok(Reply::Delete(v1::DeleteResponse {
                context: seal(node, &at, &client_context),
                route: want_route.then(|| outcome::route(node, &facts.configuration)),
                outcome: Some(outcome::outcome(node, &facts, trace)),
            }))
        }
    }
}

async fn get(
    node: &Arc<Node>,
    request: v1::GetRequest,
    original: Forwardable,
    deadline: Deadline,
) -> Result<Reply, RequestError> {
    let key = RecordKey::of_get(&request, &limits(node))?;
    let level = convert::level(request.level)?;
    let at = address(node, &key)?;
    // Who asked the wrong node learns the right ones.
    let want_route = request.want_route || original.hops > 0;
    let trace = original.trace.clone();
    let read = coordinator::Read { at: at.clone(), level };
    match coordinator::get(node, read, original, deadline).await? {
        Completed::Elsewhere(reply) => Ok(*reply),
        Completed::Here(found) => {
            let Found { record, outcome: facts } = *found;
            // What is due is hidden, by the time of this node, and still covered by the context:
            // who writes over it replaces it.
            let now = node.clock.cluster_ms();
            let alive = record.distinct().filter(|(_, one)| !one.is_due(now));
            Ok(Reply::Get(v1::GetResponse {
                siblings: alive.map(|(dot, one)| sibling(dot, one, now, key.as_text)).collect(),
                context: seal(node, &at, record.context()),
                route: want_route.then(|| outcome::route(node, &facts.configuration)),
                outcome: Some(outcome::outcome(node, &facts, trace)),
                version: Bytes::new(),
            }))
        }
    }
}

/// The request that a write is remembered under.
fn asked(
    node: &Node,
    key: &RecordKey,
    id: &Bytes,
    first_attempt: bool,
    change: &Change,
) -> Result<Option<Asked>, RequestError> {
    let Some(id) = convert::request_id(id)? else {
        return Ok(None);
    };
    if key.mode() == BucketMode::Available {
        // Records that are held for members remember no requests.
        return Err(RequestError::UnsupportedField { field: "request_id" });
    }
    let request = WriteRequest::new(&id, change, node.clock.cluster_ms());
    Ok(Some(Asked { request, first_attempt }))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn seal(node: &Node, at: &Address, context: &Context) -> Bytes {
    token::seal(&node.cluster.secret, &at.bucket, &at.key, context)
}

/// A value goes back as text when the key came as text and the value is UTF-8.
fn sibling(dot: &triad_replica::dot::Dot, one: &Sibling, now: u64, as_text: bool) -> v1::Sibling {
    let value = &one.value;
    let text = as_text.then(|| std::str::from_utf8(value).ok()).flatten();
    let value_form = match text {
        Some(text) => v1::sibling::ValueForm::ValueText(text.to_owned()),
        None => v1::sibling::ValueForm::Value(value.clone()),
    };
    let left = one.expires_at.map(|at| Duration::from_millis(at.saturating_sub(now)));
    v1::Sibling {
        value_form: Some(value_form),
        dot: dot.to_string(),
        ttl_remaining: left.and_then(outcome::wire_duration),
    }
}
