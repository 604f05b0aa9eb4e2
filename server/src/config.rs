//! What a node can be told, where each value came from, and what makes a value unacceptable.
//!
//! Every setting is one *leaf*, `section.field`. Its name in the environment is fixed by its key: `TRIAD_`, upper
//! case, the dot as an underscore (`storage.data_dir` is `TRIAD_STORAGE_DATA_DIR`). A later layer wins over an
//! earlier one:
//!
//! ```text
//! built-in defaults  <  TOML file  <  TRIAD_SECTION_FIELD  <  command line flags
//! ```
//!
//! Nothing is ignored: a key that no leaf has, in the file or in the environment, is an error that suggests the
//! nearest leaf, because a misspelt limit that silently does nothing is worse than a node that does not start. All
//! problems are reported at once, each with the leaf, its value, where the value came from and what would be
//! accepted.
//!
//! ```
//! use triad_server::config::Loader;
//! let loaded = Loader::new().env([("TRIAD_LIMITS_VALUE_BYTES", "256KiB")]).load().unwrap();
//! assert_eq!(loaded.config.limits.value_bytes, 256 * 1024);
//! ```

mod load;
mod sections;
mod size;
mod validate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use load::{ConfigError, Loaded, Loader, Origin, Setting, is_foreign_variable};
pub use sections::{
    Cluster, Engine, Limits, Listen, LogFormat, Node, Repair, Storage, Telemetry, Timeouts,
};
pub use validate::Problem;
pub(crate) use validate::split_host_port;

/// Everything a node can be told. `Config::default()` is a valid configuration of a cluster of one.
///
/// Durations are written like `5s`, `250ms`, `10m`; sizes like `64MiB`, `1GiB` or a plain number of bytes (`MB` is
/// 10⁶ and `MiB` is 2²⁰ bytes).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who this node is, and how others reach it.
    pub node: Node,
    /// The sockets this node opens.
    pub listen: Listen,
    /// Which cluster it belongs to, and the cluster's parameters.
    pub cluster: Cluster,
    /// Where and how it keeps its data.
    pub storage: Storage,
    /// How much it accepts.
    pub limits: Limits,
    /// How long it waits.
    pub timeouts: Timeouts,
    /// How it copies and compares in the background.
    pub repair: Repair,
    /// What it tells about itself.
    pub telemetry: Telemetry,
}

impl Config {
    /// Every leaf with its value, sorted by key: the form in which layers are compared and shown.
    pub fn leaves(&self) -> BTreeMap<String, Value> {
        let Ok(Value::Object(sections)) = serde_json::to_value(self) else {
            unreachable!(
                "Config is a struct of structs of plain values: it always serializes to an object"
            );
        };
        let mut leaves = BTreeMap::new();
        for (section, fields) in sections {
            let Value::Object(fields) = fields else {
                unreachable!("each field of Config is a section with fields")
            };
            leaves.extend(
                fields.into_iter().map(|(field, value)| (format!("{section}.{field}"), value)),
            );
        }
        leaves
    }

    /// Whether every value is within its bounds and fits the others.
    ///
    /// # Errors
    /// All problems found, in the order of the leaves.
    pub fn validate(&self) -> Result<(), Vec<Problem>> {
        let problems = validate::problems(self);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// The name of a leaf in the environment: `storage.data_dir` is `TRIAD_STORAGE_DATA_DIR`.
pub fn env_name(key: &str) -> String {
    format!("TRIAD_{}", key.replace('.', "_").to_uppercase())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_leaf_has_one_environment_name_that_no_other_leaf_has() {
        let leaves = Config::default().leaves();
        let names: BTreeSet<String> = leaves.keys().map(|key| env_name(key)).collect();
        assert_eq!(names.len(), leaves.len());
        assert!(
            names.iter().all(|name| !is_foreign_variable(name)),
            "no leaf hides behind the allow-list"
        );
    }

    #[test]
    fn the_leaves_are_the_names_that_users_scripts_rely_on() {
        let leaves: Vec<String> = Config::default().leaves().into_keys().collect();
        let expected = "cluster.bootstrap cluster.down_after cluster.name cluster.placement_settle cluster.replication_factor \
            cluster.seeds cluster.shards cluster.virtual_nodes limits.connections limits.in_flight limits.in_flight_bytes limits.queue_wait limits.siblings_hard limits.siblings_soft \
            limits.streams limits.value_bytes listen.admin listen.client listen.peer node.advertise_client node.advertise_peer \
            node.name node.zone repair.bytes_per_second repair.interval repair.scrub storage.cache storage.data_dir storage.engine storage.hint_age storage.hint_bytes storage.quota storage.reserve \
            telemetry.log_format telemetry.log_level timeouts.drain timeouts.peer timeouts.request timeouts.request_max";
        assert_eq!(leaves.join(" "), expected.split_whitespace().collect::<Vec<_>>().join(" "));
    }

    #[test]
    fn the_defaults_are_valid_and_survive_the_round_through_text() {
        let config = Config::default();
        assert_eq!(config.validate(), Ok(()));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    }
}
