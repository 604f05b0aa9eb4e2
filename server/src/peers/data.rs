//! Requests about records, as they are put on the wire, and what their replies mean.

use bytes::Bytes;
use triad_proto::peer::v1 as wire;
use triad_replica::configuration::{Configuration, Epoch};
use triad_replica::consistency::Failure;
use triad_replica::context::Context;
use triad_replica::get::GetAnswer;
use triad_replica::put::PutAnswer;
use triad_replica::record::{Record, RecordDigest};
use triad_replica::refusal::Refusal;

use triad_ring::ShardId;

use super::LinkError;
use crate::coordinator::Forwardable;
use crate::deadline::Deadline;
use crate::local::{Address, Merged, WriteError};

/// What a forwarded request leaves of its deadline for the way back, in milliseconds.
const WAY_BACK_MS: u32 = 20;

fn request(
    at: &Address,
    epoch: Epoch,
    deadline: Deadline,
    request: wire::data_request::Request,
) -> wire::DataRequest {
    wire::DataRequest {
        id: 0, // given by the stream
        deadline_ms: deadline.left_ms(),
        trace: String::new(),
        shard: at.shard.get(),
        epoch: Some(epoch.into()),
        request: Some(request),
    }
}

/// Asks a replica that serves `epoch` to merge a record that was made in the epoch `stamp`.
pub(crate) fn merge_request(
    at: &Address,
    epoch: Epoch,
    stamp: Epoch,
    record: &Bytes,
    deadline: Deadline,
) -> wire::DataRequest {
    let merge = wire::Merge {
        bucket: at.bucket.clone(),
        key: at.key.clone(),
        record: record.clone(),
        stamp: (stamp != epoch).then(|| stamp.into()),
        background: false,
    };
    request(at, epoch, deadline, wire::data_request::Request::Merge(merge))
}

/// The same, to be done if the replica has time: a repair, a hint, nothing that a client waits for.
pub(crate) fn in_background(mut request: wire::DataRequest) -> wire::DataRequest {
    if let Some(wire::data_request::Request::Merge(merge)) = &mut request.request {
        merge.background = true;
    }
    request
}

/// Asks a replica for its record, or whether it has the one with this digest.
pub(crate) fn read_request(
    at: &Address,
    epoch: Epoch,
    digest: RecordDigest,
    deadline: Deadline,
) -> wire::DataRequest {
    let digest = Bytes::copy_from_slice(&digest.0);
    let read = wire::Read { bucket: at.bucket.clone(), key: at.key.clone(), digest };
    request(at, epoch, deadline, wire::data_request::Request::Read(read))
}

/// Asks a node to hold a record for the members of its shard.
pub(crate) fn hold_request(
    at: &Address,
    stamp: Epoch,
    record: &Bytes,
    deadline: Deadline,
) -> wire::DataRequest {
    let hold = wire::Hold {
        bucket: at.bucket.clone(),
        key: at.key.clone(),
        record: record.clone(),
        stamp: Some(stamp.into()),
        bytes: 0,
    };
    request(at, stamp, deadline, wire::data_request::Request::Hold(hold))
}

/// Asks a node whether it would hold a record of about so many bytes.
pub(crate) fn may_hold_request(at: &Address, bytes: u64, deadline: Deadline) -> wire::DataRequest {
    let hold = wire::Hold {
        bucket: at.bucket.clone(),
        key: at.key.clone(),
        bytes,
        ..wire::Hold::default()
    };
    request(at, Epoch::NONE, deadline, wire::data_request::Request::Hold(hold))
}

/// Asks a node for what it holds for the members of a shard.
pub(crate) fn read_held_request(
    at: &Address,
    digest: RecordDigest,
    deadline: Deadline,
) -> wire::DataRequest {
    let digest = Bytes::copy_from_slice(&digest.0);
    let read = wire::ReadHeld { bucket: at.bucket.clone(), key: at.key.clone(), digest };
    request(at, Epoch::NONE, deadline, wire::data_request::Request::ReadHeld(read))
}

/// Asks a replica for its record, whatever the asker has.
pub(crate) fn whole_record_request(
    at: &Address,
    epoch: Epoch,
    deadline: Deadline,
) -> wire::DataRequest {
    let read = wire::Read { bucket: at.bucket.clone(), key: at.key.clone(), digest: Bytes::new() };
    request(at, epoch, deadline, wire::data_request::Request::Read(read))
}

/// Asks a member to run a client's request.
pub(crate) fn forward_request(
    shard: ShardId,
    original: &Forwardable,
    deadline: Deadline,
) -> wire::DataRequest {
    let forward =
        wire::Forward { hops: original.hops + 1, request: Some(original.request.clone()) };
    wire::DataRequest {
        id: 0,
        // The answer needs a moment to come back.
        deadline_ms: deadline.left_ms().saturating_sub(WAY_BACK_MS).max(1),
        trace: original.trace.clone(),
        shard: shard.get(),
        epoch: None,
        request: Some(wire::data_request::Request::Forward(forward)),
    }
}

/// A member's part in a write.
pub(crate) struct MergeAnswer {
    pub(crate) answer: PutAnswer,
    /// The configuration it knows, if it refused for that.
    pub(crate) newest: Option<Configuration>,
}

impl MergeAnswer {
    fn failed(failure: Failure) -> Self {
        Self { answer: PutAnswer::Failed(failure), newest: None }
    }

    fn refused(refusal: Refusal) -> Self {
        let (failure, newest) = refused(refusal);
        Self { answer: PutAnswer::Failed(failure), newest }
    }
}

/// What a reply to [`merge_request`] means.
pub(crate) fn merge_answer(reply: Result<wire::DataReply, LinkError>) -> MergeAnswer {
    use wire::data_reply::Reply;
    match reply.map(|reply| reply.reply) {
        Ok(Some(Reply::Merged(merged))) => {
            let uncovered =
                (!merged.uncovered.is_empty()).then(|| Context::decode(merged.uncovered));
            match uncovered.transpose() {
                Ok(uncovered) => {
                    MergeAnswer { answer: PutAnswer::Stored { uncovered }, newest: None }
                }
                Err(_) => MergeAnswer::failed(Failure::Unreachable),
            }
        }
        Ok(Some(Reply::Refusal(refusal))) => match Refusal::try_from(refusal) {
            Ok(refusal) => MergeAnswer::refused(refusal),
            Err(_) => MergeAnswer::failed(Failure::Unreachable),
        },
        Ok(_) => MergeAnswer::failed(Failure::Unreachable),
        Err(error) => MergeAnswer::failed(link_failure(&error)),
    }
}

/// The same for the own store.
pub(crate) fn own_merge_answer(merged: Result<Merged, WriteError>) -> MergeAnswer {
    match merged {
        Ok(Merged { uncovered }) => {
            MergeAnswer { answer: PutAnswer::Stored { uncovered }, newest: None }
        }
        Err(WriteError::Refused(refusal)) => MergeAnswer::refused(refusal),
        Err(WriteError::Store(_) | WriteError::Known(_)) => {
            MergeAnswer::failed(Failure::Unreachable)
        }
    }
}

/// A member's part in a read, and the configuration it knows if it refused for that.
pub(crate) fn read_answer(
    reply: Result<wire::DataReply, LinkError>,
) -> (GetAnswer, Option<Configuration>) {
    use wire::data_reply::Reply;
    let broken = || (GetAnswer::Failed(Failure::Unreachable), None);
    match reply.map(|reply| reply.reply) {
        Ok(Some(Reply::Same(_))) => (GetAnswer::Same, None),
        Ok(Some(Reply::Record(stored))) if stored.record.is_empty() => {
            (GetAnswer::Record(Record::default()), None)
        }
        Ok(Some(Reply::Record(stored))) => match Record::decode(stored.record) {
            Ok(record) => (GetAnswer::Record(record), None),
            Err(_) => (GetAnswer::Failed(Failure::Damaged), None),
        },
        Ok(Some(Reply::Refusal(refusal))) => match Refusal::try_from(refusal) {
            Ok(refusal) => {
                let (failure, newest) = refused(refusal);
                (GetAnswer::Failed(failure), newest)
            }
            Err(_) => broken(),
        },
        Ok(_) => broken(),
        Err(error) => (GetAnswer::Failed(link_failure(&error)), None),
    }
}

fn refused(refusal: Refusal) -> (Failure, Option<Configuration>) {
    let failure = Failure::from(&refusal);
    let newest = match refusal {
        Refusal::StaleEpoch { newest } => Some(newest),
        Refusal::NotMember { newest } => newest,
        _ => None,
    };
    (failure, newest)
}

fn link_failure(error: &LinkError) -> Failure {
    match error {
        LinkError::NotSent(_) | LinkError::Lost => Failure::Unreachable,
        LinkError::Full => Failure::Overloaded,
    }
}
