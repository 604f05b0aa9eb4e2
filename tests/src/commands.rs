//! Commands that run to their end, `triad` above all, with what they printed and their exit codes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::binary::triad;

/// A command that ran to its end.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said besides.
    pub stderr: String,
}

impl Ran {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The one JSON object it printed. Panics if it failed or printed anything else.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        self.any_json()
    }

    /// The one JSON object on stdout, whatever the exit code.
    pub fn any_json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON: {error}: {self:?}"))
    }

    /// The error object: one line on stderr.
    pub fn error(&self) -> Value {
        let line = self.stderr.lines().find(|line| line.starts_with('{'));
        let text = line.unwrap_or_else(|| panic!("no JSON line on stderr: {self:?}"));
        let mut value: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        value["error"].take()
    }

    /// What it printed, if it succeeded. Panics otherwise.
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        &self.stdout
    }
}

/// Runs `triad` to its end with these arguments and environment.
pub fn run<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
    environment: &[(&str, &str)],
) -> Ran {
    let mut command = Command::new(triad());
    without_triad_variables(&mut command);
    command.args(arguments).envs(environment.iter().copied());
    ran(&mut command)
}

/// Runs any command to its end.
pub fn ran(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().expect("the command can be run");
    Ran::of(&output)
}

/// Runs a command that should end by itself; one that does not is killed and fails the test.
pub fn ran_within(command: &mut Command, directory: &Path, limit: Duration) -> Ran {
    let (out, err) = (directory.join("stdout"), directory.join("stderr"));
    let file = |path: &Path| File::create(path).expect("a file for the output");
    let spawned = command.stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err)).spawn();
    let mut process = spawned.expect("the command can be run");
    let began = Instant::now();
    let status = loop {
        match process.try_wait().expect("the process is our child") {
            Some(status) => break Some(status),
            None if began.elapsed() > limit => {
                let _ = process.kill();
                let _ = process.wait();
                break None;
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let ran = Ran {
        code: status.and_then(|status| status.code()).unwrap_or(-1),
        stdout: read(&out),
        stderr: read(&err),
    };
    assert!(status.is_some(), "has not ended within {limit:?}: {ran:?}");
    ran
}

/// What the developer has set must not change the test.
pub(crate) fn without_triad_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TRIAD_") {
            command.env_remove(name);
        }
    }
}
