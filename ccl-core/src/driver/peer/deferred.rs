//! Side effects of the machine's decisions, carried out in order and outside its lock.
//!
//! A thread that drives the machine appends to one queue under the machine's lock, releases the
//! lock, and then runs the queue, unless another thread is already running it. So the queue has the
//! order of the decisions, and only one thread at a time carries them out:
//!
//! - links are made before an operation posts to them;
//! - an operation is started before it is stopped, and stopped before its call ends (R14), before
//!   the next one of its tag starts, and before it is retried;
//! - a result is copied to the caller's buffer after readers and writers have stopped, and before
//!   the call returns (P2). The copy may take a second, so it leaves the queue: nothing else uses
//!   the memory by then, and the end of the call travels with the copy.
//!
//! An effect may wait for one system call or one addition of another thread, never for more.
//! Heartbeats do not wait here: they are queued under the machine's lock and sent before this queue
//! runs, and the timer thread never runs it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::collective::Brought;
use crate::driver::peer::call::Call;
use crate::driver::peer::completion::{Completion, Duty, Finished};
use crate::driver::peer::control::{self, Control};
use crate::driver::peer::core::{Item, Repeat};
use crate::driver::peer::session::Session;
use crate::error::Result;
use crate::event::Event;
use crate::ids::{CallId, OpName, PeerId, Vid};
use crate::peer::{Input, Neighbour, View};
use crate::state::engine::StartSync;
use crate::transport::{FrameHeader, Identity};
use crate::wire::control::{CancelReason, Start, StateId};

/// Something to do, in its turn.
#[derive(Debug)]
pub(super) enum Deferred {
    /// The identity of this peer, for its links.
    Identify(Identity),
    /// The links to keep.
    Links(BTreeMap<PeerId, Neighbour>),
    /// A new connection to the master, with this number.
    Dial(u64),
    /// No connection is wanted any more.
    StopDialling,
    /// Send the rest, and end the connection.
    HangUp(Control),
    /// The other side does not read what it is sent.
    Break(Control),
    /// Start an operation in the collective engine.
    Start(CallId, Box<Start>, Brought),
    /// Synchronise shared state.
    StartSync(StartSync),
    /// What was elected for a sync.
    Elected(OpName, StateId, Vec<PeerId>),
    /// Tell these members what the machine knows.
    Say(FrameHeader, Vec<PeerId>),
    /// Of the operations born before a view these go on.
    Forget(Vid, Vec<OpName>),
    /// Move no more bytes.
    Stop(OpName, Option<Arc<Call>>),
    /// Stop moving bytes, copy the result to the caller, and end the call.
    Commit(OpName, Option<Arc<Call>>, Ending),
    /// Complete a call.
    Finish(Ending),
    /// Look what a sync brings by now, and post it again.
    Renew(Box<Repeat>),
    /// A call is made again, for the time that is named.
    NoteRepeat(OpName, u32),
    /// Calls time out before the master evicts members that do not make them.
    WarnOfTimeouts {
        operation_timeout: Duration,
        post_timeout: Duration,
    },
    /// Something for the log.
    Note(Event),
}

/// The end of a call, on its way to the waiting caller.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) duty: Duty,
    pub(super) end: Result<Finished>,
    /// Shown with it (R16).
    pub(super) view: Option<Arc<View>>,
}

impl Ending {
    /// Where it will be.
    pub(super) fn completion(&self) -> Arc<Completion> {
        Arc::clone(self.duty.completion())
    }
}

/// What the thread that carries out owns meanwhile.
#[derive(Debug, Default)]
pub(super) struct Hands {
    dialling: Option<JoinHandle<()>>,
}

impl Session {
    /// Appends work. The caller holds the machine's lock, which makes the order.
    pub(super) fn defer(&self, work: impl ExactSizeIterator<Item = Deferred>) {
        if work.len() > 0 {
            self.deferred.lock().extend(work);
        }
    }

    /// Whether there is work to be carried out.
    pub(super) fn has_deferred(&self) -> bool {
        !self.deferred.lock().is_empty()
    }

    /// Runs the queue, unless another thread is running it; that thread then does this work too.
    pub(super) fn carry_out_deferred(&self) {
        while self.has_deferred() {
            let Some(mut hands) = self.hands.try_lock() else {
                return;
            };
            while let Some(work) = self.next_deferred() {
                self.carry_out(&mut hands, work);
            }
        }
    }

    fn next_deferred(&self) -> Option<Deferred> {
        self.deferred.lock().pop_front()
    }

    fn carry_out(&self, hands: &mut Hands, work: Deferred) {
        match work {
            Deferred::Identify(identity) => self.links.identify(identity, self.router()),
            Deferred::Links(wanted) => self.set_links(&wanted),
            Deferred::Say(frame, to) => {
                for peer in to {
                    self.links.signal(peer, frame, Bytes::new());
                }
            }
            Deferred::Forget(before, carried) => self.engine.forget(before, carried),
            Deferred::Dial(generation) => self.dial(hands, generation),
            Deferred::StopDialling => {
                if let Some(dialling) = hands.dialling.take() {
                    dialling.abort();
                }
            }
            Deferred::HangUp(control) => {
                control.flush();
                control.close();
            }
            Deferred::Break(control) => control.break_off(),
            Deferred::Start(call, start, brought) => {
                if let Err(refusal) = self.engine.start(*start, &brought) {
                    let reason = CancelReason::Local(refusal.to_string());
                    self.submit(Input::Cancel { call, reason });
                }
            }
            Deferred::StartSync(start) => self.state.start(start),
            Deferred::Elected(op, content, sources) => self.state.elected(op, content, &sources),
            Deferred::Stop(op, call) => {
                keep_standing(op, call.as_deref());
                self.stop_op(op);
            }
            Deferred::Commit(op, call, mut ending) => {
                keep_standing(op, call.as_deref());
                if let Ok(Finished::Operation(outcome)) = &mut ending.end
                    && let Some(weights) = self.engine.weights(op)
                {
                    outcome.weigh(&weights);
                }
                let staged = self.engine.commit(op);
                self.state.stop(op);
                match staged {
                    Some(staged) => self.bring_home(staged, ending),
                    None => self.tell(ending),
                }
            }
            Deferred::Finish(ending) => self.tell(ending),
            Deferred::Renew(mut repeat) => {
                repeat.collective.operation.renew_offer();
                self.take(Item::Repeat(repeat));
            }
            Deferred::NoteRepeat(op, attempt) => {
                tracing::info!(%op, attempt, "retrying with the survivors");
            }
            Deferred::WarnOfTimeouts {
                operation_timeout,
                post_timeout,
            } => tracing::warn!(
                ?operation_timeout,
                ?post_timeout,
                "operation_timeout is not longer than the master's post_timeout: calls time out before a \
                 member that hangs is evicted; raise operation_timeout or lower post_timeout"
            ),
            Deferred::Note(event) => log(&event),
        }
    }

    /// Ends a call, and makes the view and the count visible that belong to its end.
    pub(super) fn tell(&self, ending: Ending) {
        if let Some(view) = ending.view {
            let mut public = self.public.lock();
            public.show(&view);
            match &ending.end {
                Ok(Finished::Operation(_)) => public.counters.commits += 1,
                Err(_) => public.counters.aborts += 1,
                Ok(Finished::SafePoint(_) | Finished::Recorded(_) | Finished::Left) => {}
            }
        }
        ending.duty.finish(ending.end);
    }

    fn dial(&self, hands: &mut Hands, generation: u64) {
        let (session, sockets) = (self.weak.clone(), Arc::clone(&self.sockets));
        let task = control::run(session, sockets, self.config.master.clone(), generation);
        if let Some(earlier) = hands.dialling.replace(self.threads.spawn(task)) {
            earlier.abort();
        }
    }

    /// Keeps these links, and what was counted on those that end.
    fn set_links(&self, wanted: &BTreeMap<PeerId, Neighbour>) {
        let counters = self.links.counters();
        {
            let mut public = self.public.lock();
            for (_, link) in counters
                .iter()
                .filter(|(peer, _)| !wanted.contains_key(peer))
            {
                public.counters.sent_bytes += link.sent_bytes;
                public.counters.received_bytes += link.received_bytes;
            }
        }
        self.engine.retain_peers(|peer| wanted.contains_key(&peer));
        self.links.set_wanted(wanted);
    }
}

fn keep_standing(op: OpName, call: Option<&Call>) {
    if let Some(call) = call {
        call.keep_standing(op);
    }
}

fn log(event: &Event) {
    match event {
        Event::Attached(true) => tracing::info!("attached to the master"),
        Event::Attached(false) => tracing::warn!("lost the master; continuing without it"),
        other => tracing::info!("{other}"),
    }
}
