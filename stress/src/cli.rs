//! The `ccl-stress` command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::wan;

/// Puts ccl under stress.
#[derive(Debug, Parser)]
#[command(name = "ccl-stress", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Emulate a wide-area network on this machine, and run commands in its hosts.
    Wan(wan::cli::Arguments),
}

/// Runs the command with the arguments of this process; its exit status.
pub fn run() -> ExitCode {
    let Command::Wan(arguments) = Cli::parse().command;
    wan::cli::run(&arguments).unwrap_or_else(|error| {
        eprintln!("ccl-stress: {error}");
        ExitCode::FAILURE
    })
}
