//! The clock by which the master measures silence (R20). Whose messages count is decided elsewhere.
//!
//! The clock stops while the master itself is paused (`Patience`), and while no member at all is
//! heard: then it is more likely that the master is cut off, or that everything was paused, than
//! that all members died. That ends after `detach_timeout`, when no session can still be alive.

use std::time::Duration;

use crate::mutation::{Mutation, is_active};
use crate::time::{Instant, Pace, Patience};
use crate::timers::Timers;

/// The clock of the master's patience.
#[derive(Debug)]
pub struct Hearing {
    patience: Patience,
    /// A time by this clock since which a peer was heard.
    heard: Instant,
    /// How long it has stood still because no peer was heard, if it does.
    doubt: Option<Duration>,
    /// How long it runs on after a peer was heard.
    lease: Duration,
    /// Longest time that the clock may stand still for this reason.
    doubt_max: Duration,
    /// When it last resumed, by this clock.
    went_on: Option<Instant>,
}

/// What a call shows about the master itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It did not run for this long.
    Paused(Duration),
    /// Stops the clock: no member is heard.
    Doubts,
}

impl Hearing {
    pub fn new(timers: &Timers, now: Instant) -> Self {
        let (heartbeat, timeout) = (timers.heartbeat_interval, timers.peer_timeout);
        // Shorter than any timeout, even one that began at another peer's heartbeat, but longer
        // than a heartbeat that is a little late.
        let lease = (timeout.saturating_sub(heartbeat * 2)).max(timeout / 4 * 3);
        Self {
            patience: Patience::new(now, Pace::new(heartbeat, timeout)),
            heard: now,
            doubt: None,
            lease,
            doubt_max: timers.detach_timeout,
            went_on: None,
        }
    }

    /// Current time of this clock.
    pub fn now(&self) -> Instant {
        self.patience.now()
    }

    /// Whether a call now would come after a pause of the master.
    pub fn is_late(&self, now: Instant) -> bool {
        self.patience.is_late(now)
    }

    /// Nothing was waited for since the last call, so its pause means nothing.
    pub fn skip(&mut self, now: Instant) {
        self.patience.skip(now);
    }

    /// The master is called. `newest` is when it last heard a peer that counts, if one is
    /// connected.
    pub fn turn(
        &mut self,
        now: Instant,
        newest: impl FnOnce() -> Option<Instant>,
    ) -> Option<Notice> {
        let before = self.patience.now();
        if let Some(pause) = self.patience.turn(now) {
            self.went_on = Some(before);
            return Some(Notice::Paused(pause));
        }
        if self.patience.now() <= self.heard + self.lease {
            return None;
        }
        let Some(newest) = newest() else {
            // Their connections ended: no member is left that could be heard.
            self.doubt = None;
            return None;
        };
        self.heard = newest;
        if self.patience.now() < newest + self.lease {
            self.doubt = None;
            return None;
        }
        let limit = (newest + self.lease).max(before);
        let length = self.doubt.unwrap_or_default();
        let never = is_active(Mutation::DeafMasterJudges) || is_active(Mutation::PauseCounts);
        if self.patience.now() == limit || length >= self.doubt_max || never {
            return None;
        }
        let more = self.patience.stop_at(limit, self.doubt_max - length);
        let before = self.doubt.replace(length + more);
        before.is_none().then_some(Notice::Doubts)
    }

    /// A peer is heard; `newest` is as for `turn`. If none had been heard for long, it is as after
    /// a pause.
    pub fn hear(&mut self, newest: impl FnOnce() -> Option<Instant>) {
        if self.doubt.is_some() && newest() == Some(self.patience.now()) {
            self.doubt = None;
            self.patience.rest();
            self.went_on = Some(self.patience.now());
        }
    }

    /// How long it has stood still because no peer was heard, if none has been heard since.
    pub fn stood_still(&self) -> Duration {
        self.doubt.unwrap_or_default()
    }

    /// Whether waiting input must be read first.
    pub fn is_resting(&self) -> bool {
        self.patience.is_resting()
    }

    /// When, by this clock, it last resumed after it had missed a turn, or heard no peer.
    pub fn went_on(&self) -> Option<Instant> {
        self.went_on
    }

    /// When the master is to be called for something that is due at `at` by this clock.
    pub fn call_at(&self, at: Instant) -> Instant {
        let next = self.patience.next_turn();
        let stands_still = self.doubt.is_some_and(|doubt| doubt < self.doubt_max);
        // As long as it stands still, nothing becomes due.
        match stands_still && at > self.now() {
            true => next,
            false => self.patience.real(at).min(next),
        }
    }
}
