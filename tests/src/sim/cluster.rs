//! The simulated world: hosts, a master, the connections between them, and the one clock.
//!
//! Owns the queue of events and hands each to its part. `master_host` and `peer_host` carry out the
//! machines' outputs; `network`, `links` and `faults` are what may break.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

use ccl_core::ids::{GroupId, OpName, PeerId, RunId};
use ccl_core::time::Instant;
use ccl_core::wire::control::{LinkFault, MasterToPeer, PeerToMaster};

use super::checkers::Checkers;
use super::closed::ClosedGroups;
use super::faults::{Fault, FaultPlan};
use super::hermit::Founders;
use super::hooks::Hook;
use super::links::{Direction, Link, LinkKey};
use super::master_host::MasterHost;
use super::network::Connection;
use super::peer_host::Host;
use super::records::ToldRecords;
use super::report::Stats;
use super::rng::Rng;
use super::site::Site;
use super::swarm::Swarm;
use super::trace::Trace;
use super::workload::AppStep;

/// Events after which a run counts as endless: fifty times those of a long one.
const STEPS_MAX: u64 = 5_000_000;

/// One session of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub usize);

/// Something that happens at a point in time.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Event {
    ToMaster {
        connection: u64,
        index: u64,
        message: Box<PeerToMaster>,
    },
    ToHost {
        connection: u64,
        index: u64,
        message: Box<MasterToPeer>,
    },
    MasterClosed {
        connection: u64,
    },
    HostClosed {
        connection: u64,
    },
    MasterTimer,
    /// The journal has reached the disk.
    MasterOutbox {
        incarnation: u32,
    },
    MasterStart,
    MasterThaw {
        freeze: u64,
    },
    /// An attempt to connect to the master comes to an end.
    Connected {
        host: HostId,
        attempt: u64,
    },
    HostTimer {
        host: HostId,
    },
    Thaw {
        host: HostId,
        freeze: u64,
    },
    LinkDial {
        link: LinkKey,
    },
    LinkExpire {
        link: LinkKey,
        down: u64,
    },
    LinkUp {
        host: HostId,
        peer: PeerId,
        generation: u64,
    },
    LinkDown {
        host: HostId,
        peer: PeerId,
        fault: LinkFault,
        gave_up: bool,
    },
    LaneReady {
        link: LinkKey,
        direction: Direction,
        lane: usize,
    },
    App {
        host: HostId,
        step: AppStep,
    },
    /// A receiver of shared state may have all of it by now.
    Fetched {
        host: HostId,
        op: OpName,
    },
    Fault(Fault),
    Check(super::liveness::Promise),
}

/// An event with its place in the order of all.
#[derive(Debug)]
struct Scheduled {
    at: Instant,
    sequence: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// The simulated world.
#[derive(Debug)]
pub struct World {
    /// The only clock.
    pub now: Instant,
    queue: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
    steps: u64,
    /// Decides delays, apart from faults, so that drawing faults does not shift them.
    pub network_rng: Rng,
    /// Decides faults.
    pub fault_rng: Rng,
    /// The seed's choices.
    pub swarm: Swarm,
    /// The master's process.
    pub master: MasterHost,
    /// All sessions there ever were.
    pub hosts: Vec<Host>,
    /// Hosts with processes in several groups.
    pub sites: Vec<Site>,
    /// All control connections there ever were.
    pub connections: Vec<Connection>,
    /// Hosts by the address on which they listen.
    pub ports: BTreeMap<SocketAddr, HostId>,
    /// Links between hosts.
    pub links: BTreeMap<LinkKey, Link>,
    /// Faults to come.
    pub plan: FaultPlan,
    /// Newcomers that could found a group.
    pub founders: Founders,
    /// Groups whose members are fixed.
    pub closed: ClosedGroups,
    /// The checkers.
    pub checkers: Checkers,
    /// What callers were told of records.
    pub records: ToldRecords,
    /// The history.
    pub trace: Trace,
    /// The counts.
    pub stats: Stats,
    /// Scripted reactions to messages.
    pub hooks: Vec<Hook>,
    /// When a single link was last cut or let through again.
    pub newest_link_trouble: Instant,
    /// The first failure.
    pub failure: Option<String>,
    /// Runs that masters of this world have named, by the first host that heard of each.
    pub runs: Vec<RunId>,
}

impl World {
    /// An empty world at its beginning: a master about to start, and no hosts.
    #[must_use]
    pub fn new(swarm: Swarm, trace: Trace) -> Self {
        let mut rng = Rng::new(swarm.seed ^ 0x0005_eed0);
        let network_rng = rng.fork();
        let fault_rng = rng.fork();
        let plan = FaultPlan::default();
        let mut world = Self {
            now: Instant(1_000_000_000),
            queue: BinaryHeap::new(),
            sequence: 0,
            steps: 0,
            network_rng,
            fault_rng,
            master: MasterHost::new(rng.fork()),
            hosts: Vec::new(),
            sites: Vec::new(),
            connections: Vec::new(),
            ports: BTreeMap::new(),
            links: BTreeMap::new(),
            plan,
            founders: Founders::default(),
            closed: ClosedGroups::default(),
            checkers: Checkers::default(),
            records: ToldRecords::default(),
            trace,
            stats: Stats::default(),
            hooks: Vec::new(),
            newest_link_trouble: Instant::default(),
            failure: None,
            runs: Vec::new(),
            swarm,
        };
        world.schedule(Duration::ZERO, Event::MasterStart);
        world
    }

    /// Schedules an event after a while.
    pub fn schedule(&mut self, after: Duration, event: Event) {
        self.schedule_at(self.now + after, event);
    }

    /// Schedules an event at a time that is not past.
    pub fn schedule_at(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        let sequence = self.sequence;
        let at = at.max(self.now);
        self.queue.push(Reverse(Scheduled {
            at,
            sequence,
            event,
        }));
    }

    /// Notes a failure; the first one counts.
    pub fn fail(&mut self, what: String) {
        let now = self.now;
        self.trace.line(now, format_args!("FAILURE {what}"));
        self.failure.get_or_insert(what);
    }

    /// Fails unless a check passed.
    pub fn check(&mut self, result: Result<(), String>) {
        if let Err(what) = result {
            self.fail(what);
        }
    }

    /// Handles the next event. False if there is none, or after a failure.
    pub fn step(&mut self) -> bool {
        if self.failure.is_some() {
            return false;
        }
        let Some(Reverse(next)) = self.queue.pop() else {
            return false;
        };
        assert!(next.at >= self.now, "time moves forward only");
        self.now = next.at;
        self.steps += 1;
        if self.steps > STEPS_MAX {
            self.fail(format!("more than {STEPS_MAX} events"));
            return false;
        }
        self.dispatch(next.event);
        true
    }

    /// Time of the next event.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse(next)| next.at)
    }

    /// Handles all events that are due before a time, or until a failure.
    pub fn run_until(&mut self, end: Instant) {
        while self.next_at().is_some_and(|at| at <= end) {
            if !self.step() {
                return;
            }
        }
        self.now = self.now.max(end);
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::ToMaster {
                connection,
                index,
                message,
            } => self.master_message(connection, index, message),
            Event::MasterClosed { connection } => self.master_closed(connection),
            Event::MasterTimer => self.master_timer(),
            Event::MasterOutbox { incarnation } => self.master_outbox(incarnation),
            Event::MasterStart => self.master_start(),
            Event::MasterThaw { freeze } => self.master_thaw(freeze),
            Event::ToHost {
                connection,
                index,
                message,
            } => {
                if let Some(host) = self.arrives_down(connection, index) {
                    self.host_event(host, HostEvent::Message(connection, message));
                }
            }
            Event::HostClosed { connection } => {
                if let Some(host) = self.take_host_close(connection) {
                    self.host_event(host, HostEvent::Closed(connection));
                }
            }
            Event::Connected { host, attempt } => {
                self.host_event(host, HostEvent::Connected(attempt));
            }
            Event::HostTimer { host } => self.host_event(host, HostEvent::Timer),
            Event::Thaw { host, freeze } => self.thaw(host, freeze),
            Event::LinkDial { link } => self.link_dial(link),
            Event::LinkExpire { link, down } => self.link_expire(link, down),
            Event::LinkUp {
                host,
                peer,
                generation,
            } => self.host_event(host, HostEvent::LinkUp(peer, generation)),
            Event::LinkDown {
                host,
                peer,
                fault,
                gave_up,
            } => self.host_event(host, HostEvent::LinkDown(peer, fault, gave_up)),
            Event::LaneReady {
                link,
                direction,
                lane,
            } => self.lane_ready(link, direction, lane),
            Event::Fetched { host, op } => self.host_event(host, HostEvent::Fetched(op)),
            Event::App { host, step } => self.host_event(host, HostEvent::App(step)),
            Event::Fault(fault) => self.fault(fault),
            Event::Check(promise) => self.check_promise(promise),
        }
    }

    /// Hosts of a group whose process runs and whose session is not over.
    pub fn live_hosts(&self, group: GroupId) -> impl Iterator<Item = HostId> + '_ {
        self.hosts
            .iter()
            .enumerate()
            .filter(move |(_, host)| host.group == group && host.is_live())
            .map(|(index, _)| HostId(index))
    }

    /// Groups of this world.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + use<> {
        (0..self.swarm.worlds.len() as u64).map(GroupId)
    }
}

/// The inputs of a host's process, in the order in which it reads them.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum HostEvent {
    Message(u64, Box<MasterToPeer>),
    Closed(u64),
    Connected(u64),
    Timer,
    LinkUp(PeerId, u64),
    LinkDown(PeerId, LinkFault, bool),
    App(AppStep),
    Fetched(OpName),
    Frame(super::links::Frame),
}
