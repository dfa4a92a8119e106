//! `ccl-stress wan run`: a network for as long as something runs in it.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::thread::JoinHandle;

use clap::Args;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::wan::cli::options::NetworkOptions;
use crate::wan::cli::{CONTROL_VARIABLE, output};
use crate::wan::error::{Context, Error, Result};
use crate::wan::network::Network;
use crate::wan::stats::Stats;
use crate::wan::sys;

/// Options of `ccl-stress wan run`.
///
/// Without a command the network runs until Ctrl-C. The exit status is 1 if a command failed, and 3
/// if the emulator was too late too often, so that what was measured is void.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    network: NetworkOptions,
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
    /// Exit status 0 even if the emulator was late.
    #[arg(long)]
    ignore_lateness: bool,
    /// Print what was counted as JSON, on standard output.
    #[arg(long)]
    json: bool,
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
    let path = options.ctl.clone().unwrap_or_else(|| {
        let name = format!("ccl-stress-wan-{}.sock", std::process::id());
        std::env::temp_dir().join(name)
    });
    let network = options.network.start(Some(path.clone()))?;
    // Before the first child: its end must not be missed.
    let signals = Signals::new([SIGCHLD, SIGINT, SIGTERM, SIGHUP]).context("signal handlers")?;
    let mut session = Session::new(network, signals);
    for service in &options.with {
        session.start_in(service.host, &service.command, Role::Service)?;
    }
    if let Some(command) = &options.each {
        for host in 0..session.network.hosts() {
            session.start_in(host, command, Role::Worker)?;
        }
    }
    match options.command.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).env(CONTROL_VARIABLE, &path);
            session.start_outside(command, program)?;
        }
        None if options.each.is_none() => {
            let last = session.network.hosts() - 1;
            let address = session.network.address(last);
            eprintln!("ccl-stress: hosts 10.77.0.1 to {address}; Ctrl-C ends the network");
            eprintln!("ccl-stress: export {CONTROL_VARIABLE}={}", path.display());
        }
        None => {}
    }
    let outcome = session.wait();
    let stats = session.end()?;
    if options.json {
        let text = serde_json::to_string(&stats).expect("counts are plain data");
        println!("{text}");
    } else if stats.lateness.packets > 0 {
        eprintln!("{stats}");
    }
    Ok(match outcome {
        Outcome::Failed => ExitCode::FAILURE,
        Outcome::Ended if stats.is_void() && !options.ignore_lateness => ExitCode::from(VOID),
        Outcome::Ended => ExitCode::SUCCESS,
    })
}

/// A network and the processes in it.
struct Session {
    network: Network,
    signals: Signals,
    running: Vec<Running>,
    output: Vec<JoinHandle<()>>,
}

struct Running {
    name: String,
    role: Role,
    child: Child,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The session lasts until all of these have ended.
    Worker,
    /// Is there for the workers, and must not end before them.
    Service,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// By itself or by a signal.
    Ended,
    /// A process failed; this has been reported.
    Failed,
}

impl Session {
    const fn new(network: Network, signals: Signals) -> Self {
        Self {
            network,
            signals,
            running: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Starts a shell command in a host.
    fn start_in(&mut self, host: usize, template: &str, role: Role) -> Result<()> {
        let hosts = self.network.hosts();
        if host >= hosts {
            return Err(Error::Command(format!("there is no host {host}")));
        }
        let mut command = self.network.command(host, "/bin/sh")?;
        command.args(["-c", &fill_in(template, host, &self.network)]);
        sys::end_with_parent(&mut command);
        let name = format!("host {host}");
        let started = output::capture(&mut command).spawn();
        let mut child = started.context(&name)?;
        self.output.extend(output::copy(&mut child, &name));
        self.running.push(Running { name, role, child });
        Ok(())
    }

    /// Starts a command outside of the hosts, which has the terminal.
    fn start_outside(&mut self, mut command: Command, name: &str) -> Result<()> {
        sys::end_with_parent(&mut command);
        let child = command.spawn().context(name)?;
        self.running.push(Running {
            name: name.to_owned(),
            role: Role::Worker,
            child,
        });
        Ok(())
    }

    /// Waits until the workers have ended, one has failed, or a signal comes.
    fn wait(&mut self) -> Outcome {
        let has_workers = self.has_workers();
        for signal in self.signals.forever() {
            if signal != SIGCHLD {
                return if has_workers {
                    Outcome::Failed
                } else {
                    Outcome::Ended
                };
            }
            let mut outcome = Outcome::Ended;
            self.running.retain_mut(|running| {
                let Some(status) = running.ended() else {
                    return true;
                };
                if running.role == Role::Service || !status.success() {
                    eprintln!("ccl-stress: {}: {}", running.name, words(status));
                    outcome = Outcome::Failed;
                }
                false
            });
            let is_over = has_workers && !self.running.iter().any(Running::is_worker);
            if is_over || outcome == Outcome::Failed {
                return outcome;
            }
        }
        Outcome::Failed
    }

    fn has_workers(&self) -> bool {
        self.running.iter().any(Running::is_worker)
    }

    /// Ends what is left; what was counted.
    fn end(self) -> Result<Stats> {
        let stats = self.network.stats();
        for mut running in self.running {
            // It may have ended meanwhile.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        // Ends what they have started, so that nobody holds their output open.
        drop(self.network);
        for thread in self.output {
            // It returns nothing.
            let _ = thread.join();
        }
        stats
    }
}

impl Running {
    fn is_worker(&self) -> bool {
        self.role == Role::Worker
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

/// Replaces `{host}`, `{hosts}`, `{ip}` and `{ipN}`.
fn fill_in(template: &str, host: usize, network: &Network) -> String {
    let mut text = template
        .replace("{host}", &host.to_string())
        .replace("{hosts}", &network.hosts().to_string())
        .replace("{ip}", &network.address(host).to_string());
    for other in 0..network.hosts() {
        let name = format!("{{ip{other}}}");
        text = text.replace(&name, &network.address(other).to_string());
    }
    text
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// Exit status when what was measured is void.
const VOID: u8 = 3;

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
}
