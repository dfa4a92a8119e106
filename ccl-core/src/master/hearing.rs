//! Whether the master is fit to judge: it runs, and it hears somebody (R19).
//!
//! All waiting times of the master are measured by this clock. It stands still over its own pauses
//! (`Patience`), and as long as no member at all is heard: then it is more likely that the master
//! is cut off, or that all stood still together, than that all are gone. That ends after
//! `detach_timeout`, when none of them can be alive any more.

use std::time::Duration;

use crate::config::Timers;
use crate::mutation::{Mutation, is_active};
use crate::time::{Instant, Pace, Patience};

/// The clock of the master's patience.
#[derive(Debug)]
pub(super) struct Hearing {
    patience: Patience,
    /// When a member was heard last, by this clock.
    heard: Instant,
    /// For how long it has stood still because nobody was heard.
    doubt: Duration,
    /// How long it goes on after a member was heard.
    lease: Duration,
    /// Longest doubt.
    doubt_max: Duration,
}

/// What a call shows of the master itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// It did not run for so long.
    Paused(Duration),
    /// From now on it stands still: no member is heard.
    Doubts,
}

impl Hearing {
    pub fn new(timers: &Timers, now: Instant) -> Self {
        let pace = Pace::new(timers.heartbeat_interval, timers.peer_timeout);
        Self {
            patience: Patience::new(now, pace),
            heard: now,
            doubt: Duration::ZERO,
            lease: timers.peer_timeout / 2,
            doubt_max: timers.detach_timeout,
        }
    }

    /// Its time.
    pub fn now(&self) -> Instant {
        self.patience.now()
    }

    /// Whether a call now would come after a pause of the master.
    pub fn is_late(&self, now: Instant) -> bool {
        self.patience.is_late(now)
    }

    /// Nothing was waited for since the last call: then its pause means nothing.
    pub fn skip(&mut self, now: Instant) {
        self.patience.skip(now);
    }

    /// The master is called. `expects` says whether any member is connected and could be heard.
    pub fn turn(&mut self, now: Instant, expects: impl FnOnce() -> bool) -> Option<Notice> {
        let before = self.patience.now();
        if let Some(pause) = self.patience.turn(now) {
            return Some(Notice::Paused(pause));
        }
        let limit = self.limit().max(before);
        let is_silent = self.patience.now() > limit && self.doubt < self.doubt_max;
        let never_doubts =
            is_active(Mutation::DeafMasterJudges) || is_active(Mutation::PauseCounts);
        if !is_silent || never_doubts || !expects() {
            return None;
        }
        let is_new = self.doubt.is_zero();
        self.doubt += self.patience.stop_at(limit);
        is_new.then_some(Notice::Doubts)
    }

    /// A member says something. If nobody had been heard for long, the others now have a while to
    /// be heard, too.
    pub fn hear(&mut self) {
        self.heard = self.patience.now();
        if !std::mem::take(&mut self.doubt).is_zero() {
            self.patience.rest();
        }
    }

    /// Whether it rests, so that what waits is heard first.
    pub fn is_resting(&self) -> bool {
        self.patience.is_resting()
    }

    /// When the master is to be called for something that is due at `at` by this clock.
    pub fn call_at(&self, at: Instant) -> Instant {
        let next = self.patience.next_turn();
        // As long as it stands still, nothing becomes due.
        match self.is_in_doubt() && at > self.now() {
            true => next,
            false => self.patience.real(at).min(next),
        }
    }

    fn is_in_doubt(&self) -> bool {
        !self.doubt.is_zero() && self.doubt < self.doubt_max
    }

    fn limit(&self) -> Instant {
        self.heard + self.lease
    }
}
