//! The calls of the application: from `Post` to exactly one `Finish` or `Rejected`.
//!
//! A call consumes its tag's next number when it is posted, or when it is answered by a floor above
//! that number; a call that is refused consumes none (docs/protocol.md, R1, R2). `StopOp` comes before
//! every `Finish` but that of a commit, where it follows.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::error::Error;
use crate::event::Event;
use crate::ids::{CallId, OpName, OpNumber, PeerId, Rank, Tag, Vid};
use crate::limits;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::{
    AbortReason, CancelReason, CommitRecord, CostTable, Fingerprint, Kind, PeerToMaster,
};

use super::Peer;
use super::invariants;
use super::io::{End, Output, SessionEnd};
use super::phase::{Membership, Phase};
use super::tags::{Call, Posted, Stage, Verdict};

/// Where an operation takes place: the birth view's part of `StartOp`.
struct Stand {
    op: OpName,
    members: Arc<[PeerId]>,
    ring_order: Arc<[Rank]>,
    costs: CostTable,
}

impl Peer {
    pub(super) fn handle_post(
        &mut self,
        call: CallId,
        tag: Tag,
        fingerprint: Fingerprint,
        deadline: Option<Instant>,
    ) {
        if let Err(error) = self.check_post(tag) {
            if is_active(Mutation::InvalidCallTakesNumber) {
                let state = self.tags.entry(tag);
                state.next = state.next.next();
            }
            return self.outputs.push_back(Output::Rejected { call, error });
        }
        let call = Call {
            id: call,
            fingerprint,
            alarm: deadline,
            cancel: None,
            stage: Stage::Waiting,
        };
        self.tags.begin(tag, call);
        self.advance(tag);
    }

    /// Posts the waiting call of a tag, or answers it, as far as the phase and the floor allow.
    pub(super) fn advance(&mut self, tag: Tag) {
        let (Some(state), Some(membership)) = (self.tags.get(tag), self.phase.membership()) else {
            return;
        };
        if !state
            .call
            .as_ref()
            .is_some_and(|call| matches!(call.stage, Stage::Waiting))
        {
            return;
        }
        match state.next.cmp(&state.floor) {
            Ordering::Greater => {}
            Ordering::Less => self.answer_from_floor(tag),
            Ordering::Equal if self.phase.is_posting() => {
                match check_stand(membership, tag, state.next, self.min_world(tag)) {
                    Ok(stand) => self.start(tag, stand),
                    Err(error) => self.reject(tag, error),
                }
            }
            Ordering::Equal => {}
        }
    }

    /// Posts or answers every call that waits and may go on.
    pub(super) fn advance_all(&mut self) {
        for tag in self.tags.waiting() {
            self.advance(tag);
        }
    }

    pub(super) fn handle_held(&mut self, op: OpName) {
        let Some(call) = self
            .tags
            .get_mut(op.tag)
            .and_then(|state| state.call.as_mut())
        else {
            return;
        };
        let note = call.note();
        match &mut call.stage {
            // Anything else is a last word of an operation that is over here.
            Stage::Posted(posted) if posted.op == op && !posted.held => posted.held = true,
            _ => return,
        }
        if self.phase.is_telling() {
            self.notes.withdraw_posted(op);
            note.into_iter().for_each(|note| self.notes.add_done(note));
        }
    }

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

    /// Acts on deadlines, and on verdicts that did not come.
    pub(super) fn check_calls(&mut self) {
        while let Some(tag) = self.tags.due_alarm(self.now) {
            let is_cancelled = self
                .tags
                .get(tag)
                .and_then(|state| state.call.as_ref()?.cancel.as_ref())
                .is_some();
            if is_cancelled {
                return self.end_session(SessionEnd::NoVerdict);
            }
            self.request_cancel(tag, CancelReason::Deadline);
        }
    }

    /// Asks for an abort (R8). The first request of a call counts; its verdict must come in time.
    fn request_cancel(&mut self, tag: Tag, reason: CancelReason) {
        let until = self.now + self.session.timers().verdict_timeout;
        let Some(call) = self.tags.get_mut(tag).and_then(|state| state.call.as_mut()) else {
            return;
        };
        if call.cancel.is_some() {
            return;
        }
        let reason = bounded(reason);
        call.cancel = Some(reason.clone());
        let op = call.posted().map(|posted| posted.op);
        self.tags.set_alarm(tag, Some(until));
        let Some(op) = op else {
            return;
        };
        if self.phase.is_telling() {
            self.tell_posted();
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

    /// Tells the master of posts that wait for company.
    pub(super) fn tell_posted(&mut self) {
        let posted = self.notes.take_posted();
        if !posted.is_empty() {
            self.send(PeerToMaster::Posted(posted));
        }
    }

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
        let state = self.tags.entry(op.tag);
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
                return Err(format!("commit of {op}, whose result is not here"));
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

    /// Decides the operations that a new floor lies above. They are told by `tell`.
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
                let is_there = |peer: &&PeerId| !state.absent.contains(peer);
                let contributors = posted.members.iter().filter(is_there).copied().collect();
                Verdict::Committed { op, contributors }
            } else {
                self.aborted(op)
            };
            self.decide(tag, verdict);
        }
    }

    /// Tells every verdict that was held back: the view is released.
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

    /// Rejects the calls that have no number: nothing was started.
    pub(super) fn reject_waiting(&mut self, error: &Error) {
        for tag in self.tags.waiting() {
            self.reject(tag, error.clone());
        }
    }

    fn check_post(&self, tag: Tag) -> Result<(), Error> {
        self.check_open()?;
        let (tags, calls) = self.tags.counts();
        match self.tags.get(tag) {
            Some(state) if state.call.is_some() => Err(Error::usage(format!(
                "tag {tag} has an operation in progress; wait for it or use another tag"
            ))),
            None if tags >= limits::TAGS_MAX => Err(Error::invalid(format!(
                "a run has at most {} tags",
                limits::TAGS_MAX
            ))),
            _ if calls >= limits::OPEN_OPS_MAX => Err(Error::usage(format!(
                "{} operations are in progress, the most there may be",
                limits::OPEN_OPS_MAX
            ))),
            _ => Ok(()),
        }
    }

    /// Whether the session takes calls.
    pub(super) fn check_open(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Ended(cause) => Err(Error::Ended(cause.to_string())),
            _ if self.leaving.is_some() => Err(Error::Ended("leave was called".into())),
            _ => Ok(()),
        }
    }

    fn min_world(&self, tag: Tag) -> (u32, Option<Rank>) {
        let fingerprint = self
            .tags
            .get(tag)
            .and_then(|state| state.call.as_ref())
            .map(|call| &call.fingerprint);
        let asked = fingerprint.map_or(0, |fingerprint| fingerprint.min_world);
        let root = fingerprint
            .filter(|fingerprint| fingerprint.kind == Kind::Broadcast)
            .map(|fingerprint| fingerprint.root);
        (asked.max(self.setup.min_world), root)
    }

    fn start(&mut self, tag: Tag, stand: Stand) {
        let Some(rank) = self
            .session
            .peer()
            .and_then(|me| rank_of(&stand.members, me))
        else {
            return;
        };
        let op = stand.op;
        let posted = Posted {
            op,
            members: Arc::clone(&stand.members),
            held: false,
        };
        self.tags.posted(tag, posted);
        let Some(call) = self.tags.get(tag).and_then(|state| state.call.as_ref()) else {
            return;
        };
        self.outputs.push_back(Output::StartOp {
            call: call.id,
            op,
            fingerprint: call.fingerprint.clone(),
            members: stand.members,
            ring_order: stand.ring_order,
            rank,
            costs: stand.costs,
        });
        let cancel = call.cancel.clone();
        let note = call.note();
        if !self.phase.is_telling() {
            return;
        }
        note.into_iter()
            .for_each(|note| self.notes.add_posted(note, self.now));
        if let Some(reason) = cancel {
            self.tell_posted();
            self.send(PeerToMaster::Cancel { op, reason });
        }
    }

    /// A number below the floor was decided without this peer's call: aborted, always.
    fn answer_from_floor(&mut self, tag: Tag) {
        let state = self.tags.entry(tag);
        let n = state.next;
        state.next = n.next();
        // Nobody told this peer in which view the others began it.
        let birth = Vid::default();
        let verdict = self.aborted(OpName { tag, n, birth });
        self.tags.decided(tag, verdict);
        if self.is_released() {
            self.tell(tag);
        }
    }

    fn is_released(&self) -> bool {
        self.phase
            .membership()
            .is_some_and(|membership| membership.released)
    }

    /// The verdict is known: bytes of an aborted operation stop at once.
    fn decide(&mut self, tag: Tag, verdict: Verdict) {
        let op = verdict.op();
        self.notes.withdraw_posted(op);
        if let Verdict::Aborted { reason, .. } = &verdict {
            let aborted = Event::Aborted {
                group: self.setup.group,
                op,
                reason: reason.clone(),
            };
            self.outputs.push_back(Output::StopOp(op));
            self.outputs.push_back(Output::Event(aborted));
        }
        self.tags.decided(tag, verdict);
    }

    /// Tells the caller the verdict.
    fn tell(&mut self, tag: Tag) {
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

    fn reject(&mut self, tag: Tag, error: Error) {
        if is_active(Mutation::InvalidCallTakesNumber) {
            let state = self.tags.entry(tag);
            state.next = state.next.next();
        }
        if let Some(call) = self.tags.end(tag) {
            self.outputs.push_back(Output::Rejected {
                call: call.id,
                error,
            });
        }
    }

    fn unknown(&self, op: OpName, cause: &SessionEnd) -> End {
        if let SessionEnd::Evicted(reason) = cause
            && is_active(Mutation::EvictedToldAborted)
        {
            return End::Aborted {
                op,
                reason: AbortReason::Lost {
                    peer: self.session.peer().unwrap_or_default(),
                    reason: reason.clone(),
                },
                view: self.view().cloned().unwrap_or_default(),
            };
        }
        End::Unknown {
            cause: cause.clone(),
        }
    }

    fn cancelled(&self, op: OpName, reason: CancelReason) -> Verdict {
        let by = self.session.peer().unwrap_or_default();
        Verdict::Aborted {
            op,
            reason: AbortReason::Cancelled { by, reason },
        }
    }

    /// An abort with its reason. The master keeps the newest only; where it is not known, the caller is
    /// told what nobody repeats a call for, because it may have been final.
    fn aborted(&self, op: OpName) -> Verdict {
        let known = self
            .tags
            .get(op.tag)
            .and_then(|state| state.reasons.get(&op.n));
        match known.cloned() {
            Some(reason) => Verdict::Aborted { op, reason },
            None => {
                let what = "the reason of so old an abort is no longer known";
                self.cancelled(op, CancelReason::Local(what.to_owned()))
            }
        }
    }
}

/// Where the next operation of a tag takes place, and whether it may. Nothing is consumed yet.
fn check_stand(
    membership: &Membership,
    tag: Tag,
    n: OpNumber,
    (min_world, root): (u32, Option<Rank>),
) -> Result<Stand, Error> {
    let world_size = u32::try_from(membership.members.len()).unwrap_or(u32::MAX);
    if world_size < min_world {
        return Err(Error::TooFewPeers {
            world_size,
            min_world_size: min_world,
        });
    }
    let vid = membership.view.vid;
    let stand = match membership
        .carried
        .get(&tag)
        .filter(|carried| carried.op.n == n)
    {
        Some(carried) if !is_active(Mutation::CarriedTakesNewView) => Stand {
            op: carried.op,
            members: carried.members.as_slice().into(),
            ring_order: carried.ring_order.as_slice().into(),
            costs: carried.costs,
        },
        _ => Stand {
            op: OpName { tag, n, birth: vid },
            members: Arc::clone(&membership.members),
            ring_order: Arc::clone(&membership.ring_order),
            costs: membership.costs,
        },
    };
    if let Some(root) = root.filter(|root| root.index() >= stand.members.len()) {
        let world_size = stand.members.len();
        return Err(Error::invalid(format!(
            "root {root} in a world of {world_size}"
        )));
    }
    Ok(stand)
}

fn rank_of(members: &[PeerId], peer: PeerId) -> Option<Rank> {
    let index = members.iter().position(|member| *member == peer)?;
    u32::try_from(index).ok().map(Rank)
}

/// The reason with its texts cut to what a message may carry.
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
        CancelReason::User | CancelReason::Deadline | CancelReason::Leave => {}
    }
    reason
}
