//! The task that watches how the lanes of one link fare and sets how fast each may send.
//!
//! `tuner` decides; this asks the system and tells it. While nothing is sent it sleeps.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Rates;
use super::control::{Control, Controls};
use super::lane::Lane;
use super::link::Link;
use super::probe::Probe;
use super::rescue::Rescue;
use super::spread::{Shown, Spread};
use super::tuner::{LaneSample, SAMPLES, Sample, Tuner, shares, shortest_rtt, window_length};
use crate::limits;
use crate::net;

/// Sets the pace of one link's lanes.
pub(super) struct Pacer {
    link: Arc<Link>,
    tuner: Tuner,
    /// The user has set the pace.
    is_fixed: bool,
    /// The conditions at the last look, to tell the lanes' rates.
    last: Vec<LaneSample>,
    looked: Instant,
    rescue: Rescue,
    /// None as soon as the link was used.
    probe: Option<Probe>,
    /// None before the link has traffic, and if the user has set the number of lanes.
    spread: Option<Spread>,
    /// None if the user has chosen, or the system does not let this process choose.
    controls: Option<Controls>,
    /// The congestion control that each connection has, by lane and connection.
    set: Vec<(u16, u64, Control)>,
}

impl Pacer {
    pub(super) fn new(link: Arc<Link>) -> Self {
        let is_free = link.settings.tuning.is_control_free();
        Self {
            is_fixed: link.settings.tuning.pacing_bytes_per_second.is_some(),
            probe: Some(Probe::new(&link.settings.probes)),
            link,
            tuner: Tuner::default(),
            last: Vec::new(),
            looked: Instant::now(),
            rescue: Rescue::default(),
            spread: None,
            controls: is_free.then(Controls::default),
            set: Vec::new(),
        }
    }

    /// Until it is aborted.
    pub(super) async fn run(mut self) {
        loop {
            let is_queued = self.link.await_traffic();
            let lanes = self.look();
            if self.link.is_on_this_host() {
                return;
            }
            if self.rescue.look(&self.link).await {
                sleep(RESCUE_PAUSE).await;
                continue;
            }
            if !lanes.is_empty() && shortest_rtt(&lanes) < net::LONG_PATH {
                // Queues are short there, and windows open at once.
                sleep(IDLE_LOOK).await;
                continue;
            }
            if self.probe(&lanes, is_queued) {
                sleep(window_length(&lanes) / SAMPLES).await;
                continue;
            }
            if !is_queued && !self.is_active(&lanes) {
                self.rest(&lanes).await;
                continue;
            }
            self.begin_to_spread();
            let length = window_length(&lanes);
            let shown = self.tuner.take(Sample {
                now: Instant::now(),
                lanes: &lanes,
            });
            if let Some(shown) = shown {
                self.spread(shown).await;
                if let Some(controls) = &mut self.controls {
                    controls.judge(shown);
                }
            }
            let busy = self.controls.as_ref().map(Controls::busy);
            let sending: Vec<_> = lanes.iter().filter(|lane| self.is_sending(lane)).collect();
            self.switch(&sending, busy);
            self.apply(&lanes);
            sleep(length / SAMPLES).await;
        }
    }

    /// Sends padding over a new link that was not used yet. False: there is none to send.
    pub(super) fn probe(&mut self, lanes: &[LaneSample], is_queued: bool) -> bool {
        let Some(probe) = &mut self.probe else {
            return false;
        };
        if lanes.is_empty() && !is_queued {
            return false;
        }
        let bulk = &self.link.lanes()[1..];
        let is_used = is_queued || bulk.iter().any(|lane| lane.has_unsettled());
        let Some(steps) = (!is_used).then(|| probe.step(lanes)).flatten() else {
            for lane in bulk {
                lane.take_padding();
            }
            self.probe = None;
            return false;
        };
        for (lane, bytes) in lanes.iter().zip(steps) {
            self.link.lanes()[usize::from(lane.lane)].pad(bytes);
        }
        true
    }

    /// Nothing is under way: waits until something is, or it is time to look again.
    async fn rest(&mut self, lanes: &[LaneSample]) {
        if timeout(SILENCE, self.link.traffic.notified()).await.is_ok() {
            return;
        }
        let silent = self.controls.as_ref().map(Controls::silent);
        self.switch(&lanes.iter().collect::<Vec<_>>(), silent);
        // Whichever comes first.
        let _ = timeout(IDLE_LOOK, self.link.traffic.notified()).await;
    }

    /// Gives lanes a congestion control.
    fn switch(&mut self, lanes: &[&LaneSample], control: Option<Control>) {
        let Some(control) = control else { return };
        for lane in lanes {
            let wanted = (lane.lane, lane.connection, control);
            if self.set.contains(&wanted) {
                continue;
            }
            self.set.retain(|(index, ..)| *index != lane.lane);
            self.set.push(wanted);
            if !self.link.set_control(lane, control) {
                self.controls = None;
                return;
            }
        }
    }

    /// Whether frames are under way.
    pub(super) fn is_active(&self, lanes: &[LaneSample]) -> bool {
        lanes.iter().any(|lane| self.is_sending(lane))
    }

    /// A lane that only receives has acknowledgements under way, which say nothing of the path.
    fn is_sending(&self, lane: &LaneSample) -> bool {
        let is_busy = lane.condition.in_flight_bytes > 0 || lane.condition.unsent_bytes > 0;
        is_busy && self.link.lanes()[usize::from(lane.lane)].has_unsettled()
    }

    fn look(&self) -> Vec<LaneSample> {
        let bulk = self.link.lanes().iter().skip(1);
        bulk.filter_map(|lane| look_at(lane)).collect()
    }

    /// Unless the user has set the number of lanes.
    fn begin_to_spread(&mut self) {
        if self.link.settings.lanes.is_none() && self.spread.is_none() {
            let lanes = self.link.lanes().len().saturating_sub(1);
            let lanes = u16::try_from(lanes).expect("a link has at most LANES_MAX lanes");
            let window_bytes = self.link.send_buffer_bytes() / 10 * 6;
            self.spread = Some(Spread::new(
                lanes,
                limits::LANES_AUTO_MAX.max(lanes),
                window_bytes,
            ));
        }
    }

    /// Uses as many lanes as help. The dialling side makes those that are missing.
    async fn spread(&mut self, shown: Shown) {
        let Some(spread) = &mut self.spread else {
            return;
        };
        spread.judge(shown);
        let lanes = spread.lanes();
        self.use_lanes(lanes).await;
    }

    async fn use_lanes(&self, lanes: u16) {
        if self.link.grow(lanes).await {
            tracing::debug!(peer = %self.link.peer, lanes, "more lanes");
        }
        for lane in self.link.lanes().iter().skip(1) {
            lane.set_spare(lane.index > lanes);
        }
    }

    fn apply(&mut self, lanes: &[LaneSample]) {
        let now = Instant::now();
        let seconds = (now - self.looked).as_secs_f64().max(1e-3);
        let rate = |lane: &LaneSample| {
            let last = self
                .last
                .iter()
                .find(|last| (last.lane, last.connection) == (lane.lane, lane.connection));
            let before = last.map_or(0, |last| last.condition.delivered_bytes);
            (lane.condition.delivered_bytes.saturating_sub(before) as f64 / seconds) as u64
        };
        let rates: Vec<u64> = lanes.iter().map(rate).collect();
        let limit = self.tuner.limit().filter(|_| !self.is_fixed);
        let limits = limit.map(|limit| shares(limit, &rates));
        for (lane, limit) in lanes.iter().zip(limits.into_iter().flatten()) {
            self.link.lanes()[usize::from(lane.lane)].pace(limit);
        }
        self.last = lanes.to_vec();
        self.looked = now;
        tracing::trace!(
            peer = %self.link.peer,
            limit = self.tuner.limit(),
            delivered = self.tuner.delivered(),
            ?rates,
            "pace"
        );
        self.link.note_rates(Rates {
            delivered_bytes_per_second: self.tuner.delivered(),
            limit_bytes_per_second: self.tuner.limit(),
            rtt: shortest_rtt(lanes),
        });
    }
}

pub(super) fn look_at(lane: &Lane) -> Option<LaneSample> {
    let (stream, connection) = lane.stream()?;
    Some(LaneSample {
        lane: lane.index,
        connection,
        condition: net::condition(&stream)?,
    })
}

/// How long nothing is under way before that counts as a silence: shorter than the system waits
/// until it makes the window of such a connection smaller, which is 200 ms at least.
const SILENCE: Duration = Duration::from_millis(100);
/// Time between two looks at a link over which nothing is sent.
const IDLE_LOOK: Duration = Duration::from_secs(1);
/// Time between two attempts to reach the other side over a path that may be cut.
const RESCUE_PAUSE: Duration = Duration::from_millis(50);
