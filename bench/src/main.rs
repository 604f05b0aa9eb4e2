//! `triad-bench`: load on a cluster, and scenarios. Figures go to stdout, progress to stderr.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks")]
#![allow(clippy::cast_precision_loss, reason = "figures are rounded for people")]

mod args;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use triad_bench::overload;

use args::{Cli, Command, Format, LoadArgs, OverloadArgs};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("error: keys do not hold what was acknowledged, see above");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False when a key did not hold what was acknowledged.
fn run(cli: &Cli) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cli.threads.into())
        .enable_all()
        .build()
        .context("a runtime cannot be started")?;
    runtime.block_on(async {
        match &cli.command {
            Command::Load(args) => load(args, cli.output).await,
            Command::Overload(args) => overload(args, cli.output).await,
        }
    })
}

async fn load(args: &LoadArgs, output: Format) -> Result<bool> {
    let generator = args.shape().generator(&args.endpoints)?;
    if !args.no_fill {
        eprintln!("writing each key once");
        generator.fill().await?;
    }
    let run = async |length| match args.rate {
        Some(rate) => generator.open(rate, length).await,
        None => generator.closed(args.workers, length).await,
    };
    if !args.warm_up.is_zero() {
        run(args.warm_up).await?;
    }
    let phase = run(args.duration).await?;
    generator.drained().await?;
    let (checked, wrong) = generator.read_back().await?;
    match output {
        Format::Text => {
            print!("{}", text::load(&phase.report()));
            println!("{checked} keys read back, {} wrong", wrong.len());
            wrong.iter().for_each(|one| println!("    {one}"));
        }
        Format::Json => print_json(&phase.report())?,
    }
    Ok(wrong.is_empty())
}

async fn overload(args: &OverloadArgs, output: Format) -> Result<bool> {
    let programs =
        if args.programs.is_empty() { vec![neighbour()?] } else { args.programs.clone() };
    for program in &programs {
        ensure!(program.is_file(), "there is no program {}", program.display());
    }
    let plan = args.plan();
    let mut rounds = Vec::new();
    // In turns, so that what else happens on this machine meets all alike.
    for number in 1..=args.rounds.into() {
        for program in &programs {
            eprintln!("round {number} with {}", program.display());
            let round = overload::round(program, &plan).await?;
            if output == Format::Text {
                println!("{}", text::round(number, &round));
            }
            rounds.push(round);
        }
    }
    match output {
        Format::Text => print!("{}", text::medians(&rounds)),
        Format::Json => print_json(&rounds)?,
    }
    Ok(rounds.iter().all(|round| round.wrong.is_empty()))
}

/// The program `triad` that was built together with this one.
fn neighbour() -> Result<PathBuf> {
    let own = std::env::current_exe().context("a running program has a path")?;
    let program = own.with_file_name("triad");
    ensure!(
        program.is_file(),
        "there is no {}: build it (cargo build --release --bin triad) or name one by --bin",
        program.display()
    );
    Ok(program)
}

fn print_json<T: Serialize>(value: &T) -> Result<()> {
    println!("{}", serde_json::to_string(value).context("figures as JSON")?);
    Ok(())
}
