//! `ccl-stress wan run`: a network for as long as something runs in it.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Args;

use crate::wan::cli::options::NetworkOptions;
use crate::wan::cli::output::Voice;
use crate::wan::cli::session::{EndOptions, Role, Session};
use crate::wan::cli::{CONTROL_VARIABLE, private_socket};
use crate::wan::error::Result;
use crate::wan::packet::address;

/// Options of `ccl-stress wan run`.
#[derive(Args, Debug)]
#[command(after_help = EXIT_STATUS)]
pub struct Options {
    #[command(flatten)]
    network: NetworkOptions,
    #[command(flatten)]
    end: EndOptions,
    /// Where to listen for `wan exec` and `wan ctl`. Default: a path that is printed.
    #[arg(long, value_name = "PATH")]
    ctl: Option<PathBuf>,
    /// A shell command for one host, such as '0 ccl master --listen {ip}:48148'. It is started
    /// first, and ended when the others have ended; may be repeated.
    #[arg(long, value_name = "HOST COMMAND", value_parser = Service::parse)]
    with: Vec<Service>,
    /// A shell command for every host. In it, {host} is the host's number, {ip} its address, {ip0},
    /// {ip1} and so on those of others, {hosts} the number of hosts.
    #[arg(long, value_name = "COMMAND", conflicts_with = "command")]
    each: Option<String>,
    /// A command outside of the hosts. It can use `wan exec` and `wan ctl` without --ctl.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// A command that runs beside the others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    host: usize,
    command: String,
}

impl Service {
    fn parse(text: &str) -> Result<Self, String> {
        let (host, command) = text.split_once(' ').unwrap_or_default();
        match host.parse() {
            Ok(host) => Ok(Self {
                host,
                command: command.into(),
            }),
            Err(_) => Err("begin with the number of a host, such as '0 ccl master'".into()),
        }
    }
}

/// Runs a network.
pub fn run(options: &Options) -> Result<ExitCode> {
    let path = options.ctl.clone().unwrap_or_else(private_socket);
    let mut session = Session::start(&options.network, path.clone())?;
    let hosts = session.network.hosts();
    for service in &options.with {
        start_shell(&mut session, service.host, &service.command, Role::Service)?;
    }
    if let Some(command) = &options.each {
        for host in 0..hosts {
            start_shell(&mut session, host, command, Role::Worker)?;
        }
    }
    if let Some((program, arguments)) = options.command.split_first() {
        let mut command = Command::new(program);
        command.args(arguments).env(CONTROL_VARIABLE, &path);
        session.start_outside(command, program)?;
    } else if options.each.is_none() {
        let (first, last) = (address(0), address(hosts - 1));
        eprintln!("ccl-stress: hosts {first} to {last}; Ctrl-C ends the network");
        eprintln!("ccl-stress: export {CONTROL_VARIABLE}={}", path.display());
    }
    let outcome = session.wait();
    session.end(outcome, &options.end)
}

fn start_shell(session: &mut Session, host: usize, template: &str, role: Role) -> Result<()> {
    let mut command = session.command(host, "/bin/sh")?;
    command.args(["-c", &fill_in(template, host, session.network.hosts())]);
    session.start_in(host, command, role, Voice::Named)
}

/// Replaces `{host}`, `{hosts}`, `{ip}` and `{ipN}`.
fn fill_in(template: &str, host: usize, hosts: usize) -> String {
    let mut text = template
        .replace("{host}", &host.to_string())
        .replace("{hosts}", &hosts.to_string())
        .replace("{ip}", &address(host).to_string());
    for other in 0..hosts {
        let name = format!("{{ip{other}}}");
        text = text.replace(&name, &address(other).to_string());
    }
    text
}

const EXIT_STATUS: &str = "\
Without a command the network runs until Ctrl-C. The exit status is 1 if a command failed, and 3 if
the emulator was late too often, so that what was measured is void.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_names_its_host() {
        let service = Service::parse("2 ccl master --listen {ip}:1").unwrap();
        assert_eq!(service.host, 2);
        assert_eq!(service.command, "ccl master --listen {ip}:1");
        assert!(Service::parse("ccl master").is_err());
        assert!(Service::parse("2").is_err());
    }

    #[test]
    fn words_in_braces_are_filled_in() {
        let text = fill_in("{host}/{hosts} {ip} {ip0} {ip10} ${x}", 1, 11);
        assert_eq!(text, "1/11 10.77.0.2 10.77.0.1 10.77.0.11 ${x}");
    }
}
