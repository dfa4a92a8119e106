//! Syncs of shared state, as far as they differ from other operations: the election in between.
//!
//! A sync is posted, held and decided like every operation; its offer is part of the fingerprint.
//! Between posts and results the master says who has the content that all are to have.

use crate::ids::{OpName, PeerId, Tag};
use crate::wire::control::StateId;

use super::Peer;
use super::io::Output;
use super::tags::Stage;

impl Peer {
    /// The election of a sync. Said again after each `Attach`; the first that is heard counts.
    pub(super) fn handle_elected(&mut self, op: OpName, content: StateId, sources: Vec<PeerId>) {
        let state = self.tags.get_mut(op.tag);
        let Some(call) = state.and_then(|state| state.call.as_mut()) else {
            return;
        };
        let Stage::Posted(posted) = &mut call.stage else {
            return;
        };
        if posted.op != op || call.fingerprint.offer.is_none() || posted.elected.is_some() {
            return;
        }
        posted.elected = Some(content);
        self.outputs.push_back(Output::Elected {
            op,
            content,
            sources,
        });
    }

    /// The operation of a tag committed: if it was a sync, what it elected is sealed.
    pub(super) fn note_sealed_state(&mut self, tag: Tag) {
        let posted = self.tags.get(tag).and_then(|state| state.posted());
        if let Some(content) = posted.and_then(|posted| posted.elected) {
            self.sealed_state = Some(content);
        }
    }
}
