//! A bottleneck: a rate, and in front of it a queue that drops what does not fit.
//!
//! The clock is virtual and exact: a bit leaves when the bits before it have left, however late the
//! emulator itself runs. Packets are not stored here; the shaper says when each leaves.

use std::time::Duration;

use crate::wan::units::Rate;

/// How much may wait in front of a bottleneck.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum QueueLimit {
    /// This many bytes.
    Bytes(u64),
    /// What leaves in this time.
    Time(Duration),
    /// This many times rate × round trip, but at least two of the largest packets: a sender's
    /// system hands over up to 64 KiB at once.
    Products(f64),
}

/// Segments of one packet that arrive together. All are of `segment_bytes` but the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// How many; at least 1.
    pub segments: u64,
    /// Bytes of each on the wire, framing included.
    pub segment_bytes: u64,
    /// Bytes of the last one.
    pub last_bytes: u64,
}

/// What a shaper took of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The first so many segments; the others were dropped.
    pub segments: u64,
    /// When the last bit of those has left.
    pub departure: Duration,
}

/// A bottleneck. Without a rate everything passes at once.
#[derive(Clone, Debug)]
pub struct Shaper {
    rate: Option<Rate>,
    limit: QueueLimit,
    queue_bytes: u64,
    /// When the last admitted bit has left.
    free_at: Duration,
    /// What rounding to nanoseconds has left over, in parts of a nanosecond: numerator over the
    /// rate.
    carry: u64,
    /// Segments that did not fit into the queue.
    pub dropped_segments: u64,
    /// The longest queue so far.
    pub queue_bytes_max: u64,
}

impl Shaper {
    /// An unlimited one, whose queue has this limit once it has a rate.
    pub const fn new(limit: QueueLimit) -> Self {
        Self {
            rate: None,
            limit,
            queue_bytes: 0,
            free_at: Duration::ZERO,
            carry: 0,
            dropped_segments: 0,
            queue_bytes_max: 0,
        }
    }

    /// Whether nothing ever waits here.
    pub const fn is_unlimited(&self) -> bool {
        self.rate.is_none()
    }

    /// Changes the rate and the limit of the queue where given; `Some(None)` removes the rate. What
    /// has been admitted leaves as announced.
    pub fn set(&mut self, rate: Option<Option<Rate>>, limit: Option<QueueLimit>) {
        self.rate = rate.unwrap_or(self.rate);
        self.limit = limit.unwrap_or(self.limit);
        self.carry = 0;
    }

    /// Computes the queue anew, from the round trip behind it.
    pub fn settle(&mut self, round_trip: Duration) {
        let Some(rate) = self.rate else { return };
        let bytes = match self.limit {
            QueueLimit::Bytes(bytes) => bytes,
            QueueLimit::Time(time) => rate.bytes_in(time),
            QueueLimit::Products(factor) => {
                let product = rate.bytes_in(round_trip) as f64 * factor;
                (product as u64).max(PRODUCTS_BYTES_MIN)
            }
        };
        self.queue_bytes = bytes.max(QUEUE_BYTES_MIN);
    }

    /// How many segments of this length leave in one piece, so that small packets of others may
    /// pass between the pieces of a large one.
    pub fn segments_per_piece(&self, segment_bytes: u64) -> u64 {
        let Some(rate) = self.rate else {
            return u64::MAX;
        };
        (rate.bytes_in(PIECE_TIME) / segment_bytes.max(1)).max(1)
    }

    /// Takes what fits of a burst that arrives at `now`.
    pub fn admit(&mut self, now: Duration, burst: &Burst) -> Admitted {
        assert!(burst.segments > 0, "a packet has at least one segment");
        let Some(rate) = self.rate else {
            return Admitted {
                segments: burst.segments,
                departure: now,
            };
        };
        if self.free_at <= now {
            self.free_at = now;
            self.carry = 0;
        }
        let waiting = rate.bytes_in(self.free_at - now);
        let room = self.queue_bytes.saturating_sub(waiting);
        let all = (burst.segments - 1) * burst.segment_bytes + burst.last_bytes;
        let (segments, bytes) = if all <= room {
            (burst.segments, all)
        } else {
            let fitting = (room / burst.segment_bytes.max(1)).min(burst.segments - 1);
            (fitting, fitting * burst.segment_bytes)
        };
        self.dropped_segments += burst.segments - segments;
        self.queue_bytes_max = self.queue_bytes_max.max(waiting + bytes);
        let taken = self.time_of(rate, bytes);
        self.free_at += taken;
        Admitted {
            segments,
            departure: self.free_at,
        }
    }

    /// Counts from 0 again.
    pub const fn reset(&mut self) {
        self.dropped_segments = 0;
        self.queue_bytes_max = 0;
    }

    /// How long so many bytes take. The remainder goes to the next.
    fn time_of(&mut self, rate: Rate, bytes: u64) -> Duration {
        let bits_per_second = u128::from(rate.bits_per_second());
        let scaled = u128::from(bytes) * 8 * 1_000_000_000 + u128::from(self.carry);
        self.carry = (scaled % bits_per_second) as u64;
        let nanos = u64::try_from(scaled / bits_per_second).unwrap_or(u64::MAX);
        Duration::from_nanos(nanos)
    }
}

/// Smallest queue: two full segments, so that one may arrive while another leaves.
const QUEUE_BYTES_MIN: u64 = 3_100;

/// Smallest queue of a limit in products: two packets of 64 KiB.
const PRODUCTS_BYTES_MIN: u64 = 131_072;

/// A packet of many segments leaves in pieces of this time: from 270 Mbit/s on always in one piece,
/// at 6 Mbit/s segment by segment.
const PIECE_TIME: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shaper(bits_per_second: u64, limit: QueueLimit) -> Shaper {
        let mut shaper = Shaper::new(limit);
        shaper.set(Some(Rate::new(bits_per_second)), None);
        shaper.settle(Duration::from_millis(100));
        shaper
    }

    fn burst(segments: u64, segment_bytes: u64) -> Burst {
        Burst {
            segments,
            segment_bytes,
            last_bytes: segment_bytes,
        }
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let mut shaper = Shaper::new(QueueLimit::Bytes(0));
        let now = Duration::from_secs(3);
        let admitted = shaper.admit(now, &burst(1000, 1500));
        assert_eq!((admitted.segments, admitted.departure), (1000, now));
    }

    #[test]
    fn bits_leave_one_after_the_other() {
        let mut shaper = shaper(1_000_000_000, QueueLimit::Bytes(1 << 20));
        let first = shaper.admit(Duration::ZERO, &burst(1, 1250));
        assert_eq!(first.departure, Duration::from_micros(10));
        let second = shaper.admit(Duration::from_micros(4), &burst(2, 1250));
        assert_eq!(second.departure, Duration::from_micros(30));
        let later = shaper.admit(Duration::from_millis(1), &burst(1, 1250));
        assert_eq!(later.departure, Duration::from_micros(1010));
    }

    #[test]
    fn the_queue_takes_what_fits_and_drops_the_tail() {
        let mut shaper = shaper(8_000_000, QueueLimit::Bytes(10_000));
        assert_eq!(shaper.admit(Duration::ZERO, &burst(7, 1500)).segments, 6);
        assert_eq!(shaper.admit(Duration::ZERO, &burst(1, 1001)).segments, 0);
        assert_eq!(shaper.admit(Duration::ZERO, &burst(1, 1000)).segments, 1);
        assert_eq!(shaper.dropped_segments, 2);
        assert_eq!(shaper.queue_bytes_max, 10_000);
        // 1 MB/s: after 5 ms 5,000 bytes have left.
        let now = Duration::from_millis(5);
        assert_eq!(shaper.admit(now, &burst(1, 5001)).segments, 0);
        assert_eq!(shaper.admit(now, &burst(1, 5000)).segments, 1);
    }

    #[test]
    fn a_last_segment_counts_its_own_bytes() {
        let mut shaper = shaper(8_000_000, QueueLimit::Bytes(4_100));
        let burst = Burst {
            segments: 3,
            segment_bytes: 1500,
            last_bytes: 100,
        };
        let admitted = shaper.admit(Duration::ZERO, &burst);
        assert_eq!(admitted.segments, 3);
        assert_eq!(admitted.departure, Duration::from_micros(3_100));
    }

    #[test]
    fn limits_in_time_and_products_follow_the_rate() {
        let bytes = |rate, limit| shaper(rate, limit).queue_bytes;
        let time = QueueLimit::Time(Duration::from_millis(10));
        assert_eq!(bytes(1_000_000_000, time), 1_250_000);
        assert_eq!(bytes(1_000_000_000, QueueLimit::Products(1.0)), 12_500_000);
        assert_eq!(
            bytes(1_000_000, QueueLimit::Products(1.0)),
            PRODUCTS_BYTES_MIN
        );
        assert_eq!(bytes(1_000_000, QueueLimit::Bytes(0)), QUEUE_BYTES_MIN);
    }

    #[test]
    fn pieces_last_two_milliseconds() {
        let pieces = |rate| shaper(rate, QueueLimit::Bytes(0)).segments_per_piece(1538);
        assert_eq!(pieces(1_000_000_000), 162);
        assert_eq!(pieces(100_000_000), 16);
        assert_eq!(pieces(1_000_000), 1);
    }

    proptest! {
        /// Over any busy period the bytes leave at the rate, to the nanosecond.
        #[test]
        fn rounding_does_not_add_up(
            rate in 1_000_u64..20_000_000_000,
            lengths in prop::collection::vec(1_u64..70_000, 1..200),
        ) {
            let mut shaper = shaper(rate, QueueLimit::Bytes(u64::MAX / 2));
            let mut departure = Duration::ZERO;
            for bytes in &lengths {
                departure = shaper.admit(Duration::ZERO, &burst(1, *bytes)).departure;
            }
            let bits = u128::from(lengths.iter().sum::<u64>()) * 8;
            let exact = bits * 1_000_000_000 / u128::from(rate);
            prop_assert_eq!(departure.as_nanos(), exact);
        }

        /// The queue never holds more than its limit, and departures never go back.
        #[test]
        fn the_queue_keeps_its_limit(
            bursts in prop::collection::vec((0_u64..2_000, 1_u64..45, 60_u64..1_538), 1..200),
        ) {
            let mut shaper = shaper(50_000_000, QueueLimit::Bytes(60_000));
            let mut now = Duration::ZERO;
            let mut last = Duration::ZERO;
            for (wait, segments, bytes) in bursts {
                now += Duration::from_micros(wait);
                let admitted = shaper.admit(now, &burst(segments, bytes));
                prop_assert!(admitted.segments <= segments);
                if admitted.segments > 0 {
                    prop_assert!(admitted.departure >= last.max(now));
                    last = admitted.departure;
                }
                prop_assert!(shaper.queue_bytes_max <= 60_000);
            }
        }
    }
}
