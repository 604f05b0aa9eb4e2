//! Runs cargo in the workspace, and reads the options that long checks have in common.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::tree;

/// `cargo` with these arguments, at the root of the tree.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(arguments).current_dir(tree::root());
    cargo
}

/// Runs test programs of the workspace, which print what they tell. Not by `-p`: cargo would choose
/// other features and build anew.
pub(crate) fn tests(programs: &[&str], options: &[&str]) -> Command {
    let mut cargo = cargo(&["test", "--workspace", "--locked"]);
    for program in programs {
        cargo.args(["--test", program]);
    }
    cargo.args(options).args(["--", "--nocapture"]);
    cargo
}

/// Runs a command to its end; an error when that is none to be glad of.
pub(crate) fn succeed(mut command: Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let status = command.status().with_context(|| format!("start {program}"))?;
    ensure!(status.success(), "failed ({status}): {command:?}");
    Ok(())
}

/// Hands out options of the form `--name value`; `take` says whether it knows the name.
pub(crate) fn each_option(
    options: &[String],
    known: &str,
    mut take: impl FnMut(&str, &str) -> Result<bool>,
) -> Result<()> {
    for pair in options.chunks(2) {
        let [name, value] = pair else {
            bail!("{} lacks its value", pair[0]);
        };
        ensure!(take(name, value)?, "unknown option `{name}`: {known} are known");
    }
    Ok(())
}

/// How long to go on, by the option of this name, and which choices to repeat.
pub(crate) fn length_and_seed(
    options: &[String],
    length: &str,
    default: u64,
) -> Result<(u64, Option<u64>)> {
    let mut wanted = (default, None);
    each_option(options, &format!("{length} and --seed"), |name, value| {
        match name {
            "--seed" => wanted.1 = Some(number(name, value)?),
            _ if name == length => wanted.0 = number(name, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(wanted)
}

/// The number that an option was given.
pub(crate) fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
    let number = value.parse().ok();
    number.with_context(|| format!("{name} {value}: not a number, or too large a one"))
}

/// A line of options as a shell would split it.
#[cfg(test)]
pub(crate) fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
