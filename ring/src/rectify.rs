//! Minding the predecessor side (Zave §IV-C): somebody says that it is our predecessor. It is
//! taken when it is nearer than the one we have, or when that one is no longer in the ring.

use crate::id::{NodeId, VirtualNode};
use crate::node::{Effects, RingNode};
use crate::own::Why;

impl RingNode {
    pub(crate) fn on_notify(
        &mut self,
        from: NodeId,
        to: VirtualNode,
        asker: VirtualNode,
        fx: &mut Effects,
    ) {
        if asker.node != from {
            return; // nobody speaks for another
        }
        let Some(slot) = self.slot_of(to).filter(|slot| self.own[*slot].joined) else {
            return;
        };
        self.welcome_back(from);
        self.rectify(slot, asker, fx);
    }

    pub(crate) fn rectify(&mut self, slot: usize, asker: VirtualNode, fx: &mut Effects) {
        let own = &mut self.own[slot];
        if !own.joined || asker == own.this || own.predecessor == Some(asker) {
            return;
        }
        match own.predecessor {
            Some(present) if !asker.id.is_between(present.id, own.this.id) => {
                // It knows nobody between us: has our predecessor gone?
                if own.query.is_none() {
                    self.ask(slot, present, Why::Rectify { instead: asker }, fx);
                }
            }
            before => {
                own.predecessor = Some(asker);
                fx.view_changed = true;
                // The one before has a new best successor: the asker.
                if let Some(before) = before {
                    self.nudges.insert(before);
                    self.arm_soon(fx);
                }
                if self.own[slot].successors.best().is_none() {
                    self.make_due(slot, fx);
                }
            }
        }
    }
}
