//! A peer's process: its machine, the bytes of its operations, and the application on top.
//!
//! One host is one session. A process that comes back after its session ended is a new host, maybe
//! on the old address.

mod outputs;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ccl_core::View;
use ccl_core::ids::{GroupId, LinkKey, PeerId, RunId, UnitId, Vid};
use ccl_core::peer::{Input, Neighbour, Output, Peer, SessionEnd, Setup};
use ccl_core::time::Instant;
use ccl_core::wire::control::{MasterToPeer, PeerToMaster, Place};

use super::closed::Asker;
use super::cluster::{Event, HostEvent, HostId, World};
use super::hermit::Reach;
use super::hooks::Point;
use super::master_host::TIMEOUTS_MAX;
use super::messages::{PING, PONG, down_code, up_code};
use super::network::{Break, Connection};
use super::plane::{Content, Plane};
use super::site::Seat;
use super::sync::Transfers;
use super::workload::App;

/// Whether a process runs.
#[derive(Debug)]
pub enum Process {
    /// It runs.
    Running,
    /// It is paused; its inputs wait.
    Frozen(VecDeque<HostEvent>),
    /// It is gone.
    Dead {
        /// Whether its machine died too, so that nothing answers for it.
        power_loss: bool,
    },
}

/// One session of one process.
#[derive(Debug)]
pub struct Host {
    /// Its group.
    pub group: GroupId,
    /// Its place on its site, if any.
    pub seat: Option<Seat>,
    /// Its place in a closed group, if it asks for one.
    pub place: Option<Place>,
    /// Where it listens.
    pub address: SocketAddr,
    /// The key that a connection to its port must present.
    pub key: LinkKey,
    /// Whether the process runs.
    pub process: Process,
    /// Number of times it fell silent.
    pub freezes: u64,
    /// Its machine.
    pub peer: Peer,
    /// The bytes of its operations.
    pub plane: Plane,
    /// Its syncs of shared state.
    pub transfers: Transfers,
    /// The application.
    pub app: App,
    /// Its control connection.
    pub connection: Option<u64>,
    attempt: u64,
    wake: Option<Instant>,
    /// The links it wants.
    pub neighbours: BTreeMap<PeerId, Neighbour>,
    /// When the newest report of its transport on each link arrives.
    pub notices: BTreeMap<PeerId, Instant>,
    /// How many times slower than others its control connection is.
    pub slowness: u32,
    /// Whether its messages to the master are held back.
    pub up_blocked: bool,
    /// Whether messages of the master are held back.
    pub down_blocked: bool,
    /// The peers that have links with it.
    pub reach: Reach,
    /// Whether all its links are cut.
    pub isolated: bool,
    /// The run it was welcomed to, as an index into the world's runs.
    pub run: Option<usize>,
    /// When it last came out of a fault.
    pub trouble_ended: Option<Instant>,
    /// How its session ended.
    pub ended: Option<SessionEnd>,
    /// The view in force.
    pub view: Option<Arc<View>>,
    /// When its first view came.
    pub member_since: Option<Instant>,
    /// Safe points released when it was admitted.
    pub safe_released: u64,
    /// The last message that opened a connection, and the master it went to, for replays.
    pub last_opening: Option<(u32, PeerToMaster)>,
    /// Each hello, and the master it went to, for replays.
    pub hellos: Vec<(u32, PeerToMaster)>,
    /// Its next hello arrives late, long after another one.
    pub is_hello_late: bool,
    /// The newest frames that reached it, for replays.
    pub recent: Vec<(PeerId, Content)>,
    /// The message that it is handling.
    pub hearing: Option<u64>,
    /// The last known state of the machine, for invariants.
    pub told: super::checkers::Told,
}

impl Host {
    /// Whether the process and its session live.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.ended.is_none() && !matches!(self.process, Process::Dead { .. })
    }

    /// Whether the process runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.process, Process::Running)
    }

    /// Whether no fault touched it after a time.
    #[must_use]
    pub fn is_calm_since(&self, at: Instant) -> bool {
        self.trouble_ended.is_none_or(|trouble| trouble < at)
    }

    /// Name of the view in force.
    #[must_use]
    pub fn vid(&self) -> Vid {
        self.view.as_ref().map(|view| view.vid).unwrap_or_default()
    }
}

/// What a process asks of the master, besides its group.
#[derive(Debug, Default)]
struct Wish {
    unit: Option<UnitId>,
    unit_size: Option<u32>,
    place: Option<Place>,
    min_world: u32,
}

impl World {
    /// A process starts and wants to join a group.
    pub fn spawn(&mut self, group: GroupId, address: Option<SocketAddr>, app: App) -> HostId {
        self.spawn_at(group, address, (app, None))
    }

    /// A process starts, maybe at a place of a site, and wants to join a group.
    pub fn spawn_at(
        &mut self,
        group: GroupId,
        address: Option<SocketAddr>,
        (app, seat): (App, Option<Seat>),
    ) -> HostId {
        let unit = self.unit_of(seat, HostId(self.hosts.len()));
        let min_world = self.swarm.min_world(group);
        let wish = Wish {
            unit: unit.0,
            unit_size: unit.1,
            place: None,
            min_world,
        };
        self.start_host(group, address, (app, seat, wish))
    }

    /// A process starts and asks for a closed group.
    pub fn spawn_asker(&mut self, asker: Asker) -> HostId {
        let wish = Wish {
            place: asker.place,
            min_world: asker.place.map_or(1, |place| place.size),
            ..Wish::default()
        };
        self.start_host(asker.group, None, (App::scripted(), None, wish))
    }

    fn start_host(
        &mut self,
        group: GroupId,
        address: Option<SocketAddr>,
        (app, seat, wish): (App, Option<Seat>, Wish),
    ) -> HostId {
        let id = HostId(self.hosts.len());
        let fresh = [10, (group.0 + 1) as u8, (id.0 >> 8) as u8, id.0 as u8];
        let address = address.unwrap_or_else(|| SocketAddr::from((fresh, 7000)));
        let key = LinkKey(u128::from(self.network_rng.bits()));
        let setup = Setup {
            run: if app.stranger { "another" } else { "run" }.into(),
            group,
            unit: wish.unit,
            unit_size: wish.unit_size,
            place: wish.place,
            addresses: vec![address],
            key,
            min_world: wish.min_world,
            name: format!("host{}:{}", address.ip(), id.0),
            entropy: self.network_rng.bits(),
        };
        let host = Host {
            group,
            seat,
            place: wish.place,
            address,
            key,
            process: Process::Running,
            freezes: 0,
            peer: Peer::new(setup, self.now),
            plane: Plane::new(&self.swarm),
            transfers: Transfers::new(),
            app,
            connection: None,
            attempt: 0,
            wake: None,
            neighbours: BTreeMap::new(),
            notices: BTreeMap::new(),
            slowness: 1,
            up_blocked: false,
            down_blocked: false,
            reach: self.plan.hermits.pop().unwrap_or_default(),
            isolated: false,
            run: None,
            trouble_ended: None,
            ended: None,
            view: None,
            member_since: None,
            safe_released: 0,
            last_opening: None,
            hellos: Vec::new(),
            is_hello_late: self.plan.takes_late_hello(),
            recent: Vec::new(),
            hearing: None,
            told: super::checkers::Told::default(),
        };
        self.hosts.push(host);
        self.ports.insert(address, id);
        let now = self.now;
        self.trace.line(
            now,
            format_args!("{id:?} starts in group {group} at {address}"),
        );
        self.trace.fold(now, &[10, id.0 as u64]);
        self.host_pump(id);
        id
    }

    /// The process dies. Of 1,000 parts of its last messages, `words` arrive; `None` leaves it to
    /// chance.
    pub fn crash(&mut self, host: HostId, words: Option<u64>) {
        self.die(host, words, false);
    }

    /// The process dies, with its machine or without.
    pub fn die(&mut self, host: HostId, words: Option<u64>, power_loss: bool) {
        if matches!(self.hosts[host.0].process, Process::Dead { .. }) {
            return;
        }
        let now = self.now;
        self.trace
            .line(now, format_args!("{host:?} dies, power loss {power_loss}"));
        self.trace.fold(now, &[11, host.0 as u64]);
        self.stats.absorb_peer(&self.hosts[host.0].peer);
        self.hosts[host.0].process = Process::Dead { power_loss };
        self.hosts[host.0].freezes += 1;
        self.promise_eviction(host);
        self.hosts[host.0].app.die();
        if let Some(connection) = self.hosts[host.0].connection.take() {
            let words = words.unwrap_or_else(|| self.network_rng.between(0, 1000));
            let notices = self.network_rng.millis(0, 50);
            let how = Break {
                up_kept: words,
                down_kept: 0,
                host_notices: None,
                master_notices: (!power_loss).then_some(notices),
            };
            self.break_connection(connection, how);
            if power_loss {
                self.lose_unsent(connection);
            }
        }
        self.links_of_the_dead(host, power_loss);
    }

    /// The process pauses, alive: no socket closes.
    pub fn freeze(&mut self, host: HostId, length: Duration) {
        if !self.hosts[host.0].is_running() {
            return;
        }
        let now = self.now;
        self.trace
            .line(now, format_args!("{host:?} stands still for {length:?}"));
        self.hosts[host.0].process = Process::Frozen(VecDeque::new());
        self.hosts[host.0].freezes += 1;
        let freeze = self.hosts[host.0].freezes;
        self.schedule(length, Event::Thaw { host, freeze });
        self.links_of_the_frozen(host);
        self.promise_eviction(host);
    }

    /// It resumes, with all that arrived meanwhile.
    pub fn thaw(&mut self, host: HostId, freeze: u64) {
        if self.hosts[host.0].freezes != freeze {
            return;
        }
        let Process::Frozen(_) = self.hosts[host.0].process else {
            return;
        };
        let now = self.now;
        self.hosts[host.0].trouble_ended = Some(now);
        self.trace.line(now, format_args!("{host:?} goes on"));
        self.trace.fold(now, &[12, host.0 as u64]);
        let before = std::mem::replace(&mut self.hosts[host.0].process, Process::Running);
        let Process::Frozen(backlog) = before else {
            return;
        };
        if self.network_rng.chance(300) {
            self.host_event(host, HostEvent::Timer);
        }
        for event in backlog {
            self.host_event(host, event);
        }
        self.host_event(host, HostEvent::Timer);
        self.redial_links(host);
        self.promise_news(host);
    }

    /// An input reaches a process.
    pub fn host_event(&mut self, host: HostId, event: HostEvent) {
        match &mut self.hosts[host.0].process {
            Process::Running => {}
            Process::Frozen(backlog) => {
                if !matches!(event, HostEvent::Timer) {
                    backlog.push_back(event);
                }
                return;
            }
            Process::Dead { .. } => return,
        }
        match event {
            HostEvent::Message(connection, message) => {
                if self.hosts[host.0].connection == Some(connection) {
                    self.host_message(host, *message);
                }
            }
            HostEvent::Closed(connection) => {
                if self.hosts[host.0].connection == Some(connection) {
                    self.hosts[host.0].connection = None;
                    self.host_input(host, Input::ControlDown);
                }
            }
            HostEvent::Connected(attempt) => self.host_connected(host, attempt),
            HostEvent::Timer => self.host_timer(host),
            HostEvent::LinkUp(peer, generation) => self.host_link_up(host, peer, generation),
            HostEvent::LinkDown(peer, fault, gave_up) => {
                if self.hosts[host.0].neighbours.contains_key(&peer) {
                    let input = Input::LinkDown {
                        peer,
                        fault,
                        gave_up,
                    };
                    self.host_input(host, input);
                }
            }
            HostEvent::App(step) => self.app_step(host, step),
            HostEvent::Fetched(op) => self.sync_fetched(host, op),
            HostEvent::Frame(frame) => self.host_frame(host, frame),
        }
    }

    fn host_message(&mut self, host: HostId, message: MasterToPeer) {
        let (now, kind) = (self.now, down_code(&message));
        self.trace.fold(now, &[13, host.0 as u64, kind]);
        if kind != PONG {
            self.trace
                .line(now, format_args!("{host:?} <- {message:?}"));
        }
        self.learn_run(host, &message);
        let checked = self.checkers.host_hears(&self.hosts[host.0], &message);
        self.check(checked);
        if let MasterToPeer::Install(install) = &message
            && self.hosts[host.0].view.is_none()
        {
            self.hosts[host.0].safe_released = install.safe_released;
            self.hosts[host.0].app.records.begin(&install.streams);
        }
        let from = self.hosts[host.0].vid();
        self.hosts[host.0].told.hears(&message, from);
        if let MasterToPeer::Install(install) = &message {
            let new = install.given_back.iter().filter(|given| given.vid > from);
            self.stats.returns += new.count() as u64;
        }
        if let MasterToPeer::Install(install) = &message {
            self.note_numbers(host, install);
        }
        self.hosts[host.0].hearing = Some(kind);
        self.host_input(host, Input::Control(message));
        self.hosts[host.0].hearing = None;
        self.run_hooks(Point::AtHost, kind, Some(host));
    }

    fn learn_run(&mut self, host: HostId, message: &MasterToPeer) {
        let MasterToPeer::Welcome { run_id, .. } = message else {
            return;
        };
        let index = self.run_index(*run_id);
        self.hosts[host.0].run = Some(index);
        if index > 0 {
            let checked = self.check_new_run(host);
            self.check(checked);
        }
    }

    /// Which run this is, in the order in which they were founded.
    pub fn run_index(&mut self, run: RunId) -> usize {
        if let Some(index) = self.runs.iter().position(|known| *known == run) {
            return index;
        }
        self.runs.push(run);
        self.runs.len() - 1
    }

    fn host_connected(&mut self, host: HostId, attempt: u64) {
        let state = &self.hosts[host.0];
        if state.attempt != attempt || state.ended.is_some() {
            return;
        }
        if self.master.machine.is_none() || state.up_blocked || state.down_blocked {
            self.host_input(host, Input::ControlDown);
            return;
        }
        let connection = self.connections.len() as u64;
        let opened = Connection::new(Some(host), self.master.incarnation);
        self.connections.push(opened);
        self.hosts[host.0].connection = Some(connection);
        self.host_input(host, Input::ControlUp);
    }

    fn host_timer(&mut self, host: HostId) {
        let now = self.now;
        let state = &mut self.hosts[host.0];
        if state.wake.is_some_and(|wake| wake <= now) {
            state.wake = None;
        }
        let mut calls = 0;
        while state.peer.poll_timeout().is_some_and(|at| at <= now) {
            state.peer.handle(now, Input::Timeout);
            calls += 1;
            if calls == TIMEOUTS_MAX {
                self.fail(format!("the timer of {host:?} does not move on"));
                break;
            }
        }
        self.host_pump(host);
    }

    /// Hands an input to a peer's machine while its outputs are carried out.
    pub fn host_input_quietly(&mut self, host: HostId, input: Input) {
        let now = self.now;
        self.trace.line(now, format_args!("{host:?} : {input:?}"));
        self.hosts[host.0].peer.handle(now, input);
    }

    /// Hands an input to a peer's machine and carries out its outputs.
    pub fn host_input(&mut self, host: HostId, input: Input) {
        let now = self.now;
        if self.trace.keeps_lines() && !matches!(input, Input::Control(_) | Input::Timeout) {
            self.trace.line(now, format_args!("{host:?} : {input:?}"));
        }
        self.hosts[host.0].peer.handle(now, input);
        self.host_pump(host);
    }

    /// Carries out the outputs of a peer's machine and its exchange, until there are none.
    pub fn host_pump(&mut self, host: HostId) {
        let mut count = 0;
        while self.hosts[host.0].is_running() {
            count += 1;
            if count > 100_000 {
                self.fail(format!("the outputs of {host:?} do not end"));
                return;
            }
            if let Some(output) = self.hosts[host.0].peer.poll_output() {
                self.host_output(host, output);
                continue;
            }
            if !self.plane_step(host) {
                break;
            }
        }
        self.check_ended(host);
        self.host_arm(host);
    }
}
