//! Evictions for silence or an unseen end (R10, R20).
//!
//! A host that ran and could reach the master all the time is never evicted for it, whatever else
//! was paused: the master, its disk, or other hosts.

use std::time::Duration;

use ccl_core::ids::{GroupId, PeerId};
use ccl_core::time::Instant;
use ccl_core::wire::control::EvictReason;

use super::ensure;
use crate::sim::cluster::{HostId, World};

/// How long a host must have been well to be innocent: longer than any fault that it may not have
/// noticed, discovery included.
const CALM: Duration = Duration::from_secs(60);

impl World {
    /// A host was evicted because it was not heard.
    ///
    /// # Errors It sent messages all the time.
    pub fn is_truly_silent(
        &self,
        (group, peer): (GroupId, PeerId),
        reason: &EvictReason,
    ) -> Result<(), String> {
        if !matches!(reason, EvictReason::Silent { .. } | EvictReason::Died) {
            return Ok(());
        }
        let calm = Instant(self.now.0.saturating_sub(CALM.as_nanos() as u64));
        let run = Some(self.checkers.run);
        let innocent = self.hosts.iter().find(|host| {
            let it = host.run == run && host.group == group && host.peer.peer() == Some(peer);
            it && self.is_well(host) && host.is_calm_since(calm)
        });
        ensure(innocent.is_none(), || {
            format!("{peer} was evicted although it was well all the time: {reason} (R20)")
        })?;
        let is_silence = matches!(reason, EvictReason::Silent { .. });
        let heard = self.hears_since((group, peer));
        let silence = self.now.saturating_since(heard);
        // Since the master's last pause, but at most for the time after which it waits for no one.
        let waited = self.now.saturating_since(heard.max(self.master.thawed));
        let timers = &self.swarm.timers;
        let is_deaf = waited >= timers.peer_timeout && silence < timers.detach_timeout;
        ensure(!is_deaf || !is_silence, || {
            format!("{peer} was evicted by a master that has heard nobody for {silence:?} (R20)")
        })
    }

    /// When a host was last heard that shows a peer's silence to be its own, or when the master
    /// began. A member's silence is shown by other members, also by what these said before they
    /// were members.
    fn hears_since(&self, (group, peer): (GroupId, PeerId)) -> Instant {
        let heard = match self.is_sealed_member((group, peer)) {
            true => self.members_heard().max(self.checkers.member_heard),
            false => self.checkers.heard,
        };
        heard.max(self.master.started)
    }

    /// When one of those that are members now was last heard.
    fn members_heard(&self) -> Instant {
        let heard = &self.checkers.promises.heard;
        let run = Some(self.checkers.run);
        let views = self
            .groups()
            .filter_map(|group| self.checkers.newest_view(group));
        let members = views.flat_map(|view| &view.members);
        let words = members.filter_map(|peer| heard.get(&(run, Some(*peer))));
        words.max().copied().unwrap_or_default()
    }

    /// The master has heard a host. A session that it has ended shows nothing, even if no view
    /// without it is sealed yet.
    pub fn note_heard(&mut self, host: HostId) {
        let state = &self.hosts[host.0];
        let session = (state.run, state.peer.peer());
        if self.checkers.promises.gone.contains(&session) {
            return;
        }
        self.checkers.heard = self.now;
        self.checkers.promises.heard.insert(session, self.now);
        if let Some(peer) = state.peer.peer()
            && self.is_sealed_member((state.group, peer))
        {
            self.checkers.member_heard = self.now;
        }
    }

    fn is_sealed_member(&self, (group, peer): (GroupId, PeerId)) -> bool {
        let newest = self.checkers.newest_view(group);
        newest.is_some_and(|view| view.members.contains(&peer))
    }
}
