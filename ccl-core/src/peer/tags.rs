//! What a peer knows about each tag: its floor, its next number, and the call in progress.
//!
//! The whole outcome state of a tag is `floor` and `last_committed` (docs/protocol.md, R2). `calls`
//! and `install` decide when to report it.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{CallId, Members, OpName, OpNumber, PeerId, Tag};
use crate::limits;
use crate::time::Instant;
use crate::wire::control::{
    AbortReason, CancelReason, Fingerprint, OpNote, Sealed, StateId, TagFloor,
};

use super::invariants;

/// All tags and calls of a peer.
#[derive(Debug, Default)]
pub(super) struct Tags {
    states: BTreeMap<Tag, TagState>,
    calls: BTreeMap<CallId, Tag>,
    deadlines: BTreeSet<(Instant, CallId)>,
    /// By the clock of patience.
    verdicts: BTreeSet<(Instant, CallId)>,
    waiting: BTreeSet<Tag>,
    held_back: BTreeSet<Tag>,
}

/// What the peer knows about one tag.
#[derive(Debug, Default)]
pub(super) struct TagState {
    /// All operations below it are decided.
    pub floor: OpNumber,
    /// The floor that the master has told. This peer's own may be above it (R19).
    pub sealed_floor: OpNumber,
    /// The newest committed operation.
    pub last_committed: Option<OpNumber>,
    /// What it sealed, if this peer took part in it.
    pub sealed: Sealed,
    /// Reasons of the newest aborts.
    pub reasons: BTreeMap<OpNumber, AbortReason>,
    /// Number of the next validated call.
    pub next: OpNumber,
    /// The number whose outcome is reported next.
    pub told: OpNumber,
    /// The call in progress.
    pub call: Option<Call>,
}

/// A call in progress.
#[derive(Debug)]
pub(super) struct Call {
    /// The caller's name for it.
    pub id: CallId,
    /// What was called.
    pub fingerprint: Fingerprint,
    /// When it will be cancelled, unless it was already.
    pub deadline: Option<Instant>,
    /// After a cancel, until when the verdict is waited for, by the clock of patience.
    pub verdict_until: Option<Instant>,
    /// The abort that this peer asked for.
    pub cancel: Option<CancelReason>,
    /// Its stage.
    pub stage: Stage,
}

/// The stage of a call.
#[derive(Debug)]
pub(super) enum Stage {
    /// It has no number yet.
    Waiting,
    /// It is an operation, and the verdict is open.
    Posted(Posted),
    /// The verdict is known, and held back until the view's release (R6).
    Decided(Verdict),
}

/// An operation under way.
#[derive(Debug)]
pub(super) struct Posted {
    pub op: OpName,
    pub members: Members,
    pub held: bool,
    /// Whether the verdict is the master's alone; otherwise members know it by themselves (R19).
    pub needs_master: bool,
    /// Whether the other members were told that it is held here.
    pub is_said: bool,
    /// Other members that said they hold it.
    pub held_by: BTreeSet<PeerId>,
    /// What was elected, if it is a sync of shared state.
    pub elected: Option<StateId>,
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    Committed {
        op: OpName,
        contributors: Vec<PeerId>,
    },
    Aborted {
        op: OpName,
        reason: AbortReason,
    },
}

impl Call {
    /// Its operation, while the verdict is open.
    pub fn posted(&self) -> Option<&Posted> {
        match &self.stage {
            Stage::Posted(posted) => Some(posted),
            Stage::Waiting | Stage::Decided(_) => None,
        }
    }

    /// The note about it for the master.
    pub fn note(&self) -> Option<OpNote> {
        self.posted().map(|posted| OpNote {
            op: posted.op,
            fingerprint: self.fingerprint.clone(),
        })
    }
}

impl Verdict {
    /// The operation.
    pub fn op(&self) -> OpName {
        match self {
            Self::Committed { op, .. } | Self::Aborted { op, .. } => *op,
        }
    }
}

impl TagState {
    /// The operation under way.
    pub fn posted(&self) -> Option<&Posted> {
        self.call.as_ref().and_then(Call::posted)
    }

    /// Whether nothing has happened in it yet.
    fn is_new(&self) -> bool {
        self.call.is_none() && self.floor == OpNumber(0) && self.next == OpNumber(0)
    }

    /// Where a newcomer starts to count the tag.
    pub fn begin_at(&mut self, n: OpNumber) {
        self.next = n;
        self.told = n;
    }

    /// Adopts what the master sealed. The caller has checked that no number falls.
    pub fn raise(&mut self, sealed: &TagFloor) {
        self.sealed_floor = sealed.floor;
        if sealed.floor < self.floor {
            return;
        }
        invariants::floor_never_falls(self, sealed);
        self.floor = sealed.floor;
        if sealed.last_committed > self.last_committed {
            self.sealed = Sealed::Nothing;
        }
        self.last_committed = sealed.last_committed;
        self.reasons.extend(sealed.reasons.iter().cloned());
        while self.reasons.len() > limits::ABORT_REASONS_MAX {
            self.reasons.pop_first();
        }
    }

    /// An operation of this view committed.
    pub fn commit(&mut self, n: OpNumber) {
        self.floor = n.next();
        self.last_committed = Some(n);
        self.sealed = Sealed::Nothing;
    }
}

impl Tags {
    /// What is known of a tag.
    pub fn get(&self, tag: Tag) -> Option<&TagState> {
        self.states.get(&tag)
    }

    /// What is known of a tag, to change it.
    pub fn get_mut(&mut self, tag: Tag) -> Option<&mut TagState> {
        self.states.get_mut(&tag)
    }

    /// The same; a tag that is new begins at 0.
    pub fn entry(&mut self, tag: Tag) -> &mut TagState {
        self.states.entry(tag).or_default()
    }

    /// All tags in order.
    pub fn iter(&self) -> impl Iterator<Item = (Tag, &TagState)> {
        self.states.iter().map(|(tag, state)| (*tag, state))
    }

    /// Number of tags and of calls in progress.
    pub fn counts(&self) -> (usize, usize) {
        (self.states.len(), self.calls.len())
    }

    /// The tag of a call in progress.
    pub fn tag_of(&self, call: CallId) -> Option<Tag> {
        self.calls.get(&call).copied()
    }

    /// Tags whose call has no number yet.
    pub fn waiting(&self) -> Vec<Tag> {
        self.waiting.iter().copied().collect()
    }

    /// Calls that have no number yet.
    pub fn waiting_calls(&self) -> BTreeSet<CallId> {
        let states = self.waiting.iter().filter_map(|tag| self.states.get(tag));
        let calls = states.filter_map(|state| state.call.as_ref());
        calls.map(|call| call.id).collect()
    }

    /// Tags whose call has a verdict that was not reported.
    pub fn held_back(&self) -> Vec<Tag> {
        self.held_back.iter().copied().collect()
    }

    /// Tags with a call in progress.
    pub fn busy(&self) -> Vec<Tag> {
        self.calls
            .values()
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// A call begins to wait for its number. The tag is free.
    pub fn begin(&mut self, tag: Tag, call: Call) {
        let (id, deadline) = (call.id, call.deadline);
        let state = self.states.entry(tag).or_default();
        assert!(
            state.call.is_none(),
            "at most one call a tag is in progress (R1)"
        );
        state.call = Some(call);
        self.calls.insert(id, tag);
        self.waiting.insert(tag);
        self.deadlines.extend(deadline.map(|at| (at, id)));
    }

    /// The waiting call becomes the operation with its tag's next number.
    pub fn posted(&mut self, tag: Tag, posted: Posted) {
        self.waiting.remove(&tag);
        if let Some(state) = self.states.get_mut(&tag) {
            state.next = state.next.next();
            if let Some(call) = &mut state.call {
                call.stage = Stage::Posted(posted);
            }
        }
    }

    /// The call's verdict is known and held back.
    pub fn decided(&mut self, tag: Tag, verdict: Verdict) {
        self.waiting.remove(&tag);
        self.held_back.insert(tag);
        if let Some(call) = self
            .states
            .get_mut(&tag)
            .and_then(|state| state.call.as_mut())
        {
            call.stage = Stage::Decided(verdict);
        }
    }

    /// The tag was given back: its numbers begin at 0 again. A call may wait for one.
    pub fn give_back(&mut self, tag: Tag) {
        let Some(state) = self.states.remove(&tag) else {
            return;
        };
        if state.call.is_some() {
            let call = state.call;
            let fresh = TagState {
                call,
                ..TagState::default()
            };
            self.states.insert(tag, fresh);
        }
    }

    /// The call is over.
    pub fn end(&mut self, tag: Tag) -> Option<Call> {
        let state = self.states.get_mut(&tag)?;
        let call = state.call.take()?;
        if state.is_new() {
            // It was refused, and used up no number.
            self.states.remove(&tag);
        }
        self.waiting.remove(&tag);
        self.held_back.remove(&tag);
        self.calls.remove(&call.id);
        if let Some(at) = call.deadline {
            self.deadlines.remove(&(at, call.id));
        }
        if let Some(until) = call.verdict_until {
            self.verdicts.remove(&(until, call.id));
        }
        Some(call)
    }

    /// The call was cancelled: from now on its verdict is waited for, and not its deadline.
    pub fn await_verdict(&mut self, tag: Tag, until: Instant) {
        let state = self.states.get_mut(&tag);
        let Some(call) = state.and_then(|state| state.call.as_mut()) else {
            return;
        };
        if let Some(deadline) = call.deadline.take() {
            self.deadlines.remove(&(deadline, call.id));
        }
        call.verdict_until = Some(until);
        self.verdicts.insert((until, call.id));
    }

    /// The first deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The tag of a deadline that has passed.
    pub fn due_deadline(&self, now: Instant) -> Option<Tag> {
        let (at, call) = self.deadlines.first()?;
        (*at <= now).then(|| self.tag_of(*call)).flatten()
    }

    /// When the first verdict is overdue, by the clock of patience.
    pub fn next_verdict(&self) -> Option<Instant> {
        self.verdicts.first().map(|(until, _)| *until)
    }
}
