//! The clock by which a machine measures silence; it stops while the machine itself did not run
//! (docs/protocol.md, R20).
//!
//! A process may be paused at any moment: SIGSTOP, a suspended or migrated machine, swap, a slow
//! disk. What it did not hear meanwhile says nothing about others. So the clock counts an interval
//! only if the next turn came soon after the last, and it rests for a while after a late one, so
//! that queued messages are read before silence is measured again.

use std::time::Duration;

use super::Instant;
use crate::mutation::{Mutation, is_active};

/// A clock of turns. It never runs ahead of the real one, and never back.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    now: Instant,
    /// Real time of the newest turn.
    turn: Instant,
    /// Real time up to which it rests.
    rests_until: Instant,
    pace: Pace,
}

/// How often turns come, and what follows if they do not.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Longest time between two turns that counts.
    step: Duration,
    /// How long to listen after a missed turn: everybody alive says something meanwhile.
    rest: Duration,
}

impl Pace {
    /// For others that say something each `heartbeat_interval` and may be silent for
    /// `peer_timeout`.
    #[must_use]
    pub fn new(heartbeat_interval: Duration, peer_timeout: Duration) -> Self {
        Self {
            step: peer_timeout / 4,
            rest: heartbeat_interval,
        }
    }
}

impl Patience {
    /// A clock that agrees with the real one now.
    #[must_use]
    pub fn new(now: Instant, pace: Pace) -> Self {
        Self {
            now,
            turn: now,
            rests_until: now,
            pace,
        }
    }

    /// Current time of this clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The others' times are known, or others.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// The machine is called at this real time. What passed since the turn before counts, unless
    /// that turn was missed: then the whole pause is returned, and the clock rests.
    pub fn turn(&mut self, now: Instant) -> Option<Duration> {
        if self.is_late(now) {
            let pause = now.saturating_since(self.turn);
            self.turn = now;
            self.rest();
            return Some(pause);
        }
        self.skip(now);
        None
    }

    /// Whether a turn was missed if the next one is now.
    #[must_use]
    pub fn is_late(&self, now: Instant) -> bool {
        let passed = now.saturating_since(self.turn);
        passed > self.pace.step && !is_active(Mutation::PauseCounts)
    }

    /// As a turn in time: for a machine that had asked for none.
    pub fn skip(&mut self, now: Instant) {
        let from = self.turn.max(self.rests_until);
        self.now = self.now + now.saturating_since(from);
        self.turn = self.turn.max(now);
    }

    /// Whether a turn was just missed, so that input may wait that came before it.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        self.turn < self.rests_until
    }

    /// Stands still for a while, from the newest turn on.
    pub fn rest(&mut self) {
        self.rests_until = self.turn + self.pace.rest;
    }

    /// Goes back towards a time that it has just passed, by `most` at most; returns by how much.
    /// For a holder that has a reason of its own to stand still.
    pub fn stop_at(&mut self, limit: Instant, most: Duration) -> Duration {
        let beyond = self.now.saturating_since(limit);
        let back = beyond.min(most);
        self.now = self.now.min(limit + (beyond - back));
        back
    }

    /// The real time at which its time is `at`, if no turn is missed.
    #[must_use]
    pub fn real(&self, at: Instant) -> Instant {
        self.turn.max(self.rests_until) + at.saturating_since(self.now)
    }

    /// The real time by which the machine must be called again, so that a pause is told from
    /// another's silence.
    #[must_use]
    pub fn next_turn(&self) -> Instant {
        self.turn + self.pace.step / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_millis(250);
    const STEP: Duration = Duration::from_millis(1250);
    const START: Instant = Instant(5_000_000_000);

    fn clock() -> Patience {
        Patience::new(START, Pace::new(HEARTBEAT, Duration::from_secs(5)))
    }

    #[test]
    fn turns_in_time_count_in_full() {
        let mut clock = clock();
        for turn in 1..=10 {
            assert_eq!(clock.turn(START + STEP * turn), None);
            assert_eq!(clock.now(), START + STEP * turn);
            assert_eq!(clock.real(clock.now()), START + STEP * turn);
        }
    }

    #[test]
    fn a_missed_turn_counts_nothing_and_is_followed_by_a_rest() {
        let mut clock = clock();
        let pause = STEP + Duration::from_nanos(1);
        let wake = START + pause;
        assert_eq!(clock.turn(wake), Some(pause));
        assert_eq!(clock.now(), START);
        assert_eq!(clock.real(START + STEP), wake + HEARTBEAT + STEP);
        assert_eq!(clock.turn(wake + HEARTBEAT / 2), None);
        assert!(clock.is_resting());
        assert_eq!(clock.now(), START, "it listens first");
        assert_eq!(clock.turn(wake + HEARTBEAT * 2), None);
        assert!(!clock.is_resting());
        assert_eq!(clock.now(), START + HEARTBEAT);
    }

    #[test]
    fn a_pause_during_the_rest_begins_it_anew() {
        let mut clock = clock();
        clock.turn(START + STEP * 2);
        clock.turn(START + STEP * 4);
        clock.turn(START + STEP * 4 + HEARTBEAT);
        assert_eq!(clock.now(), START);
        clock.turn(START + STEP * 4 + HEARTBEAT * 2);
        assert_eq!(clock.now(), START + HEARTBEAT);
    }

    #[test]
    fn it_asks_to_be_called_well_before_a_turn_is_missed() {
        let mut clock = clock();
        for _ in 0..100 {
            let next = clock.next_turn();
            assert_eq!(clock.turn(next), None);
        }
        assert_eq!(clock.now(), START + STEP / 2 * 100);
    }

    #[test]
    fn a_holder_may_keep_it_from_going_on() {
        let mut clock = clock();
        clock.turn(START + STEP);
        let limit = START + STEP / 2;
        assert_eq!(clock.stop_at(limit, STEP), STEP / 2);
        assert_eq!(clock.now(), limit);
        assert_eq!(clock.stop_at(limit, STEP), Duration::ZERO);
        clock.turn(START + STEP * 2);
        assert_eq!(clock.stop_at(limit, STEP / 4), STEP / 4);
        assert_eq!(clock.now(), limit + STEP / 4 * 3);
    }
}
