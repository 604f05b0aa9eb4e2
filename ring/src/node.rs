//! The ring node: inputs in, outputs out. This file only dispatches and holds what all operations
//! share; each operation is a file of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::config::RingConfig;
use crate::id::{NodeId, RingId, RingRange, VirtualNode};
use crate::lookup::Walk;
use crate::message::{Input, MAX_CANDIDATES, Message, Output, QueryId, Timer};
use crate::mutant::{Mutant, left_out};
use crate::own::{Own, VirtualNodeState};
use crate::successors::SuccessorList;
use crate::view::RingView;

/// How many nodes declared failed are remembered; the oldest are forgotten first.
const FAILED_MAX: usize = 1_024;

/// One node of the ring with all its virtual nodes.
///
/// A value: no clock, no randomness, no hidden order. The same inputs in the same order give the
/// same outputs, and two nodes with equal state behave alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts, not one state")]
pub struct RingNode {
    pub(crate) me: NodeId,
    pub(crate) config: RingConfig,
    /// Positions are the node ids themselves (examples and laboratory only).
    pub(crate) positions_given: bool,
    /// Sorted by position. An index into it is called a slot.
    pub(crate) own: Vec<Own>,
    /// Whether we are in the ring or on our way into it.
    pub(crate) active: bool,
    /// Whether [`Output::Joined`] was said.
    pub(crate) joined_said: bool,
    /// Whom to enter the ring by.
    pub(crate) via: Option<NodeId>,
    /// Declared failed and not seen since, oldest first (R4).
    pub(crate) failed: VecDeque<NodeId>,
    pub(crate) next_query: u64,
    /// Lookups under way, by the one question that each has outstanding.
    pub(crate) walks: BTreeMap<QueryId, Walk>,
    /// Whom to nudge when [`Timer::Soon`] runs out.
    pub(crate) nudges: BTreeSet<VirtualNode>,
    /// Slots to stabilize (or join) when [`Timer::Soon`] runs out.
    pub(crate) due: BTreeSet<usize>,
    pub(crate) soon_is_set: bool,
    /// Where finger refresh goes on: slot and power.
    pub(crate) finger_cursor: (usize, u32),
    /// Whose position the next comparison looks up.
    pub(crate) compare_cursor: usize,
    /// Where looking beyond the lists goes on.
    pub(crate) gap_cursor: usize,
}

/// What one input has caused so far.
#[derive(Default)]
pub(crate) struct Effects {
    out: Vec<Output>,
    /// Messages between own virtual nodes: they never leave the node.
    local: VecDeque<Message>,
    pub(crate) view_changed: bool,
}

impl Effects {
    pub(crate) fn push(&mut self, output: Output) {
        self.out.push(output);
    }

    /// Hands the outputs on, messages last and those to one node next to each other.
    fn finish(mut self, out: &mut Vec<Output>) {
        if self.view_changed {
            self.out.push(Output::ViewChanged);
        }
        self.out.sort_by_key(|output| match output {
            Output::Send { to, .. } => Some(*to),
            _ => None,
        });
        out.append(&mut self.out);
    }
}

impl RingNode {
    /// A node that is in no ring yet.
    pub fn new(me: NodeId, config: RingConfig) -> Self {
        Self::with_positions(me, config, false)
    }

    /// A node with one virtual node whose position is the node id itself, read as a big-endian
    /// number, as has any other node it hears of. For worked examples and the overlay laboratory;
    /// a cluster's positions come from its salt.
    pub fn with_given_position(me: NodeId, mut config: RingConfig) -> Self {
        config.virtual_nodes = 1;
        Self::with_positions(me, config, true)
    }

    fn with_positions(me: NodeId, config: RingConfig, positions_given: bool) -> Self {
        let mut node = Self {
            me,
            config,
            positions_given,
            own: Vec::new(),
            active: false,
            joined_said: false,
            via: None,
            failed: VecDeque::new(),
            next_query: 0,
            walks: BTreeMap::new(),
            nudges: BTreeSet::new(),
            due: BTreeSet::new(),
            soon_is_set: false,
            finger_cursor: (0, 0),
            compare_cursor: 0,
            gap_cursor: 0,
        };
        node.forget_everything();
        node
    }

    /// Takes one input and appends what follows from it to `out`.
    pub fn handle(&mut self, input: Input, out: &mut Vec<Output>) {
        let mut fx = Effects::default();
        match input {
            Input::Create | Input::Resume => self.found_ring(&mut fx),
            Input::Join { via } => self.join(via, &mut fx),
            Input::Leave => self.leave(&mut fx),
            Input::Message { from, message } => self.on_message(from, message, &mut fx),
            Input::Timer(timer) => self.on_timer(timer, &mut fx),
            Input::Failed(node) => self.on_failed(node, &mut fx),
            Input::Met(node) => self.on_met(node, &mut fx),
            Input::Compare { via } => self.compare_rings(via, &mut fx),
            Input::Lookup { lookup, target } => self.start_lookup(lookup, target, &mut fx),
        }
        self.drain_local(&mut fx);
        fx.finish(out);
    }

    fn on_message(&mut self, from: NodeId, message: Message, fx: &mut Effects) {
        if from != self.me && !self.is_credible(&message) {
            return;
        }
        match message {
            Message::AskState { query, to, until, heard } => {
                self.on_ask_state(from, query, to, until, heard, fx);
            }
            Message::State { query, predecessor, successors } => {
                self.on_state(from, query, predecessor, &successors, fx);
            }
            Message::Unchanged { query } => self.on_unchanged(from, query),
            Message::Busy { query } => self.on_busy(from, query, fx),
            Message::NotMember { query } => self.on_not_member(from, query, fx),
            Message::Notify { to, asker } => self.on_notify(from, to, asker, fx),
            Message::Nudge { to } => self.on_nudge(to, fx),
            Message::Consider { to, candidate } => self.on_consider(from, to, candidate, fx),
            Message::Ping { query, to } => self.on_ping(from, query, to, fx),
            Message::Pong { query } => self.on_pong(from, query),
            Message::AskStep { query, target } => self.on_ask_step(from, query, target, fx),
            Message::Owner { query, predecessor, list } => {
                self.on_owner(from, query, predecessor, list, fx);
            }
            Message::Closer { query, candidates } => self.on_closer(from, query, &candidates, fx),
            Message::Leaving => self.on_leaving(from, fx),
        }
    }

    /// Whether all that a message names sits where its id puts it, and is no more than anybody has to
    /// tell. Of one that lies nothing is believed.
    fn is_credible(&self, message: &Message) -> bool {
        let most = 2 * self.config.successor_entries + MAX_CANDIDATES;
        message.named().count() <= most && message.named().all(|named| self.is_genuine(*named))
    }

    fn on_timer(&mut self, timer: Timer, fx: &mut Effects) {
        match timer {
            Timer::Stabilize => self.on_stabilize_period(fx),
            Timer::Fingers => self.on_fingers_period(fx),
            Timer::Soon => self.on_soon(fx),
            Timer::Query(query) => self.on_overdue(query, fx),
        }
    }

    /// Delivers what own virtual nodes told each other. It ends: each answer closes a question,
    /// and a question is asked again at once only of somebody strictly nearer.
    pub(crate) fn drain_local(&mut self, fx: &mut Effects) {
        while let Some(message) = fx.local.pop_front() {
            self.on_message(self.me, message, fx);
        }
    }

    pub(crate) fn send(&self, to: NodeId, message: Message, fx: &mut Effects) {
        if to == self.me {
            fx.local.push_back(message);
        } else {
            fx.push(Output::Send { to, message });
        }
    }

    /// Our id.
    pub fn id(&self) -> NodeId {
        self.me
    }

    /// Whether all our virtual nodes are in the ring.
    pub fn is_member(&self) -> bool {
        self.own.iter().all(|own| own.joined)
    }

    /// Whether at least one of our virtual nodes is in the ring.
    pub(crate) fn is_partly_member(&self) -> bool {
        self.own.iter().any(|own| own.joined)
    }

    /// The ring as we know it now. Costs time proportional to what we know; made to be published.
    pub fn view(&self) -> RingView {
        let mut members = BTreeSet::new();
        let mut stretches = Vec::with_capacity(2 * self.own.len());
        for (slot, own) in self.own.iter().enumerate().filter(|(_, own)| own.joined) {
            members.insert(own.this);
            if let Some(predecessor) = own.predecessor {
                members.insert(predecessor);
                stretches.push(RingRange { start: predecessor.id, end: own.this.id });
            }
            // Beyond our next virtual node, its own list says the same.
            let next = self.next_joined(slot).map(|next| self.own[next].this);
            let mut end = own.this.id;
            for entry in self.reach(slot) {
                members.insert(entry);
                end = entry.id;
                if Some(entry) == next {
                    break;
                }
            }
            let alone = own.successors.best().is_none();
            if alone || end != own.this.id {
                stretches.push(RingRange { start: own.this.id, end });
            }
        }
        RingView::new(members, stretches)
    }

    /// Each own virtual node with its neighbours and fingers, in order of position.
    pub fn describe(&self) -> Vec<VirtualNodeState> {
        let describe = |(slot, own): (usize, &Own)| VirtualNodeState {
            virtual_node: own.this,
            joined: own.joined,
            predecessor: own.predecessor,
            successors: own.successors.entries().to_vec(),
            fingers: self.distinct_fingers(slot),
        };
        self.own.iter().enumerate().map(describe).collect()
    }

    /// Back to a node in no ring. The names of queries go on, so that late answers stay unknown.
    pub(crate) fn forget_everything(&mut self) {
        let count = self.config.virtual_nodes.max(1);
        let mut places: Vec<_> = (0..count).map(|index| self.position_of(self.me, index)).collect();
        places.sort_unstable();
        self.own = places.into_iter().map(Own::new).collect();
        self.active = false;
        self.joined_said = false;
        self.via = None;
        self.nudges.clear();
        self.due.clear();
    }

    pub(crate) fn position_of(&self, node: NodeId, index: u16) -> VirtualNode {
        if self.positions_given {
            let id = RingId::new(u128::from_be_bytes(*node.as_bytes()));
            return VirtualNode { id, node, index };
        }
        VirtualNode::of(&self.config.salt, node, index)
    }

    /// Whether this virtual node sits where its node and index put it.
    pub(crate) fn is_genuine(&self, other: VirtualNode) -> bool {
        other.index < self.config.virtual_nodes
            && self.position_of(other.node, other.index) == other
    }

    pub(crate) fn slot_of(&self, this: VirtualNode) -> Option<usize> {
        self.own.binary_search_by_key(&this, |own| own.this).ok()
    }

    /// Our next virtual node clockwise that is in the ring; None when there is no other.
    pub(crate) fn next_joined(&self, slot: usize) -> Option<usize> {
        let count = self.own.len();
        (1..count).map(|step| (slot + step) % count).find(|next| self.own[*next].joined)
    }

    /// The same, counterclockwise.
    pub(crate) fn previous_joined(&self, slot: usize) -> Option<usize> {
        let count = self.own.len();
        (1..count).map(|step| (slot + count - step) % count).find(|other| self.own[*other].joined)
    }

    /// Our virtual node in the ring that most closely precedes a position, strictly.
    pub(crate) fn preceding(&self, position: RingId) -> Option<usize> {
        let count = self.own.len();
        let after = self.own.partition_point(|own| own.this.id < position);
        (1..=count).map(|step| (after + count - step) % count).find(|slot| self.own[*slot].joined)
    }

    /// Whether what others say of this virtual node may be believed: not when its node was
    /// declared failed (R4), nor when it is one of our own that has not joined yet.
    pub(crate) fn is_usable(&self, other: VirtualNode) -> bool {
        if other.node == self.me {
            return self.slot_of(other).is_some_and(|slot| self.own[slot].joined);
        }
        let failed = self.failed.contains(&other.node) && !left_out(Mutant::BelievesHearsay);
        other.index < self.config.virtual_nodes && !failed
    }

    pub(crate) fn remember_failed(&mut self, node: NodeId) {
        if !self.failed.contains(&node) {
            if self.failed.len() == FAILED_MAX {
                self.failed.pop_front();
            }
            self.failed.push_back(node);
        }
    }

    /// The node has shown itself. What others said of it meanwhile must be heard again.
    pub(crate) fn welcome_back(&mut self, node: NodeId) {
        let before = self.failed.len();
        self.failed.retain(|failed| *failed != node);
        if self.failed.len() != before {
            for own in &mut self.own {
                own.heard = None;
            }
        }
    }

    /// Something must happen before the period is over.
    pub(crate) fn arm_soon(&mut self, fx: &mut Effects) {
        if !self.soon_is_set {
            self.soon_is_set = true;
            // Two nodes that keep finding each other busy must not retry in step for ever, even
            // where the surroundings add no jitter.
            let spread = u64::from(self.me.as_bytes()[15]).wrapping_add(self.next_query) % 8;
            let wait = self.config.busy_retry + self.config.busy_retry * spread as u32 / 8;
            fx.push(Output::SetTimer(Timer::Soon, wait));
        }
    }

    pub(crate) fn make_due(&mut self, slot: usize, fx: &mut Effects) {
        self.due.insert(slot);
        self.arm_soon(fx);
    }

    /// The successor list of `slot` has changed: those that copied it should hear of it, our own
    /// virtual nodes at once.
    pub(crate) fn successors_changed(&mut self, slot: usize, fx: &mut Effects) {
        self.note_change(slot, fx);
        let mut at = slot;
        for _ in 0..self.own.len() {
            match self.previous_joined(at) {
                Some(previous) if self.stitch(previous) => {
                    self.note_change(previous, fx);
                    at = previous;
                }
                _ => break,
            }
        }
    }

    /// Stitches all own lists, for when many have changed at once.
    pub(crate) fn stitch_all(&mut self, fx: &mut Effects) {
        // Twice round: the last list depends on the first.
        for slot in (0..self.own.len()).rev().chain((0..self.own.len()).rev()) {
            if self.own[slot].joined && self.stitch(slot) {
                self.note_change(slot, fx);
            }
        }
    }

    fn note_change(&mut self, slot: usize, fx: &mut Effects) {
        fx.view_changed = true;
        if let Some(predecessor) = self.own[slot].predecessor {
            self.nudges.insert(predecessor);
        }
        self.arm_soon(fx);
    }

    /// Continues a list that reaches our own next virtual node by that one's list, which is always
    /// at least as fresh: news travels backwards along the ring and passed it first. Says whether
    /// the list changed.
    fn stitch(&mut self, slot: usize) -> bool {
        let Some(next) = self.next_joined(slot) else {
            return false;
        };
        let (own, next) = (&self.own[slot], &self.own[next]);
        let start = own.this.id;
        let nearer = own.successors.count_before(start, next.this.id);
        let old = own.successors.entries();
        if nearer == old.len() && !old.is_empty() {
            return false; // it does not reach so far
        }
        let entries = old[..nearer].iter().chain([&next.this]).chain(next.successors.entries());
        let list = SuccessorList::build(start, entries.copied(), self.config.successor_entries);
        let changed = list != own.successors;
        if changed {
            self.own[slot].successors = list;
        }
        changed
    }
}
