//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use triad_bench::keys::Popularity;
use triad_bench::overload::Plan;
use triad_bench::shape::Shape;
use triad_client::Level;

/// Load on a Triad cluster, measured.
///
/// Exit codes: 0 whatever the figures are; 1 if it could not run, or an acknowledged write did not read back.
#[derive(Debug, Parser)]
#[command(name = "triad-bench", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// text or json.
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    pub(crate) output: Format,
    /// Threads of the generator.
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) threads: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Load on a cluster that runs already.
    Load(LoadArgs),
    /// Three times what a new cluster of three processes can do, and how long it takes to recover.
    Overload(OverloadArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Nodes by which to enter the cluster.
    #[arg(long, env = "TRIAD_ENDPOINTS", value_delimiter = ',', default_value = "localhost:7420")]
    pub(crate) endpoints: Vec<String>,
    /// Operations a second (open loop). Without it: closed loop.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Workers of the closed loop, each with one operation at a time.
    #[arg(long, default_value_t = 64)]
    pub(crate) workers: usize,
    /// How long is measured.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// How long runs before that unmeasured.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) warm_up: Duration,
    /// Do not write every key once at the beginning.
    #[arg(long)]
    pub(crate) no_fill: bool,
    #[command(flatten)]
    shape: ShapeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OverloadArgs {
    /// The program `triad`; several are measured in turns. Default: the one beside this program.
    #[arg(long = "bin")]
    pub(crate) programs: Vec<PathBuf>,
    /// So many rounds for each program.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) rounds: u16,
    /// Workers that find the capacity.
    #[arg(long, default_value_t = 64)]
    workers: usize,
    /// How long they take for it.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    measure: Duration,
    /// The overload, in capacities.
    #[arg(long, default_value_t = 3.0)]
    factor: f64,
    /// The load before and after it, in capacities.
    #[arg(long, default_value_t = 0.8)]
    share: f64,
    /// How long the load before it takes.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    before: Duration,
    /// How long the overload takes.
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    overload: Duration,
    /// How long the load after it takes.
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    after: Duration,
    /// By how much the nodes give way to the generator, which stands for clients on other machines.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=19))]
    niceness: u8,
    /// The processors that the nodes are confined to, as for `taskset -c`. The generator is confined from outside:
    /// `taskset -c 1 triad-bench overload --node-cores 0`.
    #[arg(long)]
    node_cores: Option<String>,
    /// A setting of the nodes, such as `TRIAD_LIMITS_IN_FLIGHT=512`.
    #[arg(long = "set", value_name = "VARIABLE=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    shape: ShapeArgs,
}

#[derive(Debug, Args)]
struct ShapeArgs {
    /// How many keys there are.
    #[arg(long, default_value_t = 5_000)]
    keys: u64,
    /// How unevenly they are asked for: uniform, zipf, zipf:SKEW.
    #[arg(long, default_value = "uniform")]
    popularity: Popularity,
    /// Which share of the operations reads, 0 to 1; the others write.
    #[arg(long, default_value_t = 0.5)]
    reads: f64,
    /// Size of the values.
    #[arg(long, default_value_t = 1_024)]
    value_bytes: usize,
    /// The bucket.
    #[arg(long, default_value = "default")]
    bucket: String,
    /// one, quorum or all.
    #[arg(long, default_value = "quorum", value_parser = level)]
    level: Level,
    /// How long after its intended start an operation is given up.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    deadline: Duration,
    /// What chooses keys and operations.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clients that know nothing of each other.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Connections of each client to each node.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    connections: u8,
    /// How often a client repeats what was refused. 0 shows what the cluster does, more what users see.
    #[arg(long, default_value_t = 0)]
    retries: u32,
}

impl LoadArgs {
    pub(crate) fn shape(&self) -> Shape {
        self.shape.shape()
    }
}

impl OverloadArgs {
    pub(crate) fn plan(&self) -> Plan {
        Plan {
            shape: self.shape.shape(),
            workers: self.workers,
            measure: self.measure,
            factor: self.factor,
            share: self.share,
            lengths: [self.before, self.overload, self.after],
            niceness: self.niceness,
            node_cores: self.node_cores.clone(),
            settings: self.settings.clone(),
        }
    }
}

impl ShapeArgs {
    fn shape(&self) -> Shape {
        Shape {
            keys: self.keys,
            popularity: self.popularity,
            reads: self.reads,
            value_bytes: self.value_bytes,
            bucket: self.bucket.clone(),
            level: self.level,
            deadline: self.deadline,
            seed: self.seed,
            clients: self.clients,
            connections: self.connections.into(),
            retries: self.retries,
        }
    }
}

fn level(text: &str) -> Result<Level, String> {
    match text.to_ascii_lowercase().as_str() {
        "one" => Ok(Level::One),
        "quorum" => Ok(Level::Quorum),
        "all" => Ok(Level::All),
        _ => Err("wanted one, quorum or all".to_owned()),
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| name.starts_with("TRIAD_"));
    let (name, value) = pair.ok_or("wanted TRIAD_…=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let line = "triad-bench overload --bin a --bin b --set TRIAD_LIMITS_STREAMS=9 --reads 1";
        let Command::Overload(args) = Cli::parse_from(line.split(' ')).command else {
            panic!("not an overload");
        };
        assert_eq!(args.programs, [PathBuf::from("a"), PathBuf::from("b")]);
        let plan = args.plan();
        assert_eq!(plan.settings, [("TRIAD_LIMITS_STREAMS".to_owned(), "9".to_owned())]);
        assert_eq!(plan.lengths.map(|length| length.as_secs()), [5, 20, 20]);
        for wrong in ["overload --set PATH=x", "load --level most", "load --popularity zipf:2"] {
            let words = ["triad-bench"].into_iter().chain(wrong.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{wrong}");
        }
    }
}
