//! The state behind the machine's lock: the machine, the open calls, the current master connection.
//!
//! Nothing slow happens under this lock: no copy, no addition, no system call. Side effects are
//! queued in the order of the decisions (`deferred`); messages to the master go straight into the
//! outbox. This file knows no threads, sockets or clocks. `outputs` translates what the machine
//! decided, `finish` ends calls.

mod finish;
mod outputs;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::peer::call::{Call, Operation};
use crate::driver::peer::completion::{Completion, Duty, Finished};
use crate::driver::peer::control::Control;
use crate::driver::peer::deferred::{Deferred, Ending};
use crate::driver::peer::public::Public;
use crate::driver::peer::session::session_error;
use crate::error::{Error, Result};
use crate::ids::{CallId, LinkKey, OpName};
use crate::lock::Mutex;
use crate::peer::{Input, Peer, SessionEnd, Setup};
use crate::time::Instant;
use crate::transport::{Identity, LinkName};
use crate::wire::control::{CancelReason, MasterToPeer, OtherGroups, Wait};

/// The queued inputs.
#[derive(Debug)]
pub(super) enum Item {
    Input(Input),
    /// What a link reports; ignored if a later one has replaced it.
    Link(LinkName, Input),
    /// Start a collective.
    Post(Operation, Arc<Call>),
    /// A safe point or a leave.
    Plain(CallId, Arc<Completion>, Input),
    /// A sync that is retried with the survivors.
    Repeat(Box<Repeat>),
    /// A sync whose elected content cannot be had.
    SyncFailed(OpName, String),
    /// From a control connection; ignored if a later one has replaced it.
    Control(u64, ControlItem),
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "each is worked off at once")]
pub(super) enum ControlItem {
    /// With the address of the master.
    Began(Control, SocketAddr),
    Said(MasterToPeer),
    /// With what is wrong, if it is known.
    Ended(Option<String>),
}

/// What only the driving thread may touch.
#[derive(Debug)]
pub(super) struct Core {
    peer: Peer,
    key: LinkKey,
    /// Of collectives that name none.
    timeout: Option<Duration>,
    public: Arc<Mutex<Public>>,
    /// What was published about the other groups and about waits.
    others: (OtherGroups, Option<Wait>),
    calls: BTreeMap<CallId, Pending>,
    control: Option<Control>,
    /// Of the connection that counts.
    generation: u64,
    /// Set when the session was ended from outside: the machine is no longer used.
    ended: Option<SessionEnd>,
    /// Syncs that are about to be posted again.
    renewals: u32,
    /// Inputs from callers meanwhile; they are handled after the syncs, as if those had been posted
    /// already.
    held_back: Vec<Item>,
    /// For the queue of `deferred`.
    decided: Vec<Deferred>,
    soon: Soon,
}

/// Side effects that do not wait for the queue of `deferred`.
#[derive(Debug, Default)]
pub(super) struct Soon {
    /// The connection to flush, if messages were queued.
    pub(super) flush: Option<Control>,
    /// Calls that were never started.
    pub(super) refused: Vec<(Duty, Result<Finished>)>,
    /// Whether the published state has changed.
    pub(super) is_changed: bool,
}

/// A call that has not ended.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) duty: Duty,
    pub(super) collective: Option<Collective>,
}

/// What repeats with the survivors after a loss.
#[derive(Debug)]
pub(super) struct Collective {
    pub(super) operation: Operation,
    pub(super) call: Arc<Call>,
    pub(super) attempts: u32,
    pub(super) deadline: Option<Instant>,
}

/// A call that is to be posted again.
#[derive(Debug)]
pub(super) struct Repeat {
    pub(super) duty: Duty,
    pub(super) collective: Collective,
}

impl Core {
    /// Its first decisions need no input.
    pub(super) fn new(
        now: Instant,
        setup: Setup,
        timeout: Option<Duration>,
        public: Arc<Mutex<Public>>,
    ) -> Self {
        let mut core = Self {
            key: setup.key,
            peer: Peer::new(setup, now),
            timeout,
            public,
            others: (OtherGroups::default(), None),
            calls: BTreeMap::new(),
            control: None,
            generation: 0,
            ended: None,
            renewals: 0,
            held_back: Vec::new(),
            decided: Vec::new(),
            soon: Soon::default(),
        };
        core.take_outputs(now);
        core
    }

    /// The key that connections to this peer must show.
    #[cfg(test)]
    pub(super) fn key(&self) -> LinkKey {
        self.key
    }

    /// The current connection to the master.
    #[cfg(test)]
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// When the machine's next timeout is due.
    pub(super) fn due(&self) -> Option<Instant> {
        debug_assert!(
            self.renewals > 0 || self.held_back.is_empty(),
            "calls are held back only for syncs"
        );
        let due = self.peer.poll_timeout();
        due.filter(|_| self.ended.is_none())
    }

    /// Newcomers that wait for a safe point.
    pub(super) fn pending_peers(&self) -> usize {
        self.peer.pending_peers()
    }

    /// Takes what was decided since the last call, for the queue of `deferred`.
    pub(super) fn decided(&mut self) -> std::vec::Drain<'_, Deferred> {
        self.decided.drain(..)
    }

    /// What is to be done as soon as the lock is free.
    pub(super) fn take_soon(&mut self) -> Soon {
        std::mem::take(&mut self.soon)
    }

    fn defer(&mut self, work: Deferred) {
        self.decided.push(work);
    }

    /// The call to which an attempt in progress belongs.
    fn call_of(&self, op: OpName) -> Option<CallId> {
        let mut calls = self.calls.iter();
        let call = calls.find(|(_, pending)| {
            let collective = pending.collective.as_ref();
            collective.is_some_and(|collective| *collective.call.op.lock() == Some(op))
        });
        call.map(|(call, _)| *call)
    }

    fn collective_of(&self, op: OpName) -> Option<Arc<Call>> {
        let pending = self.calls.get(&self.call_of(op)?)?;
        let collective = pending.collective.as_ref();
        collective.map(|collective| Arc::clone(&collective.call))
    }

    /// Publishes changes of the other groups and of waits.
    pub(super) fn note_others(&mut self) {
        let (others, waits) = (self.peer.other_groups(), self.peer.waits());
        if self.others.0 != others || self.others.1.as_ref() != waits {
            self.others = (others, waits.cloned());
            let mut public = self.public.lock();
            (public.others, public.waits) = self.others.clone();
        }
    }

    /// Handles one input and the machine's outputs.
    pub(super) fn handle(&mut self, now: Instant, item: Item) {
        self.take_in(now, item);
        self.take_outputs(now);
    }

    fn take_in(&mut self, now: Instant, item: Item) {
        if let Some(end) = self.ended.clone() {
            return self.refuse(item, &end);
        }
        match item {
            Item::Post(..)
            | Item::Plain(_, _, Input::SafePoint { .. })
            | Item::Input(Input::Cancel { .. })
                if self.renewals > 0 =>
            {
                self.held_back.push(item);
            }
            Item::Input(input) | Item::Link(_, input) => self.peer.handle(now, input),
            Item::Post(operation, call) => self.take_post(now, operation, call),
            Item::Plain(call, completion, input) => {
                let duty = Duty::new(completion);
                let collective = None;
                self.calls.insert(call, Pending { duty, collective });
                self.peer.handle(now, input);
            }
            Item::Repeat(repeat) => {
                assert!(
                    self.renewals > 0,
                    "a sync is renewed only after it was announced"
                );
                self.post_attempt(now, *repeat);
                self.renewals -= 1;
                if self.renewals == 0 {
                    for item in std::mem::take(&mut self.held_back) {
                        self.take_outputs(now);
                        self.take_in(now, item);
                    }
                }
            }
            Item::SyncFailed(op, reason) => {
                if let Some(call) = self.call_of(op) {
                    let reason = CancelReason::Local(reason);
                    self.peer.handle(now, Input::Cancel { call, reason });
                }
            }
            Item::Control(generation, _) if generation != self.generation => {}
            Item::Control(_, ControlItem::Began(control, address)) => {
                self.public.lock().control_began(address, now);
                self.control = Some(control);
                self.peer.handle(now, Input::ControlUp);
            }
            Item::Control(_, ControlItem::Said(message)) => {
                self.public.lock().heard(&message);
                self.note_welcome(&message);
                self.peer.handle(now, Input::Control(message));
            }
            Item::Control(_, ControlItem::Ended(fault)) => {
                let was_made = self.control.take().is_some();
                if let Some(fault) = fault {
                    self.public.lock().control_ended(was_made, fault);
                }
                self.peer.handle(now, Input::ControlDown);
            }
        }
    }

    fn note_welcome(&mut self, message: &MasterToPeer) {
        let MasterToPeer::Welcome {
            run_id,
            peer,
            timers,
            ..
        } = message
        else {
            return;
        };
        self.public.lock().peer = Some(*peer);
        self.defer(Deferred::Identify(Identity {
            run: *run_id,
            peer: *peer,
            key: self.key,
            link_timeout: timers.link_timeout,
        }));
        if let (Some(operation_timeout), Some(post_timeout)) = (self.timeout, timers.post_timeout)
            && operation_timeout <= post_timeout
        {
            self.defer(Deferred::WarnOfTimeouts {
                operation_timeout,
                post_timeout,
            });
        }
    }

    fn take_post(&mut self, now: Instant, operation: Operation, call: Arc<Call>) {
        let duty = Duty::new(call.completion_arc());
        // Without a view the session is over, and the machine reports how it ended.
        if let Some(view) = self.peer.view()
            && let Some(expected) = operation.world_size
            && expected != view.members.len()
        {
            // No number is used up. The caller learns the new view and comes back with other
            // buffers.
            self.public.lock().show(view);
            let world_size = view.world_size();
            let error = Error::WorldChanged { world_size };
            return self.soon.refused.push((duty, Err(error)));
        }
        let timeout = operation.deadline.or(self.timeout);
        let collective = Collective {
            operation,
            call,
            attempts: 1,
            deadline: timeout.map(|timeout| now + timeout),
        };
        self.post_attempt(now, Repeat { duty, collective });
    }

    /// Posts a collective, for the first time or again.
    fn post_attempt(&mut self, now: Instant, Repeat { duty, collective }: Repeat) {
        let call = collective.call.id();
        let input = Input::Post {
            call,
            tag: collective.operation.tag,
            fingerprint: collective.operation.fingerprint.clone(),
            deadline: collective.deadline,
        };
        let collective = Some(collective);
        let earlier = self.calls.insert(call, Pending { duty, collective });
        assert!(
            earlier.is_none(),
            "an attempt begins after the one before it ended"
        );
        self.peer.handle(now, input);
    }

    /// Ends what a session that was closed from outside leaves open.
    pub(super) fn end(&mut self, end: &SessionEnd) {
        let end = {
            let mut public = self.public.lock();
            public.ended.get_or_insert_with(|| end.clone()).clone()
        };
        self.ended = Some(end.clone());
        self.generation += 1;
        self.control = None;
        self.defer(Deferred::StopDialling);
        for (_, Pending { duty, collective }) in std::mem::take(&mut self.calls) {
            if let Some(Collective { call, .. }) = collective {
                let op = *call.op.lock();
                if let Some(op) = op {
                    self.defer(Deferred::Stop(op, Some(call)));
                }
            }
            let (end, view) = (Err(session_error(&end)), None);
            self.defer(Deferred::Finish(Ending { duty, end, view }));
        }
        for item in std::mem::take(&mut self.held_back) {
            self.refuse(item, &end);
        }
        self.soon.is_changed = true;
    }

    /// Ends a call that came after the session was ended from outside.
    fn refuse(&mut self, item: Item, end: &SessionEnd) {
        let (duty, end) = match item {
            Item::Post(_, call) => (Duty::new(call.completion_arc()), Err(end.error())),
            Item::Repeat(repeat) => (repeat.duty, Err(session_error(end))),
            Item::Plain(_, completion, Input::Leave { .. }) if *end == SessionEnd::Left => {
                (Duty::new(completion), Ok(Finished::Left))
            }
            Item::Plain(_, completion, _) => (Duty::new(completion), Err(end.error())),
            Item::Input(_) | Item::Link(..) | Item::SyncFailed(..) | Item::Control(..) => return,
        };
        self.soon.refused.push((duty, end));
    }
}

#[cfg(test)]
mod tests;
