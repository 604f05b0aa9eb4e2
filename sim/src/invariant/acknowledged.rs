//! D3 and D8: a read at QUORUM cannot miss what was acknowledged, at any moment: those members that do not know of it
//! are too few to answer.

use triad_replica::configuration::majority;

use super::{Invariant, Look};

/// Looks at each acknowledged put that nothing has replaced yet.
pub(super) struct EveryQuorumKnows;

impl Invariant for EveryQuorumKnows {
    fn name(&self) -> &'static str {
        "every read quorum knows what was acknowledged"
    }

    fn check(&mut self, look: &Look<'_>) -> Result<(), String> {
        let newest = look.view.newest();
        for write in look.ledger.writes().filter(|write| !write.available) {
            let Some(configuration) = newest.get(&write.shard) else { continue };
            let readers = configuration.read_set();
            // A store that is lost answers nobody, nor does a row that cannot be read.
            let ignorant = readers.iter().filter(|member| {
                let store = look.view.store_of(member);
                store.is_some_and(|store| store.damaged == 0 && !write.is_known_to(store))
            });
            let ignorant: Vec<_> = ignorant.collect();
            if ignorant.len() >= majority(readers.len()) {
                return Err(format!("{write} is not known to {ignorant:?} of {configuration:?}"));
            }
        }
        Ok(())
    }
}
