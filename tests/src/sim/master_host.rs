//! The master's process: its machine, its disk, and what it sends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use ccl_core::ids::{GroupId, PeerId, Vid};
use ccl_core::master::{ConnectionId, Input, Master, Output, Record, Setup};
use ccl_core::time::Instant;
use ccl_core::wire::control::{EvictReason, MasterToPeer, PeerToMaster};

use super::cluster::{Event, World};
use super::disk::{self, JournalDisk};
use super::messages::{down_code, up_code};
use super::network::Break;
use super::rng::Rng;
use super::swarm::{Disk, Swarm};

/// Times in a row that a machine may ask to be called again at once.
pub const TIMEOUTS_MAX: u32 = 50;

/// The master's process.
#[derive(Debug)]
pub struct MasterHost {
    /// The machine, unless the process is down.
    pub machine: Option<Master>,
    /// Number of starts.
    pub incarnation: u32,
    /// When it started last.
    pub started: Instant,
    /// Whether any started without the knowledge of the one before.
    pub lost_disk: bool,
    /// Groups whose newest view it took from its journal, which was whole.
    pub covered: BTreeSet<GroupId>,
    /// The newest view of each group in its journal, whole or not.
    pub found: BTreeMap<GroupId, (Vid, Vec<PeerId>)>,
    /// Whether a part of its lazily written journal was ever lost.
    pub lost_tail: bool,
    /// When it last resumed after a pause.
    pub thawed: Instant,
    /// Number of pauses.
    pub freezes: u64,
    /// Whether the next start may rebuild without a majority, by an operator's override.
    pub force: bool,
    /// Whether it is paused.
    frozen: bool,
    backlog: VecDeque<Backlog>,
    /// Its journal and the marker beside it.
    pub disk: JournalDisk,
    /// When the disk has written all that was asked for.
    disk_free: Instant,
    /// How long the next durable write takes, during which the process is paused.
    stall: Option<Duration>,
    outbox: VecDeque<(Instant, Output)>,
    wake: Option<Instant>,
    pub(super) rng: Rng,
}

#[derive(Debug)]
enum Backlog {
    Message(u64, Box<PeerToMaster>),
    Closed(u64),
}

impl MasterHost {
    /// A process that has not started.
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        Self {
            machine: None,
            incarnation: 0,
            started: Instant::default(),
            lost_disk: false,
            covered: BTreeSet::new(),
            found: BTreeMap::new(),
            lost_tail: false,
            thawed: Instant::default(),
            freezes: 0,
            force: false,
            frozen: false,
            backlog: VecDeque::new(),
            disk: JournalDisk::default(),
            disk_free: Instant::default(),
            stall: None,
            outbox: VecDeque::new(),
            wake: None,
            rng,
        }
    }

    /// Whether it runs and is not paused.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.machine.is_some() && !self.frozen
    }

    /// Records in its journal.
    #[must_use]
    pub fn journal(&self) -> Vec<Record> {
        self.disk.records()
    }

    fn setup(&mut self, swarm: &Swarm) -> Setup {
        Setup {
            run: "run".into(),
            timers: swarm.timers,
            paths: swarm.paths,
            tags_kept: swarm.tags_kept,
            new_run: swarm.new_run && self.incarnation == 1,
            force_rebuild: self.force,
            start_number: self.incarnation,
            members_gone: false,
            silence: Duration::ZERO,
            journaled: swarm.disk != Disk::None && self.disk.is_whole(),
            entropy: std::array::from_fn(|_| self.rng.bits()),
        }
    }
}

impl World {
    /// The process starts, with what is left on its disk.
    pub fn master_start(&mut self) {
        if self.master.machine.is_some() {
            return;
        }
        self.master.incarnation += 1;
        self.master.started = self.now;
        let setup = self.master.setup(&self.swarm);
        self.master.lost_disk |= !setup.journaled && self.master.incarnation > 1;
        let history = self.master.disk.read();
        self.master.covered = disk::covered(&history, setup.journaled);
        self.master.found = disk::views(&history);
        self.note_lost_views();
        let now = self.now;
        self.trace.line(
            now,
            format_args!(
                "master starts ({}) with {} records",
                self.master.incarnation,
                history.len()
            ),
        );
        self.trace.fold(now, &[1, history.len() as u64]);
        self.checkers.master_started(self.master.incarnation);
        self.promises_restart();
        self.checkers.reads_given_back(&history);
        self.master.machine = Some(Master::new(setup, &history, now));
        self.master.disk_free = now;
        self.reset_old_connections();
        self.master_pump();
    }

    /// Messages of hosts on connections to the process before are answered with a reset.
    fn reset_old_connections(&mut self) {
        let heartbeat = self.swarm.timers.heartbeat_interval;
        for host in 0..self.hosts.len() {
            if let Some(connection) = self.hosts[host].connection {
                let after = self.network_rng.duration(Duration::ZERO, heartbeat);
                self.schedule(after, Event::HostClosed { connection });
            }
        }
    }

    /// The process dies; part of what is under way is lost.
    ///
    /// Of 1,000 parts of what it sent, `words` still arrive; `None` leaves it to chance.
    pub fn master_crash(&mut self, power_loss: bool, words: Option<u64>) {
        let Some(machine) = self.master.machine.take() else {
            return;
        };
        self.stats.absorb_master(&machine);
        let now = self.now;
        self.trace.line(now, format_args!("master crashes"));
        self.trace.fold(now, &[2]);
        self.master.frozen = false;
        self.master.backlog.clear();
        self.master.outbox.clear();
        self.master.wake = None;
        self.lose_disk(power_loss);
        self.checkers.master_crashed(self.swarm.disk == Disk::None);
        let incarnation = self.master.incarnation;
        for connection in 0..self.connections.len() {
            if self.connections[connection].incarnation != incarnation {
                continue;
            }
            let notices = self.network_rng.millis(0, 300);
            let how = Break {
                up_kept: 0,
                down_kept: words.unwrap_or_else(|| self.network_rng.between(0, 1000)),
                host_notices: (!power_loss).then_some(notices),
                master_notices: None,
            };
            self.break_connection(connection as u64, how);
        }
    }

    /// The process pauses: it reads and sends nothing.
    pub fn master_freeze(&mut self, length: Duration) {
        if self.master.is_awake() {
            self.master.frozen = true;
            self.master.freezes += 1;
            let freeze = self.master.freezes;
            self.schedule(length, Event::MasterThaw { freeze });
        }
    }

    /// The next durable write of its journal takes this long, during which the process is paused.
    pub fn master_stall(&mut self, length: Duration) {
        self.master.stall = Some(length);
    }

    /// The disk is in order, and nothing delays the master.
    pub fn master_calm(&mut self) {
        let now = self.now;
        let master = &mut self.master;
        master.stall = None;
        master.disk_free = master.disk_free.min(now);
        master.disk.hurry(now);
        for (ready, _) in &mut master.outbox {
            *ready = now.min(*ready);
        }
        self.master_thaw(self.master.freezes);
    }

    /// It resumes after a pause, with all that arrived meanwhile.
    pub fn master_thaw(&mut self, freeze: u64) {
        if freeze != self.master.freezes || !std::mem::replace(&mut self.master.frozen, false) {
            return;
        }
        self.master.thawed = self.now;
        if self.master.rng.chance(500) {
            self.master_timer();
        }
        for item in std::mem::take(&mut self.master.backlog) {
            match item {
                Backlog::Message(connection, message) => {
                    self.master_input_message(connection, *message);
                }
                Backlog::Closed(connection) => self.master_input_closed(connection),
            }
        }
        self.master_timer();
        self.master_outbox(self.master.incarnation);
    }

    /// A message is due at the master.
    pub fn master_message(&mut self, connection: u64, index: u64, message: Box<PeerToMaster>) {
        if !self.arrives_up(connection, index) || self.master.machine.is_none() {
            return;
        }
        if self.master.frozen {
            let item = Backlog::Message(connection, message);
            self.master.backlog.push_back(item);
        } else {
            self.master_input_message(connection, *message);
        }
    }

    /// The master's side of a connection notices its end.
    pub fn master_closed(&mut self, connection: u64) {
        if self.master.machine.is_none() || !self.take_master_close(connection) {
            return;
        }
        if self.master.frozen {
            self.master.backlog.push_back(Backlog::Closed(connection));
        } else {
            self.master_input_closed(connection);
        }
    }

    fn master_input_message(&mut self, connection: u64, message: PeerToMaster) {
        let host = self.connections[connection as usize].host;
        let (now, kind) = (self.now, up_code(&message));
        self.trace.fold(now, &[3, connection, kind]);
        if !matches!(message, PeerToMaster::Ping) {
            self.trace.line(
                now,
                format_args!("master <- {host:?} c{connection} {message:?}"),
            );
        }
        let from = host.map_or_else(
            || SocketAddr::from(([10, 255, 0, 1], 1)),
            |host| self.hosts[host.0].address,
        );
        let input = Input::Message {
            connection: ConnectionId(connection),
            from,
            message,
        };
        self.note_at_master(kind, host);
        if let Input::Message { message, .. } = &input {
            self.promises_before(connection, message);
        }
        self.master_input(input);
        if let Some(host) = host {
            self.note_heard(host);
        }
        self.promises_heard();
        self.run_hooks(super::hooks::Point::AtMaster, kind, host);
    }

    fn master_input_closed(&mut self, connection: u64) {
        let now = self.now;
        self.trace
            .line(now, format_args!("master: c{connection} closed"));
        self.trace.fold(now, &[4, connection]);
        self.promises_closed(connection);
        self.master_input(Input::Closed {
            connection: ConnectionId(connection),
        });
    }

    fn master_input(&mut self, input: Input) {
        let now = self.now;
        if let Some(machine) = &mut self.master.machine {
            machine.handle(now, input);
        }
        self.master_pump();
    }

    /// Calls the machine if its time has come.
    pub fn master_timer(&mut self) {
        let now = self.now;
        if self.master.wake.is_some_and(|wake| wake <= now) {
            self.master.wake = None;
        }
        let Some(machine) = &mut self.master.machine else {
            return;
        };
        if self.master.frozen {
            return;
        }
        let mut calls = 0;
        while machine.poll_timeout().is_some_and(|at| at <= now) {
            machine.handle(now, Input::Timeout);
            calls += 1;
            if calls == TIMEOUTS_MAX {
                self.fail("the master's timer does not move on".into());
                break;
            }
        }
        self.master_pump();
    }

    /// Carries out the machine's outputs, in order, after pending disk writes.
    fn master_pump(&mut self) {
        let now = self.now;
        let mut count = 0;
        while let Some(output) = self.master.machine.as_mut().and_then(Master::poll_output) {
            count += 1;
            if count > 100_000 {
                self.fail("the master's outputs do not end".into());
                return;
            }
            self.promises_after(&output);
            if let Output::Journal { record, durable } = output {
                self.checkers.note_emptied(&record);
                self.check_sealed_record(&record);
                self.master_journal(record, durable);
            } else if self.master.outbox.is_empty() && self.master.disk_free <= now {
                self.master_output(output);
            } else {
                let ready = self.master.disk_free;
                self.master.outbox.push_back((ready, output));
            }
        }
        self.master_arm();
    }

    fn master_journal(&mut self, record: Record, durable: bool) {
        if self.swarm.disk == Disk::None {
            return;
        }
        let now = self.now;
        let master = &mut self.master;
        master.disk.append(record);
        if !durable {
            return;
        }
        let longest = self.swarm.fsync;
        let stall = master.stall.take();
        let takes = stall.unwrap_or_else(|| master.rng.duration(Duration::ZERO, longest));
        master.disk_free = master.disk_free.max(now) + takes;
        let (at, incarnation) = (master.disk_free, master.incarnation);
        master.disk.sync_at(at);
        if at <= now {
            master.disk.settle(now);
        } else {
            self.schedule_at(at, Event::MasterOutbox { incarnation });
        }
        if stall.is_some() {
            self.master_freeze(at.saturating_since(now));
        }
    }

    /// Carries out what waited for the disk.
    pub fn master_outbox(&mut self, incarnation: u32) {
        if self.master.incarnation != incarnation || !self.master.is_awake() {
            return;
        }
        self.master.disk.settle(self.now);
        while let Some((ready, _)) = self.master.outbox.front() {
            if *ready > self.now {
                return;
            }
            let (_, output) = self.master.outbox.pop_front().expect("the front was there");
            self.master_output(output);
        }
    }

    fn master_output(&mut self, output: Output) {
        let now = self.now;
        match output {
            Output::Send {
                connection,
                message,
            } => {
                let ConnectionId(connection) = connection;
                let (kind, host) = (
                    down_code(&message),
                    self.connections[connection as usize].host,
                );
                self.trace.fold(now, &[5, connection, kind]);
                if self.trace.keeps_lines() && kind != super::messages::PONG {
                    self.trace.line(
                        now,
                        format_args!("master -> {host:?} c{connection} {message:?}"),
                    );
                }
                let is_detached = matches!(
                    &message,
                    MasterToPeer::Evicted {
                        reason: EvictReason::Detached
                    }
                );
                if is_detached && self.connections[connection as usize].is_answered() {
                    self.fail(format!(
                        "{host:?} is told over its connection that this has ended"
                    ));
                }
                if let MasterToPeer::Welcome { run_id, .. } = &message {
                    self.checkers.run = self.run_index(*run_id);
                }
                let checked =
                    self.checkers
                        .master_sends(host, &message, (&self.hosts, self.keeps_all()));
                self.check(checked);
                self.send_down(connection, message);
                self.run_hooks(super::hooks::Point::MasterSends, kind, host);
            }
            Output::Close { connection } => {
                self.trace
                    .line(now, format_args!("master closes c{}", connection.0));
                self.close_from_master(connection.0);
            }
            Output::Event(event) => {
                if matches!(event, ccl_core::event::Event::JournalOutdated) {
                    self.promises_outdated();
                }
                self.trace.line(now, format_args!("master event {event:?}"));
                self.check_master_event(&event);
            }
            Output::Journal { .. } => unreachable!("the journal is written before"),
        }
    }

    fn master_arm(&mut self) {
        let Some(machine) = &self.master.machine else {
            return;
        };
        let Some(at) = machine.poll_timeout() else {
            return;
        };
        let at = at.max(self.now);
        if self.master.wake.is_none_or(|wake| at < wake) {
            self.master.wake = Some(at);
            self.schedule_at(at, Event::MasterTimer);
        }
    }
}
