//! How late packets are delivered, and whether a measurement may be trusted.
//!
//! A packet is delivered when the emulator gets the processor, not exactly when it is due.
//! Durations are counted in buckets of at most an eighth of their value, so memory is fixed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Counts of delivered packets by lateness.
#[derive(Clone, Debug)]
pub struct Lateness {
    buckets: [u64; BUCKETS],
    max: Duration,
    packets: u64,
    too_late: u64,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatenessStats {
    /// Packets delivered.
    pub packets: u64,
    /// Of those, packets later than a tenth of the delay of their link, and than
    /// [`ALLOWANCE_MIN`].
    pub too_late: u64,
    /// Lateness that half of the packets did not exceed, in microseconds, rounded up.
    pub p50_us: u64,
    /// Lateness that 99 % of the packets did not exceed, in microseconds, rounded up.
    pub p99_us: u64,
    /// The largest, in microseconds, rounded up.
    pub max_us: u64,
}

impl LatenessStats {
    /// Whether measurements made meanwhile are void: more than 1 % of the packets were too late. If
    /// all links have the same delay, that is a p99 above a tenth of it.
    pub const fn is_void(&self) -> bool {
        self.too_late * 100 > self.packets
    }
}

impl Lateness {
    /// Nothing counted.
    pub const fn none() -> Self {
        Self {
            buckets: [0; BUCKETS],
            max: Duration::ZERO,
            packets: 0,
            too_late: 0,
        }
    }

    /// Counts a packet that is this late, of a link with this delay.
    pub fn record(&mut self, late: Duration, delay: Duration) {
        self.buckets[bucket(late)] += 1;
        self.max = self.max.max(late);
        self.packets += 1;
        let allowance = (delay / 10).max(ALLOWANCE_MIN);
        self.too_late += u64::from(late > allowance);
    }

    /// What was counted so far.
    pub fn stats(&self) -> LatenessStats {
        LatenessStats {
            packets: self.packets,
            too_late: self.too_late,
            p50_us: self.quantile_us(50),
            p99_us: self.quantile_us(99),
            max_us: rounded_up_us(self.max),
        }
    }

    fn quantile_us(&self, percent: u64) -> u64 {
        let wanted = (self.packets * percent).div_ceil(100);
        let mut counted = 0;
        let reached = self.buckets.iter().position(|count| {
            counted += count;
            counted >= wanted
        });
        let bound = reached.map_or(Duration::ZERO, upper_bound);
        rounded_up_us(bound.min(self.max))
    }
}

fn rounded_up_us(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// Up to 15 ns each has its bucket; then every power of two has eight.
fn bucket(time: Duration) -> usize {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let exponent = nanos.max(1).ilog2().saturating_sub(3);
    let index = exponent as usize * 8 + (nanos >> exponent) as usize;
    index.min(BUCKETS - 1)
}

/// The longest time in this bucket.
fn upper_bound(index: usize) -> Duration {
    let exponent = (index / 8).saturating_sub(1);
    let mantissa = (index - exponent * 8) as u64;
    Duration::from_nanos(((mantissa + 1) << exponent) - 1)
}

/// Up to 2^40 ns, 18 minutes.
const BUCKETS: usize = 38 * 8;

/// Lateness that no user of the network can tell from the noise of its own system: a packet that
/// late never counts as too late.
pub const ALLOWANCE_MIN: Duration = Duration::from_micros(250);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_close_from_above() {
        let mut lateness = Lateness::none();
        for micros in 1..=1000 {
            lateness.record(Duration::from_micros(micros), Duration::from_millis(5));
        }
        let stats = lateness.stats();
        assert_eq!((stats.packets, stats.max_us), (1000, 1000));
        assert!((500..=563).contains(&stats.p50_us), "{}", stats.p50_us);
        assert!((990..=1000).contains(&stats.p99_us), "{}", stats.p99_us);
        assert_eq!(stats.too_late, 500, "later than a tenth of 5 ms");
    }

    #[test]
    fn one_late_packet_in_a_hundred_is_not_yet_void() {
        let stats = |too_late| LatenessStats {
            packets: 1000,
            too_late,
            ..LatenessStats::default()
        };
        assert!(!stats(10).is_void());
        assert!(stats(11).is_void());
        assert!(!LatenessStats::default().is_void(), "nothing was delivered");
    }

    #[test]
    fn short_delays_have_an_allowance() {
        let mut lateness = Lateness::none();
        lateness.record(ALLOWANCE_MIN, Duration::ZERO);
        assert_eq!(lateness.stats().too_late, 0);
        lateness.record(ALLOWANCE_MIN + Duration::from_nanos(1), Duration::ZERO);
        assert_eq!(lateness.stats().too_late, 1);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_what_is_counted_in_it(nanos in 0_u64..1 << 40) {
            let time = Duration::from_nanos(nanos);
            let index = bucket(time);
            let bound = upper_bound(index);
            prop_assert!(time <= bound);
            prop_assert!(bound.as_nanos() as f64 <= nanos as f64 * 1.125 + 1.0);
            prop_assert!(index == 0 || upper_bound(index - 1) < time);
        }
    }
}
