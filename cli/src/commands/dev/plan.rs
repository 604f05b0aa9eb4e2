//! Which nodes a development cluster has, and how each is configured.

use std::path::Path;

use serde::Serialize;
use triad_server::config::{Config, Loader};

use crate::args::DevArgs;
use crate::commands::config;
use crate::exit::Failure;

/// Between the ports of two nodes: room for a node's three ports, and easy to read.
const PORTS_PER_NODE: u32 = 10;
/// Nothing else is going on in a cluster that is just being made: no need to wait long for the ring to come to rest.
const PLACEMENT_SETTLE: &str = "300ms";

/// A node to start.
#[derive(Debug)]
pub(super) struct NodePlan {
    pub(super) address: Address,
    pub(super) config: Config,
}

/// Where a node is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Address {
    pub(super) node: String,
    pub(super) client: String,
    pub(super) peer: String,
    pub(super) admin: String,
}

impl Address {
    fn of(index: u32, first_port: u32) -> Self {
        let on = |offset| format!("127.0.0.1:{}", first_port + PORTS_PER_NODE * index + offset);
        Self { node: format!("node{}", index + 1), client: on(0), peer: on(1), admin: on(2) }
    }
}

/// node1 makes the cluster, the others join by it. The environment has no say: a cluster for trying things out is the
/// same everywhere, and one node's settings would fit no other.
pub(super) fn nodes(args: &DevArgs, home: &Path) -> Result<Vec<NodePlan>, Failure> {
    let (count, first_port) = (u32::from(args.nodes), u32::from(args.port));
    let last = first_port + PORTS_PER_NODE * (count - 1) + 2;
    if last > u32::from(u16::MAX) {
        let problem = format!(
            "--port {first_port} -n {count}: the last port would be {last}, the greatest there is is 65535"
        );
        return Err(Failure::usage(problem));
    }
    let addresses: Vec<Address> = (0..count).map(|index| Address::of(index, first_port)).collect();
    let first = addresses[0].clone();
    addresses.into_iter().map(|address| node(args, home, address, &first)).collect()
}

fn node(
    args: &DevArgs,
    home: &Path,
    address: Address,
    first: &Address,
) -> Result<NodePlan, Failure> {
    let is_first = address == *first;
    let mut loader = Loader::new()
        .flag("node.name", &address.node)
        .flag("node.advertise_client", &address.client)
        .flag("node.advertise_peer", &address.peer)
        .flag("listen.client", &address.client)
        .flag("listen.peer", &address.peer)
        .flag("listen.admin", &address.admin)
        .flag("cluster.name", "dev")
        .flag("cluster.bootstrap", is_first.to_string())
        .flag("cluster.seeds", if is_first { "" } else { &first.peer })
        .flag("cluster.placement_settle", PLACEMENT_SETTLE);
    for setting in &args.set {
        loader = loader.flag(&setting.key, &setting.value);
    }
    let mut config = loader.load().map_err(|error| config::failure(&error))?.config;
    // Not through text: a path need not be UTF-8.
    config.storage.data_dir = home.join(&address.node);
    Ok(NodePlan { address, config })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::exit::Exit;

    fn plan(line: &str) -> Result<Vec<NodePlan>, Failure> {
        let Ok(Cli { command: Command::Dev(args), .. }) = Cli::try_parse_from(line.split(' '))
        else {
            panic!("{line}")
        };
        nodes(&args, Path::new("/home"))
    }

    #[test]
    fn ports_follow_the_rule_that_scripts_rely_on() {
        let plans = plan("triad dev -n 3 --port 7420").unwrap();
        let found: Vec<String> = plans
            .iter()
            .map(|p| {
                format!(
                    "{} {} {} {}",
                    p.address.node, p.address.client, p.address.peer, p.address.admin
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                "node1 127.0.0.1:7420 127.0.0.1:7421 127.0.0.1:7422",
                "node2 127.0.0.1:7430 127.0.0.1:7431 127.0.0.1:7432",
                "node3 127.0.0.1:7440 127.0.0.1:7441 127.0.0.1:7442",
            ]
        );
        assert_eq!(plans[2].config.listen.admin.to_string(), "127.0.0.1:7442");
        assert_eq!(plans[2].config.storage.data_dir, Path::new("/home/node3"));
    }

    #[test]
    fn one_node_makes_the_cluster_and_the_others_join_it() {
        let plans = plan("triad dev -n 3").unwrap();
        let may: Vec<bool> = plans.iter().map(|plan| plan.config.cluster.may_bootstrap()).collect();
        assert_eq!(may, [true, false, false]);
        assert!(plans[0].config.cluster.seeds.is_empty());
        assert_eq!(plans[2].config.cluster.seeds, ["127.0.0.1:7421"]);
    }

    #[test]
    fn settings_reach_every_node_and_wrong_ones_are_wrong_usage() {
        let plans = plan("triad dev -n 2 --set cluster.shards=64").unwrap();
        assert!(plans.iter().all(|plan| plan.config.cluster.shards == 64));
        assert_eq!(plan("triad dev --set cluster.shard=64").unwrap_err().exit, Exit::Usage);
        assert_eq!(plan("triad dev -n 3 --port 65514").unwrap_err().exit, Exit::Usage);
        assert!(plan("triad dev -n 3 --port 65513").is_ok());
    }
}
