//! The objects of `-o json`. Their keys are fixed: scripts rely on them.
//!
//! Times are `*_ms`, bytes are numbers, an epoch is `"lineage.number"`, enums are lower case without prefix, and a key
//! or value that is not UTF-8 is under `key_base64` or `value_base64` instead.

mod cluster;
mod data;
mod operations;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;
use triad_client::{Context, Level};
use triad_proto::v1;

use crate::exit::{self, Failure};

pub(crate) use cluster::{bootstrap, health, location, nodes, ring, status};
pub(crate) use data::{Read, Write, del, get, put};
pub(crate) use operations::{begun, forced, operations};

/// `{"error":{…}}`, on stderr.
#[derive(Serialize)]
pub(crate) struct ErrorObject<'a> {
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'static str,
    reason: &'a str,
    message: &'a str,
    metadata: &'a BTreeMap<String, String>,
}

pub(crate) fn failure(failure: &Failure) -> ErrorObject<'_> {
    let Failure { code, reason, message, metadata, .. } = failure;
    let code = exit::code_name(*code);
    ErrorObject { error: ErrorBody { code, reason, message, metadata } }
}

/// A key, under the name that says how it is written.
#[derive(Serialize)]
enum KeyForm<'a> {
    #[serde(rename = "key")]
    Text(&'a str),
    #[serde(rename = "key_base64")]
    Base64(String),
}

impl<'a> KeyForm<'a> {
    fn of(key: &'a [u8]) -> Self {
        std::str::from_utf8(key).map_or_else(|_| Self::Base64(STANDARD.encode(key)), Self::Text)
    }
}

/// Which key of which bucket an answer is about.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a [u8],
}

/// `config show`.
#[derive(Serialize)]
pub(crate) struct Settings<'a> {
    values: Vec<Setting<'a>>,
}

#[derive(Serialize)]
struct Setting<'a> {
    key: &'a str,
    value: &'a Value,
    origin: &'static str,
    env: &'a str,
}

pub(crate) fn settings(settings: &[triad_server::config::Setting]) -> Settings<'_> {
    let values = settings.iter().map(|setting| Setting {
        key: &setting.key,
        value: &setting.value,
        origin: setting.origin.kind(),
        env: &setting.env,
    });
    Settings { values: values.collect() }
}

/// What a command says that has nothing to tell but success: `config check`, `wait`.
#[derive(Serialize)]
pub(crate) struct Done {
    pub(crate) ok: bool,
}

pub(crate) fn context(context: &Context) -> String {
    STANDARD.encode(context.as_bytes())
}

pub(crate) fn level(level: Level) -> &'static str {
    match level {
        Level::One => "one",
        Level::All => "all",
        Level::Quorum => "quorum",
    }
}

pub(crate) fn epoch(epoch: Option<&v1::Epoch>) -> String {
    epoch.map_or_else(|| "0.0".to_owned(), |epoch| format!("{}.{}", epoch.lineage, epoch.number))
}

pub(crate) fn replica_result(result: v1::ReplicaResult) -> String {
    bare(result.as_str_name(), "REPLICA_RESULT_")
}

pub(crate) fn phase(phase: v1::Phase) -> String {
    bare(phase.as_str_name(), "PHASE_")
}

pub(crate) fn liveness(liveness: v1::Liveness) -> String {
    bare(liveness.as_str_name(), "LIVENESS_")
}

pub(crate) fn node_state(state: v1::NodeState) -> String {
    bare(state.as_str_name(), "NODE_STATE_")
}

pub(crate) fn operation_state(state: v1::OperationState) -> String {
    bare(state.as_str_name(), "OPERATION_STATE_")
}

fn bare(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

#[cfg(test)]
mod tests;
