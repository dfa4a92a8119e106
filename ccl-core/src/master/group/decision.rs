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
    /// Whether an earlier master may have sealed outcomes that this one does not know.
    pub rebuilding: bool,
}

/// What becomes of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every surviving member holds the result. `absent` are members that are no contributors.
    Committed { absent: Vec<PeerId> },
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
        let absent = absent(open, survival);
        let contributors = open.members().len() - absent.len();
        if contributors >= open.min_world() || is_active(Mutation::CommitOfTooFew) {
            return Verdict::Committed { absent };
        }
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

/// Lost members that are not known to have called an operation which needs no data of theirs. After
/// a restart of the master none is left out: the master before may have known of the call, and have
/// named the member as a contributor.
fn absent(open: &OpenOp, survival: &Survival) -> Vec<PeerId> {
    if survival.rebuilding || !open.is_empty() {
        return Vec::new();
    }
    let root = open.source();
    let gone = open
        .members()
        .iter()
        .filter(|peer| !survival.survivors.contains(peer));
    let silent = gone.filter(|peer| !open.posted.contains(peer) && Some(**peer) != root);
    silent.copied().collect()
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
