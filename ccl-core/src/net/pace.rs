//! Rate limits: doubling pauses between attempts, and a limit on log lines about bad input.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::Mutex;

/// A pause that doubles with each failure.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// From `least` to `most`.
    #[must_use]
    pub const fn new(least: Duration, most: Duration) -> Self {
        Self { next: least, most }
    }

    /// How long to wait after one more failure.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.most);
        pause
    }
}

/// Log lines about connections that were ended for what came over them.
#[derive(Debug)]
pub struct Warnings {
    what: &'static str,
    limiter: Mutex<Limiter>,
}

impl Warnings {
    /// `what` begins each line.
    #[must_use]
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            limiter: Mutex::default(),
        }
    }

    /// Warns that a connection was ended, unless there were too many warnings just now.
    pub fn warn(&self, address: SocketAddr, reason: impl Display) {
        if let Some(suppressed) = self.limiter.lock().admit(Instant::now()) {
            tracing::warn!(%address, %reason, suppressed, "{}", self.what);
        }
    }
}

/// Lets a burst through in each window, and counts the rest: a sender of junk must not fill the
/// disk with complaints about it.
#[derive(Debug, Default)]
struct Limiter {
    window_start: Option<Instant>,
    in_window: u32,
    suppressed: u64,
}

impl Limiter {
    /// Whether a line may be written now, and how many were left out since the last one.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let is_over = |start: Instant| now.duration_since(start) >= WINDOW;
        if self.window_start.is_none_or(is_over) {
            self.window_start = Some(now);
            self.in_window = 0;
        }
        if self.in_window == LINES_A_WINDOW {
            self.suppressed += 1;
            return None;
        }
        self.in_window += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// Length of a window.
const WINDOW: Duration = Duration::from_secs(5);
/// Lines that a window lets through: enough to see what happens, too few to fill a disk.
const LINES_A_WINDOW: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_the_next_window_speaks_again() {
        let mut limiter = Limiter::default();
        let start = Instant::now();
        let admitted = (0..1000).filter_map(|_| limiter.admit(start));
        assert_eq!(admitted.collect::<Vec<_>>(), [0; LINES_A_WINDOW as usize]);
        let late = start + WINDOW - Duration::from_millis(1);
        assert_eq!(limiter.admit(late), None);
        assert_eq!(limiter.admit(start + WINDOW), Some(996));
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(3));
        assert_eq!([1, 2, 3, 3].map(seconds), [(); 4].map(|()| backoff.pause()));
    }
}
