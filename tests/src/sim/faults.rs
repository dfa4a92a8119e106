//! What fails, when, and how it is repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ccl_core::ids::GroupId;
use ccl_core::wire::control::PeerToMaster;

use super::aim::Aim;
use super::closed::Asker;
use super::cluster::{Event, HostId, World};
use super::hermit::Reach;
use super::links::{Direction, LinkKey};
use super::network::Break;
use super::site::Seat;
use super::swarm::{Disk, FaultKind};
use super::workload::{App, CallKind};

/// A step of the plan of faults.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The next random fault.
    Next,
    /// The moment of an aimed fault has come, with a message of this host.
    Hit(FaultKind, Option<HostId>),
    /// An aimed fault has waited long enough for its moment.
    Overdue(u64),
    /// A host's control connection works again.
    HealControl(HostId),
    /// A host has normal speed again.
    HealSlow(HostId),
    /// A link has normal speed again.
    HealSlowLink(LinkKey),
    /// One direction of a link works again.
    HealLink(LinkKey, Direction),
    /// A host's links work again.
    HealIsolation(HostId),
    /// A newcomer starts.
    Join(GroupId),
    /// A process of a site starts.
    Seat(Seat),
    /// Processes ask for a closed group.
    AskAll,
    /// One of them does.
    Ask(Asker),
    /// A host's hello to this master arrives long after later ones.
    LateHello(HostId, u32, Box<PeerToMaster>),
    /// A process leaves, after another of its host.
    Leave(HostId),
    /// A surplus process dies.
    Die(HostId),
}

/// The plan of faults.
#[derive(Debug, Default)]
pub struct FaultPlan {
    /// Faults to come.
    pub left: usize,
    /// Faults that were drawn so far.
    pub drawn: usize,
    /// Numbers of those that are left out, to find out which ones a failure needs.
    pub skipped: BTreeSet<usize>,
    /// Faults that wait for their moment.
    pub aims: Vec<Aim>,
    /// How many have waited so far.
    pub armed: u64,
    /// The reach of the next processes that start.
    pub hermits: Vec<Reach>,
    /// How many of them have a late hello.
    pub late_hellos: u64,
    /// Whether everything broken has been repaired.
    pub calm: bool,
    last_rounds: BTreeMap<GroupId, u64>,
}

/// How many of 1,000 aimed faults hit the host of the message that they waited for.
const NEAR_PERMILLE: u64 = 500;

impl FaultPlan {
    /// The round in which a group's applications stop.
    #[must_use]
    pub fn last_round(&self, group: GroupId) -> Option<u64> {
        self.last_rounds.get(&group).copied()
    }

    /// Whether the hello of the next process that starts is late.
    pub fn takes_late_hello(&mut self) -> bool {
        let is_late = self.late_hellos > 0;
        self.late_hellos = self.late_hellos.saturating_sub(1);
        is_late
    }

    /// Makes a group's applications stop before this round.
    pub fn stop_before(&mut self, group: GroupId, round: u64) {
        self.last_rounds.insert(group, round);
    }
}

impl World {
    /// Something fails, or is repaired.
    pub fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Next => self.next_fault(),
            Fault::Hit(_, _) if self.plan.calm => {}
            Fault::Hit(kind, host) => self.inject(kind, host),
            Fault::Overdue(id) => self.overdue(id),
            Fault::HealControl(host) => {
                self.hosts[host.0].trouble_ended = Some(self.now);
                self.block_control(host, Some(false), Some(false));
            }
            Fault::HealSlow(host) => {
                self.hosts[host.0].trouble_ended = Some(self.now);
                self.hosts[host.0].slowness = 1;
            }
            Fault::HealLink(link, direction) => {
                self.newest_link_trouble = self.now;
                self.block_link(link, direction, false);
            }
            Fault::HealSlowLink(link) => self.slow_link(link, 1),
            Fault::HealIsolation(host) => self.isolate_data(host, false),
            Fault::Seat(seat) => self.take_seat(seat),
            Fault::AskAll => self.ask_all(),
            Fault::Ask(asker) => self.ask(asker),
            Fault::Leave(host) => {
                if self.hosts[host.0].is_live() && self.hosts[host.0].is_running() {
                    self.app_leave(host);
                }
            }
            Fault::Die(host) => self.die(host, None, false),
            Fault::LateHello(host, master, hello) => self.replay(host, (master, *hello)),
            Fault::Join(_) if self.has_sites() => self.open_sites(1),
            Fault::Join(group) => {
                self.spawn(group, None, App::program());
            }
        }
    }

    fn next_fault(&mut self) {
        if self.plan.left == 0 || self.plan.calm {
            return;
        }
        self.plan.left -= 1;
        self.plan.drawn += 1;
        let kind = self.draw_kind();
        let is_aimed = self.fault_rng.chance(self.swarm.aim_permille);
        let is_skipped = self.plan.skipped.contains(&self.plan.drawn);
        if let Some(kind) = kind.filter(|_| !is_skipped) {
            if is_aimed {
                self.aim(kind);
            } else {
                self.inject(kind, None);
            }
        }
        let gap = self.swarm.fault_gap * 2;
        let gap = self.fault_rng.duration(Duration::ZERO, gap);
        self.schedule(gap, Event::Fault(Fault::Next));
    }

    /// A kind of fault, drawn with this seed's weights.
    pub(super) fn draw_kind(&mut self) -> Option<FaultKind> {
        let total: u64 = self.swarm.weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.fault_rng.below(total);
        self.swarm.weights.iter().find_map(|(kind, weight)| {
            let hit = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            hit.then_some(*kind)
        })
    }

    /// Hosts that a fault may hit.
    fn victims(&self) -> Vec<HostId> {
        self.groups()
            .filter(|group| self.swarm.healthy_group != Some(group.0))
            .flat_map(|group| self.live_hosts(group))
            .chain(self.askers())
            .filter(|host| self.hosts[host.0].is_running())
            .collect()
    }

    /// Injects a fault of this kind, if possible: often at the host nearby.
    pub fn inject(&mut self, kind: FaultKind, near: Option<HostId>) {
        let victims = self.victims();
        let near = near.filter(|host| victims.contains(host));
        let near = near.filter(|_| self.fault_rng.chance(NEAR_PERMILLE));
        let victim = near.or_else(|| self.fault_rng.pick(&victims));
        self.note_fault(kind, victim);
        let now = self.now;
        self.trace
            .line(now, format_args!("FAULT {kind:?} {victim:?}"));
        self.trace.fold(now, &[40, kind as u64]);
        self.stats.fault(kind);
        match (kind, victim) {
            (FaultKind::MasterCrash, _) => self.inject_master_crash(None),
            (FaultKind::JournalOlder | FaultKind::JournalCut | FaultKind::JournalLost, _) => {
                self.inject_master_crash(Some(kind));
            }
            (FaultKind::MasterFreeze, _) => {
                let length = self.fault_rng.millis(10, 4000);
                self.master_freeze(length);
            }
            (kind, _) if kind.is_pause() => self.inject_pause(kind, &victims),
            (FaultKind::JoinStorm, _) => self.inject_joins(),
            (FaultKind::Askers, _) => self.inject_askers(),
            (FaultKind::DuplicateHello, _) => self.inject_hello_again(),
            (FaultKind::LateHello, _) => self.inject_late_hello(),
            (FaultKind::Hermit, _) => self.inject_hermit(),
            (FaultKind::Stranger, _) if self.has_sites() && self.fault_rng.chance(700) => {
                self.inject_intruder();
            }
            (FaultKind::Stranger, _) => {
                self.spawn(GroupId(0), None, App::stranger());
            }
            (_, None) => {}
            (FaultKind::Crash, Some(host)) => self.inject_death(host, false),
            (FaultKind::GroupCut, Some(host)) => self.inject_group_cut(self.hosts[host.0].group),
            (FaultKind::PowerLoss, Some(host)) => self.inject_death(host, true),
            (FaultKind::Wedge, Some(host)) => self.inject_wedge(host),
            (FaultKind::Leave, Some(host)) => self.leave_with_mates(host),
            (FaultKind::Cancel, Some(host)) => self.inject_cancel(host),
            (FaultKind::Hang, Some(host)) => self.hosts[host.0].app.hung = true,
            (FaultKind::PartitionData | FaultKind::LinkReset | FaultKind::SlowLink, Some(_)) => {
                self.inject_link(kind);
            }
            (FaultKind::IsolateData, Some(host)) => {
                self.isolate_data(host, true);
                let length = self.fault_rng.millis(1000, 9000);
                self.schedule(length, Event::Fault(Fault::HealIsolation(host)));
            }
            (FaultKind::StaleFrames, Some(host)) => self.inject_stale_frames(host),
            (FaultKind::StaleAttach, Some(host)) => self.inject_replay(host),
            (_, Some(host)) if self.inject_trouble(kind, host) => {}
            (_, Some(host)) => self.inject_control(kind, host),
        }
    }

    /// The master dies, and its journal is damaged before it starts again.
    fn inject_master_crash(&mut self, journal: Option<FaultKind>) {
        // It dies when it has just shortened its journal; nothing else shortens it.
        let shortens = self.swarm.disk != Disk::None && self.fault_rng.chance(300);
        if shortens && self.master.machine.is_some() {
            self.master.disk.settle(self.now);
            self.master.disk.shorten();
        }
        let power_loss = self.fault_rng.chance(500);
        self.master_crash(power_loss, None);
        if let Some(kind) = journal {
            self.spoil_journal(kind);
        }
        let down = if self.fault_rng.chance(800) {
            self.fault_rng.millis(50, 4000)
        } else {
            self.fault_rng.millis(4000, 25_000)
        };
        self.schedule(down, Event::MasterStart);
        for _ in 0..2 {
            if self.fault_rng.chance(self.swarm.aim_permille) {
                self.aim_at_start(true);
            }
        }
    }

    /// Processes pause for longer than it takes to be missed, sometimes for longer than any
    /// timeout. Those that stop together resume one after the other.
    fn inject_pause(&mut self, kind: FaultKind, victims: &[HostId]) {
        let timers = self.swarm.timers;
        let length = match self.fault_rng.below(4) {
            0 => timers.detach_timeout + self.fault_rng.millis(0, 20_000),
            1 => self.fault_rng.millis(4000, 25_000),
            _ => timers.peer_timeout * 2 + self.fault_rng.millis(0, 3000),
        };
        if kind == FaultKind::DiskStall {
            return self.master_stall(length);
        }
        if matches!(kind, FaultKind::MasterPause | FaultKind::WorldPause) {
            self.master_freeze(length);
        }
        if matches!(kind, FaultKind::PeersPause | FaultKind::WorldPause) {
            for host in victims {
                let late = self.fault_rng.millis(0, 100);
                self.freeze(*host, length + late);
            }
        }
    }

    fn inject_joins(&mut self) {
        if self.has_sites() {
            let wanted = self.fault_rng.between(1, 2);
            return self.open_sites(wanted);
        }
        let groups: Vec<GroupId> = self.groups().collect();
        let Some(group) = self.fault_rng.pick(&groups) else {
            return;
        };
        let room = 16usize.saturating_sub(self.live_hosts(group).count());
        for _ in 0..self.fault_rng.between(1, 4).min(room as u64) {
            let after = self.fault_rng.millis(0, 200);
            self.schedule(after, Event::Fault(Fault::Join(group)));
        }
    }

    fn inject_death(&mut self, host: HostId, power_loss: bool) {
        self.die(host, None, power_loss);
        if Self::is_closed_group(self.hosts[host.0].group) {
            return;
        }
        if self.fault_rng.chance(500) {
            if let Some(seat) = self.hosts[host.0].seat {
                return self.seat_later(seat, 8000);
            }
            let after = self.fault_rng.millis(200, 8000);
            let group = self.hosts[host.0].group;
            self.schedule(after, Event::Fault(Fault::Join(group)));
        }
    }

    fn inject_wedge(&mut self, host: HostId) {
        let timers = self.swarm.timers;
        let timeout = timers.peer_timeout;
        let length = match self.fault_rng.below(5) {
            0 => self.fault_rng.millis(5, 500),
            1 => timeout - timeout / 4 + self.fault_rng.millis(0, 2000),
            2 => timeout * 2 + self.fault_rng.millis(0, 5000),
            3 => timers.detach_timeout + self.fault_rng.millis(0, 20_000),
            _ => Duration::from_secs(100_000),
        };
        self.freeze(host, length);
    }

    fn inject_link(&mut self, kind: FaultKind) {
        let spared = self.swarm.healthy_group;
        let links: Vec<LinkKey> = self
            .links
            .iter()
            .filter(|(key, link)| link.up && Some(self.hosts[key.0.0].group.0) != spared)
            .map(|(key, _)| *key)
            .collect();
        let Some(link) = self.fault_rng.pick(&links) else {
            return;
        };
        self.newest_link_trouble = self.now;
        if kind == FaultKind::SlowLink {
            let slowness = self.fault_rng.between(3, 30) as u32;
            let length = self.fault_rng.millis(100, 9000);
            self.slow_link(link, slowness);
            return self.schedule(length, Event::Fault(Fault::HealSlowLink(link)));
        }
        if kind == FaultKind::LinkReset {
            let length = self.fault_rng.millis(1, 900);
            let noticed = self.fault_rng.chance(300);
            self.reset_link(link, length, noticed);
            return;
        }
        let direction = if self.fault_rng.chance(500) {
            Direction::Up
        } else {
            Direction::Down
        };
        let both = self.fault_rng.chance(300);
        let length = self.fault_rng.millis(100, 10_000);
        for way in [Direction::Up, Direction::Down] {
            if both || way == direction {
                self.block_link(link, way, true);
                self.schedule(length, Event::Fault(Fault::HealLink(link, way)));
            }
        }
    }

    /// All links of a host are cut, or work again.
    pub fn isolate_data(&mut self, host: HostId, isolated: bool) {
        self.hosts[host.0].isolated = isolated;
        for link in self.links_of(host) {
            let other = if link.0 == host { link.1 } else { link.0 };
            if self.hosts[other.0].isolated {
                continue;
            }
            for way in [Direction::Up, Direction::Down] {
                self.block_link(link, way, isolated);
            }
        }
    }

    fn inject_control(&mut self, kind: FaultKind, host: HostId) {
        let length = self.fault_rng.millis(100, 9000);
        match kind {
            FaultKind::PartitionFromMaster => {
                self.block_control(host, None, Some(true));
                self.schedule(length, Event::Fault(Fault::HealControl(host)));
            }
            FaultKind::PartitionToMaster => {
                self.block_control(host, Some(true), None);
                self.schedule(length, Event::Fault(Fault::HealControl(host)));
            }
            FaultKind::SlowHost => {
                let slowness = self.fault_rng.between(5, 60) as u32;
                self.hosts[host.0].slowness = slowness;
                self.schedule(length, Event::Fault(Fault::HealSlow(host)));
            }
            FaultKind::ControlBreak | FaultKind::ControlHalfOpen => {
                self.inject_break(kind == FaultKind::ControlHalfOpen, host);
            }
            _ => {}
        }
    }

    fn inject_break(&mut self, half_open: bool, host: HostId) {
        let Some(connection) = self.hosts[host.0].connection else {
            return;
        };
        self.hosts[host.0].trouble_ended = Some(self.now);
        let rng = &mut self.fault_rng;
        let late = half_open.then(|| rng.between(0, 2));
        let mut how = Break {
            up_kept: rng.between(0, 1000),
            down_kept: rng.between(0, 1000),
            host_notices: Some(rng.millis(0, 100)),
            master_notices: Some(rng.millis(0, 100)),
        };
        match late {
            Some(0) => how.host_notices = rng.chance(500).then(|| rng.millis(500, 8000)),
            Some(1) => how.master_notices = rng.chance(500).then(|| rng.millis(500, 8000)),
            Some(_) => (how.host_notices, how.master_notices) = (None, None),
            None => {}
        }
        self.break_connection(connection, how);
    }

    /// Repairs everything broken; dead processes stay dead.
    pub fn calm_down(&mut self) {
        let now = self.now;
        self.trace.line(now, format_args!("CALM"));
        self.trace.fold(now, &[41]);
        self.plan.calm = true;
        self.plan.left = 0;
        self.plan.aims.clear();
        self.checkers.views_in_calm = 0;
        self.swarm.tail_permille = 0;
        self.unblock_links();
        self.end_hermits();
        self.plan.late_hellos = 0;
        for index in 0..self.hosts.len() {
            let host = HostId(index);
            self.hosts[index].slowness = 1;
            self.hosts[index].isolated = false;
            self.hosts[index].trouble_ended = Some(now);
            self.block_control(host, Some(false), Some(false));
            if self.hosts[index].is_live() && !self.hosts[index].is_running() {
                self.calm_frozen(host);
            }
            self.calm_hung(host);
        }
        self.master_calm();
        self.schedule(Duration::ZERO, Event::MasterStart);
        self.calm_sites();
        self.calm_askers();
        self.refill_groups();
    }

    /// Paused processes resume, or are gone for good.
    fn calm_frozen(&mut self, host: HostId) {
        if self.fault_rng.chance(600) {
            let freeze = self.hosts[host.0].freezes;
            self.thaw(host, freeze);
        } else {
            self.die(host, None, true);
        }
    }

    /// Applications that never call are noticed only if others wait for them; the rest resume.
    fn calm_hung(&mut self, host: HostId) {
        let state = &self.hosts[host.0];
        let leaving = state
            .app
            .calls
            .values()
            .any(|open| open.kind == CallKind::Leave);
        if !state.app.hung || leaving || !state.is_live() {
            return;
        }
        self.die(host, None, false);
    }

    /// Starts enough processes for each group to work.
    pub fn refill_groups(&mut self) {
        if self.has_sites() {
            return self.refill_sites();
        }
        let groups: Vec<GroupId> = self.groups().collect();
        for group in groups {
            let wanted = self.swarm.min_world(group) as usize + 1;
            let live = self
                .live_hosts(group)
                .filter(|host| !self.hosts[host.0].app.stranger)
                .count();
            for _ in live..wanted {
                let after = self.fault_rng.millis(0, 500);
                self.schedule(after, Event::Fault(Fault::Join(group)));
            }
        }
    }
}
