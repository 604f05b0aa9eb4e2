//! Finding the owner of a position: Chord's lookup, iterative (Chord §IV-D; Zave leaves it as it
//! is). The asking node walks: each node it asks answers with the owner if its lists reach so far,
//! else with those it knows that most closely precede the target.
//!
//! A walk always asks the nearest node not yet asked, each once, at most [`MAX_ASKED`]: so it goes
//! on to the next best when one is silent or dead, and it ends.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{NodeId, RingId, VirtualNode};
use crate::message::{LookupId, MAX_CANDIDATES, Message, Output, QueryId, Route};
use crate::node::{Effects, RingNode};

/// How many nodes one lookup asks: enough to walk a fresh ring by successor lists alone.
const MAX_ASKED: usize = 512;
/// How many lookups of callers may be under way; more fail at once.
const MAX_WALKS: usize = 1_024;

/// Why a lookup is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// The caller asked.
    Caller(LookupId),
    /// An own virtual node looks for its place.
    Join(usize),
    /// A finger: slot and power.
    Finger(usize, u32),
    /// What follows the successor list of a slot.
    Beyond(usize),
    /// The place of an own virtual node in a ring that may be another.
    Compare(usize),
}

/// One lookup under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Walk {
    purpose: Purpose,
    target: RingId,
    /// Ourselves, then those that answered.
    path: Vec<NodeId>,
    /// Everybody asked, ourselves among them.
    asked: BTreeSet<NodeId>,
    /// Whom to ask next, by distance to the target.
    candidates: BTreeMap<u128, NodeId>,
    /// Who is being asked.
    waiting: NodeId,
}

impl Walk {
    pub(crate) fn waiting(&self) -> NodeId {
        self.waiting
    }
}

/// What one node can say about a target.
pub(crate) enum Step {
    /// The virtual node before the target, if known, and the owner with its successors.
    Owner(Option<VirtualNode>, Vec<VirtualNode>),
    /// Those that precede it, nearest first.
    Closer(Vec<VirtualNode>),
}

impl RingNode {
    pub(crate) fn start_lookup(&mut self, lookup: LookupId, target: RingId, fx: &mut Effects) {
        if self.is_partly_member() && self.walks.len() < MAX_WALKS {
            self.start_walk(Purpose::Caller(lookup), target, None, fx);
        } else {
            fx.push(Output::LookupFailed { lookup, path: vec![self.me] });
        }
    }

    /// Begins with what we know ourselves; `via` is asked when nobody better is known.
    pub(crate) fn start_walk(
        &mut self,
        purpose: Purpose,
        target: RingId,
        via: Option<NodeId>,
        fx: &mut Effects,
    ) {
        let mut walk = self.new_walk(purpose, target);
        if let Some(via) = via {
            walk.candidates.insert(u128::MAX, via);
        }
        if self.is_partly_member() {
            let step = self.step(target);
            self.advance(walk, step, fx);
        } else {
            self.ask_next(walk, fx);
        }
    }

    /// Begins with `via`, not with what we know ourselves.
    pub(crate) fn start_walk_elsewhere(
        &mut self,
        purpose: Purpose,
        target: RingId,
        via: NodeId,
        fx: &mut Effects,
    ) {
        if self.walks.len() < MAX_WALKS {
            let mut walk = self.new_walk(purpose, target);
            walk.candidates.insert(u128::MAX, via);
            self.ask_next(walk, fx);
        }
    }

    fn new_walk(&self, purpose: Purpose, target: RingId) -> Walk {
        Walk {
            purpose,
            target,
            path: vec![self.me],
            asked: [self.me].into(),
            candidates: BTreeMap::new(),
            waiting: self.me,
        }
    }

    fn advance(&mut self, mut walk: Walk, step: Step, fx: &mut Effects) {
        match step {
            Step::Owner(predecessor, list) => match list.first().copied() {
                Some(owner) => self.arrive(walk, predecessor, owner, list, fx),
                None => self.ask_next(walk, fx),
            },
            Step::Closer(candidates) => {
                for candidate in candidates.iter().take(MAX_CANDIDATES) {
                    let distance = candidate.id.distance_to(walk.target);
                    walk.candidates.insert(distance, candidate.node);
                }
                self.ask_next(walk, fx);
            }
        }
    }

    fn ask_next(&mut self, mut walk: Walk, fx: &mut Effects) {
        while let Some((_, next)) = walk.candidates.pop_first() {
            // Those of another ring were declared failed, perhaps: they answer for themselves.
            let dead = self.failed.contains(&next)
                && self.via != Some(next)
                && !matches!(walk.purpose, Purpose::Compare(_));
            if dead || walk.asked.len() >= MAX_ASKED || !walk.asked.insert(next) {
                continue;
            }
            walk.waiting = next;
            let query = self.new_query();
            self.send(next, Message::AskStep { query, target: walk.target }, fx);
            self.watch(next, query, fx);
            self.walks.insert(query, walk);
            return;
        }
        self.give_up(walk, fx);
    }

    fn give_up(&mut self, walk: Walk, fx: &mut Effects) {
        match walk.purpose {
            Purpose::Caller(lookup) => fx.push(Output::LookupFailed { lookup, path: walk.path }),
            Purpose::Join(slot) => self.place_found(slot, None, fx),
            Purpose::Finger(..) | Purpose::Beyond(_) | Purpose::Compare(_) => {}
        }
    }

    fn arrive(
        &mut self,
        mut walk: Walk,
        predecessor: Option<VirtualNode>,
        owner: VirtualNode,
        list: Vec<VirtualNode>,
        fx: &mut Effects,
    ) {
        match walk.purpose {
            Purpose::Caller(lookup) => {
                if walk.path.last() != Some(&owner.node) {
                    walk.path.push(owner.node);
                }
                let hops = walk.path.len() as u32 - 1;
                let route = Route { target: walk.target, owner, list, path: walk.path, hops };
                fx.push(Output::Found { lookup, route });
            }
            Purpose::Join(slot) => self.place_found(slot, predecessor, fx),
            Purpose::Finger(slot, power) => self.finger_found(slot, power, owner),
            Purpose::Beyond(slot) => self.found_beyond(slot, predecessor, &list, fx),
            Purpose::Compare(slot) => self.compared(slot, predecessor, owner, fx),
        }
    }

    pub(crate) fn on_ask_step(
        &mut self,
        from: NodeId,
        query: QueryId,
        target: RingId,
        fx: &mut Effects,
    ) {
        let answer = if self.is_partly_member() {
            match self.step(target) {
                Step::Owner(predecessor, list) => Message::Owner { query, predecessor, list },
                Step::Closer(candidates) => Message::Closer { query, candidates },
            }
        } else {
            Message::NotMember { query }
        };
        self.send(from, answer, fx);
    }

    pub(crate) fn on_owner(
        &mut self,
        from: NodeId,
        query: QueryId,
        predecessor: Option<VirtualNode>,
        mut list: Vec<VirtualNode>,
        fx: &mut Effects,
    ) {
        list.truncate(self.config.successor_entries);
        if let Some(walk) = self.answered(from, query) {
            self.advance(walk, Step::Owner(predecessor, list), fx);
        }
    }

    pub(crate) fn on_closer(
        &mut self,
        from: NodeId,
        query: QueryId,
        candidates: &[VirtualNode],
        fx: &mut Effects,
    ) {
        if let Some(walk) = self.answered(from, query) {
            self.advance(walk, Step::Closer(candidates.to_vec()), fx);
        }
    }

    fn answered(&mut self, from: NodeId, query: QueryId) -> Option<Walk> {
        if self.walks.get(&query)?.waiting != from {
            return None;
        }
        let mut walk = self.walks.remove(&query)?;
        walk.path.push(from);
        Some(walk)
    }

    /// The node asked is in no ring. False when the question was not a lookup's.
    pub(crate) fn walk_goes_on(&mut self, from: NodeId, query: QueryId, fx: &mut Effects) -> bool {
        if self.walks.get(&query).is_none_or(|walk| walk.waiting != from) {
            return false;
        }
        self.walk_is_overdue(query, fx)
    }

    /// The node asked is silent. False when the question was not a lookup's.
    pub(crate) fn walk_is_overdue(&mut self, query: QueryId, fx: &mut Effects) -> bool {
        let Some(walk) = self.walks.remove(&query) else {
            return false;
        };
        self.ask_next(walk, fx);
        true
    }

    /// A node was declared failed: no lookup waits for it any longer.
    pub(crate) fn walks_avoid(&mut self, node: NodeId, fx: &mut Effects) {
        let waits = |(query, walk): (&QueryId, &Walk)| (walk.waiting == node).then_some(*query);
        let stuck: Vec<_> = self.walks.iter().filter_map(waits).collect();
        for query in stuck {
            self.walk_is_overdue(query, fx);
        }
    }

    /// We leave: what was asked for fails.
    pub(crate) fn drop_walks(&mut self, fx: &mut Effects) {
        for (_, walk) in std::mem::take(&mut self.walks) {
            if let Purpose::Caller(lookup) = walk.purpose {
                fx.push(Output::LookupFailed { lookup, path: walk.path });
            }
        }
    }

    /// One step of a lookup, from all that our virtual nodes know.
    pub(crate) fn step(&self, target: RingId) -> Step {
        let Some(slot) = self.preceding(target) else {
            return Step::Closer(Vec::new());
        };
        let limit = self.config.successor_entries;
        if let Some(owner) = self.own_owner(target) {
            let own = &self.own[owner];
            let list = std::iter::once(own.this).chain(own.successors.entries().iter().copied());
            // Who is alone precedes itself.
            let alone = own.successors.best().is_none();
            let before = own.predecessor.or(alone.then_some(own.this));
            return Step::Owner(before, list.take(limit).collect());
        }
        let own = &self.own[slot];
        let nearer = own.successors.count_before(own.this.id, target);
        let entries = own.successors.entries();
        if nearer < entries.len() {
            let before = if nearer == 0 { own.this } else { entries[nearer - 1] };
            return Step::Owner(Some(before), entries[nearer..].to_vec());
        }
        Step::Closer(self.closest_preceding(slot, target))
    }

    /// Our virtual node that owns the target, as far as its predecessor shows it.
    fn own_owner(&self, target: RingId) -> Option<usize> {
        let count = self.own.len();
        let at_or_after = self.own.partition_point(|own| own.this.id < target);
        let slot = (0..count)
            .map(|step| (at_or_after + step) % count)
            .find(|slot| self.own[*slot].joined)?;
        let own = &self.own[slot];
        let alone = own.successors.best().is_none();
        let owns = own.this.id == target
            || alone
            || own.predecessor.is_some_and(|predecessor| {
                predecessor.id.distance_to(target) <= predecessor.id.distance_to(own.this.id)
                    && predecessor.id != target
            });
        owns.then_some(slot)
    }

    /// Who sits at the target or most closely precedes it, nearest first, each of another node
    /// (Chord's `closest_preceding_node`, over the fingers and lists of all our virtual nodes).
    fn closest_preceding(&self, slot: usize, target: RingId) -> Vec<VirtualNode> {
        let start = self.own[slot].this.id;
        let lists = self.own[slot].successors.entries().iter();
        let fingers = self.own.iter().flat_map(|own| own.fingers.values());
        let mut known: Vec<_> = lists
            .chain(fingers)
            .filter(|entry| entry.id == target || entry.id.is_between(start, target))
            .filter(|entry| entry.node != self.me)
            .copied()
            .collect();
        known.sort_unstable_by_key(|entry| entry.id.distance_to(target));
        let mut nodes = BTreeSet::new();
        known.retain(|entry| nodes.len() < MAX_CANDIDATES && nodes.insert(entry.node));
        known
    }
}
