//! Going: politely, by being declared failed, or one virtual node at a time when it answers that
//! it is not in the ring.
//!
//! In Zave's model leaving is failing, and so it is here: a polite leave is only heard of earlier.
//! A failed best successor is dropped and the next entry takes its place (Zave §IV-B); the list
//! refills from that one's at once.

use std::collections::BTreeSet;

use crate::id::{NodeId, VirtualNode};
use crate::message::Message;
use crate::mutant::{Mutant, left_out};
use crate::node::{Effects, RingNode};
use crate::own::Why;

impl RingNode {
    pub(crate) fn leave(&mut self, fx: &mut Effects) {
        let known: BTreeSet<NodeId> = self
            .own
            .iter()
            .flat_map(|own| own.successors.entries().iter().chain(own.predecessor.iter()))
            .map(|entry| entry.node)
            .filter(|node| *node != self.me)
            .collect();
        for node in known {
            self.send(node, Message::Leaving, fx);
        }
        self.forget_everything();
        self.drop_walks(fx);
        fx.view_changed = true;
    }

    pub(crate) fn on_leaving(&mut self, from: NodeId, fx: &mut Effects) {
        if from != self.me {
            self.on_failed(from, fx);
        }
    }

    pub(crate) fn on_failed(&mut self, node: NodeId, fx: &mut Effects) {
        if node == self.me {
            return; // we are the one who would know
        }
        self.remember_failed(node);
        if !left_out(Mutant::KeepsTheFailed) {
            self.forget(&|entry| entry.node == node, fx);
        }
        self.walks_avoid(node, fx);
    }

    /// This one virtual node is not in the ring: its node has restarted and not joined yet.
    pub(crate) fn forget_virtual_node(&mut self, gone: VirtualNode, fx: &mut Effects) {
        self.forget(&|entry| *entry == gone, fx);
    }

    fn forget(&mut self, is_gone: &dyn Fn(&VirtualNode) -> bool, fx: &mut Effects) {
        let mut shortened = Vec::new();
        for (slot, own) in self.own.iter_mut().enumerate() {
            own.fingers.retain(|_, finger| !is_gone(finger));
            if let Some(beyond) = &mut own.beyond {
                fx.view_changed |= beyond.entries.retain(|entry| !is_gone(entry));
            }
            own.candidate = own.candidate.filter(|candidate| !is_gone(candidate));
            if own.predecessor.as_ref().is_some_and(is_gone) {
                own.predecessor = None;
                fx.view_changed = true;
            }
            if own.successors.retain(|entry| !is_gone(entry)) {
                own.heard = None;
                fx.view_changed = true;
                shortened.push(slot);
            }
        }
        self.nudges.retain(|entry| !is_gone(entry));
        self.stitch_all(fx);
        for slot in shortened {
            self.make_due(slot, fx);
        }
        for slot in 0..self.own.len() {
            if let Some(open) = self.own[slot].query.filter(|open| is_gone(&open.to)) {
                self.own[slot].query = None;
                if let Why::Rectify { instead } = open.why {
                    self.rectify(slot, instead, fx);
                } else {
                    self.make_due(slot, fx);
                }
            }
        }
    }
}
