//! What is done to valid bytes.

use proptest::prelude::*;

/// Changes of one input at most.
const AT_ONCE: usize = 5;
/// Bytes that are put in at once.
const INSERTED: usize = 20;

/// Numbers at which lengths and counters break.
const LIES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    u64::MAX >> 1,
    u64::MAX,
];

/// A place in an input of whatever length, as a fraction of 2³².
#[derive(Clone, Copy, Debug)]
pub struct Place(u32);

impl Place {
    /// The place among so many.
    pub(crate) fn among(self, count: usize) -> usize {
        ((u64::from(self.0) * count as u64) >> 32) as usize
    }
}

/// One change.
#[derive(Clone, Debug)]
pub enum Mutation {
    /// One bit turns.
    Flip(Place, u8),
    /// One byte becomes another.
    Set(Place, u8),
    /// The end is missing.
    Truncate(Place),
    /// Something is put in.
    Insert(Place, Vec<u8>),
    /// A stretch is missing.
    Remove(Place, Place),
    /// A stretch comes twice.
    Repeat(Place, Place),
    /// It goes on as another valid input does.
    Splice(Place, Place),
    /// A number of so many bytes, big or little endian, is a lie.
    Lie(Place, usize, usize, bool),
    /// A varint is a lie.
    Varint(Place, usize),
}

/// A place anywhere.
pub(crate) fn place() -> impl Strategy<Value = Place> {
    any::<u32>().prop_map(Place)
}

/// A few changes.
pub fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let one = prop_oneof![
        (place(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        (place(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        place().prop_map(Mutation::Truncate),
        (place(), prop::collection::vec(any::<u8>(), 1..INSERTED))
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (place(), place()).prop_map(|(from, to)| Mutation::Remove(from, to)),
        (place(), place()).prop_map(|(from, to)| Mutation::Repeat(from, to)),
        (place(), place()).prop_map(|(at, from)| Mutation::Splice(at, from)),
        (place(), 0..4_u32, 0..LIES.len(), any::<bool>())
            .prop_map(|(at, width, lie, big)| Mutation::Lie(at, 1 << width, lie, big)),
        (place(), 0..LIES.len()).prop_map(|(at, lie)| Mutation::Varint(at, lie)),
    ];
    prop::collection::vec(one, 1..=AT_ONCE)
}

impl Mutation {
    /// One that a series of numbers chooses: `roll(n)` is one below `n`.
    pub fn rolled(mut roll: impl FnMut(u64) -> u64) -> Self {
        let which = roll(9);
        let mut place = || Place(roll(1 << 32) as u32);
        let (one, other) = (place(), place());
        match which {
            0 => Self::Flip(one, roll(8) as u8),
            1 => Self::Set(one, roll(256) as u8),
            2 => Self::Truncate(one),
            3 => Self::Insert(one, (0..=roll(INSERTED as u64)).map(|byte| byte as u8).collect()),
            4 => Self::Remove(one, other),
            5 => Self::Repeat(one, other),
            6 => Self::Splice(one, other),
            7 => {
                let lie = roll(LIES.len() as u64) as usize;
                Self::Lie(one, 1 << roll(4), lie, roll(2) == 0)
            }
            _ => Self::Varint(one, roll(LIES.len() as u64) as usize),
        }
    }

    /// Does it to `bytes`; `other` is another valid input of the same kind.
    pub fn apply(&self, bytes: &mut Vec<u8>, other: &[u8]) {
        let count = bytes.len() + 1;
        let stretch = |one: &Place, other: &Place| {
            let (one, other) = (one.among(count), other.among(count));
            one.min(other)..one.max(other)
        };
        match self {
            Self::Flip(at, bit) => change(bytes, *at, |byte| byte ^ (1 << bit)),
            Self::Set(at, to) => change(bytes, *at, |_| *to),
            Self::Truncate(at) => bytes.truncate(at.among(count)),
            Self::Insert(at, more) => {
                let at = at.among(count);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Remove(from, to) => drop(bytes.drain(stretch(from, to))),
            Self::Repeat(from, to) => {
                let stretch = stretch(from, to);
                let (at, again) = (stretch.end, bytes[stretch].to_vec());
                bytes.splice(at..at, again);
            }
            Self::Splice(at, from) => {
                bytes.truncate(at.among(count));
                bytes.extend_from_slice(&other[from.among(other.len() + 1)..]);
            }
            Self::Lie(at, width, lie, big) => {
                let lie = LIES[*lie];
                let number = if *big {
                    lie.to_be_bytes()[8 - width..].to_vec()
                } else {
                    lie.to_le_bytes()[..*width].to_vec()
                };
                overwrite(bytes, *at, &number);
            }
            Self::Varint(at, lie) => {
                let at = at.among(count);
                let end = bytes.len().min(at + 1);
                bytes.splice(at..end, varint(LIES[*lie]));
            }
        }
    }
}

fn change(bytes: &mut [u8], at: Place, to: impl Fn(u8) -> u8) {
    let at = at.among(bytes.len());
    if let Some(byte) = bytes.get_mut(at) {
        *byte = to(*byte);
    }
}

/// As far as there is something to overwrite.
fn overwrite(bytes: &mut [u8], at: Place, number: &[u8]) {
    let start = at.among(bytes.len());
    bytes[start..].iter_mut().zip(number).for_each(|(byte, to)| *byte = *to);
}

/// A protobuf varint, which the formats of stores use, too.
pub fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value as u8) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
