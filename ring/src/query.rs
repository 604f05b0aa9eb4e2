//! Asking and answering state queries: one open question per virtual node (rule R3), each with a
//! name of its own, so that a late answer is nobody's.

use crate::id::{NodeId, RingId, VirtualNode};
use crate::message::{Message, Output, QueryId};
use crate::mutant::{Mutant, left_out};
use crate::node::{Effects, RingNode};
use crate::own::{OpenQuery, Strikes, Why};
use crate::successors::digest_of_state;

impl RingNode {
    pub(crate) fn new_query(&mut self) -> QueryId {
        self.next_query = self.next_query.wrapping_add(1);
        QueryId::new(self.next_query)
    }

    pub(crate) fn watch(&self, to: NodeId, query: QueryId, fx: &mut Effects) {
        if to != self.me {
            fx.push(Output::Await { query, of: to, at_most: self.config.query_timeout });
        }
    }

    /// Asks `to` on behalf of a virtual node that has no question open.
    pub(crate) fn ask(&mut self, slot: usize, to: VirtualNode, why: Why, fx: &mut Effects) {
        let query = self.new_query();
        let until = match why {
            Why::Stabilize | Why::Adopt => {
                self.next_joined(slot).map(|next| self.own[next].this.id)
            }
            Why::Join | Why::Rectify { .. } => None,
        };
        let own = &mut self.own[slot];
        own.query = Some(OpenQuery { id: query, to, why });
        let message = match why {
            Why::Rectify { .. } => Message::Ping { query, to },
            Why::Stabilize => Message::AskState { query, to, until, heard: own.heard },
            Why::Join | Why::Adopt => Message::AskState { query, to, until, heard: None },
        };
        self.send(to.node, message, fx);
        self.watch(to.node, query, fx);
    }

    /// Closes the question that this answer belongs to, if it is open and was put to that node.
    fn close(&mut self, from: NodeId, query: QueryId) -> Option<(usize, OpenQuery)> {
        let named = |open: &OpenQuery| open.id == query || left_out(Mutant::TakesLateAnswers);
        let belongs = |open: &OpenQuery| named(open) && open.to.node == from;
        let slot = self.own.iter().position(|own| own.query.as_ref().is_some_and(belongs))?;
        let open = self.own[slot].query.take()?;
        Some((slot, open))
    }

    pub(crate) fn on_ask_state(
        &mut self,
        from: NodeId,
        query: QueryId,
        to: VirtualNode,
        until: Option<RingId>,
        heard: Option<u64>,
        fx: &mut Effects,
    ) {
        let own = self.slot_of(to).map(|slot| &self.own[slot]).filter(|own| own.joined);
        let answer = match own {
            None => Message::NotMember { query },
            Some(own) if own.query.is_some() && !left_out(Mutant::AnswersWhileAsking) => {
                Message::Busy { query }
            }
            Some(own) => {
                let all = own.successors.entries();
                let wanted = match until {
                    None => all,
                    Some(until) => {
                        // One entry at or beyond it shows the asker that nobody before it is left out.
                        let nearer = own.successors.count_before(to.id, until);
                        &all[..all.len().min(nearer + 1)]
                    }
                };
                if heard == Some(digest_of_state(own.predecessor, wanted)) {
                    Message::Unchanged { query }
                } else {
                    let successors = wanted.to_vec();
                    Message::State { query, predecessor: own.predecessor, successors }
                }
            }
        };
        self.send(from, answer, fx);
    }

    pub(crate) fn on_state(
        &mut self,
        from: NodeId,
        query: QueryId,
        predecessor: Option<VirtualNode>,
        successors: &[VirtualNode],
        fx: &mut Effects,
    ) {
        let Some((slot, open)) = self.close(from, query) else {
            return;
        };
        match open.why {
            Why::Join => self.enter(slot, open.to, predecessor, successors, fx),
            Why::Stabilize => self.stabilized(slot, open.to, predecessor, successors, fx),
            Why::Adopt => self.adopted(slot, open.to, predecessor, successors, fx),
            Why::Rectify { .. } => {}
        }
    }

    pub(crate) fn on_unchanged(&mut self, from: NodeId, query: QueryId) {
        // Our successor's state is as it was, and names us as its predecessor: all is well.
        self.close(from, query);
    }

    pub(crate) fn on_busy(&mut self, from: NodeId, query: QueryId, fx: &mut Effects) {
        if let Some((slot, open)) = self.close(from, query) {
            if open.why == Why::Adopt {
                self.welcome_back(from); // busy is an answer: it is alive
                self.own[slot].consider(open.to);
            }
            self.make_due(slot, fx);
        }
    }

    pub(crate) fn on_not_member(&mut self, from: NodeId, query: QueryId, fx: &mut Effects) {
        if self.walk_goes_on(from, query, fx) {
            return;
        }
        let Some((slot, open)) = self.close(from, query) else {
            return;
        };
        self.forget_virtual_node(open.to, fx);
        match open.why {
            Why::Join => {} // the next period looks for another place
            Why::Stabilize => self.make_due(slot, fx),
            Why::Adopt => {
                self.own[slot].successor_strikes.add(open.to);
                self.notify_best(slot, fx);
            }
            Why::Rectify { instead } => self.rectify(slot, instead, fx),
        }
    }

    pub(crate) fn on_ping(
        &mut self,
        from: NodeId,
        query: QueryId,
        to: VirtualNode,
        fx: &mut Effects,
    ) {
        let joined = self.slot_of(to).is_some_and(|slot| self.own[slot].joined);
        let answer = if joined { Message::Pong { query } } else { Message::NotMember { query } };
        self.send(from, answer, fx);
    }

    pub(crate) fn on_pong(&mut self, from: NodeId, query: QueryId) {
        if let Some((slot, _)) = self.close(from, query) {
            self.own[slot].predecessor_strikes = Strikes::default();
        }
    }

    /// No answer in time. That declares nobody failed: a successor stays, the period asks again;
    /// a mere candidate is given up after a few times.
    pub(crate) fn on_overdue(&mut self, query: QueryId, fx: &mut Effects) {
        if self.walk_is_overdue(query, fx) {
            return;
        }
        let open = |slot: &usize| self.own[*slot].query.is_some_and(|open| open.id == query);
        let Some(slot) = (0..self.own.len()).find(open) else {
            return;
        };
        let Some(open) = self.own[slot].query.take() else {
            return;
        };
        if left_out(Mutant::SilenceIsFailure) {
            self.on_failed(open.to.node, fx);
        }
        match open.why {
            Why::Join | Why::Stabilize => {}
            Why::Adopt => {
                self.own[slot].successor_strikes.add(open.to);
                self.notify_best(slot, fx);
            }
            Why::Rectify { instead } => {
                self.own[slot].predecessor_strikes.add(open.to);
                if self.own[slot].predecessor_strikes.is_out(open.to) {
                    self.own[slot].predecessor = None;
                    self.rectify(slot, instead, fx);
                }
            }
        }
    }
}
