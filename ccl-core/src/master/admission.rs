//! Newcomers: which of them may be admitted together.
//!
//! When they are admitted (at a safe point, or as a group's first members) is the group's business;
//! which unit enters when is decided in `unit`.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::PeerId;
use crate::limits;
use crate::time::Instant;

/// A registered peer that is not a member yet.
#[derive(Debug)]
pub(super) struct Newcomer {
    /// Fewest members it wants to work with.
    pub min_world: u32,
    /// Peers that it said it has a whole link to. `None` until it says so over its present
    /// connection.
    pub linked: Option<BTreeSet<PeerId>>,
    /// It is not admitted before.
    pub not_before: Instant,
    /// From which safe point on.
    pub turn: Turn,
}

/// From which safe point on a newcomer may be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// From any.
    Any,
    /// Its unit is not whole yet.
    Waits,
    /// At this one, as the others of its unit in their groups; at none later.
    At(u64),
}

impl Newcomer {
    /// Whether it may enter a group of these members, as far as they are concerned.
    fn is_fit(&self, members: &BTreeSet<PeerId>, now: Instant) -> bool {
        let linked = self.linked.as_ref();
        self.not_before <= now && linked.is_some_and(|linked| members.is_subset(linked))
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

/// Newcomers that may be admitted together: each is linked with all of `members`, and any two say
/// so of each other. Those whose turn has come are first, then earlier sessions; nobody takes a
/// place, or comes without a link, that would keep out one who was told its turn. A view never
/// grows beyond its limit. `point`: the number of the safe point; `None` for first members.
pub(super) fn choose(
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
    let mut company: Vec<PeerId> = told.iter().map(|&(peer, _)| *peer).collect();
    for &(&peer, newcomer) in &others {
        let mutual = company
            .iter()
            .all(|&other| are_linked(newcomers, peer, other));
        let has_room = members.len() + company.len() < limits::WORLD_SIZE_MAX;
        if has_room && mutual && newcomer.is_fit(members, now) {
            company.push(peer);
            chosen.push(peer);
        }
    }
    chosen.sort_unstable();
    chosen
}

/// Whether a newcomer could be admitted now, beside all who were told their turn.
pub(super) fn is_ready(
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

/// Whether a newcomer and each of `others` that is one of the same group say that they are linked.
pub(super) fn are_all_linked<'a>(
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
