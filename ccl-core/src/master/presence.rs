//! Members that do not call what the others wait for (R15).

use std::time::Duration;

use super::ledger::Ledger;
use super::operation::OpenOp;
use crate::ids::PeerId;
use crate::time::Instant;
use crate::wire::control::EvictReason;

/// Members that have not posted an operation `timeout` after the newest of the others did.
pub(super) fn overdue(
    ledger: &Ledger,
    timeout: Duration,
    now: Instant,
) -> Vec<(PeerId, EvictReason)> {
    let late = ledger
        .open()
        .filter(|open| deadline(open, timeout).is_some_and(|due| due <= now));
    let missing = late.flat_map(|open| {
        let reason = EvictReason::NotPosted {
            tag: open.op.tag,
            n: open.op.n,
        };
        let absent = open
            .members
            .iter()
            .filter(|peer| !open.posted.contains(peer));
        absent.map(move |peer| (*peer, reason.clone()))
    });
    missing.collect()
}

/// When the first member will be overdue.
pub(super) fn next(ledger: &Ledger, timeout: Duration) -> Option<Instant> {
    ledger
        .open()
        .filter_map(|open| deadline(open, timeout))
        .min()
}

fn deadline(open: &OpenOp, timeout: Duration) -> Option<Instant> {
    let waiting = !open.posted.is_empty() && open.posted.len() < open.members.len();
    waiting.then(|| open.posted_at + timeout)
}
