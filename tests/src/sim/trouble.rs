//! Faults that applications cause each other, and cuts that last until everything is repaired.
//!
//! An application may cancel its next call, or call something else; come to an operation some safe
//! points after the others; die in a barrier; withdraw from safe points early.

use std::time::Duration;

use ccl_core::Kind;
use ccl_core::ids::{CallId, GroupId, Vid};

use super::cluster::{Event, HostId, World};
use super::faults::Fault;
use super::links::Direction;
use super::network::Break;
use super::program::{self, Logical, Twist};
use super::rng::Rng;
use super::swarm::FaultKind;
use super::workload::CallKind;

/// The planned faults of an application.
#[derive(Debug, Default)]
pub struct Whims {
    /// The twist of its next call is drawn from this.
    twist: Option<u64>,
    /// It withdraws early from this many safe points.
    hasty: u32,
    /// It dies in the next operation that needs no data of it.
    dies: bool,
    /// Calls that it makes in a later round.
    later: Vec<(u64, Vec<Logical>)>,
}

/// Safe points from which an impatient application withdraws early.
const HASTY_POINTS: u32 = 4;

impl World {
    /// All members of a group are cut off from the master, but not from each other, sometimes for
    /// longer than they may go on; others come meanwhile.
    pub(super) fn inject_group_cut(&mut self, group: GroupId) {
        let timers = self.swarm.timers;
        let length = match self.fault_rng.below(2) {
            0 => timers.peer_timeout + self.fault_rng.millis(0, 10_000),
            _ => timers.peer_timeout + timers.detach_timeout + self.fault_rng.millis(0, 10_000),
        };
        let members: Vec<HostId> = self.live_hosts(group).collect();
        for host in members {
            self.block_control(host, Some(true), Some(true));
            if let Some(connection) = self.hosts[host.0].connection
                && self.fault_rng.chance(500)
            {
                let end = self.fault_rng.millis(0, 50);
                let how = Break {
                    up_kept: 0,
                    down_kept: 0,
                    host_notices: Some(end),
                    master_notices: Some(end),
                };
                self.break_connection(connection, how);
            }
            self.schedule(length, Event::Fault(Fault::HealControl(host)));
        }
        if !Self::is_closed_group(group) {
            for _ in 0..2 {
                let after = self.fault_rng.millis(0, 4000);
                self.schedule(after, Event::Fault(Fault::Join(group)));
            }
        }
    }

    /// Injects a fault of this kind, if it belongs here.
    pub fn inject_trouble(&mut self, kind: FaultKind, host: HostId) -> bool {
        match kind {
            FaultKind::LastingCut => self.cut_link_for_good(host),
            FaultKind::LastingMute => {
                let up = self.fault_rng.chance(500);
                self.block_control(host, up.then_some(true), (!up).then_some(true));
            }
            FaultKind::Twist => {
                self.hosts[host.0].app.whims.twist = Some(self.fault_rng.bits());
                self.app_hurries(host);
            }
            FaultKind::BarrierDeath => self.hosts[host.0].app.whims.dies = true,
            FaultKind::HastyPoint => self.hosts[host.0].app.whims.hasty = HASTY_POINTS,
            _ => return false,
        }
        true
    }

    /// Cancels a call, or all open ones, to race with the last `Done`.
    pub(super) fn inject_cancel(&mut self, host: HostId) {
        let open: Vec<CallId> = self.hosts[host.0]
            .app
            .calls
            .iter()
            .filter(|(_, open)| matches!(open.kind, CallKind::Operation(_)))
            .map(|(call, _)| *call)
            .collect();
        let all = self.fault_rng.chance(300);
        let one = self.fault_rng.pick(&open);
        for call in open {
            if all || Some(call) == one {
                self.app_cancel_call(host, call);
            }
        }
    }

    /// One of a host's links stops working in at least one direction.
    fn cut_link_for_good(&mut self, host: HostId) {
        let links = self.links_of(host);
        let Some(link) = self.fault_rng.pick(&links) else {
            return;
        };
        self.newest_link_trouble = self.now;
        let one = self.fault_rng.chance(500).then_some(Direction::Up);
        for way in [Direction::Up, Direction::Down] {
            if one.is_none_or(|one| one == way) {
                self.block_link(link, way, true);
            }
        }
    }

    /// What an application does with the call that it is about to make.
    pub(super) fn whim_of(&mut self, host: HostId, logical: &Logical) -> Option<Twist> {
        let Some(seed) = self.hosts[host.0].app.whims.twist.take() else {
            return logical.twist_of(host.0 as u64);
        };
        let twist = program::twist(&mut Rng::new(seed), logical.fingerprint.kind());
        let app = &self.hosts[host.0].app;
        if app.round == app.admitted {
            self.stats.situation(("twist", "first round of a newcomer"));
        }
        Some(twist)
    }

    /// Puts calls off that this application makes later than the others.
    pub(super) fn comes_late(&mut self, host: HostId, round: u64, calls: &[Logical]) -> bool {
        let Some(late) = calls.first().and_then(|call| call.late_by(host.0 as u64)) else {
            return false;
        };
        if self.plan.calm {
            return false;
        }
        let later = &mut self.hosts[host.0].app.whims.later;
        later.push((round + late, calls.to_vec()));
        true
    }

    /// Calls that were put off until this round; all of them once faults are off.
    pub(super) fn late_calls(&mut self, host: HostId, round: u64) -> Vec<Vec<Logical>> {
        let all = self.plan.calm;
        let later = std::mem::take(&mut self.hosts[host.0].app.whims.later);
        let (due, rest): (Vec<_>, Vec<_>) =
            later.into_iter().partition(|(at, _)| all || *at <= round);
        self.hosts[host.0].app.whims.later = rest;
        due.into_iter().map(|(_, calls)| calls).collect()
    }

    /// How long an application waits at a safe point, if not forever.
    pub(super) fn patience_at_point(&mut self, host: HostId) -> Option<Duration> {
        let patience = match self.network_rng.chance(100) {
            true => self.network_rng.millis(1, 400),
            false => self.network_rng.millis(5000, 20_000),
        };
        let app = &mut self.hosts[host.0].app;
        if app.whims.hasty > 0 && !self.plan.calm {
            app.whims.hasty -= 1;
            let longest = self.swarm.delay.1.as_millis() as u64 * 4;
            return Some(self.network_rng.millis(0, longest.max(10)));
        }
        let has_deadline = self.network_rng.chance(700) && !self.hosts[host.0].app.scripted;
        has_deadline.then_some(patience)
    }

    /// An operation starts at a host that may be about to die in it.
    pub(super) fn dies_in(&mut self, host: HostId, kind: Kind) {
        let whims = &mut self.hosts[host.0].app.whims;
        if kind == Kind::Barrier && std::mem::take(&mut whims.dies) && !self.plan.calm {
            self.stats.situation(("barrier", "a caller dies"));
            let after = Duration::from_micros(self.fault_rng.between(0, 20_000));
            self.schedule(after, Event::Fault(Fault::Die(host)));
        }
    }

    /// Views between two admissions of a group.
    pub(super) fn admissions_between(
        &self,
        (run, group): (usize, GroupId),
        ends: [Vid; 2],
    ) -> usize {
        let sealed = self.checkers.sealed.get(&(run, group));
        let within = sealed.into_iter().flatten();
        let within = within.filter(|view| ends[0] < view.vid && view.vid <= ends[1]);
        within
            .filter(|view| view.members.len() > view.survivors.len())
            .count()
    }
}
