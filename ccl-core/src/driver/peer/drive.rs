//! Working off what happened to a peer: inputs into the machine, outputs into the world.
//!
//! The machine and what belongs to its decisions is behind one lock, under which nothing is done
//! that takes time: no copy, no addition, no system call. What an output wants done in the world is
//! put into the queue of `deferred`, and carried out when the lock is free again. Messages to the
//! master are pushed under the lock, which gives them their order, and leave right after it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::driver::peer::call::{Call, Operation};
use crate::driver::peer::completion::{Completion, Duty, Finished};
use crate::driver::peer::control::Control;
use crate::driver::peer::copier::Job;
use crate::driver::peer::deferred::{Deferred, Ending};
use crate::driver::peer::session::{Session, session_error};
use crate::error::{Error, Result};
use crate::ids::{CallId, LinkKey, OpName};
use crate::peer::{Input, Peer, SessionEnd};
use crate::time::Instant;
use crate::transport::{Identity, LinkName};
use crate::wire::control::{CancelReason, MasterToPeer, OtherGroups, Wait};

/// What waits to be worked off.
#[derive(Debug)]
pub(super) enum Item {
    Input(Input),
    /// What a link reports; ignored if a later one has replaced it.
    Link(LinkName, Input),
    /// A collective.
    Post(Operation, Arc<Call>),
    /// A safe point or a farewell.
    Plain(CallId, Arc<Completion>, Input),
    /// A sync that goes on with the survivors.
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

/// What only the thread that drives may touch.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) peer: Peer,
    key: LinkKey,
    /// What was made public of the other groups, and of what is waited for.
    others: (OtherGroups, Option<Wait>),
    pub(super) calls: BTreeMap<CallId, Pending>,
    pub(super) control: Option<Control>,
    pub(super) generation: u64,
    /// Set when the session was ended from outside: the machine is asked nothing any more.
    ended: Option<SessionEnd>,
    /// Syncs that are about to be posted again.
    pub(super) renewals: u32,
    /// What callers said meanwhile: as if the syncs had been posted already, it comes after them.
    pub(super) held_back: Vec<Item>,
    /// To be done as soon as the lock is free.
    pub(super) soon: Soon,
}

/// What does not wait for the queue of `deferred`.
#[derive(Debug, Default)]
pub(super) struct Soon {
    /// Something was pushed to it.
    pub(super) flush: Option<Control>,
    /// Calls that were never started.
    pub(super) refused: Vec<(Duty, Result<Finished>)>,
    /// What is public has changed.
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
    pub(super) fn new(peer: Peer, key: LinkKey) -> Self {
        Self {
            peer,
            key,
            others: (OtherGroups::default(), None),
            calls: BTreeMap::new(),
            control: None,
            generation: 0,
            ended: None,
            renewals: 0,
            held_back: Vec::new(),
            soon: Soon::default(),
        }
    }

    /// What connections to this peer must show.
    #[cfg(test)]
    pub(super) fn key(&self) -> LinkKey {
        self.key
    }

    /// The call whose attempt under way this is.
    fn call_of(&self, op: OpName) -> Option<CallId> {
        let mut calls = self.calls.iter();
        let call = calls.find(|(_, pending)| {
            let collective = pending.collective.as_ref();
            collective.is_some_and(|collective| *collective.call.op.lock() == Some(op))
        });
        call.map(|(call, _)| *call)
    }

    pub(super) fn collective_of(&self, op: OpName) -> Option<Arc<Call>> {
        let pending = self.calls.get(&self.call_of(op)?)?;
        let collective = pending.collective.as_ref();
        collective.map(|collective| Arc::clone(&collective.call))
    }
}

impl Core {
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

impl Session {
    /// Works off what waits, unless another thread is at it; that thread then takes it along.
    pub(crate) fn drive(&self) {
        let _ends_calls = EndCallsOnPanic::new(self);
        loop {
            let is_mine = self.decide();
            self.carry_out_deferred();
            if !is_mine || self.inbox.lock().is_empty() {
                return;
            }
        }
    }

    /// The machine's time has come. The thread that says so is not held up by what follows from it.
    pub(super) fn ring(&self) {
        let _ends_calls = EndCallsOnPanic::new(self);
        self.inbox.lock().push_back(Item::Input(Input::Timeout));
        self.decide();
        if self.has_deferred() {
            let session = self.weak.clone();
            let work = async move {
                if let Some(session) = session.upgrade() {
                    session.drive();
                }
            };
            drop(self.threads.spawn(work));
        }
        let rings = self.rings.fetch_add(1, Ordering::Relaxed);
        if rings.is_multiple_of(RINGS_A_TRIM) {
            self.hand_to_copier(Job::Trim);
        }
    }

    /// Puts everything that waits into the machine; false if another thread is at it, and takes the
    /// rest along.
    fn decide(&self) -> bool {
        loop {
            let Some(mut core) = self.core.try_lock() else {
                return false;
            };
            loop {
                let item = self.inbox.lock().pop_front();
                let Some(item) = item else { break };
                self.take_in(&mut core, item);
                self.poll_outputs(&mut core);
            }
            // The first time there are outputs without an input.
            self.poll_outputs(&mut core);
            let due = core.peer.poll_timeout();
            let is_due_sooner = self.alarm.set(due.filter(|_| core.ended.is_none()));
            self.note_pending(core.peer.pending_peers());
            self.note_others(&mut core);
            let soon = std::mem::take(&mut core.soon);
            drop(core);
            self.follow_up(soon, is_due_sooner);
            if self.inbox.lock().is_empty() {
                return true;
            }
        }
    }

    fn poll_outputs(&self, core: &mut Core) {
        while let Some(output) = core.peer.poll_output() {
            self.take_output(core, output);
        }
    }

    /// What is cheap, and is not to wait for the deferred work of other threads.
    fn follow_up(&self, soon: Soon, is_due_sooner: bool) {
        if let Some(control) = soon.flush {
            control.flush();
        }
        if is_due_sooner {
            self.alarm.wake();
        }
        if soon.is_changed {
            self.changed.notify_all();
        }
        for (duty, end) in soon.refused {
            duty.finish(end);
        }
    }

    fn note_pending(&self, peers: usize) {
        let peers = u32::try_from(peers).expect("a master serves at most PEERS_MAX");
        self.pending_peers.store(peers, Ordering::Relaxed);
    }

    fn note_others(&self, core: &mut Core) {
        let (others, waits) = (core.peer.other_groups(), core.peer.waits());
        if core.others.0 != others || core.others.1.as_ref() != waits {
            core.others = (others, waits.cloned());
            let mut public = self.public.lock();
            (public.others, public.waits) = core.others.clone();
        }
    }

    fn take_in(&self, core: &mut Core, item: Item) {
        if let Some(end) = core.ended.clone() {
            return core.refuse(item, &end);
        }
        let now = self.clock.now();
        match item {
            Item::Post(..)
            | Item::Plain(_, _, Input::SafePoint { .. })
            | Item::Input(Input::Cancel { .. })
                if core.renewals > 0 =>
            {
                core.held_back.push(item);
            }
            Item::Link(link, _) if !self.links.is_current(link) => {}
            Item::Input(input) | Item::Link(_, input) => core.peer.handle(now, input),
            Item::Post(operation, call) => self.take_post(core, operation, call),
            Item::Plain(call, completion, input) => {
                let duty = Duty::new(completion);
                let collective = None;
                core.calls.insert(call, Pending { duty, collective });
                core.peer.handle(now, input);
            }
            Item::Repeat(repeat) => {
                self.post_attempt(core, *repeat);
                core.renewals -= 1;
                if core.renewals == 0 {
                    for item in std::mem::take(&mut core.held_back) {
                        self.poll_outputs(core);
                        self.take_in(core, item);
                    }
                }
            }
            Item::SyncFailed(op, reason) => {
                if let Some(call) = core.call_of(op) {
                    let reason = CancelReason::Local(reason);
                    core.peer.handle(now, Input::Cancel { call, reason });
                }
            }
            Item::Control(generation, _) if generation != core.generation => {}
            Item::Control(_, ControlItem::Began(control, address)) => {
                self.public.lock().control_began(address, now);
                core.control = Some(control);
                core.peer.handle(now, Input::ControlUp);
            }
            Item::Control(_, ControlItem::Said(message)) => {
                self.public.lock().heard(&message);
                self.note_welcome(core, &message);
                core.peer.handle(now, Input::Control(message));
            }
            Item::Control(_, ControlItem::Ended(fault)) => {
                let was_made = core.control.take().is_some();
                if let Some(fault) = fault {
                    self.public.lock().control_ended(was_made, fault);
                }
                core.peer.handle(now, Input::ControlDown);
            }
        }
    }

    fn note_welcome(&self, core: &Core, message: &MasterToPeer) {
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
            key: core.key,
            link_timeout: timers.link_timeout,
        }));
    }

    fn take_post(&self, core: &mut Core, operation: Operation, call: Arc<Call>) {
        let duty = Duty::new(call.completion_arc());
        // Without a view the session is over, and the machine says how it ended.
        if let Some(view) = core.peer.view()
            && let Some(expected) = operation.world_size
            && expected != view.members.len()
        {
            // No number is used up. The caller learns the new view and comes back with other
            // buffers.
            self.public.lock().show(view);
            let world_size = view.world_size();
            let error = Error::WorldChanged { world_size };
            return core.soon.refused.push((duty, Err(error)));
        }
        let timeout = operation.deadline.or(self.config.operation_timeout);
        let collective = Collective {
            operation,
            call,
            attempts: 1,
            deadline: timeout.map(|timeout| self.clock.now() + timeout),
        };
        self.post_attempt(core, Repeat { duty, collective });
    }

    /// Posts a collective, for the first time or again.
    pub(super) fn post_attempt(&self, core: &mut Core, Repeat { duty, collective }: Repeat) {
        let call = collective.call.id();
        let input = Input::Post {
            call,
            tag: collective.operation.tag,
            fingerprint: collective.operation.fingerprint.clone(),
            deadline: collective.deadline,
        };
        let collective = Some(collective);
        core.calls.insert(call, Pending { duty, collective });
        core.peer.handle(self.clock.now(), input);
    }

    /// Ends what a session that was closed from outside leaves open.
    pub(super) fn end_calls(&self, end: &SessionEnd) {
        let mut core = self.core.lock();
        let end = {
            let mut public = self.public.lock();
            public.ended.get_or_insert_with(|| end.clone()).clone()
        };
        core.ended = Some(end.clone());
        core.generation += 1;
        core.control = None;
        self.defer(Deferred::StopDialling);
        for (_, Pending { duty, collective }) in std::mem::take(&mut core.calls) {
            if let Some(Collective { call, .. }) = collective {
                let op = *call.op.lock();
                if let Some(op) = op {
                    self.defer(Deferred::Stop(op, Some(call)));
                }
            }
            let (end, view) = (Err(session_error(&end)), None);
            self.defer(Deferred::Finish(Ending { duty, end, view }));
        }
        for item in std::mem::take(&mut core.held_back) {
            core.refuse(item, &end);
        }
        let mut soon = std::mem::take(&mut core.soon);
        soon.is_changed = true;
        drop(core);
        self.follow_up(soon, false);
        self.carry_out_deferred();
    }

    /// A connection to the master stands.
    pub(super) fn control_began(&self, generation: u64, control: Control, address: SocketAddr) {
        let item = ControlItem::Began(control, address);
        self.take(Item::Control(generation, item));
    }

    /// The master said something; the caller drives once it has read all there is.
    pub(super) fn control_said(&self, generation: u64, message: MasterToPeer) {
        let item = Item::Control(generation, ControlItem::Said(message));
        self.inbox.lock().push_back(item);
    }

    /// A connection to the master ended, or could not be made.
    pub(super) fn control_ended(&self, generation: u64, fault: Option<String>) {
        self.take(Item::Control(generation, ControlItem::Ended(fault)));
    }
}

/// A broken promise inside panics; nobody may wait for ever for a machine that is broken.
pub(super) struct EndCallsOnPanic<'a> {
    session: &'a Session,
    /// A caller that panicked drops its handles through here: that is not the machine's doing.
    is_unwinding: bool,
}

impl<'a> EndCallsOnPanic<'a> {
    pub(super) fn new(session: &'a Session) -> Self {
        Self {
            session,
            is_unwinding: std::thread::panicking(),
        }
    }
}

impl Drop for EndCallsOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.is_unwinding {
            self.session.end_calls(&SessionEnd::Internal);
        }
    }
}

/// Heartbeats ring at least a few times a second: memory idle for some seconds goes back to the
/// system.
const RINGS_A_TRIM: u32 = 32;
