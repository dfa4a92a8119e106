//! The application's calls: from `Post` to an operation with a number.
//!
//! A call uses up its tag's next number when it is posted, or when it is answered by a floor above
//! that number; a rejected call uses none (docs/protocol.md, R1, R2). How calls end is in
//! `verdicts`, requests to abort are in `cancel`.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::error::Error;
use crate::ids::{CallId, OpName, OpNumber, Rank, Tag};
use crate::limits;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::{Birth, Fingerprint, PeerToMaster, Start};

use super::Peer;
use super::invariants;
use super::io::Output;
use super::phase::{Membership, Phase};
use super::shared_state;
use super::tags::{Call, Posted, Stage};

impl Peer {
    pub(super) fn handle_post(
        &mut self,
        call: CallId,
        tag: Tag,
        fingerprint: Fingerprint,
        deadline: Option<Instant>,
    ) {
        if let Err(error) = self.check_post(tag, &fingerprint) {
            if is_active(Mutation::InvalidCallTakesNumber) {
                let state = self.tags.entry(tag);
                state.next = state.next.next();
            }
            return self.outputs.push_back(Output::Rejected { call, error });
        }
        let call = Call {
            id: call,
            fingerprint,
            deadline,
            verdict_until: None,
            cancel: None,
            stage: Stage::Waiting,
        };
        self.tags.begin(tag, call);
        self.advance(tag);
    }

    /// Posts the waiting call of a tag, or answers it, if the phase and the floor allow it.
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
                match check_birth(membership, tag, state.next, self.needs(tag)) {
                    Ok(birth) => self.start(tag, birth),
                    Err(error) => self.reject(tag, error),
                }
            }
            Ordering::Equal => {}
        }
    }

    /// Posts or answers every waiting call that may proceed.
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
        let needs_master = match &mut call.stage {
            // Anything else is a late message of an operation that is over here.
            Stage::Posted(posted) if posted.op == op && !posted.held => {
                invariants::held_after_election(posted, &call.fingerprint);
                posted.held = true;
                posted.needs_master
            }
            _ => return,
        };
        if self.phase.is_telling() {
            // Without a `Held` of this peer the verdict is the master's.
            let is_urgent = needs_master || !self.phase.is_posting();
            note.into_iter().for_each(|note| match is_urgent {
                true => self.notes.add_done(note),
                false => self.notes.add_done_later(note, self.now),
            });
        }
        self.say_held(op.tag);
        self.agree(op.tag);
    }

    /// Sends the master the delayed notes.
    pub(super) fn send_notes(&mut self) {
        let (posted, done) = self.notes.take_delayed();
        if !posted.is_empty() {
            self.send(PeerToMaster::Posted(posted));
        }
        if !done.is_empty() {
            self.send(PeerToMaster::Done(done));
        }
    }

    /// Rejects the calls that have no number: nothing was started.
    pub(super) fn reject_waiting(&mut self, error: &Error) {
        for tag in self.tags.waiting() {
            self.reject(tag, error.clone());
        }
    }

    fn check_post(&self, tag: Tag, fingerprint: &Fingerprint) -> Result<(), Error> {
        self.check_open()?;
        shared_state::check_call(tag, fingerprint)?;
        let (tags, calls) = self.tags.counts();
        match self.tags.get(tag) {
            Some(state) if state.call.is_some() => Err(Error::usage(format!(
                "tag {tag} has an operation in progress; wait for it or use another tag"
            ))),
            None if tags >= limits::TAGS_MAX => Err(Error::usage(format!(
                "all {} tags are in use; a tag is free again when all members have made the same \
                 calls with it and these have ended",
                limits::TAGS_MAX
            ))),
            _ if calls >= limits::OPEN_OPS_MAX => Err(Error::usage(format!(
                "{} operations are in progress, which is the maximum; wait for one to end",
                limits::OPEN_OPS_MAX
            ))),
            _ => Ok(()),
        }
    }

    /// Whether the session accepts calls.
    pub(super) fn check_open(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Ended(cause) => Err(cause.error()),
            _ if self.leaving.is_some() => Err(Error::Ended("leave was called".into())),
            _ => Ok(()),
        }
    }

    fn needs(&self, tag: Tag) -> Needs {
        let fingerprint = self
            .tags
            .get(tag)
            .and_then(|state| state.call.as_ref())
            .map(|call| &call.fingerprint);
        Needs {
            min_world: fingerprint.map_or(0, |fingerprint| fingerprint.min_world),
            root: fingerprint.and_then(|fingerprint| fingerprint.called.root()),
        }
    }

    fn start(&mut self, tag: Tag, birth: Birth) {
        let me = self.session.peer();
        let Some(rank) = me.and_then(|me| birth.members.rank_of(me)) else {
            return;
        };
        let op = birth.op;
        let members_agree = birth.costs.members_agree(birth.members.world_size());
        let posted = Posted {
            op,
            needs_master: !members_agree || tag == Tag::SHARED_STATE,
            members: birth.members.clone(),
            held: false,
            is_said: false,
            held_by: BTreeSet::new(),
            elected: None,
        };
        self.tags.posted(tag, posted);
        let Some(call) = self.tags.get(tag).and_then(|state| state.call.as_ref()) else {
            return;
        };
        let start = Start {
            birth,
            rank,
            fingerprint: call.fingerprint.clone(),
        };
        self.outputs.push_back(Output::StartOp {
            call: call.id,
            start,
        });
        let cancel = call.cancel.clone();
        let note = call.note();
        if !self.phase.is_telling() {
            return;
        }
        note.into_iter()
            .for_each(|note| self.notes.add_posted(note, self.now));
        if cancel.is_some() || tag == Tag::SHARED_STATE {
            self.send_notes();
        }
        if let Some(reason) = cancel {
            self.send(PeerToMaster::Cancel { op, reason });
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
}

/// What a call requires of the view in which it runs.
struct Needs {
    min_world: u32,
    root: Option<Rank>,
}

/// Where the next operation of a tag takes place, and whether it may. Nothing is consumed yet.
fn check_birth(
    membership: &Membership,
    tag: Tag,
    n: OpNumber,
    Needs { min_world, root }: Needs,
) -> Result<Birth, Error> {
    let world_size = membership.members.world_size();
    if world_size < min_world {
        return Err(Error::TooFewPeers {
            world_size,
            min_world_size: min_world,
        });
    }
    let carried = membership.carried.get(&tag);
    let birth = match carried.filter(|carried| carried.op.n == n) {
        Some(carried) if !is_active(Mutation::CarriedTakesNewView) => carried.clone(),
        _ => membership.birth(tag, n),
    };
    let world_size = birth.members.world_size();
    if let Some(root) = root.filter(|root| root.0 >= world_size) {
        return Err(Error::invalid(format!(
            "root is rank {root}, but the world size is {world_size}"
        )));
    }
    Ok(birth)
}
