//! The command line: what can be said, and what each word means. The comments are the help texts.

// Read on a terminal, where backticks are noise.
#![allow(clippy::doc_markdown)]

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::Format;

/// Where a node of a development cluster is found.
const DEFAULT_ENDPOINT: &str = "localhost:7420";
/// How long a request may take unless told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Triad: a masterless, replicated key-value store.
///
/// Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 condition failed, 5 unavailable, 6 deadline, 7 denied, 8 in
/// doubt.
#[derive(Debug, Parser)]
#[command(name = "triad", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Nodes to ask, host:port separated by commas; one that lives is enough [default: localhost:7420].
    #[arg(
        long,
        global = true,
        env = "TRIAD_ENDPOINTS",
        value_delimiter = ',',
        value_name = "HOST:PORT",
        hide_env_values = true
    )]
    endpoints: Vec<String>,
    /// How results and errors are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
    /// How long the command may take, for example 500ms or 10s [default: 5s; wait: 60s; health: 2s].
    #[arg(long, global = true, value_parser = humantime::parse_duration, value_name = "DURATION")]
    timeout: Option<Duration>,
}

impl Common {
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let named: Vec<String> =
            self.endpoints.iter().filter(|text| !text.trim().is_empty()).cloned().collect();
        if named.is_empty() { vec![DEFAULT_ENDPOINT.to_owned()] } else { named }
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout_or(DEFAULT_TIMEOUT)
    }

    pub(crate) fn timeout_or(&self, default: Duration) -> Duration {
        self.timeout.unwrap_or(default)
    }
}

/// What `triad` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole cluster in this process, for development.
    Dev(DevArgs),
    /// Run one node.
    Server(ServerArgs),
    /// Write a value.
    Put(PutArgs),
    /// Read a key: its value, or all its siblings after concurrent writes.
    Get(GetArgs),
    /// Delete a key.
    Del(DelArgs),
    /// Show where a key lives: shard, configuration, replicas with versions, lookup path.
    Where(WhereArgs),
    /// Sum up the cluster: healthy? how many nodes may still fail? what moves?
    Status,
    /// Wait until the cluster is as asked; exit 6 when the time is up, saying what was missing.
    Wait(WaitArgs),
    /// Show the virtual nodes on the ring with their neighbours.
    Ring(RingArgs),
    /// Look at nodes, and change who belongs to the cluster.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Look at long operations: joins, leaves, decommissions, replacements.
    #[command(subcommand)]
    Op(OpCommand),
    /// Let shards that lost a majority of their stores FOR EVER go on with what is left: writes that only the lost
    /// stores had acknowledged are gone.
    Force(ForceArgs),
    /// Ask one node whether it is ready; exit 0 if so, else 5 with the reasons.
    Health,
    /// Look at a node's configuration as it would be read here and now.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// `triad node …`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List all nodes.
    Ls,
    /// Make a new cluster of one node alone, although its seeds have not answered.
    Bootstrap {
        /// Yes: the seeds will never answer, or have no cluster.
        #[arg(long, required = true)]
        force: bool,
    },
    /// Let the first endpoint's node hand over its shards and leave the cluster.
    Leave {
        /// Only tell what would move.
        #[arg(long)]
        dry_run: bool,
    },
    /// Take a node out of the cluster, whether it is alive or down.
    Decommission {
        /// Its name or id.
        node: String,
        /// Only tell what would move.
        #[arg(long)]
        dry_run: bool,
        /// Go on although fewer nodes will be left than there should be copies.
        #[arg(long)]
        allow_under_replicated: bool,
    },
    /// Give the places of a node that is down to others now, instead of after cluster.down_after.
    Replace {
        /// Its name or id.
        node: String,
        /// Only tell what would move.
        #[arg(long)]
        dry_run: bool,
    },
    /// Let the first endpoint's node, which waits outside, join a cluster.
    Join {
        /// Peer addresses of members, separated by commas.
        #[arg(long, required = true, value_delimiter = ',', value_name = "HOST:PORT")]
        seeds: Vec<String>,
    },
}

/// `triad op …`.
#[derive(Debug, Subcommand)]
pub(crate) enum OpCommand {
    /// List all operations.
    Ls,
    /// Follow an operation to its end; exit 1 if it fails, 4 if it is cancelled.
    Watch {
        /// Its id.
        id: String,
    },
    /// Take an operation back.
    Cancel {
        /// Its id.
        id: String,
    },
}

/// `triad force`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ForceArgs {
    /// A shard, by number; may be repeated.
    #[arg(long = "shard", value_name = "N", required_unless_present = "all_frozen")]
    pub(crate) shards: Vec<u32>,
    /// All shards without a living majority.
    #[arg(long, conflicts_with = "shards")]
    pub(crate) all_frozen: bool,
    /// Yes: the lost stores will never come back, and what only they held is given up.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Only tell which shards would be forced, and to whom.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `triad config …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting with its value.
    Show {
        /// Say where each value came from.
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        settings: SettingArgs,
    },
    /// Check file, environment and flags without starting anything.
    Check {
        #[command(flatten)]
        settings: SettingArgs,
    },
}

/// A key in a bucket.
#[derive(Clone, Debug, Args)]
pub(crate) struct KeyArgs {
    /// The key: 1 to 4,096 bytes, taken as they are.
    pub(crate) key: OsString,
    /// The bucket.
    #[arg(short, long, default_value = "default")]
    pub(crate) bucket: String,
}

impl KeyArgs {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.key.as_encoded_bytes()
    }
}

/// How many replicas must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelArg {
    /// One replica: fast, promises nothing about freshness.
    One,
    /// A majority.
    Quorum,
    /// Every replica.
    All,
}

impl From<LevelArg> for triad_client::Level {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::One => Self::One,
            LevelArg::Quorum => Self::Quorum,
            LevelArg::All => Self::All,
        }
    }
}

/// A causal context, in base64 as `put`, `get --explain` and `-o json` print it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContextArg(pub(crate) Vec<u8>);

impl FromStr for ContextArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = STANDARD.decode(text.trim()).map_err(|error| format!("not base64: {error}"))?;
        if bytes.is_empty() {
            Err("is empty: leave it out to overwrite".to_owned())
        } else {
            Ok(Self(bytes))
        }
    }
}

/// A request id as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestIdArg(pub(crate) [u8; 16]);

impl FromStr for RequestIdArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // `from_str_radix` alone would also take a sign.
        let all_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(number) if all_hex => Ok(Self(number.to_be_bytes())),
            _ => Err("a request id is 32 hex digits".to_owned()),
        }
    }
}

/// `triad put`.
#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The value; `-` reads stdin, `@file` reads a file.
    #[arg(allow_negative_numbers = true)]
    pub(crate) value: OsString,
    /// How many replicas must have it on disk.
    #[arg(long, value_enum, default_value_t = LevelArg::Quorum)]
    pub(crate) level: LevelArg,
    /// Replace only what this context has seen; without it the write replaces what is there.
    #[arg(long, value_name = "BASE64")]
    pub(crate) context: Option<ContextArg>,
    /// How long the value lives, for example 10s or 7days; without it the value stays.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) ttl: Option<Duration>,
    /// Name the write, to repeat it safely within two minutes: 32 hex digits.
    #[arg(long, value_name = "HEX")]
    pub(crate) request_id: Option<RequestIdArg>,
}

/// `triad get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// How many replicas must answer.
    #[arg(long, value_enum, default_value_t = LevelArg::Quorum)]
    pub(crate) level: LevelArg,
    /// Print the value's bytes alone, without a newline after them; siblings one after the other.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Say on stderr who answered, and the context for the next write.
    #[arg(long)]
    pub(crate) explain: bool,
}

/// `triad del`.
#[derive(Debug, Args)]
pub(crate) struct DelArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// How many replicas must have the deletion on disk.
    #[arg(long, value_enum, default_value_t = LevelArg::Quorum)]
    pub(crate) level: LevelArg,
    /// Delete only what this context has seen; without it everything goes.
    #[arg(long, value_name = "BASE64")]
    pub(crate) context: Option<ContextArg>,
    /// Name the deletion, to repeat it safely within two minutes: 32 hex digits.
    #[arg(long, value_name = "HEX")]
    pub(crate) request_id: Option<RequestIdArg>,
}

/// `triad where`.
#[derive(Debug, Args)]
pub(crate) struct WhereArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

/// `triad wait`.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct WaitArgs {
    /// At least so many nodes are alive.
    #[arg(long, value_name = "N")]
    pub(crate) nodes: Option<u32>,
    /// One ring, no shard on the move, every shard with all its replicas, where the ring wants them.
    #[arg(long)]
    pub(crate) settled: bool,
    /// Every endpoint is ready to serve.
    #[arg(long)]
    pub(crate) ready: bool,
}

/// `triad ring`.
#[derive(Debug, Args)]
pub(crate) struct RingArgs {
    /// Only the virtual nodes of the node that is asked.
    #[arg(long)]
    pub(crate) local: bool,
}

/// `triad server`.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
    /// Only check the configuration.
    #[arg(long)]
    pub(crate) check: bool,
}

/// `section.field=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("expected section.field=value")?;
        Ok(Self { key: key.trim().to_owned(), value: value.to_owned() })
    }
}

/// A node's settings on the command line: they win over environment and file. Each setting's meaning and bounds are
/// told by its field in `triad_server::config`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SettingArgs {
    /// TOML file to read.
    #[arg(long, env = "TRIAD_CONFIG", value_name = "FILE", help_heading = "Settings")]
    pub(crate) config: Option<PathBuf>,
    /// The node's own directory (storage.data_dir).
    #[arg(long, value_name = "DIR", help_heading = "Settings")]
    data_dir: Option<String>,
    /// The node's name (node.name).
    #[arg(long, help_heading = "Settings")]
    name: Option<String>,
    /// The node's failure domain (node.zone).
    #[arg(long, help_heading = "Settings")]
    zone: Option<String>,
    /// Peer addresses of other nodes, separated by commas (cluster.seeds).
    #[arg(long, value_name = "HOST:PORT", help_heading = "Settings")]
    seeds: Option<String>,
    /// May make a new cluster when it belongs to none (cluster.bootstrap).
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Settings")]
    bootstrap: Option<bool>,
    /// The name of a cluster that this node makes (cluster.name).
    #[arg(long, value_name = "NAME", help_heading = "Settings")]
    cluster_name: Option<String>,
    /// Socket for clients (listen.client).
    #[arg(long, value_name = "IP:PORT", help_heading = "Settings")]
    listen_client: Option<String>,
    /// Socket for other nodes (listen.peer).
    #[arg(long, value_name = "IP:PORT", help_heading = "Settings")]
    listen_peer: Option<String>,
    /// Socket for health over HTTP (listen.admin).
    #[arg(long, value_name = "IP:PORT", help_heading = "Settings")]
    listen_admin: Option<String>,
    /// Where clients reach this node (node.advertise_client).
    #[arg(long, value_name = "HOST:PORT", help_heading = "Settings")]
    advertise_client: Option<String>,
    /// Where other nodes reach this node (node.advertise_peer).
    #[arg(long, value_name = "HOST:PORT", help_heading = "Settings")]
    advertise_peer: Option<String>,
    /// text or json (telemetry.log_format).
    #[arg(long, value_name = "FORMAT", help_heading = "Settings")]
    log_format: Option<String>,
    /// error, warn, info, debug, trace, also by part (telemetry.log_level).
    #[arg(long, value_name = "FILTER", help_heading = "Settings")]
    log_level: Option<String>,
    /// Any setting: --set limits.in_flight=1000; may be repeated.
    #[arg(long, value_name = "SECTION.FIELD=VALUE", help_heading = "Settings")]
    set: Vec<Assignment>,
}

impl SettingArgs {
    /// The settings given as flags, by leaf; `--set` comes last and wins.
    pub(crate) fn flags(&self) -> Vec<(String, String)> {
        let bootstrap = self.bootstrap.map(|may| may.to_string());
        let named = [
            ("storage.data_dir", &self.data_dir),
            ("node.name", &self.name),
            ("node.zone", &self.zone),
            ("cluster.seeds", &self.seeds),
            ("cluster.bootstrap", &bootstrap),
            ("cluster.name", &self.cluster_name),
            ("listen.client", &self.listen_client),
            ("listen.peer", &self.listen_peer),
            ("listen.admin", &self.listen_admin),
            ("node.advertise_client", &self.advertise_client),
            ("node.advertise_peer", &self.advertise_peer),
            ("telemetry.log_format", &self.log_format),
            ("telemetry.log_level", &self.log_level),
        ];
        let given =
            named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
        given.chain(self.set.iter().map(|one| (one.key.clone(), one.value.clone()))).collect()
    }
}

/// `triad dev`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DevArgs {
    /// How many nodes.
    #[arg(short = 'n', long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub(crate) nodes: u16,
    /// Port of the first node's clients: node i (from 0) has clients on PORT + 10·i, peers on + 1 and HTTP on + 2.
    #[arg(long, default_value_t = 7420, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// Keep the data here; otherwise it is in a temporary folder that is removed at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Show a Put and a Get when the cluster is ready (always done on a terminal).
    #[arg(long)]
    pub(crate) demo: bool,
    /// End after the start (and the demo) instead of running until Ctrl-C.
    #[arg(long)]
    pub(crate) exit: bool,
    /// What the nodes log on stderr, for example info or triad_server=debug.
    #[arg(long, env = "TRIAD_LOG", default_value = "error", value_name = "FILTER")]
    pub(crate) log_level: String,
    /// A setting of every node: --set cluster.shards=64; may be repeated.
    #[arg(long, value_name = "SECTION.FIELD=VALUE")]
    pub(crate) set: Vec<Assignment>,
}

impl fmt::Display for LevelArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "one",
            Self::Quorum => "quorum",
            Self::All => "all",
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::exit::Exit;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn hostile_words_are_refused_or_mean_what_they_say() {
        let id = "00112233445566778899aabbccddeeff";
        triad_fuzz::attack_text("RequestIdArg::from_str", &[id], |text| {
            let RequestIdArg(id) = text.parse().ok()?;
            Some(format!("{:032x}", u128::from_be_bytes(id)))
        });
        triad_fuzz::attack_text("ContextArg::from_str", &["AAEC", "Zm9v"], |text| {
            let ContextArg(context) = text.parse().ok()?;
            Some(STANDARD.encode(context))
        });
        triad_fuzz::attack_text("Assignment::from_str", &["node.name=one", "a=b=c"], |text| {
            let Assignment { key, value } = text.parse().ok()?;
            Some(format!("{key}={value}"))
        });
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_ends_with_the_code_for_usage() {
        for line in [
            "triad put",
            "triad put key",
            "triad put key value --level most",
            "triad put key value --context ???",
            "triad get key --timeout soon",
            "triad wait",
            "triad dev -n 0",
            "triad server --set shards",
            "triad nothing",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), Exit::Usage as i32, "{line}");
        }
    }

    #[test]
    fn options_of_all_commands_may_stand_before_or_after_the_command() {
        for line in [
            "triad -o json --endpoints a:1,b:2 --timeout 1s status",
            "triad status --endpoints a:1,b:2 --timeout 1s -o json",
        ] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.common.endpoints(), ["a:1", "b:2"]);
            assert_eq!(
                (cli.common.output, cli.common.timeout()),
                (Format::Json, Duration::from_secs(1))
            );
        }
    }

    #[test]
    fn values_may_be_negative_numbers_or_stdin() {
        for value in ["-5", "-", "@file", "plain"] {
            let Ok(Cli { command: Command::Put(put), .. }) =
                parse(&format!("triad put key {value} --level all -b users"))
            else {
                panic!("{value}");
            };
            assert_eq!(
                (put.value.to_str(), put.level, put.key.bucket.as_str()),
                (Some(value), LevelArg::All, "users")
            );
        }
    }

    #[test]
    fn flags_name_the_leaves_that_they_set() {
        let line = "triad server --data-dir /d --seeds a:1,b:2 --bootstrap --listen-client 127.0.0.1:1 --set limits.streams=7";
        let Ok(Cli { command: Command::Server(server), .. }) = parse(line) else { panic!() };
        let flags = server.settings.flags();
        let flags: Vec<String> =
            flags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            flags,
            [
                "storage.data_dir=/d",
                "cluster.seeds=a:1,b:2",
                "cluster.bootstrap=true",
                "listen.client=127.0.0.1:1",
                "limits.streams=7"
            ]
        );
        let Ok(Cli { command: Command::Server(server), .. }) =
            parse("triad server --bootstrap=false")
        else {
            panic!()
        };
        assert_eq!(server.settings.flags(), [("cluster.bootstrap".to_owned(), "false".to_owned())]);
    }

    #[test]
    fn every_flag_sets_a_leaf_that_exists() {
        let value = |key: &str| match key {
            "cluster.bootstrap" => "true",
            "telemetry.log_format" => "json",
            "telemetry.log_level" => "debug",
            key if key.starts_with("node.advertise") || key == "cluster.seeds" => "node1:1",
            key if key.starts_with("listen.client") => "127.0.0.1:1",
            key if key.starts_with("listen.peer") => "127.0.0.1:2",
            key if key.starts_with("listen.admin") => "127.0.0.1:3",
            _ => "x",
        };
        let text = || Some("x".to_owned());
        let all = SettingArgs {
            data_dir: text(),
            name: text(),
            zone: text(),
            seeds: text(),
            bootstrap: Some(true),
            cluster_name: text(),
            listen_client: text(),
            listen_peer: text(),
            listen_admin: text(),
            advertise_client: text(),
            advertise_peer: text(),
            log_format: text(),
            log_level: text(),
            ..SettingArgs::default()
        };
        let flags = all.flags();
        assert_eq!(flags.len(), 13);
        let loader = flags.iter().fold(triad_server::config::Loader::new(), |loader, (key, _)| {
            loader.flag(key, value(key))
        });
        loader.load().expect("each flag names a leaf");
    }
}
