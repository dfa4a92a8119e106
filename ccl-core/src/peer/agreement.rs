//! Verdicts that the members know without the master (R19).
//!
//! A member that holds a result says `Held` to the others. Once it has heard that from all of them,
//! it knows that the operation is committed: no master can decide otherwise, since each member's
//! next report shows that it holds. So no `Held` is said between a report and the view that answers
//! it. Without a master this works as long as no other view can have been founded: until the peer's
//! lease ends.

use crate::ids::{OpName, PeerId, Tag};
use crate::mutation::{Mutation, is_active};
use crate::wire::peer_to_peer::PeerToPeer;

use super::Peer;
use super::io::Output;
use super::tags::{Posted, Stage, Verdict};

impl Peer {
    /// Another member holds a result. That is ignored if the operation is over here, and cannot
    /// come before it is called here.
    pub(super) fn handle_peer_held(&mut self, peer: PeerId, op: OpName) {
        let me = self.session.peer();
        let Some(posted) = self.posted_mut(op.tag).filter(|posted| posted.op == op) else {
            return;
        };
        if posted.members.contains(&peer) && Some(peer) != me {
            posted.held_by.insert(peer);
            self.agree(op.tag);
        }
    }

    /// Tells the other members that the open operation of a tag is held here, once.
    pub(super) fn say_held(&mut self, tag: Tag) {
        let me = self.session.peer();
        let may_say = self.phase.is_posting() || is_active(Mutation::HeldAfterFlush);
        let Some(posted) = self.posted_mut(tag) else {
            return;
        };
        if !may_say || posted.needs_master || !posted.held || posted.is_said {
            return;
        }
        posted.is_said = true;
        let others = posted.members.iter().copied();
        let say = Output::Say {
            message: PeerToPeer::Held(posted.op),
            to: others.filter(|peer| Some(*peer) != me).collect(),
        };
        self.outputs.push_back(say);
    }

    /// A view is in force: says what could not be said before.
    pub(super) fn say_all_held(&mut self) {
        for tag in self.tags.busy() {
            self.say_held(tag);
            self.agree(tag);
        }
    }

    /// The lease is renewed: commits what all members hold.
    pub(super) fn agree_on_all(&mut self) {
        for tag in self.tags.busy() {
            self.agree(tag);
        }
    }

    /// Commits the open operation of a tag if all members hold it.
    pub(super) fn agree(&mut self, tag: Tag) {
        if !self.session.holds_lease(self.now) && !is_active(Mutation::LeaseOutlived) {
            return;
        }
        let Some(posted) = self.posted_mut(tag).filter(|posted| posted.is_agreed()) else {
            return;
        };
        let (op, contributors) = (posted.op, posted.members.to_vec());
        if let Some(state) = self.tags.get_mut(tag) {
            state.commit(op.n);
        }
        if let Some(membership) = self.phase.membership_mut() {
            membership.forget_carried(op);
        }
        self.decide(tag, Verdict::Committed { op, contributors });
        self.tell(tag);
        self.advance(tag);
    }

    fn posted_mut(&mut self, tag: Tag) -> Option<&mut Posted> {
        let call = self.tags.get_mut(tag)?.call.as_mut()?;
        match &mut call.stage {
            Stage::Posted(posted) => Some(posted),
            Stage::Waiting | Stage::Decided(_) => None,
        }
    }
}

impl Posted {
    /// Whether all members hold it, and this one has told the others so and heard it from them.
    fn is_agreed(&self) -> bool {
        let missing = self.members.len() - 1 - self.held_by.len();
        let enough = missing == 0 || missing == 1 && is_active(Mutation::AgreedByAllButOne);
        !self.needs_master && self.is_said && enough
    }
}
