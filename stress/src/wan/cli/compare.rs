//! `ccl-stress wan compare`: `ccl bench compare` with its processes in the hosts.

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

use clap::Args;

use crate::wan::cli::bench::BenchOptions;
use crate::wan::cli::session::Session;
use crate::wan::cli::{CONTROL_VARIABLE, private_socket};
use crate::wan::error::{Context, Error, Result};
use crate::wan::packet::address;

/// Options of `ccl-stress wan compare`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: BenchOptions,
    /// Options of `ccl bench compare`, such as --budget 5m.
    #[arg(last = true, value_name = "OPTIONS")]
    bench: Vec<String>,
}

/// Runs the comparison outside of the hosts, and tells it how to start processes in them.
pub fn run(options: &Options) -> Result<ExitCode> {
    let BenchOptions { network, end, .. } = &options.common;
    let ccl = options.common.ccl_command()?;
    let path = private_socket();
    let mut session = Session::start(network, path.clone())?;
    let program = env::current_exe().context("the path of this program")?;
    let mut command = Command::new(ccl);
    command.args(["bench", "compare", "--network", &network.name()]);
    command.args(["--hosts", &addresses(session.network.hosts())]);
    command.args(["--launch", &launcher(&program)?]);
    command.args(&options.bench);
    command.env(CONTROL_VARIABLE, &path);
    session.start_outside(command, "ccl bench compare")?;
    let outcome = session.wait();
    session.end(outcome, end)
}

/// What starts a process in a host, in the words of a shell.
fn launcher(program: &Path) -> Result<String> {
    let text = program
        .to_str()
        .and_then(|text| shlex::try_quote(text).ok());
    let program = text.ok_or_else(|| {
        let path = program.display();
        Error::Command(format!("the path of this program is no text: {path}"))
    })?;
    Ok(format!("{program} wan exec {{host}} --"))
}

fn addresses(hosts: usize) -> String {
    let each = (0..hosts).map(|host| address(host).to_string());
    each.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_spaces_is_one_word() {
        let words = shlex::split(&launcher(Path::new("/my tools/ccl-stress")).unwrap());
        let expected = ["/my tools/ccl-stress", "wan", "exec", "{host}", "--"];
        assert_eq!(words.unwrap(), expected);
    }

    #[test]
    fn every_host_is_named() {
        assert_eq!(addresses(3), "10.77.0.1,10.77.0.2,10.77.0.3");
    }
}
