//! Closed groups: processes that ask for one and what must hold of it (R21).
//!
//! A process may come late, twice or never, with another list, or with a used id. It makes one call
//! with the others and leaves, or gives up and leaves. So once faults stop, no process may be left.

use std::collections::BTreeMap;

use ccl_core::collective::layout::Part;
use ccl_core::ids::{GroupId, PeerId, Rank, Tag};
use ccl_core::master::SealedView;
use ccl_core::wire::control::{Fingerprint, Place};
use ccl_core::{Dtype, Kind, ReduceOp};

use super::checkers::ensure;
use super::cluster::{Event, HostId, World};
use super::faults::Fault;
use super::program::{self, Logical};

/// Ids of closed groups begin here.
pub const FIRST: u64 = 1000;
/// Most processes in closed groups at a time, waiting ones included.
const ASKERS_MAX: usize = 12;
/// Shortest and longest life of a process, in milliseconds.
const LIFE_MS: (u64, u64) = (3_000, 15_000);

/// A process that asks for a closed group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The group's id.
    pub group: GroupId,
    /// Its place; `None`: it asks for an open group.
    pub place: Option<Place>,
}

/// What is known of closed groups.
#[derive(Debug, Default)]
pub struct ClosedGroups {
    /// How many ids were asked for so far.
    asked: u64,
    /// First members of the groups that formed, by run and id.
    formed: BTreeMap<(usize, GroupId), Vec<PeerId>>,
}

impl World {
    /// Processes ask for closed groups.
    pub fn inject_askers(&mut self) {
        for _ in 0..self.fault_rng.between(1, 3) {
            let after = self.fault_rng.millis(0, 8000);
            self.schedule(after, Event::Fault(Fault::AskAll));
        }
    }

    /// Processes ask for one closed group.
    pub fn ask_all(&mut self) {
        let closed = &mut self.closed;
        let rng = &mut self.fault_rng;
        let is_reused = closed.asked > 0 && rng.chance(400);
        let number = match is_reused {
            true => rng.below(closed.asked),
            false => closed.asked,
        };
        closed.asked = closed.asked.max(number + 1);
        let group = GroupId(FIRST + number);
        let size = rng.between(1, 4) as u32;
        let roster = u128::from(rng.bits());
        for rank in 0..size {
            let comes = match self.fault_rng.below(100) {
                0..8 => 0,
                8..13 => 2,
                _ => 1,
            };
            for _ in 0..comes {
                let list = u128::from(self.fault_rng.chance(30));
                let place = Place {
                    roster: roster ^ list,
                    size,
                    rank: Rank(rank),
                };
                let after = self.fault_rng.millis(0, 1500);
                let is_mistaken = self.fault_rng.chance(60);
                let place = (!is_mistaken).then_some(place);
                let asker = Asker { group, place };
                self.schedule(after, Event::Fault(Fault::Ask(asker)));
            }
        }
    }

    /// One process starts, unless there are too many.
    pub fn ask(&mut self, asker: Asker) {
        if self.plan.calm || self.askers().count() >= ASKERS_MAX {
            return;
        }
        let host = self.spawn_asker(asker);
        let (shortest, longest) = LIFE_MS;
        let life = self.fault_rng.millis(shortest, longest);
        self.schedule(life, Event::Fault(Fault::Leave(host)));
    }

    /// All live processes in closed groups.
    pub fn askers(&self) -> impl Iterator<Item = HostId> {
        let hosts = self.hosts.iter().enumerate();
        let askers = hosts.filter(|(_, host)| Self::is_closed_group(host.group) && host.is_live());
        askers.map(|(index, _)| HostId(index))
    }

    /// Ids of the groups of these processes.
    pub(super) fn asked_groups(&self) -> Vec<GroupId> {
        let groups = self.askers().map(|host| self.hosts[host.0].group);
        let mut groups: Vec<GroupId> = groups.collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Processes that are left leave soon.
    pub(super) fn calm_askers(&mut self) {
        for host in self.askers().collect::<Vec<_>>() {
            let after = self.fault_rng.millis(0, 2000);
            self.schedule(after, Event::Fault(Fault::Leave(host)));
        }
    }

    /// The call that a member of a closed group makes.
    pub(super) fn app_meet(&mut self, host: HostId) {
        let Some(place) = self.hosts[host.0].place else {
            return;
        };
        let parts = vec![Part {
            dtype: Dtype::I32,
            count: 5,
        }];
        let called = program::called(Kind::AllReduce, ReduceOp::Sum, &parts);
        let call = Logical {
            id: place.roster as u64,
            tag: Tag(0),
            fingerprint: Fingerprint::new(called),
            parts,
            in_place: false,
            asynchronous: false,
            twist: None,
            late: 0,
        };
        self.app_post(host, call, 1);
        if place.roster.is_multiple_of(2) {
            self.app_safe_point(host);
        }
    }

    /// Checks a sealed view: the first of a closed group has exactly the members of the list, in
    /// its order, and later ones have no others.
    ///
    /// # Errors
    /// The view has other members, or another order.
    pub(super) fn check_closed_view(&mut self, view: &SealedView) -> Result<(), String> {
        if view.group.0 < FIRST || view.members.is_empty() {
            return Ok(());
        }
        let group = view.group;
        let members = view.members.iter().map(|known| known.member.peer);
        let members: Vec<PeerId> = members.collect();
        let key = (self.checkers.run, group);
        // A master that has lost its journal knows only of groups that have members.
        let is_forgotten = |before: &Vec<PeerId>| {
            !self.keeps_all() && members.iter().all(|peer| !before.contains(peer))
        };
        let before = self.closed.formed.get(&key);
        let before = before.filter(|before| !is_forgotten(before));
        if let Some(before) = before {
            let mut rest = before.iter();
            self.stats.situation(("closed group", "went on"));
            let is_rest = members.iter().all(|peer| rest.any(|known| known == peer));
            return ensure(is_rest, || {
                format!("closed group {group} formed as {before:?} and has {members:?} (R21)")
            });
        }
        let places = view.members.iter().map(|known| {
            let mut hosts = self.hosts.iter();
            hosts.find(|host| host.key == known.member.key)?.place
        });
        let places: Vec<Option<Place>> = places.collect();
        if !view.is_closed && before.is_none() && places.iter().all(Option::is_none) {
            return Ok(());
        }
        let is_listed = |(rank, place): (usize, &Option<Place>)| {
            place.is_some_and(|place| {
                let first = places[0].is_some_and(|first| first.has_same_list(&place));
                first && place.rank.index() == rank && place.size as usize == members.len()
            })
        };
        ensure(places.iter().enumerate().all(is_listed), || {
            format!("closed group {group} formed as {places:?} (R21)")
        })?;
        ensure(view.is_closed, || format!("{group} was sealed as open"))?;
        self.closed.formed.insert(key, members);
        self.stats.situation(("closed group", "formed"));
        Ok(())
    }

    /// Checks why a process was refused: its group had formed, or others asked for it with another
    /// list, or for the same place. Any other reason is only for sessions of an earlier run.
    ///
    /// # Errors
    /// The reason is not true.
    pub(super) fn check_refusal(&mut self, host: HostId, why: &str) -> Result<(), String> {
        let state = &self.hosts[host.0];
        let (group, place) = (state.group, state.place);
        if !Self::is_closed_group(group) {
            return Ok(());
        }
        let others = self.hosts.iter().enumerate();
        let others = others.filter(|(index, other)| *index != host.0 && other.group == group);
        let mut others = others.map(|(_, other)| other.place);
        let waits_with = |other: Option<Place>| match (place, other) {
            (Some(own), Some(other)) => own.has_same_list(&other),
            (own, other) => own == other,
        };
        let is_true = if why.starts_with("id ") {
            let mut sealed = self.checkers.sealed.keys();
            sealed.any(|(_, id)| *id == group)
        } else if why.contains("another list") {
            others.any(|other| !waits_with(other))
        } else if why.contains("another process") {
            others.any(|other| other == place)
        } else {
            state.run.is_some()
        };
        self.stats.situation(("closed group", "process refused"));
        ensure(is_true, || format!("{host:?} was refused: {why} (R21)"))
    }

    /// Whether no process is left in a closed group, and the master knows it.
    pub(super) fn are_closed_groups_over(&self) -> bool {
        let mut ids = (0..self.closed.asked).map(|number| GroupId(FIRST + number));
        self.askers().next().is_none()
            && ids.all(|id| matches!(self.phase_of(id), None | Some("Founding")))
    }

    /// Whether these are all members of a closed group that has not formed.
    pub(super) fn is_complete(&self, group: GroupId, hosts: &[HostId]) -> bool {
        let mut ranks: Vec<Rank> = Vec::new();
        for host in hosts {
            let Some(place) = self.hosts[host.0].place else {
                return false;
            };
            if place.size as usize != hosts.len() {
                return false;
            }
            ranks.push(place.rank);
        }
        ranks.sort_unstable();
        ranks.dedup();
        let has_formed = self.closed.formed.contains_key(&(self.checkers.run, group));
        !hosts.is_empty() && ranks.len() == hosts.len() && !has_formed
    }

    /// Whether a group is one of those that are asked for.
    pub fn is_closed_group(group: GroupId) -> bool {
        group.0 >= FIRST
    }
}
