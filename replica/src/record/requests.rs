//! Which requests wrote to a key, so that a repetition is recognised (design rule D11).
//!
//! A record keeps a [`RequestPair`] for each of the latest writes that came with a request id.
//! Pairs are facts ("this id made this dot") and merge like a set; they decide nothing while
//! records merge. They are read in three places:
//!
//! - A write whose id the coordinator's record, or a majority's, knows is not done again
//!   ([`Record::knows`], [`Record::event`]).
//! - Where a repetition was minted all the same, because its coordinator could not know, the two
//!   dots are one event: a reader is shown the smaller ([`Record::distinct`]).
//! - Once one dot of an event is replaced or deleted, the others go too ([`Record::settle`]): its
//!   *twins*, of attempts that did not know of each other. All but a twin that replaced a value
//!   which the dots that are gone had not replaced: with it that value would vanish, which may
//!   have been acknowledged after the first attempt. Therefore a pair keeps what its write
//!   replaced.
//!
//! # Why no event is lost with its twins
//!
//! Say of the dots of one event that a later one *follows* those that its write covered. A dot is
//! gone because somebody else replaced it, because one that follows it covered it, or because
//! it went with a twin. If nobody else has replaced any, one of them stands: take the last dots,
//! which none follows. For one of them to go, each dot that stood as it was minted must have
//! been covered by a dot that is gone and that it does not follow; above this one there is
//! another last dot, which must have gone in the same way, through a dot still further up. There
//! are finitely many, so one of the last dots stays.
//!
//! What a twin replaced was replaced as well by a dot of the event that is gone, or before that one
//! was minted. The rule only looks at what never changes (what was minted, what it replaced)
//! and at what only grows (what is gone, which pairs are known): so it does not matter when and
//! where records are settled, and a pair that is forgotten can only leave a twin standing.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use triad_ring::mutant::{Mutant, left_out};

use super::{Basis, Change, Limits, Record, Sibling, UpdateError, Updated};
use crate::context::Context;
use crate::dot::Dot;
use crate::member::ActorId;

/// How many [`RequestPair`]s a record keeps.
pub const MAX_REQUESTS: usize = 8;

/// How long a pair is kept at least, in seconds, while there is room. Older ones go with the
/// next write that comes with an id.
pub const KEPT_SECONDS: u32 = 120;

/// Entries of a context that a [`RequestPair`] keeps.
pub const MAX_REPLACED: usize = 16;

/// A client's request: its id, bound to what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The first 8 bytes of the hash of the client's request id.
    pub id: u64,
    /// The first 8 bytes of the hash of what it writes.
    pub content: u64,
    /// When this attempt began, in seconds since the Unix epoch by the cluster's time.
    pub at: u32,
}

impl Request {
    /// Names a request. Values are hashed where they lie.
    pub fn new(id: &[u8; 16], change: &Change, at_ms: u64) -> Self {
        let mut content = Sha256::new();
        match change {
            Change::Put { value, .. } => {
                content.update([1]);
                content.update(value);
            }
            Change::Delete => content.update([2]),
        }
        let at = u32::try_from(at_ms / 1_000).unwrap_or(u32::MAX);
        Self { id: first_u64(Sha256::digest(id)), content: first_u64(content.finalize()), at }
    }
}

fn first_u64(hash: impl AsRef<[u8]>) -> u64 {
    hash.as_ref().iter().take(8).fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

/// One attempt of a request that wrote to the key. Older ones order first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestPair {
    /// See [`Request::at`].
    pub at: u32,
    /// See [`Request::id`].
    pub id: u64,
    /// See [`Request::content`].
    pub content: u64,
    /// The dot that it minted; `None` for a delete.
    pub dot: Option<Dot>,
    /// The values that its write replaced; of a causal one, all that its client had seen. `None`
    /// if they are too many or not known: then it goes with no twin.
    pub replaced: Option<Context>,
    /// All that its write covered; empty if that has more than [`MAX_REPLACED`] entries.
    pub covered: Context,
}

impl RequestPair {
    /// A pair without a dot, of a delete.
    fn of_delete(Request { id, content, at }: Request) -> Self {
        Self { at, id, content, dot: None, replaced: None, covered: Context::new() }
    }
}

/// What a record knows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Known {
    /// Nothing.
    No,
    /// It wrote here already.
    Repeated,
    /// Its id wrote something else here.
    Reused,
}

/// A request as a record knows it, under however many dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The dots, in order; empty for a delete.
    pub dots: Vec<Dot>,
    /// The dot to tell the client: the smallest that stands, else the smallest; `None` for a
    /// delete.
    pub dot: Option<Dot>,
    /// One of the dots is a sibling.
    pub stands: bool,
}

impl Record {
    /// The latest requests that wrote, oldest first.
    pub fn requests(&self) -> &BTreeSet<RequestPair> {
        &self.requests
    }

    /// What is known here of a request.
    pub fn knows(&self, request: &Request) -> Known {
        let mut known = Known::No;
        if left_out(Mutant::RepetitionsAreNew) {
            return known;
        }
        for pair in self.requests.iter().filter(|pair| pair.id == request.id) {
            if pair.content == request.content {
                return Known::Repeated;
            }
            known = Known::Reused;
        }
        known
    }

    /// What became of a request that is known here.
    pub fn event(&self, request: &Request) -> Event {
        let dots: BTreeSet<Dot> = self.pairs_of(request.id, request.content).collect();
        let alive = dots.iter().copied().find(|dot| self.siblings.contains_key(dot));
        Event {
            dot: alive.or(dots.first().copied()),
            stands: alive.is_some(),
            dots: dots.into_iter().collect(),
        }
    }

    fn pairs_of(&self, id: u64, content: u64) -> impl Iterator<Item = Dot> + '_ {
        let same = move |pair: &&RequestPair| pair.id == id && pair.content == content;
        self.requests.iter().filter(same).filter_map(|pair| pair.dot)
    }

    /// [`Record::update`], remembered under `request`. The caller has made sure that it is not
    /// known, or knows that this is another attempt of it.
    pub fn update_as(
        &mut self,
        request: Request,
        actor: ActorId,
        change: Change,
        basis: Basis,
        limits: &Limits,
    ) -> Result<Updated, UpdateError> {
        let first = match &basis {
            Basis::OverwriteAgain { first, .. } => first.dot,
            Basis::Overwrite | Basis::Causal(_) => None,
        };
        let (replaced, covered) = self.replaced_by(&basis);
        let updated = self.update(actor, change, basis, limits)?;
        self.requests.retain(|pair| pair.at.saturating_add(KEPT_SECONDS) >= request.at);
        if updated.dot.is_none() || updated.dot != first {
            self.remember(match updated.dot {
                None => RequestPair::of_delete(request),
                dot => RequestPair { dot, replaced, covered, ..RequestPair::of_delete(request) },
            });
        }
        Ok(updated)
    }

    /// What a write on this record replaces, and all that it covers, as far as a pair keeps that.
    fn replaced_by(&self, basis: &Basis) -> (Option<Context>, Context) {
        let small = |context: &Context| context.entries() <= MAX_REPLACED;
        let (replaced, covered) = match basis {
            Basis::Causal(seen) => (Some(seen.clone()), seen.clone()),
            // With an earlier attempt of its own, if that stands here: which must not take it along.
            Basis::Overwrite => {
                (Some(self.siblings.keys().copied().collect()), self.context.clone())
            }
            // What stands among all that other replicas reported, nobody has told.
            Basis::OverwriteAgain { uncovered, .. } => {
                (None, self.context.clone().joined(uncovered))
            }
        };
        (replaced.filter(small), Some(covered).filter(small).unwrap_or_default())
    }

    fn remember(&mut self, pair: RequestPair) {
        self.requests.insert(pair);
        self.bound_requests();
    }

    /// Of too many pairs the latest stay: all replicas drop the same ones, in whatever order
    /// records merge.
    pub(super) fn bound_requests(&mut self) {
        while self.requests.len() > MAX_REQUESTS {
            self.requests.pop_first();
        }
    }

    /// Takes in what `other` knows of requests; true when that was news.
    pub(super) fn merge_requests(&mut self, other: &Record) -> bool {
        if other.requests.is_subset(&self.requests) {
            return false;
        }
        let before = self.requests.clone();
        self.requests.extend(other.requests.iter().cloned());
        self.bound_requests();
        self.requests != before
    }

    /// Removes what stands of an event of which another dot was replaced or deleted, as long as
    /// nothing else is lost with it. True when there was such a thing.
    ///
    /// It only removes siblings, by a rule that holds ever after, so whatever merges later, all
    /// replicas come to the same.
    pub fn settle(&mut self) -> bool {
        let before = self.siblings.len();
        // What goes may take another along. Each round but the last removes one, of 8 at most.
        loop {
            let over: Vec<Dot> =
                self.requests.iter().filter_map(|pair| self.is_over(pair)).collect();
            if over.is_empty() {
                return self.siblings.len() < before;
            }
            for dot in &over {
                self.siblings.remove(dot);
            }
        }
    }

    /// The dot of a pair, if it stands and goes with a twin: all that it replaced was covered by dots
    /// of its event that are gone and that its write had not seen.
    fn is_over(&self, pair: &RequestPair) -> Option<Dot> {
        let dot = pair.dot.filter(|dot| self.siblings.contains_key(dot))?;
        let replaced = pair.replaced.as_ref()?;
        let gone = |dot: &Dot| self.context.covers(dot) && !self.siblings.contains_key(dot);
        let mut twins = self
            .requests
            .iter()
            .filter(|other| other.id == pair.id && other.content == pair.content)
            .filter(|other| {
                other.dot.is_some_and(|twin| gone(&twin) && !pair.covered.covers(&twin))
            })
            .peekable();
        twins.peek()?;
        let covered = twins.fold(Context::new(), |covered, twin| covered.joined(&twin.covered));
        let alone = covered.covers_all(replaced) || left_out(Mutant::TwinsGoWithWhatTheyReplaced);
        (alone && !left_out(Mutant::TwinsStay)).then_some(dot)
    }

    /// The siblings, each event once: under its smallest dot.
    pub fn distinct(&self) -> impl Iterator<Item = (&Dot, &Sibling)> {
        let mut shown = BTreeSet::new();
        let of: std::collections::BTreeMap<Dot, (u64, u64)> = self
            .requests
            .iter()
            .filter_map(|pair| Some((pair.dot?, (pair.id, pair.content))))
            .collect();
        self.siblings.iter().filter(move |(dot, _)| {
            of.get(dot).is_none_or(|event| shown.insert(*event)) || left_out(Mutant::TwinsAreShown)
        })
    }
}

#[cfg(test)]
mod tests;
