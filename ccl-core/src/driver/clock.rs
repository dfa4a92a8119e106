//! The one place that reads a clock.
#![expect(
    clippy::disallowed_types,
    reason = "the driver turns real time into crate::time::Instant"
)]

use std::time::Instant as StdInstant;

use crate::time::Instant;

/// Seconds since the beginning of 2026: a number that rises from one start of a process to the
/// next, as far as anybody's clock can be trusted.
#[must_use]
pub fn seconds_since_2026() -> u32 {
    const BEGINNING: u64 = 1_767_225_600;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = now.map_or(0, |time| time.as_secs().saturating_sub(BEGINNING));
    u32::try_from(seconds).unwrap_or(u32::MAX / 2)
}

/// Real time as nanoseconds since the clock was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: StdInstant,
}

impl Clock {
    /// A clock that starts now, one second after its own zero so that "long ago" exists.
    #[must_use]
    pub fn start() -> Self {
        Self {
            origin: StdInstant::now(),
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Instant {
        let nanos = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Instant(nanos.saturating_add(1_000_000_000))
    }

    /// The real time at which `instant` is.
    #[must_use]
    pub fn to_std(&self, instant: Instant) -> StdInstant {
        self.origin + std::time::Duration::from_nanos(instant.0.saturating_sub(1_000_000_000))
    }
}
