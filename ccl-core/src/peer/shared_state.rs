//! What is special about a sync of shared state: the election before it starts to move bytes.
//!
//! A sync is posted, held and decided like any operation; its fingerprint carries an offer. Between
//! the posts and the results the master announces the elected content and the members that have it.

use crate::error::Error;
use crate::ids::{OpName, PeerId, Tag};
use crate::wire::control::{Fingerprint, Kind, Sealed, StateId};

use super::Peer;
use super::io::Output;
use super::tags::{Posted, Stage};

impl Peer {
    /// The election of a sync. It is sent again after each `Attach`; the first one received counts.
    pub(super) fn handle_elected(&mut self, op: OpName, content: StateId, sources: Vec<PeerId>) {
        let me = self.session.peer().unwrap_or_default();
        let state = self.tags.get_mut(op.tag);
        let Some(call) = state.and_then(|state| state.call.as_mut()) else {
            return;
        };
        let (Stage::Posted(posted), Some(offer)) =
            (&mut call.stage, call.fingerprint.called.offer())
        else {
            return;
        };
        if posted.op != op {
            return;
        }
        let is_here = offer.is_usable && offer.content == content;
        let is_true_here = is_here == sources.contains(&me);
        if let Err(what) = check_election(posted, content, &sources, is_true_here) {
            return self.end_contradicted(format!("election for {op}: {what}"));
        }
        if posted.elected.replace(content).is_none() {
            self.outputs.push_back(Output::Elected {
                op,
                content,
                sources,
            });
        }
    }

    /// The operation of a tag committed. If it was a sync, the elected content is sealed.
    pub(super) fn note_sealed(&mut self, tag: Tag) {
        if let Some(state) = self.tags.get_mut(tag) {
            let posted = state.posted();
            state.sealed = Sealed::from(posted.and_then(|posted| posted.elected));
        }
    }
}

/// Whether an election is plausible: it is the one received before, members have its content, and
/// what it says about this peer is correct.
fn check_election(
    posted: &Posted,
    content: StateId,
    sources: &[PeerId],
    is_true_here: bool,
) -> Result<(), String> {
    if let Some(before) = posted.elected.filter(|before| *before != content) {
        return Err(format!("{content}, after {before}"));
    }
    if sources.is_empty() {
        return Err(format!("no member has {content}"));
    }
    if let Some(stranger) = sources.iter().find(|it| !posted.members.contains(it)) {
        return Err(format!("peer {stranger} is not a member of it"));
    }
    if !is_true_here {
        return Err(format!("it is wrong about whether {content} is here"));
    }
    Ok(())
}

/// Whether the call may be made on its tag.
pub(super) fn check_call(tag: Tag, fingerprint: &Fingerprint) -> Result<(), Error> {
    let is_sync = fingerprint.kind() == Kind::SharedState;
    if is_sync == (tag == Tag::SHARED_STATE) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "tag {} is reserved for syncs of shared state",
        Tag::SHARED_STATE
    )))
}
