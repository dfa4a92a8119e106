//! Newcomers that no peer, or only one, can reach over links while faults last; and that they keep
//! no others out of a group's first view.

use std::collections::BTreeMap;
use std::time::Duration;

use ccl_core::ids::GroupId;
use ccl_core::time::Instant;

use super::cluster::{Event, HostId, World};
use super::faults::Fault;
use super::links::LinkKey;
use super::liveness::Promise;
use super::swarm::FaultKind;
use super::workload::App;

/// The peers that have links with a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// All others.
    #[default]
    All,
    /// Only this one.
    Only(HostId),
    /// None.
    Nobody,
}

/// Hosts, the master and how often it stood still, and a time.
type Linked = (Vec<HostId>, (u32, u64), Instant);

/// What is known of groups without members.
#[derive(Debug, Default)]
pub struct Founders {
    /// Newcomers of each that are linked with each other, under which master, and since when.
    linked: BTreeMap<GroupId, Linked>,
}

/// How often to check whether some could found a group.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// By when those that are linked with each other found their group, on a network without delays.
const FOUNDED_WITHIN: Duration = Duration::from_secs(3);

impl World {
    /// A process joins that no peer, or only one, can reach.
    pub fn inject_hermit(&mut self) {
        let groups = self.groups();
        let groups = groups.filter(|group| Some(group.0) != self.swarm.healthy_group);
        let groups: Vec<GroupId> = groups.collect();
        let Some(group) = self.fault_rng.pick(&groups) else {
            return;
        };
        let live: Vec<HostId> = self.live_hosts(group).collect();
        let other = self.fault_rng.pick(&live);
        let other = other.filter(|_| self.fault_rng.chance(500));
        let reach = other.map_or(Reach::Nobody, Reach::Only);
        self.plan.hermits.push(reach);
        if self.has_sites() {
            self.open_sites(1);
        } else if live.len() < 16 {
            self.spawn(group, None, App::program());
        }
    }

    /// In some seeds no peer can reach the first process.
    pub fn begin_with_hermit(&mut self) {
        let has = |(kind, _): &(FaultKind, u64)| *kind == FaultKind::Hermit;
        if self.swarm.weights.iter().any(has) && self.fault_rng.chance(500) {
            let hit = Fault::Hit(FaultKind::Hermit, None);
            self.schedule(Duration::ZERO, Event::Fault(hit));
        }
        self.schedule(LOOK_INTERVAL, Event::Check(Promise::Founded));
    }

    /// Whether two hosts can reach each other.
    #[must_use]
    pub fn is_way(&self, LinkKey(one, other): LinkKey) -> bool {
        let lets = |host: HostId, other: HostId| match self.hosts[host.0].reach {
            Reach::All => true,
            Reach::Only(friend) => friend == other,
            Reach::Nobody => false,
        };
        lets(one, other) && lets(other, one)
    }

    /// All hosts can reach each other.
    pub fn end_hermits(&mut self) {
        self.plan.hermits.clear();
        for host in &mut self.hosts {
            host.reach = Reach::All;
        }
    }

    /// Checks that newcomers that can found their group soon do, whatever others wait.
    pub(super) fn check_founded(&mut self) {
        let slowest = if self.swarm.tail_permille > 0 { 10 } else { 1 };
        let bound = FOUNDED_WITHIN + (self.swarm.delay.1 * slowest + self.swarm.fsync) * 8;
        let awake = (self.master.incarnation, self.master.freezes);
        let groups = self.groups().chain(self.asked_groups());
        for group in groups.collect::<Vec<GroupId>>() {
            let Some(founders) = self.founders(group, bound) else {
                self.founders.linked.remove(&group);
                continue;
            };
            let now = (founders, awake, self.now);
            let known = self.founders.linked.entry(group).or_insert(now.clone());
            if (&known.0, known.1) != (&now.0, now.1) {
                *known = now;
            } else if known.2 + bound < self.now {
                let founders = now.0;
                return self.fail(format!(
                    "{founders:?} are linked with each other and do not found group {group}"
                ));
            }
        }
        self.schedule(LOOK_INTERVAL, Event::Check(Promise::Founded));
    }

    /// Enough newcomers for a first view, calm for this long and all linked with each other, of a
    /// group in which at most one other waits.
    fn founders(&self, group: GroupId, calm: Duration) -> Option<Vec<HostId>> {
        let is_closed = Self::is_closed_group(group);
        let is_alone = is_closed || !self.has_sites() && self.swarm.unit == 1;
        let lost = self.checkers.lost.get(&(self.checkers.run, group));
        let timers = &self.swarm.timers;
        // The master's clock may stand still meanwhile (R20).
        let lease = timers.peer_timeout + timers.detach_timeout * 2;
        let is_leased = lost.is_some_and(|lost| self.now < self.master.started.max(*lost) + lease);
        if is_leased
            || !is_alone
            || !self.master.is_awake()
            || self.phase_of(group) != Some("Founding")
        {
            return None;
        }
        let here: Vec<HostId> = self.live_hosts(group).collect();
        let here = here.into_iter().filter(|host| {
            let host = &self.hosts[host.0];
            !host.app.stranger && host.peer.peer().is_some()
        });
        let here: Vec<HostId> = here.collect();
        let is_linked = |&(one, other): &(HostId, HostId)| {
            let link = self.links.get(&LinkKey::new(one, other));
            one == other || link.is_some_and(|link| link.up)
        };
        let without = |left_out: Option<HostId>| {
            let rest = here.iter().copied().filter(|host| Some(*host) != left_out);
            let rest: Vec<HostId> = rest.collect();
            let pairs = rest
                .iter()
                .flat_map(|one| rest.iter().map(|other| (*one, *other)));
            pairs.clone().all(|pair| is_linked(&pair)).then_some(rest)
        };
        let left_out = here.iter().copied().map(Some);
        let linked = std::iter::once(None).chain(left_out).find_map(without)?;
        let is_enough = match is_closed {
            true => linked.len() == here.len() && self.is_complete(group, &linked),
            false => linked.len() >= self.swarm.min_world(group) as usize,
        };
        let since = Instant(self.now.0.saturating_sub(calm.as_nanos() as u64));
        let is_calm = |host: &HostId| {
            let host = &self.hosts[host.0];
            let is_heard = !host.up_blocked && !host.down_blocked && host.slowness == 1;
            let is_here = host.run == Some(self.checkers.run) && host.connection.is_some();
            is_heard && is_here && host.is_running() && host.is_calm_since(since)
        };
        (is_enough && linked.iter().all(is_calm)).then_some(linked)
    }
}
