//! Elects the content that all members of a sync get (docs/protocol.md, R18): one pure function of
//! their offers and of what was sealed last.
//!
//! It runs once all members of a sync have posted. `shared_state` announces the result; `decision`
//! ends a sync that cannot succeed.

use std::collections::BTreeMap;

use crate::ids::{PeerId, Revision};
use crate::mutation::{Mutation, is_active};
use crate::wire::control::{StateId, StateOffer, SyncFault, SyncStrategy};

/// A member and its offer.
pub type Offer = (PeerId, StateOffer);

/// The content that won, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    pub content: StateId,
    /// In rank order, and never empty.
    pub sources: Vec<PeerId>,
}

/// Elects among the offers of all members, in rank order.
///
/// In a tie the lowest rank decides what wins, and the member admitted last is the odd one.
pub fn elect(offers: &[Offer], sealed: Option<StateId>) -> Result<Election, SyncFault> {
    check_keys(offers)?;
    check_strategies(offers)?;
    let candidates: Vec<_> = offers.iter().filter(|offer| is_candidate(offer)).collect();
    let contents: Vec<_> = candidates.iter().map(|(_, it)| it.content).collect();
    let Some(best) = highest(&contents) else {
        return Err(SyncFault::NoSource);
    };
    let content = match sealed {
        None => best,
        Some(sealed) => {
            let unwilling = unwilling(offers);
            match follow(&candidates, sealed, best, &unwilling) {
                Err(_) if unwilling.is_empty() => restored(&contents, sealed, best),
                followed => followed?,
            }
        }
    };
    check_senders(offers, content)?;
    Ok(Election {
        content,
        sources: holders(offers, content),
    })
}

/// Members to evict because they are too far ahead of the sealed content. All of them, if more
/// candidates have a legal content than one that is too far ahead. Else only those that did not
/// take part in sealing it, if it is known who did and one of these has a legal content: that is
/// the run. Else none: it is a fault for all, or decided by the vote of all.
pub fn strays(offers: &[Offer], sealed: StateId, sealers: &[PeerId]) -> Vec<(PeerId, Revision)> {
    if is_active(Mutation::AheadFailsAll) {
        return Vec::new();
    }
    let candidates = offers.iter().filter(|offer| is_candidate(offer));
    let contents = candidates.map(|(peer, it)| (*peer, it.content));
    let legal = contents.clone().filter(|(_, it)| follows(*it, sealed));
    let ahead = contents.filter(|(_, it)| is_ahead(*it, sealed));
    let mut ahead: Vec<_> = ahead.map(|(peer, it)| (peer, it.revision)).collect();
    let has_sealed = |peer: &PeerId| sealers.contains(peer);
    if ahead.len() < legal.clone().count() {
        return ahead;
    }
    if !legal.clone().any(|(peer, _)| has_sealed(&peer)) {
        return Vec::new();
    }
    ahead.retain(|(peer, _)| !has_sealed(peer));
    ahead
}

/// Members that have this content whole, in rank order. It does not matter whether their offers
/// counted: the same root is the same bytes.
pub fn holders(offers: &[Offer], content: StateId) -> Vec<PeerId> {
    let holders = offers.iter().filter(|(_, it)| holds(it, content));
    holders.map(|(peer, _)| *peer).collect()
}

fn holds(offer: &StateOffer, content: StateId) -> bool {
    is_whole(offer) && offer.content == content
}

fn is_candidate((_, offer): &Offer) -> bool {
    is_whole(offer) && offer.strategy != SyncStrategy::ReceiveOnly
}

fn is_whole(offer: &StateOffer) -> bool {
    offer.is_usable || is_active(Mutation::HalfWrittenCounts)
}

/// Whether a content may be elected: the sealed one, or one a step ahead of it.
fn follows(content: StateId, sealed: StateId) -> bool {
    let is_stray = content.revision == sealed.revision && is_active(Mutation::PopularBeatsSealed);
    content == sealed || Some(content.revision) == next(sealed.revision) || is_stray
}

/// Whether it is more than one step ahead of the sealed content.
fn is_ahead(content: StateId, sealed: StateId) -> bool {
    next(sealed.revision).is_some_and(|last| content.revision > last)
}

fn next(revision: Revision) -> Option<Revision> {
    revision.0.checked_add(1).map(Revision)
}

/// The most frequent content of the highest revision; in a tie, the first.
fn highest(contents: &[StateId]) -> Option<StateId> {
    let revision = contents.iter().map(|content| content.revision).max()?;
    let highest = contents.iter().filter(|it| it.revision == revision);
    most(highest.copied())
}

/// The most frequent value; in a tie, the first.
fn most<T: Copy + Ord>(values: impl Iterator<Item = T> + Clone) -> Option<T> {
    let mut counts = BTreeMap::new();
    for value in values.clone() {
        *counts.entry(value).or_insert(0_usize) += 1;
    }
    let highest = counts.values().copied().max()?;
    let mut values = values;
    values.find(|value| counts[value] == highest)
}

fn check_keys(offers: &[Offer]) -> Result<(), SyncFault> {
    let Some(usual) = most(offers.iter().map(|(_, it)| it.keys)) else {
        return Ok(());
    };
    let odd = offers.iter().rfind(|(_, it)| it.keys != usual);
    let usual = offers.iter().find(|(_, it)| it.keys == usual);
    match (odd, usual) {
        (Some((peer, odd)), Some((_, usual))) => Err(SyncFault::Keys {
            peer: *peer,
            theirs: (odd.entries, odd.bytes),
            most: (usual.entries, usual.bytes),
            odd: odd.keys,
            usual: usual.keys,
            difference: odd.sketch.difference(&usual.sketch).map(Box::new),
        }),
        _ => Ok(()),
    }
}

/// `send_only` and `enforce_popular` cannot be combined.
fn check_strategies(offers: &[Offer]) -> Result<(), SyncFault> {
    let strategies = offers.iter().map(|(_, it)| it.strategy);
    let voting = strategies.filter(|&it| it != SyncStrategy::ReceiveOnly);
    let Some(usual) = most(voting) else {
        return Err(SyncFault::NoSource);
    };
    let is_odd = |it: SyncStrategy| it != usual && it != SyncStrategy::ReceiveOnly;
    match offers.iter().rfind(|(_, it)| is_odd(it.strategy)) {
        Some((peer, odd)) => Err(SyncFault::Strategies {
            peer: *peer,
            theirs: odd.strategy,
            most: usual,
        }),
        None => Ok(()),
    }
}

fn check_not_ahead(candidates: &[&Offer], sealed: StateId) -> Result<(), SyncFault> {
    // Of the highest revision, the last one: `max_by_key` takes the last of equals.
    let furthest = candidates.iter().max_by_key(|(_, it)| it.content.revision);
    match furthest {
        Some((peer, it)) if is_ahead(it.content, sealed) => Err(SyncFault::RevisionAhead {
            peer: *peer,
            theirs: it.content.revision,
            sealed: sealed.revision,
        }),
        _ => Ok(()),
    }
}

/// What follows the sealed content.
fn follow(
    candidates: &[&Offer],
    sealed: StateId,
    best: StateId,
    unwilling: &[PeerId],
) -> Result<StateId, SyncFault> {
    check_not_ahead(candidates, sealed)?;
    let contents = candidates.iter().map(|(_, it)| it.content);
    let legal: Vec<_> = contents
        .filter(|content| follows(*content, sealed))
        .collect();
    highest(&legal).ok_or_else(|| SyncFault::RevisionLost {
        sealed,
        best,
        unwilling: unwilling.to_vec(),
    })
}

/// Members that do not vote to restore. If all do, they may continue from the best available
/// content although the sealed one does not allow it: what earlier members sealed may be lost with
/// them.
fn unwilling(offers: &[Offer]) -> Vec<PeerId> {
    let unwilling = offers.iter().filter(|(_, it)| !it.restore);
    unwilling.map(|(peer, _)| *peer).collect()
}

/// The content from which all continue if they vote to restore: what the run sealed or what follows
/// it, unless more candidates are too far ahead than have such a content; else the best available.
/// So a checkpoint of another run does not win by its number.
fn restored(contents: &[StateId], sealed: StateId, best: StateId) -> StateId {
    let own = contents.iter().filter(|it| follows(**it, sealed));
    let own: Vec<StateId> = own.copied().collect();
    let ahead = contents.iter().filter(|it| is_ahead(**it, sealed));
    match highest(&own) {
        Some(content) if own.len() >= ahead.count() => content,
        _ => best,
    }
}

fn check_senders(offers: &[Offer], elected: StateId) -> Result<(), SyncFault> {
    let is_beaten = |it: &StateOffer| it.strategy == SyncStrategy::SendOnly && !holds(it, elected);
    match offers.iter().rfind(|(_, it)| is_beaten(it)) {
        Some((peer, it)) => Err(SyncFault::SenderLost {
            peer: *peer,
            theirs: it.content,
            elected,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;
