//! How fast a link may send, decided from what its lanes delivered.
//!
//! Pure: samples go in, a limit on bytes per second comes out. A link begins without a limit. Once
//! a queue builds up or segments get lost and no more arrives than before, the most that arrived
//! within a round trip is what the path takes, and the limit stays close to it. A delay may come
//! from the other direction, and a loss from anything; so neither lowers the limit below what was
//! delivered. It grows as soon as more is delivered than was known to fit.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::spread::Shown;
use crate::net::Condition;

/// What is known of a link's lanes at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample<'a> {
    pub(super) now: Instant,
    pub(super) lanes: &'a [LaneSample],
}

/// What is known of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaneSample {
    pub(super) lane: u16,
    /// Which connection of the lane it is: its counters start from 0.
    pub(super) connection: u64,
    pub(super) condition: Condition,
}

/// Finds the rate of one link.
#[derive(Debug, Default)]
pub(super) struct Tuner {
    /// The samples of the last window, oldest first.
    samples: VecDeque<Moment>,
    /// The most that was delivered, in bytes per second, by window; the present one last.
    peaks: VecDeque<f64>,
    /// When the present window began.
    window_start: Option<Instant>,
    limit: Option<f64>,
    /// By how much the limit exceeds the most that was delivered, as a factor.
    gain: f64,
}

/// Counters over all connections of a link.
#[derive(Clone, Debug)]
struct Moment {
    now: Instant,
    lanes: Vec<LaneSample>,
}

/// What was delivered within a window.
#[derive(Clone, Copy, Debug)]
struct Finding {
    /// Bytes per second.
    rate: f64,
    /// Bytes wait in queues on the way.
    is_queued: bool,
    /// Share of the segments that was sent again.
    resent: f64,
    in_flight_bytes: u64,
    lanes: usize,
    /// The shortest round trip.
    rtt: Duration,
    /// More was there to send.
    is_busy: bool,
}

impl Tuner {
    /// Bytes per second that all lanes together may send; `None`: no limit.
    pub(super) fn limit(&self) -> Option<u64> {
        self.limit.map(|limit| limit as u64)
    }

    /// The most that was delivered lately, in bytes per second.
    pub(super) fn delivered(&self) -> u64 {
        self.peak() as u64
    }

    /// Takes a sample, several in each window. Returns what a busy window has shown when it ends.
    pub(super) fn take(&mut self, sample: Sample<'_>) -> Option<Shown> {
        let length = window_length(sample.lanes);
        let is_older = |moment: &Moment| moment.now + length <= sample.now;
        let mut shown = None;
        while self.samples.get(1).is_some_and(is_older) {
            self.samples.pop_front();
        }
        if let Some(start) = self.samples.front().filter(|start| is_older(start)) {
            let finding = Finding::between(start, sample);
            shown = self.judge(finding, sample.now, length);
        }
        self.samples.push_back(Moment {
            now: sample.now,
            lanes: sample.lanes.to_vec(),
        });
        shown
    }

    fn judge(&mut self, finding: Finding, now: Instant, length: Duration) -> Option<Shown> {
        let known = self.peak();
        // A pause says nothing about the path, and nor does a cut.
        if finding.rate == 0.0 || (!finding.is_busy && finding.rate < known * USED_MIN) {
            self.window_start = None;
            return None;
        }
        let start = *self.window_start.get_or_insert(now);
        match self.peaks.back_mut() {
            Some(peak) => *peak = peak.max(finding.rate),
            None => self.peaks.push_back(finding.rate),
        }
        if now < start + length {
            return None;
        }
        let is_over = finding.is_queued || finding.resent > RESENT_MAX;
        match self.limit {
            None if is_over && !self.is_growing() => {
                self.gain = GAIN;
                self.limit = Some(self.peak() * GAIN_QUEUED);
            }
            None => {}
            Some(limit) => self.adapt(limit, finding),
        }
        let least = BURST_BYTES * finding.lanes as f64 / length.as_secs_f64();
        self.limit = self.limit.map(|limit| limit.max(least));
        self.window_start = Some(now);
        self.peaks.push_back(finding.rate);
        if self.peaks.len() > WINDOWS_KEPT {
            self.peaks.pop_front();
        }
        Some(Shown {
            limit: self.limit(),
            rtt: finding.rtt,
            in_flight_bytes: finding.in_flight_bytes,
            is_queued: finding.is_queued,
            has_losses: finding.resent > LOSS_MIN,
            is_lossy: finding.resent > LOSS_MIN && finding.resent < RESENT_MAX,
        })
    }

    fn adapt(&mut self, limit: f64, finding: Finding) {
        let is_used = finding.rate > limit * FULL_MIN;
        self.gain = match is_used {
            true if finding.is_queued => 1.0,
            true if finding.resent > RESENT_MAX => GAIN,
            true => (1.0 + (self.gain - 1.0) * 2.0).clamp(GAIN, GAIN_MAX),
            false if finding.is_queued => GAIN_QUEUED,
            false => GAIN,
        };
        self.limit = Some(self.peak() * self.gain);
    }

    fn peak(&self) -> f64 {
        self.peaks.iter().copied().fold(0.0, f64::max)
    }

    /// Whether the last window delivered more than those before.
    fn is_growing(&self) -> bool {
        let mut newest_first = self.peaks.iter().rev().copied();
        let newest = newest_first.next().unwrap_or(0.0);
        let before = newest_first.fold(0.0, f64::max);
        before == 0.0 || newest > before * GROWTH_MIN
    }
}

impl Finding {
    fn between(start: &Moment, end: Sample<'_>) -> Self {
        let (mut delivered, mut sent, mut resent) = (0, 0, 0);
        for lane in end.lanes {
            let is_same = |known: &&LaneSample| {
                (known.lane, known.connection) == (lane.lane, lane.connection)
            };
            let known = start.lanes.iter().find(is_same);
            let before = known.map_or(Condition::default(), |lane| lane.condition);
            let now = lane.condition;
            delivered += now.delivered_bytes.saturating_sub(before.delivered_bytes);
            sent += now.sent_segments.saturating_sub(before.sent_segments);
            resent += now.resent_segments.saturating_sub(before.resent_segments);
        }
        let in_flight = end.lanes.iter().map(|lane| lane.condition.in_flight_bytes);
        // Acknowledgements that come sooner than those before, since a queue on their way has
        // drained, are for a longer time than they took.
        let drained = used_rtt(&start.lanes).saturating_sub(used_rtt(end.lanes));
        let seconds = (end.now - start.now + drained).as_secs_f64();
        Self {
            rate: delivered as f64 / seconds,
            is_queued: is_queued(end.lanes),
            resent: resent as f64 / (sent as f64).max(1.0),
            in_flight_bytes: in_flight.sum(),
            lanes: end.lanes.len(),
            rtt: shortest_rtt(end.lanes),
            is_busy: end.lanes.iter().any(|lane| lane.condition.unsent_bytes > 0),
        }
    }
}

/// Whether bytes wait in queues on the way, in either direction.
pub(super) fn is_queued(lanes: &[LaneSample]) -> bool {
    let min_rtt = shortest_rtt(lanes);
    used_rtt(lanes) > min_rtt + (min_rtt / 4).max(QUEUE_MIN)
}

/// The round trip as it is now; zero if nothing is under way.
fn used_rtt(lanes: &[LaneSample]) -> Duration {
    let is_used = |lane: &&LaneSample| lane.condition.in_flight_bytes > 0;
    let rtts = lanes.iter().filter(is_used).map(|lane| lane.condition.rtt);
    rtts.min().unwrap_or_default()
}

/// The share of a link's limit that each lane gets. What a lane does not use, since loss or memory
/// keeps it slow, goes to the others.
pub(super) fn shares(limit: u64, lane_rates: &[u64]) -> Vec<u64> {
    let fair = limit / (lane_rates.len() as u64).max(1);
    let is_slow = |rate: &u64| *rate < fair / 4 * 3;
    let spare: u64 = lane_rates
        .iter()
        .filter(|rate| is_slow(rate))
        .map(|rate| fair - rate)
        .sum();
    let quick = lane_rates.iter().filter(|rate| !is_slow(rate)).count() as u64;
    let bonus = spare.checked_div(quick).unwrap_or(0);
    lane_rates
        .iter()
        .map(|rate| if is_slow(rate) { fair } else { fair + bonus })
        .collect()
}

/// How long deliveries are counted: a round trip as it is now, since acknowledgements come in
/// bursts, and in longer ones if they wait in a queue.
pub(super) fn window_length(lanes: &[LaneSample]) -> Duration {
    let rtt = lanes.iter().map(|lane| lane.condition.rtt).min();
    let most = shortest_rtt(lanes) * 2;
    rtt.unwrap_or_default().min(most).max(WINDOW_MIN)
}

/// The shortest round trip of any lane; zero if none is known.
pub(super) fn shortest_rtt(lanes: &[LaneSample]) -> Duration {
    let rtts = lanes.iter().map(|lane| lane.condition.min_rtt);
    let known = rtts.filter(|rtt| !rtt.is_zero() && *rtt < RTT_UNKNOWN);
    known.min().unwrap_or_default()
}

/// Samples in a window.
pub(super) const SAMPLES: u32 = 4;
/// Shortest window: counts of fewer segments are noise, and each sample takes some system calls.
const WINDOW_MIN: Duration = Duration::from_millis(20);
/// Windows over which the largest delivery is remembered.
const WINDOWS_KEPT: usize = 16;
/// Shortest delay that counts as a queue: scheduling and delayed acknowledgements cause less.
const QUEUE_MIN: Duration = Duration::from_millis(3);
/// The system's word for a shortest round trip that it has not measured is the longest time.
const RTT_UNKNOWN: Duration = Duration::from_secs(3600);
/// Share of segments sent again that shows an overflow.
const RESENT_MAX: f64 = 0.02;
/// Share of segments sent again that shows losses.
const LOSS_MIN: f64 = 0.0003;
/// Growth of what is delivered that shows that the path takes more.
const GROWTH_MIN: f64 = 1.1;
/// The limit as a multiple of the most that was delivered: a little above, since a rate that is
/// never tried is never found; below while a queue is to drain.
const GAIN: f64 = 1.05;
const GAIN_QUEUED: f64 = 0.97;
/// Most that the limit exceeds what was delivered, if that grows from window to window.
const GAIN_MAX: f64 = 1.5;
/// Least that each lane may send in a window: the system sends a paced lane's bytes in bursts of up
/// to half of that, and with fewer bursts than windows no delivery would tell what the path takes.
const BURST_BYTES: f64 = 131_072.0;
/// Share of the limit that must be delivered for the limit to be what holds the link back.
const FULL_MIN: f64 = 0.98;
/// Share of the most that was delivered below which a window without more to send counts as a
/// pause.
const USED_MIN: f64 = 0.5;

#[cfg(test)]
mod tests;
