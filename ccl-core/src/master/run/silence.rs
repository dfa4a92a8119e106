//! How long sessions may be silent, or without a connection.

use std::collections::BTreeMap;

use crate::ids::{GroupId, PeerId};
use crate::master::Master;
use crate::master::group::Group;
use crate::master::group::phase::State;
use crate::master::session::{Contact, Sessions};
use crate::time::Instant;
use crate::wire::control::EvictReason;

impl Master {
    /// Until when a session may stay as it is: silent, or without a connection.
    pub fn patience(&self, peer: PeerId) -> Option<Instant> {
        let session = self.shared.sessions.get(peer)?;
        let timers = &self.shared.timers;
        let begun = |at| self.shared.begun(at);
        match session.contact {
            Contact::Attached { heard, .. } => Some(begun(heard) + timers.peer_timeout),
            // While a run is rebuilt, its window says how long members are waited for.
            Contact::Detached { .. } if self.is_rebuilding(peer) => None,
            Contact::Detached { since } => Some(begun(since) + timers.reattach_grace),
        }
    }

    fn is_rebuilding(&self, peer: PeerId) -> bool {
        let group = self.groups.get(&self.group_of(peer));
        group.is_some_and(|group| matches!(group.phase.state(), State::Rebuild))
    }

    pub fn impatience(&self, peer: PeerId) -> EvictReason {
        if self.shared.sessions.is_detached(peer) {
            return EvictReason::Detached;
        }
        let silence = self.shared.sessions.silence(peer, self.shared.now);
        EvictReason::Silent {
            silent_ms: u64::try_from(silence.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// When the master last received anything from a peer that shows it to be reachable: from a member,
/// as long as one is connected, since newcomers lose nothing by waiting.
pub fn newest_word(sessions: &Sessions, groups: &BTreeMap<GroupId, Group>) -> Option<Instant> {
    let words = sessions.iter().filter_map(|(peer, session)| {
        let Contact::Attached { heard, .. } = session.contact else {
            return None;
        };
        let group = groups.get(&session.registration.group)?;
        Some((!group.is_newcomer(*peer), heard))
    });
    words.max().map(|(_, heard)| heard)
}
