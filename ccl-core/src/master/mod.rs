//! The master: decides which peers are in the run, in what order, and which results count.
//!
//! Pure: `handle` takes the time and one input, `poll_output` returns what to do, and
//! `poll_timeout` says when to call again with [`Input::Timeout`]. The rules are in
//! docs/protocol.md. This file dispatches inputs to the run (`run`), the sessions (`session`) and
//! the groups (`group`), which decide what they mean; `history` is what the next master must know.

mod group;
mod history;
mod outbox;
mod run;
mod session;
mod shared;
mod status;
#[cfg(test)]
mod tests;
mod used;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use group::Group;
use group::lease::lease;
use group::phase::{Event as Cell, Rule, State, rule};
pub use history::History;
pub use history::record::{Record, Registration, SealedMember, SealedView};
use run::Run;
use run::hearing::{Hearing, Notice};
use run::silence::newest_word;
use session::secret::Secrets;
use shared::Shared;
pub use status::{GroupStatus, PeerStatus, Status};
use used::UsedGroups;

use crate::event::Event;
use crate::ids::{Epoch, GroupId, PeerId, RunId};
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::{EvictReason, MasterToPeer, PeerToMaster};

/// Names one accepted connection; never reused by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What happens to a master.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Input {
    /// A connection sent a whole message. Connections are unknown before their first.
    Message {
        /// The connection it came over.
        connection: ConnectionId,
        /// The address it comes from, for newcomers that announce an unspecified one.
        from: std::net::SocketAddr,
        /// The message, already validated against the limits.
        message: PeerToMaster,
    },
    /// A connection ended.
    Closed {
        /// The connection concerned.
        connection: ConnectionId,
    },
    /// The time that `poll_timeout` named has come.
    Timeout,
}

/// What the driver is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)]
pub enum Output {
    /// Append a record to the journal. With `durable`, nothing that follows may be carried
    /// out before the record has reached the disk (fsync by config); without, it may be lazy.
    Journal {
        /// The sealed record.
        record: Record,
        /// Whether later outputs wait for it.
        durable: bool,
    },
    /// Send a message.
    Send {
        /// The connection to send it over.
        connection: ConnectionId,
        /// The message.
        message: MasterToPeer,
    },
    /// Close a connection once everything sent to it has left. It may have ended already.
    Close {
        /// The connection concerned.
        connection: ConnectionId,
    },
    /// Something an operator wants to know.
    Event(Event),
}

/// What a master is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Name of the run.
    pub run: String,
    /// Timeouts, sent to every newcomer. If an earlier master sent any live session longer ones,
    /// all sessions are judged by those.
    pub timers: crate::timers::Timers,
    /// What is assumed of the paths between members.
    pub paths: crate::paths::Paths,
    /// Found a run at once if there is no history.
    pub new_run: bool,
    /// Rebuild without a majority if there is no journal.
    pub force_rebuild: bool,
    /// The operator's assertion that no member of an earlier run or view is alive: none is waited
    /// for.
    pub members_gone: bool,
    /// Minimum time for which no member has heard from an earlier master; it shortens the wait for
    /// those that may be alive.
    pub silence: Duration,
    /// Whether the history is known to be the newest of the run: the driver keeps a journal on
    /// disk, and it is no older copy, nor shortened.
    pub journaled: bool,
    /// A number that rises from start to start, for a master that takes over a run without a
    /// journal: names given by earlier masters must not be given again, even if no peer is left to
    /// report them.
    pub start_number: u32,
    /// Tags of a group from which on those at rest are given back: [`limits::TAGS_KEPT`], or fewer
    /// in tests.
    ///
    /// [`limits::TAGS_KEPT`]: crate::limits::TAGS_KEPT
    pub tags_kept: usize,
    /// 256 bits of entropy for session secrets and the run id; the simulator passes its seed.
    pub entropy: [u64; 4],
}

/// The master of a run. Pure: see the module's documentation.
#[derive(Debug)]
pub struct Master {
    setup: Setup,
    run: Run,
    shared: Shared,
    groups: BTreeMap<GroupId, Group>,
    /// Groups that the current input may have changed.
    touched: BTreeSet<GroupId>,
    census: run::census::Census,
    units: run::generation::Units,
    secrets: Secrets,
    next_peer: PeerId,
    /// The greatest epoch of a group that was given back; new groups start above it.
    epochs: Epoch,
    /// Ids of closed groups that have ended.
    used: UsedGroups,
    hearing: Hearing,
    /// When no session of an earlier master can be alive any more.
    last_resort: Instant,
    /// Whether the run was resumed from a journal that counts as the newest.
    trusts_journal: bool,
}

impl Master {
    /// A master that starts, or resumes the run whose journal holds `history`. The driver has
    /// checked that the history is of the run that `setup` names.
    #[must_use]
    pub fn new(setup: Setup, history: &[Record], now: Instant) -> Self {
        let history = History::read(history);
        let mut master = Self::blank(setup, history.told(), now);
        master.start(history);
        let ids: Vec<_> = master.groups.keys().copied().collect();
        ids.into_iter().for_each(|id| master.count(id));
        let groups = master.groups.values_mut();
        groups.for_each(|group| group.begin_wait(now));
        master
    }

    /// Takes one input. `now` never runs backwards. A `Timeout` comes after input that waits.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.begin_turn(now);
        match input {
            Input::Message {
                connection,
                from,
                message,
            } => match self.shared.sessions.at_connection(connection) {
                Some(peer) => self.handle_session(peer, connection, message),
                None if self.is_waiting(connection) => self.handle_waiting(connection, &message),
                None => self.handle_stranger(connection, from, message),
            },
            Input::Closed { connection } => self.handle_closed(connection),
            Input::Timeout => self.expire(),
        }
        self.settle();
        for id in std::mem::take(&mut self.touched) {
            if !is_active(Mutation::GroupsCountedOnce) {
                self.count(id);
            }
            if let Some(group) = self.groups.get(&id) {
                group::invariants::check(group, &self.shared);
                if group.is_blank() {
                    self.groups.remove(&id);
                } else if group.is_used_up() {
                    self.give_back(id);
                }
            }
        }
    }

    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.shared.outbox.pop()
    }

    /// When to call `handle` with [`Input::Timeout`], if nothing else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let first = self.first_due().map(|first| self.hearing.call_at(first));
        let groups = self.groups.values();
        let leases = groups.filter_map(|group| group.leased_until(self.shared.real_now));
        first.into_iter().chain(leases).min()
    }

    /// What is due first, by the clock of patience.
    fn first_due(&self) -> Option<Instant> {
        let groups = self
            .groups
            .values()
            .filter_map(|group| group.deadline(&self.shared));
        let sessions = self
            .shared
            .sessions
            .iter()
            .filter_map(|(peer, _)| self.patience(*peer));
        let others = [self.run_deadline(), self.units.deadline()]
            .into_iter()
            .flatten();
        groups.chain(sessions).chain(others).min()
    }

    /// The run, once it is founded or found.
    #[must_use]
    pub fn run_id(&self) -> Option<RunId> {
        self.run.run_id()
    }

    /// The phase of each group, by its name in the transition table.
    pub fn phases(&self) -> impl Iterator<Item = (GroupId, &'static str)> {
        let groups = self.groups.iter();
        groups.map(|(id, group)| (*id, group.phase.state().name()))
    }

    /// Whether a member can hear from this master now.
    #[must_use]
    pub fn has_members(&self) -> bool {
        let mut sessions = self.shared.sessions.iter();
        sessions.any(|(peer, session)| {
            let group = self.groups.get(&session.registration.group);
            session.connection().is_some() && group.is_some_and(|group| !group.is_newcomer(*peer))
        })
    }

    /// Cells of the transition table, as (state, event), that this master has been through.
    #[must_use]
    pub fn visited(&self) -> &BTreeSet<(&'static str, &'static str)> {
        &self.shared.visited
    }

    /// Cells of the transition table that are part of the protocol.
    #[must_use]
    pub fn legal_cells() -> BTreeSet<(&'static str, &'static str)> {
        let all = State::ALL
            .iter()
            .flat_map(|&state| Cell::ALL.iter().map(move |&e| (state, e)));
        let legal = all.filter(|&(state, event)| matches!(rule(state, event), Rule::Do(_)));
        legal
            .map(|(state, event)| (state.name(), event.name()))
            .collect()
    }

    /// From here on `shared.now` is the time by which others are judged (R20).
    fn begin_turn(&mut self, now: Instant) {
        if self.hearing.is_late(now) && self.first_due().is_none() {
            self.hearing.skip(now);
        }
        let (sessions, groups) = (&self.shared.sessions, &self.groups);
        let notice = self.hearing.turn(now, || newest_word(sessions, groups));
        self.shared.now = self.hearing.now();
        self.shared.real_now = now;
        self.note_hearing();
        match notice {
            Some(Notice::Paused(pause)) => {
                let paused_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                self.shared.outbox.event(Event::MasterPaused { paused_ms });
            }
            Some(Notice::Doubts) => self.shared.outbox.event(Event::MasterHearsNobody),
            None => {}
        }
    }

    /// Something was received from a session.
    fn hear(&mut self, peer: PeerId) {
        self.shared.sessions.hear(peer, self.shared.now);
        let (sessions, groups) = (&self.shared.sessions, &self.groups);
        self.hearing.hear(|| newest_word(sessions, groups));
        self.note_hearing();
    }

    fn note_hearing(&mut self) {
        self.shared.is_listening = self.hearing.is_resting();
        self.shared.went_on = self.hearing.went_on();
    }

    fn handle_session(&mut self, peer: PeerId, connection: ConnectionId, message: PeerToMaster) {
        self.hear(peer);
        match message {
            PeerToMaster::Ping => {
                let pong = MasterToPeer::Pong {
                    term: self.shared.term,
                    others: self.others(peer),
                    waits: self.wait_of(peer),
                };
                self.shared.outbox.send(connection, pong);
            }
            PeerToMaster::Leave => self.shared.condemn(peer, EvictReason::Left),
            PeerToMaster::Attach { claim, report, .. }
                if self.shared.sessions.here_since(peer).is_some() =>
            {
                self.shared.sessions.set_here(peer, None);
                self.resume_session(peer, claim, report);
            }
            PeerToMaster::Hello { .. }
            | PeerToMaster::Here { .. }
            | PeerToMaster::Attach { .. } => {
                let what = "it sent Hello, Here or Attach twice on one connection";
                self.shared
                    .condemn(peer, EvictReason::Protocol(what.into()));
            }
            message => {
                let group = self.group_of(peer);
                self.with_group(group, |group, shared| {
                    group.handle_message(shared, peer, message);
                });
            }
        }
    }

    fn handle_closed(&mut self, connection: ConnectionId) {
        self.give_up_waiting(connection);
        let now = self.shared.now;
        if let Some(peer) = self.shared.sessions.detach(connection, now) {
            let group = self.group_of(peer);
            self.with_group(group, |group, shared| {
                group.handle_connection_ended(shared, peer)
            });
        }
    }

    /// Handles the timeouts that have passed.
    fn expire(&mut self) {
        let peers: Vec<_> = self.shared.sessions.iter().map(|(peer, _)| *peer).collect();
        for peer in peers {
            if self
                .patience(peer)
                .is_some_and(|due| due <= self.shared.now)
            {
                let reason = self.impatience(peer);
                self.shared.condemn(peer, reason);
            }
        }
        let ids: Vec<_> = self.groups.keys().copied().collect();
        for id in ids {
            self.with_group(id, |group, shared| group.expire(shared));
        }
        self.expire_units();
        self.expire_run();
    }

    /// Does what the input allows, until nothing more follows from it.
    fn settle(&mut self) {
        loop {
            while let Some((peer, reason)) = self.shared.condemned.pop_front() {
                self.evict(peer, reason);
            }
            self.give_up_adoption();
            self.take_up_groups();
            self.refuse_successors();
            self.call_units();
            let touched: Vec<_> = self.touched.iter().copied().collect();
            for id in touched {
                if !self.waits_for_others(id) {
                    self.with_group(id, |group, shared| group.settle(shared));
                }
            }
            if self.shared.condemned.is_empty() && !self.revise_turns() {
                return;
            }
        }
    }

    fn waits_for_others(&self, id: GroupId) -> bool {
        let suspended = |group: &Group| matches!(group.phase.state(), State::Suspended);
        is_active(Mutation::GroupsWaitForEachOther)
            && self.groups.get(&id).is_some_and(suspended)
            && self
                .groups
                .values()
                .any(|group| !group.view.members.is_empty() && !suspended(group))
    }

    /// Ends a session, and with it those of its unit.
    fn evict(&mut self, peer: PeerId, reason: EvictReason) {
        let Some(session) = self.shared.sessions.end(peer, &reason) else {
            return;
        };
        if let Some(connection) = session.connection() {
            let message = match &reason {
                EvictReason::UnitFull { .. }
                | EvictReason::GroupTaken { .. }
                | EvictReason::PlaceTaken { .. } => MasterToPeer::Refused {
                    reason: reason.to_string(),
                },
                reason => MasterToPeer::Evicted {
                    reason: reason.clone(),
                },
            };
            self.shared.outbox.send(connection, message);
            self.shared.outbox.close(connection);
        }
        // In real time it is at least that long ago that it was heard.
        let silence = self.shared.now - session.last_sign() + self.hearing.stood_still();
        let lease = lease(&self.shared.timers).saturating_sub(silence);
        let lease_end = self.shared.real_now + lease;
        let registration = session.registration;
        let now = self.shared.now;
        self.shared.backoffs.strike(&registration, &reason, now);
        self.end_unit(&registration, &reason);
        if matches!(self.run, Run::Founded { .. }) {
            self.shared.outbox.seal_lazily(Record::SessionEnded {
                peer,
                reason: reason.clone(),
            });
        }
        let mut names = self.names_of(registration.group);
        names.learn([(peer, registration.label())]);
        self.shared.outbox.event(Event::Evicted {
            peer,
            group: registration.group,
            reason: reason.clone(),
            names,
        });
        self.with_group(registration.group, |group, shared| {
            group.handle_evicted(shared, peer, &reason, lease_end);
        });
    }

    fn group_of(&self, peer: PeerId) -> GroupId {
        let session = self.shared.sessions.get(peer);
        session
            .expect("the caller holds a session")
            .registration
            .group
    }

    fn with_group(&mut self, id: GroupId, act: impl FnOnce(&mut Group, &mut Shared)) {
        self.touched.insert(id);
        let group = self
            .groups
            .get_mut(&id)
            .expect("sessions belong to groups that exist");
        act(group, &mut self.shared);
    }
}
