//! Admission: which newcomers may be admitted together.
//!
//! Finding a largest set of fully linked newcomers takes exponential time. So this uses the method
//! of blame (R10): as long as links are missing, leave out the newcomer that misses most. A
//! newcomer that no one can reach cannot keep the others out.
//!
//! The group decides when to admit (at a safe point, or in its first view); `unit` decides which
//! unit enters when.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::PeerId;
use crate::limits;
use crate::master::session::backoff::Held;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::Place;

/// A registered peer that is not a member yet.
#[derive(Debug)]
pub struct Newcomer {
    /// Fewest members it wants to work with.
    pub min_world: u32,
    /// Its place among the members of a closed group.
    pub place: Option<Place>,
    /// Peers to which it reported a whole link. `None` until it reports over its present
    /// connection.
    pub linked: Option<BTreeSet<PeerId>>,
    /// What keeps it waiting, if anything does.
    pub held: Option<Held>,
    /// The first safe point at which it may be admitted.
    pub turn: Turn,
}

/// The safe points at which a newcomer may be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// At any.
    Any,
    /// Its unit is not whole yet.
    Waits,
    /// At this one only, as the others of its unit in their groups.
    At(u64),
}

impl Newcomer {
    /// Whether these members' links allow it to enter their group.
    fn is_fit(&self, members: &BTreeSet<PeerId>, now: Instant) -> bool {
        let linked = self.linked.as_ref();
        let is_held = self.held.is_some_and(|held| held.until > now);
        !is_held && linked.is_some_and(|linked| members.is_subset(linked))
    }

    fn has_turn(&self) -> bool {
        matches!(self.turn, Turn::At(_))
    }

    fn knows(&self, peer: PeerId) -> bool {
        self.linked
            .as_ref()
            .is_some_and(|linked| linked.contains(&peer))
    }
}

/// Newcomers that may be admitted together: each is linked with all of `members`, and any two are
/// linked with each other. Those whose turn has come are first, then a linked set of the others,
/// earlier sessions first. No newcomer is chosen that would keep out one whose turn is set, because
/// it takes its place or lacks a link to it. A view never grows beyond its limit. `point` is the
/// number of the safe point; `None` for first members.
pub fn choose(
    members: &BTreeSet<PeerId>,
    newcomers: &BTreeMap<PeerId, Newcomer>,
    now: Instant,
    point: Option<u64>,
) -> Vec<PeerId> {
    let (told, others): (Vec<_>, Vec<_>) = newcomers
        .iter()
        .filter(|(_, newcomer)| newcomer.turn != Turn::Waits)
        .partition(|(_, newcomer)| newcomer.has_turn());
    let mut chosen: Vec<PeerId> = Vec::new();
    for &(&peer, newcomer) in &told {
        let is_due = match (newcomer.turn, point) {
            (Turn::At(turn), Some(point)) => turn <= point,
            _ => true,
        };
        let mutual = chosen
            .iter()
            .all(|&other| are_linked(newcomers, peer, other));
        let has_room = members.len() + chosen.len() < limits::WORLD_SIZE_MAX;
        if is_due && has_room && mutual && newcomer.is_fit(members, now) {
            chosen.push(peer);
        }
    }
    let company: Vec<PeerId> = told.iter().map(|&(peer, _)| *peer).collect();
    let fit = others.iter().filter(|(peer, newcomer)| {
        let mut beside = company.iter();
        newcomer.is_fit(members, now) && beside.all(|&other| are_linked(newcomers, **peer, other))
    });
    let fit: Vec<PeerId> = fit.map(|&(peer, _)| *peer).collect();
    let room = limits::WORLD_SIZE_MAX.saturating_sub(members.len() + company.len());
    let linked = LinkedSet::of(&fit, |one, other| are_linked(newcomers, one, other));
    chosen.extend(linked.together.iter().take(room));
    chosen.sort_unstable();
    chosen
}

/// Peers that are all linked with each other, and what keeps the others out.
#[derive(Debug, PartialEq, Eq)]
pub struct LinkedSet<T> {
    pub together: Vec<T>,
    /// Missing links: from the peers left out, in their order, to those that were still in.
    pub apart: Vec<(T, T)>,
}

impl<T: Copy> LinkedSet<T> {
    /// While a link is missing, the peer that misses most is left out; of several, the last in
    /// `all`. Then peers that are linked with all that remain are added again, in the order of
    /// `all`.
    pub fn of(all: &[T], are_linked: impl Fn(T, T) -> bool) -> Self {
        let apart_from = |one: usize| -> Vec<usize> {
            let others = (0..all.len()).filter(|other| *other != one);
            others
                .filter(|other| !are_linked(all[one], all[*other]))
                .collect()
        };
        let missing: Vec<Vec<usize>> = (0..all.len()).map(apart_from).collect();
        // Its missing links to those that are in.
        let mut counts: Vec<usize> = missing.iter().map(Vec::len).collect();
        let mut is_in = vec![true; all.len()];
        let mut apart = Vec::new();
        if is_active(Mutation::FoundersFirstCome) {
            let mut first: Vec<usize> = Vec::new();
            for (one, apart) in missing.iter().enumerate() {
                if !first.iter().any(|other| apart.contains(other)) {
                    first.push(one);
                }
            }
            let together = first.iter().map(|one| all[*one]).collect();
            return Self { together, apart };
        }
        let worst = |is_in: &[bool], counts: &[usize]| {
            let missed = (0..all.len()).filter(|&one| is_in[one] && counts[one] > 0);
            missed.max_by_key(|&one| (counts[one], one))
        };
        while let Some(worst) = worst(&is_in, &counts) {
            is_in[worst] = false;
            for &other in &missing[worst] {
                counts[other] -= 1;
                if is_in[other] {
                    apart.push((all[worst], all[other]));
                }
            }
        }
        for one in 0..all.len() {
            if !is_in[one] && counts[one] == 0 {
                is_in[one] = true;
                missing[one].iter().for_each(|&other| counts[other] += 1);
            }
        }
        let together = (0..all.len())
            .filter(|&one| is_in[one])
            .map(|one| all[one])
            .collect();
        Self { together, apart }
    }
}

/// Whether a newcomer could be admitted now, together with all whose turn is set.
pub fn is_ready(
    peer: PeerId,
    members: &BTreeSet<PeerId>,
    newcomers: &BTreeMap<PeerId, Newcomer>,
    now: Instant,
) -> bool {
    let told = newcomers.iter().filter(|(_, newcomer)| newcomer.has_turn());
    let told: Vec<PeerId> = told.map(|(peer, _)| *peer).collect();
    let mutual = told.iter().all(|&other| are_linked(newcomers, peer, other));
    let has_room = members.len() + told.len() < limits::WORLD_SIZE_MAX;
    let newcomer = newcomers.get(&peer);
    has_room && mutual && newcomer.is_some_and(|newcomer| newcomer.is_fit(members, now))
}

/// Whether a newcomer and each newcomer among `others` report links to each other.
pub fn are_all_linked<'a>(
    newcomers: &BTreeMap<PeerId, Newcomer>,
    peer: PeerId,
    others: impl Iterator<Item = &'a PeerId>,
) -> bool {
    let mut beside = others.filter(|other| newcomers.contains_key(other));
    beside.all(|&other| are_linked(newcomers, peer, other))
}

fn are_linked(newcomers: &BTreeMap<PeerId, Newcomer>, one: PeerId, other: PeerId) -> bool {
    let knows = |one, other| {
        newcomers
            .get(&one)
            .is_some_and(|newcomer| newcomer.knows(other))
    };
    knows(one, other) && knows(other, one)
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
