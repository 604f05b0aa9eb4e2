//! R3: a virtual node whose own query is outstanding answers state queries "busy" (Zave §IV; the
//! Verdi proof needs it: nobody may copy a state that is about to be replaced).

use super::Violation;
use crate::message::{Input, Message, Output, QueryId};
use crate::node::RingNode;

/// Asks each virtual node of a copy of the node and compares its answer with its state.
pub fn busy_while_asking(node: &RingNode) -> Result<(), Violation> {
    let mut stranger_id = *node.me.as_bytes();
    stranger_id[0] ^= 0xff;
    let stranger = crate::id::NodeId::from_bytes(stranger_id);
    for own in node.own.iter().filter(|own| own.joined) {
        let mut copy = node.clone();
        let mut out = Vec::new();
        let query = QueryId::new(u64::MAX);
        let message = Message::AskState { query, to: own.this, until: None, heard: None };
        copy.handle(Input::Message { from: stranger, message }, &mut out);
        let busy = Output::Send { to: stranger, message: Message::Busy { query } };
        if own.query.is_some() != out.contains(&busy) {
            let detail = format!("{:?} with {:?} open answers {out:?}", own.this, own.query);
            return Err(Violation::new("R3", detail));
        }
    }
    Ok(())
}
