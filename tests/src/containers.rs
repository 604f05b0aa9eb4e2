//! Whole clusters in containers, driven by the same `docker` and `docker-compose` that a person types.
//!
//! A [`Cluster`] is one compose project under a name of its own on free host ports. It is taken down
//! with its volumes when it is dropped; when the test fails, the nodes' logs are printed first. One
//! cluster lives at a time in a process, so that tests do not fight for the machine.
//!
//! Without Docker a test says that it was skipped. With `TRIAD_REQUIRE_DOCKER=1`, as in CI, a missing
//! Docker is a failure.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::ports::Ports;

/// The image that `deploy/image.sh` makes.
const IMAGE: &str = "triad:dev";

/// An image to test instead of one made from this tree.
const IMAGE_VARIABLE: &str = "TRIAD_IMAGE";

/// The same two for the image with faults on demand.
const TESTING_IMAGE: &str = "triad:testing";
const TESTING_IMAGE_VARIABLE: &str = "TRIAD_TESTING_IMAGE";

/// `1`: a missing Docker is a failure.
const REQUIRE_VARIABLE: &str = "TRIAD_REQUIRE_DOCKER";

/// How the names of compose projects begin; the number of the test's process follows.
const PROJECT: &str = "triad-test";

/// How many lines of each node's log a failing test prints.
const LOG_LINES: &str = "60";

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(250);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
static PROJECTS: AtomicU32 = AtomicU32::new(0);
static MADE_IMAGE: OnceLock<Result<String, String>> = OnceLock::new();
static MADE_TESTING_IMAGE: OnceLock<Result<String, String>> = OnceLock::new();

/// A running compose project of nodes `node1`, `node2`, …
#[derive(Debug)]
pub struct Cluster {
    file: PathBuf,
    project: String,
    image: String,
    /// Service → host port of its client address.
    ports: BTreeMap<String, u16>,
    /// Nobody else takes them while a container that has them does not run.
    _reserved: Vec<Ports>,
    /// What else the compose file is told.
    environment: BTreeMap<String, String>,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts all `nodes` of the compose file (a path from the repository's root), without waiting for
    /// them. None, and a line on stderr, when Docker is not there and not required.
    ///
    /// # Panics
    /// When Docker is required and not there.
    pub fn up(file: &str, nodes: usize) -> Result<Option<Self>> {
        Self::up_as(PROJECT, file, nodes, BTreeMap::new())
    }

    /// The same as a project whose name begins with this, and with more variables for the compose file.
    ///
    /// # Panics
    /// When Docker is required and not there.
    pub fn up_as(
        project: &str,
        file: &str,
        nodes: usize,
        environment: BTreeMap<String, String>,
    ) -> Result<Option<Self>> {
        if !is_docker_there() {
            return Ok(None);
        }
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let reserved: Vec<Ports> = (0..nodes).map(|_| Ports::reserve()).collect();
        let number = PROJECTS.fetch_add(1, Ordering::Relaxed);
        let cluster = Self {
            file: root().join(file),
            project: format!("{project}-{}-{number}", std::process::id()),
            image: image()?,
            ports: named(&reserved),
            _reserved: reserved,
            environment,
            _alone: alone,
        };
        cluster.compose(&["up", "-d", "--no-build"])?;
        Ok(Some(cluster))
    }

    /// The client address of a node (counted from 1), from this machine.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn address(&self, node: usize) -> String {
        format!("localhost:{}", self.ports[&service(node)])
    }

    /// The client addresses of all nodes, from this machine.
    pub fn addresses(&self) -> Vec<String> {
        (1..=self.size()).map(|node| self.address(node)).collect()
    }

    /// How many nodes the compose file has.
    pub fn size(&self) -> usize {
        self.ports.keys().filter(|name| !name.ends_with("ADMIN")).count()
    }

    /// SIGKILL, as at a power cut of the process. The restart policy does not bring the node back.
    pub fn kill(&self, node: usize) -> Result<()> {
        self.on(&["kill", "--signal", "KILL"], node)
    }

    /// SIGKILL to several nodes in one command.
    pub fn kill_all(&self, nodes: impl IntoIterator<Item = usize>) -> Result<()> {
        let ids: Vec<String> =
            nodes.into_iter().map(|node| self.container(node)).collect::<Result<_>>()?;
        let mut arguments = vec!["kill", "--signal", "KILL"];
        arguments.extend(ids.iter().map(String::as_str));
        docker(&arguments).map(drop)
    }

    /// SIGTERM, and the exit code that the node ended with.
    pub fn stop(&self, node: usize) -> Result<i32> {
        self.on(&["stop"], node)?;
        let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", &self.container(node)?])?;
        code.trim().parse().context("an exit code")
    }

    /// Starts a node that was stopped or killed, with its volume.
    pub fn start(&self, node: usize) -> Result<()> {
        self.on(&["start"], node)
    }

    /// Freezes a node: it neither answers nor closes its connections.
    pub fn pause(&self, node: usize) -> Result<()> {
        self.on(&["pause"], node)
    }

    /// Lets a frozen node go on.
    pub fn unpause(&self, node: usize) -> Result<()> {
        self.on(&["unpause"], node)
    }

    /// Runs `triad` with these arguments inside a node's container.
    pub fn triad(&self, node: usize, arguments: &[&str]) -> Result<Output> {
        let id = self.container(node)?;
        let command = ["exec", &id, "/triad"];
        let output = Command::new("docker").args(command).args(arguments).output();
        output.context("docker exec starts")
    }

    /// Waits until this node says that it is ready.
    pub fn wait_ready(&self, node: usize, timeout: Duration) -> Result<()> {
        self.wait_for(node, &["health"], timeout)
    }

    /// Waits until this node sees `nodes` live nodes, one ring, and every shard at its full strength.
    pub fn wait_settled(&self, node: usize, nodes: usize, timeout: Duration) -> Result<()> {
        let nodes = nodes.to_string();
        let left = format!("{}s", timeout.as_secs().max(1));
        // The node may not listen yet, so the command is tried again as long as there is time.
        self.wait_for(node, &["wait", "--nodes", &nodes, "--settled", "--timeout", &left], timeout)
    }

    fn wait_for(&self, node: usize, arguments: &[&str], timeout: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let output = self.triad(node, arguments)?;
            if output.status.success() {
                return Ok(());
            }
            if start.elapsed() > timeout {
                let said = String::from_utf8_lossy(&output.stderr);
                bail!("node{node}: `triad {}` failed for {timeout:?}: {said}", arguments.join(" "));
            }
            std::thread::sleep(POLL);
        }
    }

    /// The last lines that the nodes logged.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for node in 1..=self.size() {
            let Ok(id) = self.container(node) else {
                continue;
            };
            let output = Command::new("docker").args(["logs", "--tail", LOG_LINES, &id]).output();
            let Ok(output) = output else { continue };
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            for part in ["== node", &node.to_string(), "\n", &out, &err] {
                text.push_str(part);
            }
        }
        text
    }

    fn on(&self, command: &[&str], node: usize) -> Result<()> {
        let id = self.container(node)?;
        let mut arguments = command.to_vec();
        arguments.push(&id);
        docker(&arguments).map(drop)
    }

    /// The name of its compose project.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Takes a node's container away at once, running or not, and leaves its volume.
    pub fn remove(&self, node: usize) -> Result<()> {
        self.on(&["rm", "--force"], node)
    }

    /// Makes a node's container anew, with the volume that there is, or else with an empty one.
    pub fn make(&self, node: usize) -> Result<()> {
        self.compose(&["up", "-d", "--no-build", "--no-deps", &service(node)]).map(drop)
    }

    /// SIGTERM, and a new start once the node has ended.
    pub fn restart(&self, node: usize) -> Result<()> {
        self.on(&["restart"], node)
    }

    /// What `docker inspect` says of a node's container by this template.
    pub fn inspect(&self, node: usize, template: &str) -> Result<String> {
        let said = docker(&["inspect", "--format", template, &self.container(node)?])?;
        Ok(said.trim().to_owned())
    }

    /// Whether the node has a container, running or not.
    pub fn has_container(&self, node: usize) -> Result<bool> {
        self.containers(node).map(|found| !found.is_empty())
    }

    pub(crate) fn container(&self, node: usize) -> Result<String> {
        let found = self.containers(node)?;
        ensure!(
            !found.is_empty() && !found.contains('\n'),
            "node{node} is not one container: {found:?}"
        );
        Ok(found)
    }

    /// Compose v1 and v2 name containers differently, but label them alike.
    fn containers(&self, node: usize) -> Result<String> {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let service = format!("label=com.docker.compose.service={}", service(node));
        let found =
            docker(&["ps", "--all", "--quiet", "--filter", &project, "--filter", &service])?;
        Ok(found.trim().to_owned())
    }

    fn compose(&self, arguments: &[&str]) -> Result<String> {
        let mut command = compose_command()?;
        command
            .arg("--file")
            .arg(&self.file)
            .args(["--project-name", &self.project])
            .args(arguments);
        command.current_dir(root()).env(IMAGE_VARIABLE, &self.image);
        command.envs(&self.environment);
        for (name, port) in &self.ports {
            command.env(format!("{}_PORT", name.to_uppercase()), port.to_string());
        }
        run(command)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stderr = std::io::stderr();
        if std::thread::panicking() {
            let _ = writeln!(stderr, "{}", self.logs());
        }
        if let Err(error) =
            self.compose(&["down", "--volumes", "--remove-orphans", "--timeout", "1"])
        {
            let _ = writeln!(stderr, "project {} was not removed: {error:#}", self.project);
        }
    }
}

/// A single node in a container, made as `docker run` makes it and removed when dropped.
#[derive(Debug)]
pub struct Alone {
    id: String,
    admin: String,
}

impl Alone {
    /// Starts one from the image that users run, or from the one with faults on demand. None, and a line on stderr,
    /// when Docker is not there and not required.
    pub fn run(testing: bool) -> Result<Option<Self>> {
        if !is_docker_there() {
            return Ok(None);
        }
        let image = if testing { testing_image()? } else { image()? };
        let id = docker(&["run", "--detach", "--publish", "127.0.0.1::7422", &image])?;
        let mut alone = Self { id: id.trim().to_owned(), admin: String::new() };
        let published = docker(&["port", &alone.id, "7422/tcp"])?;
        published.trim().clone_into(&mut alone.admin);
        Ok(Some(alone))
    }

    /// Where its HTTP for operators is, from this machine.
    pub fn admin_address(&self) -> &str {
        &self.admin
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Err(error) = docker(&["rm", "--force", "--volumes", &self.id]) {
            let _ = writeln!(std::io::stderr(), "{} was not removed: {error:#}", self.id);
        }
    }
}

/// False, and a line on stderr, when Docker is not there and not required.
pub(crate) fn is_docker_there() -> bool {
    let wanted = docker_wanted();
    if let Err(reason) = &wanted {
        // Past the test harness's capture: a skipped test must not look like a passed one.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
    }
    wanted.is_ok()
}

/// Whether tests with containers are to run here; if not, why.
fn docker_wanted() -> Result<(), String> {
    let required = std::env::var(REQUIRE_VARIABLE).is_ok_and(|value| value == "1");
    let found =
        docker(&["version", "--format", "{{.Server.Version}}"]).and_then(|_| compose_command());
    match found {
        Ok(_) => Ok(()),
        Err(error) => {
            assert!(!required, "{REQUIRE_VARIABLE}=1, but Docker cannot be used: {error:#}");
            Err(format!("container test, Docker cannot be used here: {error:#}"))
        }
    }
}

/// The image under test, made from this tree once in a process.
fn image() -> Result<String> {
    let made = MADE_IMAGE.get_or_init(|| make_image(IMAGE_VARIABLE, &[IMAGE], IMAGE));
    made.clone().map_err(anyhow::Error::msg)
}

/// The image with faults on demand.
fn testing_image() -> Result<String> {
    let make = || make_image(TESTING_IMAGE_VARIABLE, &["--testing", TESTING_IMAGE], TESTING_IMAGE);
    MADE_TESTING_IMAGE.get_or_init(make).clone().map_err(anyhow::Error::msg)
}

fn make_image(variable: &str, arguments: &[&str], name: &str) -> Result<String, String> {
    if let Ok(ready_made) = std::env::var(variable) {
        return Ok(ready_made);
    }
    let patience = "making the image by deploy/image.sh: the first time this takes minutes";
    let _ = writeln!(std::io::stderr(), "{patience}");
    let mut script = Command::new("bash");
    script.arg("deploy/image.sh").args(arguments).current_dir(root());
    run(script).map(|_| name.to_owned()).map_err(|error| format!("{error:#}"))
}

fn compose_command() -> Result<Command> {
    for words in [&["docker-compose"][..], &["docker", "compose"]] {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        if command.arg("version").output().is_ok_and(|output| output.status.success()) {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            return Ok(command);
        }
    }
    bail!("neither `docker-compose` nor `docker compose` answers")
}

/// Runs `docker` with these arguments, and answers what it says.
pub(crate) fn docker(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("docker");
    command.args(arguments);
    run(command)
}

/// Runs a command to its end, and answers what it says.
pub(crate) fn run(mut command: Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?} starts"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The name of a node, counted from 1.
pub(crate) fn service(node: usize) -> String {
    format!("node{node}")
}

/// Service → host port of its client address and, by another name, of its admin address.
fn named(reserved: &[Ports]) -> BTreeMap<String, u16> {
    let names = |(index, ports): (usize, &Ports)| {
        let service = service(index + 1);
        [(format!("{service}_ADMIN"), ports.admin), (service, ports.client)]
    };
    reserved.iter().enumerate().flat_map(names).collect()
}

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}
