//! Opens the windows of a new link before it is used.
//!
//! Pure but for the padding itself. The system lets a new connection send some ten segments in the
//! first round trip, and twice as many in each that follows, so the first call over a long path
//! would take twice as long as the next. As long as a new link has nothing to send, its lanes send
//! padding, as much as their windows allow, until a queue builds up, something gets lost, or
//! enough was sent.

use std::sync::atomic::Ordering;

use super::lane::Lane;
use super::tuner::{LaneSample, is_queued};
use crate::limits::SEGMENT_BYTES_MAX;

/// What is still to be sent over a new link.
#[derive(Debug)]
pub(super) struct Probe {
    left_bytes: u64,
}

impl Probe {
    /// Of a peer with so many links.
    pub(super) fn new(links: usize) -> Self {
        let fair = BYTES_MAX_ALL / links.max(1) as u64;
        Self {
            left_bytes: fair.min(BYTES_MAX),
        }
    }

    /// The bytes that each lane is to send now; `None` if the probe is over.
    pub(super) fn step(&mut self, lanes: &[LaneSample]) -> Option<Vec<u32>> {
        let has_losses = lanes.iter().any(|lane| lane.condition.resent_segments > 0);
        if self.left_bytes == 0 || has_losses || is_queued(lanes) {
            return None;
        }
        let steps = lanes.iter().map(|lane| {
            let condition = lane.condition;
            let taken = condition.in_flight_bytes + condition.unsent_bytes;
            let free = condition.window_bytes.saturating_sub(taken);
            let bytes = free.min(self.left_bytes).min(SEGMENT_BYTES_MAX as u64);
            self.left_bytes -= bytes;
            bytes as u32
        });
        Some(steps.collect())
    }
}

impl Lane {
    /// Sends padding as soon as there is nothing else to send.
    pub(super) fn pad(&self, bytes: u32) {
        if bytes > 0 {
            self.padding.store(bytes, Ordering::Relaxed);
            self.wake.notify_one();
        }
    }

    pub(super) fn take_padding(&self) -> Option<u32> {
        let bytes = self.padding.swap(0, Ordering::Relaxed);
        (bytes > 0).then_some(bytes)
    }
}

/// Most padding over one link: two thirds of 1 Gbit/s times 100 ms.
pub(super) const BYTES_MAX: u64 = 8 << 20;
/// Most padding over all links, since they may share an uplink.
const BYTES_MAX_ALL: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::Condition;

    const RTT: Duration = Duration::from_millis(100);

    fn lane(window_bytes: u64, in_flight_bytes: u64) -> LaneSample {
        LaneSample {
            lane: 1,
            connection: 1,
            condition: Condition {
                window_bytes,
                in_flight_bytes,
                rtt: RTT,
                min_rtt: RTT,
                ..Condition::default()
            },
        }
    }

    #[test]
    fn each_lane_fills_its_window() {
        let mut probe = Probe::new(1);
        assert_eq!(
            probe.step(&[lane(14_000, 0), lane(28_000, 20_000)]),
            Some(vec![14_000, 8_000])
        );
        assert_eq!(probe.step(&[lane(14_000, 14_000)]), Some(vec![0]));
    }

    #[test]
    fn it_ends_when_enough_was_sent() {
        let mut probe = Probe::new(4);
        let mut sent = 0;
        while let Some(steps) = probe.step(&[lane(u64::MAX, 0); 3]) {
            sent += steps.into_iter().map(u64::from).sum::<u64>();
        }
        assert_eq!(sent, BYTES_MAX_ALL / 4);
    }

    #[test]
    fn it_ends_at_the_first_queue_or_loss() {
        let queued = Condition {
            rtt: RTT * 2,
            ..lane(14_000, 1_000).condition
        };
        let lossy = Condition {
            resent_segments: 1,
            ..lane(14_000, 1_000).condition
        };
        for condition in [queued, lossy] {
            let lane = LaneSample {
                condition,
                ..lane(0, 0)
            };
            assert_eq!(Probe::new(1).step(&[lane]), None);
        }
    }
}
