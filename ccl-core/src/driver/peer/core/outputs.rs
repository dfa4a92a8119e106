//! Handles the machine's outputs: some at once, the others queued until the machine's lock is free.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::driver::peer::core::{Core, Pending};
use crate::driver::peer::deferred::{Deferred, Ending};
use crate::error::Error;
use crate::ids::CallId;
use crate::peer::{Input, Output};
use crate::state::engine::StartSync;
use crate::time::Instant;
use crate::wire::control::{CancelReason, Start};

impl Core {
    /// Handles the machine's outputs.
    pub(super) fn take_outputs(&mut self, now: Instant) {
        while let Some(output) = self.peer.poll_output() {
            self.take_output(now, output);
        }
    }

    /// Carries out an output, or queues it until the lock is free.
    fn take_output(&mut self, now: Instant, output: Output) {
        match output {
            Output::Connect => {
                self.generation += 1;
                self.control = None;
                self.defer(Deferred::Dial(self.generation));
            }
            Output::Disconnect => {
                self.generation += 1;
                if let Some(control) = self.control.take() {
                    self.defer(Deferred::HangUp(control));
                }
            }
            Output::Send(message) => {
                if let Some(control) = self.control.clone() {
                    if control.push(&message).is_err() {
                        self.defer(Deferred::Break(control.clone()));
                    }
                    self.soon.flush = Some(control);
                }
            }
            Output::Links(wanted) => self.defer(Deferred::Links(wanted)),
            Output::StartOp { call, start } => self.start_op(now, call, start),
            Output::Elected {
                op,
                content,
                sources,
            } => self.defer(Deferred::Elected(op, content, sources)),
            Output::Say { message, to } => self.defer(Deferred::Say(message.header(), to)),
            Output::StopOp(op) => {
                let call = self.collective_of(op);
                self.defer(Deferred::Stop(op, call));
            }
            Output::Finish { call, end } => self.finish(now, call, end),
            Output::Rejected { call, error } => self.reject(call, error),
            Output::Forget { before, carried } => self.defer(Deferred::Forget(before, carried)),
            Output::View(view) => {
                let mut public = self.public.lock();
                // Later views are shown with the results that were reached in them (R16).
                if public.view.is_none() {
                    public.view = Some(view);
                    self.soon.is_changed = true;
                }
            }
            Output::Ended(end) => {
                let is_linked = {
                    let mut public = self.public.lock();
                    public.ended = Some(end);
                    public.peer.is_some()
                };
                self.soon.is_changed = true;
                if is_linked {
                    self.defer(Deferred::Links(BTreeMap::new()));
                }
            }
            Output::Event(event) => self.defer(Deferred::Note(event)),
        }
    }

    /// Ends a call that the machine did not start, or not again.
    fn reject(&mut self, call: CallId, error: Error) {
        let Some(Pending { duty, collective }) = self.calls.remove(&call) else {
            return;
        };
        if collective.is_none_or(|collective| collective.attempts == 1) {
            return self.soon.refused.push((duty, Err(error)));
        }
        // Its last attempt may have to be stopped first.
        let (end, view) = (Err(error), None);
        self.defer(Deferred::Finish(Ending { duty, end, view }));
    }

    fn start_op(&mut self, now: Instant, call: CallId, start: Start) {
        let pending = self
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
            let count = birth.members.len();
            let what = format!("it was called for {expected} members, but the view has {count}");
            let reason = CancelReason::Local(what);
            return self.peer.handle(now, Input::Cancel { call, reason });
        }
        let brought = operation.brought.clone();
        self.defer(Deferred::Start(call, Box::new(start), brought));
    }
}
