//! Opens the windows of a new link before it is used.
//!
//! Pure but for the padding itself. The system lets a new connection send some ten segments in the
//! first round trip, and twice as many in each that follows, so the first call over a long path
//! would take twice as long as the next. As long as a new link has nothing to send, its lanes send
//! padding, as much as their windows allow, until a queue builds up, something gets lost, or
//! enough was sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::lane::Lane;
use super::tuner::{LaneSample, is_queued};
use crate::limits::SEGMENT_BYTES_MAX;
use crate::lock::Mutex;

/// The probes of one peer's links, since these may share an uplink.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes(Arc<Mutex<Account>>);

/// What the probes under way have sent.
#[derive(Debug, Default)]
struct Account {
    probes: u64,
    sent_bytes: u64,
}

/// What is still to be sent over a new link.
#[derive(Debug)]
pub(super) struct Probe {
    all: Probes,
    /// None before the first step: a link over a short path never takes one.
    sent_bytes: Option<u64>,
}

impl Probe {
    pub(super) fn new(all: &Probes) -> Self {
        Self {
            all: all.clone(),
            sent_bytes: None,
        }
    }

    /// The bytes that each lane is to send now; `None` if the probe is over.
    pub(super) fn step(&mut self, lanes: &[LaneSample]) -> Option<Vec<u32>> {
        let has_losses = lanes.iter().any(|lane| lane.condition.resent_segments > 0);
        if has_losses || is_queued(lanes) {
            return None;
        }
        let mut all = self.all.0.lock();
        let sent_bytes = self.sent_bytes.get_or_insert_with(|| {
            all.probes += 1;
            0
        });
        let fair = (BYTES_MAX_ALL / all.probes).min(BYTES_MAX);
        let own = fair.saturating_sub(*sent_bytes);
        let mut left_bytes = own.min(BYTES_MAX_ALL - all.sent_bytes);
        if left_bytes == 0 {
            return None;
        }
        let steps = lanes.iter().map(|lane| {
            let condition = lane.condition;
            let taken = condition.in_flight_bytes + condition.unsent_bytes;
            let free = condition.window_bytes.saturating_sub(taken);
            let bytes = free.min(left_bytes).min(SEGMENT_BYTES_MAX as u64);
            left_bytes -= bytes;
            *sent_bytes += bytes;
            all.sent_bytes += bytes;
            bytes as u32
        });
        Some(steps.collect())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(sent_bytes) = self.sent_bytes {
            let mut all = self.all.0.lock();
            all.probes -= 1;
            all.sent_bytes -= sent_bytes;
        }
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
/// Most padding over all links whose probes are under way.
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

    /// One probe's padding, up to its end or to so many bytes.
    fn sent_bytes(probe: &mut Probe, most: u64) -> u64 {
        let mut sent = 0;
        while sent < most
            && let Some(steps) = probe.step(&[lane(most - sent, 0)])
        {
            sent += steps.into_iter().map(u64::from).sum::<u64>();
        }
        sent
    }

    #[test]
    fn each_lane_fills_its_window() {
        let mut probe = Probe::new(&Probes::default());
        assert_eq!(
            probe.step(&[lane(14_000, 0), lane(28_000, 20_000)]),
            Some(vec![14_000, 8_000])
        );
        assert_eq!(probe.step(&[lane(14_000, 14_000)]), Some(vec![0]));
    }

    #[test]
    fn it_ends_when_enough_was_sent() {
        let mut probe = Probe::new(&Probes::default());
        assert_eq!(sent_bytes(&mut probe, u64::MAX), BYTES_MAX);
    }

    #[test]
    fn probes_that_begin_together_share_what_all_may_send() {
        let all = Probes::default();
        let mut probes = [(); 4].map(|()| Probe::new(&all));
        probes
            .iter_mut()
            .for_each(|probe| assert_eq!(sent_bytes(probe, 1), 1));
        for probe in &mut probes {
            assert_eq!(1 + sent_bytes(probe, u64::MAX), BYTES_MAX_ALL / 4);
        }
    }

    #[test]
    fn links_that_come_later_count_too() {
        let all = Probes::default();
        let mut early = [(); 2].map(|()| Probe::new(&all));
        let mut sent = 0;
        for probe in &mut early {
            sent += sent_bytes(probe, BYTES_MAX - 1000);
        }
        let mut late = [(); 4].map(|()| Probe::new(&all));
        for probe in &mut late {
            sent += sent_bytes(probe, u64::MAX);
        }
        assert_eq!(sent, BYTES_MAX_ALL, "whenever they begin");
        drop(early);
        let mut next = Probe::new(&all);
        assert_eq!(
            sent_bytes(&mut next, u64::MAX),
            BYTES_MAX_ALL / 5,
            "as two are over"
        );
    }

    #[test]
    fn a_link_that_does_not_probe_takes_nothing_from_the_others() {
        let all = Probes::default();
        let _short = [(); 9].map(|()| Probe::new(&all));
        let mut probe = Probe::new(&all);
        assert_eq!(sent_bytes(&mut probe, u64::MAX), BYTES_MAX);
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
            assert_eq!(Probe::new(&Probes::default()).step(&[lane]), None);
        }
    }
}
