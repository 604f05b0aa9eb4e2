//! A node that is not the one to run a request passes it on to one that is.

use std::sync::Arc;
use std::time::Duration;

use triad_proto::peer::v1 as wire;
use triad_replica::configuration::Configuration;
use triad_replica::consistency::{Failure, Level, Operation, ReplicaResult, Requirement};
use triad_replica::refusal::Refusal;
use triad_ring::{NodeId, ShardId};

use super::error::{Progress, RequestError};
use super::locate::{locate, refresh};
use super::room::roomy_first;
use super::{HOPS_MAX, before_any_answer};
use crate::deadline::Deadline;
use crate::door::{Place, Shut};
use crate::node::Node;
use crate::peers::LinkError;
use crate::peers::data::forward_request;
use crate::service::is_no_space;

/// What a node that ran a forwarded request answered.
pub(crate) type Reply = wire::forwarded::Response;

/// A request in the form in which it can be passed on.
#[derive(Clone, Debug)]
pub(crate) struct Forwardable {
    /// The client's own message.
    pub(crate) request: wire::forward::Request,
    /// How often it was passed on already.
    pub(crate) hops: u32,
    /// Names the request in the logs of all nodes that it meets.
    pub(crate) trace: String,
    /// Its place among the node's requests in flight; kept as long as anybody works on it.
    pub(crate) _place: Option<Arc<Place>>,
}

impl Forwardable {
    /// Running a Get twice does no harm.
    fn is_repeatable(&self) -> bool {
        matches!(self.request, wire::forward::Request::Get(_))
    }

    /// Reads and deletes need no room.
    fn needs_room(&self) -> bool {
        matches!(self.request, wire::forward::Request::Put(_))
    }

    /// Whether those to whom it is passed on may not pass it on themselves.
    fn is_at_its_last_hop(&self) -> bool {
        self.hops + 1 >= HOPS_MAX
    }
}

/// Passes a request on to the members of its shard, the most likely first. The next one is
/// asked only when the last certainly did nothing. None when nobody did anything and this node
/// itself is by now, as `able` finds, one that may run it.
pub(crate) async fn forward(
    node: &Arc<Node>,
    shard: ShardId,
    level: Level,
    original: &Forwardable,
    able: impl Fn(&Node, &Configuration) -> bool,
    deadline: Deadline,
) -> Result<Option<Reply>, RequestError> {
    if original.hops >= HOPS_MAX {
        // Everybody on the way knew another configuration: it is changing right now.
        tokio::time::sleep(node.spread(Duration::from_millis(5))).await;
        refresh(node, shard).await;
        if original.hops > 2 * HOPS_MAX {
            return Err(RequestError::NotLocated { shard });
        }
    }
    loop {
        let configuration = locate(node, shard, deadline).await?;
        if able(node, &configuration) {
            return Ok(None);
        }
        let members = candidates(node, &configuration, original);
        let passed = pass_on(node, &configuration, level, original, members, deadline);
        if let Some(reply) = passed.await? {
            return Ok(Some(reply));
        }
        if deadline.left() < Duration::from_millis(20) || !node.may_try_again() {
            let repeatable = original.is_repeatable();
            return Err(nobody_answers(node, &configuration, level, repeatable, deadline));
        }
        // Nobody can be reached now: either all are gone, or we know an old configuration.
        tokio::time::sleep(node.spread(Duration::from_millis(50)).min(deadline.left())).await;
        refresh(node, shard).await;
    }
}

/// Passes a request on to these nodes, one after the other, as long as this node may try again. None
/// when all of them certainly did nothing; an error when one of them could not for too much work, or for want
/// of room.
pub(super) async fn pass_on(
    node: &Arc<Node>,
    configuration: &Configuration,
    level: Level,
    original: &Forwardable,
    nodes: Vec<NodeId>,
    deadline: Deadline,
) -> Result<Option<Reply>, RequestError> {
    let (mut busy, mut full) = (None, None);
    for (tried, member) in nodes.into_iter().enumerate() {
        if tried > 0 && !node.may_try_again() {
            break;
        }
        let request = forward_request(configuration.shard, original, deadline);
        // A Get that hangs at one member goes on to another.
        let left = deadline.left();
        let patience =
            if original.is_repeatable() { node.config.timeouts.peer.min(left) } else { left };
        match node.peers.data(member, request).within(patience).await.map(understand) {
            // Who may pass a write on has asked the other members itself.
            Ok(Understood::NoRoom(status)) if original.is_at_its_last_hop() => full = Some(status),
            Ok(Understood::NoRoom(status)) => return Err(RequestError::Forwarded(status)),
            Ok(Understood::Done(result)) => return result.map(Some),
            Ok(Understood::Busy) | Err(LinkError::Full) => busy = Some(member),
            Ok(Understood::NotDone) | Err(LinkError::NotSent(_)) => {}
            Ok(Understood::Nonsense) | Err(LinkError::Lost) if original.is_repeatable() => {}
            Ok(Understood::Nonsense) | Err(LinkError::Lost) => {
                let asked = Asked { configuration, level, member };
                return Err(asked.in_doubt(node, deadline));
            }
        }
    }
    match (busy, full) {
        (Some(member), _) => Err(member_overloaded(node, member)),
        (None, Some(status)) => Err(RequestError::Forwarded(status)),
        (None, None) => Ok(None),
    }
}

/// The members to ask, old ones first: newcomers of a joint epoch can neither read nor mint.
pub(super) fn candidates(
    node: &Node,
    configuration: &Configuration,
    original: &Forwardable,
) -> Vec<NodeId> {
    let others = |members: &[triad_replica::member::Member]| {
        let nodes = members.iter().map(|m| m.node).filter(|id| *id != node.me());
        let mut nodes = node.by_liveness(nodes);
        if original.needs_room() {
            roomy_first(&mut nodes, |id| node.liveness(id), |id| node.room.is_full(id));
        }
        nodes
    };
    let mut nodes = others(configuration.read_set());
    for newcomer in others(configuration.new_set()) {
        if !nodes.contains(&newcomer) {
            nodes.push(newcomer);
        }
    }
    nodes
}

/// What a reply to a forwarded request says.
#[allow(clippy::large_enum_variant)] // made and taken apart at once
enum Understood {
    /// It was run; this came of it.
    Done(Result<Reply, RequestError>),
    /// It was refused: nothing happened.
    NotDone,
    /// The same, for too much work.
    Busy,
    /// It was refused for want of room, as this status tells the client: nothing happened.
    NoRoom(tonic::Status),
    /// It makes no sense.
    Nonsense,
}

fn understand(reply: wire::DataReply) -> Understood {
    use wire::data_reply::Reply as Wire;
    match reply.reply {
        Some(Wire::Forwarded(forwarded)) => match forwarded.response {
            Some(response) => Understood::Done(Ok(response)),
            None => Understood::Nonsense,
        },
        Some(Wire::Status(status)) => {
            let status = from_wire(&status);
            if is_no_space(&status) {
                Understood::NoRoom(status)
            } else {
                Understood::Done(Err(RequestError::Forwarded(status)))
            }
        }
        Some(Wire::Refusal(refusal)) => match Refusal::try_from(refusal) {
            Ok(Refusal::Overloaded) => Understood::Busy,
            _ => Understood::NotDone,
        },
        _ => Understood::Nonsense,
    }
}

/// A status as another node wrote it.
fn from_wire(status: &wire::ErrorStatus) -> tonic::Status {
    let code = tonic::Code::from_i32(status.code);
    tonic::Status::with_details(code, status.message.clone(), status.details.clone())
}

/// A status on its way to another node.
pub(crate) fn to_wire(status: &tonic::Status) -> wire::ErrorStatus {
    wire::ErrorStatus {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: status.details().to_vec().into(),
    }
}

/// How far a forwarded request came, as far as the node that forwarded it knows.
fn progress(
    node: &Node,
    configuration: &Configuration,
    level: Level,
    operation: Operation,
    result: impl Fn(NodeId) -> ReplicaResult,
) -> Progress {
    let requirement = Requirement::new(level, configuration, operation);
    before_any_answer(node, level, configuration, &requirement, |member| result(member.node))
}

/// A member that was asked to run a write, and of which nothing more was heard.
struct Asked<'a> {
    configuration: &'a Configuration,
    level: Level,
    member: NodeId,
}

impl Asked<'_> {
    fn in_doubt(&self, node: &Node, deadline: Deadline) -> RequestError {
        let passed = deadline.passed();
        let silence = if passed { Failure::Timeout } else { Failure::Unreachable };
        let result = |other| {
            if other == self.member {
                ReplicaResult::Failed(silence)
            } else {
                ReplicaResult::Pending
            }
        };
        let progress = progress(node, self.configuration, self.level, Operation::Write, result);
        if passed {
            RequestError::WriteInDoubtAtDeadline { progress, waited: deadline.waited() }
        } else {
            RequestError::WriteInDoubt(progress)
        }
    }
}

/// No member could be asked, or none that was asked to read has answered.
fn nobody_answers(
    node: &Node,
    configuration: &Configuration,
    level: Level,
    read: bool,
    deadline: Deadline,
) -> RequestError {
    let operation = if read { Operation::Read } else { Operation::Write };
    let silent = |_| ReplicaResult::Failed(Failure::Unreachable);
    let progress = progress(node, configuration, level, operation, silent);
    match (read, deadline.passed()) {
        (_, true) => RequestError::DeadlineExceeded { progress, waited: deadline.waited() },
        (true, false) => RequestError::ReadQuorumNotMet(progress),
        (false, false) => RequestError::QuorumNotMet(progress),
    }
}

/// The node sheds load. The clients that are told so do not come back all at once.
pub(crate) fn overloaded(node: &Node, shut: Shut) -> RequestError {
    let Shut { why, limit } = shut;
    let limit = Some(limit);
    node.door.count_refused(&why);
    let least = node.door.retry_after(node.local.expected_wait());
    let more = node.random_below(u64::try_from(least.as_micros()).unwrap_or(u64::MAX));
    let retry_after = least + Duration::from_micros(more);
    RequestError::Overloaded { node: node.identity.name.to_string(), why, limit, retry_after }
}

/// The same, for a member that was asked in vain.
fn member_overloaded(node: &Node, member: NodeId) -> RequestError {
    too_busy(node, node.book.name(member), "no member of the shard could take the request")
}

/// The same, for a write that the commit queue has refused.
pub(crate) fn queue_overloaded(node: &Node) -> RequestError {
    let (wait, longest) = (node.local.expected_wait(), node.config.limits.queue_wait);
    let why = format!(
        "a write would wait {wait:?} for its turn to be committed, past its deadline or limits.queue_wait = {longest:?}"
    );
    overloaded(node, Shut { why, limit: "limits.queue_wait" })
}

/// This node has tried again on behalf of others for so many requests that this one has to come back.
pub(super) fn tried_too_often(node: &Node) -> RequestError {
    let why = "too many requests had to be tried again, and this one would have to be, too";
    too_busy(node, node.identity.name.to_string(), why)
}

/// Too much for `busy`, by no setting of this node.
fn too_busy(node: &Node, busy: String, why: &str) -> RequestError {
    let retry_after = node.spread(2 * node.door.retry_after(Duration::ZERO));
    RequestError::Overloaded { node: busy, why: why.to_owned(), limit: None, retry_after }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_refusal_for_want_of_room_lets_the_next_member_be_asked_and_no_other_answer_does() {
        let progress = || Progress {
            level: Level::Quorum,
            needed: 2,
            acknowledged: 0,
            replicas: Vec::new(),
            shard: ShardId::new(0),
            epoch: None,
        };
        let told = |error: RequestError| {
            let reply = Some(wire::data_reply::Reply::Status(to_wire(&error.into())));
            understand(wire::DataReply { reply, ..wire::DataReply::default() })
        };
        assert!(matches!(told(RequestError::NoSpace(progress())), Understood::NoRoom(_)));
        let doubt = told(RequestError::WriteInDoubt(progress()));
        assert!(matches!(doubt, Understood::Done(Err(_))), "it may have been written");
        let siblings = told(RequestError::SiblingLimit { size: 2, limit: 1 });
        assert!(matches!(siblings, Understood::Done(Err(_))), "all members have them");
    }

    #[test]
    fn a_hostile_status_of_another_node_can_be_told() {
        let status = to_wire(&tonic::Status::unavailable("not now")).encode_to_vec();
        triad_fuzz::Target::new("forward::from_wire", [status]).memory_factor(200).attack(
            |bytes| {
                let status = from_wire(&wire::ErrorStatus::decode(bytes).ok()?);
                let _ = status.to_string();
                Some(to_wire(&status).encode_to_vec())
            },
        );
    }
}
