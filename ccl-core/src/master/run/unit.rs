//! Admits a unit as a whole: all of its peers, to all of their groups (R9).
//!
//! Groups do not look at each other, so the master does it here. Members of a unit move in
//! lockstep: if one group admitted its newcomers a safe point earlier than another, its members
//! would wait for a unit that waits for them. For the same reason, groups made of units number
//! their safe points alike: their first views begin in the same step, from the same number.
//!
//! A unit is identified by the first peer of its generation (`generation`).

use std::collections::BTreeSet;

use crate::ids::{GroupId, PeerId};
use crate::limits;
use crate::master::Master;
use crate::master::group::Group;
use crate::master::group::admission::{self, LinkedSet, Newcomer, Turn};
use crate::master::group::phase::Phase;
use crate::master::shared::Shared;
use crate::mutation::{Mutation, is_active};
use crate::wire::control::EvictReason;

/// The state of a unit whose newcomers wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Some are not registered, or not ready, or an earlier generation is not gone.
    Incomplete,
    /// Some were admitted without the others, which only a restart of the master between the
    /// admissions can cause.
    Torn,
    /// All are ready.
    Whole,
}

impl Master {
    /// Gives complete units their turn. Only units that the changed groups may have completed are
    /// checked.
    pub fn call_units(&mut self) {
        let mut tried = BTreeSet::new();
        for unit in self.waiting_units() {
            let mates = self.shared.sessions.of_generation(unit);
            match self.standing(unit) {
                _ if tried.contains(&unit) => {}
                Standing::Incomplete => {}
                Standing::Torn => {
                    for mate in mates {
                        self.shared.condemn(mate, EvictReason::UnitTorn);
                    }
                }
                Standing::Whole if self.founds(&mates).next().is_some() => {
                    tried.extend(self.found_units(unit));
                }
                Standing::Whole => self.tell_all(&[mates]),
            }
        }
    }

    fn waiting_units(&self) -> BTreeSet<PeerId> {
        let groups = self.touched.iter().filter_map(|id| self.groups.get(id));
        groups.flat_map(|group| self.units_in(group)).collect()
    }

    /// Units of which a newcomer of this group waits for its turn.
    fn units_in<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = PeerId> + 'a {
        let newcomers = group.newcomers.iter();
        let waiting = newcomers.filter(|(_, newcomer)| newcomer.turn == Turn::Waits);
        waiting.map(|(peer, _)| self.generation(*peer))
    }

    fn standing(&self, unit: PeerId) -> Standing {
        let mates = self.shared.sessions.of_generation(unit);
        let mut registrations = mates
            .iter()
            .filter_map(|peer| self.shared.sessions.get(*peer));
        let size = registrations.find_map(|session| session.registration.unit_size);
        let mut is_whole = size.is_some_and(|size| mates.len() == size as usize);
        let mut is_torn = false;
        for &peer in &mates {
            let group = &self.groups[&self.group_of(peer)];
            if matches!(group.phase, Phase::Rebuild(_)) {
                return Standing::Incomplete;
            }
            is_torn |= self.turn(peer) != Some(Turn::Waits);
            let beside = mates.iter().filter(|mate| **mate != peer);
            is_whole &= group.is_ready(&self.shared, peer)
                && admission::are_all_linked(&group.newcomers, peer, beside);
        }
        let is_next = || self.oldest_generation(unit) == unit;
        match (is_torn, is_whole) {
            (true, _) => Standing::Torn,
            (false, true) if is_next() && self.has_room(&mates, &[]) => Standing::Whole,
            (false, _) => Standing::Incomplete,
        }
    }

    /// `None` for a member.
    fn turn(&self, peer: PeerId) -> Option<Turn> {
        let group = self.groups.get(&self.group_of(peer))?;
        Some(group.newcomers.get(&peer)?.turn)
    }

    fn set_turn(&mut self, peer: PeerId, turn: Turn) {
        let group = self.group_of(peer);
        self.with_group(group, |group, _| {
            if let Some(newcomer) = group.newcomers.get_mut(&peer) {
                newcomer.turn = turn;
            }
        });
    }

    /// These units enter at one safe point: the first that no member has called in any of their
    /// groups.
    fn tell_all(&mut self, units: &[Vec<PeerId>]) {
        let next = |peer: &PeerId| self.groups[&self.group_of(*peer)].safe.next();
        let point = units.iter().flatten().map(next).max().unwrap_or_default();
        for &peer in units.iter().flatten() {
            let own = self.groups[&self.group_of(peer)].safe.next();
            let is_apart = is_active(Mutation::UnitPointOfEachGroup);
            self.set_turn(peer, Turn::At(if is_apart { own } else { point }));
        }
    }

    /// The groups of these peers that have no member.
    fn founds<'a>(&'a self, peers: &'a [PeerId]) -> impl Iterator<Item = GroupId> + 'a {
        let groups = peers.iter().map(|peer| self.group_of(*peer));
        groups.filter(|id| self.groups[id].is_founding())
    }

    /// Founds the groups without members that a whole unit wants to join, all in one step and with
    /// all units that share one of them, if each then has enough. The safe point at which the units
    /// enter their other groups counts as released in these. Returns the units that it tried.
    fn found_units(&mut self, unit: PeerId) -> BTreeSet<PeerId> {
        let around = self.units_around(unit);
        let may_enter = |unit: &PeerId| {
            let mates = self.shared.sessions.of_generation(*unit);
            self.founds(&mates)
                .all(|id| self.groups[&id].may_be_founded(&self.shared))
        };
        let may_enter: BTreeSet<PeerId> = around.iter().copied().filter(may_enter).collect();
        let mut units = self.choose_units(&may_enter);
        while let Some(short) = self.short_group(&units) {
            units.retain(|mates| self.founds(mates).all(|id| id != short));
        }
        self.found_at_once(&units);
        around
    }

    /// One of the groups without members for which these units are not enough. Their turn is set as
    /// if they were, and reset for those that do not fit.
    fn short_group(&mut self, units: &[Vec<PeerId>]) -> Option<GroupId> {
        self.tell_all(units);
        let founded = units.iter().flat_map(|mates| self.founds(mates));
        let founded: BTreeSet<GroupId> = founded.collect();
        let short = founded.into_iter().find(|id| {
            let group = &self.groups[id];
            group.first_members(&self.shared).len() < group.needed()
        });
        if short.is_some() {
            for &peer in units.iter().flatten() {
                self.set_turn(peer, Turn::Waits);
            }
        }
        short
    }

    fn found_at_once(&mut self, units: &[Vec<PeerId>]) {
        let Some(Turn::At(point)) = units.first().and_then(|mates| self.turn(mates[0])) else {
            return;
        };
        let groups = units.iter().flatten().map(|peer| self.group_of(*peer));
        let (founded, others): (BTreeSet<_>, BTreeSet<_>) =
            groups.partition(|id| self.groups[id].is_founding());
        for id in founded {
            self.with_group(id, |group, shared| {
                group.found_as_told(shared, point + u64::from(!others.is_empty()));
            });
        }
    }

    /// Units with newcomers in the same groups without members, directly or through other units.
    fn units_around(&self, unit: PeerId) -> BTreeSet<PeerId> {
        let mut units = BTreeSet::new();
        let mut groups = BTreeSet::new();
        let mut found = vec![unit];
        while let Some(unit) = found.pop() {
            if !units.insert(unit) {
                continue;
            }
            for id in self.founds(&self.shared.sessions.of_generation(unit)) {
                if groups.insert(id) {
                    found.extend(self.units_in(&self.groups[&id]));
                }
            }
        }
        units
    }

    /// Those of these units that can enter together, by their peers.
    fn choose_units(&self, units: &BTreeSet<PeerId>) -> Vec<Vec<PeerId>> {
        let whole = units
            .iter()
            .copied()
            .filter(|unit| self.standing(*unit) == Standing::Whole);
        let whole: Vec<PeerId> = whole.collect();
        let are_linked = |one: PeerId, other: PeerId| {
            let mates = self.shared.sessions.of_generation(other);
            let peers = self.shared.sessions.of_generation(one);
            peers.iter().all(|peer| {
                let newcomers = &self.groups[&self.group_of(*peer)].newcomers;
                admission::are_all_linked(newcomers, *peer, mates.iter())
            })
        };
        let mut chosen: Vec<Vec<PeerId>> = Vec::new();
        for unit in LinkedSet::of(&whole, are_linked).together {
            let mates = self.shared.sessions.of_generation(unit);
            if self.has_room(&mates, &chosen.concat()) {
                chosen.push(mates);
            }
        }
        chosen
    }

    /// Whether each group has room for these, besides those chosen before and those whose turn was
    /// set earlier.
    fn has_room(&self, mates: &[PeerId], before: &[PeerId]) -> bool {
        mates.iter().all(|peer| {
            let id = self.group_of(*peer);
            let all = mates.iter().chain(before);
            let beside = all.filter(|other| self.group_of(**other) == id).count();
            let group = &self.groups[&id];
            let before = group.view.members.len() + group.told().len();
            before + beside <= limits::WORLD_SIZE_MAX
        })
    }

    /// A group whose members have all gone has no safe point at which its newcomers could be
    /// admitted. If others of their unit are members by now, they form the next view, as if they
    /// had been admitted before; if not, their unit's turn is set anew. Returns whether anything
    /// changed.
    pub fn revise_turns(&mut self) -> bool {
        let emptied: Vec<GroupId> = self.touched.iter().copied().collect();
        let mut is_revised = false;
        for id in emptied {
            let Some(group) = self.groups.get(&id).filter(|group| group.is_founding()) else {
                continue;
            };
            let mut begun = None;
            for (peer, point) in group.told() {
                is_revised = true;
                let mates = self.shared.sessions.of_generation(self.generation(peer));
                if mates.iter().any(|mate| self.turn(*mate).is_none()) {
                    begun = begun.max(Some(point));
                } else {
                    mates
                        .iter()
                        .for_each(|mate| self.set_turn(*mate, Turn::Waits));
                }
            }
            if let Some(point) = begun {
                self.with_group(id, |group, shared| group.found_as_told(shared, point + 1));
            }
        }
        is_revised
    }
}

impl Group {
    fn is_ready(&self, shared: &Shared, peer: PeerId) -> bool {
        let members = self.view.peers().into_iter().collect();
        admission::is_ready(peer, &members, &self.newcomers, shared.now)
    }

    /// Newcomers whose turn is set, with its number.
    pub fn told(&self) -> Vec<(PeerId, u64)> {
        let told = self
            .newcomers
            .iter()
            .filter_map(|(peer, newcomer)| match newcomer.turn {
                Turn::At(point) => Some((*peer, point)),
                Turn::Any | Turn::Waits => None,
            });
        told.collect()
    }

    /// Whether no earlier member may be at work, and enough newcomers for the first view may be
    /// linked with each other. This is a cheap test, and false until the last of many hosts has
    /// connected.
    pub fn may_be_founded(&self, shared: &Shared) -> bool {
        if self.leased_until(shared.real_now).is_some() {
            return false;
        }
        let needed = self.needed();
        let links = |newcomer: &Newcomer| newcomer.linked.as_ref().map(BTreeSet::len);
        let linked = self.newcomers.values().filter_map(links);
        linked.filter(|links| links + 1 >= needed).count() >= needed
    }

    fn first_members(&self, shared: &Shared) -> Vec<PeerId> {
        admission::choose(&BTreeSet::new(), &self.newcomers, shared.now, None)
    }

    /// Founds the next view with the newcomers whose turn is set; `released` safe points count as
    /// released. Those that do not fit are given up: the others of their unit are members
    /// elsewhere.
    fn found_as_told(&mut self, shared: &mut Shared, released: u64) {
        let chosen = self.first_members(shared);
        if !chosen.is_empty() {
            if !is_active(Mutation::UnitsFoundedApart) {
                self.safe.begin(released.max(self.safe.released));
            }
            self.found_with(shared, &chosen);
        }
        for (peer, _) in self.told() {
            shared.condemn(peer, EvictReason::UnitTorn);
        }
    }

    /// Gives up newcomers whose safe point was released without them, because a link of theirs had
    /// broken or a member gave up. The others of their unit may be members by now, and would wait
    /// for them.
    pub fn give_up_late(&self, shared: &mut Shared) {
        for (&peer, newcomer) in &self.newcomers {
            if matches!(newcomer.turn, Turn::At(point) if point < self.safe.released) {
                shared.condemn(peer, EvictReason::UnitTorn);
            }
        }
    }
}
