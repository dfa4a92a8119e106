//! How a master gets its run: from its journal, from the run's members, or by founding one (R11).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::event::Event;
use crate::ids::{Epoch, GroupId, PeerId, RunId, Term};
use crate::limits;
use crate::master::group::Group;
use crate::master::group::phase::Phase;
use crate::master::group::rebuild::Rebuild;
use crate::master::group::records::Records;
use crate::master::history::History;
use crate::master::history::record::{Record, SealedView};
use crate::master::outbox::Outbox;
use crate::master::run::census::Census;
use crate::master::run::generation::Units;
use crate::master::run::hearing::Hearing;
use crate::master::run::{Run, Waiting};
use crate::master::session::Sessions;
use crate::master::session::secret::Secrets;
use crate::master::shared::Shared;
use crate::master::used::UsedGroups;
use crate::master::{Master, Setup};
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::timers::Timers;
use crate::wire::control::Wait;

impl Master {
    /// A master without a run. `told` are the timeouts sent to members that may be alive.
    pub fn blank(setup: Setup, told: Option<Timers>, now: Instant) -> Self {
        let timers = told.map_or(setup.timers, |told| told.longer(&setup.timers));
        let shared = Shared {
            now,
            real_now: now,
            is_listening: false,
            went_on: None,
            term: Term(0),
            timers,
            paths: setup.paths,
            is_journaled: setup.journaled,
            force_rebuild: setup.force_rebuild,
            tags_kept: setup.tags_kept,
            sessions: Sessions::default(),
            backoffs: Default::default(),
            outbox: Outbox::default(),
            condemned: VecDeque::new(),
            visited: BTreeSet::new(),
        };
        let (window, last_resort) = match setup.members_gone {
            true => (now, now),
            false => (
                now + timers.rebuild_window,
                now + rest_of_lives(&timers, setup.silence),
            ),
        };
        Self {
            secrets: Secrets::new(setup.entropy),
            run: Run::Empty(Waiting::new(window)),
            shared,
            groups: BTreeMap::new(),
            touched: BTreeSet::new(),
            census: Census::default(),
            units: Units::default(),
            next_peer: PeerId(0),
            epochs: Epoch(0),
            used: UsedGroups::default(),
            hearing: Hearing::new(&timers, now),
            last_resort,
            trusts_journal: false,
            setup,
        }
    }

    pub fn start(&mut self, history: History) {
        if let Some(run_id) = history.run_id {
            self.resume(run_id, history);
        } else if self.setup.new_run || is_active(Mutation::EmptyMasterFounds) {
            self.found_new();
        } else {
            self.tell_of_wait();
        }
    }

    /// The operator can skip the wait, if there is one.
    fn tell_of_wait(&mut self) {
        if let Some(Wait::EarlierRun {
            seconds: seconds @ 1..,
        }) = self.wait_for_earlier_run()
        {
            self.shared
                .outbox
                .event(Event::EarlierRunAwaited { seconds });
        }
    }

    /// Resumes the run of the journal.
    fn resume(&mut self, run_id: RunId, history: History) {
        let window = self.shared.now + self.shared.timers.rebuild_window;
        self.run = Run::Founded {
            run_id,
            adopted: history.taken_over.then_some(window),
        };
        let is_doubted = !self.setup.journaled && !is_active(Mutation::OlderJournalTrusted);
        // Masters that an older copy does not know had terms too.
        let unheard = if is_doubted {
            self.setup.start_number
        } else {
            0
        };
        self.begin_term(next_term(history.term).max(Term(unheard)));
        self.shared.outbox.event(Event::MasterStarted {
            term: self.shared.term,
            rebuilt: true,
        });
        self.next_peer = history.next_peer;
        self.trusts_journal = true;
        self.epochs = history.epochs;
        self.used = history.used;
        let mut streams = history.streams;
        for (id, sealed) in history.groups {
            let mut group = self.restored(id, sealed, window);
            group.records = Records::restored(streams.remove(&id).unwrap_or_default());
            if history.doubted.contains(&id) {
                group.doubt(window, self.last_resort);
            }
            group.next_number = history.next_numbers.get(&id).copied().unwrap_or_default();
            self.groups.insert(id, group);
        }
        self.shared.sessions.restore_ended(history.ended);
        for (peer, registration) in history.sessions {
            let id = registration.group;
            // Newcomers get as long as members do to find the new master.
            self.shared.sessions.restore(registration, window);
            self.make_group(id);
            let group = self.groups.get_mut(&id).expect("it was made");
            if !group.awaits(peer) {
                group.handle_registered(&mut self.shared, peer);
                self.note_successor(peer);
            }
        }
        if is_doubted {
            self.doubt();
        }
    }

    fn restored(&self, id: GroupId, sealed: SealedView, window: Instant) -> Group {
        let leased = sealed.is_leased.then_some(self.last_resort);
        if !sealed.members.is_empty() {
            let rebuild = Rebuild::new(Some(sealed), window, self.last_resort);
            let mut group = Group::new(id, Phase::Rebuild(rebuild));
            group.leased = leased;
            return group;
        }
        let mut group = Group::new(id, Phase::Founding);
        group.leased = leased;
        group.is_closed = sealed.is_closed;
        group.view.vid = sealed.vid;
        group.empty_since = self.shared.now;
        group.ledger.restore(&sealed.floors, sealed.state);
        group.safe.released = sealed.safe_released;
        group
    }

    fn found_new(&mut self) {
        let run_id = RunId(self.secrets.draw(Term(0)));
        self.found(run_id, Term(1), None);
    }

    /// The run exists from now on; newcomers that waited for it are registered.
    fn found(&mut self, run_id: RunId, term: Term, adopted: Option<Instant>) {
        let waiting = self
            .run
            .waiting()
            .map(|waiting| std::mem::take(&mut waiting.hellos));
        self.run = Run::Founded { run_id, adopted };
        self.shared.outbox.seal(Record::RunFounded {
            run: self.setup.run.clone(),
            run_id,
            taken_over: adopted.is_some(),
        });
        if adopted.is_some() {
            // Members not heard yet have ids below.
            self.shared.outbox.seal(Record::Counters {
                next_peer: self.next_peer,
                next_numbers: Vec::new(),
                epochs: self.epochs,
                used: Vec::new(),
            });
        }
        self.begin_term(term);
        self.shared.outbox.event(Event::MasterStarted {
            term,
            rebuilt: adopted.is_some(),
        });
        for hello in waiting.into_iter().flatten() {
            self.register(hello);
        }
    }

    pub fn begin_term(&mut self, term: Term) {
        self.shared.term = term;
        self.shared.outbox.seal(Record::TermBegan { term });
    }

    /// Resumes each group from which enough was received. In a run without a journal, the first one
    /// makes the run this master's.
    pub fn take_up_groups(&mut self) {
        for group in self.groups.values_mut() {
            group.summon(&mut self.shared);
        }
        let groups = self.groups.iter();
        let ready = groups.filter(|(_, group)| group.is_rebuilt(&self.shared));
        let ready: Vec<_> = ready.map(|(id, _)| *id).collect();
        for &id in &ready {
            self.ensure_term(id);
            self.with_group(id, |group, shared| group.finish_rebuild(shared));
        }
        if !ready.is_empty() {
            self.note_short_units();
            // Members that attached here may be mates of newcomers that wait elsewhere.
            let waiting = self.groups.iter().filter(|(_, g)| !g.newcomers.is_empty());
            self.touched.extend(waiting.map(|(id, _)| *id));
        }
    }

    /// Makes the term greater than any that the group's members know.
    fn ensure_term(&mut self, id: GroupId) {
        let Some(Phase::Rebuild(rebuild)) = self.groups.get(&id).map(|group| &group.phase) else {
            return;
        };
        let newest = rebuild.newest_term();
        if let Run::Adopting { run_id, waiting } = &self.run {
            let (run_id, window) = (*run_id, waiting.window);
            let claimed = self.groups.values().filter_map(|group| match &group.phase {
                Phase::Rebuild(rebuild) => rebuild.newest_peer(),
                _ => None,
            });
            let newest_peer = claimed.max().unwrap_or_default();
            let unheard = u64::from(self.setup.start_number) * limits::PEER_ID_GAP;
            self.next_peer = PeerId((newest_peer.0 + limits::PEER_ID_GAP).max(unheard));
            let term = next_term(newest).max(Term(self.setup.start_number));
            self.found(run_id, term, Some(window));
        } else if newest >= self.shared.term && !is_active(Mutation::NoTerm) {
            self.begin_term(next_term(newest));
        }
    }

    /// An earlier run without any member that could be heard is not taken over.
    pub fn give_up_adoption(&mut self) {
        if !matches!(self.run, Run::Adopting { .. }) {
            return;
        }
        if self.shared.sessions.any_attached() {
            return;
        }
        if let Run::Adopting { waiting, .. } = &mut self.run {
            let window = self.shared.now + self.shared.timers.rebuild_window;
            let hellos = std::mem::take(&mut waiting.hellos);
            self.run = Run::Empty(Waiting { window, hellos });
            self.shared.sessions.clear();
            self.shared.condemned.clear();
            self.groups.clear();
            self.census = Census::default();
            self.units = Units::default();
            self.touched.clear();
            self.tell_of_wait();
        }
    }

    pub fn run_deadline(&self) -> Option<Instant> {
        match &self.run {
            Run::Empty(waiting) => Some(waiting.window),
            Run::Adopting { .. } | Run::Founded { .. } => None,
        }
    }

    /// Founds a run once members of an earlier one have been waited for in vain.
    pub fn expire_run(&mut self) {
        if let Run::Empty(waiting) = &self.run
            && waiting.window <= self.shared.now
        {
            self.found_new();
        }
    }
}

/// How long members of an earlier master may continue. A member that hears nothing counts its
/// master as lost after `peer_timeout`, and its session ends `detach_timeout` later.
fn rest_of_lives(timers: &Timers, silence: Duration) -> Duration {
    let longest = timers.peer_timeout + timers.detach_timeout;
    longest.saturating_sub(silence)
}

pub fn next_term(term: Term) -> Term {
    if is_active(Mutation::NoTerm) {
        return term.max(Term(1));
    }
    let next = term.0.checked_add(1);
    Term(next.expect("2^32 masters take longer than any run"))
}
