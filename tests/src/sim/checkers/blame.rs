//! Evictions for broken links (R10).
//!
//! Only the plain case is judged: one member is cut off from all others, and everything else has
//! worked for long. Then that member must be evicted.

use std::time::Duration;

use ccl_core::ids::{GroupId, PeerId};
use ccl_core::time::Instant;

use super::ensure;
use crate::sim::cluster::{HostId, World};
use crate::sim::peer_host::Host;

/// Time without other trouble after which a case is plain.
const QUIET: Duration = Duration::from_secs(15);

impl World {
    /// A host was evicted because others cannot reach it.
    ///
    /// # Errors It can reach all but one, which no host can reach.
    pub fn is_culprit(&self, group: GroupId, blamed: PeerId) -> Result<(), String> {
        let members = self.members_of(group);
        let isolated = members.iter().filter(|id| self.hosts[id.0].isolated);
        let blamed_host = members
            .iter()
            .find(|id| self.hosts[id.0].peer.peer() == Some(blamed));
        let Some(blamed_host) = blamed_host else {
            return Ok(());
        };
        let well = members
            .iter()
            .all(|id| self.has_been_well(&self.hosts[id.0]));
        let quiet = self.now.saturating_since(self.newest_link_trouble) > QUIET;
        let fast = self.swarm.delay.1 * 20 < self.swarm.timers.blame_window;
        let plain = isolated.count() == 1 && members.len() >= 3 && well && quiet && fast;
        ensure(!plain || self.hosts[blamed_host.0].isolated, || {
            format!("{blamed} is blamed although another is cut off from all (R10)")
        })
    }

    pub(super) fn members_of(&self, group: GroupId) -> Vec<HostId> {
        let run = Some(self.checkers.run);
        let Some(view) = self.checkers.newest_view(group) else {
            return Vec::new();
        };
        let is_member = |host: &Host| {
            let peer = host.peer.peer();
            host.run == run && peer.is_some_and(|peer| view.members.contains(&peer))
        };
        (0..self.hosts.len())
            .map(HostId)
            .filter(|id| self.hosts[id.0].group == group && is_member(&self.hosts[id.0]))
            .collect()
    }

    fn has_been_well(&self, host: &Host) -> bool {
        let calm = Instant(self.now.0.saturating_sub(QUIET.as_nanos() as u64));
        self.is_well_since(host, calm)
    }

    /// Whether a host has been well since then.
    pub(super) fn is_well_since(&self, host: &Host, calm: Instant) -> bool {
        self.is_well(host) && host.is_calm_since(calm)
    }
}
