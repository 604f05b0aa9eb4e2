//! Entering the ring (Zave §IV-A): look up the place, ask the virtual node before it for its
//! successor list, and if the place is still between it and its best successor, copy the list.
//! The predecessor stays unknown until it notifies us (G1).
//!
//! All virtual nodes of a node join at the same time and independently. A former member that
//! restarts is a ring of its own at once and meets the others afterwards (`merge.rs`), so that a
//! cluster restarted as a whole needs nobody to be first.

use crate::id::{NodeId, VirtualNode};
use crate::lookup::Purpose;
use crate::message::{Output, Timer};
use crate::mutant::{Mutant, left_out};
use crate::node::{Effects, RingNode};
use crate::own::Why;
use crate::successors::SuccessorList;

impl RingNode {
    /// Create and Resume: our virtual nodes alone are a ring.
    pub(crate) fn found_ring(&mut self, fx: &mut Effects) {
        if self.is_partly_member() {
            return;
        }
        self.start_periods(fx);
        for own in &mut self.own {
            own.query = None;
            own.joined = true;
        }
        for slot in 0..self.own.len() {
            self.own[slot].predecessor =
                self.previous_joined(slot).map(|other| self.own[other].this);
        }
        self.stitch_all(fx);
        // Nobody has copied these lists yet.
        self.nudges.clear();
        fx.view_changed = true;
        self.say_joined(fx);
    }

    pub(crate) fn join(&mut self, via: NodeId, fx: &mut Effects) {
        if self.is_member() {
            return;
        }
        self.start_periods(fx);
        self.via = Some(via);
        for slot in 0..self.own.len() {
            self.seek_place(slot, fx);
            // Own virtual nodes that are in already may know the place.
            self.drain_local(fx);
        }
    }

    fn start_periods(&mut self, fx: &mut Effects) {
        if !self.active {
            self.active = true;
            fx.push(Output::SetTimer(Timer::Stabilize, self.config.stabilize_every));
            fx.push(Output::SetTimer(Timer::Fingers, self.config.fingers_every));
        }
    }

    /// Looks for the place of a virtual node that has not joined, unless that is under way.
    pub(crate) fn seek_place(&mut self, slot: usize, fx: &mut Effects) {
        let own = &mut self.own[slot];
        if !self.active || own.joined || own.seeking || own.query.is_some() {
            return;
        }
        own.seeking = true;
        let target = own.this.id;
        self.start_walk(Purpose::Join(slot), target, self.via, fx);
    }

    /// The lookup for our place has ended; `before` is who precedes it.
    pub(crate) fn place_found(
        &mut self,
        slot: usize,
        before: Option<VirtualNode>,
        fx: &mut Effects,
    ) {
        let own = &mut self.own[slot];
        own.seeking = false;
        if let Some(before) = before
            && !own.joined
            && own.query.is_none()
            && before != own.this
        {
            self.ask(slot, before, Why::Join, fx);
        }
    }

    /// The answer of the one before our place.
    pub(crate) fn enter(
        &mut self,
        slot: usize,
        before: VirtualNode,
        its_predecessor: Option<VirtualNode>,
        its_successors: &[VirtualNode],
        fx: &mut Effects,
    ) {
        self.welcome_back(before.node);
        let this = self.own[slot].this;
        // Ghosts of an earlier life of ours are no neighbours.
        let live: Vec<_> =
            its_successors.iter().copied().filter(|entry| self.is_usable(*entry)).collect();
        let end = live.first().map_or(before.id, |best| best.id);
        if !this.id.is_between(before.id, end) && !left_out(Mutant::EntersATakenPlace) {
            // Others joined in front of us meanwhile: go on from the last of them.
            let nearer =
                live.iter().take_while(|entry| entry.id.is_between(before.id, this.id)).last();
            if let Some(nearer) = nearer {
                self.ask(slot, *nearer, Why::Join, fx);
            }
            return;
        }
        // A list that comes all the way round to the one before it leaves out only that one.
        let all_round =
            its_successors.last().copied() == its_predecessor || its_successors.is_empty();
        let copied = if left_out(Mutant::JoinsWithOneSuccessor) { 1 } else { live.len() };
        let entries = live.into_iter().take(copied).chain(all_round.then_some(before));
        let own = &mut self.own[slot];
        own.successors = SuccessorList::build(this.id, entries, self.config.successor_entries);
        own.predecessor = None;
        own.joined = true;
        own.heard = None;
        // It may reach, and should then contain, our own next ones.
        if self.next_joined(slot).is_some() {
            self.stitch_all(fx);
        }
        self.successors_changed(slot, fx);
        self.make_due(slot, fx);
        self.say_joined(fx);
    }

    fn say_joined(&mut self, fx: &mut Effects) {
        if self.is_member() && !self.joined_said {
            self.joined_said = true;
            fx.push(Output::Joined);
        }
    }
}
