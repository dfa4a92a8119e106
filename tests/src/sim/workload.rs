//! The applications: they make the program's calls and branch on results alone.
//!
//! The library's retry after a loss is above the machine, so its policy is repeated here: only a
//! loss is retried, never a cancel (docs/protocol.md, R8).

mod answers;
mod requests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ccl_core::collective::layout::Part;
use ccl_core::error::Error;
use ccl_core::ids::{CallId, OpName, StreamId, Tag};
use ccl_core::mutation::{Mutation, is_active};
use ccl_core::peer::{End, Input, SessionEnd};
use ccl_core::time::Instant;
use ccl_core::wire::control::{AbortReason, Called, CancelReason, Fingerprint, RecordRule, Start};

use super::cluster::{Event, HostId, World};
use super::program::{self, Logical, Twist};
use super::records::AppRecords;
use super::rng::mix_all;
use super::swarm::FaultKind;
use super::sync::Possession;
use super::trouble::Whims;

/// What an application does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppStep {
    /// Begin the next round.
    Round,
    /// Make the next call of a tag.
    Post(Tag),
    /// Give something for the next step of a stream.
    Enter(StreamId),
    /// Call the safe point.
    SafePoint,
    /// Make the one call of a member of a closed group.
    Meet,
    /// Cancel a call.
    Cancel(CallId),
    /// Start the process anew.
    Respawn,
}

/// The kind of an open call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)]
pub enum CallKind {
    /// A collective.
    Operation(Operation),
    /// A safe point.
    SafePoint,
    /// A step of a stream of records.
    Record(StreamId),
    /// The end.
    Leave,
    /// A call that must be refused.
    Invalid,
}

/// A collective that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The call of the program.
    pub logical: Logical,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The call that this member really makes.
    pub fingerprint: Fingerprint,
    /// Its buffers.
    pub parts: Vec<Part>,
    /// Seed of the input.
    pub input_seed: u64,
    /// Whether sums are exact in every order.
    pub exact: bool,
    /// Its name and members, once it runs.
    pub started: Option<OpName>,
    /// Whether it was stopped.
    pub stopped: bool,
    /// Whether this member asked to end it.
    pub cancelled: bool,
}

/// A call that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenCall {
    /// What it is.
    pub kind: CallKind,
    /// When it was made.
    pub since: Instant,
    /// When the caller wants it cancelled.
    pub deadline: Option<Instant>,
}

/// The calls of one tag.
#[derive(Debug, Default)]
struct Stream {
    queue: VecDeque<(Logical, u32)>,
    current: Option<CallId>,
    /// Whether the safe point does not wait for the current call.
    asynchronous: bool,
}

/// How a call ended, for scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With an end.
    End(End),
    /// Refused.
    Rejected(String),
}

/// One application.
#[derive(Debug, Default)]
pub struct App {
    /// Whether a script makes its calls.
    pub scripted: bool,
    /// Calls that have not ended.
    pub calls: BTreeMap<CallId, OpenCall>,
    /// How calls ended, in order; kept for scripts only.
    pub endings: Vec<(CallId, Ending)>,
    /// Its round, once admitted.
    pub round: Option<u64>,
    /// The round in which it was admitted.
    pub admitted: Option<u64>,
    /// Whether it waits for the others of its host.
    pub waits_for_mates: bool,
    /// Whether it never calls anything again.
    pub hung: bool,
    /// Whether it has made all its calls.
    pub finished: bool,
    /// Whether its process comes back after its session ended.
    pub comes_back: bool,
    /// Whether it asks for a run that does not exist.
    pub stranger: bool,
    /// Its shared state.
    pub possession: Possession,
    /// Its planned faults.
    pub whims: Whims,
    /// Its records.
    pub records: AppRecords,
    streams: BTreeMap<Tag, Stream>,
    safe_point: bool,
    next_call: u64,
}

impl App {
    /// An application that follows the program.
    #[must_use]
    pub fn program() -> Self {
        Self {
            comes_back: true,
            ..Self::default()
        }
    }

    /// An application that asks for a run that does not exist.
    #[must_use]
    pub fn stranger() -> Self {
        Self {
            stranger: true,
            ..Self::default()
        }
    }

    /// An application whose calls a script makes.
    #[must_use]
    pub fn scripted() -> Self {
        Self {
            scripted: true,
            ..Self::default()
        }
    }

    /// Its process died: no call waits any more.
    pub fn die(&mut self) {
        self.calls.clear();
        self.streams.clear();
        self.finished = true;
        self.comes_back = false;
    }

    /// The collective behind a call.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn memory_of(&self, call: CallId) -> &Operation {
        match self.calls.get(&call).map(|open| &open.kind) {
            Some(CallKind::Operation(operation)) => operation,
            other => panic!("call {call} is {other:?}, not a collective"),
        }
    }

    pub(super) fn open(
        &mut self,
        kind: CallKind,
        since: Instant,
        deadline: Option<Instant>,
    ) -> CallId {
        let call = CallId(self.next_call);
        self.next_call += 1;
        let open = OpenCall {
            kind,
            since,
            deadline,
        };
        self.calls.insert(call, open);
        call
    }

    /// Whether every call that the safe point waits for has ended.
    fn is_round_over(&self) -> bool {
        self.streams
            .values()
            .all(|s| s.queue.is_empty() && (s.current.is_none() || s.asynchronous))
            && self.records.is_round_over()
    }
}

impl World {
    /// The application learns that it is a member.
    pub fn app_admitted(&mut self, host: HostId) {
        let released = self.hosts[host.0].safe_released;
        let app = &mut self.hosts[host.0].app;
        app.round = Some(released);
        app.admitted = Some(released);
        match (app.scripted, self.hosts[host.0].place) {
            (true, None) => {}
            (true, Some(_)) => self.app_soon(host, AppStep::Meet),
            (false, _) => self.app_soon(host, AppStep::Round),
        }
        self.wake_mates(host);
        self.count_site(host);
    }

    /// The application does something after a while.
    pub fn app_soon(&mut self, host: HostId, step: AppStep) {
        let think = self.swarm.think;
        let delay = self.network_rng.duration(Duration::ZERO, think);
        self.schedule(delay, Event::App { host, step });
    }

    /// An application does what it planned.
    pub fn app_step(&mut self, host: HostId, step: AppStep) {
        if step == AppStep::Respawn {
            self.app_respawn(host);
            return;
        }
        let app = &self.hosts[host.0].app;
        if app.hung || app.finished || self.hosts[host.0].ended.is_some() {
            return;
        }
        match step {
            AppStep::Round => self.app_round(host),
            AppStep::Post(tag) => self.app_post_next(host, tag),
            AppStep::Enter(stream) => self.app_enter_next(host, stream),
            AppStep::SafePoint => {
                self.app_safe_point(host);
            }
            AppStep::Meet => self.app_meet(host),
            AppStep::Cancel(call) => self.app_cancel_call(host, call),
            AppStep::Respawn => {}
        }
    }

    fn app_round(&mut self, host: HostId) {
        let group = self.hosts[host.0].group;
        let Some(round) = self.hosts[host.0].app.round else {
            return;
        };
        if self
            .plan
            .last_round(group)
            .is_some_and(|last| round >= last)
        {
            for calls in self.late_calls(host, u64::MAX) {
                self.app_queue(host, calls);
            }
            self.hosts[host.0].app.finished = true;
            return;
        }
        if !self.goes_on(host) {
            return;
        }
        let now = self.now;
        self.trace
            .line(now, format_args!("{host:?} begins round {round}"));
        let calls = program::round(&self.swarm, group, round);
        self.hosts[host.0].app.safe_point = false;
        for list in self.late_calls(host, round) {
            self.app_queue(host, list);
        }
        self.app_queue_records(host, round);
        for list in calls {
            if !self.comes_late(host, round, &list) {
                self.app_queue(host, list);
            }
        }
    }

    /// Plans the calls of one tag.
    fn app_queue(&mut self, host: HostId, calls: Vec<Logical>) {
        if let Some(tag) = calls.first().map(|call| call.tag) {
            let stream = self.hosts[host.0].app.streams.entry(tag).or_default();
            stream.queue.extend(calls.into_iter().map(|call| (call, 1)));
            self.app_soon(host, AppStep::Post(tag));
        }
    }

    /// Makes at once the calls that it would make soon.
    pub(super) fn app_hurries(&mut self, host: HostId) {
        let app = &self.hosts[host.0].app;
        let tags: Vec<Tag> = app.streams.keys().copied().collect();
        for tag in tags {
            self.app_step(host, AppStep::Post(tag));
        }
    }

    fn app_post_next(&mut self, host: HostId, tag: Tag) {
        let Some(stream) = self.hosts[host.0].app.streams.get_mut(&tag) else {
            return;
        };
        if stream.current.is_some() {
            return;
        }
        let Some((logical, attempt)) = stream.queue.pop_front() else {
            return;
        };
        stream.asynchronous = logical.asynchronous;
        let twist = self.whim_of(host, &logical);
        if let Some(twist) = twist {
            self.count_twist(twist);
        }
        if twist == Some(Twist::Hang) {
            self.hosts[host.0].app.hung = true;
            return;
        }
        self.app_post_twisted(host, logical, (attempt, twist));
        self.app_maybe_safe_point(host);
    }

    fn count_twist(&mut self, twist: Twist) {
        let kind = match twist {
            Twist::Cancel(_) => FaultKind::Cancel,
            Twist::Deadline(_) => FaultKind::Deadline,
            Twist::Twice => FaultKind::InvalidCall,
            Twist::Hang => FaultKind::Hang,
            Twist::Count | Twist::Dtype | Twist::Op | Twist::Caller => FaultKind::Mismatch,
        };
        self.stats.fault(kind);
    }

    /// Makes a call. Returns its name.
    pub fn app_post(&mut self, host: HostId, logical: Logical, attempt: u32) -> CallId {
        let twist = logical.twist_of(host.0 as u64);
        self.app_post_twisted(host, logical, (attempt, twist))
    }

    /// Makes a call with a twist. Returns its name.
    pub fn app_post_twisted(
        &mut self,
        host: HostId,
        logical: Logical,
        (attempt, twist): (u32, Option<Twist>),
    ) -> CallId {
        let now = self.now;
        let (mut fingerprint, parts) = logical.twisted(twist);
        if let Called::Sync(offer) = &mut fingerprint.called {
            **offer = self.sync_offer(host, logical.id);
        }
        let tag = logical.tag;
        let deadline = match twist {
            Some(Twist::Deadline(after)) => Some(now + after),
            _ => None,
        };
        let operation = Operation {
            input_seed: mix_all(&[logical.id, host.0 as u64]),
            exact: logical.is_exact(),
            attempt,
            fingerprint: fingerprint.clone(),
            parts,
            started: None,
            stopped: false,
            cancelled: false,
            logical,
        };
        if deadline.is_some() {
            self.checkers.asked(host, operation.logical.meeting());
        }
        let kind = CallKind::Operation(operation);
        let call = self.hosts[host.0].app.open(kind, now, deadline);
        if let Some(stream) = self.hosts[host.0].app.streams.get_mut(&tag) {
            stream.current = Some(call);
        }
        if let Some(deadline) = deadline {
            self.promise_end(host, call, deadline);
        }
        self.trace.fold(now, &[30, host.0 as u64, tag.0]);
        let invalid = fingerprint.clone();
        self.host_input(
            host,
            Input::Post {
                call,
                tag,
                fingerprint,
                deadline,
            },
        );
        match twist {
            Some(Twist::Cancel(after)) => {
                let step = AppStep::Cancel(call);
                self.schedule(after, Event::App { host, step });
            }
            Some(Twist::Twice) => self.app_post_invalid(host, tag, invalid),
            _ => {}
        }
        call
    }

    /// A second call on a busy tag: it must be refused and use up no number.
    fn app_post_invalid(&mut self, host: HostId, tag: Tag, fingerprint: Fingerprint) {
        let busy = self.hosts[host.0]
            .app
            .streams
            .get(&tag)
            .and_then(|stream| stream.current)
            .is_some_and(|call| self.hosts[host.0].app.calls.contains_key(&call));
        if !busy {
            return;
        }
        let now = self.now;
        let call = self.hosts[host.0].app.open(CallKind::Invalid, now, None);
        let input = Input::Post {
            call,
            tag,
            fingerprint,
            deadline: None,
        };
        self.host_input(host, input);
    }

    pub(super) fn app_maybe_safe_point(&mut self, host: HostId) {
        let app = &mut self.hosts[host.0].app;
        if app.safe_point || app.scripted || !app.is_round_over() {
            return;
        }
        app.safe_point = true;
        if self.network_rng.chance(300) {
            let step = AppStep::SafePoint;
            self.schedule(Duration::ZERO, Event::App { host, step });
        } else {
            self.app_soon(host, AppStep::SafePoint);
        }
    }

    /// Calls the safe point. Returns its name.
    pub fn app_safe_point(&mut self, host: HostId) -> CallId {
        let now = self.now;
        let patience = self.patience_at_point(host);
        let deadline = patience.map(|patience| now + patience);
        let call = self.hosts[host.0]
            .app
            .open(CallKind::SafePoint, now, deadline);
        self.trace.fold(now, &[31, host.0 as u64]);
        self.host_input(host, Input::SafePoint { call, deadline });
        call
    }
}
