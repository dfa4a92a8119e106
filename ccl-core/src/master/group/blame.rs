//! Reports of broken links, and which peer to blame for them (R10).
//!
//! A broken link alone does not show which end is at fault. Reports of links whose repair was given
//! up form an undirected graph, collected for `blame_window`; the peer with most edges is evicted
//! first. A link still under repair is no reason by itself; it only confirms the loss of a control
//! connection.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::PeerId;
use crate::time::Instant;
use crate::wire::control::LinkFault;

/// Broken links between members of one view.
#[derive(Debug, Default)]
pub struct Blame {
    /// By (reporter, other end).
    reports: BTreeMap<(PeerId, PeerId), Broken>,
    /// When the collected reports are judged.
    due: Option<Instant>,
}

/// How a link broke, as its reporter saw it.
#[derive(Clone, Copy, Debug)]
pub struct Broken {
    /// What was wrong.
    pub fault: LinkFault,
    /// Whether repair was given up.
    pub gave_up: bool,
}

impl Blame {
    /// A member reports that its link to `target` broke; reports are judged at `due` at the latest.
    pub fn report(&mut self, from: PeerId, target: PeerId, broken: Broken, due: Instant) {
        let Broken { fault, gave_up } = broken;
        let known = self.reports.get(&(from, target));
        let gave_up = gave_up || known.is_some_and(|known| known.gave_up);
        self.reports
            .insert((from, target), Broken { fault, gave_up });
        if gave_up && self.due.is_none() {
            self.due = Some(due);
        }
    }

    /// A member reports that its link to `target` works again.
    pub fn clear(&mut self, from: PeerId, target: PeerId) {
        self.reports.remove(&(from, target));
        self.rest();
    }

    /// A member is gone: drops its reports and those about it.
    pub fn forget(&mut self, peer: PeerId) {
        self.reports
            .retain(|(from, target), _| *from != peer && *target != peer);
        self.rest();
    }

    /// Whether no link is reported as broken.
    pub fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    /// Whether a member saw this one's data connections end, or its port refuse.
    pub fn saw_end_of(&self, peer: PeerId) -> bool {
        let mut reports = self.reports.iter();
        reports.any(|((_, target), broken)| {
            let ended = matches!(broken.fault, LinkFault::Ended | LinkFault::Refused);
            *target == peer && ended
        })
    }

    /// When the collected reports are judged.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Closes the window: the links that both ends' members gave up.
    pub fn judge(&mut self) -> BTreeSet<(PeerId, PeerId)> {
        self.due = None;
        let given_up = self.reports.iter().filter(|(_, broken)| broken.gave_up);
        given_up
            .map(|(&(from, target), _)| (from.min(target), from.max(target)))
            .collect()
    }

    fn rest(&mut self) {
        if !self.reports.values().any(|broken| broken.gave_up) {
            self.due = None;
        }
    }
}

/// Picks members until no broken link is left, each with the other ends of its broken links. First
/// those that the master has not heard from either: otherwise, if one of two members hangs, the tie
/// could fall on the healthy one. Then the member with most broken links; then the latest admitted.
pub fn culprits(
    mut links: BTreeSet<(PeerId, PeerId)>,
    by_admission: &[PeerId],
    suspects: &BTreeSet<PeerId>,
) -> Vec<(PeerId, Vec<PeerId>)> {
    let mut picked = Vec::new();
    while !links.is_empty() {
        let ends = |peer: PeerId| links.iter().filter(move |(a, b)| *a == peer || *b == peer);
        let weight = |&(order, peer): &(usize, &PeerId)| {
            let degree = ends(*peer).count();
            (degree > 0, suspects.contains(peer), degree, order)
        };
        let Some((_, &worst)) = by_admission.iter().enumerate().max_by_key(weight) else {
            break;
        };
        let others: Vec<_> = ends(worst)
            .map(|&(a, b)| if a == worst { b } else { a })
            .collect();
        if others.is_empty() {
            break;
        }
        links.retain(|(a, b)| *a != worst && *b != worst);
        picked.push((worst, others));
    }
    picked
}

#[cfg(test)]
#[path = "blame_tests.rs"]
mod tests;
