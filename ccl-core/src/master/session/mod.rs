//! Sessions: the registered peers, the current connection of each, and when it was last heard.
//!
//! A session outlives its connections and ends only by eviction. Whether it is a newcomer or a
//! member is its group's business.

pub mod backoff;
pub mod secret;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::ids::{LinkKey, MemberNumber, PeerId, SessionId, UnitId};
use crate::limits;
use crate::master::history::record::EndedSession;
use crate::master::{ConnectionId, Registration};
use crate::time::Instant;
use crate::wire::control::{EvictReason, Member};

/// One peer's session.
#[derive(Debug)]
pub struct Session {
    pub registration: Registration,
    /// Counter of its newest connection; older ones are closed and their frames ignored (R10).
    /// `None` until the first.
    pub attach: Option<u64>,
    pub contact: Contact,
    /// Since when it is connected without having attached: it is told nothing yet.
    pub here_since: Option<Instant>,
}

/// Whether a session has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    Attached {
        connection: ConnectionId,
        heard: Instant,
    },
    Detached {
        since: Instant,
    },
}

impl Session {
    /// Whether anything was received from it over its current connection after this moment.
    pub fn was_heard_after(&self, moment: Instant) -> bool {
        matches!(self.contact, Contact::Attached { heard, .. } if heard > moment)
    }

    /// When it was last heard, or its connection ended.
    pub fn last_sign(&self) -> Instant {
        match self.contact {
            Contact::Attached { heard, .. } => heard,
            Contact::Detached { since } => since,
        }
    }

    /// Counter of the newest connection over which it was heard.
    fn newest(&self) -> u64 {
        self.attach.unwrap_or(self.registration.attach)
    }

    pub fn connection(&self) -> Option<ConnectionId> {
        match self.contact {
            Contact::Attached { connection, .. } => Some(connection),
            Contact::Detached { .. } => None,
        }
    }

    /// The peer as a member with this number of admission.
    pub fn member(&self, number: MemberNumber) -> Member {
        Member {
            peer: self.registration.peer,
            number,
            unit: self.registration.unit,
            addresses: self.registration.addresses.clone(),
            key: self.registration.key,
            name: self.registration.name.clone(),
        }
    }
}

/// All sessions, found by each of their names.
#[derive(Debug, Default)]
pub struct Sessions {
    peers: BTreeMap<PeerId, Session>,
    secrets: BTreeMap<SessionId, PeerId>,
    connections: BTreeMap<ConnectionId, PeerId>,
    keys: BTreeMap<LinkKey, PeerId>,
    /// Peers of each generation of a unit, by the first of them.
    generations: BTreeMap<PeerId, BTreeSet<PeerId>>,
    /// Sessions that ended, newest last.
    ended: VecDeque<EndedSession>,
    /// Those that had ended before this master started, as its journal says.
    ended_before: VecDeque<EndedSession>,
    /// Newest connections of processes of which nothing else is known any more, newest last.
    given_up: VecDeque<GivenUp>,
}

/// The newest connection of a process that never got a session, or whose session is forgotten. It
/// keeps a late message from being taken for a new one.
#[derive(Clone, Copy, Debug)]
struct GivenUp {
    key: LinkKey,
    attach: u64,
}

impl Sessions {
    /// A session without a connection yet.
    pub fn register(&mut self, registration: Registration, since: Instant) {
        let peer = registration.peer;
        self.secrets.insert(registration.session, peer);
        self.keys.insert(registration.key, peer);
        let mates = self.generations.entry(registration.generation);
        mates.or_default().insert(peer);
        let session = Session {
            registration,
            attach: None,
            contact: Contact::Detached { since },
            here_since: None,
        };
        let previous = self.peers.insert(peer, session);
        assert!(previous.is_none(), "a peer id is never reused");
    }

    /// A session of an earlier master: connections older than it knew of are stale.
    pub fn restore(&mut self, registration: Registration, since: Instant) {
        let (peer, attach) = (registration.peer, registration.attach);
        self.register(registration, since);
        if let Some(session) = self.peers.get_mut(&peer) {
            session.attach = Some(attach);
        }
    }

    pub fn len(&self) -> usize {
        self.peers.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &Session)> {
        self.peers.iter()
    }

    pub fn get(&self, peer: PeerId) -> Option<&Session> {
        self.peers.get(&peer)
    }

    pub fn connection(&self, peer: PeerId) -> Option<ConnectionId> {
        self.get(peer)?.connection()
    }

    pub fn any_attached(&self) -> bool {
        !self.connections.is_empty()
    }

    pub fn is_detached(&self, peer: PeerId) -> bool {
        self.get(peer)
            .is_some_and(|session| session.connection().is_none())
    }

    pub fn at_connection(&self, connection: ConnectionId) -> Option<PeerId> {
        self.connections.get(&connection).copied()
    }

    pub fn of_secret(&self, secret: SessionId) -> Option<PeerId> {
        self.secrets.get(&secret).copied()
    }

    pub fn of_key(&self, key: LinkKey) -> Option<PeerId> {
        self.keys.get(&key).copied()
    }

    /// Sessions of this unit, of all its generations.
    pub fn of_unit(&self, unit: UnitId) -> impl Iterator<Item = &Session> {
        let sessions = self.peers.values();
        sessions.filter(move |session| session.registration.unit == unit)
    }

    /// Peers of the generation of a unit that this one began.
    pub fn of_generation(&self, first: PeerId) -> Vec<PeerId> {
        let peers = self.generations.get(&first).into_iter().flatten();
        peers.copied().collect()
    }

    /// Gives a session a new connection; returns the one it replaces. `None` for a stale counter.
    pub fn attach(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        attach: u64,
        now: Instant,
    ) -> Option<Option<ConnectionId>> {
        let session = self.peers.get_mut(&peer)?;
        if session.attach.is_some_and(|newest| attach <= newest) {
            return None;
        }
        let replaced = session.connection();
        if let Some(old) = replaced {
            self.connections.remove(&old);
        }
        session.attach = Some(attach);
        session.here_since = None;
        session.contact = Contact::Attached {
            connection,
            heard: now,
        };
        let previous = self.connections.insert(connection, peer);
        assert!(previous.is_none(), "a connection is attached once");
        Some(replaced)
    }

    /// Notes whether a session that has a connection has yet to attach.
    pub fn set_here(&mut self, peer: PeerId, since: Option<Instant>) {
        if let Some(session) = self.peers.get_mut(&peer) {
            session.here_since = since;
        }
    }

    /// Since when this peer is connected without having attached.
    pub fn here_since(&self, peer: PeerId) -> Option<Instant> {
        self.get(peer)?.here_since
    }

    /// The connection ended. Returns whose it was.
    pub fn detach(&mut self, connection: ConnectionId, now: Instant) -> Option<PeerId> {
        let peer = self.connections.remove(&connection)?;
        if let Some(session) = self.peers.get_mut(&peer) {
            session.contact = Contact::Detached { since: now };
            session.here_since = None;
        }
        Some(peer)
    }

    /// Notes that something was received from this peer.
    pub fn hear(&mut self, peer: PeerId, now: Instant) {
        if let Some(session) = self.peers.get_mut(&peer)
            && let Contact::Attached { heard, .. } = &mut session.contact
        {
            *heard = now;
        }
    }

    /// How long this peer has been silent.
    pub fn silence(&self, peer: PeerId, now: Instant) -> Duration {
        match self.get(peer).map(|session| session.contact) {
            Some(Contact::Attached { heard, .. }) => now.saturating_since(heard),
            Some(Contact::Detached { since }) => now.saturating_since(since),
            None => Duration::ZERO,
        }
    }

    /// Ends a session and remembers why.
    pub fn end(&mut self, peer: PeerId, reason: &EvictReason) -> Option<Session> {
        let session = self.forget(peer)?;
        if self.ended.len() == limits::ENDED_SESSIONS_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(EndedSession {
            session: session.registration.session,
            reason: reason.clone(),
            key: session.registration.key,
            attach: session.newest(),
        });
        Some(session)
    }

    /// What the journal knows of sessions that ended at earlier masters.
    pub fn restore_ended(&mut self, ended: VecDeque<EndedSession>) {
        self.ended_before = ended;
    }

    /// The journal is older than the run: sessions that had ended there may have continued.
    pub fn doubt_ended(&mut self) {
        for ended in std::mem::take(&mut self.ended_before) {
            self.give_up(ended.key, ended.attach);
        }
    }

    /// The newest connection of a process without a session is over.
    pub fn give_up(&mut self, key: LinkKey, attach: u64) {
        let known = self
            .given_up
            .iter()
            .position(|known| known.key == key)
            .and_then(|index| self.given_up.remove(index));
        if self.given_up.len() == limits::ENDED_SESSIONS_MAX {
            self.given_up.pop_front();
        }
        let attach = known.map_or(attach, |known| known.attach.max(attach));
        self.given_up.push_back(GivenUp { key, attach });
    }

    /// Forgets all of a session but the counter of its connections.
    pub fn disown(&mut self, peer: PeerId) -> Option<Session> {
        let session = self.forget(peer)?;
        self.give_up(session.registration.key, session.newest());
        Some(session)
    }

    fn forget(&mut self, peer: PeerId) -> Option<Session> {
        let session = self.peers.remove(&peer)?;
        self.secrets.remove(&session.registration.session);
        let generation = session.registration.generation;
        if let Some(mates) = self.generations.get_mut(&generation) {
            mates.remove(&peer);
            if mates.is_empty() {
                self.generations.remove(&generation);
            }
        }
        if self.keys.get(&session.registration.key) == Some(&peer) {
            self.keys.remove(&session.registration.key);
        }
        if let Some(connection) = session.connection() {
            self.connections.remove(&connection);
        }
        Some(session)
    }

    /// Why a session ended, if that is remembered.
    pub fn why_ended(&self, secret: SessionId) -> Option<&EvictReason> {
        let mut ended = self.ended.iter().rev().chain(&self.ended_before);
        ended
            .find(|ended| ended.session == secret)
            .map(|ended| &ended.reason)
    }

    /// Whether the process with this key has already said hello or attached over this connection or
    /// a newer one.
    pub fn is_late(&self, key: LinkKey, attach: u64) -> bool {
        let session = self.of_key(key).and_then(|peer| self.get(peer));
        let is_over = |ended: &EndedSession| ended.key == key && ended.attach >= attach;
        let is_gone = |known: &GivenUp| known.key == key && known.attach >= attach;
        session.is_some_and(|session| session.newest() >= attach)
            || self.ended.iter().any(is_over)
            || self.ended_before.iter().any(is_over)
            || self.given_up.iter().any(is_gone)
    }

    /// Forgets all sessions: their run was never taken over.
    pub fn clear(&mut self) {
        let before = std::mem::take(self);
        self.given_up = before.given_up;
        let ended = before.ended.iter().map(|ended| (ended.key, ended.attach));
        let others = before
            .peers
            .values()
            .map(|session| (session.registration.key, session.newest()));
        for (key, attach) in ended.chain(others) {
            self.give_up(key, attach);
        }
    }
}
