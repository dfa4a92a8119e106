//! The tuner on a simulated path: a bottleneck with a queue of a bandwidth-delay product, and
//! acknowledgements after a round trip.

use proptest::prelude::*;

use super::*;

const STEP: Duration = Duration::from_millis(5);
const RTT: Duration = Duration::from_millis(100);
/// Steps in a round trip.
const RTT_STEPS: usize = 20;
const MEGABYTE: f64 = 1e6;

/// A link with one lane over a path.
struct Path {
    now: Instant,
    tuner: Tuner,
    /// What the path takes, in bytes per second.
    rate: f64,
    /// What the sender would send without a limit.
    offered: f64,
    queue_bytes: f64,
    queue_max: Duration,
    sent_bytes: f64,
    dropped_bytes: f64,
    delivered_bytes: f64,
    /// Bytes by the step of their acknowledgement.
    under_way: VecDeque<f64>,
    resent_segments: f64,
    /// Share of the segments that gets lost and is sent again.
    loss: f64,
    /// Delay of acknowledgements in the other direction's queue, and those that wait.
    reverse: Duration,
    held_acks: f64,
}

impl Path {
    fn new(rate: f64, offered: f64) -> Self {
        Self {
            now: Instant::now(),
            tuner: Tuner::default(),
            rate,
            offered,
            queue_bytes: 0.0,
            queue_max: RTT,
            sent_bytes: 0.0,
            dropped_bytes: 0.0,
            delivered_bytes: 0.0,
            under_way: vec![0.0; RTT_STEPS].into(),
            resent_segments: 0.0,
            loss: 0.0,
            reverse: Duration::ZERO,
            held_acks: 0.0,
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        let limit = self.tuner.limit().map_or(f64::MAX, |limit| limit as f64);
        let sent = self.offered.min(limit) * STEP.as_secs_f64();
        self.sent_bytes += sent;
        self.queue_bytes += sent;
        let dropped = (self.queue_bytes - self.rate * self.queue_max.as_secs_f64()).max(0.0);
        self.queue_bytes -= dropped;
        self.resent_segments += dropped / SEGMENT_BYTES;
        self.dropped_bytes += dropped;
        let out = self.queue_bytes.min(self.rate * STEP.as_secs_f64());
        self.queue_bytes -= out;
        self.resent_segments += out * self.loss / SEGMENT_BYTES;
        self.under_way.push_back(out * (1.0 - self.loss));
        self.held_acks += self.under_way.pop_front().unwrap();
        if self.reverse.is_zero() {
            self.delivered_bytes += std::mem::take(&mut self.held_acks);
        }
        let waited = Duration::from_secs_f64(self.queue_bytes / self.rate);
        let condition = Condition {
            window_bytes: u64::MAX,
            delivered_bytes: self.delivered_bytes as u64,
            in_flight_bytes: (self.sent_bytes - self.dropped_bytes - self.delivered_bytes) as u64,
            unsent_bytes: u64::from(self.offered > 0.0),
            sent_segments: (self.sent_bytes / SEGMENT_BYTES) as u64,
            resent_segments: self.resent_segments as u64,
            rtt: RTT + waited + self.reverse,
            min_rtt: RTT,
            timeouts: 0,
        };
        let lane = LaneSample {
            lane: 1,
            connection: 1,
            condition,
        };
        let _shown = self.tuner.take(Sample {
            now: self.now,
            lanes: &[lane],
        });
    }

    fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / STEP.as_millis() {
            self.step();
        }
    }

    /// The limit as a share of what the path takes.
    fn share(&self) -> Option<f64> {
        self.tuner.limit().map(|limit| limit as f64 / self.rate)
    }
}

const SEGMENT_BYTES: f64 = 1448.0;

#[test]
fn a_full_path_gets_a_limit_close_to_its_rate_and_its_queue_drains() {
    let mut path = Path::new(117.0 * MEGABYTE, 200.0 * MEGABYTE);
    path.run(Duration::from_secs(1));
    path.offered = 0.0;
    path.run(Duration::from_secs(2));
    path.offered = 200.0 * MEGABYTE;
    for _ in 0..1000 {
        path.step();
        let share = path.share().expect("a queue stood");
        assert!((0.95..1.12).contains(&share), "{share}");
        assert!(path.queue_bytes < path.rate * 0.08, "{}", path.queue_bytes);
    }
}

#[test]
fn a_queue_without_an_end_is_noticed() {
    let mut path = Path::new(117.0 * MEGABYTE, 500.0 * MEGABYTE);
    path.queue_max = Duration::from_secs(3600);
    path.run(Duration::from_secs(1));
    assert!(path.share().is_some());
}

#[test]
fn a_path_with_room_gets_no_limit() {
    let mut path = Path::new(117.0 * MEGABYTE, 100.0 * MEGABYTE);
    path.loss = 0.01;
    path.run(Duration::from_secs(10));
    assert_eq!(path.share(), None);
}

#[test]
fn the_limit_follows_a_path_that_gets_faster() {
    let mut path = Path::new(30.0 * MEGABYTE, 200.0 * MEGABYTE);
    path.run(Duration::from_secs(5));
    path.rate *= 4.0;
    path.run(Duration::from_secs(3));
    let share = path.share().unwrap();
    assert!(share > 0.95, "{share}");
}

#[test]
fn the_limit_follows_a_path_that_gets_slower() {
    let mut path = Path::new(117.0 * MEGABYTE, 200.0 * MEGABYTE);
    path.run(Duration::from_secs(5));
    path.rate /= 2.0;
    path.run(Duration::from_secs(10));
    let share = path.share().unwrap();
    assert!((0.9..1.12).contains(&share), "{share}");
}

#[test]
fn a_queue_of_the_other_direction_neither_raises_nor_lowers_the_limit_much() {
    let mut path = Path::new(117.0 * MEGABYTE, 200.0 * MEGABYTE);
    path.run(Duration::from_secs(3));
    for round in 0..40 {
        // Acknowledgements wait for 100 ms and arrive together.
        for _ in 0..RTT_STEPS {
            path.reverse += STEP;
            path.step();
        }
        path.reverse = Duration::ZERO;
        path.run(RTT * 2);
        let share = path.share().unwrap();
        assert!((0.9..1.3).contains(&share), "round {round}: {share}");
    }
}

#[test]
fn a_cut_does_not_change_the_limit() {
    let mut path = Path::new(117.0 * MEGABYTE, 200.0 * MEGABYTE);
    path.run(Duration::from_secs(3));
    let rate = std::mem::replace(&mut path.rate, 1e-9);
    path.run(Duration::from_secs(5));
    path.rate = rate;
    path.run(Duration::from_millis(500));
    let share = path.share().unwrap();
    assert!((0.9..1.3).contains(&share), "{share}");
}

#[test]
fn a_limit_is_never_so_low_that_windows_pass_without_a_burst() {
    let mut path = Path::new(0.1 * MEGABYTE, 200.0 * MEGABYTE);
    path.run(Duration::from_secs(5));
    let limit = path.tuner.limit().unwrap();
    assert!((600_000..2_000_000).contains(&limit), "{limit}");
}

#[test]
fn a_pause_does_not_change_the_limit() {
    let mut path = Path::new(117.0 * MEGABYTE, 200.0 * MEGABYTE);
    path.run(Duration::from_secs(3));
    path.offered = 0.0;
    path.run(Duration::from_secs(1));
    let before = path.tuner.limit();
    path.run(Duration::from_secs(60));
    assert_eq!(path.tuner.limit(), before);
}

#[test]
fn a_new_connection_counts_from_zero() {
    let condition = |delivered_bytes| Condition {
        delivered_bytes,
        rtt: RTT,
        min_rtt: RTT,
        unsent_bytes: 1,
        ..Condition::default()
    };
    let lane = |connection, delivered_bytes| LaneSample {
        lane: 1,
        connection,
        condition: condition(delivered_bytes),
    };
    let now = Instant::now();
    let mut tuner = Tuner::default();
    let lanes = [lane(1, 50_000_000)];
    let _ = tuner.take(Sample { now, lanes: &lanes });
    let lanes = [lane(2, 1_000_000)];
    let now = now + RTT;
    let _ = tuner.take(Sample { now, lanes: &lanes });
    assert_eq!(tuner.delivered(), 10_000_000);
}

proptest! {
    #[test]
    fn shares_are_fair_at_least_and_pass_on_no_more_than_is_left(
        limit in 0_u64..1 << 40,
        rates in prop::collection::vec(0_u64..1 << 40, 1..33),
    ) {
        let shares = shares(limit, &rates);
        let fair = limit / rates.len() as u64;
        prop_assert!(shares.iter().all(|share| *share >= fair));
        let used: u128 = shares.iter().zip(&rates).map(|(share, rate)| match share == &fair {
            true => u128::from(*rate.min(share)),
            false => u128::from(*share),
        }).sum();
        prop_assert!(used <= u128::from(limit));
    }
}
