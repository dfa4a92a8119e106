//! How long the members of a group may go on without a master (R19).
//!
//! Members that are cut off together can commit among themselves, as long as all of them take part.
//! So a group whose members were all lost is not founded anew before their leases have ended,
//! unless one of them is known to have stopped. An operation that was carried may have other
//! members than its view: as long as none of these has stopped, their leases count too. Leases are
//! in real time, as at the members.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::PeerId;
use crate::master::group::Group;
use crate::master::group::phase::Phase;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::timers::Timers;
use crate::wire::control::EvictReason;

/// What is known about the members that a view loses as it ends.
#[derive(Debug, Default)]
pub struct Leases {
    /// When the last lease of them ends.
    pub end: Option<Instant>,
    /// Whether a member takes part in no further commit: it has flushed, or its process ended.
    pub is_halted: bool,
}

impl Group {
    /// A member has reported for the end of its view, or waits for the answer.
    pub fn note_halted(&mut self) {
        if let Phase::Suspended(change) = &mut self.phase {
            change.leases.is_halted = true;
        }
    }

    /// A member is lost, whose lease ends then.
    pub fn note_lease(&mut self, reason: &EvictReason, end: Instant) {
        if let Phase::Suspended(change) = &mut self.phase {
            let leases = &mut change.leases;
            leases.is_halted |= matches!(reason, EvictReason::Left | EvictReason::Died);
            leases.end = leases.end.max(Some(end));
        }
    }

    /// The view ends, and nothing is decided yet: whether the lost may commit among themselves.
    pub fn keep_leases(&mut self, leases: &Leases, survivors: &BTreeSet<PeerId>) {
        let is_anybody_left = !survivors.is_empty() || leases.is_halted;
        let may_agree = !is_anybody_left && self.view.members.len() > 1;
        if may_agree || self.is_carried_by_the_lost(survivors) {
            self.leased = self.leased.max(leases.end);
        }
    }

    /// Whether an operation was carried into the view of which no member reports.
    fn is_carried_by_the_lost(&self, survivors: &BTreeSet<PeerId>) -> bool {
        let mut carried = self.ledger.open().filter(|open| open.carried);
        carried.any(|open| !open.members().iter().any(|peer| survivors.contains(peer)))
    }

    /// Until when members that were lost may go on together, if nobody else is left.
    pub fn leased_until(&self, now: Instant) -> Option<Instant> {
        let until = self.leased.filter(|until| *until > now);
        until.filter(|_| self.is_founding() && !is_active(Mutation::LeaseIgnored))
    }
}

/// How long a member may go on without a master that it last heard now.
pub fn lease(timers: &Timers) -> Duration {
    timers.peer_timeout + timers.detach_timeout
}
