//! The whole vocabulary of the ring: what goes into a [`RingNode`](crate::RingNode), what comes
//! out, and what nodes say to each other.
//!
//! The operations are those of Zave, *How to Make Chord Correct* (arXiv 1610.01140, §IV): a
//! *query* asks one virtual node for its state and waits for one answer; a *notify* is one way.
//! The transport says which node a message comes from, and it may lose, delay and reorder them.

use std::time::Duration;

use crate::id::{NodeId, RingId, VirtualNode};

/// The name of a question of one node: its answer carries it back, so a late one is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(u64);

impl QueryId {
    /// The name with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// The caller's name for a lookup it asked for; comes back with the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(u64);

impl LookupId {
    /// The name with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// All that can happen to a ring node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Be the first ring of a new cluster.
    Create,
    /// Enter the ring that `via` is a member of. Tried again at every period until it worked;
    /// another Join changes the node that is asked.
    Join {
        /// Any member of the ring.
        via: NodeId,
    },
    /// A former member restarts: it is at once a ring of its own, and becomes part of the others'
    /// by [`Input::Met`].
    Resume,
    /// Go politely: tell everybody we know, then be no member any more.
    Leave,
    /// A message arrived. Of a node that was declared failed, the transport hands on nothing that
    /// its failed incarnation sent.
    Message {
        /// Who sent it, as the transport proved.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// A timer asked for by [`Output::SetTimer`] has run out.
    Timer(Timer),
    /// The failure detector declares the node failed: all its virtual nodes are forgotten, and
    /// what others still say of it is ignored until it shows itself: by [`Input::Met`], by
    /// notifying us or by answering a query that was sent after this.
    Failed(NodeId),
    /// The transport proved that this node is now a live ring member of this cluster. All its
    /// positions are known, so each own virtual node whose best successor it beats asks it. This
    /// is how a restarted node comes back quickly and how two rings become one.
    Met(NodeId),
    /// Look up one of our own positions (the next one in turn) through this node, without using what
    /// we know ourselves, and compare: if it answers for a ring that does not know us, the two
    /// become one. For contacts of any age; costs one lookup.
    Compare {
        /// Any ring member of this cluster, perhaps of another ring.
        via: NodeId,
    },
    /// Find the owner of a position.
    Lookup {
        /// The caller's name for this.
        lookup: LookupId,
        /// The position.
        target: RingId,
    },
}

/// All that a ring node asks of its surroundings. Outputs are in order, and those to one node are
/// next to each other, so that the transport can send them as one batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send a message to another node; it may be lost.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Hand back [`Input::Timer`] after this time. Setting a timer of the same name again replaces
    /// it. The surroundings may add jitter.
    SetTimer(Timer, Duration),
    /// A question was sent. Hand back [`Timer::Query`] when its answer is overdue: sooner than
    /// `at_most` if the round trips to that node are known to be short.
    Await {
        /// The question.
        query: QueryId,
        /// Who should answer.
        of: NodeId,
        /// How long at most.
        at_most: Duration,
    },
    /// A lookup found its owner.
    Found {
        /// The caller's name for it.
        lookup: LookupId,
        /// What was found.
        route: Route,
    },
    /// A lookup found nobody left to ask.
    LookupFailed {
        /// The caller's name for it.
        lookup: LookupId,
        /// The nodes that answered, ourselves first.
        path: Vec<NodeId>,
    },
    /// All virtual nodes have entered the ring. Said once for each Create, Join or Resume.
    Joined,
    /// [`RingNode::view`](crate::RingNode::view) may give another answer than before.
    ViewChanged,
}

/// The names of timers. A timer whose cause has passed is ignored when it runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// The period: all virtual nodes stabilize (one timer for the node, whatever V is).
    Stabilize,
    /// The period of finger refresh.
    Fingers,
    /// What must not wait for the period: busy neighbours asked again, changes told backwards.
    Soon,
    /// The answer to a query is overdue.
    Query(QueryId),
}

/// What nodes say to each other. `to` and `asker` name virtual nodes: one node holds many.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// Who are your predecessor and your successors? (Zave: the query of join, of stabilize from
    /// successor and of stabilize from predecessor.)
    AskState {
        /// Comes back with the answer.
        query: QueryId,
        /// Whose state.
        to: VirtualNode,
        /// Successors beyond the first one at or after this position are not wanted: the asker's
        /// node knows them from its own next virtual node, which sits there.
        until: Option<RingId>,
        /// The digest of the answer last heard to this same question: if it still holds,
        /// [`Message::Unchanged`] is answer enough.
        heard: Option<u64>,
    },
    /// Answers `AskState`.
    State {
        /// The question.
        query: QueryId,
        /// The predecessor, if one is known.
        predecessor: Option<VirtualNode>,
        /// The successors, nearest first, never with the answering virtual node itself.
        successors: Vec<VirtualNode>,
    },
    /// Answers `AskState`: what you heard before still holds.
    Unchanged {
        /// The question.
        query: QueryId,
    },
    /// Answers `AskState`: my own query is outstanding, my state may be about to change (rule R3).
    Busy {
        /// The question.
        query: QueryId,
    },
    /// Answers any question: that virtual node is not in the ring, or (to `AskStep`) this node
    /// holds none that is.
    NotMember {
        /// The question.
        query: QueryId,
    },
    /// I think that I am your predecessor (Zave: rectify).
    Notify {
        /// Who is told.
        to: VirtualNode,
        /// Who says so; its node is the sender.
        asker: VirtualNode,
    },
    /// Your successor's state has changed: stabilize soon. Only hastens what the period would do.
    Nudge {
        /// Whose successor.
        to: VirtualNode,
    },
    /// You seem not to know this one, which may be your successor (sent when two rings meet).
    Consider {
        /// Who should look.
        to: VirtualNode,
        /// At whom.
        candidate: VirtualNode,
    },
    /// Are you still in the ring? Answered even while busy.
    Ping {
        /// Comes back with the answer.
        query: QueryId,
        /// Who.
        to: VirtualNode,
    },
    /// Answers `Ping`.
    Pong {
        /// The question.
        query: QueryId,
    },
    /// One step of a lookup: who owns the target, or who is closer to it?
    AskStep {
        /// Comes back with the answer.
        query: QueryId,
        /// The position looked for.
        target: RingId,
    },
    /// Answers `AskStep`: the owner is known.
    Owner {
        /// The question.
        query: QueryId,
        /// The virtual node just before the target, if known.
        predecessor: Option<VirtualNode>,
        /// The owner and its successors.
        list: Vec<VirtualNode>,
    },
    /// Answers `AskStep`: ask one of these, the best first, each of another node.
    Closer {
        /// The question.
        query: QueryId,
        /// Virtual nodes that precede the target. At most [`MAX_CANDIDATES`].
        candidates: Vec<VirtualNode>,
    },
    /// The sending node leaves the ring with all its virtual nodes.
    Leaving,
}

impl Message {
    /// The virtual nodes that the message tells of, whoever's they are.
    pub(crate) fn named(&self) -> impl Iterator<Item = &VirtualNode> {
        let (one, many): (Option<&VirtualNode>, &[VirtualNode]) = match self {
            Self::State { predecessor, successors, .. } => (predecessor.as_ref(), successors),
            Self::Owner { predecessor, list, .. } => (predecessor.as_ref(), list),
            Self::Closer { candidates, .. } => (None, candidates),
            Self::Notify { asker, .. } => (Some(asker), &[]),
            Self::Consider { candidate, .. } => (Some(candidate), &[]),
            _ => (None, &[]),
        };
        one.into_iter().chain(many)
    }
}

/// How many nodes a [`Message::Closer`] names: enough to go on when the best is dead.
pub const MAX_CANDIDATES: usize = 4;

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The position looked for.
    pub target: RingId,
    /// The first virtual node at or after it.
    pub owner: VirtualNode,
    /// The owner, then its successors, nearest first.
    pub list: Vec<VirtualNode>,
    /// The nodes on the way: the asking one, those that answered, the owner.
    pub path: Vec<NodeId>,
    /// How many times the path goes from one node to the next: 0 when the asking node is the owner
    /// (claim C1 counts so, "to the owner").
    pub hops: u32,
}
