//! The task that watches one link.
//!
//! Only this task reports on its link to the layer above, so reports come in order. Events tell it
//! what happened; byte counters tell it what was sent and received. It owns the tasks of the lanes,
//! which end with it. If it is stopped in the middle of a report, the report may arrive after the
//! first ones of the next link; so reports name their link.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Inner;
use super::health::{Health, Report};
use super::lane;
use super::link::Link;
use super::offer;
use super::pacer::Pacer;
use crate::wire::control::LinkFault;

/// Longest time between two checks of a link, and so for a silent lane without a ping.
const TICK_MAX: Duration = Duration::from_secs(1);

/// Events for a keeper.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// The link has more lanes than before.
    Lanes,
    /// A lane is served.
    LaneUp(u16),
    /// A lane broke and is being repaired; true: the other side has ended it.
    LaneDown(u16, bool),
    /// Every address refuses connections.
    Refused,
    /// Why an attempt failed.
    NoLink(String),
    /// The two sides remember different links.
    Stale,
    /// The link cannot continue.
    Failed(LinkFault, &'static str),
}

/// Watches over one link.
pub(super) struct Keeper {
    link: Arc<Link>,
    links: Weak<Inner>,
    health: Health,
    /// The lanes' tasks, which end with the keeper.
    tasks: JoinSet<()>,
    /// How many lanes have a task.
    spawned: usize,
    silence: Silence,
    /// Why there is no connection, as last reported.
    why: String,
}

/// The traffic up to the last check.
struct Silence {
    received_bytes: u64,
    sent_bytes: u64,
    heard: Instant,
    looked: Instant,
}

impl Keeper {
    pub(super) fn new(link: Arc<Link>, links: Weak<Inner>) -> Self {
        let now = Instant::now();
        Self {
            health: Health::new(1, link.identity.link_timeout, now),
            link,
            links,
            tasks: JoinSet::new(),
            spawned: 0,
            why: String::new(),
            silence: Silence {
                received_bytes: 0,
                sent_bytes: 0,
                heard: now,
                looked: now,
            },
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Event>) {
        if self.link.follows_loss {
            // Reported by this link, since reports of the one before no longer count.
            let report = self.health.give_up(LinkFault::Ended);
            self.report_any(report);
        }
        // They end with the keeper.
        let _offers = match self.link.dials {
            true => {
                self.spawn_lanes();
                None
            }
            false => {
                let mut task = JoinSet::new();
                task.spawn(offer::run(Arc::clone(&self.link), self.links.clone()));
                Some(task)
            }
        };
        let mut pacer = JoinSet::new();
        pacer.spawn(Pacer::new(Arc::clone(&self.link)).run());
        let tick = (self.link.identity.link_timeout / 4).min(TICK_MAX);
        let mut ticks = interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = inbox.recv() => {
                    let event = event.expect("the link holds a sender");
                    self.handle_event(event);
                }
                _ = ticks.tick() => self.handle_tick(tick),
                Some(ended) = self.tasks.join_next() => {
                    if ended.is_err_and(|error| error.is_panic()) {
                        self.fail(LinkFault::Protocol, "internal error, please report it");
                    }
                }
            }
        }
    }

    fn spawn_lanes(&mut self) {
        let lanes = self.link.lanes();
        for lane in &lanes[self.spawned..] {
            self.tasks
                .spawn(lane::run(Arc::clone(&self.link), Arc::clone(lane)));
        }
        match self.spawned {
            0 => self.health.set_connections(lanes.len()),
            _ => self.health.add_connections(lanes.len()),
        }
        self.spawned = lanes.len();
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Lanes => self.spawn_lanes(),
            Event::LaneUp(lane) => {
                self.silence.heard = Instant::now();
                self.why.clear();
                for report in self.health.lane_up(lane) {
                    self.report(report);
                }
            }
            Event::LaneDown(lane, is_ended) => {
                let report = self.health.lane_down(lane, is_ended, Instant::now());
                self.report_any(report);
            }
            Event::Refused => {
                let report = self.health.refused();
                self.report_any(report);
            }
            Event::NoLink(why) if self.health.is_any_up() || self.why == why => {}
            Event::NoLink(why) => {
                self.why.clone_from(&why);
                self.link.handler.no_link(self.link.name(), why);
            }
            Event::Stale => {
                if let Some(links) = self.links.upgrade() {
                    links.renew(&self.link);
                }
            }
            Event::Failed(fault, reason) => self.fail(fault, reason),
        }
    }

    fn fail(&mut self, fault: LinkFault, reason: &str) {
        if self.link.is_failed.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!(peer = %self.link.peer, reason, "link failed");
        self.tasks.abort_all();
        self.link.queue.lock().clear();
        let report = self.health.give_up(fault);
        self.report_any(report);
    }

    /// Triggers acknowledgements and pings, and checks for silence and for repairs that take too
    /// long.
    fn handle_tick(&mut self, tick: Duration) {
        if self.link.is_stuck.load(Ordering::Relaxed) {
            self.fail(
                LinkFault::TimedOut,
                "the other side does not read its signal frames",
            );
        }
        if self.spawned > 0 && !self.link.is_failed.load(Ordering::Relaxed) {
            self.spawn_lanes();
        }
        for lane in self.link.lanes() {
            if lane.owes_ack() {
                lane.demand_ack();
            }
        }
        let now = Instant::now();
        self.keep_signal_lane_busy();
        // A late check proves nothing: this process itself did not run. What it received is still
        // unread, and repairs were not tried.
        let pause = now - self.silence.looked;
        let is_late = pause > tick * 2;
        if is_late {
            self.health.postpone(pause, now);
        }
        if self.is_silent(now, is_late) {
            for lane in self.link.lanes() {
                lane.kill(false);
            }
            let report = self.health.give_up(LinkFault::TimedOut);
            self.report_any(report);
        }
        let report = self.health.handle_timeout(now);
        self.report_any(report);
    }

    fn keep_signal_lane_busy(&mut self) {
        let lane = self.link.signal_lane();
        let sent_bytes = lane.sent_bytes.load(Ordering::Relaxed);
        if sent_bytes == self.silence.sent_bytes {
            lane.ping_due.store(true, Ordering::Relaxed);
            lane.wake.notify_one();
        }
        self.silence.sent_bytes = sent_bytes;
    }

    /// Whether the other side has been silent for too long.
    fn is_silent(&mut self, now: Instant, is_late: bool) -> bool {
        let received_bytes = self.link.received_bytes();
        if received_bytes != self.silence.received_bytes || is_late || !self.health.is_any_up() {
            self.silence.heard = now;
        }
        self.silence.received_bytes = received_bytes;
        self.silence.looked = now;
        if now < self.silence.heard + self.link.identity.link_timeout * 2 {
            return false;
        }
        self.silence.heard = now;
        true
    }

    fn report_any(&self, report: Option<Report>) {
        if let Some(report) = report {
            self.report(report);
        }
    }

    fn report(&self, report: Report) {
        let (peer, handler) = (self.link.peer, &self.link.handler);
        tracing::debug!(%peer, ?report, "link");
        match report {
            Report::Up => handler.link_up(self.link.name()),
            Report::Down(fault, gave_up) => {
                handler.link_down(self.link.name(), fault, gave_up);
            }
            Report::Repaired(lane) => {
                self.link.repairs.fetch_add(1, Ordering::Relaxed);
                handler.lane_repaired(peer, lane);
            }
        }
    }
}
