//! Newcomers: which of them may be admitted together.
//!
//! When they are admitted (at a safe point, or as a group's first members) is the group's business.

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
}

impl Newcomer {
    fn knows(&self, peer: PeerId) -> bool {
        self.linked
            .as_ref()
            .is_some_and(|linked| linked.contains(&peer))
    }
}

/// Newcomers that may be admitted together: each is linked with all of `members`, and any two say
/// so of each other. Earlier sessions come first; a view never grows beyond its limit.
pub(super) fn choose(
    members: &BTreeSet<PeerId>,
    newcomers: &BTreeMap<PeerId, Newcomer>,
    now: Instant,
) -> Vec<PeerId> {
    let mut chosen: Vec<PeerId> = Vec::new();
    for (&peer, newcomer) in newcomers {
        if members.len() + chosen.len() >= limits::WORLD_SIZE_MAX {
            break;
        }
        let Some(linked) = &newcomer.linked else {
            continue;
        };
        let mutual = |other: &PeerId| {
            linked.contains(other) && newcomers.get(other).is_some_and(|other| other.knows(peer))
        };
        let ready = members.is_subset(linked) && chosen.iter().all(mutual);
        if ready && newcomer.not_before <= now {
            chosen.push(peer);
        }
    }
    chosen
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
