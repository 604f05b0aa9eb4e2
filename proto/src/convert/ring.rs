//! What virtual nodes say to each other.

use bytes::Bytes;
use triad_ring::{MAX_CANDIDATES, Message, NodeId, QueryId, RingId, VirtualNode};

use super::{BadField, bounded, from_id, id16, required};
use crate::peer::v1 as peer;
use crate::peer::v1::ring_message::Message as Wire;

/// The most virtual nodes that one message may list: far over what successor lists reach.
pub const MAX_LISTED: usize = 4096;

impl From<VirtualNode> for peer::RingPosition {
    fn from(node: VirtualNode) -> Self {
        Self {
            ring_id: position(node.id),
            node_id: from_id(node.node.as_bytes()),
            index: node.index.into(),
        }
    }
}

impl TryFrom<peer::RingPosition> for VirtualNode {
    type Error = BadField;

    fn try_from(wire: peer::RingPosition) -> Result<Self, BadField> {
        let index = u16::try_from(wire.index).map_err(|_| {
            BadField::peer("position.index", wire.index, "an index is less than 65536")
        })?;
        Ok(Self {
            id: ring_id("position.ring_id", &wire.ring_id)?,
            node: NodeId::from_bytes(id16("position.node_id", &wire.node_id)?),
            index,
        })
    }
}

impl From<Message> for peer::RingMessage {
    fn from(message: Message) -> Self {
        Self { message: Some(wire(message)) }
    }
}

fn wire(message: Message) -> Wire {
    match message {
        Message::AskState { query, to, until, heard } => Wire::AskState(peer::AskState {
            query: query.get(),
            to: Some(to.into()),
            until: until.map(position).unwrap_or_default(),
            heard,
        }),
        Message::State { query, predecessor, successors } => Wire::State(peer::RingState {
            query: query.get(),
            predecessor: predecessor.map(Into::into),
            successors: positions(successors),
        }),
        Message::Unchanged { query } => Wire::Unchanged(query.get()),
        Message::Busy { query } => Wire::Busy(query.get()),
        Message::NotMember { query } => Wire::NotMember(query.get()),
        Message::Notify { to, asker } => {
            Wire::Notify(peer::Notify { to: Some(to.into()), asker: Some(asker.into()) })
        }
        Message::Nudge { to } => Wire::Nudge(to.into()),
        Message::Consider { to, candidate } => Wire::Consider(peer::Consider {
            to: Some(to.into()),
            candidate: Some(candidate.into()),
        }),
        Message::Ping { query, to } => {
            Wire::Ping(peer::RingPing { query: query.get(), to: Some(to.into()) })
        }
        Message::Pong { query } => Wire::Pong(query.get()),
        Message::AskStep { query, target } => {
            Wire::AskStep(peer::AskStep { query: query.get(), target: position(target) })
        }
        Message::Owner { query, predecessor, list } => Wire::Owner(peer::StepOwner {
            query: query.get(),
            predecessor: predecessor.map(Into::into),
            list: positions(list),
        }),
        Message::Closer { query, candidates } => {
            Wire::Closer(peer::StepCloser { query: query.get(), candidates: positions(candidates) })
        }
        Message::Leaving => Wire::Leaving(peer::RingLeaving {}),
    }
}

impl TryFrom<peer::RingMessage> for Message {
    type Error = BadField;

    fn try_from(wire: peer::RingMessage) -> Result<Self, BadField> {
        match required("ring.message", wire.message)? {
            Wire::AskState(ask) => ask.try_into(),
            Wire::State(state) => state.try_into(),
            Wire::Unchanged(query) => Ok(Self::Unchanged { query: QueryId::new(query) }),
            Wire::Busy(query) => Ok(Self::Busy { query: QueryId::new(query) }),
            Wire::NotMember(query) => Ok(Self::NotMember { query: QueryId::new(query) }),
            Wire::Notify(notify) => Ok(Self::Notify {
                to: virtual_node("notify.to", notify.to)?,
                asker: virtual_node("notify.asker", notify.asker)?,
            }),
            Wire::Nudge(to) => Ok(Self::Nudge { to: to.try_into()? }),
            Wire::Consider(consider) => Ok(Self::Consider {
                to: virtual_node("consider.to", consider.to)?,
                candidate: virtual_node("consider.candidate", consider.candidate)?,
            }),
            Wire::Ping(ping) => Ok(Self::Ping {
                query: QueryId::new(ping.query),
                to: virtual_node("ping.to", ping.to)?,
            }),
            Wire::Pong(query) => Ok(Self::Pong { query: QueryId::new(query) }),
            Wire::AskStep(ask) => Ok(Self::AskStep {
                query: QueryId::new(ask.query),
                target: ring_id("ask_step.target", &ask.target)?,
            }),
            Wire::Owner(owner) => owner.try_into(),
            Wire::Closer(closer) => Ok(Self::Closer {
                query: QueryId::new(closer.query),
                candidates: virtual_nodes("closer.candidates", closer.candidates, MAX_CANDIDATES)?,
            }),
            Wire::Leaving(peer::RingLeaving {}) => Ok(Self::Leaving),
        }
    }
}

impl TryFrom<peer::AskState> for Message {
    type Error = BadField;

    fn try_from(ask: peer::AskState) -> Result<Self, BadField> {
        let until =
            if ask.until.is_empty() { None } else { Some(ring_id("ask_state.until", &ask.until)?) };
        Ok(Self::AskState {
            query: QueryId::new(ask.query),
            to: virtual_node("ask_state.to", ask.to)?,
            until,
            heard: ask.heard,
        })
    }
}

impl TryFrom<peer::RingState> for Message {
    type Error = BadField;

    fn try_from(state: peer::RingState) -> Result<Self, BadField> {
        Ok(Self::State {
            query: QueryId::new(state.query),
            predecessor: state.predecessor.map(VirtualNode::try_from).transpose()?,
            successors: virtual_nodes("state.successors", state.successors, MAX_LISTED)?,
        })
    }
}

impl TryFrom<peer::StepOwner> for Message {
    type Error = BadField;

    fn try_from(owner: peer::StepOwner) -> Result<Self, BadField> {
        Ok(Self::Owner {
            query: QueryId::new(owner.query),
            predecessor: owner.predecessor.map(VirtualNode::try_from).transpose()?,
            list: virtual_nodes("owner.list", owner.list, MAX_LISTED)?,
        })
    }
}

fn position(id: RingId) -> Bytes {
    from_id(&id.get().to_be_bytes())
}

fn positions(nodes: Vec<VirtualNode>) -> Vec<peer::RingPosition> {
    nodes.into_iter().map(Into::into).collect()
}

fn ring_id(field: &'static str, raw: &[u8]) -> Result<RingId, BadField> {
    id16(field, raw).map(|bytes| RingId::new(u128::from_be_bytes(bytes)))
}

fn virtual_node(
    field: &'static str,
    wire: Option<peer::RingPosition>,
) -> Result<VirtualNode, BadField> {
    required(field, wire)?.try_into()
}

fn virtual_nodes(
    field: &'static str,
    wire: Vec<peer::RingPosition>,
    limit: usize,
) -> Result<Vec<VirtualNode>, BadField> {
    bounded(field, wire.len(), limit)?;
    wire.into_iter().map(VirtualNode::try_from).collect()
}
