//! Working off what happened to a peer: inputs into the machine, outputs into the world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::JoinHandle;

use crate::collective::Start;
use crate::driver::call::{Call, Operation};
use crate::driver::completion::{Completion, Finished};
use crate::driver::control::{self, Control};
use crate::driver::peer::{Session, session_error};
use crate::error::Error;
use crate::event::Event;
use crate::ids::{CallId, LinkKey, OpName, PeerId};
use crate::peer::{Input, Neighbour, Output, Peer, SessionEnd};
use crate::time::Instant;
use crate::transport::tcp::Identity;
use crate::wire::control::{CancelReason, MasterToPeer, OtherGroups, UnitCount};

/// What waits to be worked off.
#[derive(Debug)]
pub(super) enum Item {
    Input(Input),
    /// A collective.
    Post(CallId, Operation, Arc<Call>),
    /// A safe point or a farewell.
    Plain(CallId, Arc<Completion>, Input),
    /// A sync whose elected content cannot be had.
    SyncFailed(OpName, String),
    /// From a control connection; ignored if a later one has replaced it.
    Control(u64, ControlItem),
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "each is worked off at once")]
pub(super) enum ControlItem {
    Began(Control),
    Said(MasterToPeer),
    Ended,
}

/// What only the thread that drives may touch.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) peer: Peer,
    key: LinkKey,
    /// What was made public of the other groups, and of the own unit.
    others: (OtherGroups, Option<UnitCount>),
    pub(super) calls: BTreeMap<CallId, Pending>,
    control: Option<Control>,
    dialling: Option<JoinHandle<()>>,
    generation: u64,
    /// Set when the session was ended from outside: the machine is asked nothing any more.
    ended: Option<SessionEnd>,
}

/// A call that has not ended.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) completion: Arc<Completion>,
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

impl Core {
    pub(super) fn new(peer: Peer, key: LinkKey) -> Self {
        Self {
            peer,
            key,
            others: (OtherGroups::default(), None),
            calls: BTreeMap::new(),
            control: None,
            dialling: None,
            generation: 0,
            ended: None,
        }
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

    fn collective_of(&self, op: OpName) -> Option<&Call> {
        let pending = self.calls.get(&self.call_of(op)?)?;
        let collective = pending.collective.as_ref();
        collective.map(|collective| &*collective.call)
    }
}

impl Session {
    /// Works off what waits, unless another thread is at it; that thread then takes it along.
    pub(crate) fn drive(&self) {
        let _ends_calls = EndCallsOnPanic {
            session: self,
            is_unwinding: std::thread::panicking(),
        };
        loop {
            let Some(mut core) = self.core.try_lock() else {
                return;
            };
            loop {
                let item = self.inbox.lock().pop_front();
                let Some(item) = item else { break };
                self.take_in(&mut core, item);
                while let Some(output) = core.peer.poll_output() {
                    self.carry_out(&mut core, output);
                }
            }
            // The first drive has outputs without an input.
            while let Some(output) = core.peer.poll_output() {
                self.carry_out(&mut core, output);
            }
            if let Some(control) = &core.control {
                control.flush();
            }
            let due = core.peer.poll_timeout();
            self.alarm.set(due.filter(|_| core.ended.is_none()));
            self.note_pending(core.peer.pending_peers());
            self.note_others(&mut core);
            drop(core);
            if self.inbox.lock().is_empty() {
                return;
            }
        }
    }

    fn note_pending(&self, peers: usize) {
        let peers = u32::try_from(peers).expect("a master serves at most PEERS_MAX");
        self.pending_peers.store(peers, Ordering::Relaxed);
    }

    fn note_others(&self, core: &mut Core) {
        let others = (core.peer.other_groups(), core.peer.unit_count());
        if std::mem::replace(&mut core.others, others) != others {
            let mut public = self.public.lock();
            (public.others, public.unit) = others;
        }
    }

    fn take_in(&self, core: &mut Core, item: Item) {
        if let Some(end) = &core.ended {
            return refuse(item, end);
        }
        let now = self.clock.now();
        match item {
            Item::Input(input) => core.peer.handle(now, input),
            Item::Post(call, operation, handle) => self.take_post(core, call, operation, handle),
            Item::Plain(call, completion, input) => {
                core.calls.insert(
                    call,
                    Pending {
                        completion,
                        collective: None,
                    },
                );
                core.peer.handle(now, input);
            }
            Item::SyncFailed(op, reason) => {
                if let Some(call) = core.call_of(op) {
                    let reason = CancelReason::Local(reason);
                    core.peer.handle(now, Input::Cancel { call, reason });
                }
            }
            Item::Control(generation, _) if generation != core.generation => {}
            Item::Control(_, ControlItem::Began(control)) => {
                core.control = Some(control);
                core.peer.handle(now, Input::ControlUp);
            }
            Item::Control(_, ControlItem::Said(message)) => {
                if let MasterToPeer::Welcome {
                    run_id,
                    peer,
                    timers,
                    ..
                } = &message
                {
                    let (run, peer, key) = (*run_id, *peer, core.key);
                    let link_timeout = timers.link_timeout;
                    let identity = Identity {
                        run,
                        peer,
                        key,
                        link_timeout,
                    };
                    self.links.identify(identity, self.router());
                    self.public.lock().peer = Some(peer);
                }
                core.peer.handle(now, Input::Control(message));
            }
            Item::Control(_, ControlItem::Ended) => {
                core.control = None;
                core.peer.handle(now, Input::ControlDown);
            }
        }
    }

    fn take_post(&self, core: &mut Core, call: CallId, operation: Operation, handle: Arc<Call>) {
        let completion = handle.completion_arc();
        // Without a view the session is over, and the machine says how it ended.
        if let Some(view) = core.peer.view()
            && let Some(expected) = operation.world_size
            && expected != view.members.len()
        {
            // No number is used up. The caller learns the new view and comes back with other
            // buffers.
            self.public.lock().view = Some(Arc::clone(view));
            return completion.finish(Err(Error::WorldChanged {
                world_size: view.members.len() as u32,
            }));
        }
        let now = self.clock.now();
        let timeout = operation.deadline.or(self.config.operation_timeout);
        let deadline = timeout.map(|timeout| now + timeout);
        let (tag, fingerprint) = (operation.tag, operation.fingerprint.clone());
        let collective = Collective {
            operation,
            call: handle,
            attempts: 1,
            deadline,
        };
        core.calls.insert(
            call,
            Pending {
                completion,
                collective: Some(collective),
            },
        );
        core.peer.handle(
            now,
            Input::Post {
                call,
                tag,
                fingerprint,
                deadline,
            },
        );
    }

    fn carry_out(&self, core: &mut Core, output: Output) {
        match output {
            Output::Connect => self.connect(core),
            Output::Disconnect => {
                core.generation += 1;
                if let Some(control) = core.control.take() {
                    control.flush();
                    control.close();
                }
            }
            Output::Send(message) => {
                if let Some(control) = &core.control {
                    control.push(&message);
                }
            }
            Output::Links(wanted) => self.set_links(&wanted),
            start @ Output::StartOp { .. } => self.start_op(core, start),
            Output::Elected {
                op,
                content,
                sources,
            } => self.state.elected(op, content, &sources),
            Output::StopOp(op) => {
                if let Some(call) = core.collective_of(op) {
                    call.keep_standing();
                }
                self.stop_op(op);
            }
            Output::Finish { call, end } => self.finish(core, call, end),
            Output::Rejected { call, error } => {
                if let Some(pending) = core.calls.remove(&call) {
                    pending.completion.finish(Err(error));
                }
            }
            Output::View(view) => {
                let mut public = self.public.lock();
                // Later views are shown with the results that were reached in them (R16).
                if public.view.is_none() {
                    public.view = Some(view);
                    self.changed.notify_all();
                }
            }
            Output::Ended(end) => {
                let is_identified = {
                    let mut public = self.public.lock();
                    public.ended = Some(end);
                    public.peer.is_some()
                };
                self.changed.notify_all();
                // Before that there are no links.
                if is_identified {
                    self.set_links(&BTreeMap::new());
                }
            }
            Output::Event(event) => log(&event),
        }
    }

    /// Keeps these links, and what was counted on those that end.
    fn set_links(&self, wanted: &BTreeMap<PeerId, Neighbour>) {
        {
            let mut public = self.public.lock();
            for (peer, link) in self.links.counters() {
                if !wanted.contains_key(&peer) {
                    public.counters.sent_bytes += link.sent_bytes;
                    public.counters.received_bytes += link.received_bytes;
                }
            }
        }
        self.engine.retain_peers(|peer| wanted.contains_key(&peer));
        self.links.set_wanted(wanted);
    }

    fn connect(&self, core: &mut Core) {
        core.generation += 1;
        core.control = None;
        let task = control::run(
            self.weak.clone(),
            self.config.master.clone(),
            core.generation,
        );
        if let Some(earlier) = core.dialling.replace(self.threads.spawn(task)) {
            earlier.abort();
        }
    }

    fn start_op(&self, core: &mut Core, start: Output) {
        let Output::StartOp {
            call,
            op,
            fingerprint,
            members,
            ring_order,
            rank,
            costs,
        } = start
        else {
            unreachable!("called for StartOp alone")
        };
        let pending = core
            .calls
            .get(&call)
            .expect("the machine starts only calls it was given");
        let collective = pending
            .collective
            .as_ref()
            .expect("only collectives are started");
        *collective.call.op.lock() = Some(op);
        if let Some(holding) = &collective.operation.holding {
            let holding = Arc::clone(holding);
            return self.start_sync(op, members, rank, holding);
        }
        let expected = collective.operation.world_size;
        let started = if expected.is_some_and(|expected| expected != members.len()) {
            Err(format!(
                "it was called for {} members but the view has {}",
                expected.unwrap_or_default(),
                members.len()
            ))
        } else {
            let started = self.engine.start(Start {
                op,
                fingerprint,
                members,
                ring_order,
                rank,
                costs,
                parts: collective.operation.parts.clone(),
            });
            started.map_err(|refusal| refusal.to_string())
        };
        if let Err(what) = started {
            let reason = CancelReason::Local(what);
            let now = self.clock.now();
            core.peer.handle(now, Input::Cancel { call, reason });
        }
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
        if let Some(dialling) = core.dialling.take() {
            dialling.abort();
        }
        for (_, pending) in std::mem::take(&mut core.calls) {
            if let Some(collective) = &pending.collective {
                collective.call.keep_standing();
                let op = *collective.call.op.lock();
                op.into_iter().for_each(|op| self.stop_op(op));
            }
            pending.completion.finish(Err(session_error(&end)));
        }
        self.changed.notify_all();
    }

    /// A connection to the master stands.
    pub(super) fn control_began(&self, generation: u64, control: Control, until_heard: String) {
        self.public.lock().last_fault = Some(until_heard);
        self.take(Item::Control(generation, ControlItem::Began(control)));
    }

    /// The master said something; the caller drives once it has read all there is.
    pub(super) fn control_said(&self, generation: u64, message: MasterToPeer) {
        let item = Item::Control(generation, ControlItem::Said(message));
        self.inbox.lock().push_back(item);
    }

    /// A connection to the master ended, or could not be made.
    pub(super) fn control_ended(&self, generation: u64, fault: Option<String>) {
        if fault.is_some() {
            self.public.lock().last_fault = fault;
        }
        self.take(Item::Control(generation, ControlItem::Ended));
    }
}

/// Ends a call that came after the session was ended from outside.
fn refuse(item: Item, end: &SessionEnd) {
    match item {
        Item::Post(_, _, handle) => handle.completion().finish(Err(end.error())),
        Item::Plain(_, completion, Input::Leave { .. }) if *end == SessionEnd::Left => {
            completion.finish(Ok(Finished::Left));
        }
        Item::Plain(_, completion, _) => completion.finish(Err(end.error())),
        Item::Input(_) | Item::SyncFailed(..) | Item::Control(..) => {}
    }
}

fn log(event: &Event) {
    match event {
        Event::Attached(true) => tracing::info!("attached to the master"),
        Event::Attached(false) => tracing::warn!("lost the master; going on without it"),
        other => tracing::info!("{other}"),
    }
}

/// A broken promise inside panics; nobody may wait for ever for a machine that is broken.
struct EndCallsOnPanic<'a> {
    session: &'a Session,
    /// A caller that panicked drops its handles through here: that is not the machine's doing.
    is_unwinding: bool,
}

impl Drop for EndCallsOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.is_unwinding {
            self.session.end_calls(&SessionEnd::Internal);
        }
    }
}
