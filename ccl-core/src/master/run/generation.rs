//! Generations of a unit: which of its sessions belong together (R9).
//!
//! A restarted host registers new peers while the master may still consider the old ones alive. The
//! new peers are the unit's next generation: they wait until the previous one is gone, and are not
//! lost with it. If the previous one turns out to be alive, the unit has too many peers.

use std::collections::BTreeMap;

use crate::ids::{PeerId, UnitId};
use crate::master::run::Hello;
use crate::master::{Master, Registration};
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::{EvictReason, UnitCount};

/// Generations in a passing state, by their first peer.
#[derive(Debug, Default)]
pub struct Units {
    /// Newcomers whose unit has an earlier generation, and since when they wait for its end.
    successors: BTreeMap<PeerId, Instant>,
    /// Generations some of whose peers are gone and some are members.
    ending: BTreeMap<PeerId, Ending>,
}

/// A unit that ends although none of its peers was lost.
#[derive(Debug)]
struct Ending {
    /// The member that left. `None`: a peer that the master before knew may still attach.
    left: Option<PeerId>,
    /// Until when the others may stay.
    until: Instant,
}

impl Units {
    /// When the next peer must go.
    pub fn deadline(&self) -> Option<Instant> {
        self.ending.values().map(|ending| ending.until).min()
    }
}

impl Master {
    /// The generation of its unit that a newcomer belongs to: the newest, as long as it is not
    /// complete. `None`: it begins one.
    pub fn generation_of(&self, hello: &Hello) -> Result<Option<PeerId>, String> {
        let Some(unit) = hello.unit else {
            return Ok(None);
        };
        let known = self.shared.sessions.of_unit(unit);
        let Some(newest) = known.map(|known| known.registration.generation).max() else {
            return Ok(None);
        };
        let mates = self.shared.sessions.of_generation(newest);
        let differing = mates
            .iter()
            .find(|mate| self.size_of(**mate) != hello.unit_size);
        if let Some(&mate) = differing {
            // A peer that is not connected may be left over from an earlier start with another
            // size.
            return match self.shared.sessions.connection(mate) {
                Some(_) => Err(self.disagreement(unit, mate, hello.unit_size)),
                None => Ok(None),
            };
        }
        let Some(size) = hello.unit_size else {
            return Ok(Some(newest));
        };
        let is_complete = mates.len() >= size as usize;
        let is_begun = mates.iter().any(|mate| !self.is_newcomer(*mate));
        let mut condemned = self.shared.condemned.iter();
        let is_lost = condemned.any(|(peer, _)| mates.contains(peer));
        let is_open = !is_complete && !is_begun && !is_lost;
        Ok(is_open.then_some(newest))
    }

    fn disagreement(&self, unit: UnitId, mate: PeerId, size: Option<u32>) -> String {
        let words = |size: Option<u32>| size.map_or("none".into(), |size| size.to_string());
        let (theirs, mine) = (words(self.size_of(mate)), words(size));
        format!(
            "unit_size of unit {unit} is {mine} for this peer but {theirs} for peer {mate}: set \
             the same for all peers of a unit, and a different unit for each host; if that peer is \
             left over from an earlier start, wait until it is gone"
        )
    }

    /// The generation of a unit whose peers are members.
    pub fn generation_of_members(&self, unit: UnitId) -> Option<PeerId> {
        let mut sessions = self.shared.sessions.of_unit(unit);
        let member = sessions.find(|session| !self.is_newcomer(session.registration.peer))?;
        Some(member.registration.generation)
    }

    /// The earliest generation of its unit, for which later ones wait.
    pub fn oldest_generation(&self, generation: PeerId) -> PeerId {
        let Some(first) = self
            .shared
            .sessions
            .of_generation(generation)
            .first()
            .copied()
        else {
            return generation;
        };
        let session = self
            .shared
            .sessions
            .get(first)
            .expect("it was found just now");
        let all = self.shared.sessions.of_unit(session.registration.unit);
        let oldest = all.map(|session| session.registration.generation).min();
        oldest.unwrap_or(generation)
    }

    /// What a newcomer that waits for others of its unit learns about them.
    pub fn count_unit(&self, peer: PeerId) -> Option<UnitCount> {
        let registration = &self.shared.sessions.get(peer)?.registration;
        let size = registration.unit_size.filter(|_| self.is_newcomer(peer))?;
        let mates = self.shared.sessions.of_generation(registration.generation);
        Some(UnitCount {
            unit: registration.unit,
            registered: u32::try_from(mates.len()).expect("at most PEERS_MAX"),
            size,
        })
    }

    /// A newcomer was registered: notes it if an earlier generation of its unit is still there.
    pub fn note_successor(&mut self, peer: PeerId) {
        let session = self.shared.sessions.get(peer).expect("it was registered");
        let own = session.registration.generation;
        let waits = session.registration.unit_size.is_some();
        if waits && self.oldest_generation(own) != own {
            self.units.successors.insert(peer, self.shared.now);
        }
    }

    /// Refuses newcomers whose unit is complete without them: all peers of the generation before
    /// were heard two heartbeats after these came, when last messages of dead peers have arrived.
    pub fn refuse_successors(&mut self) {
        let margin = self.shared.timers.heartbeat_interval * 2;
        for (peer, since) in self.units.successors.clone() {
            let Some(session) = self.shared.sessions.get(peer) else {
                self.units.successors.remove(&peer);
                continue;
            };
            let registration = &session.registration;
            let (own, unit) = (registration.generation, registration.unit);
            let oldest = self.oldest_generation(own);
            if oldest == own {
                self.units.successors.remove(&peer);
                continue;
            }
            let before = self.shared.sessions.of_generation(oldest);
            let size = self.size_of(before[0]).unwrap_or_default();
            let sessions = before
                .iter()
                .filter_map(|peer| self.shared.sessions.get(*peer));
            let alive = sessions.filter(|session| session.was_heard_after(since + margin));
            if alive.count() == before.len() && before.len() >= size as usize {
                let reason = EvictReason::UnitFull { unit, size };
                self.shared.condemn(peer, reason);
            }
        }
    }

    /// A session is over, and with it those of its unit. If a member left, the others have some
    /// time to finish and follow.
    pub fn end_unit(&mut self, gone: &Registration, reason: &EvictReason) {
        let peer = gone.peer;
        let group = self.groups.get(&gone.group);
        let was_member = group.is_some_and(|group| !group.is_newcomer(peer));
        let told = match reason {
            EvictReason::UnitTorn | EvictReason::UnitLeft(_) | EvictReason::UnitFull { .. } => {
                reason.clone()
            }
            _ => EvictReason::Unit(peer),
        };
        let mates = self.shared.sessions.of_generation(gone.generation);
        if mates.is_empty() {
            self.units.ending.remove(&gone.generation);
        }
        for mate in mates {
            if *reason == EvictReason::Left && was_member && !self.is_newcomer(mate) {
                let until = self.shared.now + self.shared.timers.peer_timeout;
                let left = Some(peer);
                let known = self.units.ending.get(&gone.generation);
                if known.is_none_or(|known| known.left.is_none()) {
                    let ending = Ending { left, until };
                    self.units.ending.insert(gone.generation, ending);
                }
            } else if !is_active(Mutation::UnitOutlivesPeer) {
                self.shared.condemn(mate, told.clone());
            }
        }
        // The next generation may have been waiting for this.
        let sessions = self.shared.sessions.of_unit(gone.unit);
        let groups = sessions.map(|session| session.registration.group);
        self.touched.extend(groups);
    }

    /// After a restart: members of units whose other peers this master does not know. These may
    /// still attach in a group that is resumed late, unless the master before saw them leave.
    pub fn note_short_units(&mut self) {
        let timers = &self.shared.timers;
        let until = self.shared.now + timers.peer_timeout.max(timers.rebuild_window);
        let peers: Vec<_> = self.shared.sessions.iter().map(|(peer, _)| *peer).collect();
        for peer in peers {
            let generation = self.generation(peer);
            if self.is_short(generation) && self.is_taken_up(peer) {
                let ending = Ending { left: None, until };
                self.units.ending.entry(generation).or_insert(ending);
            }
        }
    }

    fn is_short(&self, generation: PeerId) -> bool {
        let mates = self.shared.sessions.of_generation(generation);
        let size = mates.first().and_then(|mate| self.size_of(*mate));
        size.is_some_and(|size| mates.len() < size as usize)
    }

    /// Evicts what is left of units that have ended.
    pub fn expire_units(&mut self) {
        let now = self.shared.now;
        let ending = std::mem::take(&mut self.units.ending);
        let (due, later) = ending
            .into_iter()
            .partition(|(_, ending)| ending.until <= now);
        self.units.ending = later;
        let due: BTreeMap<PeerId, Ending> = due;
        for (generation, ending) in due {
            if ending.left.is_none() && !self.is_short(generation) {
                continue;
            }
            let reason = ending
                .left
                .map_or(EvictReason::UnitTorn, EvictReason::UnitLeft);
            for mate in self.shared.sessions.of_generation(generation) {
                self.shared.condemn(mate, reason.clone());
            }
        }
    }

    pub fn generation(&self, peer: PeerId) -> PeerId {
        let session = self.shared.sessions.get(peer);
        session.map_or(peer, |session| session.registration.generation)
    }

    fn size_of(&self, peer: PeerId) -> Option<u32> {
        self.shared.sessions.get(peer)?.registration.unit_size
    }

    /// Whether a session waits to be admitted.
    fn is_newcomer(&self, peer: PeerId) -> bool {
        let group = self.groups.get(&self.group_of(peer));
        group.is_some_and(|group| group.is_newcomer(peer))
    }

    /// Whether a session is a member of a group that is not being rebuilt.
    fn is_taken_up(&self, peer: PeerId) -> bool {
        let group = self.groups.get(&self.group_of(peer));
        group.is_some_and(|group| group.view.contains(peer) && group.is_member(&self.shared, peer))
    }
}
