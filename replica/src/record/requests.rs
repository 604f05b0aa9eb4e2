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
//! - Once one dot of an event is replaced or deleted, the others go too ([`Record::settle`]). All
//!   but those that themselves replaced a value as they were minted: with those that value would
//!   vanish, which may have been acknowledged after the first attempt.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::{Basis, Change, Limits, Record, Sibling, UpdateError, Updated};
use crate::dot::Dot;
use crate::member::ActorId;

/// How many [`RequestPair`]s a record keeps.
pub const MAX_REQUESTS: usize = 8;

/// How long a pair is kept at least, in seconds, while there is room. Older ones go with the
/// next write that comes with an id.
pub const KEPT_SECONDS: u32 = 120;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestPair {
    /// See [`Request::at`].
    pub at: u32,
    /// See [`Request::id`].
    pub id: u64,
    /// See [`Request::content`].
    pub content: u64,
    /// The dot that it minted; `None` for a delete.
    pub dot: Option<Dot>,
    /// It replaced a value that its client need not have seen.
    pub replaced: bool,
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
        let replaced = match basis {
            Basis::Causal(_) => false,
            // Also when it is an earlier attempt of its own: that must not take this one along.
            Basis::Overwrite => !self.siblings.is_empty(),
            Basis::OverwriteAgain { .. } => true,
        };
        let updated = self.update(actor, change, basis, limits)?;
        self.requests.retain(|pair| pair.at.saturating_add(KEPT_SECONDS) >= request.at);
        if updated.dot.is_none() || updated.dot != first {
            let Request { id, content, at } = request;
            self.remember(RequestPair { at, id, content, dot: updated.dot, replaced });
        }
        Ok(updated)
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
        self.requests.extend(&other.requests);
        self.bound_requests();
        self.requests != before
    }

    /// Removes what stands of an event of which another dot was replaced or deleted. True when
    /// there was such a thing.
    ///
    /// What it removes replaced nothing itself, so that nothing else is lost with it; and it only
    /// removes siblings, so whatever merges later, all replicas come to the same.
    pub fn settle(&mut self) -> bool {
        let gone = |dot: &Dot| self.context.covers(dot) && !self.siblings.contains_key(dot);
        let over: BTreeSet<(u64, u64)> = self
            .requests
            .iter()
            .filter(|pair| pair.dot.as_ref().is_some_and(gone))
            .map(|pair| (pair.id, pair.content))
            .collect();
        let before = self.siblings.len();
        for pair in &self.requests {
            if let Some(dot) = pair.dot
                && !pair.replaced
                && over.contains(&(pair.id, pair.content))
            {
                self.siblings.remove(&dot);
            }
        }
        self.siblings.len() < before
    }

    /// The siblings, each event once: under its smallest dot.
    pub fn distinct(&self) -> impl Iterator<Item = (&Dot, &Sibling)> {
        let mut shown = BTreeSet::new();
        let of: std::collections::BTreeMap<Dot, (u64, u64)> = self
            .requests
            .iter()
            .filter_map(|pair| Some((pair.dot?, (pair.id, pair.content))))
            .collect();
        self.siblings
            .iter()
            .filter(move |(dot, _)| of.get(dot).is_none_or(|event| shown.insert(*event)))
    }
}

#[cfg(test)]
mod tests;
