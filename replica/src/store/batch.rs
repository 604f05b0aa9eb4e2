//! Changes that become visible and durable together.

use std::collections::BTreeMap;

use bytes::Bytes;

/// A set of row changes that is applied as a whole or not at all.
///
/// A key changes once per batch: the last word on it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    changes: BTreeMap<Bytes, Option<Bytes>>,
    bytes: usize,
    essential: bool,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the row `key` (see [`Key::encode`](super::Key::encode)) to `value`.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.change(key.into(), Some(value.into()));
    }

    /// Removes the row `key`; removing an absent row is fine.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.change(key.into(), None);
    }

    /// Lets the batch use the reserve that the space rule keeps free. For what must go on in
    /// a full store: deletions, garbage collection, and the small rows by which
    /// shards change hands.
    pub fn set_essential(&mut self) {
        self.essential = true;
    }

    /// True when the batch may use the reserve.
    pub fn is_essential(&self) -> bool {
        self.essential
    }

    /// Takes over the changes of `other`, which come after those of `self`. The result is essential
    /// only if both were: one client write must not ride into the reserve on a deletion.
    pub fn append(&mut self, other: Batch) {
        if other.is_empty() {
            return;
        }
        self.essential = other.essential && (self.essential || self.is_empty());
        for (key, change) in other.changes {
            self.change(key, change);
        }
    }

    /// Number of rows changed.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// True when nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Bytes of keys and new values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The changes in key order; `None` removes the row.
    pub fn changes(&self) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        self.changes.iter().map(|(key, change)| (key, change.as_ref()))
    }

    fn change(&mut self, key: Bytes, change: Option<Bytes>) {
        let key_bytes = key.len();
        let size = |change: &Option<Bytes>| key_bytes + change.as_ref().map_or(0, Bytes::len);
        self.bytes += size(&change);
        if let Some(before) = self.changes.insert(key, change) {
            self.bytes -= size(&before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_a_key_holds_and_bytes_count_it_once() {
        let mut batch = Batch::new();
        batch.put("a", "first");
        batch.put("b", "other");
        batch.put("a", "2");
        assert_eq!((batch.len(), batch.bytes()), (2, 8));
        batch.delete("a");
        assert_eq!((batch.len(), batch.bytes()), (2, 7));
        let changes: Vec<_> =
            batch.changes().map(|(key, value)| (key.clone(), value.cloned())).collect();
        assert_eq!(changes, [("a".into(), None), ("b".into(), Some("other".into()))]);
    }

    #[test]
    fn later_batches_win_when_appended() {
        let mut first = Batch::new();
        first.put("a", "1");
        let mut second = Batch::new();
        second.put("a", "22");
        first.append(second);
        assert_eq!(first.changes().next(), Some((&"a".into(), Some(&"22".into()))));
        assert_eq!(first.bytes(), 3);
    }

    #[test]
    fn a_group_is_essential_only_if_all_its_parts_are() {
        let essential = |key: &'static str| {
            let mut batch = Batch::new();
            batch.delete(key);
            batch.set_essential();
            batch
        };
        let mut group = Batch::new();
        group.append(essential("a"));
        group.append(essential("b"));
        assert!(group.is_essential());
        let mut client = Batch::new();
        client.put("c", "1");
        group.append(client);
        assert!(!group.is_essential());
        group.append(essential("d"));
        assert!(!group.is_essential());
    }
}
