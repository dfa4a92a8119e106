//! How long a group waits: for answers, for operations to be called, for reports of broken links.

use std::time::Duration;

use super::blame;
use super::group::Group;
use super::phase::{Awaited, Phase};
use super::shared::Shared;
use crate::event::Event;
use crate::ids::PeerId;
use crate::time::Instant;
use crate::wire::control::EvictReason;

impl Group {
    /// Deals with what has been waited for too long.
    pub fn expire(&mut self, shared: &mut Shared) {
        self.look_at_waits(shared);
        if let Phase::Rebuild(rebuild) = &mut self.phase {
            if let Some((heard, members)) = rebuild.has_stalled(shared.now, shared.force_rebuild) {
                let group = self.id;
                shared.outbox.event(Event::RebuildStalled {
                    group,
                    heard,
                    members,
                });
            }
            return;
        }
        for peer in self.unanswered(shared) {
            let silent_ms = answer_timeout(shared).as_millis() as u64;
            shared.condemn(peer, EvictReason::Silent { silent_ms });
        }
        if self.blame.due().is_some_and(|due| due <= shared.now) {
            self.judge(shared);
        }
        if let Some(timeout) = self.presence_timeout(shared) {
            for (peer, reason) in self.absent(timeout, shared.now) {
                shared.condemn(peer, reason);
            }
        }
    }

    /// When `expire` or `settle` has something to do even if nobody says anything.
    pub fn deadline(&self, shared: &Shared) -> Option<Instant> {
        if let Phase::Rebuild(rebuild) = &self.phase {
            let looks = self.next_look();
            return rebuild.deadline(shared.now).into_iter().chain(looks).min();
        }
        let answers = self.answers_due(shared).map(|(_, due)| due).min();
        let presence = self.presence_timeout(shared);
        let presence = presence.and_then(|timeout| self.next_absent(timeout));
        let waits = self.newcomers.values().map(|newcomer| newcomer.not_before);
        let wait = waits.filter(|&until| until > shared.now).min();
        let outdated = self.announced.is_outdated(self.view.vid, &self.newcomers);
        let announce = outdated.then_some(self.announced.not_before);
        let others = [self.blame.due(), self.next_look()];
        [answers, presence, wait, announce]
            .into_iter()
            .chain(others)
            .flatten()
            .min()
    }

    /// Absence counts inside a view only: at its end everybody answers, and what waits for the lost
    /// is decided.
    fn presence_timeout(&self, shared: &Shared) -> Option<Duration> {
        match self.phase {
            Phase::Steady | Phase::Installing(_) => shared.timers.post_timeout,
            Phase::Rebuild(_) | Phase::Founding | Phase::Suspended(_) => None,
        }
    }

    fn unanswered(&self, shared: &Shared) -> Vec<PeerId> {
        let late = self
            .answers_due(shared)
            .filter(|(_, due)| *due <= shared.now);
        late.map(|(peer, _)| peer).collect()
    }

    /// When each awaited member counts as silent although its heartbeats go on, however often it
    /// attaches meanwhile. A detached one has its own term.
    fn answers_due(&self, shared: &Shared) -> impl Iterator<Item = (PeerId, Instant)> {
        let asked = self.phase.awaited().into_iter().flat_map(Awaited::asked);
        let attached = asked.filter(|(peer, _)| !shared.sessions.is_detached(*peer));
        attached.map(|(peer, asked)| (peer, asked + answer_timeout(shared)))
    }

    fn judge(&mut self, shared: &mut Shared) {
        let members = self.view.peers();
        let mut links = self.blame.judge();
        links.retain(|(a, b)| members.contains(a) && members.contains(b));
        let heartbeat = shared.timers.heartbeat_interval;
        let silent = |peer: &PeerId| {
            // A connection that has just broken accuses nobody: its peer is likely on its way back.
            let detached = shared.sessions.is_detached(*peer);
            let quiet = if detached { heartbeat } else { heartbeat * 4 };
            shared.sessions.silence(*peer, shared.now) > quiet
        };
        let suspects = members.iter().copied().filter(silent).collect();
        for (peer, by) in blame::culprits(links, &members, &suspects) {
            shared.condemn(peer, EvictReason::Unreachable { by });
        }
    }
}

/// How long a member may take to answer `Suspend` or `Install` while its heartbeats go on: a whole
/// round trip of the slowest link that is not silent.
fn answer_timeout(shared: &Shared) -> Duration {
    shared.timers.peer_timeout * 2
}
