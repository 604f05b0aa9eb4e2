//! What nodes ask of each other about operations.

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::operate_request::Action;
use triad_ring::NodeId;

use super::{OperationError, departure, parts};
use crate::book::Contact;
use crate::liveness::Liveness;
use crate::node::Node;
use crate::peers;

/// How long another node may take; its fsync is in it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Does here what another node asks for.
pub(crate) async fn serve(
    node: &Arc<Node>,
    action: Option<Action>,
) -> Result<wire::OperateResponse, Status> {
    let mut response = wire::OperateResponse::default();
    match action {
        None | Some(Action::List(_)) => response.parts = parts::own_parts(node),
        Some(Action::Leave(leave)) => {
            let (operation, movement) = departure::begin_leave(node, &leave).await?;
            response.operation = Some(operation);
            response.movement = Some(movement);
        }
        Some(Action::Cancel(cancel)) => {
            response.operation = Some(departure::cancel_leave(node, &cancel.id).await?);
        }
        Some(Action::GiveUp(one)) => {
            let other = peers::contact::id16(&one.node_id, "give_up.node_id")?;
            let other = NodeId::from_bytes(other);
            if !one.taken_back {
                node.operations.give_up(other);
            } else if node.operations.take_back(other) {
                parts::end_replacement(node, other, "taken back by an operator");
            }
            node.moves.wake();
        }
        Some(Action::SendAway(told)) => {
            let contact = told.contact.as_ref().map(Contact::try_from).transpose()?;
            if let Some(contact) = contact {
                departure::note_departed(node, contact).await?;
            }
        }
    }
    Ok(response)
}

/// Asks one other node.
pub(super) async fn ask(
    node: &Arc<Node>,
    of: NodeId,
    action: Action,
) -> Result<wire::OperateResponse, OperationError> {
    if of == node.me() {
        return serve(node, Some(action)).await.map_err(OperationError::Refused);
    }
    let unreachable = |why: String| OperationError::Unreachable { node: node.book.name(of), why };
    let ask = async {
        let mut client =
            node.peers.bulk(of).await.map_err(|error| unreachable(error.to_string()))?;
        let hello = Some(node.hello());
        let request = wire::OperateRequest { hello, action: Some(action) };
        client.operate(request).await.map_err(OperationError::Refused)
    };
    if let Ok(answer) = tokio::time::timeout(PATIENCE, ask).await {
        answer.map(tonic::Response::into_inner)
    } else {
        node.peers.forget_bulk(of).await;
        Err(unreachable(format!("no answer within {PATIENCE:?}")))
    }
}

/// Asks all nodes that are alive, this one too, and does not wait for those that hang. True when all
/// have answered.
pub(super) async fn tell_all(node: &Arc<Node>, action: &Action) -> bool {
    let contacts = node.book.all();
    let told = contacts
        .iter()
        .filter(|contact| contact.state.is_ring_member())
        .filter(|contact| node.liveness(contact.node) != Liveness::Down)
        .map(|contact| ask(node, contact.node, action.clone()));
    futures::future::join_all(told).await.iter().all(Result::is_ok)
}

/// What another node knows of the operations; nothing when it does not answer.
pub(super) async fn parts_of(node: &Arc<Node>, of: NodeId) -> Vec<wire::OperationPart> {
    let asked = ask(node, of, Action::List(wire::ListParts {})).await;
    asked.map(|response| response.parts).unwrap_or_default()
}
