//! What is special about a sync of shared state (docs/protocol.md, R18): the election between the
//! last post and the first result, and the content that its commit seals.
//!
//! `election` decides the winner. A sync ends like any other operation.

use crate::event::Event;
use crate::ids::{PeerId, Tag};
use crate::master::group::election::{self, Election, Offer};
use crate::master::group::ledger::{InView, Ledger, Violation};
use crate::master::group::operation::{self, OpenOp};
use crate::master::group::{Group, Handled};
use crate::master::shared::Shared;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::{
    EvictReason, Kind, MasterToPeer, OpNote, Report, Sealed, StateId, SyncFault,
};

impl Group {
    /// Makes the election of a sync that all members have posted, and sends it to them. If some are
    /// too far ahead, these are evicted instead, and the others retry the sync.
    pub fn elect(&mut self, shared: &mut Shared) {
        let strays = self.ledger.strays();
        if !strays.is_empty() {
            for (peer, reason) in strays {
                shared.condemn(peer, reason);
            }
            return;
        }
        let Some(sync) = self.ledger.elect() else {
            return;
        };
        if let Some(elected) = sync.elected_message() {
            shared.send_all(sync.members(), &elected);
        }
    }

    /// Sends a member with a new connection the election that it may have missed.
    pub fn repeat_election(&self, shared: &mut Shared, peer: PeerId) {
        let sync = self.ledger.sync().filter(|sync| sync.is_announced);
        let Some(sync) = sync.filter(|sync| sync.members().contains(&peer)) else {
            return;
        };
        if let Some(elected) = sync.elected_message()
            && !is_active(Mutation::ElectionNotRepeated)
        {
            shared.send(peer, elected);
        }
    }

    /// A member of a run that is resumed reports the elections that it knows (R11).
    pub fn restate_elected(&mut self, now: Instant, peer: PeerId, report: &Report) -> Handled {
        for tag in &report.tags {
            let elected = tag.open.as_ref().and_then(|open| open.elected);
            if let (Some(content), Some((note, ..))) = (elected, operation::open_note(tag)) {
                let at = InView {
                    view: &self.view,
                    now,
                };
                self.ledger.restate_elected(peer, note.op, content, at)?;
            }
        }
        Ok(())
    }

    /// Reports to the operator what a sync sealed.
    pub fn note_sealed(&self, shared: &mut Shared, sealed: Sealed) {
        if let Sealed::State(content) = sealed {
            let group = self.id;
            shared.outbox.event(Event::StateSealed { group, content });
        }
    }
}

impl OpenOp {
    /// Its members' offers, in rank order.
    fn offers(&self) -> Vec<Offer> {
        let offers = self
            .members()
            .iter()
            .filter_map(|peer| Some((*peer, *self.offers.get(peer)?)));
        offers.collect()
    }

    fn awaits_election(&self) -> bool {
        let is_posted = self.offers.len() == self.members().len();
        !self.is_announced
            && (is_posted || is_active(Mutation::ElectBeforeAllPosted))
            && self.difference.is_none()
            && !matches!(self.elected, Some(Err(_)))
    }

    fn elected_message(&self) -> Option<MasterToPeer> {
        let content = *self.elected.as_ref()?.as_ref().ok()?;
        Some(MasterToPeer::Elected {
            op: self.op(),
            content,
            sources: election::holders(&self.offers(), content),
        })
    }
}

impl Ledger {
    /// The open sync of shared state.
    pub fn sync(&self) -> Option<&OpenOp> {
        self.open_of(Tag::SHARED_STATE)
    }

    /// Members to evict before the election of a sync that all members posted, and why.
    fn strays(&self) -> Vec<(PeerId, EvictReason)> {
        let awaits = |sync: &&OpenOp| sync.awaits_election() && sync.elected.is_none();
        let (Some(sync), Some(sealed)) = (self.sync().filter(awaits), self.sealed_state) else {
            return Vec::new();
        };
        let offers = sync.offers();
        // Differences between the calls come first, whatever the offers.
        if let Err(SyncFault::Keys { .. } | SyncFault::Strategies { .. } | SyncFault::NoSource) =
            election::elect(&offers, Some(sealed))
        {
            return Vec::new();
        }
        let strays = election::strays(&offers, sealed, &self.sealers).into_iter();
        let reason = |theirs| EvictReason::RevisionAhead {
            theirs,
            sealed: sealed.revision,
        };
        strays.map(|(peer, it)| (peer, reason(it))).collect()
    }

    /// Makes the election of a sync that all members posted, once. In a resumed run, an election
    /// that a member reports stands.
    fn elect(&mut self) -> Option<&OpenOp> {
        let sealed = self.sealed_state;
        let sync = self.open_mut(Tag::SHARED_STATE)?;
        if !sync.awaits_election() {
            return None;
        }
        if sync.elected.is_none() {
            let elected = election::elect(&sync.offers(), sealed);
            sync.elected = Some(elected.map(|Election { content, .. }| content));
        }
        sync.is_announced = matches!(sync.elected, Some(Ok(_)));
        Some(sync)
    }

    /// What was sealed last, as a member reports it to a restarted master: the state of the newest
    /// sync that it knows to have committed. The newest sync of all reports counts, not the highest
    /// revision, because a restore goes back.
    pub fn learn_state(&mut self, report: &Report) {
        let mut tags = report.tags.iter();
        let Some(known) = tags.find(|tag| tag.tag == Tag::SHARED_STATE) else {
            return;
        };
        let is_newer = known.last_committed > self.sealed_by;
        if let Sealed::State(content) = known.sealed
            && is_newer
            && !is_active(Mutation::SealedStateForgotten)
        {
            self.sealed_state = Some(content);
            self.sealed_by = known.last_committed;
            self.sealers = Vec::new();
        }
    }
}

/// Whether the call may be made on its tag.
pub fn check_kind(note: &OpNote) -> Result<(), Violation> {
    let kind = note.fingerprint.kind();
    if (kind == Kind::SharedState) == (note.op.tag == Tag::SHARED_STATE) {
        return Ok(());
    }
    Err(format!("{} is called on tag {}", kind.name(), note.op.tag))
}

/// A member that reports an election must have received the one that was made.
pub fn check_heard(open: &OpenOp, heard: StateId) -> Result<(), Violation> {
    match &open.elected {
        Some(Ok(content)) if *content == heard => Ok(()),
        _ => Err(format!("{heard} was not elected for {}", open.op())),
    }
}
