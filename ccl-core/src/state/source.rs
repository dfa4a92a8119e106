//! How many requests a source of shared state gets at a time, depending on how fast it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::What;
use crate::time::Instant;

/// Asks that a source is trusted with before it has shown how quick it is.
const WINDOW_START: usize = 4;
/// Most asks open at one source: 128 MiB, enough for 10 Gbit/s over 100 ms.
pub(super) const WINDOW_MAX: usize = 512;
/// The same where frames hold many small blocks, which the source has to copy together.
pub(super) const WINDOW_MAX_SMALL: usize = 32;
/// Asks wait this long at a source, beyond the way there and back: longer queues gain nothing.
const QUEUE_TARGET: Duration = Duration::from_millis(30);
/// An ask is not given to a second source before it is this old.
const SECOND_AFTER_MIN: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Source {
    /// Open asks by first block: how many blocks, and when they were made.
    pub open: BTreeMap<(What, u32), (u32, Instant)>,
    window: usize,
    /// Shortest answer so far: the way there and back.
    base: Duration,
    /// How long answers take now.
    latency: Duration,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            window: WINDOW_START,
            base: Duration::MAX,
            latency: Duration::ZERO,
        }
    }
}

impl Source {
    pub fn has_room(&self) -> bool {
        self.open.len() < self.window
    }

    /// How old an ask elsewhere must be before it is worth asking this source.
    pub fn patience(&self) -> Duration {
        (self.latency * 2).max(SECOND_AFTER_MIN)
    }

    /// The window grows while answers come quickly: doubled each round trip at first, and shrinks
    /// when asks only wait in the source's queue.
    pub fn learn(&mut self, latency: Duration, cap: usize) {
        self.base = self.base.min(latency);
        self.latency = (self.latency * 7 + latency) / 8;
        let target = self.base * 2 + QUEUE_TARGET;
        if latency <= target {
            self.window = (self.window + 1).min(cap);
        } else if latency > target * 2 && self.window > 2 {
            self.window -= 1;
        }
    }
}
