//! The bounds of every leaf, and what must hold between them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::{Config, size};
use crate::telemetry;

/// One reason why a configuration is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The leaf, for example `limits.value_bytes`.
    pub key: String,
    /// Its value as it would be written in a file.
    pub value: String,
    /// What is wrong and what would be accepted.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.key, self.value, self.message)
    }
}

/// Everything wrong with `config`, in the order of this file.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut checks = Checks { leaves: config.leaves(), found: Vec::new() };
    node(config, &mut checks);
    listen(config, &mut checks);
    cluster(config, &mut checks);
    storage(config, &mut checks);
    limits(config, &mut checks);
    timeouts(config, &mut checks);
    repair(config, &mut checks);
    if let Err(problem) = telemetry::parse_filter(&config.telemetry.log_level) {
        checks.fail("telemetry.log_level", problem);
    }
    checks.found
}

fn node(config: &Config, checks: &mut Checks) {
    checks.label("node.name", &config.node.name, 0);
    checks.label("node.zone", &config.node.zone, 0);
    for (key, address) in [
        ("node.advertise_client", &config.node.advertise_client),
        ("node.advertise_peer", &config.node.advertise_peer),
    ] {
        if !address.is_empty() {
            checks.host_port(key, address);
        }
    }
}

fn listen(config: &Config, checks: &mut Checks) {
    let listen = &config.listen;
    let clash = |a: SocketAddr, b: SocketAddr| {
        a.port() != 0
            && a.port() == b.port()
            && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
    };
    if clash(listen.client, listen.peer) {
        checks.fail("listen.peer", "must not be the socket of listen.client".into());
    }
    if clash(listen.client, listen.admin) {
        checks.fail("listen.admin", "must not be the socket of listen.client".into());
    }
    if clash(listen.peer, listen.admin) {
        checks.fail("listen.admin", "must not be the socket of listen.peer".into());
    }
}

fn cluster(config: &Config, checks: &mut Checks) {
    let cluster = &config.cluster;
    checks.label("cluster.name", &cluster.name, 1);
    for seed in &cluster.seeds {
        checks.host_port("cluster.seeds", seed);
    }
    if cluster.seeds.len() > MAX_SEEDS {
        checks.fail(
            "cluster.seeds",
            format!("has {} entries, at most {MAX_SEEDS} are asked", cluster.seeds.len()),
        );
    }
    checks.number("cluster.replication_factor", cluster.replication_factor.into(), 1, 7);
    checks.number("cluster.virtual_nodes", cluster.virtual_nodes.into(), 1, 1024);
    checks.number("cluster.shards", cluster.shards.into(), 1, 65_536);
    if !cluster.shards.is_power_of_two() {
        checks.fail("cluster.shards", "must be a power of two".into());
    }
    checks.duration("cluster.down_after", cluster.down_after, SECOND, 7 * 24 * HOUR);
    checks.duration(
        "cluster.placement_settle",
        cluster.placement_settle,
        Duration::from_millis(10),
        HOUR,
    );
}

fn storage(config: &Config, checks: &mut Checks) {
    let storage = &config.storage;
    if storage.data_dir.as_os_str().is_empty() {
        checks.fail("storage.data_dir", "must name a directory".into());
    }
    checks.size("storage.cache", storage.cache, 4 << 20, 1 << 40);
    checks.size("storage.reserve", storage.reserve, 0, 1 << 40);
    checks.size("storage.hint_bytes", storage.hint_bytes, 0, 1 << 40);
    checks.duration("storage.hint_age", storage.hint_age, SECOND, 7 * 24 * HOUR);
    if storage.quota != 0 && storage.quota < MIN_QUOTA {
        checks.fail(
            "storage.quota",
            format!("must be 0 (all there is) or at least {}", size::display(MIN_QUOTA)),
        );
    }
}

fn limits(config: &Config, checks: &mut Checks) {
    let limits = &config.limits;
    checks.size("limits.value_bytes", limits.value_bytes, 1 << 10, 4 << 20);
    checks.number("limits.siblings_hard", limits.siblings_hard.into(), 1, 1000);
    let hard = u64::from(limits.siblings_hard);
    checks.number_up_to(
        "limits.siblings_soft",
        limits.siblings_soft.into(),
        1,
        hard,
        "limits.siblings_hard",
    );
    checks.number("limits.in_flight", limits.in_flight.into(), 1, 1_000_000);
    checks.duration("limits.queue_wait", limits.queue_wait, Duration::from_millis(10), 60 * SECOND);
    checks.size("limits.in_flight_bytes", limits.in_flight_bytes, 16 << 20, 1 << 40);
    checks.number("limits.connections", limits.connections.into(), 1, 1_000_000);
    checks.number("limits.streams", limits.streams.into(), 1, 65_536);
}

fn timeouts(config: &Config, checks: &mut Checks) {
    let timeouts = &config.timeouts;
    let shortest = Duration::from_millis(10);
    checks.duration("timeouts.request_max", timeouts.request_max, shortest, HOUR);
    checks.duration("timeouts.request", timeouts.request, shortest, HOUR);
    if timeouts.request > timeouts.request_max {
        let max = humantime::format_duration(timeouts.request_max);
        checks.fail("timeouts.request", format!("must be at most timeouts.request_max = {max}"));
    }
    checks.duration("timeouts.peer", timeouts.peer, shortest, 60 * SECOND);
    checks.duration("timeouts.drain", timeouts.drain, Duration::ZERO, 600 * SECOND);
}

fn repair(config: &Config, checks: &mut Checks) {
    let repair = &config.repair;
    if !repair.interval.is_zero() {
        checks.duration("repair.interval", repair.interval, 100 * MILLISECOND, 7 * 24 * HOUR);
    }
    if !repair.scrub.is_zero() {
        checks.duration("repair.scrub", repair.scrub, SECOND, 90 * 24 * HOUR);
    }
    if repair.bytes_per_second != 0 && repair.bytes_per_second < MIN_RATE {
        checks.fail(
            "repair.bytes_per_second",
            format!("must be 0 (as fast as it goes) or at least {}", size::display(MIN_RATE)),
        );
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
/// A dozen would do; the bound keeps a generated file from making the start a scan of a data centre.
const MAX_SEEDS: usize = 100;
/// Below this the engine's own files fill the quota.
const MIN_QUOTA: u64 = 64 << 20;
/// Below this one page of a copy would hold up all others for minutes.
const MIN_RATE: u64 = 64 << 10;

/// Collects problems; knows every leaf's value as text.
struct Checks {
    leaves: BTreeMap<String, Value>,
    found: Vec<Problem>,
}

impl Checks {
    fn fail(&mut self, key: &str, message: String) {
        let value = self.leaves.get(key).map_or_else(String::new, ToString::to_string);
        self.found.push(Problem { key: key.into(), value, message });
    }

    fn number(&mut self, key: &str, value: u64, least: u64, most: u64) {
        if !(least..=most).contains(&value) {
            self.fail(key, format!("must be from {least} to {most}"));
        }
    }

    fn number_up_to(&mut self, key: &str, value: u64, least: u64, most: u64, bound: &str) {
        if !(least..=most).contains(&value) {
            self.fail(key, format!("must be from {least} to {bound} = {most}"));
        }
    }

    fn size(&mut self, key: &str, value: u64, least: u64, most: u64) {
        if !(least..=most).contains(&value) {
            self.fail(
                key,
                format!("must be from {} to {}", size::display(least), size::display(most)),
            );
        }
    }

    fn duration(&mut self, key: &str, value: Duration, least: Duration, most: Duration) {
        if value < least || value > most {
            let (least, most) =
                (humantime::format_duration(least), humantime::format_duration(most));
            self.fail(key, format!("must be from {least} to {most}"));
        }
    }

    fn label(&mut self, key: &str, value: &str, least: usize) {
        let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if value.len() < least || value.len() > 63 || !value.chars().all(good) {
            self.fail(key, format!("must be {least} to 63 of A-Z a-z 0-9 . _ -"));
        }
    }

    fn host_port(&mut self, key: &str, address: &str) {
        if let Err(why) = split_host_port(address) {
            self.fail(
                key,
                format!("{address:?} {why}: expected host:port, for example node1:7421"),
            );
        }
    }
}

/// Splits `node1:7421` or `[::1]:7421`; a scheme, a missing host or a bad port is an error that says so.
pub(crate) fn split_host_port(address: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("has no port")?;
    if host.contains('/') {
        return Err("is not an address but a URL");
    }
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty()
        || host.chars().any(char::is_whitespace)
        || (host.contains(':') && !bracketed)
    {
        return Err("has no valid host");
    }
    match port.parse() {
        Ok(port) if port != 0 => Ok((host, port)),
        _ => Err("has no port from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changes one thing in the defaults and returns what is then wrong, one line per problem.
    fn after(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        config.validate().err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_problem_names_the_leaf_the_value_and_the_limit() {
        assert_eq!(
            after(|c| c.limits.value_bytes = 16 << 20),
            ["limits.value_bytes = \"16MiB\": must be from 1KiB to 4MiB"]
        );
        assert_eq!(
            after(|c| c.cluster.shards = 1000),
            ["cluster.shards = 1000: must be a power of two"]
        );
        assert_eq!(
            after(|c| c.cluster.replication_factor = 0),
            ["cluster.replication_factor = 0: must be from 1 to 7"]
        );
        assert_eq!(
            after(|c| c.timeouts.peer = HOUR),
            ["timeouts.peer = \"1h\": must be from 10ms to 1m"]
        );
    }

    #[test]
    fn leaves_that_belong_together_are_compared() {
        assert_eq!(
            after(|c| c.limits.siblings_soft = 60),
            ["limits.siblings_soft = 60: must be from 1 to limits.siblings_hard = 50"]
        );
        assert_eq!(
            after(|c| c.timeouts.request = Duration::from_secs(90)),
            ["timeouts.request = \"1m 30s\": must be at most timeouts.request_max = 1m"]
        );
        assert_eq!(
            after(|c| c.listen.admin.set_port(7420)),
            ["listen.admin = \"0.0.0.0:7420\": must not be the socket of listen.client"]
        );
        assert_eq!(
            after(|c| (c.listen.admin, c.listen.client) =
                ("[::1]:0".parse().unwrap(), "[::1]:0".parse().unwrap())),
            [""; 0]
        );
    }

    #[test]
    fn addresses_of_others_need_a_host_and_a_port() {
        for good in ["node1:7421", "10.0.0.1:1", "[::1]:7421", "a.b-c.example:65535"] {
            assert!(split_host_port(good).is_ok(), "{good}");
        }
        for bad in [
            "node1",
            "node1:",
            "node1:0",
            "node1:65536",
            ":7421",
            "http://node1:7421",
            "::1:7421",
            "a b:1",
        ] {
            assert!(split_host_port(bad).is_err(), "{bad}");
        }
        let found =
            after(|c| c.cluster.seeds = vec!["node1:7421".into(), "http://node2:7421".into()]);
        assert!(
            found[0].contains("\"http://node2:7421\" is not an address but a URL"),
            "{found:?}"
        );
    }

    #[test]
    fn a_misspelt_log_level_is_not_taken_for_the_name_of_a_module() {
        assert!(
            after(|c| c.telemetry.log_level = "debgu".into())[0]
                .starts_with("telemetry.log_level = \"debgu\": ")
        );
        assert_eq!(after(|c| c.telemetry.log_level = "warn,triad_server=debug".into()), [""; 0]);
    }
}
