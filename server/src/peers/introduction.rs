//! Who calls, how others are reached, and which contacts a neighbour has not been told yet.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tonic::Status;
use triad_proto::peer::v1 as wire;
use triad_replica::member::{Member, StoreId};
use triad_ring::{ClusterId, Incarnation, NodeId};

use super::contact::{Sender, id16};
use crate::book::{Book, Contact, NodeState};
use crate::identity::NodeIdentity;
use crate::starts::{Distrust, Starts};

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
    /// Takes in what came along with replies. False: an outdated start of the node has sent them, and
    /// they count for nothing.
    fn heard(
        &self,
        from: NodeId,
        stamp: Option<&wire::ReplyStamp>,
        contacts: &[wire::Contact],
    ) -> bool;
    /// `to` has answered a Hello: it has recorded this start. An error says why its answers must not count.
    fn recorded(&self, to: NodeId, hello: &wire::Hello) -> Result<(), String>;
    /// `to` has refused a stream.
    fn refused(&self, to: NodeId, status: &Status);
}

/// What a neighbour was told of each node.
type Told = BTreeMap<NodeId, (Incarnation, u64, NodeState)>;

/// [`Introduction`] from the book of contacts.
pub(crate) struct Introductions {
    identity: NodeIdentity,
    cluster: ClusterId,
    book: Arc<Book>,
    starts: Arc<Starts>,
    /// How many commits the own store has made durable.
    commits: Arc<AtomicU64>,
    told: Mutex<BTreeMap<NodeId, Told>>,
}

impl Introductions {
    /// The introductions of one process start as a node of `cluster`.
    pub(crate) fn new(
        identity: NodeIdentity,
        cluster: ClusterId,
        book: Arc<Book>,
        starts: Arc<Starts>,
        commits: Arc<AtomicU64>,
    ) -> Self {
        Self { identity, cluster, book, starts, commits, told: Mutex::default() }
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
        hello(&self.identity, Some(self.cluster), self.commits.load(Ordering::Relaxed))
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

    fn heard(
        &self,
        from: NodeId,
        stamp: Option<&wire::ReplyStamp>,
        contacts: &[wire::Contact],
    ) -> bool {
        if let Some((member, incarnation, commits)) = stamp.and_then(|stamp| shown(from, stamp))
            && !self.starts.heard(member, incarnation, commits)
        {
            return false;
        }
        learn_all(&self.book, contacts);
        true
    }

    fn recorded(&self, to: NodeId, hello: &wire::Hello) -> Result<(), String> {
        let sender = Sender::try_from(hello).map_err(|bad| bad.to_string())?;
        if sender.node != to {
            return Err(format!("another node than {to} answered at its address"));
        }
        let answered = Member { node: sender.node, store: sender.store };
        if !self.starts.may_count(answered, sender.incarnation) {
            return Err(format!("an outdated start of node {to} answered at its address"));
        }
        self.starts.recorded_by(answered);
        Ok(())
    }

    fn refused(&self, to: NodeId, status: &Status) {
        if let Some(distrust) = Distrust::of_status(status) {
            tracing::error!(by = %self.book.name(to), why = distrust.why, "this start is refused");
            self.starts.distrusted(distrust);
        }
    }
}

/// The store, incarnation and commits that a stamp shows.
fn shown(from: NodeId, stamp: &wire::ReplyStamp) -> Option<(Member, Incarnation, u64)> {
    let store = StoreId::from_bytes(id16(&stamp.store_id, "stamp.store_id").ok()?);
    let member = Member { node: from, store };
    Some((member, Incarnation::new(stamp.incarnation), stamp.commit_number))
}

/// The Hello of a node whose store has made so many commits.
pub(crate) fn hello(
    identity: &NodeIdentity,
    cluster: Option<ClusterId>,
    commits: u64,
) -> wire::Hello {
    wire::Hello {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: cluster.map_or_else(Vec::new, |id| id.as_bytes().to_vec()).into(),
        node_id: identity.node.as_bytes().to_vec().into(),
        incarnation: identity.incarnation.get(),
        store_id: identity.store.as_bytes().to_vec().into(),
        start_nonce: identity.nonce.0.to_vec().into(),
        commit_number: commits,
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
