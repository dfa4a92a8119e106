//! Detects and handles a journal that is older than its run (R11).
//!
//! The driver may know from the marker beside it. Otherwise peers reveal it: a view, a session, a
//! safe point or a record is on disk before any peer learns of it, so one that the journal does not
//! name proves the journal old. Commits prove nothing, since most are journaled lazily. A doubted
//! journal counts only as far as a majority of each view, or the operator, confirms it. The doubt
//! is sealed too, and ends when every group in the journal has a new view.

use crate::event::Event;
use crate::ids::{PeerId, Term};
use crate::limits;
use crate::master::Master;
use crate::master::group::Group;
use crate::master::group::ledger::Ledger;
use crate::master::group::phase::Phase;
use crate::master::group::rebuild::{self, Rebuild};
use crate::master::group::records::Records;
use crate::master::group::safe_point::SafePoints;
use crate::master::history::record::Record;
use crate::master::run::Run;
use crate::master::run::takeover::next_term;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::{Claim, Report};

impl Master {
    /// Compares what a session knows with the journal.
    pub fn weigh(&mut self, claim: &Claim, report: &Report) {
        if self.reveals(claim, report) && !is_active(Mutation::NewerReportIgnored) {
            self.doubt();
            // Names of this term may have been given by a master that the journal does not know.
            let start = Term(self.setup.start_number);
            self.begin_term(next_term(self.shared.term).max(start));
        }
    }

    /// Whether a session knows something that a complete journal would contain.
    fn reveals(&self, claim: &Claim, report: &Report) -> bool {
        if !self.trusts_journal {
            return false;
        }
        if !claim.members.is_empty() && !rebuild::is_plausible(claim) {
            return false;
        }
        // A run that was taken over has groups and sessions that no journal names.
        let names_all = !self.run.is_adopted();
        if names_all && claim.peer >= self.next_peer && claim.peer.0 <= limits::NUMBER_MAX {
            return true;
        }
        match self.groups.get(&claim.group) {
            None => names_all && report.vid.epoch > self.epochs,
            Some(group) => match &group.phase {
                Phase::Rebuild(rebuild) => {
                    rebuild.is_outdated_by(report) || group.records.is_behind(report)
                }
                _ => report.vid > group.view.vid,
            },
        }
    }

    /// The journal is older than the run: from now on it is treated as lost.
    pub fn doubt(&mut self) {
        self.trusts_journal = false;
        self.shared.is_journaled = false;
        let window = self.shared.now + self.shared.timers.rebuild_window;
        let Run::Founded { adopted, .. } = &mut self.run else {
            return;
        };
        *adopted = Some(adopted.map_or(window, |known| known.max(window)));
        if !is_active(Mutation::DoubtForgotten) {
            self.shared.outbox.seal(Record::Outdated);
        }
        // Masters that this journal does not know have given names.
        let start = self.setup.start_number;
        let unheard = PeerId(u64::from(start) * limits::PEER_ID_GAP);
        self.next_peer = self.next_peer.max(unheard);
        self.shared.outbox.seal(Record::Counters {
            next_peer: self.next_peer,
            next_numbers: Vec::new(),
            epochs: self.epochs,
            used: Vec::new(),
        });
        self.forget_unheard();
        self.shared.sessions.doubt_ended();
        let last_resort = self.last_resort;
        for group in self.groups.values_mut() {
            group.doubt(window, last_resort);
        }
        self.touched.extend(self.groups.keys().copied());
        self.shared.outbox.event(Event::JournalOutdated);
    }

    /// Sessions may have ended since. Those that have not are taken over on their own claim.
    fn forget_unheard(&mut self) {
        let sessions = self.shared.sessions.iter();
        let unheard = sessions.filter(|(peer, session)| {
            let group = self.groups.get(&session.registration.group);
            session.connection().is_none() && group.is_none_or(|group| !group.has_heard(**peer))
        });
        let unheard: Vec<PeerId> = unheard.map(|(peer, _)| *peer).collect();
        for peer in unheard {
            let session = self.shared.sessions.disown(peer);
            let group = session.and_then(|it| self.groups.get_mut(&it.registration.group));
            if let Some(group) = group {
                group.newcomers.remove(&peer);
            }
        }
    }
}

impl Group {
    /// Whether a session has reported to its group, which has been resumed or is yet to be.
    fn has_heard(&self, peer: PeerId) -> bool {
        match &self.phase {
            Phase::Rebuild(rebuild) => rebuild.has_heard(peer),
            Phase::Founding => false,
            Phase::Steady | Phase::Suspended(_) | Phase::Installing(_) => true,
        }
    }

    /// What the journal says of the group is older than the run. A group without members in the
    /// journal may have some; one that was resumed already continues.
    pub fn doubt(&mut self, window: Instant, last_resort: Instant) {
        match &mut self.phase {
            Phase::Rebuild(rebuild) => rebuild.trusted = false,
            Phase::Founding => {
                self.phase = Phase::Rebuild(Rebuild::new(None, window, last_resort));
                self.ledger = Ledger::default();
                self.safe = SafePoints::default();
                self.records = Records::default();
            }
            Phase::Steady | Phase::Suspended(_) | Phase::Installing(_) => {}
        }
    }
}
