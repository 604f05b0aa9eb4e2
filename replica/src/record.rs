//! What a replica stores for a key: concurrent values and what was seen.
//!
//! A record is a dotted version vector set (Preguiça et al., *Dotted Version Vectors*, arXiv
//! 1011.5808; Almeida et al., *Scalable and Accurate Causality Tracking*, DAIS 2014): the
//! *siblings*, each under the dot of the write that made it, and one causal *context*, the
//! dots of all writes that ever went into the record. A dot in the context without a sibling
//! is a value that was replaced or deleted; so a delete needs no mark of its own, and a
//! record without siblings is a tombstone.
//!
//! # How a write replaces
//!
//! Every write covers a set of dots and, if it puts a value, mints a new one. What it covers
//! existed when it was minted, and every context is closed under "covers": causality has no
//! cycles, and a sibling can only vanish because of a write that came after it.
//!
//! A *causal* write covers exactly its client's context. An *overwriting* one covers what the
//! coordinator's stored record holds, and must replace everything that a quorum acknowledged
//! before it began. A replica may know more than the coordinator, so it answers with its
//! context if that is so ([`Record::uncovered_by`]), and the coordinator writes *again*,
//! once, under a **new** dot ([`Basis::OverwriteAgain`]). Sending the *same* dot with a
//! larger context would let two concurrent overwrites each cover the other's dot, and lose
//! both. So would covering without a dot where the first attempt is already replaced: then a
//! covers b, b covers c and c covers a, and nothing is left. There the second attempt changes
//! nothing; the coordinator has to wait until those who replaced the write have replaced the
//! rest as well. And where the first is replaced the replica asks for nothing.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use triad_ring::mutant::{Mutant, left_out};

use crate::context::Context;
use crate::dot::Dot;
use crate::member::ActorId;

mod codec;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod oracle;
mod requests;

pub use codec::DecodeError;
pub use requests::{Event, KEPT_SECONDS, Known, MAX_REPLACED, MAX_REQUESTS, Request, RequestPair};

/// One value of a key, and when it stops being one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sibling {
    /// The value, shared with the buffer it arrived in.
    pub value: Bytes,
    /// When it is due to be removed, in milliseconds since the Unix epoch by the cluster's
    /// time; `None` for a value without a time to live (design rule D12).
    pub expires_at: Option<u64>,
}

impl Sibling {
    /// Whether its time is over at `now` (milliseconds since the Unix epoch).
    pub fn is_due(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// A key's siblings and context. The default is the record of a key never written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// Each dot is covered by the context.
    siblings: BTreeMap<Dot, Sibling>,
    context: Context,
    /// At most [`MAX_REQUESTS`].
    requests: BTreeSet<RequestPair>,
}

/// A short name of a record's content: equal digests mean equal context, dots, values and
/// expiry. Request pairs are outside it, for they go by themselves after a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordDigest(pub [u8; 16]);

/// The most that a write may make of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Siblings after a causal put.
    pub siblings: usize,
    /// Entries of the context after any write that adds some.
    pub context_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { siblings: 50, context_entries: 1024 }
    }
}

/// What a write does to the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a value.
    Put {
        /// The value.
        value: Bytes,
        /// See [`Sibling::expires_at`].
        expires_at: Option<u64>,
    },
    /// Only removes: it mints no dot, it just covers.
    Delete,
}

/// What a write replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Everything stored here: a write without a context.
    Overwrite,
    /// The second and last attempt of an overwriting write, after counted replicas answered
    /// that they hold what the first did not cover. Of a put whose first attempt does not stand
    /// here any more it changes nothing, and `first` comes back.
    OverwriteAgain {
        /// What the first attempt returned.
        first: Updated,
        /// The union of the contexts that the replicas reported.
        uncovered: Context,
    },
    /// What this client has seen, and nothing else.
    Causal(Context),
}

/// What a write minted, and what its client has seen now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The put's dot; `None` for a delete.
    pub dot: Option<Dot>,
    /// The context to hand to the client: for a causal write its own context and the new dot,
    /// and not what the record holds besides, which the client has not seen.
    pub client_context: Context,
}

/// Why a write was refused; the record is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// A causal put would leave too many siblings. Reading the key and putting with the
    /// context read replaces them all.
    #[error("the put would leave {siblings} siblings, the limit is {limit}")]
    SiblingLimit {
        /// How many there would be.
        siblings: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The write would add an entry to a context that is full.
    #[error("the write would leave {entries} entries in the key's context, the limit is {limit}")]
    ContextLimit {
        /// How many there would be.
        entries: usize,
        /// How many there may be.
        limit: usize,
    },
}

impl Record {
    /// The concurrent values, by dot.
    pub fn siblings(&self) -> &BTreeMap<Dot, Sibling> {
        &self.siblings
    }

    /// Every write that ever went into the record.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// A record that covers these dots and says nothing else: merged anywhere, it removes their
    /// siblings, and whatever else is there stays.
    pub fn covering(dots: impl IntoIterator<Item = Dot>) -> Self {
        Self { context: dots.into_iter().collect(), ..Self::default() }
    }

    /// True for the record of a key never written: no row needs to be kept for it.
    pub fn is_absent(&self) -> bool {
        self.context.is_empty()
    }

    /// True when all that was ever written is deleted.
    pub fn is_tombstone(&self) -> bool {
        self.siblings.is_empty() && !self.is_absent()
    }

    /// What has to stay of it once every store that counts has forgotten the rest
    /// ([`gc`](crate::gc)): the siblings and their dots. Nothing of a tombstone.
    #[must_use]
    pub fn pruned(&self) -> Self {
        if self.siblings.is_empty() {
            return Self::default();
        }
        Self { context: self.siblings.keys().copied().collect(), ..self.clone() }
    }

    /// True when siblings and context are the same: what [`Record::digest`] names.
    pub fn same_content(&self, other: &Record) -> bool {
        self.context == other.context && self.siblings == other.siblings
    }

    /// Takes in all that `other` knows; true when that changed anything.
    ///
    /// A sibling stays if and only if both records have it or the other's context does not
    /// cover it; contexts join. Commutative, associative, idempotent: whatever the order and
    /// number of deliveries, replicas that heard of the same writes store the same record.
    pub fn merge(&mut self, other: &Record) -> bool {
        let mut changed = self.merge_siblings(other);
        if !self.context.covers_all(&other.context) {
            self.context.join(&other.context);
            changed = true;
        }
        self.merge_requests(other) || changed
    }

    fn merge_siblings(&mut self, other: &Record) -> bool {
        let before = self.siblings.len();
        self.siblings
            .retain(|dot, _| other.siblings.contains_key(dot) || !other.context.covers(dot));
        let mut changed = self.siblings.len() < before;
        for (dot, theirs) in &other.siblings {
            let keep_theirs = match self.siblings.get(dot) {
                // Equal by rule D5. Should that ever break, all replicas keep the same one.
                Some(ours) => theirs > ours,
                None => !self.context.covers(dot),
            };
            if keep_theirs {
                self.siblings.insert(*dot, theirs.clone());
                changed = true;
            }
        }
        changed
    }

    /// Performs one client's write: covers what `basis` says and, for a put, mints a dot of
    /// `actor`. What goes to the other replicas is the record as it is afterwards.
    ///
    /// The caller must be the only minter under `actor`, and this record must hold every dot
    /// that `actor` minted for the key (design rule D5).
    pub fn update(
        &mut self,
        actor: ActorId,
        change: Change,
        basis: Basis,
        limits: &Limits,
    ) -> Result<Updated, UpdateError> {
        let causal_put = matches!(change, Change::Put { .. }) && matches!(basis, Basis::Causal(_));
        let covered = match basis {
            Basis::Overwrite => self.context.clone(),
            Basis::Causal(seen) => seen,
            Basis::OverwriteAgain { first, uncovered } => match first.dot {
                None => first.client_context.joined(&uncovered),
                Some(dot)
                    if self.siblings.contains_key(&dot)
                        || left_out(Mutant::SecondAttemptRevives) =>
                {
                    self.context.clone().joined(&uncovered)
                }
                // Replaced meanwhile, or forgotten (it was handed over). A new dot would revive the
                // value, and to cover without one is to delete.
                Some(_) => return Ok(first),
            },
        };
        match change {
            Change::Delete => self.cover(covered, limits),
            Change::Put { value, expires_at } => {
                let sibling = Sibling { value, expires_at };
                let siblings = if causal_put { limits.siblings } else { usize::MAX };
                self.mint(actor, sibling, covered, &Limits { siblings, ..*limits })
            }
        }
    }

    /// Adds `sibling` under a new dot and covers `covered`.
    fn mint(
        &mut self,
        actor: ActorId,
        sibling: Sibling,
        mut covered: Context,
        limits: &Limits,
    ) -> Result<Updated, UpdateError> {
        let mut context = self.context.clone().joined(&covered);
        let dot = Dot::new(actor, context.next_counter(actor));
        if context.covers(&dot) {
            // The actor's numbers are used up. A dot must never name two values.
            return Err(context_limit(&context, limits));
        }
        context.insert(dot);
        self.check_context(&context, limits)?;
        let staying = self.siblings.keys().filter(|dot| !covered.covers(dot));
        let siblings = staying.count() + 1;
        if siblings > limits.siblings {
            let limit = limits.siblings;
            return Err(UpdateError::SiblingLimit { siblings, limit });
        }
        self.siblings.retain(|dot, _| !covered.covers(dot));
        self.siblings.insert(dot, sibling);
        self.context = context;
        covered.insert(dot);
        Ok(Updated { dot: Some(dot), client_context: covered })
    }

    /// Covers `covered` without a new dot.
    fn cover(&mut self, covered: Context, limits: &Limits) -> Result<Updated, UpdateError> {
        let context = self.context.clone().joined(&covered);
        self.check_context(&context, limits)?;
        self.siblings.retain(|dot, _| !covered.covers(dot));
        self.context = context;
        Ok(Updated { dot: None, client_context: covered })
    }

    /// A full context refuses only what would add to it: a write by an actor that it already
    /// names, or a delete of what is there, does no harm.
    fn check_context(&self, after: &Context, limits: &Limits) -> Result<(), UpdateError> {
        let grows = after.entries() > self.context.entries();
        if grows && after.entries() > limits.context_entries {
            return Err(context_limit(after, limits));
        }
        Ok(())
    }

    /// What an overwriting write, whose record arrives as `sent`, must still cover: this
    /// record's whole context if `sent` does not. To be asked *before* merging `sent`.
    ///
    /// The context, not only the siblings: a delete that reached this replica alone hides a
    /// value that was acknowledged and that others still hold. `None` also when a value that
    /// was sent is already replaced here: then something here came after the write, must not
    /// be covered by it, and cannot be told from the rest.
    pub fn uncovered_by(&self, sent: &Record) -> Option<Context> {
        let replaced = |dot: &Dot| self.context.covers(dot) && !self.siblings.contains_key(dot);
        if sent.context.covers_all(&self.context) || sent.siblings.keys().any(replaced) {
            return None;
        }
        Some(self.context.clone())
    }

    /// The name of this content. Values are hashed where they lie.
    pub fn digest(&self) -> RecordDigest {
        let mut hash = Sha256::new();
        let context = self.context.encode();
        hash.update((context.len() as u64).to_be_bytes());
        hash.update(&context);
        for (dot, sibling) in &self.siblings {
            hash.update(dot.actor.get().to_be_bytes());
            hash.update(dot.counter.to_be_bytes());
            hash.update(Sha256::digest(&sibling.value));
            match sibling.expires_at {
                None => hash.update([0; 9]),
                Some(at) => {
                    hash.update([1]);
                    hash.update(at.to_be_bytes());
                }
            }
        }
        let whole: [u8; 32] = hash.finalize().into();
        let mut digest = [0; 16];
        digest.copy_from_slice(&whole[..16]);
        RecordDigest(digest)
    }
}

fn context_limit(after: &Context, limits: &Limits) -> UpdateError {
    UpdateError::ContextLimit { entries: after.entries(), limit: limits.context_entries }
}
