//! `ccl-stress wan`: what each subcommand may be told.

mod calibrate;
mod control;
mod options;
mod output;
mod run;

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
}

/// Runs a subcommand.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.what {
        What::Run(options) => run::run(options),
        What::Exec(options) => control::exec(options),
        What::Ctl(options) => control::control(options),
        What::Calibrate(options) => calibrate::run(options),
    }
}

/// Names the control socket of the network for commands that it starts.
const CONTROL_VARIABLE: &str = "CCL_STRESS_WAN";
