//! What a node keeps for each of its own virtual nodes.

use std::collections::BTreeMap;

use crate::beyond::Beyond;
use crate::id::{NodeId, RingId, VirtualNode};
use crate::message::QueryId;
use crate::successors::SuccessorList;

/// How often a candidate may stay silent before only every eighth chance is spent on it.
const STRIKES: u32 = 3;

/// The state of one own virtual node (Zave §IV: succList, prdc, plus the one open query).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Own {
    /// Position, node and index.
    pub(crate) this: VirtualNode,
    /// Whether it is in the ring.
    pub(crate) joined: bool,
    /// Whether a lookup for its place in the ring is under way.
    pub(crate) seeking: bool,
    /// The predecessor; not known right after joining (G1).
    pub(crate) predecessor: Option<VirtualNode>,
    /// The successors; empty = alone.
    pub(crate) successors: SuccessorList,
    /// The one question of its own that is outstanding (R3).
    pub(crate) query: Option<OpenQuery>,
    /// Digest of the best successor's last answer. Kept only while that named us as predecessor,
    /// so that "unchanged" means: nothing to do.
    pub(crate) heard: Option<u64>,
    /// Somebody who may be a better successor and has not been asked yet.
    pub(crate) candidate: Option<VirtualNode>,
    /// Silence of candidates for successor.
    pub(crate) successor_strikes: Strikes,
    /// Silence of the predecessor.
    pub(crate) predecessor_strikes: Strikes,
    /// Long links that the successor lists do not reach: by power of two.
    pub(crate) fingers: BTreeMap<u32, VirtualNode>,
    /// What follows the list, where that ends before our next virtual node.
    pub(crate) beyond: Option<Beyond>,
}

impl Own {
    pub(crate) fn new(this: VirtualNode) -> Self {
        Self {
            this,
            joined: false,
            seeking: false,
            predecessor: None,
            successors: SuccessorList::default(),
            query: None,
            heard: None,
            candidate: None,
            successor_strikes: Strikes::default(),
            predecessor_strikes: Strikes::default(),
            fingers: BTreeMap::new(),
            beyond: None,
        }
    }

    /// Whether `candidate` would be a better successor than the present best.
    pub(crate) fn is_beaten_by(&self, candidate: VirtualNode) -> bool {
        let end = self.successors.best().map_or(self.this.id, |best| best.id);
        candidate.id.is_between(self.this.id, end)
    }

    /// Remembers `candidate` to be asked, if it beats the present best and any other candidate.
    pub(crate) fn consider(&mut self, candidate: VirtualNode) -> bool {
        let nearer =
            self.candidate.is_none_or(|other| candidate.id.is_between(self.this.id, other.id));
        let take = nearer && self.is_beaten_by(candidate);
        if take {
            self.candidate = Some(candidate);
        }
        take
    }
}

/// A question that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OpenQuery {
    pub(crate) id: QueryId,
    /// Who was asked.
    pub(crate) to: VirtualNode,
    pub(crate) why: Why,
}

/// What a question is for (Zave §IV).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Why {
    /// Join: copy the successor list of the one who will be our predecessor.
    Join,
    /// Stabilize from successor.
    Stabilize,
    /// Stabilize from predecessor: our successor's predecessor may be our better successor.
    Adopt,
    /// Rectify: is our predecessor still in the ring? If not, `instead` is.
    Rectify { instead: VirtualNode },
}

/// Counts how often one virtual node did not answer, so that a dead one that is not yet declared
/// failed does not keep its asker busy for ever. It is asked again from time to time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Strikes(Option<(VirtualNode, u32)>);

impl Strikes {
    /// It did not answer.
    pub(crate) fn add(&mut self, silent: VirtualNode) {
        let before = self.of(silent);
        self.0 = Some((silent, before.saturating_add(1)));
    }

    /// This node has shown itself.
    pub(crate) fn forgive(&mut self, node: NodeId) {
        self.0 = self.0.filter(|(silent, _)| silent.node != node);
    }

    /// Whether it has been silent so often that it is taken for gone.
    pub(crate) fn is_out(&self, who: VirtualNode) -> bool {
        self.of(who) >= STRIKES
    }

    /// Whether to ask it now; says yes to a silent one only every eighth time.
    pub(crate) fn may_ask(&mut self, who: VirtualNode) -> bool {
        if !self.is_out(who) {
            return true;
        }
        self.add(who);
        self.of(who).is_multiple_of(8)
    }

    /// The smallest count that answers every question about it alike (`normal.rs`).
    pub(crate) fn fold(&mut self) {
        if let Some((_, strikes)) = &mut self.0 {
            while *strikes >= STRIKES + 8 {
                *strikes -= 8;
            }
        }
    }

    fn of(&self, who: VirtualNode) -> u32 {
        self.0.filter(|(silent, _)| *silent == who).map_or(0, |(_, strikes)| strikes)
    }
}

/// One own virtual node, as `triad ring` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualNodeState {
    /// Position, node and index.
    pub virtual_node: VirtualNode,
    /// Whether it is in the ring.
    pub joined: bool,
    /// The predecessor, if one is known.
    pub predecessor: Option<VirtualNode>,
    /// The successor list, nearest first; empty = alone.
    pub successors: Vec<VirtualNode>,
    /// The distinct fingers, nearest first.
    pub fingers: Vec<Finger>,
}

/// A long link: who owns a position a power of two away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Finger {
    /// The nearest such position that this one owns.
    pub start: RingId,
    /// Its owner, as far as known.
    pub virtual_node: VirtualNode,
}
