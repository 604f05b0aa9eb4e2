//! `put`, `get`, `del`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use triad_client::{Deleted, Versioned, Written};

use super::{KeyForm, Subject, context, level, replica_result};

/// `put` and `del` (which has no dot).
#[derive(Serialize)]
pub(crate) struct Write<'a> {
    bucket: &'a str,
    #[serde(flatten)]
    key: KeyForm<'a>,
    context: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    dot: Option<&'a str>,
    #[serde(flatten)]
    outcome: Outcome<'a>,
}

#[derive(Serialize)]
pub(crate) struct Outcome<'a> {
    level: &'static str,
    needed: u32,
    acknowledged: u32,
    strict: bool,
    degraded: bool,
    replicas: Vec<Replica<'a>>,
    coordinator: &'a str,
    shard: u32,
    epoch: String,
    elapsed_ms: f64,
}

#[derive(Serialize)]
struct Replica<'a> {
    node: &'a str,
    result: String,
    elapsed_ms: Option<f64>,
}

impl<'a> Outcome<'a> {
    fn of(outcome: &'a triad_client::Outcome) -> Self {
        let replicas = outcome.replicas.iter().map(|answer| Replica {
            node: &answer.node,
            result: replica_result(answer.result),
            elapsed_ms: answer.elapsed.map(milliseconds),
        });
        Self {
            level: level(outcome.level),
            needed: outcome.needed,
            acknowledged: outcome.acknowledged,
            strict: outcome.strict,
            degraded: outcome.degraded,
            replicas: replicas.collect(),
            coordinator: &outcome.coordinator,
            shard: outcome.shard,
            epoch: outcome.epoch.to_string(),
            elapsed_ms: milliseconds(outcome.elapsed),
        }
    }
}

pub(crate) fn put<'a>(subject: Subject<'a>, written: &'a Written) -> Write<'a> {
    Write {
        bucket: subject.bucket,
        key: KeyForm::of(subject.key),
        context: context(&written.context),
        dot: Some(&written.dot),
        outcome: Outcome::of(&written.outcome),
    }
}

pub(crate) fn del<'a>(subject: Subject<'a>, deleted: &'a Deleted) -> Write<'a> {
    Write {
        bucket: subject.bucket,
        key: KeyForm::of(subject.key),
        context: context(&deleted.context),
        dot: None,
        outcome: Outcome::of(&deleted.outcome),
    }
}

/// `get`.
#[derive(Serialize)]
pub(crate) struct Read<'a> {
    bucket: &'a str,
    #[serde(flatten)]
    key: KeyForm<'a>,
    context: String,
    #[serde(flatten)]
    outcome: Outcome<'a>,
    found: bool,
    siblings: Vec<Sibling<'a>>,
    diverged: bool,
}

#[derive(Serialize)]
struct Sibling<'a> {
    #[serde(flatten)]
    value: ValueForm<'a>,
    dot: &'a str,
    ttl_ms: Option<u64>,
}

pub(crate) fn get<'a>(subject: Subject<'a>, read: &'a Versioned) -> Read<'a> {
    let siblings = read.siblings.iter().map(|sibling| Sibling {
        value: ValueForm::of(&sibling.value),
        dot: &sibling.dot,
        ttl_ms: sibling.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
    });
    Read {
        bucket: subject.bucket,
        key: KeyForm::of(subject.key),
        context: context(&read.context),
        outcome: Outcome::of(&read.outcome),
        found: read.is_found(),
        siblings: siblings.collect(),
        diverged: read.outcome.diverged,
    }
}

#[derive(Serialize)]
enum ValueForm<'a> {
    #[serde(rename = "value")]
    Text(&'a str),
    #[serde(rename = "value_base64")]
    Base64(String),
}

impl<'a> ValueForm<'a> {
    fn of(value: &'a [u8]) -> Self {
        std::str::from_utf8(value).map_or_else(|_| Self::Base64(STANDARD.encode(value)), Self::Text)
    }
}

/// Milliseconds with microseconds behind the point: more digits than any clock here has.
pub(super) fn milliseconds(span: Duration) -> f64 {
    let micros = u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}
