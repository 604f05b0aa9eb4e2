//! What a model checker may overlook in a node, so that states which behave alike are one state.
//! Nothing else needs it.

use crate::id::NodeId;
use crate::message::QueryId;
use crate::node::RingNode;

impl RingNode {
    /// The questions that wait for an answer, in the order asked, and whom they were put to.
    pub fn open_questions(&self) -> Vec<(QueryId, NodeId)> {
        let own = self.own.iter().filter_map(|own| own.query).map(|open| (open.id, open.to.node));
        let walks = self.walks.iter().map(|(query, walk)| (*query, walk.waiting()));
        let mut open: Vec<_> = own.chain(walks).collect();
        open.sort_unstable();
        open
    }

    /// Whether no successor list names another node.
    pub fn is_alone(&self) -> bool {
        let mut entries = self.own.iter().flat_map(|own| own.successors.entries());
        entries.all(|entry| entry.node == self.me)
    }

    /// Gives the open questions the names 1, 2, … in the order asked, counts silences of eight and
    /// more as the equally telling ones under eight, and returns the old names in that order. The
    /// names of questions only tell these apart, so a node in normal form behaves as before.
    pub fn take_normal_form(&mut self) -> Vec<QueryId> {
        let old: Vec<QueryId> = self.open_questions().into_iter().map(|(query, _)| query).collect();
        let new_name = |query: QueryId| {
            let place = old.iter().position(|name| *name == query);
            QueryId::new(place.map_or(0, |place| place as u64 + 1))
        };
        for own in &mut self.own {
            if let Some(open) = &mut own.query {
                open.id = new_name(open.id);
            }
            own.successor_strikes.fold();
            own.predecessor_strikes.fold();
        }
        let walks = std::mem::take(&mut self.walks);
        self.walks = walks.into_iter().map(|(query, walk)| (new_name(query), walk)).collect();
        self.next_query = old.len() as u64;
        old
    }

    /// Drops what only hastens the work of the next period, as if [`Timer::Soon`](crate::Timer) ran
    /// out together with it.
    pub fn forget_haste(&mut self) {
        self.nudges.clear();
        self.due.clear();
        self.soon_is_set = false;
    }
}
