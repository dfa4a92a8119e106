//! The fate of an open operation at a view change (R4): one pure function.
//!
//! It runs once for each operation when all reports are in. The caller seals the answer before any
//! peer learns of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::PeerId;
use crate::master::group::operation::OpenOp;
use crate::mutation::{Mutation, is_active};
use crate::wire::control::{AbortReason, EvictReason};

/// Which members remain, and why the others do not.
#[derive(Debug)]
pub struct Survival<'a> {
    /// Members of the ending view that remain.
    pub survivors: &'a BTreeSet<PeerId>,
    /// Its members that do not.
    pub lost: &'a BTreeMap<PeerId, EvictReason>,
}

/// What becomes of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every surviving member holds the result.
    Committed,
    /// It can no longer succeed, or a member asked for an abort.
    Aborted(AbortReason),
    /// It goes on unchanged.
    Carried,
    /// No survivor knows of it: as if it had never been called.
    Forgotten,
}

/// Decides one operation. See docs/protocol.md, R4.
pub fn decide(open: &OpenOp, survival: &Survival) -> Verdict {
    let survivors = survival.survivors;
    let listed = open.posted.iter().any(|peer| survivors.contains(peer));
    if !listed && !open.carried {
        return Verdict::Forgotten;
    }
    let lost = open.members().iter().find(|peer| !survivors.contains(peer));
    let anybody = survival.lost.keys().next();
    let lost = lost.or(anybody.filter(|_| is_active(Mutation::LossOfAnybody)));
    let mut staying = open
        .members()
        .iter()
        .filter(|peer| survivors.contains(peer))
        .peekable();
    let held = staying.peek().is_some() && staying.all(|peer| open.done.contains(peer));
    if held && open.difference.is_none() {
        return Verdict::Committed;
    }
    if let Some((by, reason)) = open.cancel_of(survivors) {
        return Verdict::Aborted(AbortReason::Cancelled { by, reason });
    }
    if let Some(&peer) = lost {
        let reason = survival.lost.get(&peer).cloned();
        return Verdict::Aborted(AbortReason::Lost {
            peer,
            reason: reason.unwrap_or(EvictReason::NotAMember),
        });
    }
    match open.fault() {
        Some(fault) => Verdict::Aborted(AbortReason::State(fault.clone())),
        None => Verdict::Carried,
    }
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
