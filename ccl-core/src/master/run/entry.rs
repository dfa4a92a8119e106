//! How a connection gets a session: `Hello` registers a newcomer, `Attach` resumes a session.
//!
//! Units and generations are in `unit` and `generation`; groups decide about admission.

use std::net::SocketAddr;

use crate::event::Event;
use crate::ids::{GroupId, PeerId, SessionId, UnitId, Vid};
use crate::limits;
use crate::master::group::Group;
use crate::master::group::phase::Phase;
use crate::master::group::rebuild::{self, Rebuild};
use crate::master::history::record::Registration;
use crate::master::run::attach::{Attach, Said};
use crate::master::run::{Hello, Run, Waiting};
use crate::master::{ConnectionId, Master};
use crate::mutation::{Mutation, is_active};
use crate::wire::control::{
    Claim, EvictReason, MasterToPeer, OtherGroups, PROTOCOL_VERSION, PeerToMaster, Report,
};

impl Master {
    /// The first message of a connection.
    pub fn handle_stranger(
        &mut self,
        connection: ConnectionId,
        from: SocketAddr,
        message: PeerToMaster,
    ) {
        match message {
            PeerToMaster::Hello {
                protocol,
                run,
                group,
                unit,
                unit_size,
                place,
                mut addresses,
                key,
                min_world,
                attach,
                name,
                ..
            } => {
                complete_addresses(&mut addresses, from);
                self.handle_hello(Hello {
                    connection,
                    protocol,
                    run,
                    group,
                    unit,
                    unit_size,
                    place,
                    addresses,
                    key,
                    min_world,
                    attach,
                    name,
                });
            }
            message => match Attach::of(connection, message) {
                Some(attach) => self.handle_attach(attach),
                // A late message of a session that has ended.
                None => self.shared.outbox.close(connection),
            },
        }
    }

    /// Another message of a newcomer that waits for its run. Before `Welcome` only heartbeats are
    /// allowed; a newcomer that sends anything else is dropped.
    pub fn handle_waiting(&mut self, connection: ConnectionId, message: &PeerToMaster) {
        if matches!(message, PeerToMaster::Ping) {
            let pong = MasterToPeer::Pong {
                term: self.shared.term,
                others: OtherGroups::default(),
                waits: self.wait_for_earlier_run(),
            };
            return self.shared.outbox.send(connection, pong);
        }
        self.give_up_waiting(connection);
        self.shared.outbox.close(connection);
    }

    /// Drops a newcomer that waits for its run. A late copy of its `Hello` must not count.
    pub fn give_up_waiting(&mut self, connection: ConnectionId) {
        let waiting = self.run.waiting();
        if let Some(hello) = waiting.and_then(|waiting| waiting.forget(connection)) {
            self.shared.sessions.give_up(hello.key, hello.attach);
        }
    }

    pub fn is_waiting(&mut self, connection: ConnectionId) -> bool {
        self.run
            .waiting()
            .is_some_and(|waiting| waiting.is_at(connection))
    }

    fn handle_hello(&mut self, hello: Hello) {
        let is_late = self.shared.sessions.is_late(hello.key, hello.attach);
        if is_late && !is_active(Mutation::LateHelloHeard) {
            return self.shared.outbox.close(hello.connection);
        }
        if let Some(reason) = self.objection(&hello) {
            return self.refuse_hello(&hello, reason);
        }
        match self.run.waiting() {
            Some(waiting) => {
                if let Some(superseded) = waiting.keep(hello) {
                    self.shared.outbox.close(superseded);
                }
            }
            None => self.register(hello),
        }
    }

    /// Why a newcomer cannot be registered, if it cannot.
    fn objection(&self, hello: &Hello) -> Option<String> {
        if hello.protocol != PROTOCOL_VERSION {
            let theirs = hello.protocol;
            return Some(format!(
                "the master speaks protocol {PROTOCOL_VERSION}, this peer {theirs}; use the same \
                 version of the library"
            ));
        }
        if hello.run != self.setup.run {
            let ours = &self.setup.run;
            return Some(format!(
                "the master serves run \"{ours}\", not \"{}\"",
                hello.run
            ));
        }
        if hello.addresses.is_empty() || hello.addresses.len() > limits::ADDRESSES_MAX {
            return Some(format!(
                "a peer must announce 1 to {} addresses",
                limits::ADDRESSES_MAX
            ));
        }
        if hello.min_world as usize > limits::WORLD_SIZE_MAX {
            return Some(format!(
                "min_world_size must be at most {}",
                limits::WORLD_SIZE_MAX
            ));
        }
        if hello.unit.is_some_and(|unit| unit.0 >= LONE_UNIT) {
            return Some("unit must be below 2^63".into());
        }
        let is_wrong =
            |size: u32| size == 0 || size as usize > limits::PEERS_MAX || hello.unit.is_none();
        if hello.unit_size.is_some_and(is_wrong) {
            return Some(format!(
                "unit_size must be 1 to {}, and needs a unit",
                limits::PEERS_MAX
            ));
        }
        if self.shared.sessions.len() >= limits::PEERS_MAX {
            return Some(format!(
                "the master already serves {} peers, which is the maximum",
                limits::PEERS_MAX
            ));
        }
        if !self.has_room_for(hello.group) {
            return Some(format!(
                "the master already serves {} groups with peers, which is the maximum",
                limits::GROUPS_MAX
            ));
        }
        None
    }

    /// The hello counts as said: a late copy of it must not take a place (R21).
    fn refuse_hello(&mut self, hello: &Hello, reason: String) {
        self.shared.sessions.give_up(hello.key, hello.attach);
        self.refuse(hello.connection, reason);
    }

    fn refuse(&mut self, connection: ConnectionId, reason: String) {
        self.shared
            .outbox
            .send(connection, MasterToPeer::Refused { reason });
        self.shared.outbox.close(connection);
    }

    /// Gives a newcomer a session. A process that has one without knowing it gets the same.
    pub fn register(&mut self, hello: Hello) {
        if let Some(peer) = self.shared.sessions.of_key(hello.key) {
            if self.is_newcomer_of(peer, hello.group) {
                return self.welcome(peer, &hello);
            }
            let what = "it sent Hello after its admission, or for another group than before";
            self.evict(peer, EvictReason::Protocol(what.into()));
        }
        if let Some(reason) = self.roster_objection(&hello) {
            return self.refuse_hello(&hello, reason);
        }
        self.take_place(&hello);
        let generation = match self.generation_of(&hello) {
            Ok(generation) => generation,
            Err(reason) => return self.refuse_hello(&hello, reason),
        };
        let peer = self.next_peer;
        self.next_peer = PeerId(peer.0 + 1);
        let registration = Registration {
            peer,
            session: SessionId(self.secrets.draw(self.shared.term)),
            group: hello.group,
            unit: hello.unit.unwrap_or(UnitId(LONE_UNIT | peer.0)),
            unit_size: hello.unit_size,
            place: hello.place,
            generation: generation.unwrap_or(peer),
            addresses: hello.addresses.clone(),
            key: hello.key,
            min_world: hello.min_world,
            attach: hello.attach,
            name: hello.name.clone(),
            timers: self.setup.timers,
        };
        let label = registration.label();
        self.shared.sessions.register(registration, self.shared.now);
        self.shared.seal_registration(peer);
        let group = hello.group;
        self.shared.outbox.event(Event::Registered {
            peer,
            group,
            name: label,
        });
        self.make_group(group);
        self.with_group(group, |group, shared| group.handle_registered(shared, peer));
        self.note_successor(peer);
        self.welcome(peer, &hello);
    }

    fn is_newcomer_of(&self, peer: PeerId, group: GroupId) -> bool {
        let group = self.groups.get(&group);
        group.is_some_and(|group| group.newcomers.contains_key(&peer))
    }

    fn welcome(&mut self, peer: PeerId, hello: &Hello) {
        if !self.connect(peer, hello.connection, hello.attach) {
            return;
        }
        let session = self.shared.sessions.get(peer).expect("it is registered");
        let welcome = MasterToPeer::Welcome {
            run_id: self
                .run
                .run_id()
                .expect("nobody is registered before the run is known"),
            session: session.registration.session,
            peer,
            term: self.shared.term,
            timers: session.registration.timers,
            others: self.others(peer),
            waits: self.wait_of(peer),
        };
        self.shared.outbox.send(hello.connection, welcome);
        self.with_group(hello.group, |group, shared| group.greet(shared, peer));
        self.hear(peer);
    }

    /// Gives a session its new connection; a stale one is closed instead (R10).
    fn connect(&mut self, peer: PeerId, connection: ConnectionId, attach: u64) -> bool {
        let now = self.shared.now;
        match self.shared.sessions.attach(peer, connection, attach, now) {
            None => {
                self.shared.outbox.close(connection);
                false
            }
            Some(replaced) => {
                if let Some(old) = replaced {
                    self.shared.outbox.close(old);
                }
                true
            }
        }
    }

    fn handle_attach(&mut self, attach: Attach) {
        if let Some(run_id) = self.run.run_id()
            && run_id != attach.run_id
        {
            let (ours, theirs) = (run_id.0, attach.run_id.0);
            let name = &self.setup.run;
            let reason = format!(
                "the master serves run \"{name}\" with id {ours:032x}, but this session belongs to \
                 run id {theirs:032x}; connect again to join this run"
            );
            return self.refuse(attach.connection, reason);
        }
        self.weigh(&attach.claim, &attach.said.report());
        let known = self.shared.sessions.of_secret(attach.session);
        let Some(peer) = known.or_else(|| self.adopt(&attach)) else {
            return self.turn_away(&attach);
        };
        if !self.connect(peer, attach.connection, attach.attach) {
            return;
        }
        let group = self.group_of(peer);
        let Attach { claim, said, .. } = attach;
        match said {
            Said::View(vid) => {
                let since = self.shared.now;
                self.shared.sessions.set_here(peer, Some(since));
                self.with_group(group, |group, shared| {
                    group.handle_here(shared, peer, claim, vid);
                });
            }
            Said::Report(report) => self.with_group(group, |group, shared| {
                group.handle_attach(shared, peer, claim, report);
            }),
        }
        self.hear(peer);
    }

    /// A member that was back attaches.
    pub fn resume_session(&mut self, peer: PeerId, claim: Claim, report: Report) {
        self.weigh(&claim, &report);
        let group = self.group_of(peer);
        self.with_group(group, |group, shared| {
            group.handle_attach(shared, peer, claim, report);
        });
    }

    /// A peer that is not a member always gets an answer (R7).
    fn turn_away(&mut self, attach: &Attach) {
        if is_active(Mutation::DropAttachOfEvicted) {
            return;
        }
        let reason = self
            .shared
            .sessions
            .why_ended(attach.session)
            .cloned()
            .unwrap_or(EvictReason::NotAMember);
        self.shared
            .outbox
            .send(attach.connection, MasterToPeer::Evicted { reason });
        self.shared.outbox.close(attach.connection);
    }

    /// Takes over a session on its own claim, if the master has lost what it knew of it (R11).
    fn adopt(&mut self, attach: &Attach) -> Option<PeerId> {
        let claim = &attach.claim;
        let ended = self.shared.sessions.why_ended(attach.session).is_some();
        let taken = self.shared.sessions.get(claim.peer).is_some();
        let full = self.shared.sessions.len() >= limits::PEERS_MAX;
        let is_beyond = claim.peer.0 > limits::NUMBER_MAX;
        let is_plausible = !is_beyond && rebuild::is_plausible(claim);
        if ended || taken || full || !is_plausible || !self.may_adopt(attach) {
            return None;
        }
        let mut members = claim.members.iter();
        let member = members.find(|member| member.peer == claim.peer)?;
        if self.shared.sessions.is_late(member.key, attach.attach) {
            return None;
        }
        if let Run::Empty(waiting) = &mut self.run {
            let waiting = std::mem::replace(waiting, Waiting::new(self.shared.now));
            self.run = Run::Adopting {
                run_id: attach.run_id,
                waiting,
            };
        }
        self.rebuild_group(claim.group);
        let registration = Registration {
            peer: claim.peer,
            session: attach.session,
            group: claim.group,
            unit: member.unit,
            unit_size: claim.unit_size.filter(|size| *size > 0),
            place: claim.place,
            generation: self
                .generation_of_members(member.unit)
                .unwrap_or(claim.peer),
            addresses: member.addresses.clone(),
            key: member.key,
            min_world: 1,
            attach: attach.attach,
            name: member.name.clone(),
            // It does not report the timeouts it was sent.
            timers: self.shared.timers,
        };
        self.shared.sessions.register(registration, self.shared.now);
        let group = self.groups.get_mut(&claim.group);
        if let Some(Phase::Rebuild(rebuild)) = group.map(|group| &mut group.phase) {
            rebuild.adopt(claim.peer);
        }
        // A group that is heard of late may have ids above those that this master reserved.
        self.next_peer = self.next_peer.max(PeerId(claim.peer.0 + 1));
        Some(claim.peer)
    }

    fn may_adopt(&self, attach: &Attach) -> bool {
        let vid = attach.said.vid();
        let open = matches!(self.run, Run::Empty(_)) || self.run.is_adopted();
        match self
            .groups
            .get(&attach.claim.group)
            .map(|group| &group.phase)
        {
            None => open && vid > Vid::default() && self.groups.len() < limits::GROUPS_MAX,
            Some(Phase::Rebuild(rebuild)) => match &rebuild.sealed {
                Some(sealed) => vid > sealed.vid || rebuild.knows(attach.session),
                None => open && vid > Vid::default(),
            },
            Some(_) => false,
        }
    }

    /// Creates a group that a newcomer is the first to name. In a run that is taken over, it waits
    /// for members that it may have.
    pub fn make_group(&mut self, id: GroupId) {
        let waits = match &self.run {
            Run::Adopting { .. } => true,
            Run::Founded { adopted, .. } => adopted.is_some_and(|window| window > self.shared.now),
            Run::Empty(_) => false,
        };
        if waits {
            return self.rebuild_group(id);
        }
        self.make_room_for(id);
        let epochs = self.epochs;
        self.groups
            .entry(id)
            .or_insert_with(|| Group::unfounded(id, epochs));
    }

    /// Creates a group that has members, however late the first of them attaches: no other peer has
    /// named it.
    fn rebuild_group(&mut self, id: GroupId) {
        let window = match &self.run {
            Run::Adopting { waiting, .. } => waiting.window,
            Run::Founded { adopted, .. } => adopted.unwrap_or(self.shared.now),
            Run::Empty(waiting) => waiting.window,
        };
        let rebuild = Rebuild::new(None, window, self.last_resort);
        self.groups
            .entry(id)
            .or_insert_with(|| Group::new(id, Phase::Rebuild(rebuild)));
    }
}

/// Units from here on are those of peers that named none; each has one peer.
const LONE_UNIT: u64 = 1 << 63;

/// Replaces an unspecified address by the one that the master sees. Loopback addresses come last:
/// on another host they lead to that host itself.
fn complete_addresses(addresses: &mut Vec<SocketAddr>, from: SocketAddr) {
    for address in &mut *addresses {
        if address.ip().is_unspecified() {
            address.set_ip(from.ip());
        }
    }
    addresses.sort_by_key(|address| address.ip().to_canonical().is_loopback());
    addresses.dedup();
}
