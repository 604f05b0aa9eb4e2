//! Building a shard's tree in slices, while the shard is written.
//!
//! The rows of the shard are read in key order, a bounded slice at a time, by somebody who does
//! not stop the writer. What the writer does meanwhile is followed exactly:
//!
//! - a row up to the last slice's end is in the tree: a write replaces its share;
//! - a row beyond it will be read later: a write needs nothing;
//! - but while a slice is being read, nobody knows whether the reader sees a row before or
//!   after its write. So from [`begin`](Building::begin) on the writes beyond the end are
//!   noted, and for these rows [`end`](Building::end) takes the note instead of what was read.
//!
//! Exact, if the writer makes a write visible and calls [`written`](Building::written) in one
//! step as seen from `begin` and `end` (a lock does it).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{HashTree, LeafHash};

/// One row as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceRow {
    /// The row's stored key.
    pub row: Bytes,
    /// Its leaf.
    pub leaf: u8,
    /// Its share. A row that cannot be read has none: it counts as absent, which shows as a
    /// difference.
    pub hash: LeafHash,
}

/// A part of the shard, in the order of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The rows.
    pub rows: Vec<SliceRow>,
    /// The key of the last row looked at; none when the shard's end was reached.
    pub end: Option<Bytes>,
}

/// A tree of which the first rows are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Building {
    tree: HashTree,
    /// Rows up to this key are in the tree.
    upto: Option<Bytes>,
    /// While a slice is read: rows beyond `upto` written since it began, as they are now.
    noted: Option<BTreeMap<Bytes, (u8, LeafHash)>>,
}

impl Building {
    /// A slice is about to be read, beginning behind the returned key. None while another is.
    pub fn begin(&mut self) -> Option<Option<Bytes>> {
        if self.noted.is_some() {
            return None;
        }
        self.noted = Some(BTreeMap::new());
        Some(self.upto.clone())
    }

    /// The slice that was begun could not be read: it may be begun again.
    pub fn give_up(&mut self) {
        self.noted = None;
    }

    /// A row was written.
    pub fn written(&mut self, row: &Bytes, leaf: u8, before: LeafHash, after: LeafHash) {
        if self.upto.as_ref().is_some_and(|upto| row <= upto) {
            self.tree.replace(leaf, before, after);
        } else if let Some(noted) = &mut self.noted {
            noted.insert(row.clone(), (leaf, after));
        }
    }

    /// Takes in the slice that was begun. The tree, once the shard's end was reached.
    pub fn end(&mut self, slice: Slice) -> Option<HashTree> {
        let noted = self.noted.take()?;
        for SliceRow { row, leaf, hash } in slice.rows {
            if !noted.contains_key(&row) {
                self.tree.replace(leaf, LeafHash::default(), hash);
            }
        }
        let within = |row: &Bytes| slice.end.as_ref().is_none_or(|end| row <= end);
        for (_, (leaf, hash)) in noted.iter().filter(|(row, _)| within(row)) {
            self.tree.replace(*leaf, LeafHash::default(), *hash);
        }
        self.upto = slice.end;
        self.upto.is_none().then(|| std::mem::take(&mut self.tree))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Rows = BTreeMap<Bytes, u8>;

    fn row(number: u8) -> Bytes {
        Bytes::from(vec![number])
    }

    fn leaf(row: &Bytes) -> u8 {
        row[0] % 5
    }

    /// Value 0 is a row that is not there.
    fn hash(row: &Bytes, value: u8) -> LeafHash {
        let share = u128::from(value) * 1_000 + u128::from(row[0]);
        if value == 0 {
            LeafHash::default()
        } else {
            LeafHash(share.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        }
    }

    fn at_once(rows: &Rows) -> HashTree {
        let mut tree = HashTree::new();
        for (row, value) in rows {
            tree.replace(leaf(row), LeafHash::default(), hash(row, *value));
        }
        tree
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u8, u8),
        Begin,
        /// The reader looks at one more row.
        Read,
        End,
        GiveUp,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..20_u8, 0..4_u8).prop_map(|(row, value)| Step::Write(row, value)),
            2 => Just(Step::Begin),
            6 => Just(Step::Read),
            2 => Just(Step::End),
            1 => Just(Step::GiveUp),
        ];
        prop::collection::vec(step, 0..200)
    }

    #[derive(Default)]
    struct World {
        rows: Rows,
        building: Building,
        /// Where the reader is, and what it has read.
        reading: Option<(Option<Bytes>, Slice)>,
        done: Option<HashTree>,
    }

    impl World {
        fn write(&mut self, number: u8, value: u8) {
            let row = row(number);
            let before = self.rows.get(&row).copied().unwrap_or(0);
            if value == 0 {
                self.rows.remove(&row);
            } else {
                self.rows.insert(row.clone(), value);
            }
            let (before, after) = (hash(&row, before), hash(&row, value));
            match &mut self.done {
                Some(tree) => tree.replace(leaf(&row), before, after),
                None => self.building.written(&row, leaf(&row), before, after),
            }
        }

        fn read(&mut self) {
            let Some((at, slice)) = &mut self.reading else { return };
            let next = self.rows.iter().find(|(row, _)| at.as_ref().is_none_or(|at| *row > at));
            if let Some((row, value)) = next {
                *at = Some(row.clone());
                let hash = hash(row, *value);
                slice.rows.push(SliceRow { row: row.clone(), leaf: leaf(row), hash });
            }
        }

        /// Ends the slice where the reader is; at the shard's end if `last`, after the last row.
        fn end(&mut self, last: bool) {
            let Some((at, mut slice)) = self.reading.take() else { return };
            slice.end = if last { None } else { at };
            if !last && slice.end.is_none() {
                return self.building.give_up(); // no row was read
            }
            if let Some(tree) = self.building.end(slice) {
                self.done = Some(tree);
            }
        }

        fn step(&mut self, step: &Step) {
            match step {
                Step::Write(row, value) => self.write(*row, *value),
                Step::Read => self.read(),
                Step::End => self.end(false),
                Step::GiveUp => {
                    self.reading = None;
                    self.building.give_up();
                }
                Step::Begin => {
                    if self.done.is_none()
                        && let Some(after) = self.building.begin()
                    {
                        self.reading = Some((after, Slice::default()));
                    }
                }
            }
        }

        fn finish(&mut self) {
            if self.done.is_none() {
                self.step(&Step::Begin);
                (0..=u8::MAX).for_each(|_| self.read());
                self.end(true);
            }
        }
    }

    proptest! {
        #[test]
        fn built_in_slices_between_writes_it_equals_the_tree_built_at_once(
            before in steps(),
            after in prop::collection::vec((0..20_u8, 0..4_u8), 0..20),
        ) {
            let mut world = World::default();
            for step in &before {
                world.step(step);
            }
            world.finish();
            for (row, value) in after {
                world.write(row, value);
            }
            prop_assert_eq!(world.done.as_ref(), Some(&at_once(&world.rows)));
        }
    }

    #[test]
    fn a_row_that_is_written_while_its_slice_is_read_is_counted_once_and_as_it_is() {
        for seen_before_the_write in [true, false] {
            let mut world = World::default();
            world.write(1, 1);
            world.step(&Step::Begin);
            if seen_before_the_write {
                world.read();
                world.write(1, 2);
            } else {
                world.write(1, 2);
                world.read();
            }
            world.end(true);
            assert_eq!(world.done, Some(at_once(&world.rows)), "{seen_before_the_write}");
        }
    }

    #[test]
    fn only_one_slice_is_read_at_a_time() {
        let mut building = Building::default();
        assert_eq!(building.begin(), Some(None));
        assert_eq!(building.begin(), None);
        building.give_up();
        assert_eq!(building.begin(), Some(None));
    }
}
