//! Judges or draws a history that a failing run has kept.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks")]

use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use triad_history::{History, Report, Rules, check, picture};

const USAGE: &str = "\
usage: triad-history check FILE [--grace MICROSECONDS]
       triad-history draw FILE [--grace MICROSECONDS] >PICTURE.html

FILE holds lines of JSON, as a failing run keeps them. `check` ends with 1 when a promise was broken.
--grace: for how long after its client gave up a write in doubt may still overwrite others; otherwise for ever
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (command, file, grace) = match words[..] {
        [command @ ("check" | "draw"), file] => (command, file, None),
        [command @ ("check" | "draw"), file, "--grace", grace] => (command, file, Some(grace)),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(file, grace) {
        Ok((history, report)) if command == "draw" => {
            print!("{}", picture::html(&history, &report));
            ExitCode::SUCCESS
        }
        Ok((_, report)) => tell(&report),
        Err(error) => {
            eprintln!("error: {file}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(file: &str, grace: Option<&str>) -> Result<(History, Report), Box<dyn Error>> {
    let history = History::read_lines(BufReader::new(File::open(file)?))?;
    let mut rules = Rules::default();
    if let Some(grace) = grace {
        rules.grace = grace.parse()?;
    }
    let report = check(&history, &rules)?;
    Ok((history, report))
}

fn tell(report: &Report) -> ExitCode {
    for violation in &report.violations {
        println!("{violation}");
    }
    println!(
        "{} keys, {} reads: {} violations, {} keys unread in the end, {} undecided",
        report.keys,
        report.reads,
        report.violations.len(),
        report.unread,
        report.undecided
    );
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
