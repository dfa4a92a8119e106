//! Warnings about bytes from outside, of which there may be any number: one now and then, with the
//! count of those left out.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use crate::lock::Mutex;
use tokio::time::Instant;

/// Least time between two warnings.
const WARNING_INTERVAL: Duration = Duration::from_secs(5);

/// The limiter of one port or of one peer's lanes.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl Warnings {
    /// Warns that a connection was ended, unless a warning was given just now.
    pub(super) fn warn(&self, address: SocketAddr, reason: impl Display) {
        if let Some(suppressed) = self.state.lock().pass(Instant::now()) {
            tracing::warn!(%address, %reason, suppressed, "data connection ended");
        }
    }
}

impl State {
    /// Whether to warn at this time, and how many were left out since the last warning.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + WARNING_INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_makes_one_warning_and_a_count() {
        let now = Instant::now();
        let mut state = State::default();
        assert_eq!(state.pass(now), Some(0));
        for _ in 0..1000 {
            assert_eq!(state.pass(now), None);
        }
        assert_eq!(state.pass(now + WARNING_INTERVAL), Some(1000));
    }
}
