//! How calls end: what a verdict means for the caller, and which calls are retried with the
//! survivors.

use crate::driver::peer::completion::Finished;
use crate::driver::peer::core::{Collective, Core, Pending, Repeat};
use crate::driver::peer::deferred::{Deferred, Ending};
use crate::driver::peer::session::session_error;
use crate::error::Error;
use crate::ids::{CallId, OpName};
use crate::outcome::{Outcome, Recorded};
use crate::peer::End;
use crate::time::Instant;
use crate::wire::control::AbortReason;

impl Core {
    pub(super) fn finish(&mut self, now: Instant, call: CallId, end: End) {
        let Some(Pending { duty, collective }) = self.calls.remove(&call) else {
            return;
        };
        let collective = match (&end, collective) {
            (End::Aborted { op, reason, .. }, Some(collective))
                if may_repeat(&collective, reason) =>
            {
                return self.repeat(now, *op, Repeat { duty, collective });
            }
            (_, collective) => collective,
        };
        let attempts = collective
            .as_ref()
            .map_or(1, |collective| collective.attempts);
        let kind = collective
            .as_ref()
            .map(|collective| collective.operation.fingerprint.kind());
        let (end, view) = match end {
            End::Committed {
                op,
                contributors,
                view,
            } => {
                let outcome = Outcome {
                    op,
                    contributors,
                    weights: Vec::new(),
                    view: view.clone(),
                    attempts,
                };
                let (end, view) = (Ok(Finished::Operation(outcome)), Some(view));
                let call = collective.map(|collective| collective.call);
                let ending = Ending { duty, end, view };
                return self.defer(Deferred::Commit(op, call, ending));
            }
            End::Aborted { op, reason, view } => {
                let kind = kind.expect("only collectives are aborted");
                let error = Error::from_abort(kind, op, view.vid, reason)
                    .with_names(self.peer.names().clone());
                (Err(error), Some(view))
            }
            End::Unknown { cause } => (Err(session_error(&cause)), None),
            End::SafePoint { view } => (Ok(Finished::SafePoint(view.clone())), Some(view)),
            End::Recorded { record, hash, view } => {
                let recorded = Recorded {
                    stream: record.stream,
                    step: record.step,
                    entries: record.entries,
                    hash,
                    view: view.clone(),
                };
                (Ok(Finished::Recorded(Box::new(recorded))), Some(view))
            }
            End::Withdrawn => (Err(Error::Timeout), None),
            End::Left => (Ok(Finished::Left), None),
        };
        self.defer(Deferred::Finish(Ending { duty, end, view }));
    }

    /// Posts an aborted call again for the survivors: at once, so that no later call comes before
    /// it. Its start is deferred until the aborted attempt has stopped. What a sync offers is only
    /// known after that stop; until then, requests of callers are held back.
    fn repeat(&mut self, now: Instant, op: OpName, mut repeat: Repeat) {
        repeat.collective.attempts += 1;
        repeat.collective.call.forget_standing();
        self.public.lock().counters.aborts += 1;
        self.defer(Deferred::NoteRepeat(op, repeat.collective.attempts));
        if repeat.collective.operation.holding.is_some() {
            self.renewals += 1;
            return self.defer(Deferred::Renew(Box::new(repeat)));
        }
        self.post_attempt(now, repeat);
    }
}

/// Whether a call's caller asked for another attempt (R8: only after losses).
fn may_repeat(collective: &Collective, reason: &AbortReason) -> bool {
    matches!(reason, AbortReason::Lost { .. })
        && collective.attempts < collective.operation.fingerprint.attempts
}
