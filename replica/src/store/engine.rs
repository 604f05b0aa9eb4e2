//! What a storage engine must do: very little.
//!
//! An engine keeps rows of at most a few tens of kilobytes, in key order, and promises the
//! prefix property (see [`super`]). Everything else is in [`RowStore`](super::RowStore).
//! Engines never see two `apply` calls at once.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Space, StoreError};

/// One row change as an engine gets it; `None` removes the row. Keys are distinct within a
/// batch.
pub type RowChange = (Bytes, Option<Bytes>);

/// Sees one stored row: key and bytes as stored.
pub type RowVisitor<'a> = dyn FnMut(&[u8], Bytes) -> ControlFlow<()> + 'a;

/// An ordered map of small rows on some medium.
pub trait Engine: Send + Sync + 'static {
    /// One stored row.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the rows with `start <= key < end` in key order until the visitor breaks; with
    /// `skip_start` the row `start` itself is left out.
    fn scan(
        &self,
        start: &[u8],
        skip_start: bool,
        end: &[u8],
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), StoreError>;

    /// Applies all changes or, in a crash, none. Readers see all or none of them too.
    fn apply(&self, changes: Vec<RowChange>) -> Result<(), StoreError>;

    /// Makes every earlier `apply` durable.
    fn sync(&self) -> Result<(), StoreError>;

    /// Space used and left; called before every growing batch, so it must be cheap.
    fn space(&self) -> Space;
}
