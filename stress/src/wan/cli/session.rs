//! A network and the processes in it, from the start of the first to the end of all.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::thread::JoinHandle;

use clap::Args;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::wan::cli::options::NetworkOptions;
use crate::wan::cli::output::{self, Voice};
use crate::wan::error::{Context, Error, Result};
use crate::wan::network::Network;
use crate::wan::stats::Stats;
use crate::wan::sys;

/// A network, and what runs in it.
pub struct Session {
    /// The network.
    pub network: Network,
    signals: Signals,
    running: Vec<Running>,
    output: Vec<JoinHandle<()>>,
}

struct Running {
    name: String,
    role: Role,
    child: Child,
}

/// What the end of a process means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The session lasts until all of these have ended.
    Worker,
    /// Is there for the workers, and must not end before them.
    Service,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By itself, or as a network without commands ends.
    Ended,
    /// A process failed, which has been reported, or a signal ended it too early.
    Failed,
}

/// What is said at the end.
#[derive(Args, Debug)]
pub struct EndOptions {
    /// Exit status 0 even if the emulator was late.
    #[arg(long)]
    ignore_lateness: bool,
    /// Print what was counted as JSON, on standard output.
    #[arg(long)]
    json: bool,
}

impl Session {
    /// Starts the network, with a control socket at `control`.
    pub fn start(options: &NetworkOptions, control: PathBuf) -> Result<Self> {
        let network = options.start(Some(control))?;
        // Before the first child: its end must not be missed.
        let signals = Signals::new([SIGCHLD, SIGINT, SIGTERM, SIGHUP]);
        Ok(Self {
            network,
            signals: signals.context("signal handlers")?,
            running: Vec::new(),
            output: Vec::new(),
        })
    }

    /// A command that will run in a host.
    pub fn command(&self, host: usize, program: &str) -> Result<Command> {
        if host >= self.network.hosts() {
            return Err(Error::Command(format!("there is no host {host}")));
        }
        self.network.command(host, program)
    }

    /// Starts a command that was made for a host.
    pub fn start_in(
        &mut self,
        host: usize,
        mut command: Command,
        role: Role,
        voice: Voice,
    ) -> Result<()> {
        sys::end_with_parent(&mut command);
        let name = format!("host {host}");
        let started = output::capture(&mut command).spawn();
        let mut child = started.context(&name)?;
        self.output.extend(output::copy(&mut child, &name, voice));
        self.running.push(Running { name, role, child });
        Ok(())
    }

    /// Starts a command outside of the hosts, which has the terminal.
    pub fn start_outside(&mut self, mut command: Command, name: &str) -> Result<()> {
        sys::end_with_parent(&mut command);
        let child = command.spawn().context(name)?;
        self.running.push(Running {
            name: name.to_owned(),
            role: Role::Worker,
            child,
        });
        Ok(())
    }

    /// Waits until the workers have ended, a process has failed, or a signal comes.
    pub fn wait(&mut self) -> Outcome {
        let had_workers = self.has_workers();
        while let Some(signal) = self.signals.forever().next() {
            if signal != SIGCHLD {
                return match had_workers {
                    true => Outcome::Failed,
                    false => Outcome::Ended,
                };
            }
            let outcome = self.bury();
            if outcome == Outcome::Failed || had_workers && !self.has_workers() {
                return outcome;
            }
        }
        Outcome::Failed
    }

    /// Forgets the processes that have ended; whether all did as they should.
    fn bury(&mut self) -> Outcome {
        let mut outcome = Outcome::Ended;
        self.running.retain_mut(|running| {
            let Ok(Some(status)) = running.child.try_wait() else {
                return true;
            };
            if running.role == Role::Service || !status.success() {
                eprintln!("ccl-stress: {} {}", running.name, words(status));
                outcome = Outcome::Failed;
            }
            false
        });
        outcome
    }

    fn has_workers(&self) -> bool {
        self.running.iter().any(|it| it.role == Role::Worker)
    }

    /// Ends what is left, and says what was counted.
    pub fn end(self, outcome: Outcome, options: &EndOptions) -> Result<ExitCode> {
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
        Ok(options.conclude(outcome, &stats?))
    }
}

impl EndOptions {
    fn conclude(&self, outcome: Outcome, stats: &Stats) -> ExitCode {
        if self.json {
            let text = serde_json::to_string(stats).expect("counts are plain data");
            println!("{text}");
        } else if stats.lateness.packets > 0 {
            eprintln!("{stats}");
        }
        ExitCode::from(self.status(outcome, stats))
    }

    const fn status(&self, outcome: Outcome, stats: &Stats) -> u8 {
        match outcome {
            Outcome::Failed => FAILED,
            Outcome::Ended if stats.is_void() && !self.ignore_lateness => VOID,
            Outcome::Ended => 0,
        }
    }
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// Exit status when a command failed.
const FAILED: u8 = 1;

/// Exit status when what was measured is void.
const VOID: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_void_measurement_is_no_success() {
        let strict = EndOptions {
            ignore_lateness: false,
            json: false,
        };
        let mut stats = Stats::default();
        stats.lateness.packets = 100;
        assert_eq!(strict.status(Outcome::Ended, &stats), 0);
        stats.lateness.too_late = 2;
        assert_eq!(strict.status(Outcome::Ended, &stats), VOID);
        assert_eq!(strict.status(Outcome::Failed, &stats), FAILED);
        let lenient = EndOptions {
            ignore_lateness: true,
            ..strict
        };
        assert_eq!(lenient.status(Outcome::Ended, &stats), 0);
    }
}
