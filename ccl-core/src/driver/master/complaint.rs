//! Log lines about bad input: with address and reason, but never more than a few a second.

use std::net::SocketAddr;
use std::time::Duration;

use crate::time::Instant;

/// Lets a burst of lines through, then counts. Whoever sends junk must not fill the disk with it.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    window_start: Instant,
    in_window: u32,
    suppressed: u64,
}

impl Complaints {
    /// Logs why a connection was closed.
    pub fn log(&mut self, now: Instant, address: SocketAddr, reason: &str) {
        if !self.admits(now) {
            return;
        }
        let suppressed = std::mem::take(&mut self.suppressed);
        tracing::warn!(%address, reason, suppressed, "closed a control connection");
    }

    fn admits(&mut self, now: Instant) -> bool {
        if now - self.window_start >= WINDOW {
            self.window_start = now;
            self.in_window = 0;
        }
        if self.in_window == LINES_A_WINDOW {
            self.suppressed += 1;
            return false;
        }
        self.in_window += 1;
        true
    }
}

const WINDOW: Duration = Duration::from_secs(1);
const LINES_A_WINDOW: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_the_next_second_speaks_again() {
        let mut complaints = Complaints::default();
        let start = Instant(5_000_000_000);
        let admitted = (0..1000).filter(|_| complaints.admits(start)).count();
        assert_eq!((admitted, complaints.suppressed), (10, 990));
        assert!(!complaints.admits(start + Duration::from_millis(999)));
        assert!(complaints.admits(start + Duration::from_secs(1)));
    }
}
