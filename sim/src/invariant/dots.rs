//! D5: no dot ever names two values, and none names two keys.

use std::collections::BTreeMap;

use bytes::Bytes;
use triad_replica::dot::Dot;

use super::{Invariant, Look};

/// Every dot that was ever seen in a store, with its key and value.
#[derive(Default)]
pub(super) struct Dots(BTreeMap<(Bytes, Dot), Bytes>);

impl Invariant for Dots {
    fn name(&self) -> &'static str {
        "no dot names two values"
    }

    fn check(&mut self, look: &Look<'_>) -> Result<(), String> {
        for store in &look.view.stores {
            for (key, record) in &store.records {
                for (dot, sibling) in record.siblings() {
                    let named = self.0.entry((key.clone(), *dot));
                    let known = named.or_insert_with(|| sibling.value.clone());
                    if *known != sibling.value {
                        return Err(format!(
                            "dot {dot} of {:?} is {known:?} and {:?}",
                            triad_replica::store::Key::decode(key),
                            sibling.value
                        ));
                    }
                    if !record.context().covers(dot) {
                        return Err(format!("the context of {key:?} does not cover its own {dot}"));
                    }
                }
            }
        }
        Ok(())
    }
}
