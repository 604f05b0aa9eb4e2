//! Contacts on the wire.

use triad_proto::peer::v1 as wire;
use triad_proto::v1;
use triad_replica::member::{Member, StartNonce, StoreId};
use triad_replica::start::Start;
use triad_ring::{ClusterId, Incarnation, NodeId};

use crate::book::{Contact, NodeState};

/// Longest name or address that is taken over from others.
const TEXT: usize = 256;

/// A message that does not say who sends it, or says something impossible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} of a peer message is malformed")]
pub(crate) struct BadPeer {
    field: &'static str,
}

/// 16 raw bytes of an id.
pub(crate) fn id16(bytes: &[u8], field: &'static str) -> Result<[u8; 16], BadPeer> {
    bytes.try_into().map_err(|_| BadPeer { field })
}

impl TryFrom<&wire::Contact> for Contact {
    type Error = BadPeer;

    fn try_from(contact: &wire::Contact) -> Result<Self, BadPeer> {
        let texts = [
            &contact.name,
            &contact.zone,
            &contact.peer_address,
            &contact.client_address,
            &contact.admin_address,
            &contact.version,
            &contact.operation,
        ];
        if texts.iter().any(|text| text.len() > TEXT) || contact.peer_address.is_empty() {
            return Err(BadPeer { field: "contact address" });
        }
        Ok(Self {
            node: NodeId::from_bytes(id16(&contact.node_id, "contact.node_id")?),
            name: contact.name.clone(),
            zone: contact.zone.clone(),
            incarnation: Incarnation::new(contact.incarnation),
            store: StoreId::from_bytes(id16(&contact.store_id, "contact.store_id")?),
            peer_address: contact.peer_address.clone(),
            client_address: contact.client_address.clone(),
            admin_address: contact.admin_address.clone(),
            version: contact.version.clone(),
            state: match contact.state() {
                v1::NodeState::Active => NodeState::Active,
                v1::NodeState::Leaving => NodeState::Leaving,
                v1::NodeState::Left => NodeState::Left,
                _ => NodeState::Joining,
            },
            admitted: Incarnation::new(contact.admitted),
            revision: contact.revision,
            operation: contact.operation.clone(),
        })
    }
}

impl From<&Contact> for wire::Contact {
    fn from(contact: &Contact) -> Self {
        Self {
            node_id: contact.node.as_bytes().to_vec().into(),
            name: contact.name.clone(),
            zone: contact.zone.clone(),
            incarnation: contact.incarnation.get(),
            store_id: contact.store.as_bytes().to_vec().into(),
            peer_address: contact.peer_address.clone(),
            client_address: contact.client_address.clone(),
            admin_address: contact.admin_address.clone(),
            version: contact.version.clone(),
            state: wire_state(contact.state).into(),
            admitted: contact.admitted.get(),
            revision: contact.revision,
            operation: contact.operation.clone(),
        }
    }
}

/// A node's state in the client API.
pub(crate) fn wire_state(state: NodeState) -> v1::NodeState {
    match state {
        NodeState::Joining => v1::NodeState::Joining,
        NodeState::Active => v1::NodeState::Active,
        NodeState::Leaving => v1::NodeState::Leaving,
        NodeState::Left => v1::NodeState::Left,
    }
}

/// Who sends, as a Hello says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) node: NodeId,
    pub(crate) store: StoreId,
    pub(crate) incarnation: Incarnation,
    pub(crate) nonce: StartNonce,
    /// How many commits its store has made.
    pub(crate) commits: u64,
    /// None: it has no cluster yet.
    pub(crate) cluster: Option<ClusterId>,
}

impl Sender {
    /// Which start of which store it is.
    pub(crate) fn start(&self) -> Start {
        let member = Member { node: self.node, store: self.store };
        let Self { incarnation, nonce, commits, .. } = *self;
        Start { member, incarnation, nonce, commits }
    }
}

impl TryFrom<&wire::Hello> for Sender {
    type Error = BadPeer;

    fn try_from(hello: &wire::Hello) -> Result<Self, BadPeer> {
        let cluster = if hello.cluster_id.is_empty() {
            None
        } else {
            Some(ClusterId::from_bytes(id16(&hello.cluster_id, "hello.cluster_id")?))
        };
        Ok(Self {
            node: NodeId::from_bytes(id16(&hello.node_id, "hello.node_id")?),
            store: StoreId::from_bytes(id16(&hello.store_id, "hello.store_id")?),
            incarnation: Incarnation::new(hello.incarnation),
            nonce: StartNonce(id16(&hello.start_nonce, "hello.start_nonce")?),
            commits: hello.commit_number,
            cluster,
        })
    }
}
