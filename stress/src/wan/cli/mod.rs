//! The subcommands of `ccl-stress wan`, and their options.

mod all_reduce;
mod bench;
mod calibrate;
mod compare;
mod control;
mod options;
mod output;
mod run;
mod session;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::wan::error::Result;

/// Options of `ccl-stress wan`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Start a network, and commands in it; end it when they end, or at Ctrl-C.
    Run(run::Options),
    /// Run a command in a host of a running network.
    Exec(control::ExecOptions),
    /// Change a running network, or ask it something.
    Ctl(control::ControlOptions),
    /// Measure up to which rate this machine emulates exactly. Takes some 10 seconds.
    Calibrate(calibrate::Options),
    /// Measure an all-reduce of ccl with a peer in each host.
    AllReduce(all_reduce::Options),
    /// Compare ccl with gloo, Open MPI and plain sockets, with a process of each in each host.
    Compare(compare::Options),
}

/// Runs a subcommand.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.what {
        What::Run(options) => run::run(options),
        What::Exec(options) => control::exec(options),
        What::Ctl(options) => control::control(options),
        What::Calibrate(options) => calibrate::run(options),
        What::AllReduce(options) => all_reduce::run(options),
        What::Compare(options) => compare::run(options),
    }
}

/// A path for the control socket of this process's network.
fn private_socket() -> PathBuf {
    let name = format!("ccl-stress-wan-{}.sock", std::process::id());
    std::env::temp_dir().join(name)
}

/// Names the control socket of the network for commands that it starts.
const CONTROL_VARIABLE: &str = "CCL_STRESS_WAN";
