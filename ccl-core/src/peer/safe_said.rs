//! Safe points that the members agree on without the master (R9, R19).
//!
//! A member that waits at a safe point tells the others so, unless it knows of a newcomer and the
//! master can be asked. When all have told each other, the safe point changes nothing: the master
//! admits nobody at one that all members say in their reports to have told. So, as with `Held`,
//! nothing is told between a report and the view that answers it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{PeerId, Vid};
use crate::limits;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::peer_to_peer::{PeerToPeer, SafePointProgress};

use super::Peer;
use super::io::Output;
use super::phase::Phase;

/// What members have told each other about the safe points of a view.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// How many this peer has told the others to be at or past.
    own: u64,
    /// The newest message of each other member, which may be of a view that is yet to come.
    others: BTreeMap<PeerId, SafePointProgress>,
}

/// When safe points are called, from which follows how many should be released ahead.
#[derive(Debug, Default)]
pub(super) struct Stride {
    last: Option<Instant>,
    /// Time between two calls: the newest, averaged with those before.
    step: Duration,
}

impl Said {
    /// How many this peer has told the others to be at or past.
    pub fn own(&self) -> u64 {
        self.own
    }

    /// Another view is in force.
    pub fn enter(&mut self, vid: Vid) {
        self.own = 0;
        self.others.retain(|_, progress| progress.vid >= vid);
    }
}

impl Stride {
    /// A safe point is called.
    pub fn note(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            let step = now - last;
            self.step = match self.step {
                Duration::ZERO => step,
                before => (before + step) / 2,
            };
        }
    }

    /// Safe points that are called within two round trips to the master, if that is worth it.
    pub fn ahead(&self, round_trip: Option<Duration>) -> u32 {
        let Some(round_trip) = round_trip.filter(|time| *time >= ROUND_TRIP_MIN) else {
            return 0;
        };
        if self.step.is_zero() || self.step / LONG_STEPS >= round_trip {
            return 0;
        }
        let steps = (2 * round_trip).as_nanos().div_ceil(self.step.as_nanos());
        steps.min(limits::SAFE_POINTS_AHEAD_MAX as u128) as u32
    }
}

impl Peer {
    /// Tells the others that this peer waits at its safe point, once.
    pub(super) fn say_safe_point(&mut self) {
        let Some(called) = self.safe_points.waiting() else {
            return;
        };
        let asks_master = self.phase.is_telling() && self.pending_peers() > 0;
        let may_say = self.phase.is_posting() || is_active(Mutation::SafePointSaidAfterFlush);
        if !may_say || asks_master || self.said.own >= called || !self.agrees_on_safe_points() {
            return;
        }
        self.said.own = called;
        let others = self.other_members();
        self.tell_safe_points(others);
        self.agree_on_safe_point();
    }

    /// Another member waits at a safe point, or answers how many are released.
    pub(super) fn handle_peer_safe_point(&mut self, peer: PeerId, progress: SafePointProgress) {
        let SafePointProgress {
            vid,
            called,
            released,
        } = progress;
        let own = self.view().map(|view| view.vid).unwrap_or_default();
        let others = &mut self.said.others;
        let known = others.get(&peer).map(|known| (known.vid, known.called));
        if vid >= own && Some((vid, called)) > known {
            others.insert(peer, progress);
        }
        if vid != own || !self.other_members().contains(&peer) {
            return;
        }
        let ours = self.safe_points.released();
        if released > ours {
            return self.take_safe_points(released);
        }
        if ours > released && ours >= called && self.said.own >= called {
            self.tell_safe_points(vec![peer]);
        }
        self.answer_safe_points();
        self.agree_on_safe_point();
    }

    /// Answers members that wait at safe points which are released here, and of which this peer has
    /// not told them: it did not wait there.
    pub(super) fn answer_safe_points(&mut self) {
        let vid = self.view().map(|view| view.vid).unwrap_or_default();
        let (ours, said) = (self.safe_points.released(), self.said.own);
        let mut to = Vec::new();
        for (peer, progress) in &mut self.said.others {
            let waits = progress.vid == vid && progress.called > progress.released;
            if waits && (said + 1..=ours).contains(&progress.called) {
                progress.released = ours;
                to.push(*peer);
            }
        }
        if !to.is_empty() {
            self.tell_safe_points(to);
        }
    }

    /// Takes the safe point for unchanged if all members have told each other to be there.
    pub(super) fn agree_on_safe_point(&mut self) {
        let Some(called) = self.safe_points.waiting() else {
            return;
        };
        let vid = self.view().map(|view| view.vid).unwrap_or_default();
        let is_there = |peer: &PeerId| {
            let progress = self.said.others.get(peer);
            progress.is_some_and(|it| it.vid == vid && it.called >= called)
        };
        let others = self.other_members();
        if self.said.own >= called && others.iter().all(is_there) {
            self.take_safe_points(called);
        }
    }

    /// Members know that so many are released.
    fn take_safe_points(&mut self, released: u64) {
        if self.session.holds_lease(self.now) {
            self.safe_points.raise(released);
            self.tell_safe_point();
            self.answer_safe_points();
        }
    }

    fn tell_safe_points(&mut self, to: Vec<PeerId>) {
        let progress = SafePointProgress {
            vid: self.view().map(|view| view.vid).unwrap_or_default(),
            called: self.said.own,
            released: self.safe_points.released(),
        };
        let message = PeerToPeer::SafePoint(progress);
        self.outputs.push_back(Output::Say { message, to });
    }

    /// Whether members decide by themselves: units enter several groups at one safe point, which
    /// only the master knows.
    fn agrees_on_safe_points(&self) -> bool {
        let members_agree = self.phase.membership().is_some_and(|membership| {
            let world_size = membership.members.world_size();
            membership.view.costs.members_agree(world_size)
        });
        members_agree && self.setup.unit_size.is_none()
    }

    fn other_members(&self) -> Vec<PeerId> {
        let me = self.session.peer();
        let members = self.phase.membership().map(|it| it.members.to_vec());
        let others = members.unwrap_or_default().into_iter();
        others.filter(|peer| Some(*peer) != me).collect()
    }

    /// How many safe points the master should release ahead.
    pub(super) fn safe_points_ahead(&self) -> u32 {
        if self.setup.unit_size.is_some() || matches!(self.phase, Phase::Newcomer) {
            return 0;
        }
        self.stride.ahead(self.session.round_trip())
    }
}

/// Shortest round trip to the master that is worth saving: longer than that of a local network,
/// where a newcomer should not wait a step longer than it must.
const ROUND_TRIP_MIN: Duration = Duration::from_millis(2);
/// In steps as long as this many round trips, saving one is not worth it.
const LONG_STEPS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of `step_ms`, and a master that is `round_trip_us` away.
    fn ahead(step_ms: u64, round_trip_us: u64) -> u32 {
        let mut stride = Stride::default();
        for index in 0..3 {
            stride.note(Instant(index * step_ms * 1_000_000));
        }
        stride.ahead(Some(Duration::from_micros(round_trip_us)))
    }

    #[test]
    fn two_round_trips_of_steps_are_released_ahead() {
        assert_eq!(ahead(10, 50_000), 10);
        assert_eq!(ahead(30, 50_000), 4);
        assert_eq!(ahead(1, 50_000), 64, "the limit");
    }

    #[test]
    fn nothing_is_released_ahead_where_it_saves_little() {
        assert_eq!(ahead(1, 1_999), 0, "the master is near");
        assert_eq!(ahead(1, 2_000), 4);
        assert_eq!(ahead(1_000, 50_000), 0, "a step takes twenty round trips");
        assert_eq!(ahead(999, 50_000), 1);
        assert_eq!(ahead(0, 50_000), 0, "nothing is known of steps");
        assert_eq!(Stride::default().ahead(None), 0);
    }
}
