//! Taking another node out, or giving its places to others.

use std::sync::Arc;

use tracing::warn;
use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::operate_request::Action;
use triad_proto::v1;
use triad_replica::configuration::majority;
use triad_ring::NodeId;

use super::remote::{ask, tell_all};
use super::survey::Survey;
use super::{OperationError, begun, departure, kind_of, planned, replace_id, short, staying};
use crate::book::{Contact, NodeState};
use crate::liveness::Liveness;
use crate::node::Node;

/// Fewer digits of an id are none that somebody has read off a list.
const ID_DIGITS_MIN: usize = 4;

type Begun = (v1::Operation, v1::Movement);

/// Takes a node out: one that lives leaves, one that is down is sent away.
pub(crate) async fn decommission(
    node: &Arc<Node>,
    request: &v1::DecommissionRequest,
) -> Result<Begun, OperationError> {
    let contact = find(node, &request.node)?;
    if contact.state == NodeState::Left {
        return Err(OperationError::NotNow(format!("node {} has left already", contact.name)));
    }
    let left = staying(node, contact.node).len() as u32;
    let wanted = node.cluster.replication_factor;
    if left == 0 {
        return Err(OperationError::Unsafe(format!(
            "node {} is the last one that is alive and stays",
            contact.name
        )));
    }
    if left < wanted && !request.allow_under_replicated {
        return Err(departure::too_few(&contact.name, left, wanted));
    }
    match node.liveness(contact.node) {
        Liveness::Alive => {
            let leave = wire::BeginLeave {
                kind: departure::DECOMMISSION.to_owned(),
                validate_only: request.validate_only,
                allow_under_replicated: request.allow_under_replicated,
            };
            let answer = ask(node, contact.node, Action::Leave(leave)).await?;
            Ok((answer.operation.unwrap_or_default(), answer.movement.unwrap_or_default()))
        }
        Liveness::Suspect => Err(undecided(&contact)),
        Liveness::Down => send_away(node, &contact, request.validate_only).await,
    }
}

fn undecided(contact: &Contact) -> OperationError {
    OperationError::Unreachable {
        node: contact.name.clone(),
        why: "it may be alive or down, that will be known in some seconds".to_owned(),
    }
}

/// Declares a node that is down to have left, for ever.
async fn send_away(
    node: &Arc<Node>,
    contact: &Contact,
    validate_only: bool,
) -> Result<Begun, OperationError> {
    let (movement, held) = given_away(node, contact.node).await?;
    if validate_only {
        return Ok((planned(departure::DECOMMISSION), movement));
    }
    let id = format!("decommission-{}-{}", short(contact.node), contact.incarnation);
    let left = Contact {
        state: NodeState::Left,
        revision: contact.revision + 1,
        operation: id.clone(),
        ..contact.clone()
    };
    warn!(node = %contact.name, operation = %id, "taking a node that is down out of the cluster");
    departure::note_departed(node, left.clone()).await?;
    if held > 0 {
        node.hints.lost_with(contact, held);
    }
    let told = wire::SendAway { contact: Some(wire::Contact::from(&left)) };
    // Whoever misses it hears of it beside other messages.
    tell_all(node, &Action::SendAway(told)).await;
    Ok((begun(&id), movement))
}

/// Gives the places of a node that is down to others now.
pub(crate) async fn replace(
    node: &Arc<Node>,
    request: &v1::ReplaceRequest,
) -> Result<Begun, OperationError> {
    let contact = find(node, &request.node)?;
    match node.liveness(contact.node) {
        _ if contact.state == NodeState::Left => {
            return Err(OperationError::NotNow(format!("node {} has left already", contact.name)));
        }
        Liveness::Alive => {
            return Err(OperationError::NotNow(format!(
                "node {} is alive: only one that is down is replaced; to take a living one out, decommission it",
                contact.name
            )));
        }
        Liveness::Suspect => return Err(undecided(&contact)),
        Liveness::Down => {}
    }
    let left = staying(node, contact.node).len() as u32;
    let wanted = node.cluster.replication_factor;
    if left < wanted {
        return Err(OperationError::Unsafe(format!(
            "no living node is free to take the places of node {}: {left} of {wanted} that hold copies are alive; \
             add a node first, or decommission this one with allow_under_replicated",
            contact.name
        )));
    }
    let (movement, _) = given_away(node, contact.node).await?;
    if request.validate_only {
        return Ok((planned("replace"), movement));
    }
    warn!(node = %contact.name, "giving the places of a node that is down to others");
    let node_id = contact.node.as_bytes().to_vec().into();
    let give_up = Action::GiveUp(wire::GiveUp { node_id, taken_back: false });
    if !tell_all(node, &give_up).await {
        warn!(node = %contact.name, "not every node was told: the rest waits for cluster.down_after");
    }
    Ok((begun(&replace_id(contact.node)), movement))
}

/// What the places of a node that is down amount to, and how many records it held for others. An error if a shard of it has lost its majority:
/// then only the node itself, or force, brings it back.
async fn given_away(node: &Arc<Node>, gone: NodeId) -> Result<(v1::Movement, u64), OperationError> {
    let survey = Survey::take(node).await;
    let mut shards = 0;
    let mut frozen = 0;
    for known in survey.configurations() {
        if !known.members().iter().any(|member| member.node == gone) {
            continue;
        }
        shards += 1;
        let members = known.read_set();
        let living = members.iter().filter(|member| survey.is_present(node, member)).count();
        frozen += u32::from(living < majority(members.len()));
    }
    if frozen > 0 {
        return Err(OperationError::Unsafe(format!(
            "{frozen} shard(s) have no living majority without node {}: start it again with its data; \
             if its data is lost for ever, see triad force",
            node.book.name(gone)
        )));
    }
    let left = staying(node, gone).len() as u32;
    let under_replicated = left < node.cluster.replication_factor;
    let bytes = survey.bytes_per_shard().saturating_mul(u64::from(shards));
    let movement = v1::Movement { shards, bytes, nodes_left: left, under_replicated };
    Ok((movement, survey.held_by(gone)))
}

/// The contact that a person means.
fn find(node: &Node, name: &str) -> Result<Contact, OperationError> {
    choose(&node.book.all(), name).map(|contact| (**contact).clone())
}

/// By id, by a name that only one node has, or by how only one id begins.
fn choose<'a>(all: &'a [Arc<Contact>], name: &str) -> Result<&'a Arc<Contact>, OperationError> {
    let by_id = name.parse::<NodeId>().ok();
    if let Some(one) = all.iter().find(|contact| Some(contact.node) == by_id) {
        return Ok(one);
    }
    let mut meant: Vec<_> = all.iter().filter(|contact| contact.name == name).collect();
    if meant.is_empty() && name.len() >= ID_DIGITS_MIN {
        let digits = name.to_ascii_lowercase();
        meant = all.iter().filter(|one| one.node.to_string().starts_with(&digits)).collect();
    }
    // Names of the dead are given again: of two the one that is still in the cluster is meant.
    if meant.len() > 1 {
        meant.retain(|contact| contact.state != NodeState::Left);
    }
    match meant.as_slice() {
        [one] => Ok(one),
        [] => Err(OperationError::Unknown {
            what: "node",
            name: name.chars().take(64).collect(),
            try_this: "`triad node ls` lists the nodes",
        }),
        _ => Err(OperationError::BadRequest(format!(
            "{} nodes are called `{name}`: name one by its whole id, see `triad node ls -o json`",
            meant.len()
        ))),
    }
}

/// Takes an operation back, wherever it was begun.
pub(crate) async fn cancel(node: &Arc<Node>, id: &str) -> Result<v1::Operation, OperationError> {
    let contacts = node.book.all();
    let owner = contacts.iter().find(|contact| !id.is_empty() && contact.operation == id);
    if let Some(owner) = owner {
        if owner.state == NodeState::Left {
            return Err(OperationError::NotNow(format!(
                "operation {id} cannot be taken back: node {} is out of the cluster; it may join again",
                owner.name
            )));
        }
        let cancel = Action::Cancel(wire::CancelLeave { id: id.to_owned() });
        let answer = ask(node, owner.node, cancel).await?;
        return Ok(answer.operation.unwrap_or_default());
    }
    let known = super::list(node).await.into_iter().find(|one| one.id == id);
    let Some(known) = known else {
        return Err(OperationError::Unknown {
            what: "operation",
            name: id.chars().take(64).collect(),
            try_this: "`triad op ls` lists them",
        });
    };
    let given_up = contacts.iter().find(|contact| replace_id(contact.node) == id);
    match given_up.filter(|_| known.state() == v1::OperationState::Running) {
        None => Err(OperationError::NotNow(format!("operation {id} has ended"))),
        Some(contact) if node.is_down_for_good(contact.node) => {
            Err(OperationError::NotNow(format!(
                "node {} has been down for longer than cluster.down_after, so its places go to others without an operator: \
                 start it again to keep what is left of them",
                contact.name
            )))
        }
        Some(contact) => {
            let node_id = contact.node.as_bytes().to_vec().into();
            let take_back = Action::GiveUp(wire::GiveUp { node_id, taken_back: true });
            tell_all(node, &take_back).await;
            let state = v1::OperationState::Cancelled.into();
            Ok(v1::Operation { state, kind: kind_of(id), eta: None, ..known })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::tests::contact;

    #[test]
    fn a_node_is_meant_by_id_by_name_or_by_how_its_id_begins() {
        let mut named_like_an_id = contact(4, 1, NodeState::Active);
        named_like_an_id.name = "0101".to_owned();
        let mut twin = contact(5, 1, NodeState::Active);
        twin.name = "node2".to_owned();
        let left = contact(2, 1, NodeState::Left);
        let all: Vec<_> = [
            contact(1, 1, NodeState::Active),
            left,
            contact(3, 1, NodeState::Left),
            named_like_an_id,
            twin,
        ]
        .into_iter()
        .map(Arc::new)
        .collect();
        let found = |name: &str| {
            choose(&all, name).ok().map(|contact| contact.node.to_string()[..2].to_owned())
        };
        let whole = contact(1, 1, NodeState::Active).node.to_string();
        assert_eq!(found(&whole).as_deref(), Some("01"));
        assert_eq!(found("01010101").as_deref(), Some("01"));
        assert_eq!(found("0101").as_deref(), Some("04"), "a name goes first");
        assert_eq!(found("node2").as_deref(), Some("05"), "the one that is in the cluster");
        assert_eq!(found("0303").as_deref(), Some("03"), "known, though it has left");
        for unknown in ["", "010", "0606", "node", "01010101x"] {
            assert_eq!(found(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn two_of_one_name_are_not_chosen_between() {
        let mut twin = contact(2, 1, NodeState::Active);
        twin.name = "node1".to_owned();
        let all = [Arc::new(contact(1, 1, NodeState::Active)), Arc::new(twin)];
        assert!(matches!(choose(&all, "node1"), Err(OperationError::BadRequest(_))));
    }
}
