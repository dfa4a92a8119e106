//! How calls end: what a verdict means to the caller, and what is repeated with the survivors.

use std::sync::Arc;

use crate::communicator::Outcome;
use crate::driver::completion::Finished;
use crate::driver::drive::{Core, Pending};
use crate::driver::peer::{Session, session_error};
use crate::error::Error;
use crate::ids::{CallId, OpName};
use crate::peer::{End, Input};
use crate::wire::control::AbortReason;

impl Session {
    pub(super) fn finish(&self, core: &mut Core, call: CallId, end: End) {
        let Some(mut pending) = core.calls.remove(&call) else {
            return;
        };
        if let End::Aborted {
            op,
            reason: AbortReason::Lost { .. },
            ..
        } = &end
            && self.repeat(core, &mut pending, *op)
        {
            return;
        }
        let attempts = pending
            .collective
            .as_ref()
            .map_or(1, |collective| collective.attempts);
        let result = match end {
            End::Committed {
                op,
                contributors,
                view,
            } => {
                if let Some(collective) = &pending.collective {
                    collective.call.keep_standing();
                }
                self.engine.commit(op);
                self.state.stop(op);
                self.show(&view, |counters| counters.commits += 1);
                Ok(Finished::Operation(Outcome {
                    op,
                    contributors,
                    view,
                    attempts,
                }))
            }
            End::Aborted { op, reason, view } => {
                self.show(&view, |counters| counters.aborts += 1);
                let collective = pending.collective.as_ref();
                let kind = collective
                    .expect("only collectives are aborted")
                    .operation
                    .fingerprint
                    .kind;
                Err(Error::from_abort(kind, op, view.vid, reason))
            }
            End::Unknown { cause } => Err(session_error(&cause)),
            End::SafePoint { view } => {
                self.show(&view, |_| {});
                Ok(Finished::SafePoint(view))
            }
            End::Withdrawn => Err(Error::Timeout),
            End::Left => Ok(Finished::Left),
        };
        pending.completion.finish(result);
    }

    /// Posts an aborted call again for the survivors, if its caller asked for that (R8: only
    /// losses).
    fn repeat(&self, core: &mut Core, pending: &mut Pending, op: OpName) -> bool {
        let Some(mut collective) = pending.collective.take() else {
            return false;
        };
        if collective.attempts >= collective.operation.fingerprint.attempts {
            pending.collective = Some(collective);
            return false;
        }
        tracing::info!(%op, attempt = collective.attempts + 1, "repeating with the survivors");
        collective.attempts += 1;
        collective.operation.renew_offer();
        collective.call.forget_standing();
        self.public.lock().counters.aborts += 1;
        let input = Input::Post {
            call: collective.call.id(),
            tag: collective.operation.tag,
            fingerprint: collective.operation.fingerprint.clone(),
            deadline: collective.deadline,
        };
        let completion = Arc::clone(&pending.completion);
        let call = collective.call.id();
        core.calls.insert(
            call,
            Pending {
                completion,
                collective: Some(collective),
            },
        );
        core.peer.handle(self.clock.now(), input);
        true
    }

    /// Makes a view and a count visible with the result that is about to be told.
    fn show(
        &self,
        view: &Arc<crate::peer::View>,
        count: impl FnOnce(&mut crate::communicator::Counters),
    ) {
        let mut public = self.public.lock();
        public.view = Some(Arc::clone(view));
        count(&mut public.counters);
    }
}
