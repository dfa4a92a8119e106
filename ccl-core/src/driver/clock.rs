//! The only file that reads a clock.
#![expect(
    clippy::disallowed_types,
    reason = "the driver turns real time into crate::time::Instant"
)]

use std::time::{Duration, Instant as StdInstant};

use nix::time::{ClockId, clock_gettime};

use crate::time::Instant;

/// Seconds since the beginning of 2026: a number that rises from one start of a process to the
/// next, as far as the clocks can be trusted.
#[must_use]
pub fn seconds_since_2026() -> u32 {
    const BEGINNING: u64 = 1_767_225_600;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = now.map_or(0, |time| time.as_secs().saturating_sub(BEGINNING));
    u32::try_from(seconds).unwrap_or(u32::MAX / 2)
}

/// A moment that another process can compare with a later one, though clocks are set meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Which start of the system.
    pub boot: u128,
    /// Which machine; 0 if it has no name.
    pub machine: u128,
    /// Since that start, in milliseconds.
    pub up_ms: u64,
    /// By the system's clock, which may be set: since 1970, in milliseconds.
    pub wall_ms: u64,
}

impl Moment {
    /// The current moment; `None` if the system does not provide it.
    #[must_use]
    pub fn now() -> Option<Self> {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let machine = read("/etc/machine-id").and_then(|text| hexadecimal(&text));
        Some(Self {
            boot: hexadecimal(&read("/proc/sys/kernel/random/boot_id")?)?,
            machine: machine.unwrap_or(0),
            up_ms: u64::try_from(since_boot().as_millis()).unwrap_or(u64::MAX),
            wall_ms: wall.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(0)),
        })
    }

    /// How much time has passed since `earlier`, at least. A rebooted system has run since; how
    /// long it was off is not known. Of another machine nothing is.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Duration {
        let ms = if self.boot == earlier.boot {
            self.up_ms.saturating_sub(earlier.up_ms)
        } else if self.machine == earlier.machine && self.machine != 0 {
            let by_wall = self.wall_ms.saturating_sub(earlier.wall_ms);
            by_wall.min(self.up_ms)
        } else {
            0
        };
        Duration::from_millis(ms)
    }
}

fn hexadecimal(text: &str) -> Option<u128> {
    let digits: String = text.trim().chars().filter(|digit| *digit != '-').collect();
    u128::from_str_radix(&digits, 16).ok()
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
/// The time that a clock shows at its start.
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

    fn moment(boot: u128, machine: u128, up_ms: u64, wall_ms: u64) -> Moment {
        Moment {
            boot,
            machine,
            up_ms,
            wall_ms,
        }
    }

    /// Never more than has really passed, however the clock is set.
    #[test]
    fn no_more_time_is_believed_to_have_passed_than_has() {
        let ms = |later: Moment, earlier: Moment| later.since(&earlier).as_millis();
        let before = moment(1, 7, 5_000, 100_000);
        // The clock was set forward, and back.
        assert_eq!(ms(moment(1, 7, 6_500, 900_000), before), 1_500);
        assert_eq!(ms(moment(1, 7, 6_500, 1_000), before), 1_500);
        assert_eq!(ms(moment(1, 7, 4_000, 200_000), before), 0);
        // The machine was started again: since then it has run 20 s.
        assert_eq!(ms(moment(2, 7, 20_000, 900_000), before), 20_000);
        assert_eq!(ms(moment(2, 7, 20_000, 103_000), before), 3_000);
        assert_eq!(ms(moment(2, 7, 20_000, 1_000), before), 0);
        // Another machine has run for days, which proves nothing.
        assert_eq!(ms(moment(2, 8, 90_000_000, 900_000), before), 0);
        let nameless = moment(1, 0, 5_000, 100_000);
        assert_eq!(ms(moment(2, 0, 20_000, 900_000), nameless), 0);
    }

    #[test]
    fn the_system_says_what_moment_it_is() {
        let (first, second) = (Moment::now().unwrap(), Moment::now().unwrap());
        assert!(second.since(&first) < Duration::from_secs(60));
        assert!(first.boot != 0 && first.up_ms > 0 && first.wall_ms > 0);
    }
}
