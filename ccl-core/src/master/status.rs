//! A snapshot of what a master knows about its run, for operators and status pages.
//!
//! Nothing is decided by it, and taking one changes nothing.

use std::net::SocketAddr;
use std::time::Duration;

use crate::ids::{GroupId, PeerId, RunId, Term, UnitId, Vid};
use crate::master::Master;
use crate::master::group::Group;
use crate::master::session::Contact;
use crate::wire::control::{StateId, Wait};

/// A run, as its master sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The run; `None` until it is founded or resumed.
    pub run: Option<RunId>,
    /// The master's term: one higher with each start.
    pub term: Term,
    /// In order of their numbers.
    pub groups: Vec<GroupStatus>,
}

/// Status of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group's id.
    pub group: GroupId,
    /// The newest view.
    pub view: Vid,
    /// The group's phase: `Founding`, `Steady`, `Suspended`, `Installing` or `Rebuild`.
    pub phase: &'static str,
    /// In rank order.
    pub members: Vec<PeerStatus>,
    /// Peers that wait for admission, in order of arrival.
    pub newcomers: Vec<PeerStatus>,
    /// Collectives that members have called and that have not ended.
    pub open_operations: usize,
    /// The content of the shared state that a sync sealed last.
    pub sealed_state: Option<StateId>,
    /// Safe points that were released since the group began.
    pub safe_points: u64,
}

/// Status of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer's session.
    pub peer: PeerId,
    /// Its name, chosen by its program.
    pub name: String,
    /// Where other peers reach it.
    pub addresses: Vec<SocketAddr>,
    /// Its unit, whose peers fail together; one of its own if it named none.
    pub unit: UnitId,
    /// Time since it was heard last; `None` while it has no connection.
    pub silent_for: Option<Duration>,
    /// What it waits for, other than its own program.
    pub waits_for: Option<Wait>,
}

impl Master {
    /// The state of the run as of the last input.
    #[must_use]
    pub fn status(&self) -> Status {
        let groups = self.groups.values();
        Status {
            run: self.run_id(),
            term: self.shared.term,
            groups: groups.map(|group| self.group_status(group)).collect(),
        }
    }

    fn group_status(&self, group: &Group) -> GroupStatus {
        let peers = |peers: Vec<PeerId>| {
            let known = peers.into_iter().filter_map(|peer| self.peer_status(peer));
            known.collect()
        };
        GroupStatus {
            group: group.id,
            view: group.view.vid,
            phase: group.phase.state().name(),
            members: peers(group.view.peers()),
            newcomers: peers(group.newcomers.keys().copied().collect()),
            open_operations: group.ledger.open().count(),
            sealed_state: group.ledger.sealed_state,
            safe_points: group.safe.released,
        }
    }

    fn peer_status(&self, peer: PeerId) -> Option<PeerStatus> {
        let session = self.shared.sessions.get(peer)?;
        let registration = &session.registration;
        Some(PeerStatus {
            peer,
            name: registration.name.clone(),
            addresses: registration.addresses.clone(),
            unit: registration.unit,
            silent_for: match session.contact {
                Contact::Attached { heard, .. } => Some(self.shared.now - heard),
                Contact::Detached { .. } => None,
            },
            waits_for: self.wait_of(peer),
        })
    }
}
