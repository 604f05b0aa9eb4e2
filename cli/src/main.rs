//! `triad`: the one binary. It runs nodes (`server`, `dev`) and talks to them (`put`, `get`, `status`, …).
//!
//! Everything here is glue: what a node does is in `triad-server`, how it is asked in `triad-client`. stdout is data,
//! stderr is talk; with `-o json` stdout carries one object and an error is one line on stderr. Exit codes: [`exit`].

mod args;
mod commands;
mod exit;
mod output;

use std::process::ExitCode;

use clap::Parser;

use args::Cli;
use exit::Exit;
use output::{Console, Format};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let console = Console::new(cli.common.output);
    match commands::run(cli, console) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            console.failure(&failure);
            failure.exit.into()
        }
    }
}

/// Help and version are answers; anything else the parser says is wrong usage, told as JSON if that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return Exit::Ok.into();
    }
    if wants_json(std::env::args()) {
        let text = error.to_string();
        let message = text.strip_prefix("error: ").unwrap_or(&text).trim();
        Console::new(Format::Json).failure(&exit::Failure::usage(message));
    } else {
        let _ = error.print();
    }
    Exit::Usage.into()
}

/// Whether the arguments, which could not be parsed, ask for JSON all the same.
fn wants_json(arguments: impl Iterator<Item = String>) -> bool {
    let arguments: Vec<String> = arguments.collect();
    let pair = |pair: &[String]| matches!(pair[0].as_str(), "-o" | "--output") && pair[1] == "json";
    let single = |one: &String| ["-ojson", "-o=json", "--output=json"].contains(&one.as_str());
    arguments.windows(2).any(pair) || arguments.iter().any(single)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_for_json_is_heard_even_in_wrong_arguments() {
        let asks = |line: &str| wants_json(line.split(' ').map(str::to_owned));
        assert!(
            asks("triad put -o json") && asks("triad --output=json put") && asks("triad -ojson")
        );
        assert!(!asks("triad put -o text json") && !asks("triad put"));
    }
}
