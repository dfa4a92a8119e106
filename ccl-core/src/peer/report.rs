//! The report: all that a peer knows, restated at every `Flush`, `Attach` and `Installed` (R5).

use crate::wire::control::{AbortReason, OpenReport, Report, TagReport};

use super::Peer;
use super::tags::{Call, Stage, TagState, Verdict};
use crate::ids::{OpNumber, Tag};

impl Peer {
    /// All that the master may decide from. Verdicts that are held back are part of the floors.
    pub(super) fn report(&self) -> Report {
        let Some(membership) = self.phase.membership() else {
            return Report::default();
        };
        Report {
            vid: membership.view.vid,
            released: membership.released,
            tags: self
                .tags
                .iter()
                .filter_map(|(tag, state)| report_tag(tag, state))
                .collect(),
            carried: membership.carried.values().cloned().collect(),
            safe_called: self.safe_points.called(),
            safe_released: self.safe_points.released(),
            state: self.sealed_state,
            given_back: membership.given_back.clone(),
        }
    }
}

fn report_tag(tag: Tag, state: &TagState) -> Option<TagReport> {
    let open = state.call.as_ref().and_then(report_open);
    if open.is_none() && state.floor == OpNumber(0) && state.next == OpNumber(0) {
        return None;
    }
    Some(TagReport {
        tag,
        floor: state.floor,
        last_committed: state.last_committed,
        absent: state.absent.clone(),
        aborted: state.call.as_ref().and_then(|call| held_back(call, state)),
        open,
        next: next(state),
    })
}

/// The number of the next call, unless one that has a number has not ended here.
fn next(state: &TagState) -> Option<OpNumber> {
    match state.call.as_ref().map(|call| &call.stage) {
        None | Some(Stage::Waiting) => Some(state.next),
        Some(Stage::Posted(_) | Stage::Decided(_)) => None,
    }
}

/// Why the newest operation was aborted, while its caller is not told (R6).
fn held_back(call: &Call, state: &TagState) -> Option<AbortReason> {
    match &call.stage {
        Stage::Decided(Verdict::Aborted { op, reason }) if op.n.next() == state.floor => {
            Some(reason.clone())
        }
        _ => None,
    }
}

fn report_open(call: &Call) -> Option<OpenReport> {
    let posted = call.posted()?;
    Some(OpenReport {
        n: posted.op.n,
        birth: posted.op.birth,
        fingerprint: call.fingerprint.clone(),
        held: posted.held,
        cancel: call.cancel.clone(),
        elected: posted.elected,
    })
}
