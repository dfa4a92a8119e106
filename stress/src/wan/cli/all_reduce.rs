//! `ccl-stress wan all-reduce`: `ccl bench all-reduce` with a peer in each host.

use std::process::ExitCode;

use clap::Args;

use crate::wan::cli::bench::BenchOptions;
use crate::wan::cli::output::Voice;
use crate::wan::cli::private_socket;
use crate::wan::cli::session::{Role, Session};
use crate::wan::error::Result;
use crate::wan::packet::address;

/// Options of `ccl-stress wan all-reduce`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: BenchOptions,
    /// Options of `ccl bench all-reduce`, such as --sizes 64MiB.
    #[arg(last = true, value_name = "OPTIONS")]
    bench: Vec<String>,
}

/// Runs a master in host 0 and a peer in every host; prints what the peer in host 0 measured.
pub fn run(options: &Options) -> Result<ExitCode> {
    let path = options.common.ccl_command()?;
    let ccl = path.to_string_lossy();
    let mut session = Session::start(&options.common.network, private_socket())?;
    let master = format!("{}:{PORT}", address(0));
    let mut command = session.command(0, &ccl)?;
    command.args(["master", "--new-run", "--listen", &master]);
    command.env("CCL_LOG", "warn");
    session.start_in(0, command, Role::Service, Voice::Errors)?;
    let hosts = session.network.hosts();
    for host in 0..hosts {
        let mut command = session.command(host, &ccl)?;
        command.args(["bench", "all-reduce", "--local", "1"]);
        command.args(["--world", &hosts.to_string(), "--master", &master]);
        command.args(["--listen", &format!("{}:0", address(host))]);
        command.args(&options.bench);
        let voice = if host == 0 {
            Voice::Plain
        } else {
            Voice::Errors
        };
        session.start_in(host, command, Role::Worker, voice)?;
    }
    let outcome = session.wait();
    session.end(outcome, &options.common.end)
}

/// In a network of its own every port is free.
const PORT: u16 = 48148;
