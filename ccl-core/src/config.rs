//! The settings of a peer and of a master: plain structs with defaults, and `validate`.

mod roster;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::ids::{GroupId, UnitId};
use crate::limits;
use crate::paths::Paths;
use crate::timers::Timers;

pub use roster::Roster;

/// Settings of a master.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// Address to listen on. Default `127.0.0.1:48148`; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Name of the run; a peer of another run is refused. Default `default`.
    pub run: String,
    /// File of the sealed history. `None` keeps it in memory: a restarted master then needs a
    /// majority of each view. Default `None`.
    pub journal: Option<PathBuf>,
    /// Accept a journal without its marker, because the operator knows that it was moved and is the
    /// newest. An older copy may contradict what members already know. Default false.
    pub trust_journal: bool,
    /// Whether views and decisions reach the disk before they are sent to peers. Default true.
    pub fsync: bool,
    /// Found a run at once, without waiting for members of an earlier one. An error if the journal
    /// holds a run. Default false. A master without history whose port is 0 founds at once anyway,
    /// since no peer can know its port.
    pub new_run: bool,
    /// Rebuild from the members that are back after `rebuild_window`, even without a journal or a
    /// majority: the operator asserts that no other members are still running. Default false.
    pub force_rebuild: bool,
    /// Do not wait for members of an earlier run or view: the operator asserts that none is alive.
    /// One that is may go on for `peer_timeout` and `detach_timeout` beside its replacements; then
    /// its session ends as unknown. Default false.
    pub members_gone: bool,
    /// Timeouts, sent to each newcomer.
    pub timers: Timers,
    /// Rate and latency of the paths between members, and the memory that fits them.
    pub paths: Paths,
}

impl Default for MasterConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], limits::MASTER_PORT_DEFAULT)),
            run: "default".into(),
            journal: None,
            trust_journal: false,
            fsync: true,
            new_run: false,
            force_rebuild: false,
            members_gone: false,
            timers: Timers::default(),
            paths: Paths::default(),
        }
    }
}

impl MasterConfig {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the field and its range.
    pub fn validate(&self) -> Result<(), Error> {
        self.timers.validate().map_err(Error::invalid)?;
        self.paths.validate().map_err(Error::invalid)?;
        check_run(&self.run)
    }
}

/// Settings of a peer.
#[derive(Clone, Debug)]
pub struct CommunicatorConfig {
    /// The master's `host:port`; a host name is resolved at each attempt.
    pub master: String,
    /// Name of the run. Default `default`.
    pub run: String,
    /// Name of this peer in errors, logs and events, 1 to 64 bytes. `None`: host name and process
    /// id. Default `None`.
    pub name: Option<String>,
    /// Peer group. Default 0.
    pub group: GroupId,
    /// Failure unit: peers that join, leave and fail together. `None`: this peer alone. Default
    /// `None`.
    pub unit: Option<UnitId>,
    /// Number of peers in the unit, over all its groups, 1 to 1024. They are admitted together, to
    /// each group at the safe point of the same number. Peers with another `unit_size`, and surplus
    /// peers, are refused. `None`: peers of the unit do not wait for each other. Default `None`.
    pub unit_size: Option<u32>,
    /// The fixed members of the group, which is then closed: it forms once, with exactly these
    /// members in this order, and nobody joins it later. `group` must be an id that no group has
    /// had. Not with `unit_size`, nor with another `initial_world_size` than the number of members.
    /// `None`: the group is open. Default `None`.
    pub roster: Option<Roster>,
    /// Address to listen on for other peers; port 0 lets the system choose. `None`: all addresses,
    /// with the port of `advertise`; only loopback if `master` is a loopback address or
    /// `localhost`. Default `None`.
    pub listen: Option<SocketAddr>,
    /// `host:port` to advertise instead of this host's addresses, for peers behind a port mapping.
    /// Port 0 means the listening port. It is enough if one end of a link can reach the other.
    /// Default `None`.
    pub advertise: Option<String>,
    /// Data connections of each link that this peer dials, 1 to 32. `None`: 1 to a peer on the same
    /// host, where more only cost CPU time; to any other 4 at first, and then 2 to 16 as rate and
    /// round trip need. Default `None`.
    pub lanes: Option<u16>,
    /// Smallest world size that operations run with; below it they return `TooFewPeers`. Default 1.
    pub min_world_size: u32,
    /// Number of peers that the first view of a group waits for, at least `min_world_size`; if
    /// peers differ, the largest counts. `None`: `min_world_size`. Default `None`.
    pub initial_world_size: Option<u32>,
    /// How long `connect` may take. It includes the time without a master, and the time that a
    /// restarted master waits for the members of a view if none is left (65 s). Default 90 s.
    pub connect_timeout: Duration,
    /// Deadline of calls without one of their own. `None`: no deadline. Default 10 min.
    pub operation_timeout: Option<Duration>,
    /// Whether data segments carry a CRC-32. Default true.
    pub checksum: bool,
    /// Scratch memory for received contributions, in bytes, 16 MiB to 1 GiB; only what is used
    /// takes memory. Default 32 MiB.
    pub scratch_bytes: usize,
    /// Limit on the shared-state bytes per second that this peer sends to others. `None`: no limit.
    /// Default `None`.
    pub state_bytes_per_second: Option<u64>,
    /// Threads that move bytes, 1 to 256. Default: half the cores, at least 1, at most 4.
    pub io_threads: Option<usize>,
    /// TCP congestion control of the lanes, such as `cubic` or `bbr`, or `keep` for the system's
    /// choice. `None` and `auto`: if permitted, `cubic` between peers on one host and over round
    /// trips from 3 ms, there `bbr` where it helps; else the system's choice. Default `None`.
    pub congestion_control: Option<String>,
    /// Limit on the bytes per second that each lane sends (`SO_MAX_PACING_RATE`). `None`: as
    /// measured. Default `None`.
    pub pacing_bytes_per_second: Option<u64>,
}

impl Default for CommunicatorConfig {
    fn default() -> Self {
        Self {
            master: format!("127.0.0.1:{}", limits::MASTER_PORT_DEFAULT),
            run: "default".into(),
            name: None,
            group: GroupId(0),
            unit: None,
            unit_size: None,
            roster: None,
            listen: None,
            advertise: None,
            lanes: None,
            min_world_size: 1,
            initial_world_size: None,
            connect_timeout: Duration::from_secs(90),
            operation_timeout: Some(Duration::from_secs(600)),
            checksum: true,
            scratch_bytes: limits::SCRATCH_BYTES_DEFAULT,
            state_bytes_per_second: None,
            io_threads: None,
            congestion_control: None,
            pacing_bytes_per_second: None,
        }
    }
}

impl CommunicatorConfig {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the field and its range.
    pub fn validate(&self) -> Result<(), Error> {
        if self
            .lanes
            .is_some_and(|lanes| lanes == 0 || lanes > limits::LANES_MAX)
        {
            return Err(Error::invalid(format!(
                "lanes must be 1 to {}",
                limits::LANES_MAX
            )));
        }
        if let Some(roster) = &self.roster {
            self.check_roster(roster)?;
        }
        if self.min_world_size == 0 || self.min_world_size as usize > limits::WORLD_SIZE_MAX {
            return Err(Error::invalid(format!(
                "min_world_size must be 1 to {}",
                limits::WORLD_SIZE_MAX
            )));
        }
        let initial = self.initial_world_size.unwrap_or(self.min_world_size);
        if initial < self.min_world_size || initial as usize > limits::WORLD_SIZE_MAX {
            return Err(Error::invalid(format!(
                "initial_world_size must be min_world_size to {}",
                limits::WORLD_SIZE_MAX
            )));
        }
        if let Some(size) = self.unit_size
            && (size == 0 || size as usize > limits::PEERS_MAX || self.unit.is_none())
        {
            return Err(Error::invalid(format!(
                "unit_size must be 1 to {}, and needs a unit",
                limits::PEERS_MAX
            )));
        }
        if self.state_bytes_per_second == Some(0) {
            return Err(Error::invalid("state_bytes_per_second must be at least 1"));
        }
        check_run(&self.run)?;
        check_name(self.name.as_deref())?;
        check_master(&self.master)?;
        let scratch_bytes = limits::SCRATCH_BYTES_MIN..=limits::SCRATCH_BYTES_MAX;
        if !scratch_bytes.contains(&self.scratch_bytes) {
            return Err(Error::invalid("scratch_bytes must be 16 MiB to 1 GiB"));
        }
        let io_threads = 1..=limits::IO_THREADS_MAX;
        if self
            .io_threads
            .is_some_and(|threads| !io_threads.contains(&threads))
        {
            return Err(Error::invalid(format!(
                "io_threads must be 1 to {}",
                limits::IO_THREADS_MAX
            )));
        }
        Ok(())
    }

    fn check_roster(&self, roster: &Roster) -> Result<(), Error> {
        roster.validate()?;
        let size = roster.members.len() as u64;
        if self.unit_size.is_some() {
            return Err(Error::invalid("members cannot be combined with unit_size"));
        }
        if self
            .initial_world_size
            .is_some_and(|initial| u64::from(initial) != size)
        {
            return Err(Error::invalid(format!(
                "initial_world_size of a closed group is its number of members, {size}"
            )));
        }
        if u64::from(self.min_world_size) > size {
            return Err(Error::invalid(format!(
                "min_world_size must be 1 to the number of members, {size}"
            )));
        }
        Ok(())
    }

    /// How many peers the first view of its group waits for.
    #[must_use]
    pub fn first_world_size(&self) -> u32 {
        let listed = self
            .roster
            .as_ref()
            .map(|roster| roster.members.len() as u32);
        let initial = self.initial_world_size.unwrap_or(self.min_world_size);
        listed.unwrap_or(initial)
    }
}

fn check_run(run: &str) -> Result<(), Error> {
    if run.len() > limits::TEXT_BYTES_MAX {
        return Err(Error::invalid("the run name is longer than 512 bytes"));
    }
    Ok(())
}

fn check_name(name: Option<&str>) -> Result<(), Error> {
    let lengths = 1..=limits::NAME_BYTES_MAX;
    match name {
        Some(name) if !lengths.contains(&name.len()) || name.contains(char::is_control) => {
            Err(Error::invalid(format!(
                "name must be 1 to {} bytes without control characters",
                limits::NAME_BYTES_MAX
            )))
        }
        _ => Ok(()),
    }
}

/// Fails at once, rather than after a `connect_timeout` of retries.
fn check_master(master: &str) -> Result<(), Error> {
    let port = limits::MASTER_PORT_DEFAULT;
    let wrong = |what: &str| {
        let words = format!("master {master:?} is not a host:port: {what}");
        Err(Error::invalid(words))
    };
    if let Some((scheme, rest)) = master.split_once("://") {
        return wrong(&format!("leave out \"{scheme}://\", as in {rest}"));
    }
    if master.contains(|c: char| c.is_whitespace() || "/@?#".contains(c)) {
        return wrong("write a host name or an address, a colon and a port, and nothing else");
    }
    if master.parse::<Ipv6Addr>().is_ok() {
        return wrong(&format!(
            "write an IPv6 address in brackets, as in [{master}]:{port}"
        ));
    }
    match master.rsplit_once(':') {
        None if master.is_empty() => wrong("it is empty"),
        None => wrong(&format!("it has no port; write {master}:{port}")),
        Some(("", _)) => wrong("it has no host"),
        Some((host, _)) if host.contains(':') && !host.starts_with('[') => {
            wrong("write an IPv6 address in brackets, as in [::1]:48148")
        }
        Some((_, port)) => match port.parse::<u16>() {
            Ok(1..) => Ok(()),
            _ => wrong("its port is not a number from 1 to 65535"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_is_a_host_and_a_port() {
        let check = |master: &str| {
            let config = CommunicatorConfig {
                master: master.into(),
                ..CommunicatorConfig::default()
            };
            config.validate()
        };
        for good in ["127.0.0.1:48148", "[::1]:1", "node-7.example:65535"] {
            check(good).unwrap();
        }
        for wrong in [
            "",
            ":",
            ":5",
            "host",
            "127.0.0.1",
            "host:",
            "host:0",
            "host:65536",
            "h:x",
        ] {
            let words = check(wrong).unwrap_err().to_string();
            assert!(
                words.contains("master") && words.contains("host:port"),
                "{words}"
            );
        }
    }
}
