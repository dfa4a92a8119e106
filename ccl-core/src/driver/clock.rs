//! The one place that reads a clock.
#![expect(
    clippy::disallowed_types,
    reason = "the driver turns real time into crate::time::Instant"
)]

use std::time::{Duration, Instant as StdInstant};

use nix::time::{ClockId, clock_gettime};

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

/// Real time as nanoseconds since the clock was made, the sleep of the machine included: a peer
/// that slept is to know for how long it had no master (docs/protocol.md, R11 and R20).
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Duration,
}

impl Clock {
    /// A clock that starts now, one second after its own zero so that "long ago" exists.
    #[must_use]
    pub fn start() -> Self {
        Self {
            origin: since_boot(),
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Instant {
        let passed = since_boot().saturating_sub(self.origin);
        Instant(ZERO_NANOS.saturating_add(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The real time at which `instant` is, unless the machine sleeps before.
    #[must_use]
    pub fn to_std(&self, instant: Instant) -> StdInstant {
        StdInstant::now() + instant.saturating_since(self.now())
    }
}

fn since_boot() -> Duration {
    clock_gettime(RUNS_ON)
        .expect("every system that this library is built for has this clock")
        .into()
}

/// Goes on while the machine sleeps.
#[cfg(target_os = "linux")]
const RUNS_ON: ClockId = ClockId::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const RUNS_ON: ClockId = ClockId::CLOCK_MONOTONIC;
/// What a clock says when it starts.
const ZERO_NANOS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_at_one_second_and_never_goes_back() {
        let clock = Clock::start();
        let times: Vec<Instant> = (0..1000).map(|_| clock.now()).collect();
        assert!(times[0] >= Instant(ZERO_NANOS));
        assert!(times.is_sorted());
    }

    #[test]
    fn its_times_are_those_of_the_standard_library() {
        let clock = Clock::start();
        let hour = Duration::from_secs(3600);
        let before = StdInstant::now();
        let later = clock.to_std(clock.now() + hour);
        assert!(later >= before + hour - Duration::from_millis(1));
        assert!(later <= StdInstant::now() + hour);
        let past = clock.to_std(Instant(0));
        assert!(past >= before && past <= StdInstant::now());
    }
}
