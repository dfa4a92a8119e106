//! How calls end: by a commit, by a floor, or with the session (R2, R6, R7).
//!
//! `StopOp` precedes every `Finish`, except for a commit, where it follows. Decisions of a view
//! change are held back until its release.

use std::cmp::Ordering;

use crate::event::Event;
use crate::ids::{OpName, Tag, Vid};
use crate::mutation::{Mutation, is_active};
use crate::wire::control::{AbortReason, CancelReason, CommitRecord};

use super::Peer;
use super::invariants;
use super::io::{End, Output, SessionEnd};
use super::tags::{Stage, Verdict};

impl Peer {
    /// An operation of a view that this peer is in, or that was carried into it, succeeded.
    pub(super) fn handle_commit(&mut self, commits: Vec<CommitRecord>) {
        for commit in commits {
            if let Err(what) = self.commit(commit) {
                return self.end_contradicted(what);
            }
        }
    }

    fn commit(&mut self, commit: CommitRecord) -> Result<(), String> {
        let op = commit.op;
        self.notes.withdraw(op);
        let state = self.tags.entry(op.tag);
        state.sealed_floor = state.sealed_floor.max(op.n.next());
        match op.n.cmp(&state.floor) {
            Ordering::Less => return Ok(()),
            Ordering::Greater => return Err(format!("commit of {op} above floor {}", state.floor)),
            Ordering::Equal => {}
        }
        let posted = state.posted().filter(|posted| posted.op.n == op.n);
        let is_own = match posted {
            Some(posted) if posted.op != op => {
                return Err(format!("commit of {op}, which is {} here", posted.op));
            }
            Some(posted) if !posted.held => {
                return Err(format!("commit of {op}, whose result this peer lacks"));
            }
            Some(posted) if posted.elected != commit.sealed.state() => {
                return Err(format!("commit of {op}, which seals what was not elected"));
            }
            Some(_) => true,
            None if state.next <= op.n => return Err(format!("commit of {op}, never called here")),
            None => false,
        };
        state.commit(op.n);
        if let Some(membership) = self.phase.membership_mut() {
            membership.forget_carried(op);
        }
        if is_own {
            let contributors = commit.contributors;
            self.decide(op.tag, Verdict::Committed { op, contributors });
            self.tell(op.tag);
        }
        self.advance(op.tag);
        Ok(())
    }

    /// Decides the operations below a new floor. `tell` reports them.
    pub(super) fn decide_below_floors(&mut self) {
        for tag in self.tags.busy() {
            let Some(state) = self.tags.get(tag) else {
                continue;
            };
            let Some(posted) = state.posted().filter(|posted| posted.op.n < state.floor) else {
                continue;
            };
            let op = posted.op;
            let verdict = if state.last_committed == Some(op.n) {
                let contributors = posted.members.to_vec();
                Verdict::Committed { op, contributors }
            } else {
                self.aborted(op)
            };
            self.decide(tag, verdict);
        }
    }

    /// A number below the floor was decided without this peer's call: aborted, always.
    pub(super) fn answer_from_floor(&mut self, tag: Tag) {
        let state = self.tags.entry(tag);
        let n = state.next;
        state.next = n.next();
        // This peer does not know in which view the others began it.
        let birth = Vid::default();
        let verdict = self.aborted(OpName { tag, n, birth });
        self.tags.decided(tag, verdict);
        if self.is_released() {
            self.tell(tag);
        }
    }

    /// Reports every verdict that was held back: the view is released.
    pub(super) fn tell_held_back(&mut self) {
        invariants::told_after_release(self.phase.membership());
        for tag in self.tags.held_back() {
            self.tell(tag);
        }
    }

    /// Ends every call with the session: what was posted is unknown, the rest was never started.
    pub(super) fn finish_calls(&mut self, cause: &SessionEnd) {
        for tag in self.tags.busy() {
            let Some(call) = self.tags.end(tag) else {
                continue;
            };
            let call_id = call.id;
            match call.stage {
                Stage::Waiting => self.outputs.push_back(Output::Rejected {
                    call: call_id,
                    error: cause.error(),
                }),
                Stage::Posted(posted) => {
                    self.outputs.push_back(Output::StopOp(posted.op));
                    let end = self.unknown(posted.op, cause);
                    self.outputs
                        .push_back(Output::Finish { call: call_id, end });
                }
                Stage::Decided(verdict) => {
                    if matches!(verdict, Verdict::Committed { .. }) {
                        self.outputs.push_back(Output::StopOp(verdict.op()));
                    }
                    let end = self.unknown(verdict.op(), cause);
                    self.outputs
                        .push_back(Output::Finish { call: call_id, end });
                }
            }
        }
    }

    /// The verdict is known: bytes of an aborted operation stop at once.
    pub(super) fn decide(&mut self, tag: Tag, verdict: Verdict) {
        let op = verdict.op();
        self.notes.withdraw_posted(op);
        if matches!(verdict, Verdict::Committed { .. }) {
            self.note_sealed(tag);
        }
        if let Verdict::Aborted { reason, .. } = &verdict {
            let aborted = Event::Aborted {
                group: self.setup.group,
                op,
                reason: reason.clone(),
                names: self.names.clone(),
            };
            if !is_active(Mutation::AbortKeepsMemory) {
                self.outputs.push_back(Output::StopOp(op));
            }
            self.outputs.push_back(Output::Event(aborted));
        }
        self.tags.decided(tag, verdict);
    }

    /// Reports the verdict to the caller.
    pub(super) fn tell(&mut self, tag: Tag) {
        let (Some(call), Some(view)) = (self.tags.end(tag), self.view().cloned()) else {
            return;
        };
        let Stage::Decided(verdict) = call.stage else {
            return;
        };
        let call = call.id;
        if let Some(state) = self.tags.get_mut(tag) {
            invariants::told_without_gap(state, verdict.op().n);
            state.told = verdict.op().n.next();
        }
        match verdict {
            Verdict::Committed { op, contributors } => {
                let end = End::Committed {
                    op,
                    contributors,
                    view,
                };
                self.outputs.push_back(Output::Finish { call, end });
                self.outputs.push_back(Output::StopOp(op));
            }
            Verdict::Aborted { op, reason } => {
                let end = End::Aborted { op, reason, view };
                self.outputs.push_back(Output::Finish { call, end });
            }
        }
    }

    pub(super) fn is_released(&self) -> bool {
        self.phase
            .membership()
            .is_some_and(|membership| membership.released)
    }

    fn unknown(&self, op: OpName, cause: &SessionEnd) -> End {
        if let SessionEnd::Evicted(eviction) = cause
            && is_active(Mutation::EvictedToldAborted)
        {
            return End::Aborted {
                op,
                reason: AbortReason::Lost {
                    peer: eviction.peer,
                    reason: eviction.reason.clone(),
                },
                view: self.view().cloned().unwrap_or_default(),
            };
        }
        End::Unknown {
            cause: cause.clone(),
        }
    }

    pub(super) fn cancelled(&self, op: OpName, reason: CancelReason) -> Verdict {
        let by = self.session.peer().unwrap_or_default();
        Verdict::Aborted {
            op,
            reason: AbortReason::Cancelled { by, reason },
        }
    }

    /// An abort with its reason. The master keeps only the newest reasons; if this one is not
    /// known, the caller gets an error that is not retried, because the abort may have been final.
    fn aborted(&self, op: OpName) -> Verdict {
        let known = self
            .tags
            .get(op.tag)
            .and_then(|state| state.reasons.get(&op.n));
        match known.cloned() {
            Some(reason) => Verdict::Aborted { op, reason },
            None => {
                let what = "the reason for an abort this old is no longer known";
                self.cancelled(op, CancelReason::Local(what.to_owned()))
            }
        }
    }
}
