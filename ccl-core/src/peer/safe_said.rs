//! Safe points that the members agree on without the master (R9, R19).
//!
//! A member that waits at a safe point tells the others so, unless it knows of a newcomer and the
//! master can be asked. When all have told each other, the safe point changes nothing: the master
//! admits nobody at one that all members say in their reports to have told. So, as with `Held`,
//! nothing is told between a report and the view that answers it.

use std::collections::BTreeMap;

use crate::ids::{PeerId, Vid};
use crate::limits;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;

use super::Peer;
use super::io::Output;
use super::phase::Phase;
use crate::wire::word::{SafePointWord, Word};

/// What members have told each other about the safe points of a view.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// How many this peer has told the others to be at or past.
    own: u64,
    /// The newest word of each other member, which may be of a view that is yet to come.
    others: BTreeMap<PeerId, Heard>,
}

/// How far a member is.
#[derive(Clone, Copy, Debug)]
struct Heard {
    vid: Vid,
    called: u64,
    released: u64,
}

/// When safe points are called, from which follows how many should be released ahead.
#[derive(Debug, Default)]
pub(super) struct Stride {
    last: Option<Instant>,
    /// Nanoseconds between two calls: the newest, averaged with those before.
    step: u64,
}

impl Said {
    /// How many this peer has told the others to be at or past.
    pub fn own(&self) -> u64 {
        self.own
    }

    /// Another view is in force.
    pub fn enter(&mut self, vid: Vid) {
        self.own = 0;
        self.others.retain(|_, word| word.vid >= vid);
    }
}

impl Stride {
    /// A safe point is called.
    pub fn note(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            let step = u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX / 2);
            self.step = match self.step {
                0 => step,
                before => before / 2 + step / 2,
            };
        }
    }

    /// Safe points that are called within a round trip to the master, if it is worth it.
    pub fn ahead(&self, round_trip: Option<u64>) -> u32 {
        let Some(round_trip) = round_trip.filter(|nanos| *nanos >= ROUND_TRIP_MIN) else {
            return 0;
        };
        let steps = (2 * round_trip).div_ceil(self.step.max(1));
        let is_short = self.step > 0 && round_trip > self.step / LONG_STEPS;
        let most = limits::SAFE_POINTS_AHEAD_MAX as u64;
        if is_short { steps.min(most) as u32 } else { 0 }
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
    pub(super) fn handle_peer_safe_point(&mut self, peer: PeerId, word: SafePointWord) {
        let SafePointWord {
            vid,
            called,
            released,
        } = word;
        let own = self.view().map(|view| view.vid).unwrap_or_default();
        let others = &mut self.said.others;
        let known = others.get(&peer).map(|known| (known.vid, known.called));
        if vid >= own && Some((vid, called)) > known {
            let heard = Heard {
                vid,
                called,
                released,
            };
            others.insert(peer, heard);
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
        for (peer, heard) in &mut self.said.others {
            let waits = heard.vid == vid && heard.called > heard.released;
            if waits && (said + 1..=ours).contains(&heard.called) {
                heard.released = ours;
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
            let word = self.said.others.get(peer);
            word.is_some_and(|word| word.vid == vid && word.called >= called)
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
        let word = SafePointWord {
            vid: self.view().map(|view| view.vid).unwrap_or_default(),
            called: self.said.own,
            released: self.safe_points.released(),
        };
        let word = Word::SafePoint(word);
        self.outputs.push_back(Output::Say { word, to });
    }

    /// Whether members decide by themselves: units enter several groups at one safe point, which
    /// only the master knows.
    fn agrees_on_safe_points(&self) -> bool {
        let is_direct = self.phase.membership().is_some_and(|membership| {
            let world_size = membership.members.world_size();
            (2..=membership.costs.held_world_max).contains(&world_size)
        });
        is_direct && self.setup.unit_size.is_none()
    }

    fn other_members(&self) -> Vec<PeerId> {
        let me = self.session.peer();
        let members = self.phase.membership().map(|it| it.members.to_vec());
        let others = members.unwrap_or_default().into_iter();
        others.filter(|peer| Some(*peer) != me).collect()
    }

    /// How many safe points the master should release ahead.
    pub(super) fn safe_points_ahead(&self) -> u32 {
        let is_alone = self.setup.unit_size.is_some() || matches!(self.phase, Phase::Newcomer);
        match is_alone {
            true => 0,
            false => self.stride.ahead(self.session.round_trip()),
        }
    }
}

/// Shortest round trip to the master that is worth to be saved, in nanoseconds: beyond that of a
/// local network, where a newcomer should not wait a step longer than it must.
const ROUND_TRIP_MIN: u64 = 2_000_000;
/// In steps of so many round trips one is not worth to be saved.
const LONG_STEPS: u64 = 20;
