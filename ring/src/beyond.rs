//! The circle beyond the end of a successor list. In a ring of a dozen nodes and more some lists end
//! before our own next virtual node, and what lies between is known to none of ours. It is no
//! part of maintenance, but who asks for preference lists there would get none: so the period
//! of finger refresh looks it up, a few gaps at a time. Larger gaps than one answer covers stay.

use crate::id::VirtualNode;
use crate::lookup::Purpose;
use crate::node::{Effects, RingNode};
use crate::successors::SuccessorList;

/// How many gaps one period looks up for the whole node, whatever V is.
const GAPS: usize = 8;

/// What follows one of our list's entries, as a lookup told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Beyond {
    after: VirtualNode,
    pub(crate) entries: SuccessorList,
}

impl RingNode {
    pub(crate) fn look_beyond(&mut self, fx: &mut Effects) {
        let count = self.own.len();
        let mut left = GAPS;
        for _ in 0..count {
            let slot = self.gap_cursor % count;
            match self.end_before_next(slot) {
                Some(_) if left == 0 => return,
                Some(end) => {
                    left -= 1;
                    self.start_walk(Purpose::Beyond(slot), end.id.plus_power(0), None, fx);
                }
                None => self.own[slot].beyond = None,
            }
            self.gap_cursor = (slot + 1) % count;
        }
    }

    /// The last entry of a list that ends before our next virtual node.
    fn end_before_next(&self, slot: usize) -> Option<VirtualNode> {
        let own = &self.own[slot];
        let next = self.own[self.next_joined(slot).filter(|_| own.joined)?].this;
        let end = own.successors.last()?;
        let nearer = own.successors.count_before(own.this.id, next.id);
        (nearer == own.successors.entries().len()).then_some(end)
    }

    /// The owner of the position after the end of our list, and its successors.
    pub(crate) fn found_beyond(
        &mut self,
        slot: usize,
        before: Option<VirtualNode>,
        list: &[VirtualNode],
        fx: &mut Effects,
    ) {
        // If others lie between, the list will show them in a moment.
        let Some(after) = self.end_before_next(slot).filter(|end| before == Some(*end)) else {
            return;
        };
        let usable = list.iter().copied().filter(|entry| self.is_usable(*entry));
        let entries = SuccessorList::build(after.id, usable, self.config.successor_entries);
        let beyond = Some(Beyond { after, entries });
        if self.own[slot].beyond != beyond {
            self.own[slot].beyond = beyond;
            fx.view_changed = true;
        }
    }

    /// The successor list of a slot and, if known, what follows it.
    pub(crate) fn reach(&self, slot: usize) -> impl Iterator<Item = VirtualNode> {
        let own = &self.own[slot];
        let list = own.successors.entries();
        let start = own.this.id;
        let last = own.successors.last().map_or(0, |last| start.distance_to(last.id));
        let joins = |beyond: &&Beyond| list.contains(&beyond.after);
        let follows = own.beyond.as_ref().filter(joins).map(|beyond| beyond.entries.entries());
        let further = follows.unwrap_or_default().iter().copied();
        let further = further.filter(move |entry| start.distance_to(entry.id) > last);
        list.iter().copied().chain(further)
    }
}
