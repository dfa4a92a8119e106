//! Handles the messages of members.
//!
//! It records facts in the ledger, the safe points and the reports of broken links. Conclusions are
//! drawn when the group settles. Messages of newcomers are in `newcomer`.

use crate::ids::{PeerId, Vid};
use crate::master::group::blame::Broken;
use crate::master::group::ledger::InView;
use crate::master::group::operation;
use crate::master::group::phase::{Event, Phase};
use crate::master::group::records::StreamStep;
use crate::master::group::safe_point::{Call, Progress};
use crate::master::group::{Admission, Group, Handled};
use crate::master::shared::Shared;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::{
    Claim, EvictReason, Install, MasterToPeer, OpNote, PeerToMaster, Report,
};

impl Group {
    /// A session of this group continues over a new connection (R5).
    pub fn handle_attach(
        &mut self,
        shared: &mut Shared,
        peer: PeerId,
        claim: Claim,
        report: Report,
    ) {
        if matches!(self.phase, Phase::Rebuild(_)) && !claim.members.is_empty() {
            // It was admitted after the journal ended.
            self.newcomers.remove(&peer);
        }
        if self.newcomers.contains_key(&peer) {
            if self.accepts(shared, Event::NewcomerAttach, peer) {
                self.greet(shared, peer);
            }
            return;
        }
        if !self.accepts(shared, Event::MemberAttach, peer) {
            return;
        }
        if let Phase::Rebuild(rebuild) = &mut self.phase {
            let is_late = rebuild.is_in_vain(peer, shared);
            rebuild.hear(peer, claim, report);
            if is_late {
                rebuild.wait_for_others(peer, shared);
            }
            return;
        }
        if let Err(violation) = self.absorb(shared, peer, &report) {
            return shared.condemn(peer, EvictReason::Protocol(violation));
        }
        self.note_said(peer, &report);
        self.note_busy(&report);
        if report.vid > Vid::default() {
            self.unconfirmed.remove(&peer);
        }
        let admission = self.unconfirmed.get(&peer).cloned();
        if admission.as_ref().is_some_and(|it| it.vid != self.view.vid) {
            // It could not count from the present view; as a newcomer it can.
            return shared.condemn(peer, EvictReason::Unaware);
        }
        self.note_halted();
        self.confirm_attach(peer, report.vid, shared.now);
        match admission {
            None => self.answer_attach(shared, peer, &report),
            Some(admission) => self.answer_admitted(shared, peer, &admission),
        }
        self.repeat_election(shared, peer);
        if !self.newcomers.is_empty() {
            self.send_expect(shared, &[peer]);
        }
    }

    /// The one reply, after the records that the member lacks.
    fn answer_attach(&self, shared: &mut Shared, peer: PeerId, report: &Report) {
        self.send_records(shared, peer, |stream| report.next_of(stream));
        shared.send(peer, MasterToPeer::Install(self.attach_reply()));
    }

    /// The same for one that has yet to learn of its admission: it counts from there, and gets the
    /// records since then after it.
    fn answer_admitted(&self, shared: &mut Shared, peer: PeerId, admission: &Admission) {
        let mut reply = self.attach_reply();
        reply.safe_released = admission.safe_released;
        if !is_active(Mutation::AdmissionWithoutSteps) {
            reply.streams.clone_from(&admission.streams);
        }
        let begins = reply.streams.clone();
        shared.send(peer, MasterToPeer::Install(reply));
        self.send_records(shared, peer, |stream| {
            let begin = begins.iter().find(|begin| begin.stream == stream);
            begin.map(|begin| begin.place.next).unwrap_or_default()
        });
    }

    /// A member is back, and goes on by itself until it attaches. While a run is rebuilt it is
    /// asked to once enough are back: a master that hears too few stops nobody.
    pub fn handle_here(&mut self, shared: &mut Shared, peer: PeerId, claim: Claim, vid: Vid) {
        if matches!(self.phase, Phase::Rebuild(_)) && !claim.members.is_empty() {
            self.newcomers.remove(&peer);
        }
        if self.newcomers.contains_key(&peer) {
            let what = "only members may send Here";
            return shared.condemn(peer, EvictReason::Protocol(what.into()));
        }
        if !self.accepts(shared, Event::MemberHere, peer) {
            return;
        }
        match &mut self.phase {
            Phase::Rebuild(rebuild) => {
                let is_late = rebuild.is_in_vain(peer, shared);
                rebuild.note_here(peer, &claim, vid);
                if is_late {
                    rebuild.wait_for_others(peer, shared);
                }
                if is_active(Mutation::SummonedTooEarly) {
                    shared.summon(peer);
                }
                return;
            }
            Phase::Suspended(change) => change.awaited.ask_again(peer, shared.now),
            Phase::Installing(round) => round.awaited.ask_again(peer, shared.now),
            Phase::Steady | Phase::Founding => {}
        }
        shared.summon(peer);
    }

    fn confirm_attach(&mut self, peer: PeerId, installed: Vid, now: Instant) {
        match &mut self.phase {
            Phase::Suspended(change) => change.awaited.remove(peer),
            Phase::Installing(round) if installed == self.view.vid => round.awaited.remove(peer),
            Phase::Installing(round) => round.awaited.ask_again(peer, now),
            Phase::Steady | Phase::Founding | Phase::Rebuild(_) => {}
        }
    }

    fn attach_reply(&self) -> Install {
        let mut install = self.install_message();
        install.suspended =
            matches!(self.phase, Phase::Suspended(_)) && !is_active(Mutation::ReplyOpensAgain);
        if is_active(Mutation::AttachReplyWithoutFloors) {
            install.floors.clear();
        }
        install
    }

    pub fn handle_member(
        &mut self,
        shared: &mut Shared,
        peer: PeerId,
        message: PeerToMaster,
    ) -> Handled {
        match message {
            PeerToMaster::Posted(notes) => self.handle_posted(shared, peer, &notes),
            PeerToMaster::Done(notes) => self.handle_done(shared, peer, &notes),
            PeerToMaster::Cancel { op, reason } => {
                if self.accepts(shared, Event::Cancel, peer) {
                    match &mut self.phase {
                        Phase::Rebuild(rebuild) => rebuild.amend_cancel(peer, op, reason),
                        _ => self.ledger.cancel(peer, op, reason),
                    }
                }
                Ok(())
            }
            PeerToMaster::Flush { vid, report } => self.handle_flush(shared, peer, vid, &report),
            PeerToMaster::Installed { vid, report } => {
                self.handle_installed(shared, peer, vid, &report)
            }
            PeerToMaster::AtSafePoint { k, ahead } => {
                self.handle_safe_point(shared, peer, k, ahead)
            }
            PeerToMaster::Withdraw { k } => {
                if self.accepts(shared, Event::Withdraw, peer) {
                    match &mut self.phase {
                        Phase::Rebuild(rebuild) => rebuild.amend_safe_called(peer, k),
                        _ => self.safe.withdraw(peer, k),
                    }
                }
                Ok(())
            }
            PeerToMaster::Entered(entry) => self.handle_entered(shared, peer, entry),
            PeerToMaster::RecordsHeld { stream, next } => {
                self.handle_records_held(shared, peer, StreamStep { stream, next });
                Ok(())
            }
            PeerToMaster::LinkDown {
                peer: target,
                fault,
                gave_up,
                ..
            } => {
                self.handle_link_down(shared, peer, target, Broken { fault, gave_up });
                Ok(())
            }
            PeerToMaster::NoLink { peer: other, why } => {
                self.waits.note_no_link(peer, other, why);
                Ok(())
            }
            PeerToMaster::LinkUp { peer: target } => {
                if self.accepts(shared, Event::LinkUp, peer) {
                    self.blame.clear(peer, target);
                }
                Ok(())
            }
            // Sent before it received the view that admitted it.
            PeerToMaster::Ready { .. } => Ok(()),
            PeerToMaster::Hello { .. }
            | PeerToMaster::Here { .. }
            | PeerToMaster::Attach { .. }
            | PeerToMaster::Leave
            | PeerToMaster::Ping => unreachable!("the master deals with these itself"),
        }
    }

    fn handle_posted(&mut self, shared: &mut Shared, peer: PeerId, notes: &[OpNote]) -> Handled {
        if !self.accepts(shared, Event::Posted, peer) {
            return Ok(());
        }
        if let Phase::Suspended(change) = &self.phase
            && !change.awaited.contains(peer)
        {
            return Err("it posted after its Flush".into());
        }
        let at = InView {
            view: &self.view,
            now: shared.now,
        };
        notes
            .iter()
            .try_for_each(|note| self.ledger.post(peer, note, at))
    }

    fn handle_done(&mut self, shared: &mut Shared, peer: PeerId, notes: &[OpNote]) -> Handled {
        if !self.accepts(shared, Event::Done, peer) {
            return Ok(());
        }
        if let Phase::Rebuild(rebuild) = &mut self.phase {
            notes
                .iter()
                .for_each(|note| rebuild.amend_done(peer, note.op));
            return Ok(());
        }
        let at = InView {
            view: &self.view,
            now: shared.now,
        };
        notes
            .iter()
            .try_for_each(|note| self.ledger.done(peer, note, at))
    }

    fn handle_flush(
        &mut self,
        shared: &mut Shared,
        peer: PeerId,
        vid: Vid,
        report: &Report,
    ) -> Handled {
        self.unconfirmed.remove(&peer);
        if vid != self.view.vid || !self.accepts(shared, Event::Flush, peer) {
            return Ok(());
        }
        self.absorb(shared, peer, report)?;
        self.note_said(peer, report);
        self.note_busy(report);
        self.note_halted();
        if let Phase::Suspended(change) = &mut self.phase {
            change.awaited.remove(peer);
        }
        Ok(())
    }

    fn handle_installed(
        &mut self,
        shared: &mut Shared,
        peer: PeerId,
        vid: Vid,
        report: &Report,
    ) -> Handled {
        self.unconfirmed.remove(&peer);
        if vid != self.view.vid || !self.accepts(shared, Event::Installed, peer) {
            return Ok(());
        }
        self.absorb(shared, peer, report)?;
        let released = self.safe.released;
        let waits = report.safe_called > report.safe_released;
        if waits && report.safe_called <= released {
            let k = released - 1;
            shared.send(peer, MasterToPeer::SafeReleased { k, vid });
        }
        if let Phase::Installing(round) = &mut self.phase {
            round.awaited.remove(peer);
        }
        Ok(())
    }

    fn handle_safe_point(
        &mut self,
        shared: &mut Shared,
        peer: PeerId,
        k: u64,
        ahead: u32,
    ) -> Handled {
        if !self.accepts(shared, Event::AtSafePoint, peer) {
            return Ok(());
        }
        if let Phase::Rebuild(rebuild) = &mut self.phase {
            rebuild.amend_safe_called(peer, k.saturating_add(1));
            return Ok(());
        }
        // Whoever is there has passed all before, and in this view that means unchanged.
        let progress = Progress {
            called: k.saturating_add(1),
            released: k,
        };
        self.note_progress(shared, peer, progress);
        if k <= self.safe.released {
            self.safe.wish(k, ahead);
        }
        if self.safe.call(peer, k, shared.now) == Call::Released {
            let (k, vid) = (self.safe.released - 1, self.view.vid);
            shared.send(peer, MasterToPeer::SafeReleased { k, vid });
        }
        Ok(())
    }

    fn handle_link_down(
        &mut self,
        shared: &mut Shared,
        peer: PeerId,
        target: PeerId,
        broken: Broken,
    ) {
        if peer == target || !self.is_member(shared, target) {
            return;
        }
        if !self.accepts(shared, Event::LinkDown, peer) {
            return;
        }
        let due = shared.now + shared.timers.blame_window;
        self.blame.report(peer, target, broken, due);
        if broken.gave_up && is_active(Mutation::BlameFirstTarget) {
            shared.condemn(target, EvictReason::Unreachable { by: vec![peer] });
        }
        if shared.sessions.is_detached(target) {
            self.condemn_dead(shared, target);
        }
    }

    /// A control connection of this group ended and was not closed by the master.
    pub fn handle_connection_ended(&mut self, shared: &mut Shared, peer: PeerId) {
        if let Some(newcomer) = self.newcomers.get_mut(&peer) {
            // It reports `Ready` again when it is back.
            newcomer.linked = None;
        } else if self.is_member(shared, peer) && self.accepts(shared, Event::ConnectionEnded, peer)
        {
            if let Phase::Rebuild(rebuild) = &mut self.phase {
                rebuild.note_gone(peer);
            }
            self.condemn_dead(shared, peer);
        }
    }

    /// Evicts at once a member that has lost its control connection and, as another saw, its data
    /// connections (R10). Not while a run is rebuilt: then all connections have just ended.
    fn condemn_dead(&self, shared: &mut Shared, peer: PeerId) {
        let is_judged = !matches!(self.phase, Phase::Rebuild(_)) && !shared.is_listening;
        if self.blame.saw_end_of(peer) && is_judged {
            shared.condemn(peer, EvictReason::Died);
        }
    }

    /// Adds all that a member knows (R5). Facts only grow, so a report may come twice.
    pub fn absorb(&mut self, shared: &mut Shared, peer: PeerId, report: &Report) -> Handled {
        let now = shared.now;
        if report.vid > self.view.vid {
            return Err(format!("view {} does not exist", report.vid));
        }
        let at = InView {
            view: &self.view,
            now,
        };
        self.ledger.raise(report, at)?;
        for tag in &report.tags {
            if self.ledger.returns.is_void(tag.tag, report.vid) {
                continue;
            }
            let Some((note, held, cancel)) = operation::open_note(tag) else {
                continue;
            };
            self.ledger.post(peer, &note, at)?;
            if let Some(content) = tag.open.as_ref().and_then(|open| open.elected) {
                self.ledger.check_elected(note.op, content)?;
            }
            if held {
                self.ledger.done(peer, &note, at)?;
            }
            if let Some(reason) = cancel {
                self.ledger.cancel(peer, note.op, reason);
            }
        }
        if report.vid == self.view.vid {
            let progress = Progress {
                called: report.safe_called.max(report.safe_said),
                released: report.safe_released,
            };
            self.note_progress(shared, peer, progress);
        }
        self.absorb_records(peer, report, now)?;
        self.safe.restate(peer, report.safe_called, now);
        Ok(())
    }

    /// A member says how many safe points it has called, and knows to be released. Nobody else
    /// suffers from one that lies: it counts once all members have said that they were there.
    fn note_progress(&mut self, shared: &mut Shared, peer: PeerId, progress: Progress) {
        self.safe.note(peer, progress);
        let lost = match &self.phase {
            Phase::Suspended(change) => Some(&change.lost),
            _ => None,
        };
        let members = self.view.peers().into_iter();
        let present = members.filter(|peer| lost.is_none_or(|lost| !lost.contains_key(peer)));
        let agreed = self.safe.agreed(present);
        self.raise_safe_points(shared, agreed);
    }

    /// A member reports at the end of a view.
    fn note_said(&mut self, peer: PeerId, report: &Report) {
        if let Phase::Suspended(change) = &mut self.phase
            && report.vid == self.view.vid
        {
            change.said.insert(peer, report.safe_said);
        }
    }
}
