//! The containers of a run, and what is done to them from outside.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use triad_client::Client;
use triad_proto::v1::DecommissionRequest;

use super::disk::Disk;
use super::leftovers::{self, Directory, PREFIX};
use super::network::Namespace;
use crate::containers::{self, Cluster, docker, service};
use crate::processes::{client_of, is_settled};

/// Made for this.
const COMPOSE_FILE: &str = "deploy/docker-compose.chaos.yml";
/// How many nodes it has.
pub const NODES: usize = 5;
/// The node with a small disk of its own instead of a volume.
pub const WITH_DISK: usize = NODES;
/// For one answer about the cluster.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(250);

/// Five containers. They go when dropped, with all that was made for them.
#[derive(Debug)]
pub struct Fleet {
    // In this order they go: who uses a disk before the disk.
    containers: Cluster,
    disk: Result<Disk, String>,
    _directory: Directory,
    client: Client,
    logs: PathBuf,
}

impl Fleet {
    /// Starts all of them, with their logs to be kept in this directory. None where there is no Docker.
    pub fn up(logs: &Path) -> Result<Option<Self>> {
        if !containers::is_docker_there() {
            return Ok(None);
        }
        for found in leftovers::remove().context("remove what an earlier run has left")? {
            println!("removed what an earlier run has left: {found}");
        }
        let directory = Directory::make()?;
        let disk = Disk::make(directory.path(), "disk").map_err(|error| format!("{error:#}"));
        let mut environment = BTreeMap::new();
        if let Ok(disk) = &disk {
            let path = disk.path().display().to_string();
            environment.insert(format!("NODE{WITH_DISK}_DATA"), path);
        }
        let Some(containers) = Cluster::up_as(PREFIX, COMPOSE_FILE, NODES, environment)? else {
            return Ok(None);
        };
        let client = client_of(containers.addresses());
        let logs = logs.to_owned();
        Ok(Some(Self { containers, disk, _directory: directory, client, logs }))
    }

    /// Where clients reach each node.
    pub fn addresses(&self) -> Vec<String> {
        self.containers.addresses()
    }

    /// A client that may ask any node about the cluster.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The node's disk, or why it has none.
    pub fn disk(&self) -> Result<&Disk, String> {
        self.disk.as_ref().map_err(Clone::clone)
    }

    /// SIGKILL.
    pub fn kill(&self, nodes: &[usize]) -> Result<()> {
        self.containers.kill_all(nodes.iter().copied())
    }

    /// Starts a container that does not run.
    pub fn start(&self, node: usize) -> Result<()> {
        self.containers.start(node)
    }

    /// Starts it if it has ended.
    pub fn start_if_ended(&self, node: usize) -> Result<()> {
        if self.process(node)? == 0 { self.start(node) } else { Ok(()) }
    }

    /// Freezes a container, or lets it go on.
    pub fn freeze(&self, node: usize, frozen: bool) -> Result<()> {
        if frozen { self.containers.pause(node) } else { self.containers.unpause(node) }
    }

    /// SIGTERM, and a new start.
    pub fn restart(&self, node: usize) -> Result<()> {
        self.containers.restart(node)
    }

    /// Kills the container and removes it; its volume stays.
    pub fn remove(&self, node: usize) -> Result<()> {
        self.keep_log(node)?;
        self.containers.remove(node)
    }

    /// Makes the container anew.
    pub fn make(&self, node: usize) -> Result<()> {
        self.containers.make(node)
    }

    /// Takes the volume of a removed container away, or what is on its disk.
    pub fn wipe(&self, node: usize) -> Result<()> {
        if let (WITH_DISK, Ok(disk)) = (node, &self.disk) {
            return disk.exchange();
        }
        let volume = format!("{}_{}-data", self.containers.project(), service(node));
        docker(&["volume", "rm", &volume]).map(drop)
    }

    /// Pulls the cable: neither nodes nor clients reach it, and no name.
    pub fn disconnect(&self, node: usize) -> Result<()> {
        docker(&["network", "disconnect", &self.network()?, &self.containers.container(node)?])
            .map(drop)
    }

    /// Puts the cable in again. The address may be another one.
    pub fn connect(&self, node: usize) -> Result<()> {
        let (network, container) = (self.network()?, self.containers.container(node)?);
        // Docker forgets the names that compose gave it.
        docker(&["network", "connect", "--alias", &service(node), &network, &container]).map(drop)
    }

    /// Where other containers reach it, if they do: not while it is dead or removed, or its cable is pulled.
    pub fn ip(&self, node: usize) -> Result<Option<String>> {
        if !self.containers.has_container(node)? {
            return Ok(None);
        }
        let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = self.containers.inspect(node, template)?;
        Ok(Some(address).filter(|address| !address.is_empty()))
    }

    /// The number of its process on this machine, 0 when it does not run.
    pub fn process(&self, node: usize) -> Result<u32> {
        let process = self.containers.inspect(node, "{{.State.Pid}}")?;
        process.parse().context("the number of a process")
    }

    /// Its network namespace.
    pub fn namespace(&self, node: usize) -> Result<Namespace> {
        Namespace::of(self.process(node)?)
    }

    /// The id of the living node of this name.
    pub async fn id(&self, node: usize) -> Result<String> {
        let listed = self.client.cluster().deadline(PATIENCE).list_nodes().await?;
        let mut named = listed.into_iter().filter(|one| one.node == service(node));
        let id = named.next().context("a node of this name")?.node_id;
        ensure!(named.next().is_none(), "two nodes are called node{node}");
        Ok(id)
    }

    /// Has a node that will never return leave, and waits until others have its place.
    pub async fn replace(&self, id: &str, limit: Duration) -> Result<()> {
        self.wait("a lost node was taken out", limit, async || {
            let request = DecommissionRequest { node: id.to_owned(), ..Default::default() };
            let begun = self.client.cluster().deadline(PATIENCE).decommission(request).await;
            begun.map(drop).map_err(|error| format!("{error} ({error:?})"))
        })
        .await?;
        self.settled(limit).await
    }

    /// Waits until all nodes say that they are ready.
    pub async fn ready(&self, limit: Duration) -> Result<()> {
        for address in self.addresses() {
            let client = client_of([address.clone()]);
            self.wait(&format!("{address} is ready"), limit, async || {
                let told = client.cluster().deadline(PATIENCE).readiness().await;
                let told = told.map_err(|error| error.to_string())?;
                if told.ready { Ok(()) } else { Err(told.reasons.join("; ")) }
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until all nodes are alive, one ring, with every shard where it belongs.
    pub async fn settled(&self, limit: Duration) -> Result<()> {
        self.wait("settled", limit, async || is_settled(&self.client, NODES).await).await
    }

    /// Waits for a condition.
    pub async fn wait(
        &self,
        what: &str,
        limit: Duration,
        look: impl AsyncFn() -> Result<(), String>,
    ) -> Result<()> {
        let until = tokio::time::Instant::now() + limit;
        while let Err(missing) = look().await {
            let left = until > tokio::time::Instant::now();
            ensure!(left, "not within {limit:?}: {what}; last seen: {missing}");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Keeps all logs that there are.
    pub fn keep_logs(&self) {
        for node in 1..=NODES {
            if let Err(error) = self.keep_log(node) {
                println!("the log of node{node} is not kept: {error:#}");
            }
        }
    }

    /// Adds what the node's container has logged to the node's file.
    fn keep_log(&self, node: usize) -> Result<()> {
        fs::create_dir_all(&self.logs)?;
        let path = self.logs.join(format!("{}.log", service(node)));
        let log = OpenOptions::new().create(true).append(true).open(path)?;
        let mut docker = Command::new("docker");
        docker.args(["logs", &self.containers.container(node)?]);
        docker.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).status()?;
        Ok(())
    }

    fn network(&self) -> Result<String> {
        let label = format!("label=com.docker.compose.project={}", self.containers.project());
        let found = docker(&["network", "ls", "--filter", &label, "--format", "{{.Name}}"])?;
        Ok(found.trim().to_owned())
    }
}
