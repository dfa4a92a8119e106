//! Sites: hosts with a process in each of several groups, which advance together and are one unit
//! of the run (docs/protocol.md, R9).
//!
//! No process of a site begins a round before the others have ended the one before. So a site that
//! is a member of only some of its groups, or whose groups count their safe points apart, would
//! stop all others. A process that ends or dies may come back; its site goes on once all are there.

use std::collections::BTreeMap;
use std::time::Duration;

use ccl_core::ids::{GroupId, PeerId, Term, UnitId};
use ccl_core::wire::control::EvictReason;

use super::checkers::ensure;
use super::cluster::{Event, HostId, World};
use super::faults::Fault;
use super::liveness::Promise;
use super::peer_host::Process;
use super::workload::{App, AppStep};

/// A place for one process of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// The site.
    pub site: usize,
    /// Its process, counted as in `Swarm::site`.
    pub place: usize,
}

/// One host.
#[derive(Debug, Default)]
pub struct Site {
    /// The newest process at each place.
    seats: Vec<Option<HostId>>,
    /// Processes that are about to start.
    coming: usize,
    /// Whether no process of it will start any more.
    closed: bool,
}

/// Most sites at a time.
const SITES_MAX: usize = 6;

impl World {
    /// Whether all processes belong to sites.
    #[must_use]
    pub fn has_sites(&self) -> bool {
        !self.swarm.site.is_empty()
    }

    /// The unit of a process, and how many peers it has.
    #[must_use]
    pub fn unit_of(&self, seat: Option<Seat>, host: HostId) -> (Option<UnitId>, Option<u32>) {
        match seat {
            Some(seat) => {
                let size = self.swarm.site.len() as u32;
                (Some(UnitId(seat.site as u64)), Some(size))
            }
            None => {
                let unit = self.swarm.unit_of(host.0 as u64);
                (unit, self.swarm.unit_size.filter(|_| unit.is_some()))
            }
        }
    }

    /// A new host: its processes start one after the other.
    pub fn open_site(&mut self, latest: u64) {
        let site = self.add_site();
        for place in 0..self.swarm.site.len() {
            self.seat_later(Seat { site, place }, latest);
        }
    }

    /// A new host without processes yet.
    pub fn add_site(&mut self) -> usize {
        self.sites.push(Site {
            seats: vec![None; self.swarm.site.len()],
            ..Site::default()
        });
        self.sites.len() - 1
    }

    /// Adds hosts, as far as there is room.
    pub fn open_sites(&mut self, wanted: u64) {
        let open = self.sites.iter().filter(|site| !site.closed).count();
        let room = SITES_MAX.saturating_sub(open) as u64;
        for _ in 0..wanted.min(room) {
            self.open_site(800);
        }
    }

    /// A process will start at this place.
    pub fn seat_later(&mut self, seat: Seat, latest: u64) {
        let after = self.fault_rng.millis(0, latest);
        self.sites[seat.site].coming += 1;
        self.schedule(after, Event::Fault(Fault::Seat(seat)));
    }

    /// A process starts at this place, unless one is there.
    pub fn take_seat(&mut self, seat: Seat) {
        let site = &mut self.sites[seat.site];
        site.coming -= 1;
        let before = site.seats[seat.place];
        let is_taken = before.is_some_and(|host| {
            let host = &self.hosts[host.0];
            host.is_live() || host.app.comes_back
        });
        if !self.sites[seat.site].closed && !is_taken {
            self.sit_down(seat, App::program());
        }
    }

    /// A process starts at this place.
    pub fn sit_down(&mut self, seat: Seat, app: App) -> HostId {
        let group = GroupId(self.swarm.site[seat.place]);
        let host = self.spawn_at(group, None, (app, Some(seat)));
        self.sites[seat.site].seats[seat.place] = Some(host);
        host
    }

    /// A process whose session is over starts anew, if its site still does.
    pub fn sit_down_again(&mut self, host: HostId, app: App) {
        let Some(seat) = self.hosts[host.0].seat else {
            return;
        };
        let site = &self.sites[seat.site];
        if !site.closed && site.seats[seat.place] == Some(host) {
            self.sit_down(seat, app);
        }
    }

    /// The other processes of this one's host, newest first; `None` where there is none yet.
    fn mates(&self, host: HostId) -> Vec<Option<HostId>> {
        let Some(seat) = self.hosts[host.0].seat else {
            return Vec::new();
        };
        let seats = self.sites[seat.site].seats.iter();
        seats.filter(|mate| **mate != Some(host)).copied().collect()
    }

    /// Whether a process begins its next round now, and not when the others of its host wake it.
    pub fn goes_on(&mut self, host: HostId) -> bool {
        let is_in_step = self.is_in_step(host);
        self.check(is_in_step.clone().map(drop));
        let goes_on = is_in_step == Ok(true);
        self.hosts[host.0].app.waits_for_mates = !goes_on;
        goes_on
    }

    /// Whether the others of its host have done all that this process has.
    ///
    /// # Errors They count their safe points apart, so their groups would never admit a unit
    /// together.
    fn is_in_step(&self, host: HostId) -> Result<bool, String> {
        let own = &self.hosts[host.0].app;
        for mate in self.mates(host) {
            let Some(mate) = mate else {
                return Ok(false);
            };
            let state = &self.hosts[mate.0];
            if !state.is_live() || state.view.is_none() {
                return Ok(false);
            }
            // Otherwise the host has started anew, and one of the two does not know of its end yet.
            let is_current = self.term_of(host) == self.term_of(mate);
            ensure(!is_current || own.admitted == state.app.admitted, || {
                format!(
                    "{host:?} and {mate:?} of one host count their safe points from {:?} and {:?} \
                     (I13)",
                    own.admitted, state.app.admitted
                )
            })?;
            if state.app.round < own.round {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The term of the master that sealed this process's view, unless it was evicted since.
    fn term_of(&self, host: HostId) -> Option<Term> {
        let state = &self.hosts[host.0];
        let is_evicted = self.checkers.is_evicted(state.run, state.peer.peer()?);
        let view = state.view.as_ref().filter(|_| !is_evicted);
        view.map(|view| view.vid.term)
    }

    /// A process was admitted, or has ended a round: the others may go on.
    pub fn wake_mates(&mut self, host: HostId) {
        for mate in self.mates(host).into_iter().flatten() {
            if std::mem::take(&mut self.hosts[mate.0].app.waits_for_mates) {
                self.app_soon(mate, AppStep::Round);
            }
        }
    }

    /// Counts sites that are in as a whole.
    pub fn count_site(&mut self, host: HostId) {
        let mates = self.mates(host);
        let is_in = |mate: &Option<HostId>| {
            mate.is_some_and(|mate| {
                self.hosts[mate.0].is_live() && self.hosts[mate.0].view.is_some()
            })
        };
        if !mates.is_empty() && mates.iter().all(is_in) {
            self.stats.units += 1;
        }
    }

    /// A process leaves; usually the others of its host follow a little later.
    pub fn leave_with_mates(&mut self, host: HostId) {
        self.app_leave(host);
        if !self.fault_rng.chance(600) {
            return;
        }
        for mate in self.mates(host).into_iter().flatten() {
            let after = self.fault_rng.millis(0, 3000);
            self.schedule(after, Event::Fault(Fault::Leave(mate)));
        }
    }

    /// A surplus process starts that claims to be of a complete host, and ends after a while. If
    /// the host happens to start anew then, it takes the place of one of its processes.
    pub fn inject_intruder(&mut self) {
        let site = self.fault_rng.index(self.sites.len());
        let place = self.fault_rng.index(self.swarm.site.len());
        let group = GroupId(self.swarm.site[place]);
        let mut app = App::program();
        app.comes_back = false;
        let seat = Seat { site, place };
        let host = self.spawn_at(group, None, (app, Some(seat)));
        self.hosts[host.0].seat = None;
        let after = self.fault_rng.millis(100, 6000);
        self.schedule(after, Event::Fault(Fault::Die(host)));
    }

    /// Everything is repaired: a host that lacks processes starts them anew, or ends as a whole.
    pub fn calm_sites(&mut self) {
        for site in 0..self.sites.len() {
            if self.fault_rng.chance(500) {
                for place in self.empty_places(site) {
                    self.seat_later(Seat { site, place }, 3000);
                }
            }
        }
    }

    /// Hosts enough for each group to work, and none without some of its processes.
    pub fn refill_sites(&mut self) {
        for site in 0..self.sites.len() {
            if self.sites[site].coming == 0 && !self.empty_places(site).is_empty() {
                self.close_site(site);
            }
        }
        let open = self.sites.iter().filter(|site| !site.closed).count();
        let wanted = self.sites_needed() + 1;
        self.open_sites(wanted.saturating_sub(open) as u64);
    }

    /// Fewest sites with which each group works.
    fn sites_needed(&self) -> usize {
        let needed = self
            .swarm
            .min_worlds
            .iter()
            .enumerate()
            .map(|(group, min)| {
                let ranks = self.swarm.ranks_of_site(group as u64);
                (*min as usize).div_ceil(ranks.max(1))
            });
        needed.max().unwrap_or(1)
    }

    /// Places of an open site without a process that runs or will come back.
    fn empty_places(&self, site: usize) -> Vec<usize> {
        if self.sites[site].closed {
            return Vec::new();
        }
        let is_empty = |host: &Option<HostId>| {
            host.is_none_or(|host| {
                let host = &self.hosts[host.0];
                let is_dead = matches!(host.process, Process::Dead { .. });
                is_dead || host.ended.is_some() && !host.app.comes_back
            })
        };
        let seats = self.sites[site].seats.iter().enumerate();
        let empty = seats.filter(|(_, host)| is_empty(host));
        empty.map(|(place, _)| place).collect()
    }

    fn close_site(&mut self, site: usize) {
        self.sites[site].closed = true;
        for host in self.sites[site].seats.clone().into_iter().flatten() {
            self.hosts[host.0].app.comes_back = false;
            self.die(host, None, false);
        }
    }

    /// The master ended a session: if it was a member, the others of its host must soon be lost
    /// too.
    pub fn promise_unit_end(&mut self, group: GroupId, peer: PeerId, reason: &EvictReason) {
        let run = self.checkers.run;
        let members = self.seated_members();
        let Some(site) = members.get(&(group, peer)).copied() else {
            return;
        };
        let others = members
            .iter()
            .filter(|((group, _), other)| **other == site && self.checkers.is_taken_up(*group));
        let others = others.map(|((_, other), _)| *other);
        let peers: Vec<PeerId> = others
            .filter(|other| *other != peer && !self.checkers.is_evicted(Some(run), *other))
            .collect();
        let timers = &self.swarm.timers;
        let grace = match reason {
            EvictReason::Left => timers.peer_timeout,
            _ => Duration::ZERO,
        };
        let bound = grace + Duration::from_secs(1) + self.swarm.fsync * 20;
        let master = (self.master.incarnation, self.master.freezes);
        let since = self.now;
        let promise = Promise::UnitGone {
            peers,
            since,
            master,
        };
        self.schedule(bound, Event::Check(promise));
    }

    /// Fails unless these sessions are over.
    pub fn check_unit_gone(&mut self, peers: &[PeerId]) {
        let run = Some(self.checkers.run);
        let left = peers
            .iter()
            .find(|peer| !self.checkers.is_evicted(run, **peer));
        if let Some(peer) = left {
            self.fail(format!(
                "{peer} is a member although one of its unit is gone (I13)"
            ));
        }
    }

    /// Members of the newest views that belong to sites, and to which.
    fn seated_members(&self) -> BTreeMap<(GroupId, PeerId), usize> {
        let run = Some(self.checkers.run);
        let mut members = BTreeMap::new();
        for host in self.hosts.iter().filter(|host| host.run == run) {
            let (Some(seat), Some(peer)) = (host.seat, host.peer.peer()) else {
                continue;
            };
            let newest = self.checkers.newest_view(host.group);
            if newest.is_some_and(|view| view.members.contains(&peer)) {
                members.insert((host.group, peer), seat.site);
            }
        }
        members
    }

    /// Checks that each site is a member with all its processes or with none.
    ///
    /// # Errors The site that is not.
    pub fn sites_are_whole(&self) -> Result<(), String> {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for site in self.seated_members().into_values() {
            *counts.entry(site).or_default() += 1;
        }
        let size = self.swarm.site.len();
        let torn = counts.iter().find(|(_, count)| **count != size);
        ensure(torn.is_none(), || {
            format!("site {torn:?} of {size} processes is a member in part (I13)")
        })
    }
}
