//! Real `triad server` processes: started on free ports with their own directories, stopped, killed, restarted with
//! the same data, and always gone when the test ends. When a test fails, the nodes' logs are printed.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::transport::Channel;
use triad_client::Client;
use triad_proto::v1;

use crate::binary::triad;
use crate::commands::without_triad_variables;
pub use crate::commands::{Ran, ran, ran_within, run};
use crate::ports::Ports;
use crate::wait::until;

/// How long a node may take from its start until it is ready, on a machine busy with other tests.
pub const START_LIMIT: Duration = Duration::from_mins(1);
/// How long a cluster may take to have every shard where it belongs.
pub const SETTLE_LIMIT: Duration = Duration::from_mins(1);
/// Shards of a cluster as it is delivered.
const SHARDS: u32 = 1_024;
/// How many bytes of a node's log are shown when a test fails.
const LOG_TAIL: usize = 30_000;

/// How the clusters of a test differ from the defaults.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    environment: Vec<(String, String)>,
    program: Option<PathBuf>,
    /// What runs the program, such as `nice -n 5`.
    runner: Vec<String>,
}

impl Settings {
    /// Everything as it is delivered.
    pub fn delivered() -> Self {
        Self::default()
    }

    /// Few shards and no long waits, for stories that are not about placement.
    pub fn small() -> Self {
        Self::default()
            .with("TRIAD_CLUSTER_SHARDS", "64")
            .with("TRIAD_CLUSTER_PLACEMENT_SETTLE", "500ms")
    }

    /// Sets an environment variable of every node.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Has the nodes run this program instead of the one under test.
    #[must_use]
    pub fn with_program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Has the nodes wait for a processor until others are content, by so much (`nice -n`).
    #[must_use]
    pub fn with_niceness(mut self, niceness: u8) -> Self {
        self.runner.extend(["nice", "-n", &niceness.to_string()].map(str::to_owned));
        self
    }

    /// Confines the nodes to these processors, as `taskset -c` names them.
    #[must_use]
    pub fn with_cores(mut self, cores: &str) -> Self {
        self.runner.extend(["taskset", "-c", cores].map(str::to_owned));
        self
    }
}

/// Several nodes that belong together.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    /// How many it ever had, for their names.
    made: usize,
    settings: Settings,
    directory: TempDir,
}

impl Cluster {
    /// Starts so many empty nodes at once, and waits until they are one cluster with every shard where it belongs.
    pub async fn start(count: usize, settings: Settings) -> Self {
        let mut cluster = Self::prepare(count, settings);
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster.settled(count).await;
        cluster
    }

    /// The nodes of a new cluster, none of them started: node1 may make the cluster, all know each other as seeds.
    pub fn prepare(count: usize, settings: Settings) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Self { nodes: Vec::new(), made: 0, settings, directory };
        for _ in 0..count {
            cluster.add();
        }
        cluster.name_seeds();
        for (index, node) in cluster.nodes.iter_mut().enumerate() {
            node.set("TRIAD_CLUSTER_BOOTSTRAP", if index == 0 { "true" } else { "false" });
        }
        cluster
    }

    /// Starts one more node, which joins through those that are there.
    pub fn grow(&mut self) -> &mut Node {
        self.add().set("TRIAD_CLUSTER_BOOTSTRAP", "false");
        self.name_seeds();
        let node = self.nodes.last_mut().expect("just added");
        node.start();
        node
    }

    /// At its next start each node knows all that are there now, as one who runs a cluster would see to.
    fn name_seeds(&mut self) {
        let seeds: Vec<String> = self.nodes.iter().map(Node::peer_address).collect();
        for node in &mut self.nodes {
            node.set("TRIAD_CLUSTER_SEEDS", &seeds.join(","));
        }
    }

    fn add(&mut self) -> &mut Node {
        self.made += 1;
        let name = format!("node{}", self.made);
        let mut node = Node::new(&name, self.directory.path());
        node.program.clone_from(&self.settings.program);
        node.runner.clone_from(&self.settings.runner);
        for (key, value) in &self.settings.environment {
            node.set(key, value);
        }
        self.nodes.push(node);
        self.nodes.last_mut().expect("just added")
    }

    /// Has a node hand over, leave the cluster and end; those after it move up by one number.
    pub async fn dismiss(&mut self, index: usize, limit: Duration) {
        let client = client_of([self.nodes[index].client_address()]);
        client.cluster().leave(false).await.expect("a node of several may leave");
        until("the node has left", limit, || async {
            let told = client.cluster().readiness().await.map_err(|error| error.to_string())?;
            let left = told.reasons.iter().any(|why| why.contains("has left it"));
            if left { Ok(()) } else { Err(told.reasons.join("; ")) }
        })
        .await;
        assert!(self.nodes[index].stop(limit).success(), "who has left ends well");
        self.nodes.remove(index);
        self.name_seeds();
    }

    /// How many shards it has.
    pub fn shards(&self) -> u32 {
        let mut set = self.settings.environment.iter().rev();
        let shards = set.find(|(name, _)| name == "TRIAD_CLUSTER_SHARDS");
        shards.map_or(SHARDS, |(_, count)| count.parse().expect("the harness sets a number"))
    }

    /// Which nodes run, by number from 0.
    pub fn running(&mut self) -> Vec<bool> {
        self.nodes.iter_mut().map(Node::is_running).collect()
    }

    /// All nodes, by number from 0.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One node, by number from 0.
    pub fn node(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }

    /// The client addresses of all nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(Node::client_address).collect()
    }

    /// A client that may enter by any node.
    pub fn client(&self) -> Client {
        client_of(self.endpoints())
    }

    /// Kills all nodes at once, as a power failure would.
    pub fn kill_all(&mut self) {
        for node in &self.nodes {
            node.signal(Signal::KILL);
        }
        for node in &mut self.nodes {
            node.kill();
        }
    }

    /// Starts all nodes that do not run, with the data they have.
    pub fn start_all(&mut self) {
        for node in &mut self.nodes {
            if !node.is_running() {
                node.start();
            }
        }
    }

    /// Waits until so many nodes are alive and every shard is where it belongs.
    pub async fn settled(&mut self, count: usize) {
        self.settled_within(count, SETTLE_LIMIT).await;
    }

    /// The same with a limit.
    pub async fn settled_within(&mut self, count: usize, limit: Duration) {
        for node in &mut self.nodes {
            node.ready().await;
        }
        self.settled_with(count, limit).await;
    }

    /// The same, whoever the nodes are.
    pub async fn settled_with(&self, count: usize, limit: Duration) {
        let client = self.client();
        let what = format!("{count} nodes, settled");
        until(&what, limit, || async { is_settled(&client, count).await }).await;
    }

    /// Runs `triad` with these arguments against all nodes.
    pub fn triad<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        run(arguments, &[("TRIAD_ENDPOINTS", &self.endpoints().join(","))])
    }

    /// Where the test may keep files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// A client that connects when first used.
pub fn client_of<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Client {
    Client::builder()
        .endpoints(endpoints)
        .connect_lazy()
        .expect("the harness makes well-formed addresses")
}

/// Whether so many nodes are alive and every shard is where it belongs; Err says what is still missing.
pub(crate) async fn is_settled(client: &Client, count: usize) -> Result<(), String> {
    let cluster = client.cluster().deadline(Duration::from_secs(5));
    let status = cluster.status().await.map_err(|error| error.to_string())?;
    let nodes = status.nodes.unwrap_or_default();
    let shards = status.shards.unwrap_or_default();
    let quiet = shards.joint + shards.under_replicated + shards.unavailable + shards.learning == 0;
    if !(status.complete && nodes.alive as usize == count && shards.total > 0 && quiet) {
        return Err(format!("{nodes:?} {shards:?} unreachable {:?}", status.unreachable));
    }
    let listed = cluster.list_nodes().await.map_err(|error| error.to_string())?;
    let misplaced: Vec<String> = listed
        .iter()
        .filter(|node| node.shards != node.ideal_shards)
        .map(|node| format!("{} holds {} shards of {}", node.node, node.shards, node.ideal_shards))
        .collect();
    if listed.len() == count && misplaced.is_empty() { Ok(()) } else { Err(misplaced.join(", ")) }
}

/// One node: a directory, three ports, and a process while it runs.
#[derive(Debug)]
pub struct Node {
    name: String,
    ports: Ports,
    data_dir: PathBuf,
    log: PathBuf,
    environment: Vec<(String, String)>,
    program: Option<PathBuf>,
    runner: Vec<String>,
    process: Option<Child>,
}

impl Node {
    /// A node that is not started, with its directory inside this one. It may make a cluster, for it knows no seeds.
    pub fn new(name: &str, directory: &Path) -> Self {
        Self {
            name: name.to_owned(),
            ports: Ports::reserve(),
            data_dir: directory.join(name),
            log: directory.join(format!("{name}.log")),
            environment: Vec::new(),
            program: None,
            runner: Vec::new(),
            process: None,
        }
    }

    /// Sets an environment variable for later starts.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where clients reach it.
    pub fn client_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.client)
    }

    /// Where other nodes reach it.
    pub fn peer_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.peer)
    }

    /// Where its HTTP is.
    pub fn admin_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.admin)
    }

    /// Where its data is.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Uses another directory for later starts.
    pub fn set_data_dir(&mut self, path: &Path) {
        path.clone_into(&mut self.data_dir);
    }

    /// All it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The command that runs it.
    pub fn command(&self) -> Command {
        let program = self.program.clone().unwrap_or_else(triad);
        let mut command = match self.runner.split_first() {
            None => Command::new(program),
            Some((runner, arguments)) => {
                let mut command = Command::new(runner);
                command.args(arguments).arg(program);
                command
            }
        };
        without_triad_variables(&mut command);
        command
            .arg("server")
            .env("TRIAD_NODE_NAME", &self.name)
            .env("TRIAD_NODE_ADVERTISE_CLIENT", self.client_address())
            .env("TRIAD_NODE_ADVERTISE_PEER", self.peer_address())
            .env("TRIAD_LISTEN_CLIENT", self.client_address())
            .env("TRIAD_LISTEN_PEER", self.peer_address())
            .env("TRIAD_LISTEN_ADMIN", self.admin_address())
            .env("TRIAD_STORAGE_DATA_DIR", &self.data_dir)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Starts it, without waiting until it is ready.
    pub fn start(&mut self) {
        assert!(!self.is_running(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("a log file");
        let errors = log.try_clone().expect("another handle of it");
        let process = self.command().stdout(Stdio::from(log)).stderr(Stdio::from(errors)).spawn();
        self.process = Some(process.expect("the program under test can be run"));
    }

    /// Waits until it listens, ready or not.
    pub async fn listens(&self, limit: Duration) {
        let address = self.admin_address();
        until("the node listens", limit, || tokio::net::TcpStream::connect(&address)).await;
    }

    /// Waits until it says that it is ready. Panics if it ends instead.
    pub async fn ready(&mut self) {
        let client = client_of([self.client_address()]);
        let began = Instant::now();
        loop {
            let look = client.cluster().deadline(Duration::from_secs(1));
            let seen = match look.readiness().await {
                Ok(answer) if answer.ready => return,
                Ok(answer) => answer.reasons.join("; "),
                Err(error) => error.to_string(),
            };
            assert!(self.is_running(), "{} ended instead of getting ready", self.name);
            assert!(
                began.elapsed() < START_LIMIT,
                "{} is not ready after {START_LIMIT:?}: {seen}",
                self.name
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The id of its process, if it was started.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The most memory that its process has had at any time, in kB, if it runs.
    pub fn peak_memory_kb(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process_id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    }

    /// Whether its process lives.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// Ends it at once, with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself: that is as good.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Freezes it: it neither answers nor closes its connections.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it and takes its store away; its key stays, so it is the same node with a new store.
    pub fn wipe(&mut self) {
        self.kill();
        fs::remove_dir_all(self.data_dir.join("store")).expect("a store to take away");
    }

    /// Asks it to end, with SIGTERM, and waits for it.
    pub fn stop(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended(limit)
    }

    /// Waits until it ends by itself.
    pub fn ended(&mut self, limit: Duration) -> ExitStatus {
        let process = self.process.as_mut().expect("it was started");
        let began = Instant::now();
        loop {
            if let Some(status) = process.try_wait().expect("the process is our child") {
                self.process = None;
                return status;
            }
            assert!(began.elapsed() < limit, "{} has not ended within {limit:?}", self.name);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it was started");
        let id =
            i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("a process has an id");
        kill_process(id, signal).expect("our child can be signalled");
    }

    /// A connection to it for requests that the client library would not make.
    pub async fn channel(&self) -> Channel {
        crate::raw::channel(&self.client_address()).await
    }

    /// Its readiness, as it tells by itself.
    pub async fn readiness(&self) -> Result<v1::GetReadinessResponse, triad_client::Error> {
        let client = client_of([self.client_address()]);
        client.cluster().deadline(Duration::from_secs(2)).readiness().await
    }

    fn print_log(&self) {
        let log = self.log();
        let from = log.len().saturating_sub(LOG_TAIL);
        let from =
            (from..log.len()).find(|index| log.is_char_boundary(*index)).unwrap_or(log.len());
        eprintln!("---- log of {} ({}) ----\n{}", self.name, self.client_address(), &log[from..]);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            self.print_log();
        }
    }
}
