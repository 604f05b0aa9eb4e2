//! A causal context: the exact set of dots somebody has seen of one key.
//!
//! A plain version vector can only say "everything of this actor up to n", and so claims
//! writes that its holder never saw as soon as a client with an old context writes through
//! the same coordinator again: the second write would silently replace the first. A context
//! therefore keeps a vector of what is seen without a gap, and the dots beyond a gap one by
//! one (Almeida et al., *Scalable and Accurate Causality Tracking for Eventually Consistent
//! Stores*, DAIS 2014; design rule D5: no context covers a dot that its minter did not hold).
//!
//! The form is canonical: equal sets are equal values with equal bytes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};

use crate::dot::Dot;
use crate::member::ActorId;
pub use crate::wire::WireError;
use crate::wire::{MAX_VARINT, Reader, put_varint, varint_len};

/// A set of dots of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Context {
    /// Per actor the n for which all dots 1..=n are in the set. Never 0.
    vector: BTreeMap<ActorId, u64>,
    /// The dots in the set that do not join the vector's stretch of their actor.
    cloud: BTreeSet<Dot>,
}

impl Context {
    /// The empty context: nothing seen.
    pub const fn new() -> Self {
        Self { vector: BTreeMap::new(), cloud: BTreeSet::new() }
    }

    /// True when nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.vector.is_empty() && self.cloud.is_empty()
    }

    /// How many entries the context stores: actors in the vector plus dots beyond a gap.
    /// This, not the number of dots, is what the limits of design §10 count.
    pub fn entries(&self) -> usize {
        self.vector.len() + self.cloud.len()
    }

    /// True when `dot` is in the set.
    pub fn covers(&self, dot: &Dot) -> bool {
        dot.counter <= self.contiguous(dot.actor) || self.cloud.contains(dot)
    }

    /// True when every dot of `other` is in the set.
    pub fn covers_all(&self, other: &Context) -> bool {
        other.cloud.iter().all(|dot| self.covers(dot))
            && other.vector.iter().all(|(actor, upto)| self.covers_stretch(*actor, *upto))
    }

    /// Adds one dot.
    pub fn insert(&mut self, dot: Dot) {
        if dot.counter == 0 || self.covers(&dot) {
            return;
        }
        self.cloud.insert(dot);
        self.fold(dot.actor);
    }

    /// Adds every dot of `other`.
    pub fn join(&mut self, other: &Context) {
        for (actor, upto) in &other.vector {
            if *upto > self.contiguous(*actor) {
                self.vector.insert(*actor, *upto);
            }
        }
        self.cloud.extend(&other.cloud);
        let touched: BTreeSet<ActorId> = self.cloud.iter().map(|dot| dot.actor).collect();
        for actor in touched {
            self.fold(actor);
        }
    }

    /// The union of two contexts.
    #[must_use]
    pub fn joined(mut self, other: &Context) -> Context {
        self.join(other);
        self
    }

    /// The number `actor` gives its next write: one more than the greatest seen of it.
    ///
    /// The minter's own record holds all its dots of the key, so this leaves no gap there.
    pub fn next_counter(&self, actor: ActorId) -> u64 {
        let beyond_gap = self.of_actor(actor).next_back().map_or(0, |dot| dot.counter);
        beyond_gap.max(self.contiguous(actor)).saturating_add(1)
    }

    /// The stretches seen without a gap: (actor, n) says 1..=n, in order of actors.
    pub fn vector(&self) -> impl Iterator<Item = (ActorId, u64)> + '_ {
        self.vector.iter().map(|(actor, upto)| (*actor, *upto))
    }

    /// The dots seen beyond a gap, in order.
    pub fn cloud(&self) -> impl Iterator<Item = Dot> + '_ {
        self.cloud.iter().copied()
    }

    fn contiguous(&self, actor: ActorId) -> u64 {
        self.vector.get(&actor).copied().unwrap_or(0)
    }

    fn of_actor(&self, actor: ActorId) -> impl DoubleEndedIterator<Item = &Dot> {
        self.cloud.range(Dot::new(actor, 0)..=Dot::new(actor, u64::MAX))
    }

    /// True when 1..=upto of `actor` are all in the set. The form is canonical: the dot after
    /// the vector's stretch is never in the cloud, so only the vector can hold them all.
    fn covers_stretch(&self, actor: ActorId, upto: u64) -> bool {
        upto <= self.contiguous(actor)
    }

    /// Restores the canonical form for one actor: dots within or next to the vector's stretch
    /// leave the cloud.
    fn fold(&mut self, actor: ActorId) {
        let mut upto = self.contiguous(actor);
        let absorbed: Vec<Dot> = self
            .of_actor(actor)
            .copied()
            .take_while(|dot| {
                let adjoins = dot.counter <= upto.saturating_add(1);
                if adjoins {
                    upto = upto.max(dot.counter);
                }
                adjoins
            })
            .collect();
        for dot in absorbed {
            self.cloud.remove(&dot);
        }
        if upto > 0 {
            self.vector.insert(actor, upto);
        }
    }
}

impl FromIterator<Dot> for Context {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut context = Self::new();
        for dot in dots {
            context.insert(dot);
        }
        context
    }
}

/// Why bytes are not a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// The bytes themselves do not fit together.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The entries are not in their one canonical order and form.
    #[error("the context's entries are not in canonical form")]
    NotCanonical,
    /// More entries than the reader accepts.
    #[error("the context has more than {limit} entries")]
    TooManyEntries {
        /// The greatest number accepted.
        limit: usize,
    },
}

impl Context {
    /// The context as bytes: the vector, then the cloud, each a count and its entries in
    /// order; an entry is the actor (8 bytes, big endian) and the counter (varint).
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.encode_into(&mut out);
        out.freeze()
    }

    /// Reads what [`Context::encode`] wrote. Bounded by the input: nothing is allocated for
    /// entries that are not there.
    pub fn decode(bytes: Bytes) -> Result<Self, ContextError> {
        Self::decode_bounded(bytes, usize::MAX)
    }

    /// Reads what [`Context::encode`] wrote, and stops at more than `limit` entries.
    pub fn decode_bounded(bytes: Bytes, limit: usize) -> Result<Self, ContextError> {
        let mut reader = Reader::new(bytes);
        let context = Self::decode_from(&mut reader, limit)?;
        reader.finish()?;
        Ok(context)
    }

    /// An upper bound of the encoded length, close enough to reserve by.
    pub(crate) fn encoded_len(&self) -> usize {
        let counts = varint_len(self.vector.len() as u64) + varint_len(self.cloud.len() as u64);
        counts + self.entries() * (8 + MAX_VARINT)
    }

    pub(crate) fn encode_into(&self, out: &mut BytesMut) {
        put_varint(out, self.vector.len() as u64);
        for (actor, upto) in &self.vector {
            put_dot(out, Dot::new(*actor, *upto));
        }
        put_varint(out, self.cloud.len() as u64);
        for dot in &self.cloud {
            put_dot(out, *dot);
        }
    }

    pub(crate) fn decode_from(reader: &mut Reader, limit: usize) -> Result<Self, ContextError> {
        let mut context = Self::new();
        let actors = reader.varint("the number of actors in a context")?;
        for _ in 0..actors {
            let Dot { actor, counter } = take_dot(reader)?;
            let ascending = context.vector.last_key_value().is_none_or(|(last, _)| *last < actor);
            if !ascending || counter == 0 {
                return Err(ContextError::NotCanonical);
            }
            context.vector.insert(actor, counter);
            context.check_entries(limit)?;
        }
        let dots = reader.varint("the number of dots in a context")?;
        for _ in 0..dots {
            let dot = take_dot(reader)?;
            let ascending = context.cloud.last().is_none_or(|last| *last < dot);
            // The dot next to the stretch belongs into the stretch.
            let beyond_gap = dot.counter > context.contiguous(dot.actor).saturating_add(1);
            if !ascending || !beyond_gap {
                return Err(ContextError::NotCanonical);
            }
            context.cloud.insert(dot);
            context.check_entries(limit)?;
        }
        Ok(context)
    }

    fn check_entries(&self, limit: usize) -> Result<(), ContextError> {
        if self.entries() > limit {
            return Err(ContextError::TooManyEntries { limit });
        }
        Ok(())
    }
}

/// Appends a dot: actor (8 bytes, big endian), counter (varint).
pub(crate) fn put_dot(out: &mut BytesMut, dot: Dot) {
    out.put_u64(dot.actor.get());
    put_varint(out, dot.counter);
}

/// Reads what [`put_dot`] wrote.
pub(crate) fn take_dot(reader: &mut Reader) -> Result<Dot, WireError> {
    let actor = ActorId::new(reader.u64("the actor of a dot")?);
    Ok(Dot::new(actor, reader.varint("the counter of a dot")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dot(actor: u64, counter: u64) -> Dot {
        Dot::new(ActorId::new(actor), counter)
    }

    fn context(dots: &[Dot]) -> Context {
        dots.iter().copied().collect()
    }

    #[test]
    fn a_gap_is_remembered_and_closed() {
        let mut seen = context(&[dot(1, 1), dot(1, 3)]);
        assert!(!seen.covers(&dot(1, 2)));
        assert_eq!(seen.entries(), 2);
        assert_eq!(seen.next_counter(ActorId::new(1)), 4);
        seen.insert(dot(1, 2));
        assert_eq!(seen, context(&[dot(1, 1), dot(1, 2), dot(1, 3)]));
        assert_eq!(seen.entries(), 1);
    }

    #[test]
    fn joining_folds_across_both_sides() {
        let odd = context(&[dot(1, 1), dot(1, 3), dot(1, 5)]);
        let even = context(&[dot(1, 2), dot(1, 4)]);
        let all = odd.joined(&even);
        assert_eq!(all.entries(), 1);
        assert_eq!(all.vector().collect::<Vec<_>>(), [(ActorId::new(1), 5)]);
    }

    #[test]
    fn an_actor_starts_at_one() {
        assert_eq!(Context::new().next_counter(ActorId::new(7)), 1);
        // Another actor's writes, even its neighbours', do not matter.
        let others = context(&[dot(6, 9), dot(8, 9)]);
        assert_eq!(others.next_counter(ActorId::new(7)), 1);
    }

    #[test]
    fn a_decoder_stops_at_its_limit() {
        let three = context(&[dot(1, 1), dot(2, 1), dot(3, 5)]);
        assert_eq!(Context::decode_bounded(three.encode(), 3), Ok(three.clone()));
        let refused = Err(ContextError::TooManyEntries { limit: 2 });
        assert_eq!(Context::decode_bounded(three.encode(), 2), refused);
    }

    #[test]
    fn a_forged_count_is_truncation_not_an_allocation() {
        let mut forged = BytesMut::new();
        put_varint(&mut forged, u64::MAX);
        put_dot(&mut forged, dot(1, 1));
        let truncated = Context::decode(forged.freeze());
        assert!(matches!(truncated, Err(ContextError::Wire(WireError::Truncated(_)))));
    }

    #[test]
    fn a_second_form_of_the_same_set_is_refused() {
        let encode = |vector: &[Dot], cloud: &[Dot]| {
            let mut out = BytesMut::new();
            for dots in [vector, cloud] {
                put_varint(&mut out, dots.len() as u64);
                for dot in dots {
                    put_dot(&mut out, *dot);
                }
            }
            Context::decode(out.freeze())
        };
        assert!(encode(&[dot(1, 1)], &[dot(1, 3)]).is_ok());
        let second_forms = [
            encode(&[dot(1, 1)], &[dot(1, 2)]),
            encode(&[dot(1, 3)], &[dot(1, 2)]),
            encode(&[], &[dot(1, 1)]),
            encode(&[dot(1, 0)], &[]),
            encode(&[dot(2, 1), dot(1, 1)], &[]),
            encode(&[dot(1, 1), dot(1, 1)], &[]),
            encode(&[], &[dot(1, 4), dot(1, 3)]),
        ];
        for second in second_forms {
            assert_eq!(second, Err(ContextError::NotCanonical));
        }
    }

    type Naive = BTreeSet<Dot>;

    fn dots() -> impl Strategy<Value = Naive> {
        prop::collection::btree_set((1..4_u64, 1..6_u64), 0..12)
            .prop_map(|dots| dots.into_iter().map(|(a, n)| dot(a, n)).collect())
    }

    fn of(naive: &Naive) -> Context {
        naive.iter().copied().collect()
    }

    fn expanded(context: &Context) -> Naive {
        let stretches = context.vector();
        let stretches = stretches.flat_map(|(actor, n)| (1..=n).map(move |i| Dot::new(actor, i)));
        stretches.chain(context.cloud()).collect()
    }

    proptest! {
        #[test]
        fn a_context_is_the_set_of_its_dots(
            left in dots(), right in dots(), order in any::<prop::sample::Index>(),
        ) {
            let union: Naive = left.union(&right).copied().collect();
            prop_assert_eq!(of(&left).joined(&of(&right)), of(&union));
            prop_assert_eq!(expanded(&of(&union)), union.clone());
            prop_assert_eq!(of(&left).covers_all(&of(&right)), right.is_subset(&left));
            for actor in 1..4 {
                let greatest = (1..6).rev().find(|n| left.contains(&dot(actor, *n)));
                let next = of(&left).next_counter(ActorId::new(actor));
                prop_assert_eq!(next, greatest.unwrap_or(0) + 1);
                for n in 1..6 {
                    prop_assert_eq!(of(&left).covers(&dot(actor, n)), left.contains(&dot(actor, n)));
                }
            }
            // In whatever order the dots come, the form is the same.
            let mut rotated: Vec<Dot> = union.iter().copied().collect();
            if !rotated.is_empty() {
                let at = order.index(rotated.len());
                rotated.rotate_left(at);
            }
            prop_assert_eq!(context(&rotated), of(&union));
        }

        #[test]
        fn a_context_survives_its_bytes_and_has_only_those(naive in dots()) {
            let bytes = of(&naive).encode();
            prop_assert_eq!(Context::decode(bytes.clone()), Ok(of(&naive)));
            for len in 0..bytes.len() {
                prop_assert!(Context::decode(bytes.slice(..len)).is_err());
            }
        }

        #[test]
        fn whatever_decodes_encodes_to_the_same(bytes in prop::collection::vec(0..4_u8, 0..40)) {
            let bytes = Bytes::from(bytes);
            if let Ok(context) = Context::decode(bytes.clone()) {
                prop_assert_eq!(context.encode(), bytes);
            }
        }
    }
}
