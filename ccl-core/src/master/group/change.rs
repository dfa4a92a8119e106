//! View changes: Suspend → Flush → decide once, seal → Install → Installed → Release.
//!
//! Inside a view operations can only commit; every abort is decided here (R3). A decision is sealed
//! before any peer learns of it and is never made again, whatever happens to those peers.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Event;
use crate::ids::{Epoch, MemberNumber, PeerId, SessionId, Vid};
use crate::limits;
use crate::master::group::admission;
use crate::master::group::decision::{Survival, Verdict, decide};
use crate::master::group::lease::Leases;
use crate::master::group::phase::{Awaited, Change, Phase, Round};
use crate::master::group::{Admission, Group, View};
use crate::master::history::record::{Record, SealedMember, SealedView};
use crate::master::shared::Shared;
use crate::mutation::{Mutation, is_active};
use crate::timers::Timers;
use crate::topology;
use crate::wire::control::{CommitRecord, EvictReason, Install, MasterToPeer, Member, Sealed};

type Lost = BTreeMap<PeerId, EvictReason>;

impl Group {
    /// Commits what every member finished, in one message to each member.
    pub fn commit(&mut self, shared: &mut Shared) {
        let complete = self.ledger.complete();
        if !complete.is_empty() {
            self.safe.wait_anew(shared.now);
        }
        for &tag in &complete {
            self.ledger.wait_anew(tag, shared.now);
        }
        for tags in complete.chunks(limits::OPEN_OPS_MAX) {
            let commits: Vec<_> = tags.iter().map(|&tag| self.ledger.commit(tag)).collect();
            self.seal_commits(shared, &commits);
            for commit in &commits {
                shared.outbox.event(Event::Committed {
                    group: self.id,
                    op: commit.op,
                });
                self.note_sealed(shared, commit.sealed);
            }
            shared.send_all(&self.view.peers(), &MasterToPeer::Commit(commits));
        }
    }

    /// Seals what members knew before the master. It tells all members, since a newcomer that is
    /// behind a carried operation hears no `Held` of it; during a change the next view tells them.
    pub fn commit_learned(&mut self, shared: &mut Shared) {
        let commits = self.ledger.take_learned();
        if commits.is_empty() {
            return;
        }
        self.safe.wait_anew(shared.now);
        self.seal_commits(shared, &commits);
        for commit in &commits {
            shared.outbox.event(Event::Committed {
                group: self.id,
                op: commit.op,
            });
        }
        let is_told = matches!(self.phase, Phase::Steady | Phase::Installing(_));
        if is_told && !is_active(Mutation::HigherFloorNotTold) {
            for commits in commits.chunks(limits::OPEN_OPS_MAX) {
                let commit = MasterToPeer::Commit(commits.to_vec());
                shared.send_all(&self.view.peers(), &commit);
            }
        }
    }

    /// What all members hold may be written lazily, since they report it to the next master. A
    /// commit of a sync may not: the content that it seals outlives the members in checkpoints, and
    /// the next members may have nothing else.
    fn seal_commits(&self, shared: &mut Shared, commits: &[CommitRecord]) {
        let seals = commits.iter().any(|it| it.sealed != Sealed::Nothing);
        let record = Record::Committed {
            group: self.id,
            commits: commits.to_vec(),
        };
        match seals && !is_active(Mutation::SealedStateLazy) {
            true => shared.outbox.seal(record),
            false => shared.outbox.seal_lazily(record),
        }
    }

    /// Starts a view change if there is a reason, or releases a safe point that needs none.
    pub fn leave_steady(&mut self, shared: &mut Shared) {
        if self.ledger.wants_abort() || self.ledger.wants_return(shared.tags_kept) {
            return self.suspend(shared, Lost::new());
        }
        let is_low = self.safe.is_wished() && self.newcomers.is_empty();
        if !self.safe.is_called() && !is_low {
            return;
        }
        let members: BTreeSet<_> = self.view.peers().into_iter().collect();
        let point = Some(self.safe.released);
        let mut ready = admission::choose(&members, &self.newcomers, shared.now, point);
        if is_active(Mutation::NewcomerOverlooked) && self.safe.released % 2 == 1 {
            ready.clear();
        }
        if ready.is_empty() || self.safe.is_withdrawn() {
            self.release_unchanged(shared);
        } else if self.safe.is_reached_by(members.iter()) {
            self.suspend(shared, Lost::new());
        }
    }

    fn release_unchanged(&mut self, shared: &mut Shared) {
        let vid = self.view.vid;
        if is_active(Mutation::UnnumberedSafePoint) {
            for (peer, k) in self.safe.dismiss() {
                shared.send(peer, MasterToPeer::SafeReleased { k, vid });
            }
            return;
        }
        let k = self.safe.released;
        if !self.newcomers.is_empty() {
            shared.outbox.seal(Record::SafePoint {
                group: self.id,
                k,
                vid,
            });
            for peer in self.safe.release().into_keys() {
                shared.send(peer, MasterToPeer::SafeReleased { k, vid });
            }
            return;
        }
        let waited = self.safe.release_ahead();
        let last = self.safe.released - 1;
        shared.outbox.seal(Record::SafePoint {
            group: self.id,
            k: last,
            vid,
        });
        let released = MasterToPeer::SafeReleased { k: last, vid };
        match last > k {
            true => shared.send_all(&self.view.peers(), &released),
            false => shared.send_all(waited.keys(), &released),
        }
    }

    /// Members know that more safe points were released than this master does.
    pub fn raise_safe_points(&mut self, shared: &mut Shared, released: u64) {
        if !self.safe.raise(released) {
            return;
        }
        let (k, vid) = (released - 1, self.view.vid);
        shared.outbox.seal_lazily(Record::SafePoint {
            group: self.id,
            k,
            vid,
        });
        if matches!(self.phase, Phase::Steady | Phase::Installing(_)) {
            shared.send_all(&self.view.peers(), &MasterToPeer::SafeReleased { k, vid });
        }
    }

    /// A member is gone.
    pub fn lose(&mut self, shared: &mut Shared, peer: PeerId, reason: &EvictReason) {
        match &mut self.phase {
            Phase::Suspended(change) => {
                change.awaited.remove(peer);
                change.lost.insert(peer, reason.clone());
            }
            Phase::Steady | Phase::Installing(_) => {
                self.suspend(shared, Lost::from([(peer, reason.clone())]));
            }
            Phase::Rebuild(rebuild) => rebuild.strike(peer, reason),
            Phase::Founding => {}
        }
    }

    /// Ends the present view: all remaining members must report.
    fn suspend(&mut self, shared: &mut Shared, lost: Lost) {
        let peers = self.view.peers();
        let mut awaited: BTreeSet<_> = peers
            .into_iter()
            .filter(|peer| !lost.contains_key(peer))
            .collect();
        let busy = self.ledger.may_return(shared.tags_kept).then(BTreeSet::new);
        let admits_only = lost.is_empty() && !self.ledger.wants_abort() && busy.is_none();
        if admits_only && is_active(Mutation::AdmitWithoutFlush) {
            awaited.clear();
        }
        let vid = self.view.vid;
        shared.send_all(&awaited, &MasterToPeer::Suspend { vid });
        let awaited = Awaited::ask(&awaited, &shared.sessions, shared.now);
        self.phase = Phase::Suspended(Change {
            awaited,
            lost,
            busy,
            said: BTreeMap::new(),
            leases: Leases::default(),
        });
    }

    /// All reports are in: decides every open operation and who is in the next view.
    pub fn decide(&mut self, shared: &mut Shared) {
        let Phase::Suspended(change) = std::mem::replace(&mut self.phase, Phase::Founding) else {
            unreachable!("only a suspended group is decided");
        };
        let at_rest = change.busy.map(|busy| self.ledger.at_rest(&busy));
        let lost = change.lost;
        let said = change.said;
        let peers = self.view.peers().into_iter();
        let survivors: BTreeSet<_> = peers.filter(|peer| !lost.contains_key(peer)).collect();
        self.keep_leases(&change.leases, &survivors);
        self.resolve(
            shared,
            &Survival {
                survivors: &survivors,
                lost: &lost,
            },
        );
        if let Some(tags) = at_rest {
            let vid = next(self.view.vid, shared);
            self.ledger.give_back(&tags, vid, shared.tags_kept);
        }
        let agreed = self.safe.agreed(survivors.iter().copied());
        self.safe.raise(agreed);
        if let Some(said) = said_by_all(&said, &survivors) {
            self.safe.raise(said);
        }
        let called = self.safe.is_called() && !survivors.is_empty();
        let admitted = if called && self.safe.is_reached_by(survivors.iter()) {
            let point = Some(self.safe.released);
            admission::choose(&survivors, &self.newcomers, shared.now, point)
        } else {
            Vec::new()
        };
        if !admitted.is_empty() {
            self.safe.release();
        }
        self.install(shared, &survivors, &lost, &admitted);
    }

    /// Decides every open operation (R4).
    pub fn resolve(&mut self, shared: &mut Shared, survival: &Survival) {
        let verdicts: Vec<_> = self
            .ledger
            .open()
            .map(|open| {
                let verdict = decide(open, survival);
                let verdict = self.ledger.explained(open, verdict, survival.survivors);
                (open.op(), verdict)
            })
            .collect();
        let group = self.id;
        self.safe.wait_anew(shared.now);
        for (op, verdict) in verdicts {
            if matches!(verdict, Verdict::Committed | Verdict::Aborted(_)) {
                self.ledger.wait_anew(op.tag, shared.now);
            }
            match verdict {
                Verdict::Committed => {
                    let commit = self.ledger.commit(op.tag);
                    shared.outbox.event(Event::Committed { group, op });
                    self.note_sealed(shared, commit.sealed);
                }
                Verdict::Aborted(reason) => {
                    self.ledger.abort(op.tag, reason.clone());
                    shared.outbox.event(Event::Aborted {
                        group,
                        op,
                        reason,
                        names: self.names(shared),
                    });
                }
                Verdict::Carried => self.ledger.carry(op.tag),
                Verdict::Forgotten => self.ledger.forget(op.tag),
            }
        }
    }

    /// Seals the next view and tells its members.
    pub fn install(
        &mut self,
        shared: &mut Shared,
        survivors: &BTreeSet<PeerId>,
        lost: &Lost,
        admitted: &[PeerId],
    ) {
        let mut members = std::mem::take(&mut self.view.members);
        members.retain(|member| survivors.contains(&member.peer));
        members.extend(admitted.iter().map(|&peer| self.admit(shared, peer)));
        let vid = next(self.view.vid, shared);
        assert!(vid > self.view.vid, "views only go up (I6)");
        self.view = View {
            vid,
            ring_order: topology::ring_order(&members),
            costs: topology::costs(&members, &shared.paths),
            members,
            released: false,
            departed: lost
                .iter()
                .map(|(peer, reason)| (*peer, reason.clone()))
                .collect(),
        };
        self.note_admitted(admitted);
        let sealed = self.sealed_view(shared);
        shared.outbox.seal(Record::ViewSealed(sealed));
        let peers = self.view.peers();
        shared.outbox.event(Event::ViewInstalled {
            group: self.id,
            vid,
            members: peers.clone(),
            names: self.names(shared),
        });
        if peers.is_empty() {
            self.empty_since = shared.now;
            self.phase = Phase::Founding;
            return;
        }
        shared.send_all(&peers, &MasterToPeer::Install(self.install_message()));
        let awaited = Awaited::ask(survivors, &shared.sessions, shared.now);
        self.phase = Phase::Installing(Round { awaited });
    }

    /// Members that may not have received the present view, which is their first.
    pub fn note_admitted(&mut self, peers: &[PeerId]) {
        let admission = Admission {
            vid: self.view.vid,
            safe_released: self.safe.released,
            streams: self.records.places(),
        };
        for &peer in peers {
            self.records.admit(peer);
            self.unconfirmed.insert(peer, admission.clone());
        }
    }

    fn admit(&mut self, shared: &Shared, peer: PeerId) -> Member {
        let number = self.next_number;
        self.next_number = MemberNumber(number.0 + 1);
        let newcomer = self.newcomers.remove(&peer);
        assert!(newcomer.is_some(), "only newcomers are admitted");
        let session = shared.sessions.get(peer).expect("newcomers have sessions");
        session.member(number)
    }

    /// All old members have the view: outcomes decided at the change to it may be returned (R6).
    pub fn release(&mut self, shared: &mut Shared) {
        self.phase = Phase::Steady;
        self.view.released = true;
        self.ledger.returns.settle();
        let vid = self.view.vid;
        shared.send_all(&self.view.peers(), &MasterToPeer::Release { vid });
    }

    /// The current view, as it is sent to each member.
    pub fn install_message(&self) -> Install {
        let view = &self.view;
        Install {
            vid: view.vid,
            members: view.members.clone(),
            ring_order: view.ring_order.clone(),
            floors: self.ledger.floors(),
            given_back: self.ledger.returns.named(view.vid),
            carried: self.ledger.carried(),
            safe_released: self.safe.released,
            costs: view.costs,
            released: view.released,
            suspended: false,
            departed: view.departed.clone(),
            streams: match is_active(Mutation::NewcomerAtStepZero) {
                true => Vec::new(),
                false => self.records.places(),
            },
        }
    }

    /// The longest timeouts of any member.
    fn longest_told(&self, shared: &Shared) -> Timers {
        let members = self.view.members.iter();
        let sessions = members.filter_map(|member| shared.sessions.get(member.peer));
        let told = sessions.map(|session| session.registration.timers);
        told.reduce(|one, other| one.longer(&other))
            .unwrap_or(shared.timers)
    }

    fn sealed_view(&self, shared: &Shared) -> SealedView {
        let sealed = |member: &Member| {
            let session = shared.sessions.get(member.peer);
            SealedMember {
                member: member.clone(),
                session: session.map_or(SessionId(0), |known| known.registration.session),
                attach: session.and_then(|known| known.attach).unwrap_or_default(),
            }
        };
        let view = &self.view;
        SealedView {
            group: self.id,
            is_closed: self.is_closed,
            is_leased: self.leased > Some(shared.real_now),
            vid: view.vid,
            members: view.members.iter().map(sealed).collect(),
            ring_order: view.ring_order.clone(),
            costs: view.costs,
            floors: self.ledger.floors(),
            given_back: self.ledger.returns.named(view.vid),
            carried: self.ledger.carried(),
            safe_released: self.safe.released,
            departed: view.departed.clone(),
            state: self.ledger.sealed_state,
            timers: self.longest_told(shared),
        }
    }
}

/// Safe points that all survivors have told the others to be at or past: members may have taken
/// them for unchanged.
pub fn said_by_all(said: &BTreeMap<PeerId, u64>, survivors: &BTreeSet<PeerId>) -> Option<u64> {
    let said = |peer| said.get(peer).copied().unwrap_or_default();
    let said = survivors.iter().map(said).min();
    said.filter(|_| !is_active(Mutation::SaidSafePointIgnored))
}

fn next(vid: Vid, shared: &Shared) -> Vid {
    let epoch = vid.epoch.0.checked_add(1);
    Vid {
        term: shared.term,
        epoch: Epoch(epoch.expect("2^32 view changes take longer than any run")),
    }
}
