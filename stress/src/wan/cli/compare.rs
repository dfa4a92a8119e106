//! `ccl-stress wan compare`: `ccl bench compare` with its processes in the hosts.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Args;

use crate::wan::cli::options::NetworkOptions;
use crate::wan::cli::session::{EndOptions, Session};
use crate::wan::cli::{CONTROL_VARIABLE, ccl_command, private_socket};
use crate::wan::error::{Context, Result};
use crate::wan::packet::address;

/// Options of `ccl-stress wan compare`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    network: NetworkOptions,
    #[command(flatten)]
    end: EndOptions,
    /// The `ccl` command. Default: the one beside this program.
    #[arg(long, value_name = "PATH")]
    ccl: Option<PathBuf>,
    /// Options of `ccl bench compare`, such as --budget 5m.
    #[arg(last = true, value_name = "OPTIONS")]
    bench: Vec<String>,
}

/// Runs the comparison outside of the hosts, and tells it how to start processes in them.
pub fn run(options: &Options) -> Result<ExitCode> {
    let ccl = ccl_command(options.ccl.as_ref())?;
    let path = private_socket();
    let mut session = Session::start(&options.network, path.clone())?;
    let program = env::current_exe().context("the path of this program")?;
    let mut command = Command::new(ccl);
    command.args(["bench", "compare", "--network", &options.network.name()]);
    command.args(["--hosts", &addresses(session.network.hosts())]);
    let launch = format!("{} wan exec {{host}} --", program.display());
    command.args(["--launch", &launch]).args(&options.bench);
    command.env(CONTROL_VARIABLE, &path);
    session.start_outside(command, "ccl bench compare")?;
    let outcome = session.wait();
    session.end(outcome, &options.end)
}

fn addresses(hosts: usize) -> String {
    let each = (0..hosts).map(|host| address(host).to_string());
    each.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_is_named() {
        assert_eq!(addresses(3), "10.77.0.1,10.77.0.2,10.77.0.3");
    }
}
