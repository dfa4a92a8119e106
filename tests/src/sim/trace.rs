//! The history of one simulated run: always a digest, lines only on demand.
//!
//! Formatting costs more than simulating, so a failing run is run again with lines: the same seed
//! gives the same history.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

use ccl_core::time::Instant;

use super::rng::mix;

/// Lines that a failure prints.
pub const LINES_MAX: usize = 400;

/// The history so far.
#[derive(Debug)]
pub struct Trace {
    digest: u64,
    events: u64,
    lines: Option<VecDeque<String>>,
    print: bool,
}

impl Trace {
    /// An empty history that keeps its newest lines, or none.
    #[must_use]
    pub fn new(keep_lines: bool, print: bool) -> Self {
        Self {
            digest: 0,
            events: 0,
            lines: keep_lines.then(VecDeque::new),
            print,
        }
    }

    /// Folds an event into the digest.
    pub fn fold(&mut self, now: Instant, what: &[u64]) {
        self.events += 1;
        self.digest = mix(self.digest.rotate_left(5) ^ now.0);
        for &value in what {
            self.digest = mix(self.digest.rotate_left(5) ^ value);
        }
    }

    /// Adds a line, formatted only if lines are kept.
    pub fn line(&mut self, now: Instant, what: fmt::Arguments<'_>) {
        let Some(lines) = &mut self.lines else {
            return;
        };
        let mut line = String::new();
        let _ = write!(line, "{now} {what}");
        if self.print {
            println!("{line}");
        }
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Whether lines are kept.
    #[must_use]
    pub fn keeps_lines(&self) -> bool {
        self.lines.is_some()
    }

    /// Digest of all that happened.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Number of events.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The newest lines, oldest first.
    #[must_use]
    pub fn into_lines(self) -> Vec<String> {
        self.lines.map(Vec::from).unwrap_or_default()
    }
}
