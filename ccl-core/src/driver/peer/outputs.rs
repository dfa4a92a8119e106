//! What the machine decided: which part of it is done at once, and which waits for its turn without
//! the machine's lock.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::driver::peer::deferred::{Deferred, Ending};
use crate::driver::peer::drive::{Core, Pending};
use crate::driver::peer::session::Session;
use crate::error::Error;
use crate::ids::CallId;
use crate::peer::{Input, Output};
use crate::state::engine::StartSync;
use crate::wire::control::{CancelReason, Start};

impl Session {
    /// Does what an output says, or puts it into the queue of what is done without the lock.
    pub(super) fn take_output(&self, core: &mut Core, output: Output) {
        match output {
            Output::Connect => {
                core.generation += 1;
                core.control = None;
                self.defer(Deferred::Dial(core.generation));
            }
            Output::Disconnect => {
                core.generation += 1;
                if let Some(control) = core.control.take() {
                    self.defer(Deferred::HangUp(control));
                }
            }
            Output::Send(message) => {
                if let Some(control) = core.control.clone() {
                    if control.push(&message).is_err() {
                        self.defer(Deferred::Break(control.clone()));
                    }
                    core.soon.flush = Some(control);
                }
            }
            Output::Links(wanted) => self.defer(Deferred::Links(wanted)),
            Output::StartOp { call, start } => self.start_op(core, call, start),
            Output::Elected {
                op,
                content,
                sources,
            } => self.defer(Deferred::Elected(op, content, sources)),
            Output::StopOp(op) => self.defer(Deferred::Stop(op, core.collective_of(op))),
            Output::Finish { call, end } => self.finish(core, call, end),
            Output::Rejected { call, error } => self.reject(core, call, error),
            Output::Forget { before, carried } => self.defer(Deferred::Forget(before, carried)),
            Output::View(view) => {
                let mut public = self.public.lock();
                // Later views are shown with the results that were reached in them (R16).
                if public.view.is_none() {
                    public.view = Some(view);
                    core.soon.is_changed = true;
                }
            }
            Output::Ended(end) => {
                let mut public = self.public.lock();
                public.ended = Some(end);
                core.soon.is_changed = true;
                // Before that there are no links.
                if public.peer.is_some() {
                    self.defer(Deferred::Links(BTreeMap::new()));
                }
            }
            Output::Event(event) => self.defer(Deferred::Note(event)),
        }
    }

    /// Ends a call that the machine did not start, or not again.
    fn reject(&self, core: &mut Core, call: CallId, error: Error) {
        let Some(Pending { duty, collective }) = core.calls.remove(&call) else {
            return;
        };
        if collective.is_none_or(|collective| collective.attempts == 1) {
            return core.soon.refused.push((duty, Err(error)));
        }
        // Its last attempt may have to be stopped first.
        let (end, view) = (Err(error), None);
        self.defer(Deferred::Finish(Ending { duty, end, view }));
    }

    fn start_op(&self, core: &mut Core, call: CallId, start: Start) {
        let pending = core
            .calls
            .get(&call)
            .expect("the machine starts only calls it was given");
        let collective = pending
            .collective
            .as_ref()
            .expect("only collectives are started");
        let birth = &start.birth;
        *collective.call.op.lock() = Some(birth.op);
        let operation = &collective.operation;
        if let Some(holding) = &operation.holding {
            return self.defer(Deferred::StartSync(StartSync {
                op: birth.op,
                members: birth.members.clone(),
                rank: start.rank.index(),
                holding: Arc::clone(holding),
            }));
        }
        if let Some(expected) = operation.world_size
            && expected != birth.members.len()
        {
            let (now, count) = (self.clock.now(), birth.members.len());
            let what = format!("it was called for {expected} members but the view has {count}");
            let reason = CancelReason::Local(what);
            return core.peer.handle(now, Input::Cancel { call, reason });
        }
        let buffers = operation.parts.clone();
        self.defer(Deferred::Start(call, Box::new(start), buffers));
    }
}
