//! What all groups of a master share: the time, the sessions, and the outputs.

use std::collections::{BTreeSet, VecDeque};

use crate::ids::{PeerId, Term};
use crate::master::history::record::Record;
use crate::master::outbox::Outbox;
use crate::master::session::Sessions;
use crate::master::session::backoff::Backoffs;
use crate::paths::Paths;
use crate::time::Instant;
use crate::timers::Timers;
use crate::wire::control::{EvictReason, MasterToPeer};

/// Handed to a group with each event.
#[derive(Debug)]
pub(super) struct Shared {
    /// By the clock of patience, which stands still when the master is not fit to judge (R20).
    pub now: Instant,
    /// Real time, for leases.
    pub real_now: Instant,
    /// Whether input that arrived while the master did not run may still be unread.
    pub is_listening: bool,
    /// When the master last resumed after it was not fit to judge.
    pub went_on: Option<Instant>,
    /// 0 until the run is founded or resumed.
    pub term: Term,
    /// The timeouts in use: its own, or longer ones that earlier masters sent to sessions.
    pub timers: Timers,
    /// The paths between members.
    pub paths: Paths,
    /// Whether what is sealed is certain to be found by the next master.
    pub is_journaled: bool,
    /// The operator's override that replaces a majority (R11).
    pub force_rebuild: bool,
    /// Tags of a group from which on those at rest are given back.
    pub tags_kept: usize,
    pub sessions: Sessions,
    pub backoffs: Backoffs,
    pub outbox: Outbox,
    /// Peers to evict before the next input, in the order in which they were found.
    pub condemned: VecDeque<(PeerId, EvictReason)>,
    /// Cells of the transition table that were reached.
    pub visited: BTreeSet<(&'static str, &'static str)>,
}

impl Shared {
    /// When a wait that began at `at` counts as begun: after a pause of the master it restarts
    /// (R20).
    pub fn begun(&self, at: Instant) -> Instant {
        self.went_on.map_or(at, |went_on| at.max(went_on))
    }

    /// Sends to a peer if it is attached. If not, the reply to its next attach restates everything.
    pub fn send(&mut self, peer: PeerId, message: MasterToPeer) {
        if self.sessions.here_since(peer).is_some() {
            return;
        }
        if let Some(connection) = self.sessions.connection(peer) {
            self.outbox.send(connection, message);
        }
    }

    /// Asks a peer that is back to attach.
    pub fn summon(&mut self, peer: PeerId) {
        if let Some(connection) = self.sessions.connection(peer) {
            self.outbox.send(connection, MasterToPeer::Summon);
        }
    }

    /// Sends the same to several.
    pub fn send_all<'a>(
        &mut self,
        peers: impl IntoIterator<Item = &'a PeerId>,
        message: &MasterToPeer,
    ) {
        for &peer in peers {
            self.send(peer, message.clone());
        }
    }

    /// Seals what is known of a session besides its membership, such as its unit.
    pub fn seal_registration(&mut self, peer: PeerId) {
        if let Some(session) = self.sessions.get(peer) {
            let registration = session.registration.clone();
            self.outbox.seal(Record::SessionRegistered(registration));
        }
    }

    /// Has a peer evicted once the current event is handled.
    pub fn condemn(&mut self, peer: PeerId, reason: EvictReason) {
        self.condemned.push_back((peer, reason));
    }
}
