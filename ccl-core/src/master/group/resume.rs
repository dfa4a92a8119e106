//! Resumes a group from what was received while it was rebuilt (R11).
//!
//! One decision (R4) leads directly to the next view. What was received, and whether it is enough,
//! is in `rebuild`.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{PeerId, Vid};
use crate::master::group::Group;
use crate::master::group::change::said_by_all;
use crate::master::group::decision::Survival;
use crate::master::group::phase::Phase;
use crate::master::group::rebuild::Rebuild;
use crate::master::group::returns::Base;
use crate::master::history::record::SealedView;
use crate::master::shared::Shared;
use crate::mutation::{Mutation, is_active};
use crate::wire::control::{Birth, Claim, EvictReason, GivenBack, Report, TagReport};

impl Group {
    /// While the group is rebuilt: asks members to attach once enough are back.
    pub fn summon(&mut self, shared: &mut Shared) {
        if let Phase::Rebuild(rebuild) = &mut self.phase {
            for peer in rebuild.take_summons(shared.now, shared) {
                shared.summon(peer);
            }
        }
    }

    /// Whether enough was received to resume the group.
    pub fn is_rebuilt(&self, shared: &Shared) -> bool {
        match &self.phase {
            Phase::Rebuild(rebuild) => rebuild.is_ready(shared.now, shared.force_rebuild),
            _ => false,
        }
    }

    /// Resumes the group from what was received.
    pub fn finish_rebuild(&mut self, shared: &mut Shared) {
        let Phase::Rebuild(mut rebuild) = std::mem::replace(&mut self.phase, Phase::Founding)
        else {
            unreachable!("only a group that is rebuilt is taken up");
        };
        let Some(newest) = rebuild.newest() else {
            return;
        };
        self.view = newest.view;
        self.is_closed = newest.is_closed && !is_active(Mutation::ClosedNotSealed);
        let numbers = self.view.members.iter().map(|member| member.number.0 + 1);
        self.next_number.0 = numbers.max().unwrap_or(0).max(self.next_number.0);
        self.take_sealed(&rebuild, &newest.given_back, &newest.tags);
        let (members, others): (Vec<_>, Vec<_>) = rebuild
            .heard
            .iter()
            .partition(|(peer, _)| self.view.contains(**peer));
        for (peer, _) in others {
            shared.condemn(*peer, EvictReason::NotAMember);
        }
        let is_current = |sealed: &SealedView| sealed.vid == self.view.vid;
        let is_journal_newest = rebuild.trusted || rebuild.sealed.as_ref().is_none_or(is_current);
        let mut refused = self.resume_records(shared, &members, is_journal_newest);
        refused.extend(self.restate(shared, &members, &newest.carried));
        let fresh = members
            .iter()
            .filter(|(_, (_, report))| report.vid == Vid::default());
        let fresh: Vec<PeerId> = fresh.map(|(peer, _)| **peer).collect();
        if fresh.len() < members.len() {
            // They were admitted without learning of it, so they do not know the state of the
            // others.
            refused.extend(fresh.iter().map(|peer| (*peer, EvictReason::Unaware)));
        }
        let heard = members.iter().map(|(peer, _)| **peer);
        let survivors: BTreeSet<_> = heard.filter(|peer| !refused.contains_key(peer)).collect();
        let of_view = members
            .iter()
            .filter(|(_, (_, it))| it.vid == self.view.vid);
        let said = of_view.map(|(peer, (_, report))| (**peer, report.safe_said));
        if let Some(said) = said_by_all(&said.collect(), &survivors) {
            self.safe.raise(said);
        }
        rebuild.struck.extend(refused);
        for peer in rebuild.adopted.intersection(&survivors) {
            shared.seal_registration(*peer);
        }
        let lost = self.not_heard(shared, &survivors, &rebuild.struck);
        self.keep_leases(&rebuild.leases(shared), &survivors);
        self.resolve(
            shared,
            &Survival {
                survivors: &survivors,
                lost: &lost,
            },
        );
        for (peer, (_, report)) in &members {
            if survivors.contains(peer) && !fresh.contains(peer) {
                self.send_records(shared, **peer, |stream| report.next_of(stream));
            }
        }
        self.install(shared, &survivors, &lost, &[]);
        let fresh = fresh.into_iter().filter(|peer| survivors.contains(peer));
        let fresh: Vec<PeerId> = fresh.collect();
        self.note_admitted(&fresh);
    }

    /// What the journal says, as far as it counts.
    fn take_sealed(&mut self, rebuild: &Rebuild, given_back: &[GivenBack], tags: &[TagReport]) {
        if let Some(sealed) = &rebuild.sealed {
            // What an older copy has as sealed last counts only if a member confirms it.
            let is_known = rebuild.trusted || rebuild.count_heard(&self.view) > 0;
            let state = sealed.state.filter(|_| is_known);
            self.ledger.restore(&sealed.floors, state);
            self.safe.released = sealed.safe_released;
        }
        self.ledger.take_base(&Base {
            sealed: rebuild.sealed.as_ref().map(|sealed| sealed.vid),
            newest: self.view.vid,
            given_back,
            tags,
        });
    }

    /// Adds the reports of the newest view's members; returns the members whose reports cannot be
    /// true.
    fn restate(
        &mut self,
        shared: &mut Shared,
        members: &[(&PeerId, &(Claim, Report))],
        carried: &[Birth],
    ) -> BTreeMap<PeerId, EvictReason> {
        let now = shared.now;
        let mut refused = BTreeMap::new();
        for (peer, (_, report)) in members {
            self.safe.released = self.safe.released.max(report.safe_released);
            self.ledger.learn_state(report);
            let ledger = &self.ledger;
            let counts = |tag: &&TagReport| !ledger.returns.is_void(tag.tag, report.vid);
            let tags: Vec<_> = report.tags.iter().filter(counts).collect();
            let mut tags = tags.into_iter();
            let learned = tags.try_for_each(|tag| self.ledger.learn(tag));
            if let Err(why) = learned {
                refused.insert(**peer, EvictReason::Protocol(why));
            }
        }
        carried
            .iter()
            .for_each(|carried| self.ledger.resume(carried, now));
        for (peer, (_, report)) in members {
            if let Err(why) = self.restate_elected(now, **peer, report) {
                refused.insert(**peer, EvictReason::Protocol(why));
            }
        }
        for (peer, (_, report)) in members {
            if let Err(why) = self.absorb(shared, **peer, report) {
                refused.insert(**peer, EvictReason::Protocol(why));
            }
        }
        refused
    }

    fn not_heard(
        &self,
        shared: &mut Shared,
        survivors: &BTreeSet<PeerId>,
        struck: &BTreeMap<PeerId, EvictReason>,
    ) -> BTreeMap<PeerId, EvictReason> {
        let gone = self
            .view
            .peers()
            .into_iter()
            .filter(|peer| !survivors.contains(peer));
        let mut lost = BTreeMap::new();
        for peer in gone {
            let reason = struck.get(&peer).cloned().unwrap_or(EvictReason::NotHeard);
            shared.condemn(peer, reason.clone());
            lost.insert(peer, reason);
        }
        lost
    }
}
