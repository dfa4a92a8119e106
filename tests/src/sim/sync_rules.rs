//! What must hold of syncs of shared state (docs/protocol.md, R18), seen from outside.
//!
//! The election is computed here a second time, from the members' real calls and from earlier
//! outcomes, and the outcome must agree. If no caller was told how the sync before ended, or none
//! is left that knows, only what needs no history is checked.

use std::cmp::Reverse;

use ccl_core::ids::{GroupId, OpName, OpNumber, PeerId, Revision, Tag};
use ccl_core::wire::control::{EvictReason, StateId, StateOffer, SyncFault, SyncStrategy};

use super::checkers::{Checkers, ensure};
use super::cluster::{HostId, World};
use super::peer_host::Host;
use super::workload::Operation;

/// Run, group and name of a sync.
type SyncKey = (usize, GroupId, OpName);

/// A member's offer.
type Offer = (PeerId, StateOffer);

/// The content that the sync before sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// This, or that there was none.
    Sealed(Option<StateId>),
    /// It cannot be known from the outcomes.
    Unknown,
}

impl Checkers {
    /// A host receives an election.
    ///
    /// # Errors Another host received a different one, a member has not called yet, or the sources
    /// are not the members that have the elected content.
    pub fn host_hears_election(
        &mut self,
        host: &Host,
        op: OpName,
        (content, sources): (StateId, &[PeerId]),
    ) -> Result<(), String> {
        let Some(run) = host.run.filter(|_| !self.broken.contains(&host.group)) else {
            return Ok(());
        };
        let key = (run, host.group, op);
        let known = *self.elections.entry(key).or_insert(content);
        ensure(known == content, || {
            format!("{op}: {known} was elected, and then {content}")
        })?;
        let Some(offers) = self.offers(key) else {
            return Err(format!("{op} was elected before all had called it"));
        };
        let have_it = offers
            .iter()
            .filter(|(_, it)| it.is_usable && it.content == content);
        let have_it: Vec<_> = have_it.map(|(peer, _)| *peer).collect();
        ensure(have_it == sources, || {
            format!("{op}: {have_it:?} have {content}, and {sources:?} are said to")
        })
    }

    /// The offers of all members, in rank order; `None` unless all have called.
    fn offers(&self, key: SyncKey) -> Option<Vec<Offer>> {
        let started = self.started.get(&key)?;
        let members = self.members_of(key);
        let offer = |peer: &PeerId| Some((*peer, *started.get(peer)?.fingerprint.called.offer()?));
        members.iter().map(offer).collect()
    }

    /// The syncs of the run that this peer has called.
    fn syncs_of(&self, group: GroupId, peer: PeerId) -> impl Iterator<Item = SyncKey> {
        let keys = self.started.iter().filter(move |(key, started)| {
            let is_there = key.0 == self.run && key.1 == group && started.contains_key(&peer);
            is_there && key.2.tag == Tag::SHARED_STATE
        });
        keys.map(|(key, _)| *key)
    }

    /// Whether this peer did not take part in the sync that sealed the state before this one, and
    /// another that has a content to give did.
    fn is_late(&self, (run, group, op): SyncKey, offers: &[Offer], peer: PeerId) -> bool {
        let earlier = (0..op.n.0).rev().map(OpNumber);
        let mut sealings = earlier.filter_map(|n| {
            let name = OpName { n, ..op };
            let key = self.outcome_key((run, group), name, op.birth);
            self.outcomes.get(&key)?.committed.as_ref()
        });
        let mut others = offers.iter().filter(|offer| is_candidate(offer));
        sealings.next().is_none_or(|(_, sealers)| {
            !sealers.contains(&peer) && others.any(|(other, _)| sealers.contains(other))
        })
    }

    /// What was sealed when a sync was elected. A master that has the journal of the one before
    /// knows it, however much of that was written lazily.
    fn sealed_before(&self, (run, group, op): SyncKey, keeps_all: bool) -> Before {
        let members = self.members_of((run, group, op));
        for n in (0..op.n.0).rev().map(OpNumber) {
            let name = OpName { n, ..op };
            let outcome = self
                .outcomes
                .get(&self.outcome_key((run, group), name, op.birth));
            let Some(outcome) = outcome else {
                return Before::Unknown;
            };
            match &outcome.committed {
                Some((_, contributors)) => {
                    let is_known = contributors.iter().any(|peer| members.contains(peer));
                    return match is_known || keeps_all {
                        true => Before::Sealed(outcome.state),
                        false => Before::Unknown,
                    };
                }
                None if outcome.aborted.is_some() => {}
                None => return Before::Unknown,
            }
        }
        Before::Sealed(None)
    }
}

impl World {
    /// A sync committed at a host.
    ///
    /// # Errors Others have another content, or it is not the one that had to be elected.
    pub fn check_sync_committed(
        &mut self,
        host: HostId,
        (run, group, op): SyncKey,
    ) -> Result<(), String> {
        let key = (run, group, op);
        let possession = &self.hosts[host.0].app.possession;
        let mine = possession.content;
        ensure(possession.is_usable, || {
            format!("{op} committed at {host:?}, whose state is half written")
        })?;
        let outcome = self.checkers.outcome_key((run, group), op, op.birth);
        let outcome = self.checkers.outcomes.entry(outcome);
        let theirs = *outcome.or_default().state.get_or_insert(mine);
        ensure(mine == theirs, || {
            format!("{op} committed with {theirs} and, at {host:?}, with {mine} (I12)")
        })?;
        let elected = self.checkers.elections.get(&key).copied();
        ensure(elected == Some(mine), || {
            format!("{op} committed with {mine}, but {elected:?} was elected")
        })?;
        let offers = self.checkers.offers(key);
        let offers = offers.ok_or_else(|| format!("{op} committed before all had called it"))?;
        let sealed = self.checkers.sealed_before(key, self.keeps_all());
        let Before::Sealed(sealed) = sealed else {
            self.stats.sync("unchecked");
            let is_brought = offers
                .iter()
                .any(|it| is_candidate(it) && it.1.content == mine);
            return ensure(is_brought, || format!("{op}: nobody had {mine}"));
        };
        let goes_on =
            sealed.is_none_or(|sealed| mine == sealed || mine.revision.0 == sealed.revision.0 + 1);
        let all_restore = offers.iter().all(|(_, it)| it.restore);
        self.stats
            .sync(if goes_on { "committed" } else { "restored" });
        ensure(goes_on || all_restore, || {
            format!("{op}: {mine} after {sealed:?}, which not all voted to give up (I12)")
        })?;
        let expected = elect(&offers, sealed);
        ensure(expected == Ok(mine), || {
            format!("{op}: {mine} was elected, and {expected:?} should be")
        })
    }

    /// A host was evicted for the revision of its shared state.
    ///
    /// # Errors
    /// In no sync that all members had called was it one of a few that are too far ahead.
    pub fn is_stray(
        &self,
        (group, peer): (GroupId, PeerId),
        reason: &EvictReason,
    ) -> Result<(), String> {
        let EvictReason::RevisionAhead { theirs, sealed } = reason else {
            return Ok(());
        };
        let keeps_all = self.keeps_all();
        let is_it = |key: SyncKey| {
            let Some(offers) = self.checkers.offers(key) else {
                return false;
            };
            let is_sealed = match self.checkers.sealed_before(key, keeps_all) {
                Before::Sealed(before) => before.map(|before| before.revision) == Some(*sealed),
                Before::Unknown => true,
            };
            let of = offers.iter().find(|(it, _)| *it == peer);
            let is_theirs = of.is_some_and(|(_, it)| it.content.revision == *theirs);
            let goes = are_few_ahead(&offers, *sealed) || self.checkers.is_late(key, &offers, peer);
            is_sealed && is_theirs && goes && theirs.0 > sealed.0 + 1
        };
        let mut syncs = self.checkers.syncs_of(group, peer);
        ensure(
            self.checkers.broken.contains(&group) || syncs.any(is_it),
            || format!("{peer} was evicted, and no sync asked for that: {reason} (R18)"),
        )
    }

    /// A host learns that a sync failed.
    ///
    /// # Errors It should have succeeded, or failed for another reason.
    pub fn check_sync_fault(
        &mut self,
        operation: &Operation,
        (run, group, op): SyncKey,
        fault: &SyncFault,
    ) -> Result<(), String> {
        let keeps_all = self.keeps_all();
        let names: Vec<OpName> = match operation.started {
            Some(op) => vec![op],
            // It learned this before it called, so the birth is not known here.
            None => self.checkers.names_of((run, group), (op.tag, op.n)),
        };
        let mut wrong = format!("{op} was refused before all had called it: {fault}");
        for name in names {
            let key = (run, group, name);
            let Some(offers) = self.checkers.offers(key) else {
                continue;
            };
            let before = self.checkers.sealed_before(key, keeps_all);
            match check_fault(&offers, before, fault) {
                Ok(()) => return Ok(()),
                Err(what) => wrong = format!("{name}: {what}; told: {fault}; offers: {offers:?}"),
            }
        }
        Err(wrong)
    }
}

fn is_candidate((_, offer): &Offer) -> bool {
    offer.is_usable && offer.strategy != SyncStrategy::ReceiveOnly
}

/// Whether fewer are too far ahead than can continue without them. Ignores the root of what was
/// sealed.
fn are_few_ahead(offers: &[Offer], sealed: Revision) -> bool {
    let candidates = offers.iter().filter(|offer| is_candidate(offer));
    let ahead = |it: &&Offer| it.1.content.revision.0 > sealed.0 + 1;
    let legal = |it: &&Offer| (0..2).contains(&it.1.content.revision.0.wrapping_sub(sealed.0));
    candidates.clone().filter(ahead).count() < candidates.filter(legal).count()
}

/// The election once more: the content that must win, or the name of the fault.
fn elect(offers: &[Offer], sealed: Option<StateId>) -> Result<StateId, &'static str> {
    let has = |strategy| offers.iter().any(|(_, it)| it.strategy == strategy);
    if offers
        .windows(2)
        .any(|pair| pair[0].1.keys != pair[1].1.keys)
    {
        return Err("keys");
    }
    if has(SyncStrategy::EnforcePopular) && has(SyncStrategy::SendOnly) {
        return Err("strategies");
    }
    let candidates: Vec<StateId> = offers
        .iter()
        .filter(|offer| is_candidate(offer))
        .map(|(_, it)| it.content)
        .collect();
    let best_of = |legal: &dyn Fn(StateId) -> bool| {
        let votes = |it: StateId| candidates.iter().filter(|other| **other == it).count();
        let ranked = candidates.iter().enumerate();
        let legal = ranked.filter(|(_, it)| legal(**it));
        let best = legal.max_by_key(|(rank, it)| (it.revision, votes(**it), Reverse(*rank)));
        best.map(|(_, it)| *it)
    };
    let any = best_of(&|_| true).ok_or("no source")?;
    let winner = match sealed {
        None => any,
        Some(sealed) => {
            let last = sealed.revision.0 + 1;
            let is_legal = |it: StateId| it == sealed || it.revision.0 == last;
            let ahead = candidates.iter().filter(|it| it.revision.0 > last).count();
            let legal = candidates.iter().filter(|it| is_legal(**it)).count();
            let best = best_of(&is_legal);
            match offers.iter().all(|(_, it)| it.restore) {
                _ if ahead > 0 && ahead < legal => return Err("eviction"),
                true if ahead > legal => any,
                true => best.unwrap_or(any),
                false if ahead > 0 => return Err("ahead"),
                false => best.ok_or("lost")?,
            }
        }
    };
    let beaten = offers.iter().any(|(_, it)| {
        it.strategy == SyncStrategy::SendOnly && (it.content != winner || !it.is_usable)
    });
    if beaten { Err("sender") } else { Ok(winner) }
}

/// Whether a fault is true of the offers, and is the right one to report.
fn check_fault(offers: &[Offer], before: Before, fault: &SyncFault) -> Result<(), String> {
    if let Before::Sealed(sealed) = before {
        let expected = elect(offers, sealed);
        ensure(expected == Err(name(fault)), || {
            format!("{expected:?} is due")
        })?;
        let said = match fault {
            SyncFault::RevisionLost { sealed, .. } => Some(*sealed),
            _ => sealed,
        };
        ensure(said == sealed, || format!("{sealed:?} was sealed"))?;
    }
    let of = |peer: PeerId| {
        let offer = offers.iter().find(|(it, _)| *it == peer);
        offer
            .map(|(_, it)| *it)
            .ok_or("it names a stranger".to_owned())
    };
    let count = |is: &dyn Fn(&StateOffer) -> bool| offers.iter().filter(|(_, it)| is(it)).count();
    let is_true = match fault {
        SyncFault::Keys {
            peer, theirs, most, ..
        } => {
            let odd = of(*peer)?;
            let few = count(&|it| it.keys == odd.keys);
            let many = count(&|it| it.keys != odd.keys && (it.entries, it.bytes) == *most);
            (odd.entries, odd.bytes) == *theirs && many >= few
        }
        SyncFault::Strategies { peer, theirs, most } => {
            let (few, many) = (
                count(&|it| it.strategy == *theirs),
                count(&|it| it.strategy == *most),
            );
            of(*peer)?.strategy == *theirs && theirs != most && many >= few
        }
        SyncFault::SenderLost {
            peer,
            theirs,
            elected,
        } => {
            let odd = of(*peer)?;
            let is_beaten = odd.content != *elected || !odd.is_usable;
            odd.strategy == SyncStrategy::SendOnly && odd.content == *theirs && is_beaten
        }
        SyncFault::RevisionAhead {
            peer,
            theirs,
            sealed,
        } => of(*peer)?.content.revision == *theirs && theirs.0 > sealed.0 + 1,
        SyncFault::RevisionLost {
            best, unwilling, ..
        } => {
            let refusing = offers.iter().filter(|(_, it)| !it.restore);
            let is_there = offers
                .iter()
                .any(|it| is_candidate(it) && it.1.content == *best);
            is_there && !unwilling.is_empty() && refusing.map(|(peer, _)| peer).eq(unwilling)
        }
        SyncFault::NoSource => !offers.iter().any(is_candidate),
    };
    ensure(is_true, || "it is not true".into())
}

/// The name of a fault.
#[must_use]
pub fn name(fault: &SyncFault) -> &'static str {
    match fault {
        SyncFault::Keys { .. } => "keys",
        SyncFault::Strategies { .. } => "strategies",
        SyncFault::SenderLost { .. } => "sender",
        SyncFault::RevisionAhead { .. } => "ahead",
        SyncFault::RevisionLost { .. } => "lost",
        SyncFault::NoSource => "no source",
    }
}
