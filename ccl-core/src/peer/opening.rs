//! The messages that open a connection to the master: who this peer is.

use crate::wire::control::{Claim, PROTOCOL_VERSION, PeerToMaster};

use super::Peer;
use super::session::Registration;

impl Peer {
    pub(super) fn say_hello(&mut self) {
        let hello = PeerToMaster::Hello {
            protocol: PROTOCOL_VERSION,
            library: env!("CARGO_PKG_VERSION").to_owned(),
            run: self.setup.run.clone(),
            group: self.setup.group,
            unit: self.setup.unit,
            unit_size: self.setup.unit_size,
            place: self.setup.place,
            addresses: self.setup.addresses.clone(),
            key: self.setup.key,
            min_world: self.setup.min_world,
            attach: self.session.attach(),
            name: self.setup.name.clone(),
        };
        self.send(hello);
    }

    pub(super) fn say_here(&mut self) {
        let Some(registration) = self.session.registration().cloned() else {
            return;
        };
        let here = PeerToMaster::Here {
            run_id: registration.run_id,
            session: registration.session,
            attach: self.session.attach(),
            vid: self.view().map(|view| view.vid).unwrap_or_default(),
            claim: self.claim(&registration),
        };
        self.send(here);
    }

    pub(super) fn say_attach(&mut self) {
        let Some(registration) = self.session.registration().cloned() else {
            return;
        };
        let claim = self.claim(&registration);
        self.notes.clear();
        let report = self.report(true);
        self.send(PeerToMaster::Attach {
            run_id: registration.run_id,
            session: registration.session,
            attach: self.session.attach(),
            claim,
            report,
        });
    }

    fn claim(&self, registration: &Registration) -> Claim {
        let mut claim = Claim {
            peer: registration.peer,
            group: self.setup.group,
            unit_size: self.setup.unit_size,
            place: self.setup.place,
            ..Claim::default()
        };
        if let Some(membership) = self.phase.membership() {
            claim.members.clone_from(&membership.view.members);
            claim.ring_order.clone_from(&membership.view.ring_order);
            claim.costs = membership.view.costs;
        }
        claim
    }
}
