//! Requests to abort: by the caller, its deadline, or a mismatch (R8).
//!
//! A cancel is only a request: the call goes on until the verdict, which may be a commit. A call
//! without a number is posted first and cancelled then. If it just returned, the others would be
//! left in an operation that this caller believes to be over.

use crate::ids::{CallId, OpName, PeerId, Tag};
use crate::limits;
use crate::mutation::{Mutation, is_active};
use crate::wire::control::{CancelReason, Fingerprint, PeerToMaster};

use super::Peer;
use super::io::SessionEnd;

impl Peer {
    pub(super) fn handle_mismatch(&mut self, op: OpName, peer: PeerId, theirs: &Fingerprint) {
        let Some(call) = self.tags.get(op.tag).and_then(|state| state.call.as_ref()) else {
            return;
        };
        if call.posted().is_none_or(|posted| posted.op != op) {
            return;
        }
        if let Some((field, mine, theirs)) = call.fingerprint.difference(theirs) {
            let reason = CancelReason::Mismatch {
                peer,
                field: field.to_owned(),
                mine,
                theirs,
            };
            self.request_cancel(op.tag, reason);
        }
    }

    pub(super) fn handle_cancel(&mut self, call: CallId, reason: CancelReason) {
        match self.tags.tag_of(call) {
            Some(tag) => self.request_cancel(tag, reason),
            None => self.withdraw_safe_point(call),
        }
    }

    /// Cancels what this peer has posted, as the last thing before it leaves.
    pub(super) fn cancel_all_posted(&mut self, reason: &CancelReason) {
        for tag in self.tags.busy() {
            self.request_cancel(tag, reason.clone());
        }
    }

    /// Acts on deadlines, and on verdicts that are overdue.
    pub(super) fn check_calls(&mut self) {
        let verdict = self
            .tags
            .next_verdict()
            .filter(|_| !is_active(Mutation::VerdictAwaitedForEver));
        if verdict.is_some_and(|until| until <= self.patience.now()) {
            return self.end_session(SessionEnd::NoVerdict);
        }
        while let Some(tag) = self.tags.due_deadline(self.now) {
            self.request_cancel(tag, CancelReason::Deadline { late: None });
        }
    }

    /// Asks for an abort (R8). Only the first request of a call counts; from then on its verdict
    /// has a time limit.
    fn request_cancel(&mut self, tag: Tag, reason: CancelReason) {
        let until = self.patience.now() + self.session.timers().verdict_timeout;
        let Some(call) = self.tags.get_mut(tag).and_then(|state| state.call.as_mut()) else {
            return;
        };
        if call.cancel.is_some() {
            return;
        }
        let reason = bounded(reason);
        call.cancel = Some(reason.clone());
        let op = call.posted().map(|posted| posted.op);
        self.tags.await_verdict(tag, until);
        let Some(op) = op else {
            return;
        };
        if self.phase.is_telling() && !is_active(Mutation::CancelNotSaid) {
            self.send_notes();
            self.send(PeerToMaster::Cancel {
                op,
                reason: reason.clone(),
            });
        }
        if is_active(Mutation::LocalReturnOnCancel) {
            self.decide(tag, self.cancelled(op, reason));
            self.tell(tag);
        }
    }
}

/// The reason, with its texts cut to the length that a message may have.
fn bounded(mut reason: CancelReason) -> CancelReason {
    let cut = |text: &mut String| {
        text.truncate(text.floor_char_boundary(limits::TEXT_BYTES_MAX));
    };
    match &mut reason {
        CancelReason::Local(what) => cut(what),
        CancelReason::Mismatch { mine, theirs, .. } => {
            cut(mine);
            cut(theirs);
        }
        CancelReason::User
        | CancelReason::Deadline { .. }
        | CancelReason::Leave
        | CancelReason::Crossed(_) => {}
    }
    reason
}
