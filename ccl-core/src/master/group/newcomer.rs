//! Newcomers of a group, from registration to admission, and the links they have to make.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{MemberNumber, PeerId, Vid};
use crate::limits;
use crate::master::group::admission::{self, Newcomer, Turn};
use crate::master::group::phase::{Event, Phase};
use crate::master::group::{Group, Handled};
use crate::master::shared::Shared;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::{MasterToPeer, PeerToMaster};

/// The peers that the last `Expect` named.
#[derive(Debug, Default)]
pub struct Announced {
    pub vid: Vid,
    pub newcomers: Vec<PeerId>,
    /// When the next one may be sent.
    pub not_before: Instant,
}

impl Announced {
    /// Whether it is out of date. Without newcomers it cannot be.
    pub fn is_outdated(&self, vid: Vid, newcomers: &BTreeMap<PeerId, Newcomer>) -> bool {
        let same = self.newcomers.iter().eq(newcomers.keys());
        !same || self.vid != vid && !newcomers.is_empty()
    }
}

impl Group {
    /// A peer said hello to this group.
    pub fn handle_registered(&mut self, shared: &mut Shared, peer: PeerId) {
        if !self.accepts(shared, Event::Registered, peer) {
            return;
        }
        let session = shared
            .sessions
            .get(peer)
            .expect("it was registered just now");
        let registration = &session.registration;
        let newcomer = Newcomer {
            min_world: registration.min_world,
            place: registration.place,
            linked: None,
            held: shared.backoffs.held(registration, shared.now),
            turn: match registration.unit_size {
                Some(_) if !is_active(Mutation::UnitAdmittedByHalves) => Turn::Waits,
                _ => Turn::Any,
            },
        };
        self.newcomers.insert(peer, newcomer);
    }

    /// A newcomer was welcomed again, over a new connection.
    pub fn greet(&self, shared: &mut Shared, peer: PeerId) {
        if self.announced.newcomers.contains(&peer) {
            self.send_expect(shared, &[peer]);
        }
    }

    pub fn handle_newcomer(
        &mut self,
        shared: &mut Shared,
        peer: PeerId,
        message: PeerToMaster,
    ) -> Handled {
        match message {
            PeerToMaster::Ready { linked, .. } => {
                if self.accepts(shared, Event::Ready, peer)
                    && let Some(newcomer) = self.newcomers.get_mut(&peer)
                {
                    newcomer.linked = Some(linked.into_iter().collect());
                }
                Ok(())
            }
            PeerToMaster::LinkDown { peer: target, .. } => {
                let newcomer = self.newcomers.get_mut(&peer);
                if let Some(linked) = newcomer.and_then(|newcomer| newcomer.linked.as_mut()) {
                    linked.remove(&target);
                }
                Ok(())
            }
            PeerToMaster::LinkUp { .. } => Ok(()),
            PeerToMaster::NoLink { peer: other, why } => {
                self.waits.note_no_link(peer, other, why);
                Ok(())
            }
            _ => Err("only members may send this message".into()),
        }
    }

    /// Sends members and newcomers the peers to be linked with, whenever these have changed: at
    /// once, or once per interval if many newcomers arrive, because every peer is sent every
    /// newcomer.
    pub fn announce(&mut self, shared: &mut Shared) {
        if !self.announced.is_outdated(self.view.vid, &self.newcomers)
            || shared.now < self.announced.not_before
        {
            return;
        }
        self.announced = Announced {
            vid: self.view.vid,
            newcomers: self.newcomers.keys().copied().collect(),
            not_before: shared.now + limits::EXPECT_INTERVAL,
        };
        let mut all = self.view.peers();
        all.extend(self.newcomers.keys());
        self.send_expect(shared, &all);
    }

    pub fn send_expect(&self, shared: &mut Shared, to: &[PeerId]) {
        if matches!(self.phase, Phase::Rebuild(_)) {
            return;
        }
        let sessions = self
            .newcomers
            .keys()
            .filter_map(|peer| shared.sessions.get(*peer));
        let expect = MasterToPeer::Expect {
            vid: self.view.vid,
            members: self.view.members.clone(),
            newcomers: sessions
                .map(|session| session.member(MemberNumber(0)))
                .collect(),
        };
        shared.send_all(to, &expect);
    }

    /// Installs a group's first members, or its first after all had gone, once enough are ready.
    /// Units found all their groups at once (`unit`).
    pub fn found(&mut self, shared: &mut Shared) {
        if !self.told().is_empty() || !self.may_be_founded(shared) {
            return;
        }
        let mut chosen = admission::choose(&BTreeSet::new(), &self.newcomers, shared.now, None);
        if chosen.len() < self.needed() {
            return;
        }
        self.is_closed = self.is_to_be_closed();
        let rank = |peer: &PeerId| self.newcomers[peer].place.map(|place| place.rank);
        if !is_active(Mutation::ClosedInOrderOfComing) {
            chosen.sort_by_key(rank);
        }
        self.found_with(shared, &chosen);
    }

    /// Whether the newcomers ask for a closed group. All of them do, or none.
    fn is_to_be_closed(&self) -> bool {
        let mut newcomers = self.newcomers.values();
        newcomers.next().is_some_and(|first| first.place.is_some())
    }

    /// Installs these as the first members.
    pub fn found_with(&mut self, shared: &mut Shared, chosen: &[PeerId]) {
        self.install(shared, &BTreeSet::new(), &BTreeMap::new(), chosen);
    }

    /// Number of newcomers that the first view waits for.
    pub fn needed(&self) -> usize {
        let wishes = self.newcomers.values().map(|newcomer| newcomer.min_world);
        let needed = wishes.max().unwrap_or(0) as usize;
        match is_active(Mutation::ClosedFoundedShort) && self.is_to_be_closed() {
            true => needed.saturating_sub(1).max(1),
            false => needed.max(1),
        }
    }
}
