//! How long the members of a group may go on without a master (R19).
//!
//! Members that are cut off together can commit among themselves, as long as all of them take part.
//! So a group whose members were all lost is not founded anew before their leases have ended,
//! unless one of them is known to have stopped. Leases are in real time, as at the members.

use std::time::Duration;

use crate::master::group::Group;
use crate::master::group::phase::Phase;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::timers::Timers;
use crate::wire::control::EvictReason;

/// What is known about the members of the newest view.
#[derive(Debug, Default)]
pub struct Leases {
    /// Whether one of them takes part in no further commit: it has flushed, or its process ended.
    is_halted: bool,
    /// When the leases of those that were lost end.
    until: Option<Instant>,
    /// When those of members end that were lost while an operation was carried. Its members may be
    /// others than the view's, so that nobody who has flushed takes part in it.
    owed: Option<Instant>,
}

impl Leases {
    /// Of a group whose last view was lost at an earlier master.
    pub fn until(until: Instant) -> Self {
        Self {
            is_halted: false,
            until: Some(until),
            owed: None,
        }
    }
}

impl Group {
    /// A member has reported for the end of its view, or waits for the answer.
    pub fn note_halted(&mut self) {
        if matches!(self.phase, Phase::Suspended(_)) {
            self.leases.is_halted = true;
        }
    }

    /// A rebuilt group: its members have all attached, or cannot be alive.
    pub fn note_all_halted(&mut self) {
        self.leases.is_halted = true;
    }

    /// A member is lost, whose lease ends then.
    pub fn note_lease(&mut self, reason: &EvictReason, ends: Instant) {
        self.leases.is_halted |= matches!(reason, EvictReason::Left | EvictReason::Died);
        self.leases.until = self.leases.until.max(Some(ends));
    }

    /// A view is installed after one with so many members.
    pub fn renew_leases(&mut self, members_before: usize) {
        let is_over = self.leases.is_halted || members_before < 2;
        let is_founding = self.view.members.is_empty();
        let until = self.leases.until.filter(|_| is_founding && !is_over);
        self.leases.is_halted = false;
        self.leases.until = until;
    }

    /// Until when the members of the last view may go on together, although all were lost.
    pub fn leased_until(&self, now: Instant) -> Option<Instant> {
        let leases = self.leases.until.max(self.leases.owed);
        let until = leases.filter(|until| *until > now);
        until.filter(|_| self.is_founding() && !is_active(Mutation::LeaseIgnored))
    }

    /// A view ends. What is carried in it may be committed by members that were lost.
    pub fn note_carried(&mut self) {
        if self.ledger.open().any(|open| open.carried) {
            self.leases.owed = self.leases.owed.max(self.leases.until);
        }
    }

    /// Whether a lost view is to be sealed as one whose members may go on.
    pub fn is_leased(&self) -> bool {
        let leases = self.leases.until.max(self.leases.owed);
        leases.is_some() && self.view.members.is_empty()
    }
}

/// How long a member may go on without a master that it last heard now.
pub fn lease(timers: &Timers) -> Duration {
    timers.peer_timeout + timers.detach_timeout
}
