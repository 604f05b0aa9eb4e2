//! The README's examples, run as they are written against a cluster of three.
//!
//! Blocks fenced as `sh test` are run line by line; what stands behind `# →` must be in the line's
//! stdout. Ports are moved to free ones. (The examples with grpcurl are run by `tests/tests/reflection.rs`.)

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// The ports of `triad dev -n 3` from its first: clients, peers and HTTP of node i at +10·i, +1, +2.
const OFFSETS: [u16; 9] = [0, 1, 2, 10, 11, 12, 20, 21, 22];

static NEXT_BASE: AtomicU16 = AtomicU16::new(0);

/// The port that the README's examples use for the first node.
const README_PORT: u16 = 7420;

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    std::fs::read_to_string(path).expect("the README is there")
}

/// The lines of all blocks with this info string.
fn blocks(readme: &str, info: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match line.strip_prefix("```") {
            Some(found) => inside = !inside && found == info,
            None if inside && !line.trim().is_empty() => lines.push(line.to_owned()),
            None => {}
        }
    }
    lines
}

/// A first port for which all nine are free. The listeners are closed again, so another program could
/// still take one; the cluster then fails to start, and says why.
fn free_base() -> u16 {
    let free = |base: u16| {
        OFFSETS.iter().all(|offset| TcpListener::bind(("127.0.0.1", base + offset)).is_ok())
    };
    // Tests run side by side, so no two may look at the same ports.
    let bases = std::iter::repeat_with(|| NEXT_BASE.fetch_add(23, Ordering::Relaxed)).take(100);
    let start = 10_000 + (std::process::id() % 200) as u16 * 100;
    bases.map(|step| start + step).find(|base| free(*base)).expect("nine free ports in a row")
}

/// A command with the built `triad` first on its path, and none of the caller's settings.
fn command(program: impl AsRef<std::ffi::OsStr>, base: u16) -> Command {
    let own =
        Path::new(env!("CARGO_BIN_EXE_triad")).parent().expect("the binary is in a directory");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(PathBuf::from(own)).chain(std::env::split_paths(&path));
    let mut command = Command::new(program);
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TRIAD_"))
    {
        command.env_remove(name);
    }
    command.env("PATH", std::env::join_paths(paths).expect("paths that were joined before"));
    command.env("TRIAD_ENDPOINTS", format!("localhost:{base}"));
    command
}

/// `triad dev -n 3`, until it is dropped.
struct Dev {
    process: Child,
    base: u16,
}

impl Dev {
    fn start() -> Self {
        let base = free_base();
        let port = base.to_string();
        let mut dev = command("triad", base);
        let process = dev
            .args(["dev", "-n", "3", "--port", &port])
            .stdout(Stdio::null())
            .spawn()
            .expect("triad starts");
        let dev = Self { process, base };
        let settled = dev.run("for i in $(seq 60); do triad wait --nodes 3 --settled --timeout 60s && exit; sleep 1; done; exit 1");
        assert!(settled.status.success(), "{}", String::from_utf8_lossy(&settled.stderr));
        dev
    }

    fn run(&self, line: &str) -> Output {
        let moved = OFFSETS.iter().fold(line.to_owned(), |line, offset| {
            line.replace(
                &format!("localhost:{}", README_PORT + offset),
                &format!("localhost:{}", self.base + offset),
            )
        });
        command("bash", self.base).args(["-c", &moved]).output().expect("bash starts")
    }

    /// Runs the lines, and holds each to what the README says that it prints.
    fn holds(&self, lines: &[String]) {
        assert!(!lines.is_empty(), "the README has no such examples");
        for line in lines {
            let (example, expected) = line.split_once("# →").unwrap_or((line, ""));
            let output = self.run(example);
            let (stdout, stderr) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{line}\n{}\n{stdout}{stderr}", output.status);
            assert!(stdout.contains(expected.trim()), "{line}\n{stdout}{stderr}");
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // SIGTERM, so that it removes its temporary folder.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

#[test]
fn the_examples_of_the_command_line_do_what_the_readme_says() {
    Dev::start().holds(&blocks(&readme(), "sh test"));
}

#[test]
fn the_first_command_shows_a_put_and_a_get_and_ends() {
    let first =
        blocks(&readme(), "sh").into_iter().next().expect("the README starts with a command");
    let (cargo, arguments) = first.split_once(" -- ").expect("cargo run … -- arguments");
    assert!(cargo.starts_with("cargo run ") && cargo.ends_with(" --bin triad"), "{cargo}");
    let base = free_base();
    let output = command("triad", base)
        .args(arguments.split(' '))
        .args(["--port", &base.to_string()])
        .output();
    let output = output.expect("triad starts");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{stdout}{stderr}", output.status);
    let shown = stdout.to_lowercase();
    assert!(
        shown.contains("put") && shown.contains("get") && shown.contains("node3"),
        "{stdout}{stderr}"
    );
}

#[test]
fn the_second_command_passes_the_tests() {
    let commands: Vec<String> = blocks(&readme(), "sh").into_iter().take(2).collect();
    assert_eq!(commands.get(1).map(String::as_str), Some("cargo test --workspace --locked"));
}
