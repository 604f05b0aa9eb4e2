//! Mending the successor side (Zave §IV-B): stabilize from successor, then, if its predecessor is
//! nearer to us than it is, stabilize from predecessor; then notify.
//!
//! It happens every period for every virtual node, driven by one timer. In a quiet ring each
//! question is answered "unchanged". Between periods a change travels backwards by nudges, at most
//! one batch per `busy_retry` and node, so it cannot storm.

use crate::id::{RingId, VirtualNode};
use crate::message::{Message, Output, Timer};
use crate::mutant::{Mutant, left_out};
use crate::node::{Effects, RingNode};
use crate::own::Why;
use crate::successors::{SuccessorList, digest_of_state};

impl RingNode {
    pub(crate) fn on_stabilize_period(&mut self, fx: &mut Effects) {
        if !self.active {
            return;
        }
        fx.push(Output::SetTimer(Timer::Stabilize, self.config.stabilize_every));
        for slot in 0..self.own.len() {
            self.work_on(slot, fx);
        }
    }

    pub(crate) fn on_soon(&mut self, fx: &mut Effects) {
        self.soon_is_set = false;
        for to in std::mem::take(&mut self.nudges) {
            match self.slot_of(to) {
                Some(slot) => {
                    self.due.insert(slot);
                }
                None => self.send(to.node, Message::Nudge { to }, fx),
            }
        }
        for slot in std::mem::take(&mut self.due) {
            self.work_on(slot, fx);
        }
    }

    pub(crate) fn on_nudge(&mut self, to: VirtualNode, fx: &mut Effects) {
        if let Some(slot) = self.slot_of(to) {
            self.make_due(slot, fx);
        }
    }

    /// One virtual node's turn. What it asks of its own fellows is answered before the next has
    /// its turn, so that they do not find each other busy.
    fn work_on(&mut self, slot: usize, fx: &mut Effects) {
        if self.own[slot].joined {
            self.stabilize(slot, fx);
        } else {
            self.seek_place(slot, fx);
        }
        self.drain_local(fx);
    }

    /// Asks the best successor, or first a candidate that may be better.
    pub(crate) fn stabilize(&mut self, slot: usize, fx: &mut Effects) {
        let own = &mut self.own[slot];
        if !own.joined || own.query.is_some() {
            return;
        }
        let alone = own.successors.best().is_none();
        // The successor of one who is alone is itself, so its predecessor is the candidate.
        let candidate = own.candidate.take().or(own.predecessor.filter(|_| alone));
        if let Some(candidate) = candidate.filter(|candidate| own.is_beaten_by(*candidate))
            && own.successor_strikes.may_ask(candidate)
        {
            self.ask(slot, candidate, Why::Adopt, fx);
        } else if let Some(best) = own.successors.best() {
            self.ask(slot, best, Why::Stabilize, fx);
        }
    }

    /// Stabilize from successor: its answer.
    pub(crate) fn stabilized(
        &mut self,
        slot: usize,
        best: VirtualNode,
        predecessor: Option<VirtualNode>,
        successors: &[VirtualNode],
        fx: &mut Effects,
    ) {
        if self.own[slot].successors.best() != Some(best) {
            // It was replaced or forgotten while its answer was on the way.
            self.make_due(slot, fx);
            return;
        }
        self.take_list(slot, best, predecessor, successors, fx);
        self.go_nearer_or_notify(slot, best, predecessor, fx);
    }

    /// Stabilize from predecessor: the candidate is alive and answers. It may have been declared
    /// failed before: that it answers a question sent since shows that it is back (R4).
    pub(crate) fn adopted(
        &mut self,
        slot: usize,
        candidate: VirtualNode,
        predecessor: Option<VirtualNode>,
        successors: &[VirtualNode],
        fx: &mut Effects,
    ) {
        self.welcome_back(candidate.node);
        if !self.own[slot].is_beaten_by(candidate) {
            self.make_due(slot, fx);
            return;
        }
        self.take_list(slot, candidate, predecessor, successors, fx);
        self.go_nearer_or_notify(slot, candidate, predecessor, fx);
    }

    /// Our successor list becomes `head` and its list.
    fn take_list(
        &mut self,
        slot: usize,
        head: VirtualNode,
        predecessor: Option<VirtualNode>,
        answer: &[VirtualNode],
        fx: &mut Effects,
    ) {
        let this = self.own[slot].this;
        let rest: Vec<_> = answer.iter().copied().filter(|entry| self.is_usable(*entry)).collect();
        self.point_out_skipped(slot, head, &rest, fx);
        let mut entries: Vec<_> = std::iter::once(head).chain(rest).collect();
        if let Some(next) = self.next_joined(slot).map(|next| &self.own[next])
            && reaches(this.id, next.this.id, std::iter::once(&head).chain(answer))
        {
            // From our own next virtual node its list goes on.
            let to_next = this.id.distance_to(next.this.id);
            let nearer = count_forward(this.id, to_next, &entries);
            entries.truncate(nearer);
            entries.push(next.this);
            entries.extend_from_slice(next.successors.entries());
        }
        let most =
            if left_out(Mutant::KeepsOneSuccessor) { 1 } else { self.config.successor_entries };
        let list = SuccessorList::build(this.id, entries, most);
        let own = &mut self.own[slot];
        own.heard = (predecessor == Some(this)).then(|| digest_of_state(predecessor, answer));
        if own.successors != list {
            own.successors = list;
            self.successors_changed(slot, fx);
        }
    }

    /// Whom we knew and the new list leaves out may come from another ring (`merge.rs`): tells the
    /// one just before of the first in each such gap. Usually there is none.
    fn point_out_skipped(
        &self,
        slot: usize,
        head: VirtualNode,
        rest: &[VirtualNode],
        fx: &mut Effects,
    ) {
        let own = &self.own[slot];
        let mut gap = head;
        let known = own.successors.entries().iter().filter(|entry| self.is_usable(**entry));
        let mut known =
            known.skip_while(|entry| !entry.id.is_between(head.id, own.this.id)).peekable();
        // One who is alone leaves out everybody. A list that merely ends leaves out nobody beyond.
        let end_of_alone = rest.is_empty().then_some(own.this.id);
        let mut ends = rest.iter();
        for end in rest.iter().map(|entry| entry.id).chain(end_of_alone) {
            let skipped = known.peek().copied().filter(|entry| entry.id.is_between(gap.id, end));
            if let Some(candidate) = skipped {
                let message = Message::Consider { to: gap, candidate: *candidate };
                self.send(gap.node, message, fx);
            }
            while known
                .next_if(|entry| entry.id == end || entry.id.is_between(gap.id, end))
                .is_some()
            {}
            let Some(next) = ends.next() else { break };
            gap = *next;
        }
    }

    fn go_nearer_or_notify(
        &mut self,
        slot: usize,
        best: VirtualNode,
        predecessor: Option<VirtualNode>,
        fx: &mut Effects,
    ) {
        let own = &mut self.own[slot];
        if predecessor == Some(own.this) {
            return; // it knows us already
        }
        let nearer = predecessor.filter(|nearer| own.is_beaten_by(*nearer));
        if let Some(nearer) = nearer.filter(|_| left_out(Mutant::AdoptsUnasked)) {
            let known = self.own[slot].successors.entries().to_vec();
            return self.take_list(slot, nearer, None, &known, fx);
        }
        if let Some(nearer) = nearer
            && self.may_be_asked(slot, nearer)
        {
            self.ask(slot, nearer, Why::Adopt, fx);
        } else {
            self.notify(slot, best, fx);
        }
    }

    fn may_be_asked(&mut self, slot: usize, candidate: VirtualNode) -> bool {
        let own_but_outside = candidate.node == self.me && !self.is_usable(candidate);
        !own_but_outside && self.own[slot].successor_strikes.may_ask(candidate)
    }

    pub(crate) fn notify(&self, slot: usize, to: VirtualNode, fx: &mut Effects) {
        if !left_out(Mutant::NeverNotifies) {
            self.send(to.node, Message::Notify { to, asker: self.own[slot].this }, fx);
        }
    }

    /// The candidate did not prove better: our best successor should know us all the same.
    pub(crate) fn notify_best(&self, slot: usize, fx: &mut Effects) {
        if let Some(best) = self.own[slot].successors.best() {
            self.notify(slot, best, fx);
        }
    }
}

/// How many of the first entries go forward from `start` and stay nearer than `span`.
fn count_forward(start: RingId, span: u128, entries: &[VirtualNode]) -> usize {
    let mut reached = 0;
    let goes_on = |entry: &&VirtualNode| {
        let distance = start.distance_to(entry.id);
        let forward = distance > reached && distance < span;
        reached = distance;
        forward
    };
    entries.iter().take_while(goes_on).count()
}

/// Whether entries in clockwise order go as far as `end`, or all round past `start`.
fn reaches<'a>(start: RingId, end: RingId, entries: impl Iterator<Item = &'a VirtualNode>) -> bool {
    let entries: Vec<_> = entries.copied().collect();
    count_forward(start, start.distance_to(end), &entries) < entries.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    fn entry(position: u128) -> VirtualNode {
        let node = NodeId::from_bytes(position.to_be_bytes());
        VirtualNode { id: RingId::new(position), node, index: 0 }
    }

    fn reaching(start: u128, end: u128, positions: &[u128]) -> bool {
        let entries: Vec<_> = positions.iter().map(|position| entry(*position)).collect();
        reaches(RingId::new(start), RingId::new(end), entries.iter())
    }

    /// Only then may our own next virtual node's list continue an answer: else somebody between
    /// the answer's end and it would be left out.
    #[test]
    fn an_answer_that_ends_early_does_not_reach() {
        assert!(!reaching(10, 40, &[20, 30]));
        assert!(reaching(10, 40, &[20, 40]), "our own next one is in it");
        assert!(reaching(10, 40, &[20, 50]), "it had not heard of our own next one");
        assert!(reaching(10, 40, &[20, 10]), "all round to ourselves");
        assert!(reaching(10, 40, &[20, 5]), "all round past ourselves");
        assert!(reaching(40, 10, &[50, 20]) && !reaching(40, 10, &[50, 5]), "over zero");
    }
}
