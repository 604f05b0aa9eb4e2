//! Reads and writes of records for other nodes.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use prost::Message as _;
use tonic::Status;
use triad_proto::convert::BucketMode;
use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::data_reply::Reply;
use triad_replica::configuration::Epoch;
use triad_replica::hint::HeldRecord;
use triad_replica::record::Record;
use triad_replica::refusal::Refusal;
use triad_replica::start::Start;
use triad_ring::{NodeId, RingId, ShardId};

use super::control::outdated;
use crate::coordinator::{self, Forwardable};
use crate::deadline::Deadline;
use crate::introduce::soon_introduced;
use crate::local::{Address, Wanted, WriteError, decode_record};
use crate::node::Node;
use crate::peers::contact::Sender;
use crate::peers::{Inbound, stamp};
use crate::service::kv;

/// One node's data stream to this node.
pub(super) struct DataInbound {
    node: Arc<Node>,
    /// The start that the stream belongs to; its node asks.
    start: Start,
}

impl DataInbound {
    pub(super) fn new(node: Arc<Node>, sender: &Sender) -> Self {
        Self { node, start: sender.start() }
    }
}

impl Inbound for DataInbound {
    type Batch = wire::DataBatch;
    type Reply = wire::DataReply;
    type ReplyBatch = wire::DataReplyBatch;

    fn accept(
        &mut self,
        batch: wire::DataBatch,
    ) -> Result<Vec<BoxFuture<'static, Option<wire::DataReply>>>, Status> {
        if let Some(distrust) = outdated(&self.node, &self.start) {
            return Err(distrust);
        }
        let from = self.start.member.node;
        let start = |request| answer(Arc::clone(&self.node), from, request).map(Some).boxed();
        Ok(batch.requests.into_iter().map(start).collect())
    }

    fn size(reply: &wire::DataReply) -> usize {
        reply.encoded_len()
    }

    fn pack(&self, replies: Vec<wire::DataReply>) -> wire::DataReplyBatch {
        wire::DataReplyBatch {
            hello: None,
            stamp: Some(stamp(&self.node)),
            replies,
            contacts: Vec::new(),
        }
    }
}

async fn answer(node: Arc<Node>, from: NodeId, request: wire::DataRequest) -> wire::DataReply {
    let id = request.id;
    let reply = match run(&node, from, request).await {
        Ok(reply) => reply,
        Err(WriteError::Refused(refusal)) => Reply::Refusal(refusal.into()),
        Err(error @ (WriteError::Store(_) | WriteError::Known(_))) => {
            Reply::Status(wire::ErrorStatus {
                code: tonic::Code::Unavailable.into(),
                message: error.to_string(),
                details: bytes::Bytes::new(),
            })
        }
    };
    wire::DataReply { id, reply: Some(reply) }
}

async fn run(
    node: &Arc<Node>,
    from: NodeId,
    request: wire::DataRequest,
) -> Result<Reply, WriteError> {
    use wire::data_request::Request;
    let allowed = Duration::from_millis(u64::from(request.deadline_ms));
    let deadline = Deadline::after(allowed.min(node.config.timeouts.request_max));
    if deadline.passed() {
        return Err(Refusal::Overloaded.into()); // its caller has gone: no work for nobody
    }
    let epoch = request.epoch.map_or(Epoch::NONE, Epoch::from);
    let shard = ShardId::new(request.shard);
    soon_introduced(node, shard).await;
    match request.request {
        Some(Request::Merge(merge)) => {
            let at = address(node, shard, merge.bucket, merge.key)?;
            may_bring(node, from, &at)?;
            let stamp = merge.stamp.map_or(epoch, Epoch::from);
            let wanted =
                if merge.background { Wanted::in_background() } else { Wanted::begun(deadline) };
            let record = decode_record(merge.record)?;
            let merged = node.local.merge(at, epoch, stamp, record, wanted).await?;
            let uncovered = merged.uncovered.map(|context| context.encode()).unwrap_or_default();
            Ok(Reply::Merged(wire::Merged { uncovered }))
        }
        Some(Request::Read(read)) => {
            let at = address(node, shard, read.bucket, read.key)?;
            Ok(compared(&node.local.read(&at, epoch)?, &read.digest))
        }
        Some(Request::Hold(hold)) => {
            let at = address(node, shard, hold.bucket.clone(), hold.key.clone())?;
            if BucketMode::of(&at.bucket) != BucketMode::Available {
                return Err(Refusal::HintsFull.into()); // nobody but members has what members lack
            }
            let held = hold_for_members(node, at, hold).await;
            if matches!(held, Err(WriteError::Refused(Refusal::HintsFull))) {
                coordinator::hints_full(node);
            }
            held
        }
        Some(Request::ReadHeld(read)) => {
            let at = address(node, shard, read.bucket, read.key)?;
            let held = node.local.held(&at)?.map(|held| held.record).unwrap_or_default();
            Ok(compared(&held, &read.digest))
        }
        Some(Request::Forward(forward)) => {
            Ok(forwarded(node, forward, request.trace, deadline).await)
        }
        None => Err(Refusal::Damaged.into()),
    }
}

/// The record, unless the asker has the same.
fn compared(record: &Record, digest: &[u8]) -> Reply {
    if record.digest().0.as_slice() == digest {
        return Reply::Same(wire::Same {});
    }
    let record = if record.is_absent() { bytes::Bytes::new() } else { record.encode() };
    Reply::Record(wire::StoredRecord { record })
}

/// Holds a record until the members of its shard have it, or tells whether there would be room.
async fn hold_for_members(
    node: &Arc<Node>,
    at: Address,
    hold: wire::Hold,
) -> Result<Reply, WriteError> {
    let merged = |uncovered| Ok(Reply::Merged(wire::Merged { uncovered }));
    if hold.record.is_empty() {
        let known = node.hints.with(|book| book.held(&at).map_or(0, |entry| entry.bytes));
        let (growth, more) = (hold.bytes.saturating_sub(known), usize::from(known == 0));
        if node.hints.with(|book| book.has_room(growth, more)) {
            return merged(bytes::Bytes::new());
        }
        return Err(Refusal::HintsFull.into());
    }
    let stamp = hold.stamp.map_or(Epoch::NONE, Epoch::from);
    let known = node.directory.get(at.shard);
    if known.is_some_and(|known| stamp <= known.gc_epoch) {
        return Err(Refusal::Collected.into()); // no member would take it
    }
    let record = decode_record(hold.record)?;
    let held = HeldRecord { stamp, since_ms: node.clock.now_ms(), record };
    let uncovered = node.local.hold(at, held).await?.uncovered;
    merged(uncovered.map(|context| context.encode()).unwrap_or_default())
}

/// Records of a shard are merged as its members, present or former, have them. Only writes to `any.` buckets may be
/// brought by others: whoever took one.
fn may_bring(node: &Node, from: NodeId, at: &Address) -> Result<(), Refusal> {
    if BucketMode::of(&at.bucket) == BucketMode::Available
        || crate::moves::acts_as_member(node, from, at.shard)
    {
        return Ok(());
    }
    let newest = node.local.look(at.shard, |replica| replica.newest().cloned()).flatten();
    Err(newest.map_or(Refusal::NotMember { newest: None }, |newest| Refusal::StaleEpoch { newest }))
}

/// A key's address; one that is not in the shard it is said to be in goes nowhere.
fn address(
    node: &Node,
    shard: ShardId,
    bucket: String,
    key: bytes::Bytes,
) -> Result<Address, WriteError> {
    let at = Address { shard, bucket, key };
    if node.cluster.shards.shard_of(RingId::of_key(&at.bucket, &at.key)) == shard {
        Ok(at)
    } else {
        Err(Refusal::Damaged.into())
    }
}

/// Runs a client's request in another node's stead.
async fn forwarded(
    node: &Arc<Node>,
    forward: wire::Forward,
    trace: String,
    deadline: Deadline,
) -> Reply {
    let hops = forward.hops;
    let Some(request) = forward.request else {
        return Reply::Status(coordinator::to_wire(&Status::invalid_argument(
            "nothing was forwarded",
        )));
    };
    let Ok(place) = kv::enter(&node.door, &request) else {
        // Full, or shutting down: nothing was done, and the next member may have room.
        return Reply::Refusal(Refusal::Overloaded.into());
    };
    let place = Arc::new(place);
    let original = Forwardable { request, hops, trace, _place: Some(Arc::clone(&place)) };
    match kv::run(node, original, deadline).await {
        Ok(response) => {
            place.done();
            Reply::Forwarded(wire::Forwarded { response: Some(response) })
        }
        Err(error) => Reply::Status(coordinator::to_wire(&error.into())),
    }
}
