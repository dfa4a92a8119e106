//! The session with the master: connection, registration, heartbeats, and how it ends.
//!
//! It does not know operations; it knows when they may be reported, and ends them with the session.

use std::time::Duration;

use crate::error::{Error, Eviction};
use crate::event::Event;
use crate::ids::{CallId, PeerId, RunId, SessionId};
use crate::time::{Instant, Pace};
use crate::timers::Timers;
use crate::wire::control::{CancelReason, EvictReason, PeerToMaster};

use super::Peer;
use super::io::{End, Output, SessionEnd};
use super::phase::{Absence, Membership, Phase};
use super::pings::Pings;

/// First pause between two attempts to reach the master; doubled at each failure.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// Longest such pause, before jitter: a restarted master is found within it.
const RETRY_LONGEST: Duration = Duration::from_secs(1);
/// Pause before the first attempt after a working connection broke, at most: enough to keep the
/// members of a run from connecting in the same instant.
const RETRY_AFTER_BREAK: Duration = Duration::from_millis(20);

/// The peer's identity at the master, and the connection to it.
#[derive(Debug)]
pub(super) struct Session {
    registration: Option<Registration>,
    control: Control,
    /// When the connection came up.
    opened_at: Instant,
    pings: Pings,
    /// When the newest message was sent that the master has answered.
    lease_from: Option<Instant>,
    /// How long a heartbeat and its answer take when nothing holds them up.
    round_trip: Option<Duration>,
    attach: u64,
    failures: u32,
    jitter: u64,
}

/// The contents of `Welcome`.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub run_id: RunId,
    pub session: SessionId,
    pub peer: PeerId,
    pub timers: Timers,
}

/// A departure under way.
#[derive(Debug)]
pub(super) struct Leaving {
    /// The calls to finish.
    pub calls: Vec<CallId>,
    /// When it ends without an answer of the master, by the clock of patience.
    pub until: Instant,
}

#[derive(Debug)]
enum Control {
    Connecting,
    Down {
        retry_at: Instant,
    },
    /// Times of the last sign of life are by the clock of patience.
    Up {
        heard: Instant,
        ping_at: Instant,
    },
    Closed,
}

impl Session {
    /// A session that has asked for its first connection.
    pub fn new(entropy: u64) -> Self {
        Self {
            registration: None,
            control: Control::Connecting,
            opened_at: Instant::default(),
            pings: Pings::default(),
            lease_from: None,
            round_trip: None,
            attach: 0,
            failures: 0,
            jitter: entropy,
        }
    }

    /// Whether there is a connection to the master.
    pub fn is_up(&self) -> bool {
        matches!(self.control, Control::Up { .. })
    }

    /// What the master told it when it was registered.
    pub fn registration(&self) -> Option<&Registration> {
        self.registration.as_ref()
    }

    /// Counter of its connections.
    pub fn attach(&self) -> u64 {
        self.attach
    }

    /// Its name, once registered.
    pub fn peer(&self) -> Option<PeerId> {
        self.registration
            .as_ref()
            .map(|registration| registration.peer)
    }

    /// The run's timeouts, or the default ones before `Welcome`.
    pub fn timers(&self) -> Timers {
        self.registration
            .as_ref()
            .map_or_else(Timers::default, |registration| registration.timers)
    }

    /// The master gave a sign of life. `now` is by the clock of patience.
    pub fn heard(&mut self, now: Instant) {
        if let Control::Up { heard, .. } = &mut self.control {
            *heard = now;
        }
    }

    /// The master has answered what was sent when the connection came up.
    pub fn note_answer(&mut self) {
        self.lease_from = self.lease_from.max(Some(self.opened_at));
    }

    /// The master has answered a heartbeat.
    pub fn note_pong(&mut self, now: Instant) {
        let Some(sent) = self.pings.answer() else {
            return;
        };
        self.lease_from = self.lease_from.max(Some(sent));
        let took = now - sent;
        // The shortest counts, but not forever: the path may change.
        let known = self.round_trip.map_or(took, |known| known + known / 16);
        self.round_trip = Some(known.min(took));
    }

    /// How long a heartbeat and its answer take when nothing holds them up.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Whether the master may not have founded another view without this peer yet (R19). In real
    /// time, and from what the master has answered: what it sent may have been read late.
    pub fn holds_lease(&self, now: Instant) -> bool {
        let timers = self.timers();
        let lease = timers.peer_timeout + timers.detach_timeout;
        self.lease_from.is_some_and(|from| now < from + lease)
    }

    /// When there is something to do for the connection.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.control {
            Control::Connecting | Control::Closed => None,
            Control::Down { retry_at } => Some(retry_at),
            Control::Up { ping_at, .. } => Some(ping_at),
        }
    }

    /// By the clock of patience: when the master counts as dead.
    pub fn silent_at(&self) -> Option<Instant> {
        match self.control {
            Control::Up { heard, .. } => Some(heard + self.timers().peer_timeout),
            Control::Connecting | Control::Down { .. } | Control::Closed => None,
        }
    }

    fn retry_pause(&mut self) -> Duration {
        let part = f64::from(self.draw()) / f64::from(u32::MAX);
        match self.failures.checked_sub(1) {
            None => RETRY_AFTER_BREAK.mul_f64(part),
            Some(doublings) => {
                let pause = RETRY_FIRST * (1 << doublings.min(16));
                pause.min(RETRY_LONGEST).mul_f64(0.5 + part)
            }
        }
    }

    /// `SplitMix64`: statistically even, and the same for the same seed.
    fn draw(&mut self) -> u32 {
        self.jitter = self.jitter.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.jitter;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((word ^ (word >> 31)) >> 32) as u32
    }
}

impl Peer {
    pub(super) fn handle_control_up(&mut self) {
        if self.session.is_up() {
            return;
        }
        let ping_at = self.now + self.session.timers().heartbeat_interval;
        self.session.control = Control::Up {
            heard: self.patience.now(),
            ping_at,
        };
        self.session.opened_at = self.now;
        self.session.pings.clear();
        self.session.attach += 1;
        match std::mem::replace(&mut self.phase, Phase::Joining) {
            Phase::Joining => self.say_hello(),
            Phase::Detached(absence) => {
                self.phase = Phase::Detached(absence);
                self.say_here();
            }
            other => {
                self.phase = other;
                self.say_attach();
                self.say_ready_anew();
            }
        }
    }

    /// The master wants the report: nothing is posted from now on.
    pub(super) fn handle_summon(&mut self) {
        let phase = std::mem::replace(&mut self.phase, Phase::Joining);
        self.phase = match phase {
            Phase::Detached(mut absence) => {
                // Even if this connection breaks, the master may have counted the report as the
                // flush.
                absence.flushed = true;
                Phase::Attaching(absence)
            }
            other => other,
        };
        self.session.note_answer();
        self.say_attach();
    }

    pub(super) fn handle_control_down(&mut self) {
        match self.session.control {
            // The end of a connection that this side gave up: the next attempt is planned.
            Control::Down { .. } | Control::Closed => {}
            Control::Connecting => {
                self.session.failures = self.session.failures.saturating_add(1);
                self.lose_master();
            }
            Control::Up { .. } => self.lose_master(),
        }
    }

    pub(super) fn handle_welcome(&mut self, registration: Registration) {
        if let Err(error) = registration.timers.validate() {
            return self.drop_master(&format!("Welcome: {error}"));
        }
        if self
            .session
            .peer()
            .is_some_and(|peer| peer != registration.peer)
        {
            self.forget_links();
        }
        let timers = registration.timers;
        let pace = Pace::new(timers.heartbeat_interval, timers.peer_timeout);
        self.patience.set_pace(pace);
        if let Control::Up { ping_at, .. } = &mut self.session.control {
            // Until now the heartbeat interval was not known.
            *ping_at = (*ping_at).min(self.now + timers.heartbeat_interval);
        }
        self.session.registration = Some(registration);
        self.session.note_answer();
        self.session.failures = 0;
        self.phase = Phase::Newcomer;
        if self.leaving.is_some() {
            self.send(PeerToMaster::Leave);
        }
    }

    pub(super) fn handle_evicted(&mut self, reason: EvictReason) {
        let is_forgotten = matches!(
            reason,
            EvictReason::NotAMember
                | EvictReason::NotHeard
                | EvictReason::Detached
                | EvictReason::Died
                | EvictReason::Silent { .. }
                | EvictReason::Unit(_)
                | EvictReason::Unaware
                | EvictReason::UnitTorn
                | EvictReason::UnitLeft(_)
        );
        if matches!(self.phase, Phase::Newcomer) && is_forgotten && self.leaving.is_none() {
            // A newcomer has nothing to lose: it begins a new session.
            self.session.registration = None;
            self.session.lease_from = None;
            self.session.failures = self.session.failures.max(1);
            self.phase = Phase::Joining;
            self.forget_links();
            self.outputs.push_back(Output::Disconnect);
            return self.lose_master();
        }
        self.end_session(match reason {
            EvictReason::Left => SessionEnd::Left,
            reason => SessionEnd::Evicted(Eviction {
                peer: self.session.peer().unwrap_or_default(),
                vid: self.view().map(|view| view.vid).unwrap_or_default(),
                reason,
                names: self.names.clone(),
            }),
        });
    }

    pub(super) fn handle_leave(&mut self, call: CallId) {
        if matches!(self.phase, Phase::Ended(_)) {
            let end = End::Left;
            return self.outputs.push_back(Output::Finish { call, end });
        }
        if let Some(leaving) = &mut self.leaving {
            return leaving.calls.push(call);
        }
        self.leaving = Some(Leaving {
            calls: vec![call],
            until: self.patience.now() + self.session.timers().verdict_timeout,
        });
        self.reject_waiting(&Error::Ended("leave was called".into()));
        self.cancel_all_posted(&CancelReason::Leave);
        if self.phase.membership().is_none() && !self.session.is_up() {
            return self.end_session(SessionEnd::Left);
        }
        if self.phase.is_telling() || matches!(self.phase, Phase::Newcomer) {
            self.send(PeerToMaster::Leave);
        }
    }

    /// Does what is due for the connection and the session.
    pub(super) fn check_session(&mut self) {
        let patience = self.patience.now();
        if self
            .leaving
            .as_ref()
            .is_some_and(|leaving| leaving.until <= patience)
        {
            return self.end_session(SessionEnd::Left);
        }
        if self.detached_until().is_some_and(|until| until <= self.now) {
            return self.end_session(SessionEnd::Detached);
        }
        let timers = self.session.timers();
        match &mut self.session.control {
            Control::Down { retry_at } if *retry_at <= self.now => {
                self.session.control = Control::Connecting;
                self.outputs.push_back(Output::Connect);
            }
            Control::Up { heard, .. } if *heard + timers.peer_timeout <= patience => {
                self.outputs.push_back(Output::Disconnect);
                self.lose_master();
            }
            Control::Up { ping_at, .. } if *ping_at <= self.now => {
                *ping_at = self.now + timers.heartbeat_interval;
                self.session.pings.note(self.now);
                self.send(PeerToMaster::Ping);
            }
            _ => {}
        }
    }

    /// When a member without a master gives up. In real time, including pauses: a restarted master
    /// relies on no session being alive after that (R11).
    pub(super) fn detached_until(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Detached(absence) | Phase::Attaching(absence) => {
                Some(absence.since + self.session.timers().detach_timeout)
            }
            _ => None,
        }
    }

    /// The master's reply to `Attach` is in force: the connection works again.
    pub(super) fn note_attached(&mut self) {
        self.session.failures = 0;
        self.session.note_answer();
        self.outputs.push_back(Output::Event(Event::Attached(true)));
    }

    /// The master broke the protocol: drops the connection, and reports everything over a new one.
    pub(super) fn drop_master(&mut self, what: &str) {
        self.note_fault(what);
        self.session.failures = self.session.failures.saturating_add(1);
        self.outputs.push_back(Output::Disconnect);
        self.lose_master();
    }

    /// The master contradicts what is certain: none of its verdicts may reach a caller any more.
    pub(super) fn end_contradicted(&mut self, what: String) {
        self.note_fault(&what);
        self.end_session(SessionEnd::Protocol(what));
    }

    /// Ends every call, and the session with them (R7).
    pub(super) fn end_session(&mut self, cause: SessionEnd) {
        let is_told = matches!(
            cause,
            SessionEnd::Evicted(_) | SessionEnd::Refused(_) | SessionEnd::Left
        );
        if self.session.is_up() && !is_told {
            // It does not come back, so the others need not wait to find out.
            self.send(PeerToMaster::Leave);
        }
        self.notes.clear();
        self.finish_calls(&cause);
        self.finish_safe_point(&cause);
        self.finish_records(&cause);
        self.forget_links();
        for call in self
            .leaving
            .take()
            .into_iter()
            .flat_map(|leaving| leaving.calls)
        {
            let end = End::Left;
            self.outputs.push_back(Output::Finish { call, end });
        }
        self.phase = Phase::Ended(cause.clone());
        self.session.control = Control::Closed;
        self.outputs.push_back(Output::Disconnect);
        self.outputs.push_back(Output::Ended(cause));
    }

    fn note_fault(&mut self, what: &str) {
        let what = what.to_owned();
        self.outputs
            .push_back(Output::Event(Event::ProtocolFault { what }));
    }

    fn lose_master(&mut self) {
        let retry_at = self.now + self.session.retry_pause();
        self.session.control = Control::Down { retry_at };
        self.notes.clear();
        let since = self.now;
        let detached = |membership: Membership, flushed| {
            Phase::Detached(Absence {
                membership,
                flushed,
                since,
            })
        };
        let before = std::mem::replace(&mut self.phase, Phase::Joining);
        let was_attached = before.is_telling();
        self.phase = match before {
            Phase::Steady(membership) | Phase::Installed(membership) => detached(membership, false),
            Phase::Suspended(membership) => detached(membership, true),
            Phase::Attaching(absence) => Phase::Detached(absence),
            other => other,
        };
        self.say_safe_point();
        if was_attached {
            self.outputs
                .push_back(Output::Event(Event::Attached(false)));
        }
    }
}
