//! Long links: finger `power` of a virtual node is the owner of its position + 2^`power` (Chord
//! §IV-D). What the lists reach is answered from them and never stored; the rest costs lookups, at
//! most `finger_budget` per period for the whole node, whatever V is.
//!
//! Not here: choosing the nearest by latency among equals. The core knows no latency.

use crate::id::{RING_BITS, VirtualNode};
use crate::lookup::{Purpose, Step};
use crate::message::{Output, Timer};
use crate::node::{Effects, RingNode};
use crate::own::Finger;

impl RingNode {
    pub(crate) fn on_fingers_period(&mut self, fx: &mut Effects) {
        if !self.active {
            return;
        }
        fx.push(Output::SetTimer(Timer::Fingers, self.config.fingers_every));
        self.look_beyond(fx);
        let mut budget = self.config.finger_budget;
        for _ in 0..self.own.len() * RING_BITS as usize {
            let (slot, power) = self.finger_cursor;
            let done = self.own[slot].joined && !self.refresh_for_free(slot, power);
            if done {
                if budget == 0 {
                    return;
                }
                budget -= 1;
                let target = self.own[slot].this.id.plus_power(power);
                self.start_walk(Purpose::Finger(slot, power), target, None, fx);
            }
            self.finger_cursor = if power + 1 < RING_BITS {
                (slot, power + 1)
            } else {
                ((slot + 1) % self.own.len(), 0)
            };
        }
    }

    /// Whether this finger needs no lookup: the lists reach it, or the finger before lies beyond it.
    fn refresh_for_free(&mut self, slot: usize, power: u32) -> bool {
        let own = &self.own[slot];
        let target = own.this.id.plus_power(power);
        if matches!(self.step(target), Step::Owner(..)) {
            self.own[slot].fingers.remove(&power);
            return true;
        }
        let before =
            power.checked_sub(1).and_then(|power| self.own[slot].fingers.get(&power)).copied();
        match before
            .filter(|before| target.is_between(own.this.id, before.id) || before.id == target)
        {
            Some(before) => {
                self.own[slot].fingers.insert(power, before);
                true
            }
            None => false,
        }
    }

    pub(crate) fn finger_found(&mut self, slot: usize, power: u32, owner: VirtualNode) {
        if self.is_usable(owner)
            && let Some(own) = self.own.get_mut(slot)
        {
            own.fingers.insert(power, owner);
        }
    }

    /// Finger `power` of an own virtual node, as far as known.
    fn finger(&self, slot: usize, power: u32) -> Option<VirtualNode> {
        let own = &self.own[slot];
        match self.step(own.this.id.plus_power(power)) {
            Step::Owner(_, list) => list.first().copied(),
            Step::Closer(_) => own.fingers.get(&power).copied(),
        }
    }

    /// The fingers of an own virtual node without repetition, nearest first.
    pub(crate) fn distinct_fingers(&self, slot: usize) -> Vec<Finger> {
        let own = &self.own[slot];
        let mut distinct: Vec<Finger> = Vec::new();
        if !own.joined {
            return distinct;
        }
        for power in 0..RING_BITS {
            let start = own.this.id.plus_power(power);
            if let Some(virtual_node) = self.finger(slot, power)
                && distinct.last().is_none_or(|last| last.virtual_node != virtual_node)
            {
                distinct.push(Finger { start, virtual_node });
            }
        }
        distinct
    }
}
