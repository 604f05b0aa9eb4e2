//! Clients that write, read and delete the same few keys, and what they may never see.

use std::collections::BTreeSet;

use triad_replica::configuration::{Configuration, Epoch, majority};
use triad_replica::context::Context;
use triad_replica::dot::Dot;
use triad_replica::member::Member;
use triad_replica::record::{Record, Updated};

use crate::client::Attempt;

/// A put or a delete: minted once, sent perhaps several times.
pub(crate) struct Op {
    pub(crate) key: u8,
    pub(crate) coordinator: usize,
    /// Which life of the coordinator: a later one knows nothing of it.
    pub(crate) life: u64,
    pub(crate) record: Record,
    pub(crate) updated: Updated,
    /// In which epoch the record was minted, or read again.
    pub(crate) stamp: Epoch,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) acknowledged: bool,
}

impl Op {
    /// What it replaces.
    pub(crate) fn covers(&self) -> Context {
        let context = &self.updated.client_context;
        match self.updated.dot {
            None => context.clone(),
            Some(own) => self.covered_before(own),
        }
    }

    /// The client's context without the own dot.
    fn covered_before(&self, own: Dot) -> Context {
        let context = &self.updated.client_context;
        let dots =
            context.vector().flat_map(|(actor, upto)| (1..=upto).map(move |n| Dot::new(actor, n)));
        dots.chain(context.cloud()).filter(|dot| *dot != own).collect()
    }

    /// Whether a store still holds the write, or what came after it.
    pub(crate) fn is_in(&self, record: &Record) -> bool {
        match self.updated.dot {
            Some(dot) => record.context().covers(&dot),
            None => record.context().covers_all(&self.updated.client_context),
        }
    }
}

/// A read at a quorum of one configuration.
pub(crate) struct RecordRead {
    pub(crate) key: u8,
    pub(crate) configuration: Configuration,
    /// What was dead, and what acknowledged, when it began.
    pub(crate) dead: Context,
    pub(crate) alive: BTreeSet<Dot>,
    pub(crate) seen: Record,
    pub(crate) by: BTreeSet<Member>,
    pub(crate) done: bool,
}

impl RecordRead {
    /// True when the majority is complete with this answer.
    pub(crate) fn answer(&mut self, from: Member, record: &Record) -> bool {
        let set = self.configuration.read_set();
        if self.done || !set.contains(&from) {
            return false;
        }
        self.seen.merge(record);
        self.by.insert(from);
        self.done = self.by.len() >= majority(set.len());
        self.done
    }
}

/// Everything that happened to one key.
#[derive(Clone, Default)]
pub(crate) struct KeyLedger {
    pub(crate) minted: BTreeSet<Dot>,
    /// Covered by an acknowledged put or delete: never to be seen by a read that begins now.
    pub(crate) dead: Context,
    /// Covered by any put or delete, acknowledged or not.
    pub(crate) covered: Context,
    /// Of acknowledged puts.
    pub(crate) alive: BTreeSet<Dot>,
}

impl KeyLedger {
    /// D7: what was deleted (or replaced) stays so. D8: what was acknowledged is there, or what
    /// came after it.
    pub(crate) fn check(&self, seen: &Record, dead: &Context, alive: &BTreeSet<Dot>, what: &str) {
        let back = seen.siblings().keys().find(|dot| dead.covers(dot));
        assert!(back.is_none(), "D7: {back:?} came back in {what}");
        let lost = alive
            .iter()
            .find(|dot| !seen.siblings().contains_key(dot) && !self.covered.covers(dot));
        assert!(lost.is_none(), "D8: {lost:?} is lost in {what}");
    }
}
