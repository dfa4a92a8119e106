//! Control connections that are not identified yet: limited in number, time and memory.
//!
//! Anyone who can reach the port gets this far. Once a connection has identified itself, it is no
//! longer this file's concern.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits::{UNIDENTIFIED_BYTES_MAX, UNIDENTIFIED_MAX};
use crate::master::ConnectionId;
use crate::time::Instant;

/// The unidentified connections, oldest first: ids are given in order of acceptance.
#[derive(Debug, Default)]
pub(super) struct Door {
    waiting: BTreeMap<ConnectionId, Waiting>,
    buffered_bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    buffered_bytes: usize,
}

impl Door {
    /// How long to wait before the next connection may be accepted. A full door waits for its
    /// oldest to have had a fair chance: peers that all come at once must not push each other out.
    pub fn pause(&self, now: Instant) -> Duration {
        let is_full = self.waiting.len() >= UNIDENTIFIED_MAX;
        let oldest = self.waiting.first_key_value().filter(|_| is_full);
        oldest.map_or(Duration::ZERO, |(_, oldest)| {
            FAIR_CHANCE.saturating_sub(now - oldest.since)
        })
    }

    /// Adds a connection; returns the one that must give way to it.
    pub fn enter(&mut self, id: ConnectionId, now: Instant) -> Option<ConnectionId> {
        let is_full = self.waiting.len() >= UNIDENTIFIED_MAX;
        let leaving = if is_full {
            self.turn_out_oldest()
        } else {
            None
        };
        let waiting = Waiting {
            since: now,
            buffered_bytes: 0,
        };
        let previous = self.waiting.insert(id, waiting);
        assert!(previous.is_none(), "connection ids are never reused");
        leaving
    }

    /// Notes how much a connection's unfinished message takes; the one that must give way if that
    /// is too much in all.
    pub fn buffer(&mut self, id: ConnectionId, bytes: usize) -> Option<ConnectionId> {
        let waiting = self.waiting.get_mut(&id)?;
        self.buffered_bytes = self.buffered_bytes - waiting.buffered_bytes + bytes;
        waiting.buffered_bytes = bytes;
        if self.buffered_bytes > UNIDENTIFIED_BYTES_MAX {
            return self.turn_out_oldest();
        }
        None
    }

    /// Forgets a connection that has identified itself or ended. Returns whether it was known here.
    pub fn leave(&mut self, id: ConnectionId) -> bool {
        let Some(waiting) = self.waiting.remove(&id) else {
            return false;
        };
        self.buffered_bytes -= waiting.buffered_bytes;
        true
    }

    fn turn_out_oldest(&mut self) -> Option<ConnectionId> {
        let oldest = *self.waiting.first_key_value()?.0;
        self.leave(oldest);
        Some(oldest)
    }
}

/// How long the oldest of a full door is kept at least.
const FAIR_CHANCE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(1_000_000_000);

    fn full() -> Door {
        let mut door = Door::default();
        for id in 0..UNIDENTIFIED_MAX as u64 {
            assert_eq!(door.pause(START), Duration::ZERO);
            assert_eq!(door.enter(ConnectionId(id), START), None);
        }
        door
    }

    #[test]
    fn the_oldest_gives_way_after_its_fair_chance() {
        let mut door = full();
        assert_eq!(door.pause(START), FAIR_CHANCE);
        let later = START + FAIR_CHANCE;
        assert_eq!(door.pause(later), Duration::ZERO);
        let id = ConnectionId(1000);
        assert_eq!(door.enter(id, later), Some(ConnectionId(0)));
        assert_eq!(door.enter(ConnectionId(1001), later), Some(ConnectionId(1)));
    }

    #[test]
    fn whoever_says_who_it_is_makes_room() {
        let mut door = full();
        assert!(door.leave(ConnectionId(5)));
        assert!(!door.leave(ConnectionId(5)));
        assert_eq!(door.pause(START), Duration::ZERO);
        assert_eq!(door.enter(ConnectionId(1000), START), None);
    }

    #[test]
    fn a_thousand_junk_connections_never_hold_more_than_the_budget() {
        let mut door = Door::default();
        let mut held = BTreeMap::new();
        for id in 0..1000 {
            let id = ConnectionId(id);
            if let Some(gone) = door.enter(id, START) {
                held.remove(&gone);
            }
            for bytes in [100_000, 1_000_000] {
                held.insert(id, bytes);
                if let Some(gone) = door.buffer(id, bytes) {
                    held.remove(&gone);
                }
                let total: usize = held.values().sum();
                assert!(total <= UNIDENTIFIED_BYTES_MAX + bytes);
                assert_eq!(total, door.buffered_bytes);
            }
        }
        assert!(held.len() > 1, "the budget is used");
    }
}
