//! The `ccl` command: a run's master, benchmarks in the style of nccl-tests, and a demonstration.
//!
//! It contains no protocol logic: everything goes through the public API of `ccl-core`. A library,
//! so that the Python package brings the same command without a second binary.

mod bench;
mod child;
mod demo;
mod failure;
mod master;
mod measure;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Fault-tolerant collective communication for training over links that fail.
#[derive(Debug, Parser)]
#[command(name = "ccl", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the master of a run: it decides who is a member, in what order, and which results count.
    Master(master::Arguments),
    /// Measure collectives, and plain sockets moving the same bytes for comparison.
    Bench(bench::Arguments),
    /// Train a small network on real data with several peers, one of which dies and one hangs.
    Demo(demo::Arguments),
    #[command(hide = true)]
    BenchPeer,
    #[command(hide = true)]
    FloorPeer,
    #[command(hide = true)]
    StatePeer,
    #[command(hide = true)]
    DemoPeer,
}

/// Runs the command with these arguments, the program's name not among them; its exit status.
///
/// `program` and what follows it start a copy of this program: the demonstration and the
/// benchmarks consist of several processes. Some of those end by `std::process::exit`.
pub fn run(program: Vec<OsString>, arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let name = std::iter::once(OsString::from("ccl"));
    match Cli::try_parse_from(name.chain(arguments)) {
        Ok(cli) => {
            child::set_program(program);
            u8::from(obey(cli) != ExitCode::SUCCESS)
        }
        Err(error) => {
            // Nobody is left to tell if the terminal is gone.
            let _ = error.print();
            u8::try_from(error.exit_code()).unwrap_or(1)
        }
    }
}

fn obey(cli: Cli) -> ExitCode {
    start_log(match &cli.command {
        Command::Master(arguments) => arguments.log_level(),
        // What goes wrong there is planned, and told by the display.
        Command::DemoPeer => "error",
        _ => "warn",
    });
    let result = match cli.command {
        Command::Master(arguments) => master::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::BenchPeer => bench::peer::run(),
        Command::FloorPeer => bench::floor::peer::run(),
        Command::StatePeer => bench::state::peer::run(),
        Command::DemoPeer => demo::peer::run(),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("ccl: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Log lines go to standard error; `CCL_LOG` filters them in the syntax of `tracing`.
fn start_log(default: &str) {
    let filter = EnvFilter::try_from_env("CCL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    if let Err(error) = log {
        eprintln!("ccl: log lines are off: {error}");
    }
}
