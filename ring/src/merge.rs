//! Becoming one ring: after a partition, after a restart, after any restart of all.
//!
//! Chord's stabilization never joins two rings that have lost each other. Here the transport says
//! which nodes it *met*; their positions are known from their ids, so each of our virtual nodes
//! that one of them would beat as best successor asks it and adopts it, as in stabilize from
//! predecessor. The old best successor is then unknown to the adopted one, who is told to consider
//! it, adopts it, and tells it of the one it had: the two rings close like a zipper, from every
//! point where they met at once (after Shafaat, Ghodsi and Haridi, *Handling network partitions and
//! mergers in structured overlay networks*, 2007).
//!
//! Who was met may sit far from all of us, in a large ring for certain. So from time to time we also
//! look up one of our own positions through a contact, and compare the answer with what we know:
//! if its ring does not know us, both sides of our place there are shown to each other.

use crate::id::{NodeId, VirtualNode};
use crate::lookup::Purpose;
use crate::message::Message;
use crate::mutant::{Mutant, left_out};
use crate::node::{Effects, RingNode};
use crate::own::Why;

impl RingNode {
    pub(crate) fn on_met(&mut self, node: NodeId, fx: &mut Effects) {
        if node == self.me {
            return;
        }
        self.welcome_back(node);
        for own in &mut self.own {
            own.successor_strikes.forgive(node);
            own.predecessor_strikes.forgive(node);
        }
        if !self.is_member() && self.active && self.via.is_none() {
            self.via = Some(node);
        }
        for index in 0..self.config.virtual_nodes {
            let other = self.position_of(node, index);
            if let Some(slot) = self.preceding(other.id) {
                self.meet(slot, other, fx);
            }
        }
        for slot in 0..self.own.len() {
            if self.own[slot].candidate.is_some() {
                self.stabilize(slot, fx);
                self.drain_local(fx);
            }
        }
    }

    /// `slot` is our last virtual node before `other`.
    fn meet(&mut self, slot: usize, other: VirtualNode, fx: &mut Effects) {
        if self.own[slot].successors.best() == Some(other) {
            // It may have restarted and forgotten that we precede it.
            self.notify(slot, other, fx);
        } else {
            self.own[slot].consider(other);
        }
    }

    /// Looks up the place of one of our virtual nodes as `via` sees it.
    pub(crate) fn compare_rings(&mut self, via: NodeId, fx: &mut Effects) {
        let count = self.own.len();
        let turns = (0..count).map(|step| (self.compare_cursor + step) % count);
        let Some(slot) = turns.into_iter().find(|slot| self.own[*slot].joined) else {
            return;
        };
        if via != self.me {
            self.compare_cursor = (slot + 1) % count;
            let target = self.own[slot].this.id;
            self.start_walk_elsewhere(Purpose::Compare(slot), target, via, fx);
        }
    }

    /// Our place in the ring that answered. Where that ring knows us there is nothing to do.
    pub(crate) fn compared(
        &mut self,
        slot: usize,
        before: Option<VirtualNode>,
        owner: VirtualNode,
        fx: &mut Effects,
    ) {
        let Some(own) = self.own.get(slot).filter(|own| own.joined && own.this != owner) else {
            return;
        };
        let this = own.this;
        if let Some(before) = before.filter(|before| before.node != self.me) {
            self.send(before.node, Message::Consider { to: before, candidate: this }, fx);
        }
        // It may be in our list of the failed: that it answers will show that it is back.
        if owner.node != self.me && own.is_beaten_by(owner) && own.query.is_none() {
            self.ask(slot, owner, Why::Adopt, fx);
        }
    }

    pub(crate) fn on_consider(
        &mut self,
        from: NodeId,
        to: VirtualNode,
        candidate: VirtualNode,
        fx: &mut Effects,
    ) {
        let Some(slot) = self.slot_of(to) else { return };
        if candidate.node == from || left_out(Mutant::HearsayBringsBack) {
            self.welcome_back(candidate.node); // it shows itself
        }
        let usable = self.is_usable(candidate);
        if self.own[slot].joined && usable && self.own[slot].consider(candidate) {
            self.stabilize(slot, fx);
        }
    }
}
