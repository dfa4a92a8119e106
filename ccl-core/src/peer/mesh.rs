//! The links of a peer: which it wants, which work, which are broken.
//!
//! Links outlive views. The peer with the later session dials. How a link is made and repaired is
//! the transport's business.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{PeerId, Vid};
use crate::limits;
use crate::wire::control::{Install, LinkFault, Member, PeerToMaster};

use super::Peer;
use super::io::{Neighbour, Output, View};
use super::phase::Phase;

/// What a peer knows of its links.
#[derive(Debug, Default)]
pub(super) struct Mesh {
    expected: Option<Expected>,
    listed: BTreeMap<PeerId, Neighbour>,
    up: BTreeSet<PeerId>,
    down: BTreeMap<PeerId, Break>,
    /// Peers reported to the master as unreachable, and not yet as reachable again.
    accused: BTreeSet<PeerId>,
    ready: Option<(Vid, Vec<PeerId>)>,
    /// Why there is no link yet, if known.
    why: BTreeMap<PeerId, String>,
}

/// The last `Expect`.
#[derive(Debug)]
struct Expected {
    vid: Vid,
    members: Vec<Member>,
    newcomers: Vec<Member>,
}

/// How a link broke.
#[derive(Clone, Copy, Debug)]
struct Break {
    fault: LinkFault,
    gave_up: bool,
}

impl Peer {
    pub(super) fn handle_expect(&mut self, vid: Vid, members: Vec<Member>, newcomers: Vec<Member>) {
        self.mesh.expected = Some(Expected {
            vid,
            members,
            newcomers,
        });
        self.refresh_links();
        self.say_ready();
        self.say_safe_point();
    }

    /// Newcomers that the next safe point may admit, as last sent by the master.
    #[must_use]
    pub fn pending_peers(&self) -> usize {
        let is_member = self.phase.membership().is_some();
        let expected = self.mesh.expected.as_ref().filter(|_| is_member);
        expected.map_or(0, |expected| expected.newcomers.len())
    }

    pub(super) fn handle_link_up(&mut self, peer: PeerId) {
        if !self.mesh.listed.contains_key(&peer) {
            // That link is about to end; if the peer is listed again, it gets another.
            return;
        }
        self.mesh.up.insert(peer);
        self.mesh.down.remove(&peer);
        if self.mesh.why.remove(&peer).is_some() {
            self.tell_why(peer);
        }
        if self.mesh.accused.contains(&peer) && self.phase.is_telling() {
            self.mesh.accused.remove(&peer);
            self.send(PeerToMaster::LinkUp { peer });
        }
        self.say_ready();
    }

    pub(super) fn handle_link_down(&mut self, peer: PeerId, fault: LinkFault, gave_up: bool) {
        self.mesh.up.remove(&peer);
        if self.mesh.listed.contains_key(&peer) {
            self.mesh.down.insert(peer, Break { fault, gave_up });
            self.accuse(peer);
        }
        if self.mesh.why.contains_key(&peer) {
            self.tell_why(peer);
        }
        self.say_ready();
    }

    /// Only for the texts of peers that wait for that link; links to members have `LinkDown`.
    pub(super) fn handle_no_link(&mut self, peer: PeerId, why: String) {
        let is_member = |view: &View| view.members.iter().any(|member| member.peer == peer);
        let is_listed = self.mesh.listed.contains_key(&peer);
        if !is_listed || self.view().is_some_and(|view| is_member(view)) {
            return;
        }
        let mut why: String = why.chars().filter(|c| !c.is_control()).collect();
        why.truncate(why.floor_char_boundary(limits::TEXT_BYTES_MAX));
        if self.mesh.why.get(&peer) != Some(&why) {
            self.mesh.why.insert(peer, why);
            if !self.mesh.up.contains(&peer) {
                self.tell_why(peer);
            }
        }
    }

    /// Reports why there is no link, or that there is one.
    fn tell_why(&mut self, peer: PeerId) {
        let is_newcomer = matches!(self.phase, Phase::Newcomer) && self.session.is_up();
        if is_newcomer || self.phase.is_telling() {
            let why = self.mesh.why.get(&peer).cloned().unwrap_or_default();
            self.send(PeerToMaster::NoLink { peer, why });
        }
    }

    fn tell_all_why(&mut self) {
        let (why, up) = (&self.mesh.why, &self.mesh.up);
        let missing = why.keys().filter(|peer| !up.contains(peer));
        let missing: Vec<PeerId> = missing.copied().collect();
        missing.into_iter().for_each(|peer| self.tell_why(peer));
    }

    /// Makes the transport keep the links to the view, to members of carried operations, and to
    /// peers that may be admitted next.
    pub(super) fn refresh_links(&mut self) {
        let Some(me) = self.session.peer() else {
            return;
        };
        let mut wanted = BTreeMap::new();
        let mut want = |member: &Member| {
            if member.peer != me {
                let neighbour = Neighbour {
                    addresses: member.addresses.clone(),
                    key: member.key,
                    dial: me > member.peer,
                };
                wanted.insert(member.peer, neighbour);
            }
        };
        if let Some(expected) = &self.mesh.expected {
            expected.newcomers.iter().for_each(&mut want);
            if self.phase.membership().is_none() {
                expected.members.iter().for_each(&mut want);
            }
        }
        if let Some(membership) = self.phase.membership() {
            membership.view.members.iter().for_each(&mut want);
            let carried = membership
                .carried
                .values()
                .flat_map(|carried| &carried.members);
            for peer in carried {
                if let Some(neighbour) = self.mesh.listed.get(peer) {
                    wanted.entry(*peer).or_insert_with(|| neighbour.clone());
                }
            }
        }
        self.list(wanted);
    }

    /// A view came into force. Its members and departed peers are no longer newcomers; and
    /// newcomers that an earlier master named mean nothing to this one.
    pub(super) fn settle_expected(&mut self, install: &Install, is_same_master: bool) {
        self.mesh.expected = self.mesh.expected.take().filter(|_| is_same_master);
        if let Some(expected) = &mut self.mesh.expected {
            expected.newcomers.retain(|newcomer| {
                let is_in = install
                    .members
                    .iter()
                    .any(|member| member.peer == newcomer.peer);
                let is_gone = install
                    .departed
                    .iter()
                    .any(|(peer, _)| *peer == newcomer.peer);
                !is_in && !is_gone
            });
        }
    }

    /// The session is over, or restarts under another id.
    pub(super) fn forget_links(&mut self) {
        self.list(BTreeMap::new());
        self.mesh = Mesh::default();
    }

    /// Reports again which links are broken and which work again, after a reply or in a new view:
    /// reports may have been lost, or have counted for the view before.
    pub(super) fn restate_links(&mut self) {
        let broken: Vec<PeerId> = self.mesh.down.keys().copied().collect();
        for peer in broken {
            self.accuse(peer);
        }
        let repaired: Vec<PeerId> = self
            .mesh
            .accused
            .intersection(&self.mesh.up)
            .copied()
            .collect();
        for peer in repaired {
            self.mesh.accused.remove(&peer);
            self.send(PeerToMaster::LinkUp { peer });
        }
        if let Some(view) = self.view() {
            let members: Vec<PeerId> = view.members.iter().map(|member| member.peer).collect();
            self.mesh.why.retain(|peer, _| !members.contains(peer));
        }
        self.tell_all_why();
    }

    /// A newcomer over a new connection: the master may have forgotten earlier reports.
    pub(super) fn say_ready_anew(&mut self) {
        self.mesh.ready = None;
        self.say_ready();
        self.tell_all_why();
    }

    fn list(&mut self, wanted: BTreeMap<PeerId, Neighbour>) {
        let mesh = &mut self.mesh;
        if mesh.listed == wanted {
            return;
        }
        for peer in mesh.listed.keys().filter(|peer| !wanted.contains_key(peer)) {
            mesh.up.remove(peer);
            mesh.down.remove(peer);
            mesh.accused.remove(peer);
            mesh.why.remove(peer);
        }
        mesh.listed.clone_from(&wanted);
        self.outputs.push_back(Output::Links(wanted));
    }

    /// Reports a broken link to a member of the view. Links to newcomers are theirs to report.
    fn accuse(&mut self, peer: PeerId) {
        let (Some(view), Some(broken)) = (self.view(), self.mesh.down.get(&peer)) else {
            return;
        };
        let is_member = view.members.iter().any(|member| member.peer == peer);
        if !is_member || !self.phase.is_telling() {
            return;
        }
        let message = PeerToMaster::LinkDown {
            vid: view.vid,
            peer,
            fault: broken.fault,
            gave_up: broken.gave_up,
        };
        self.mesh.accused.insert(peer);
        self.send(message);
    }

    fn say_ready(&mut self) {
        let Some(expected) = &self.mesh.expected else {
            return;
        };
        if !matches!(self.phase, Phase::Newcomer) || !self.session.is_up() {
            return;
        }
        let is_linked = |peer: &&PeerId| self.mesh.up.contains(peer);
        let linked: Vec<PeerId> = self.mesh.listed.keys().filter(is_linked).copied().collect();
        let ready = (expected.vid, linked);
        if self.mesh.ready.as_ref() != Some(&ready) {
            self.mesh.ready = Some(ready.clone());
            let (vid, linked) = ready;
            self.send(PeerToMaster::Ready { vid, linked });
        }
    }
}
