//! Checks what a master seals: views, and histories that begin anew.

use std::ops::Bound::{Excluded, Unbounded};

use super::*;
use ccl_core::master::Master;

impl Checkers {
    /// The newest view that the master sealed for a group.
    #[must_use]
    pub fn newest_view(&self, group: GroupId) -> Option<&Sealed> {
        self.sealed.get(&(self.run, group))?.last()
    }

    /// Whether the newest view of a group is of the present master: one without a journal knows no
    /// other.
    #[must_use]
    pub fn is_taken_up(&self, group: GroupId) -> bool {
        let newest = self.newest_view(group);
        newest.is_some_and(|view| self.sealed_by.get(&(group, view.vid)) == Some(&self.incarnation))
    }
}

impl World {
    /// The master emits an event.
    pub fn check_master_event(&mut self, event: &Event) {
        match event {
            Event::Evicted {
                peer,
                group,
                reason,
                ..
            } => {
                self.stats.eviction(reason);
                self.note_eviction(*group);
                if let EvictReason::Unreachable { .. } = reason {
                    let checked = self.is_culprit(*group, *peer);
                    self.check(checked);
                }
                let checked = self.is_truly_silent((*group, *peer), reason);
                self.check(checked);
                let checked = self.is_stray((*group, *peer), reason);
                self.check(checked);
                let run = self.checkers.run;
                self.checkers.evicted.insert((run, *peer), reason.clone());
                if self.has_sites() {
                    self.promise_unit_end(*group, *peer, reason);
                }
                if self.swarm.healthy_group == Some(group.0) {
                    let what = format!("{peer} of the healthy group was evicted: {reason}");
                    self.fail(what);
                }
            }
            Event::ViewInstalled {
                group,
                vid,
                members,
                ..
            } => {
                if members.is_empty() {
                    self.checkers.emptied(*group, *vid);
                }
                let checked = self.view_sealed(*group, *vid, members);
                self.check(checked);
            }
            Event::MasterStarted { rebuilt: false, .. } => {
                let checked = self.check_founding();
                self.check(checked);
            }
            // After a journal was lost twice, runs may exist side by side: the one that is heard
            // first goes on.
            Event::MasterStarted { rebuilt: true, .. } => {
                let run = self.master.machine.as_ref().and_then(Master::run_id);
                if let Some(run) = run {
                    self.checkers.run = self.run_index(run);
                }
            }
            _ => {}
        }
    }

    pub(super) fn view_sealed(
        &mut self,
        group: GroupId,
        vid: Vid,
        members: &[PeerId],
    ) -> Result<(), String> {
        let run = self.checkers.run;
        if self.master.lost_disk {
            self.checkers.forget_unheard_view(group, vid.term);
        }
        self.note_founding(run, (group, vid), members);
        let majority = self.rebuilt_by_majority(group, vid, members);
        self.history_begins_anew(group, vid, members)?;
        let forced = self.master.force;
        let checkers = &mut self.checkers;
        checkers
            .sealed_by
            .insert((group, vid), checkers.incarnation);
        let list = checkers.sealed.entry((run, group)).or_default();
        let before = list.last().map(|sealed| sealed.members.clone());
        let before = before.unwrap_or_default();
        let survivors: Vec<PeerId> = before
            .iter()
            .filter(|peer| members.contains(peer))
            .copied()
            .collect();
        checkers.views_in_calm += u64::from(before != members);
        let rises = list.last().is_none_or(|sealed| sealed.vid < vid);
        let minority = survivors.len() * 2 <= before.len() && !before.is_empty();
        list.push(Sealed {
            vid,
            members: members.to_vec(),
            survivors,
        });
        if minority {
            checkers.minority.insert(group);
        }
        if !majority {
            checkers.broken.insert(group);
            ensure(forced, || {
                format!("view {vid} of {group} rebuilt without a majority or a journal (R11)")
            })?;
        }
        let broken = checkers.broken.contains(&group);
        ensure(rises || broken, || format!("view {vid} sealed twice (I6)"))
    }

    fn note_founding(&mut self, run: usize, (group, vid): (GroupId, Vid), members: &[PeerId]) {
        let (now, key) = (self.now, (run, group));
        let checkers = &mut self.checkers;
        let before = checkers.newest_view(group).map(|view| &view.members);
        match (before.is_none_or(Vec::is_empty), members.is_empty()) {
            (false, true) => drop(checkers.lost.insert(key, now)),
            (true, false) => drop(checkers.foundings.entry(key).or_default().insert(vid, now)),
            _ => {}
        }
    }

    /// A master starts with the newest views in its journal, of which no event may have told.
    pub fn note_lost_views(&mut self) {
        let (now, run) = (self.now, self.checkers.run);
        let found = self.master.found.iter();
        let lost = found.filter(|(_, (_, members))| members.is_empty());
        let lost = lost.map(|(group, _)| ((run, *group), now));
        self.checkers.lost.extend(lost);
    }

    /// R19: members that go on without a master do so only until their group may be founded anew.
    pub fn check_fork(
        &self,
        host: HostId,
        (run, group, op): (usize, GroupId, OpName),
        called: Instant,
    ) -> Result<(), String> {
        let foundings = self.checkers.foundings.get(&(run, group));
        let later = (Excluded(self.hosts[host.0].vid()), Unbounded);
        let founded = foundings.and_then(|founded| founded.range(later).next());
        let forked = founded.filter(|(_, at)| **at < called);
        ensure(forked.is_none(), || {
            format!("{op} was called after the group was founded anew: {forked:?} (R19)")
        })
    }

    /// A master whose disk lost something and that hears no member of a group begins it anew,
    /// wholly or from where its journal ends. No member may be left that knows more.
    pub(super) fn history_begins_anew(
        &mut self,
        group: GroupId,
        vid: Vid,
        members: &[PeerId],
    ) -> Result<(), String> {
        let run = self.checkers.run;
        let Some(sealed) = self.checkers.newest_view(group) else {
            return Ok(());
        };
        let survives = sealed.members.iter().any(|peer| members.contains(peer));
        let lost = self.master.lost_disk || self.master.lost_tail;
        // Of two masters without a disk the second may not have heard of the first.
        let sealed_by = self.checkers.sealed_by.get(&(group, sealed.vid));
        let earlier = sealed_by.is_some_and(|master| *master < self.checkers.incarnation);
        if !lost || !(sealed.vid.term < vid.term || earlier) || survives {
            return Ok(());
        }
        // Of a group that was begun anew before, members that were cut off then may be heard first.
        if !self.checkers.broken.contains(&group) {
            self.nobody_is_left(run, &sealed.members)?;
        }
        self.checkers.broken.insert(group);
        // Names of views that no host knows any more may come again.
        let views = &mut self.checkers.views;
        views.retain(|(of, at, name), _| (*of, *at) != (run, group) || *name < vid);
        Ok(())
    }

    /// Whether a view is not the first of a master without a journal, or was made by a majority of
    /// the newest view that its members know.
    pub(super) fn rebuilt_by_majority(&self, group: GroupId, vid: Vid, members: &[PeerId]) -> bool {
        let first = self
            .checkers
            .newest_view(group)
            .is_some_and(|sealed| sealed.vid.term < vid.term);
        if !first || !self.master.lost_disk || self.master.covered.contains(&group) {
            return true;
        }
        let run = Some(self.checkers.run);
        let newest = self
            .hosts
            .iter()
            .filter(|host| host.group == group && host.run == run)
            .filter(|host| host.peer.peer().is_some_and(|peer| members.contains(&peer)))
            .filter_map(|host| host.view.as_ref())
            .map(|view| (view.vid, view.members.iter().map(|member| member.peer)))
            .map(|(vid, members)| (vid, members.collect::<Vec<_>>()));
        let found = self.master.found.get(&group).cloned();
        let Some((_, old)) = newest.chain(found).max() else {
            return true;
        };
        // No member at all: it begins anew, and none may be left.
        let survivors = members.iter().filter(|peer| old.contains(peer)).count();
        survivors == 0 || survivors * 2 > old.len()
    }
}
