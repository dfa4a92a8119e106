//! Who is evicted for silence or an end that nobody saw (R10, R19).
//!
//! Whoever ran and could talk with the master all the time is never evicted so, whatever stood
//! still beside it: the master, its disk, or others.

use std::time::Duration;

use ccl_core::ids::{GroupId, PeerId};
use ccl_core::time::Instant;
use ccl_core::wire::control::EvictReason;

use super::ensure;
use crate::sim::cluster::{HostId, World};

/// How long a host must have been well to be innocent: longer than any fault lasts that it may not
/// have noticed, and its discovery.
const CALM: Duration = Duration::from_secs(60);

impl World {
    /// Somebody was evicted because it was not heard.
    ///
    /// # Errors
    /// It spoke all the time.
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
            format!("{peer} was evicted although it was well all the time: {reason} (R19)")
        })?;
        let is_silence = matches!(reason, EvictReason::Silent { .. });
        let silence = self.now.saturating_since(self.hears_since());
        let timers = &self.swarm.timers;
        let is_deaf = silence >= timers.peer_timeout && silence < timers.detach_timeout;
        ensure(!is_deaf || !is_silence, || {
            format!("{peer} was evicted by a master that has heard no member for {silence:?} (R19)")
        })
    }

    /// When a member was heard last, or the master began or went on.
    fn hears_since(&self) -> Instant {
        let master = &self.master;
        self.checkers.heard.max(master.started).max(master.thawed)
    }

    /// The master hears a host.
    pub fn note_heard(&mut self, host: HostId) {
        let state = &self.hosts[host.0];
        let newest = self.checkers.newest_view(state.group);
        let peer = state.peer.peer();
        let is_member =
            newest.is_some_and(|view| peer.is_some_and(|it| view.members.contains(&it)));
        if is_member {
            self.checkers.heard = self.now;
        }
    }
}
