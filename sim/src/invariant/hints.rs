//! D10: what an `any.` bucket has acknowledged is held by somebody, as a record or as a hint, until it is replaced.

use super::{Invariant, Look};

/// Looks at each acknowledged put that nothing has replaced yet.
pub(super) struct HeldBySomebody;

impl Invariant for HeldBySomebody {
    fn name(&self) -> &'static str {
        "no acknowledged hint is lost"
    }

    fn check(&mut self, look: &Look<'_>) -> Result<(), String> {
        let damaged = look.view.stores.iter().any(|store| store.damaged > 0);
        for write in look.ledger.writes().filter(|write| write.available && !damaged) {
            if !look.view.stores.iter().any(|store| write.is_known_to(store)) {
                return Err(format!("nobody holds {write}"));
            }
        }
        Ok(())
    }
}
