//! Members that do not join what the others wait for: an operation, or a safe point (R15).

use std::time::Duration;

use crate::ids::PeerId;
use crate::master::group::Group;
use crate::master::group::ledger::Ledger;
use crate::master::group::operation::OpenOp;
use crate::time::Instant;
use crate::wire::control::EvictReason;

impl Group {
    /// Members that the others have waited for too long, and what for.
    pub fn absent(&self, timeout: Duration, now: Instant) -> Vec<(PeerId, EvictReason)> {
        let mut absent = overdue(&self.ledger, timeout, now);
        let since = self.safe.waited_since();
        if since.is_some_and(|since| since + timeout <= now) {
            let k = self.safe.released;
            let reason = EvictReason::NotAtSafePoint { k };
            absent.extend(self.missing().map(|peer| (peer, reason.clone())));
        }
        absent
    }

    /// When the first member will be absent.
    pub fn next_absent(&self, timeout: Duration) -> Option<Instant> {
        let since = self
            .safe
            .waited_since()
            .filter(|_| self.missing().next().is_some());
        let safe_point = since.map(|since| since + timeout);
        next(&self.ledger, timeout)
            .into_iter()
            .chain(safe_point)
            .min()
    }

    /// Members that have not come to the open safe point, and are in no operation either.
    fn missing(&self) -> impl Iterator<Item = PeerId> {
        let is_busy = |peer: PeerId| self.ledger.open().any(|open| open.posted.contains(&peer));
        let members = self.view.members.iter().map(|member| member.peer);
        members.filter(move |peer| !self.safe.is_at(*peer) && !is_busy(*peer))
    }
}

/// Members that have not posted an operation `timeout` after the newest of the others did.
fn overdue(ledger: &Ledger, timeout: Duration, now: Instant) -> Vec<(PeerId, EvictReason)> {
    let late = ledger
        .open()
        .filter(|open| deadline(open, timeout).is_some_and(|due| due <= now));
    let missing = late.flat_map(|open| {
        let reason = EvictReason::NotPosted {
            tag: open.op().tag,
            n: open.op().n,
        };
        let absent = open
            .members()
            .iter()
            .filter(|peer| !open.posted.contains(peer));
        absent.map(move |peer| (*peer, reason.clone()))
    });
    missing.collect()
}

/// When the first member will be overdue.
fn next(ledger: &Ledger, timeout: Duration) -> Option<Instant> {
    ledger
        .open()
        .filter_map(|open| deadline(open, timeout))
        .min()
}

fn deadline(open: &OpenOp, timeout: Duration) -> Option<Instant> {
    let waiting = !open.posted.is_empty() && open.posted.len() < open.members().len();
    waiting.then(|| open.posted_at + timeout)
}
