//! One open operation: which members have called it, hold its result, or want it aborted.
//!
//! Facts are only added, so a repeated message changes nothing. Which operation of a tag is open is
//! the ledger's business.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Members, OpName, PeerId};
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::{
    Birth, CancelReason, Crossed, Fingerprint, OpNote, StateId, StateOffer, SyncFault, TagReport,
};

/// The undecided operation of a tag.
#[derive(Clone, Debug)]
pub struct OpenOp {
    /// Its name, members and algorithm.
    pub birth: Birth,
    /// Whether it was carried over a view change.
    pub carried: bool,
    /// The first caller and its call, with which the others are compared.
    pub called: Option<(PeerId, Fingerprint)>,
    pub posted: BTreeSet<PeerId>,
    pub done: BTreeSet<PeerId>,
    pub cancels: BTreeMap<PeerId, CancelReason>,
    /// The first difference between the members' calls, and the member that called differently.
    pub difference: Option<(PeerId, CancelReason)>,
    /// Why it cannot finish, until another member posts it (R15).
    pub crossed: Option<Crossed>,
    /// When the first member posted it.
    pub begun_at: Instant,
    /// When the newest member posted it.
    pub posted_at: Instant,
    /// Start of the present wait: when the newest member posted it, or when an operation ended from
    /// which others come.
    pub waited_since: Instant,
    /// The members' offers, if it is a sync of shared state.
    pub offers: BTreeMap<PeerId, StateOffer>,
    /// The election among the offers, made once.
    pub elected: Option<Result<StateId, SyncFault>>,
    /// Whether this master has sent it to the members.
    pub is_announced: bool,
}

impl OpenOp {
    pub fn new(birth: Birth, now: Instant) -> Self {
        Self {
            birth,
            carried: false,
            called: None,
            posted: BTreeSet::new(),
            done: BTreeSet::new(),
            cancels: BTreeMap::new(),
            difference: None,
            crossed: None,
            begun_at: now,
            posted_at: now,
            waited_since: now,
            offers: BTreeMap::new(),
            elected: None,
            is_announced: false,
        }
    }

    pub fn op(&self) -> OpName {
        self.birth.op
    }

    pub fn members(&self) -> &Members {
        &self.birth.members
    }

    pub fn posted_by(&mut self, peer: PeerId, fingerprint: &Fingerprint, now: Instant) {
        if self.posted.insert(peer) {
            self.posted_at = now;
            self.waited_since = now;
            self.crossed = None;
            let offer = fingerprint.called.offer();
            self.offers.extend(offer.map(|offer| (peer, *offer)));
        }
        let Some((first, called)) = &self.called else {
            self.called = Some((peer, fingerprint.clone()));
            return;
        };
        if self.difference.is_none()
            && let Some((field, mine, theirs)) = fingerprint.difference(called)
        {
            let reason = CancelReason::Mismatch {
                peer: *first,
                field: field.into(),
                mine,
                theirs,
            };
            self.difference = Some((peer, reason));
        }
    }

    /// Whether it may commit inside its view: every member finished the same thing (R12).
    pub fn is_complete(&self) -> bool {
        let missing = self.members().len() - self.done.len();
        let enough = missing == 0 || missing == 1 && is_active(Mutation::CommitOnAllButOne);
        enough && !self.done.is_empty() && self.difference.is_none()
    }

    /// Whether a member wants it aborted, or it cannot succeed.
    pub fn is_to_end(&self) -> bool {
        let wanted = !self.cancels.is_empty() || self.difference.is_some();
        wanted || self.crossed.is_some() || self.fault().is_some()
    }

    /// An operation ended. The wait for its members restarts, if this one was posted meanwhile.
    pub fn note_end(&mut self, ended: &Self, now: Instant) {
        let members = self.members().iter();
        let mut missing = members.filter(|peer| !self.posted.contains(peer));
        let is_awaited = missing.any(|peer| ended.posted.contains(peer));
        if is_awaited && ended.begun_at <= self.posted_at {
            self.waited_since = now;
        }
    }

    /// Why a sync of shared state cannot succeed, according to the election.
    pub fn fault(&self) -> Option<&SyncFault> {
        self.elected.as_ref()?.as_ref().err()
    }

    /// The request of a survivor to abort it.
    pub fn cancel_of(&self, survivors: &BTreeSet<PeerId>) -> Option<(PeerId, CancelReason)> {
        let cancels = self.cancels.iter().map(|(peer, reason)| (*peer, reason));
        let difference = self.difference.iter().map(|(peer, reason)| (*peer, reason));
        let mut wishes = difference.chain(cancels);
        if let Some((peer, reason)) = wishes.find(|(peer, _)| survivors.contains(peer)) {
            return Some((peer, reason.clone()));
        }
        // A lost member may have called it unnoticed.
        let is_known = self.members().iter().all(|peer| survivors.contains(peer));
        let crossed = self.crossed.clone().filter(|_| is_known)?;
        let by = self.posted.iter().find(|peer| survivors.contains(peer))?;
        Some((*by, CancelReason::Crossed(crossed)))
    }
}

/// What a report says about its sender's open operation of a tag: the call, whether the result is
/// held, and whether it is to be aborted.
pub fn open_note(tag: &TagReport) -> Option<(OpNote, bool, Option<CancelReason>)> {
    let open = tag.open.as_ref()?;
    let op = OpName {
        tag: tag.tag,
        n: open.n,
        birth: open.birth,
    };
    let note = OpNote {
        op,
        fingerprint: open.fingerprint.clone(),
    };
    Some((note, open.held, open.cancel.clone()))
}
