//! Which members an operation waited for when it timed out. Reported with the abort; decides
//! nothing.

use std::collections::BTreeSet;

use crate::ids::PeerId;
use crate::limits::WAIT_NAMES_MAX;
use crate::master::group::decision::Verdict;
use crate::master::group::ledger::Ledger;
use crate::master::group::operation::OpenOp;
use crate::wire::control::{AbortReason, CancelReason, Elsewhere, Late, LatePeers};

impl Ledger {
    /// The verdict and, after a timeout, the members that the operation waited for. All reports of
    /// survivors are in, so it is known which of them have called and finished it. A lost member
    /// may have called it without reporting that: if the operation waited only for lost members,
    /// none is named.
    pub fn explained(
        &self,
        open: &OpenOp,
        verdict: Verdict,
        survivors: &BTreeSet<PeerId>,
    ) -> Verdict {
        match verdict {
            Verdict::Aborted(AbortReason::Cancelled {
                by,
                reason: CancelReason::Deadline { .. },
            }) => {
                let late = self.late(open, survivors);
                let reason = CancelReason::Deadline { late };
                Verdict::Aborted(AbortReason::Cancelled { by, reason })
            }
            verdict => verdict,
        }
    }

    fn late(&self, open: &OpenOp, survivors: &BTreeSet<PeerId>) -> Option<Late> {
        let missing = |from: &BTreeSet<PeerId>| -> Vec<PeerId> {
            let members = open.members().iter().copied();
            members.filter(|peer| !from.contains(peer)).collect()
        };
        let mut uncalled = missing(&open.posted);
        uncalled.retain(|peer| survivors.contains(peer));
        if !uncalled.is_empty() {
            let elsewhere = uncalled.iter().filter_map(|peer| self.call_of(*peer));
            return Some(Late::Uncalled {
                elsewhere: elsewhere.take(WAIT_NAMES_MAX).collect(),
                peers: LatePeers::of(&uncalled),
            });
        }
        let unfinished = missing(&open.done);
        let all_are_here = open.members().iter().all(|peer| survivors.contains(peer));
        let is_known = all_are_here && !unfinished.is_empty();
        is_known.then(|| Late::Unfinished(LatePeers::of(&unfinished)))
    }

    /// The call that a member is in, if any.
    fn call_of(&self, peer: PeerId) -> Option<Elsewhere> {
        let mut open = self.open().filter(|open| open.posted.contains(&peer));
        let open = open.find(|open| !open.done.contains(&peer))?;
        let (_, fingerprint) = open.called.as_ref()?;
        Some(Elsewhere {
            peer,
            call: fingerprint.kind().call(open.op()),
        })
    }
}
