//! The report: all that a peer knows, sent with every `Flush`, `Attach` and `Installed` (R5).

use crate::wire::control::{OpenReport, Report, TagReport};

use super::Peer;
use super::tags::{Call, Stage, TagState};
use crate::ids::{OpNumber, Tag};
use crate::limits;

impl Peer {
    /// All facts from which the master may decide. Verdicts that are held back are part of the
    /// floors. Records themselves are only in an `Attach`.
    pub(super) fn report(&self, is_attach: bool) -> Report {
        let Some(membership) = self.phase.membership() else {
            return Report::default();
        };
        let tags = self.tags.iter();
        let mut tags: Vec<TagReport> = tags
            .filter_map(|(tag, state)| report_tag(tag, state))
            .collect();
        if !membership.released {
            self.add_reasons(&mut tags);
        }
        Report {
            vid: membership.view.vid,
            released: membership.released,
            tags,
            carried: membership.carried.values().cloned().collect(),
            safe_called: self.safe_points.called(),
            safe_released: self.safe_points.released(),
            safe_said: self.said.own(),
            given_back: membership.given_back.clone(),
            streams: self.records.reports(is_attach),
        }
    }

    /// Why the newest operation of each tag was aborted, if it was. Others may not have received
    /// the view with that reason, and the next master may have lost it. Whether this peer has
    /// called the operation does not matter.
    fn add_reasons(&self, tags: &mut [TagReport]) {
        let mut room = limits::ABORT_REASONS_BYTES_MAX;
        for report in tags {
            let newest = report.floor.0.checked_sub(1).map(OpNumber);
            let reasons = self.tags.get(report.tag).map(|state| &state.reasons);
            let Some(reason) = newest.and_then(|n| reasons?.get(&n)) else {
                continue;
            };
            let Some(left) = room.checked_sub(reason.bytes_max()) else {
                return;
            };
            room = left;
            report.aborted = Some(reason.clone());
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
        sealed: state.sealed,
        aborted: None,
        open,
        next: next(state),
    })
}

/// The number of the next call, unless a call with a number is still open here.
fn next(state: &TagState) -> Option<OpNumber> {
    match state.call.as_ref().map(|call| &call.stage) {
        None | Some(Stage::Waiting) => Some(state.next),
        Some(Stage::Posted(_) | Stage::Decided(_)) => None,
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
