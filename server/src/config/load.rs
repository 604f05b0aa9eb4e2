//! Puts the layers together and remembers which of them each value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{File, FileFormat, Source, Value as Raw, ValueKind};
use serde_json::Value;

use super::{Config, env_name};

/// The environment that belongs to Triad starts so.
const PREFIX: &str = "TRIAD_";

/// Variables that start with the prefix but are no leaves: read by the command line, the compose files or the tests.
const FOREIGN: [&str; 6] =
    ["TRIAD_BIN", "TRIAD_CONFIG", "TRIAD_ENDPOINTS", "TRIAD_IMAGE", "TRIAD_LOG", "TRIAD_PORT"];

/// Prefixes under which others set variables: an orchestrator that runs a service called `triad` injects
/// `TRIAD_PORT_…` and `TRIAD_SERVICE_…` into every container; continuous integration sets the rest.
const FOREIGN_PREFIXES: [&str; 4] =
    ["TRIAD_CI_", "TRIAD_PORT_", "TRIAD_REQUIRE_", "TRIAD_SERVICE_"];

/// Similarity (Jaro–Winkler, 0 to 1) from which on a name is worth suggesting: lets transposed and missing letters
/// through.
const WORTH_SUGGESTING: f64 = 0.82;

/// Whether a `TRIAD_…` variable is somebody else's: not a leaf, and no mistake either.
pub fn is_foreign_variable(name: &str) -> bool {
    FOREIGN.contains(&name) || FOREIGN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The TOML file at this path.
    File(PathBuf),
    /// The environment variable of this name.
    Env(String),
    /// A command line flag.
    Flag,
}

impl Origin {
    /// One word for machines: `default`, `file`, `env` or `flag`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File(_) => "file",
            Self::Env(_) => "env",
            Self::Flag => "flag",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Default | Self::Flag => f.write_str(self.kind()),
        }
    }
}

/// One leaf as `triad config show` tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The leaf, for example `storage.data_dir`.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Where the value came from.
    pub origin: Origin,
    /// The variable that sets it.
    pub env: String,
}

/// A valid configuration and the story of its values.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the node works with.
    pub config: Config,
    /// Every leaf, sorted by key.
    pub settings: Vec<Setting>,
}

/// Why there is no configuration. Nothing was started or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {} is not valid TOML: {message}", path.display())]
    Syntax {
        /// The file asked for.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// Keys nobody knows, values of the wrong kind or out of bounds: all of them, a line each.
    #[error("{}", problems.join("\n"))]
    Invalid {
        /// One complete sentence for each.
        problems: Vec<String>,
    },
}

/// Collects the layers, in any order, and puts them together by their rank.
#[derive(Clone, Debug, Default)]
pub struct Loader {
    file: Option<PathBuf>,
    env: BTreeMap<String, String>,
    flags: Vec<(String, String)>,
}

type Layer = BTreeMap<String, Raw>;

impl Loader {
    /// Nothing but the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads this TOML file; it must exist.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Takes these variables. Those that do not start with `TRIAD_` are not looked at; one with an empty value counts
    /// as not set.
    #[must_use]
    pub fn env<K: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.env.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Takes this process's variables.
    #[must_use]
    pub fn process_env(self) -> Self {
        let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
        self.env(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }

    /// Sets a leaf from a command line flag. Several values of a list are separated by commas.
    #[must_use]
    pub fn flag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.flags.push((key.into(), value.into()));
        self
    }

    /// Puts the layers together.
    ///
    /// # Errors
    /// The file cannot be read, or anything at all is wrong with what was set; every problem is reported.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut merge = Merge::new();
        if let Some(path) = &self.file {
            merge.file(path)?;
        }
        merge.env(&self.env);
        for (key, value) in &self.flags {
            merge.text(key, value, Origin::Flag);
        }
        merge.finish()
    }
}

/// The layers so far: for each leaf the value of the highest one.
struct Merge {
    defaults: BTreeMap<String, Value>,
    values: Layer,
    origins: BTreeMap<String, Origin>,
    problems: Vec<String>,
}

impl Merge {
    fn new() -> Self {
        let defaults = Config::default().leaves();
        Self { defaults, values: Layer::new(), origins: BTreeMap::new(), problems: Vec::new() }
    }

    fn set(&mut self, key: &str, value: Raw, origin: Origin) {
        if self.defaults.contains_key(key) {
            self.values.insert(key.to_owned(), value);
            self.origins.insert(key.to_owned(), origin);
        } else {
            let near = nearest(key, self.defaults.keys().map(String::as_str));
            self.problems.push(format!("unknown key {key} (from {origin}){}", did_you_mean(near)));
        }
    }

    /// Sets a leaf from text, as flags and the environment give it.
    fn text(&mut self, key: &str, text: &str, origin: Origin) {
        let value = match self.defaults.get(key) {
            Some(Value::Array(_)) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                ValueKind::Array(items.map(Raw::from).collect())
            }
            _ => ValueKind::String(text.to_owned()),
        };
        self.set(key, Raw::new(None, value), origin);
    }

    fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let sections = File::from_str(&text, FileFormat::Toml).collect().map_err(|error| {
            ConfigError::Syntax { path: path.into(), message: error.to_string() }
        })?;
        // Sorted, so that the report is the same every time.
        for (section, content) in sections.into_iter().collect::<BTreeMap<_, _>>() {
            let origin = Origin::File(path.into());
            match content.kind {
                ValueKind::Table(fields) => {
                    for (field, value) in fields.into_iter().collect::<BTreeMap<_, _>>() {
                        self.set(&format!("{section}.{field}"), value, origin.clone());
                    }
                }
                _ => self.set(&section, content, origin),
            }
        }
        Ok(())
    }

    fn env(&mut self, variables: &BTreeMap<String, String>) {
        let keys: BTreeMap<String, String> =
            self.defaults.keys().map(|key| (env_name(key), key.clone())).collect();
        for (name, value) in variables {
            if !name.starts_with(PREFIX) || is_foreign_variable(name) || value.is_empty() {
                continue;
            }
            match keys.get(name) {
                Some(_) if value.contains(char::REPLACEMENT_CHARACTER) => {
                    self.problems.push(format!("{name} is not UTF-8"));
                }
                Some(key) => self.text(key, value, Origin::Env(name.clone())),
                None => {
                    let near = nearest(name, keys.keys().map(String::as_str));
                    self.problems.push(format!("unknown variable {name}{}", did_you_mean(near)));
                }
            }
        }
    }

    fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    fn finish(mut self) -> Result<Loaded, ConfigError> {
        self.drop_unreadable();
        let config = build(&self.values).unwrap_or_else(|message| {
            self.problems.push(message);
            Config::default()
        });
        for problem in config.validate().err().unwrap_or_default() {
            let origin = self.origin(&problem.key);
            self.problems.push(format!("{problem} (from {origin})"));
        }
        if !self.problems.is_empty() {
            return Err(ConfigError::Invalid { problems: self.problems });
        }
        let leaves = config.leaves().into_iter();
        let settings = leaves
            .map(|(key, value)| Setting {
                env: env_name(&key),
                origin: self.origin(&key),
                key,
                value,
            })
            .collect();
        Ok(Loaded { config, settings })
    }

    /// Reports each value that its leaf cannot read, and goes on without it, so that the others are looked at too.
    /// Each value is read alone because the error for the whole does not always name the leaf.
    fn drop_unreadable(&mut self) {
        let (origins, problems) = (&self.origins, &mut self.problems);
        self.values.retain(|key, value| {
            let Err(message) = build(&Layer::from([(key.clone(), value.clone())])) else {
                return true;
            };
            let origin = origins.get(key).unwrap_or(&Origin::Default);
            problems.push(format!("{key} = {value}: {message} (from {origin})"));
            false
        });
    }
}

/// The typed configuration of these values over the defaults.
fn build(values: &Layer) -> Result<Config, String> {
    let mut builder = config::Config::builder();
    for (key, value) in values {
        builder = builder.set_override(key, value.clone()).map_err(|error| error.to_string())?;
    }
    builder.build().and_then(config::Config::try_deserialize).map_err(|error| plain(&error))
}

/// The reason alone: which key and which file it was about is said by the caller.
fn plain(error: &config::ConfigError) -> String {
    match error {
        config::ConfigError::At { error, .. } => plain(error),
        config::ConfigError::Type { unexpected, expected, .. } => {
            format!("expected {expected}, not {unexpected}")
        }
        config::ConfigError::Message(message) => message.clone(),
        other => other.to_string(),
    }
}

/// The candidate most like `name`, compared as a whole and by its last part, if any is alike.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |candidate: &str| {
        strsim::jaro_winkler(name, candidate)
            .max(0.99 * strsim::jaro_winkler(&last(name), &last(candidate)))
    };
    let scored = candidates
        .map(|candidate| (candidate, likeness(candidate)))
        .filter(|(_, score)| *score >= WORTH_SUGGESTING);
    scored.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(candidate, _)| candidate)
}

fn did_you_mean(candidate: Option<&str>) -> String {
    candidate.map_or_else(
        || ": `triad config show` lists what there is".to_owned(),
        |candidate| format!(": did you mean {candidate}?"),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Engine, LogFormat};
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("triad.toml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn problems(loader: &Loader) -> Vec<String> {
        match loader.load() {
            Err(ConfigError::Invalid { problems }) => problems,
            other => panic!("expected problems, not {other:?}"),
        }
    }

    #[test]
    fn each_layer_wins_over_the_one_before_and_its_name_is_kept() {
        let (_dir, path) =
            file("[node]\nname = 'a'\nzone = 'a'\n[limits]\nin_flight = 7\nvalue_bytes = '64KiB'");
        let loader = Loader::new()
            .file(&path)
            .env([("TRIAD_NODE_NAME", "b"), ("TRIAD_LIMITS_IN_FLIGHT", "8"), ("HOME", "/nowhere")])
            .flag("node.name", "c");
        let loaded = loader.load().unwrap();
        let origin =
            |key: &str| loaded.settings.iter().find(|s| s.key == key).unwrap().origin.to_string();
        assert_eq!((loaded.config.node.name.as_str(), origin("node.name")), ("c", "flag".into()));
        assert_eq!(
            (loaded.config.limits.in_flight, origin("limits.in_flight")),
            (8, "env TRIAD_LIMITS_IN_FLIGHT".into())
        );
        assert_eq!(
            (loaded.config.node.zone.as_str(), origin("node.zone")),
            ("a", format!("file {}", path.display()))
        );
        assert_eq!(
            (loaded.config.limits.value_bytes, origin("limits.streams")),
            (65_536, "default".into())
        );
    }

    /// Another valid value for each leaf, as somebody would write it into the environment.
    const OTHER_VALUES: [(&str, &str); 39] = [
        ("cluster.bootstrap", "true"),
        ("cluster.down_after", "4m"),
        ("cluster.name", "other"),
        ("cluster.placement_settle", "4s"),
        ("cluster.replication_factor", "5"),
        ("cluster.seeds", "node1:7421,node2:7421"),
        ("cluster.shards", "2048"),
        ("cluster.virtual_nodes", "16"),
        ("limits.connections", "10"),
        ("limits.in_flight", "100"),
        ("limits.in_flight_bytes", "32MiB"),
        ("limits.queue_wait", "50ms"),
        ("limits.siblings_hard", "20"),
        ("limits.siblings_soft", "5"),
        ("limits.streams", "64"),
        ("limits.value_bytes", "64KiB"),
        ("listen.admin", "127.0.0.1:9"),
        ("listen.client", "127.0.0.1:9"),
        ("listen.peer", "127.0.0.1:9"),
        ("node.advertise_client", "node1:7420"),
        ("node.advertise_peer", "node1:7421"),
        ("node.name", "node1"),
        ("node.zone", "a"),
        ("repair.bytes_per_second", "1MiB"),
        ("repair.interval", "2m"),
        ("repair.scrub", "1day"),
        ("storage.cache", "1GiB"),
        ("storage.data_dir", "/data"),
        ("storage.engine", "memory"),
        ("storage.hint_age", "1h"),
        ("storage.hint_bytes", "1MiB"),
        ("storage.quota", "1GiB"),
        ("storage.reserve", "0"),
        ("telemetry.log_format", "json"),
        ("telemetry.log_level", "debug"),
        ("timeouts.drain", "1s"),
        ("timeouts.peer", "2s"),
        ("timeouts.request", "1s"),
        ("timeouts.request_max", "30s"),
    ];

    #[test]
    fn every_leaf_can_be_set_by_its_variable() {
        let defaults = Loader::new().load().unwrap().settings;
        assert!(defaults.iter().map(|leaf| leaf.key.as_str()).eq(OTHER_VALUES.map(|(key, _)| key)));
        for (before, (key, text)) in defaults.into_iter().zip(OTHER_VALUES) {
            let loaded = Loader::new().env([(before.env.as_str(), text)]).load().unwrap();
            let after = loaded.settings.into_iter().find(|leaf| leaf.key == key).unwrap();
            assert_ne!(after.value, before.value, "{key}");
            assert_eq!(after.origin, Origin::Env(before.env));
        }
    }

    #[test]
    fn values_are_read_from_text_into_their_types() {
        let loaded = Loader::new()
            .env([
                ("TRIAD_CLUSTER_SEEDS", "node1:7421, node2:7421,"),
                ("TRIAD_CLUSTER_BOOTSTRAP", "true"),
                ("TRIAD_CLUSTER_DOWN_AFTER", "2m"),
                ("TRIAD_STORAGE_ENGINE", "memory"),
                ("TRIAD_STORAGE_CACHE", "1GiB"),
                ("TRIAD_TELEMETRY_LOG_FORMAT", "json"),
                ("TRIAD_LISTEN_CLIENT", "[::]:7500"),
                ("TRIAD_NODE_ZONE", ""),
            ])
            .load()
            .unwrap();
        let config = loaded.config;
        assert_eq!(config.cluster.seeds, ["node1:7421", "node2:7421"]);
        assert!(config.cluster.bootstrap == Some(true) && config.cluster.may_bootstrap());
        assert_eq!(
            (config.cluster.down_after, config.storage.cache),
            (Duration::from_mins(2), 1 << 30)
        );
        assert_eq!(
            (config.storage.engine, config.telemetry.log_format),
            (Engine::Memory, LogFormat::Json)
        );
        assert_eq!(config.listen.client.port(), 7500);
    }

    #[test]
    fn a_node_with_seeds_makes_a_cluster_only_when_told_to() {
        assert!(Config::default().cluster.may_bootstrap());
        let seeded = Loader::new().flag("cluster.seeds", "node1:7421");
        assert!(!seeded.load().unwrap().config.cluster.may_bootstrap());
        let told = Loader::new().flag("cluster.bootstrap", "false");
        assert!(!told.load().unwrap().config.cluster.may_bootstrap());
    }

    #[test]
    fn an_unknown_key_is_refused_and_the_nearest_leaf_suggested() {
        let (_dir, path) = file(
            "colour = 1\n[storage]\ndatadir = '/data'\n[node]\nName = 'x'\n[clutser]\nseeds = []\n[data]\ndir = 1",
        );
        let at = format!("(from file {})", path.display());
        assert_eq!(
            problems(&Loader::new().file(&path)),
            [
                format!("unknown key clutser.seeds {at}: did you mean cluster.seeds?"),
                format!("unknown key colour {at}: `triad config show` lists what there is"),
                format!("unknown key data.dir {at}: `triad config show` lists what there is"),
                format!("unknown key node.Name {at}: did you mean node.name?"),
                format!("unknown key storage.datadir {at}: did you mean storage.data_dir?"),
            ]
        );
        assert_eq!(
            problems(&Loader::new().env([("TRIAD_STORAGE_DATADIR", "/data")])),
            ["unknown variable TRIAD_STORAGE_DATADIR: did you mean TRIAD_STORAGE_DATA_DIR?"]
        );
    }

    #[test]
    fn variables_of_the_command_line_and_of_orchestrators_are_let_through() {
        let foreign = [
            "TRIAD_ENDPOINTS",
            "TRIAD_CONFIG",
            "TRIAD_PORT",
            "TRIAD_PORT_7420_TCP_ADDR",
            "TRIAD_SERVICE_HOST",
            "TRIAD_REQUIRE_DOCKER",
        ];
        assert!(Loader::new().env(foreign.map(|name| (name, "anything"))).load().is_ok());
    }

    #[test]
    fn all_problems_are_told_at_once_with_leaf_value_and_origin() {
        let (_dir, path) = file(
            "[limits]\nin_flight = 'many'\nstreams = 70_000\n[timeouts]\npeer = 5\n[listen]\nadmin = 'here'",
        );
        let found = problems(
            &Loader::new()
                .file(&path)
                .env([("TRIAD_CLUSTER_SHARDS", "1000"), ("TRIAD_STORAGE_ENGINE", "rocks")]),
        );
        let all = found.join("\n");
        for part in [
            "limits.in_flight = many: ",
            "limits.streams = 70000: must be from 1 to 65536",
            "timeouts.peer = 5: ",
            "listen.admin = here: ",
        ] {
            assert!(all.contains(part), "{part}\n{all}");
        }
        assert!(
            all.contains(
                "cluster.shards = 1000: must be a power of two (from env TRIAD_CLUSTER_SHARDS)"
            ),
            "{all}"
        );
        assert!(
            all.contains(
                "storage.engine = rocks: must be sled or memory (from env TRIAD_STORAGE_ENGINE)"
            ),
            "{all}"
        );
        assert_eq!(found.len(), 6, "{all}");
    }

    #[test]
    fn a_missing_or_malformed_file_is_an_error_that_names_it() {
        let missing = Loader::new().file("/nowhere/triad.toml").load().unwrap_err().to_string();
        assert!(
            missing.starts_with("cannot read the configuration file /nowhere/triad.toml: "),
            "{missing}"
        );
        let (_dir, path) = file("[node\nname");
        let malformed = Loader::new().file(&path).load().unwrap_err().to_string();
        assert!(
            malformed.contains("triad.toml is not valid TOML: ") && malformed.contains("line 1"),
            "{malformed}"
        );
    }
}
