//! The timeouts of a group: for answers, for operations to be posted, for reports of broken links.

use std::time::Duration;

use crate::event::Event;
use crate::ids::PeerId;
use crate::master::group::Group;
use crate::master::group::blame;
use crate::master::group::phase::{Awaited, Phase};
use crate::master::shared::Shared;
use crate::time::Instant;
use crate::wire::control::EvictReason;

impl Group {
    /// Handles the timeouts that have passed.
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
        if !shared.is_listening {
            for peer in self.seen_dead(shared) {
                shared.condemn(peer, EvictReason::Died);
            }
        }
        for peer in self.unanswered(shared) {
            let silent_ms = answer_timeout(shared).as_millis() as u64;
            shared.condemn(peer, EvictReason::Silent { silent_ms });
        }
        if self.blame_due(shared).is_some_and(|due| due <= shared.now) {
            self.judge(shared);
        }
        if let Some(timeout) = self.presence_timeout(shared) {
            let absence = self.absent(timeout, shared.now);
            for (peer, reason) in absence.evicted {
                shared.condemn(peer, reason);
            }
            for (tag, crossed) in absence.crossed {
                self.ledger.cross(tag, crossed);
            }
        }
    }

    /// When `expire` or `settle` next has something to do if no message arrives.
    pub fn deadline(&self, shared: &Shared) -> Option<Instant> {
        if let Phase::Rebuild(rebuild) = &self.phase {
            let looks = self.next_look();
            return rebuild.deadline(shared.now).into_iter().chain(looks).min();
        }
        let answers = self.answers_due(shared).map(|(_, due)| due).min();
        let presence = self
            .presence_timeout(shared)
            .and_then(|timeout| self.next_absent(timeout, shared.now));
        let waits = self
            .newcomers
            .values()
            .filter_map(|newcomer| newcomer.held)
            .map(|held| held.until);
        let wait = waits.filter(|&until| until > shared.now).min();
        let outdated = self.announced.is_outdated(self.view.vid, &self.newcomers);
        let announce = outdated.then_some(self.announced.not_before);
        let dead = (!self.seen_dead(shared).is_empty()).then_some(shared.now);
        let records = self.records_due(shared);
        let others = [self.blame_due(shared), self.next_look(), dead, records];
        [answers, presence, wait, announce]
            .into_iter()
            .chain(others)
            .flatten()
            .min()
    }

    /// Members whose processes were seen to end while the master read what had arrived during a
    /// pause. No member is judged before that is done.
    fn seen_dead(&self, shared: &Shared) -> Vec<PeerId> {
        if self.blame.is_empty() {
            return Vec::new();
        }
        let members = self.view.peers().into_iter();
        let is_dead =
            |peer: &PeerId| shared.sessions.is_detached(*peer) && self.blame.saw_end_of(*peer);
        members.filter(is_dead).collect()
    }

    /// Absence counts only inside a view: at its end all members answer, and operations that wait
    /// for lost members are decided.
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

    /// When each awaited member counts as silent, although its heartbeats go on and however often
    /// it attaches meanwhile. A detached one has its own time limit.
    fn answers_due(&self, shared: &Shared) -> impl Iterator<Item = (PeerId, Instant)> {
        let asked = self.phase.awaited().into_iter().flat_map(Awaited::asked);
        // Those that are back were asked to attach.
        let is_rebuilt = !matches!(self.phase, Phase::Rebuild(_));
        let members = self.view.members.iter().filter(move |_| is_rebuilt);
        let back = members.filter_map(|member| {
            let since = shared.sessions.here_since(member.peer)?;
            Some((member.peer, since))
        });
        let asked = asked.chain(back);
        let attached = asked.filter(|(peer, _)| !shared.sessions.is_detached(*peer));
        attached.map(|(peer, asked)| (peer, shared.begun(asked) + answer_timeout(shared)))
    }

    /// When broken links are judged. After a pause of its own the master first waits until it knows
    /// which of their ends is silent.
    fn blame_due(&self, shared: &Shared) -> Option<Instant> {
        let listened = shared.timers.heartbeat_interval * (QUIET_HEARTBEATS + 1);
        let known = shared.went_on.map(|went_on| went_on + listened);
        let due = self.blame.due()?;
        Some(known.map_or(due, |known| due.max(known)))
    }

    fn judge(&mut self, shared: &mut Shared) {
        let members = self.view.peers();
        let mut links = self.blame.judge();
        links.retain(|(a, b)| members.contains(a) && members.contains(b));
        let heartbeat = shared.timers.heartbeat_interval;
        let silent = |peer: &PeerId| {
            // A connection that has just broken is no evidence: its peer is likely reconnecting.
            let detached = shared.sessions.is_detached(*peer);
            let beats = if detached { 1 } else { QUIET_HEARTBEATS };
            shared.sessions.silence(*peer, shared.now) > heartbeat * beats
        };
        let suspects = members.iter().copied().filter(silent).collect();
        for (peer, by) in blame::culprits(links, &members, &suspects) {
            shared.condemn(peer, EvictReason::Unreachable { by });
        }
    }
}

/// How long a member may take to answer `Suspend` or `Install` while its heartbeats go on: a whole
/// round trip of the slowest link that is not silent.
pub fn answer_timeout(shared: &Shared) -> Duration {
    shared.timers.peer_timeout * 2
}

/// Of two ends of a broken link, the one that has been silent for this many heartbeats is blamed.
const QUIET_HEARTBEATS: u32 = 4;
