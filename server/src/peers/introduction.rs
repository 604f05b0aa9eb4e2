//! Who calls, how others are reached, and which contacts a neighbour has not been told yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use triad_proto::peer::v1 as wire;
use triad_ring::{ClusterId, Incarnation, NodeId};

use crate::book::{Book, Contact, NodeState};
use crate::identity::NodeIdentity;

/// The version of the protocol between nodes.
pub(crate) const PROTOCOL_VERSION: u32 = 1;
/// Contacts told in one message.
const NEWS: usize = 64;

/// What streams need to know of the node they belong to.
pub(crate) trait Introduction: Send + Sync {
    /// The peer address of a node.
    fn address(&self, node: NodeId) -> Option<String>;
    /// Who this node is.
    fn hello(&self) -> wire::Hello;
    /// How this node is reached.
    fn own_contact(&self) -> wire::Contact;
    /// Contacts that `to` was not told since its stream opened.
    fn news_for(&self, to: NodeId) -> Vec<wire::Contact>;
    /// A new stream to `to` opens: it may be a new process that knows nothing.
    fn forget_news_for(&self, to: NodeId);
    /// Takes in what came along with replies.
    fn heard(&self, from: NodeId, batch: &wire::ControlReplyBatch);
}

/// What a neighbour was told of each node.
type Told = BTreeMap<NodeId, (Incarnation, u64, NodeState)>;

/// [`Introduction`] from the book of contacts.
pub(crate) struct Introductions {
    identity: NodeIdentity,
    cluster: ClusterId,
    book: Arc<Book>,
    told: Mutex<BTreeMap<NodeId, Told>>,
}

impl Introductions {
    /// The introductions of one process start as a node of `cluster`.
    pub(crate) fn new(identity: NodeIdentity, cluster: ClusterId, book: Arc<Book>) -> Self {
        Self { identity, cluster, book, told: Mutex::default() }
    }

    fn with_told<T>(&self, change: impl FnOnce(&mut BTreeMap<NodeId, Told>) -> T) -> T {
        change(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Introduction for Introductions {
    fn address(&self, node: NodeId) -> Option<String> {
        self.book.get(node).map(|contact| contact.peer_address.clone())
    }

    fn hello(&self) -> wire::Hello {
        hello(&self.identity, Some(self.cluster))
    }

    fn own_contact(&self) -> wire::Contact {
        wire::Contact::from(&*self.book.own())
    }

    fn news_for(&self, to: NodeId) -> Vec<wire::Contact> {
        let all = self.book.all();
        self.with_told(|told| {
            let told = told.entry(to).or_default();
            all.iter()
                .filter(|contact| {
                    let now = (contact.incarnation, contact.revision, contact.state);
                    contact.node != to && told.get(&contact.node) != Some(&now)
                })
                .take(NEWS)
                .map(|contact| {
                    let now = (contact.incarnation, contact.revision, contact.state);
                    (contact.node, now, contact)
                })
                .collect::<Vec<_>>()
                .into_iter()
                .map(|(node, now, contact)| {
                    told.insert(node, now);
                    wire::Contact::from(&**contact)
                })
                .collect()
        })
    }

    fn forget_news_for(&self, to: NodeId) {
        self.with_told(|told| told.remove(&to));
    }

    fn heard(&self, _from: NodeId, batch: &wire::ControlReplyBatch) {
        learn_all(&self.book, &batch.contacts);
    }
}

/// The Hello of a node.
pub(crate) fn hello(identity: &NodeIdentity, cluster: Option<ClusterId>) -> wire::Hello {
    wire::Hello {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: cluster.map_or_else(Vec::new, |id| id.as_bytes().to_vec()).into(),
        node_id: identity.node.as_bytes().to_vec().into(),
        incarnation: identity.incarnation.get(),
        store_id: identity.store.as_bytes().to_vec().into(),
    }
}

/// Takes in contacts from a message; malformed ones are left out.
pub(crate) fn learn_all(book: &Book, contacts: &[wire::Contact]) {
    for contact in contacts {
        if let Ok(contact) = Contact::try_from(contact) {
            book.learn(contact);
        }
    }
}
