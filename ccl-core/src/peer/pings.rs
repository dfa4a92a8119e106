//! When the heartbeats were sent that the master has yet to answer.
//!
//! It answers them in order. One that says other things and leaves heartbeats unanswered costs no
//! memory: beyond a limit they count as sent with the last that was noted, so a lease that follows
//! from an answer is too short rather than too long.

use std::collections::VecDeque;

use crate::limits::PINGS_TIMED_MAX;
use crate::time::Instant;

/// The unanswered heartbeats of one connection.
#[derive(Debug, Default)]
pub(super) struct Pings(VecDeque<Sent>);

/// Heartbeats that count as sent at once.
#[derive(Debug)]
struct Sent {
    at: Instant,
    count: u64,
}

impl Pings {
    /// One is sent.
    pub fn note(&mut self, now: Instant) {
        let is_full = self.0.len() >= PINGS_TIMED_MAX;
        match self.0.back_mut().filter(|_| is_full) {
            Some(last) => last.count += 1,
            None => self.0.push_back(Sent { at: now, count: 1 }),
        }
    }

    /// The oldest is answered: when it was sent.
    pub fn answer(&mut self) -> Option<Instant> {
        let oldest = self.0.front_mut()?;
        oldest.count -= 1;
        let (at, is_last) = (oldest.at, oldest.count == 0);
        if is_last {
            self.0.pop_front();
        }
        Some(at)
    }

    /// There is a new connection.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn answers_come_in_order() {
        let mut pings = Pings::default();
        let at = |ms| Instant::default() + Duration::from_millis(ms);
        pings.note(at(1));
        pings.note(at(2));
        assert_eq!(pings.answer(), Some(at(1)));
        pings.note(at(3));
        let rest = [pings.answer(), pings.answer(), pings.answer()];
        assert_eq!(rest, [Some(at(2)), Some(at(3)), None]);
    }

    #[test]
    fn heartbeats_without_answers_cost_no_memory_and_no_lease_becomes_longer() {
        let mut pings = Pings::default();
        let at = |ping: usize| Instant::default() + Duration::from_millis(ping as u64);
        let count = 10 * PINGS_TIMED_MAX;
        (0..count).for_each(|ping| pings.note(at(ping)));
        assert_eq!(pings.0.len(), PINGS_TIMED_MAX);
        for ping in 0..count {
            assert_eq!(pings.answer(), Some(at(ping.min(PINGS_TIMED_MAX - 1))));
        }
        assert_eq!(pings.answer(), None);
    }
}
