//! The book of contacts: how to reach the nodes this one has heard of.
//!
//! Contacts travel beside the messages that mention their nodes, are bounded in number and
//! survive a restart, the dead ones included: a node that comes back alone finds the
//! others through any of them. A node is known by its id; its addresses may change with
//! every start, and names are resolved again at every dial.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use triad_replica::member::StoreId;
use triad_ring::{Incarnation, NodeId};

/// Contacts kept at most.
pub(crate) const CAPACITY: usize = 1_024;

/// Where a node stands between entering and leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodeState {
    /// It is not a ring member yet.
    Joining,
    /// It is a ring member.
    Active,
    /// It is a ring member that hands its shards over before it goes.
    Leaving,
    /// It went, or was sent away: it is heard of again only when it was admitted anew.
    Left,
}

impl NodeState {
    /// Whether it takes part in the ring.
    pub(crate) const fn is_ring_member(self) -> bool {
        matches!(self, Self::Active | Self::Leaving)
    }
}

/// How to reach a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) zone: String,
    pub(crate) incarnation: Incarnation,
    pub(crate) store: StoreId,
    pub(crate) peer_address: String,
    pub(crate) client_address: String,
    pub(crate) admin_address: String,
    pub(crate) version: String,
    pub(crate) state: NodeState,
    /// The incarnation in which it was last admitted to the cluster.
    pub(crate) admitted: Incarnation,
    /// Counts the changes of its state.
    pub(crate) revision: u64,
    /// By which operation it leaves or has left; empty if by none.
    pub(crate) operation: String,
}

impl Contact {
    /// Whether this word about a node counts more than another: that of a later start, or of a later
    /// change of its state. That it has left holds against every start of the tenure that has
    /// ended, however late one hears of that start.
    fn beats(&self, known: &Self) -> bool {
        match (self.state == NodeState::Left, known.state == NodeState::Left) {
            (true, false) => self.incarnation >= known.admitted,
            (false, true) => self.admitted > known.incarnation,
            _ => {
                let rank = |c: &Self| (c.incarnation, c.revision, c.state);
                rank(self) > rank(known)
            }
        }
    }
}

/// All contacts of a node, its own among them.
pub(crate) struct Book {
    me: NodeId,
    contacts: RwLock<BTreeMap<NodeId, Arc<Contact>>>,
    /// Others say that this node has left, and it has not been admitted since.
    sent_away: OnceLock<String>,
}

impl Book {
    /// A book that holds only the node's own contact.
    pub(crate) fn new(own: Contact) -> Self {
        let me = own.node;
        Self {
            me,
            contacts: RwLock::new(BTreeMap::from([(me, Arc::new(own))])),
            sent_away: OnceLock::new(),
        }
    }

    fn read<T>(&self, look: impl FnOnce(&BTreeMap<NodeId, Arc<Contact>>) -> T) -> T {
        look(&self.contacts.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut BTreeMap<NodeId, Arc<Contact>>) -> T) -> T {
        change(&mut self.contacts.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in what somebody told of a node: the newer word holds. True when it was news. Nobody
    /// else can tell a node about itself, but that it was sent away.
    pub(crate) fn learn(&self, contact: Contact) -> bool {
        if contact.node == self.me {
            let own = self.own();
            if own.state != NodeState::Left
                && contact.state == NodeState::Left
                && contact.beats(&own)
            {
                let _ = self.sent_away.set(contact.operation);
            }
            return false;
        }
        self.write(|contacts| {
            let known = contacts.get(&contact.node);
            if known.is_some_and(|known| !contact.beats(known)) {
                return false;
            }
            let is_full = known.is_none() && contacts.len() >= CAPACITY;
            if is_full && !forget_one_that_left(contacts) {
                return false;
            }
            contacts.insert(contact.node, Arc::new(contact));
            true
        })
    }

    /// By which operation others have sent this node away, if they have.
    pub(crate) fn sent_away(&self) -> Option<&str> {
        self.sent_away.get().map(String::as_str)
    }

    /// Changes the node's own contact.
    pub(crate) fn update_own(&self, change: impl FnOnce(&mut Contact)) {
        self.write(|contacts| {
            if let Some(own) = contacts.get_mut(&self.me) {
                change(Arc::make_mut(own));
            }
        });
    }

    /// The contact of a node.
    pub(crate) fn get(&self, node: NodeId) -> Option<Arc<Contact>> {
        self.read(|contacts| contacts.get(&node).cloned())
    }

    /// The node's own contact.
    pub(crate) fn own(&self) -> Arc<Contact> {
        self.get(self.me).expect("the own contact is put in by new() and never removed")
    }

    /// All contacts, by node id.
    pub(crate) fn all(&self) -> Vec<Arc<Contact>> {
        self.read(|contacts| contacts.values().cloned().collect())
    }

    /// The name of a node, or its id when the name is not known.
    pub(crate) fn name(&self, node: NodeId) -> String {
        self.get(node).map_or_else(|| node.to_string(), |contact| contact.name.clone())
    }
}

/// Makes room in a full book.
fn forget_one_that_left(contacts: &mut BTreeMap<NodeId, Arc<Contact>>) -> bool {
    let left = contacts.values().find(|contact| contact.state == NodeState::Left);
    let left = left.map(|contact| contact.node);
    left.is_some_and(|node| contacts.remove(&node).is_some())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn contact(node: u8, incarnation: u64, state: NodeState) -> Contact {
        Contact {
            node: NodeId::from_bytes([node; 16]),
            name: format!("node{node}"),
            zone: String::new(),
            incarnation: Incarnation::new(incarnation),
            store: StoreId::from_bytes([node; 16]),
            peer_address: format!("node{node}:7421"),
            client_address: String::new(),
            admin_address: String::new(),
            version: String::new(),
            state,
            admitted: Incarnation::new(1),
            revision: 0,
            operation: String::new(),
        }
    }

    #[test]
    fn the_newer_word_about_a_node_holds() {
        let book = Book::new(contact(1, 1, NodeState::Active));
        assert!(book.learn(contact(2, 3, NodeState::Joining)));
        assert!(!book.learn(contact(2, 2, NodeState::Active)), "an older start says nothing");
        assert!(book.learn(contact(2, 3, NodeState::Active)));
        assert!(!book.learn(contact(2, 3, NodeState::Joining)), "nobody goes back to joining");
        assert!(book.learn(contact(2, 4, NodeState::Joining)));
        assert_eq!(book.all().len(), 2);
    }

    #[test]
    fn a_leave_may_be_taken_back_and_the_later_change_holds() {
        let book = Book::new(contact(1, 1, NodeState::Active));
        let at = |revision, state| Contact { revision, ..contact(2, 1, state) };
        assert!(book.learn(at(1, NodeState::Leaving)));
        assert!(book.learn(at(2, NodeState::Active)));
        assert!(!book.learn(at(1, NodeState::Leaving)), "that was taken back");
    }

    #[test]
    fn who_was_sent_away_is_heard_of_again_only_when_admitted_anew() {
        let book = Book::new(contact(1, 1, NodeState::Active));
        book.learn(contact(2, 3, NodeState::Active));
        assert!(book.learn(contact(2, 3, NodeState::Left)));
        assert!(!book.learn(contact(2, 7, NodeState::Active)), "a start of the old tenure");
        let again = Contact { admitted: Incarnation::new(8), ..contact(2, 8, NodeState::Joining) };
        assert!(book.learn(again));
        assert!(!book.learn(contact(2, 3, NodeState::Left)), "that was the tenure before");

        let book = Book::new(contact(1, 1, NodeState::Active));
        book.learn(contact(2, 9, NodeState::Active));
        assert!(book.learn(contact(2, 3, NodeState::Left)), "it covers later starts, too");
    }

    #[test]
    fn a_node_hears_that_it_was_sent_away() {
        let book = Book::new(contact(1, 2, NodeState::Active));
        assert!(!book.learn(contact(1, 1, NodeState::Left)) && book.sent_away().is_some());
        let admitted =
            Contact { admitted: Incarnation::new(2), ..contact(1, 2, NodeState::Active) };
        let book = Book::new(admitted);
        assert!(!book.learn(contact(1, 1, NodeState::Left)) && book.sent_away().is_none());
    }

    #[test]
    fn nobody_tells_a_node_about_itself() {
        let book = Book::new(contact(1, 1, NodeState::Joining));
        assert!(!book.learn(contact(1, 9, NodeState::Active)));
        assert_eq!(book.own().incarnation, Incarnation::new(1));
    }

    #[test]
    fn the_book_is_bounded() {
        let book = Book::new(contact(1, 1, NodeState::Active));
        for i in 0..2 * CAPACITY {
            let mut other = contact(2, 1, NodeState::Active);
            let [low, high, ..] = (i as u64).to_le_bytes();
            let mut id = [9; 16];
            id[0] = low;
            id[1] = high;
            other.node = NodeId::from_bytes(id);
            book.learn(other);
        }
        assert_eq!(book.all().len(), CAPACITY);
    }
}
