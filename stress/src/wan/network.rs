//! An emulated network: hosts, the pump between them, and what they are called from outside.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns};

use crate::wan::command::Command;
use crate::wan::control::{Place, Reply, Server};
use crate::wan::error::{Context, Error, Result};
use crate::wan::host::{Host, Sysctl};
use crate::wan::packet::{HOSTS_MAX, address, address_v6};
use crate::wan::pump::Pump;
use crate::wan::router::Router;
use crate::wan::stats::Stats;
use crate::wan::sys;
use crate::wan::warden::Warden;

/// What a network is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of hosts, 1 to 250. Default: 2.
    pub hosts: usize,
    /// Commands of the control language, carried out before the first packet. Default: none, so
    /// everything arrives at once.
    pub commands: Vec<String>,
    /// Settings of each host's network. Default: `net.ipv4.tcp_min_tso_segs=32`, which keeps
    /// packets large when many connections share a link: the emulator's limit is packets, not
    /// bytes.
    pub sysctls: Vec<Sysctl>,
    /// Whether the emulator asks for a real-time priority. Default: yes. On a machine that does
    /// anything else, delays are not exact without.
    pub is_real_time: bool,
    /// What decides which segments are lost, and how long jitter is. Default: 1.
    pub seed: u64,
    /// Where to listen for commands of other processes. Default: nowhere.
    pub control: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts: 2,
            commands: Vec::new(),
            sysctls: vec![Sysctl {
                name: "net.ipv4.tcp_min_tso_segs".into(),
                value: "32".into(),
            }],
            is_real_time: true,
            seed: 1,
            control: None,
        }
    }
}

/// A running network. Dropping it ends all processes in its hosts, and waits until they are gone.
///
/// If this process is killed the same happens, but nobody waits.
#[derive(Debug)]
pub struct Network {
    // Fields are dropped in this order.
    _server: Option<Server>,
    _warden: Warden,
    shared: Arc<Shared>,
    namespaces: Vec<File>,
    notes: Vec<String>,
}

/// What the control socket needs too.
#[derive(Debug)]
struct Shared {
    pump: Pump,
    places: Vec<Place>,
}

impl Network {
    /// Creates the hosts and starts to move packets.
    pub fn start(config: &Config) -> Result<Self> {
        if !(1..=HOSTS_MAX).contains(&config.hosts) {
            let text = format!("a network has 1 to {HOSTS_MAX} hosts, not {}", config.hosts);
            return Err(Error::Command(text));
        }
        let mut router = Router::new(config.hosts, config.seed);
        for line in &config.commands {
            let command: Command = line.parse().map_err(Error::Command)?;
            router.apply(&command).map_err(Error::Command)?;
        }
        let mut devices = Vec::new();
        let mut namespaces = Vec::new();
        let mut notes = Vec::new();
        for index in 0..config.hosts {
            let host = Host::create(index, &config.sysctls)?;
            devices.push(host.device);
            namespaces.push(host.namespace);
            notes.extend(host.notes);
        }
        let warden = Warden::start(namespaces.iter())?;
        let pump = Pump::start(router, devices, config.is_real_time)?;
        notes.extend(pump.note.clone());
        notes.dedup();
        let places = namespaces.iter().enumerate();
        let shared = Arc::new(Shared {
            pump,
            places: places.map(|(host, file)| place(host, file)).collect(),
        });
        let server = match &config.control {
            Some(path) => {
                let shared = Arc::downgrade(&shared);
                let answer = move |line: &str| answer(&shared, line);
                Some(Server::start(path, Arc::new(answer))?)
            }
            None => None,
        };
        Ok(Self {
            _server: server,
            _warden: warden,
            shared,
            namespaces,
            notes,
        })
    }

    /// What the system could not do, as sentences.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Number of hosts.
    pub const fn hosts(&self) -> usize {
        self.namespaces.len()
    }

    /// Address of a host.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        assert!(host < self.hosts(), "there is no host {host}");
        address(host)
    }

    /// IPv6 address of a host.
    pub fn address_v6(&self, host: usize) -> Ipv6Addr {
        assert!(host < self.hosts(), "there is no host {host}");
        address_v6(host)
    }

    /// Carries out one line of the control language.
    pub fn control(&self, line: &str) -> Result<()> {
        let command = line.parse().map_err(Error::Command)?;
        self.shared.pump.ask(command).map(drop)
    }

    /// What has been counted since the start or the last `reset`.
    pub fn stats(&self) -> Result<Stats> {
        self.shared.pump.ask(Command::Stats)
    }

    /// A command that will run in a host. The caller starts it.
    pub fn command(&self, host: usize, program: impl AsRef<OsStr>) -> Result<process::Command> {
        let mut command = process::Command::new(program);
        sys::start_in(&mut command, self.namespace(host)?.into());
        Ok(command)
    }

    /// Runs a function on a thread that is in a host: the sockets it opens are the host's.
    pub fn spawn<T: Send + 'static>(
        &self,
        host: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let namespace = self.namespace(host)?;
        Ok(thread::spawn(move || {
            let entered = setns(&namespace, CloneFlags::CLONE_NEWNET);
            entered.expect("who created a namespace may enter it");
            work()
        }))
    }

    fn namespace(&self, host: usize) -> Result<File> {
        assert!(host < self.hosts(), "there is no host {host}");
        let namespace = self.namespaces[host].try_clone();
        namespace.context("a network namespace")
    }
}

fn place(host: usize, namespace: &File) -> Place {
    let process = process::id();
    let number = namespace.as_raw_fd();
    let path = |rest: &str| PathBuf::from(format!("/proc/{process}/{rest}"));
    Place {
        host,
        address: address(host),
        namespace: path(&format!("fd/{number}")),
        user_namespace: path("ns/user"),
    }
}

/// Answers a line that came over the control socket.
fn answer(shared: &Weak<Shared>, line: &str) -> Reply {
    let Some(shared) = shared.upgrade() else {
        return Reply::Refused(Error::Ended.to_string());
    };
    let command: Command = match line.parse() {
        Ok(command) => command,
        Err(words) => return Reply::Refused(words),
    };
    if command == Command::Hosts {
        return Reply::Hosts(shared.places.clone());
    }
    let is_question = command == Command::Stats;
    match shared.pump.ask(command) {
        Ok(stats) if is_question => Reply::Stats(stats),
        Ok(_) => Reply::Done,
        Err(error) => Reply::Refused(error.to_string()),
    }
}
