//! Units that are admitted as one: all their peers, to all their groups (R9).
//!
//! A group never looks at another; here the master does. Members of a unit move in lockstep, so a
//! group that admits one of its newcomers a safe point before another group does makes its members
//! wait for a unit that waits for them.

use std::collections::BTreeSet;

use super::Master;
use super::admission::{self, Turn};
use super::group::Group;
use super::phase::Phase;
use super::shared::Shared;
use crate::ids::{PeerId, UnitId};
use crate::wire::control::EvictReason;

/// Where a unit stands whose newcomers wait for each other.
enum Standing {
    /// Some are not registered, or not ready.
    Incomplete,
    /// Some were admitted without the others: only a restart of the master between the admissions
    /// does that, or peers that disagree on their unit.
    Torn,
    /// All are ready. They enter at safe point k, which nobody has called in any of their groups.
    Whole(u64),
}

impl Master {
    /// Tells whole units their turn, as far as the groups in hand may have made them whole.
    pub(super) fn call_units(&mut self) {
        for unit in self.waiting_units() {
            let mates = self.shared.sessions.of_unit(unit);
            match self.standing(&mates) {
                Standing::Incomplete => {}
                Standing::Torn => {
                    let waits = mates
                        .iter()
                        .find(|peer| self.turn(**peer) == Some(Turn::Waits));
                    if let Some(&peer) = waits {
                        self.shared.condemn(peer, EvictReason::UnitTorn);
                    }
                }
                Standing::Whole(point) => mates.iter().for_each(|&peer| self.tell(peer, point)),
            }
        }
    }

    fn waiting_units(&self) -> BTreeSet<UnitId> {
        let groups = self.touched.iter().filter_map(|id| self.groups.get(id));
        let newcomers = groups.flat_map(|group| &group.newcomers);
        let waiting = newcomers.filter(|(_, newcomer)| newcomer.turn == Turn::Waits);
        let sessions = waiting.filter_map(|(peer, _)| self.shared.sessions.get(*peer));
        sessions.map(|session| session.registration.unit).collect()
    }

    fn standing(&self, mates: &[PeerId]) -> Standing {
        let sessions = mates
            .iter()
            .filter_map(|peer| self.shared.sessions.get(*peer));
        let sizes = sessions.filter_map(|session| session.registration.unit_size);
        let size = sizes.max().unwrap_or(1) as usize;
        if mates.len() > size {
            // One of them is dead, and will be found out.
            return Standing::Incomplete;
        }
        let mut is_whole = mates.len() == size;
        let mut point = 0;
        let mut is_torn = false;
        for &peer in mates {
            let group = &self.groups[&self.group_of(peer)];
            if matches!(group.phase, Phase::Rebuild(_)) {
                return Standing::Incomplete;
            }
            is_torn |= !matches!(self.turn(peer), Some(Turn::Waits | Turn::Any));
            let beside = mates.iter().filter(|mate| **mate != peer);
            is_whole &= group.is_ready(&self.shared, peer)
                && admission::are_all_linked(&group.newcomers, peer, beside);
            point = point.max(group.safe.next());
        }
        match (is_torn, is_whole) {
            (true, _) => Standing::Torn,
            (false, true) => Standing::Whole(point),
            (false, false) => Standing::Incomplete,
        }
    }

    /// `None` for a member.
    fn turn(&self, peer: PeerId) -> Option<Turn> {
        let group = self.groups.get(&self.group_of(peer))?;
        Some(group.newcomers.get(&peer)?.turn)
    }

    fn tell(&mut self, peer: PeerId, point: u64) {
        let group = self.group_of(peer);
        self.with_group(group, |group, _| {
            if let Some(newcomer) = group.newcomers.get_mut(&peer) {
                newcomer.turn = Turn::At(point);
            }
        });
    }
}

impl Group {
    fn is_ready(&self, shared: &Shared, peer: PeerId) -> bool {
        let members = self.view.peers().into_iter().collect();
        admission::is_ready(peer, &members, &self.newcomers, shared.now)
    }

    /// Gives up newcomers of whole units that are not among the first members: the others of their
    /// unit may be, in their groups.
    pub(super) fn give_up_left_out(&self, shared: &mut Shared) {
        for (&peer, newcomer) in &self.newcomers {
            if matches!(newcomer.turn, Turn::At(_)) {
                shared.condemn(peer, EvictReason::UnitTorn);
            }
        }
    }

    /// Gives up newcomers whose safe point was released without them, because a link of theirs had
    /// broken or a member gave up: the others of their unit may be members by now, and are waited
    /// for.
    pub(super) fn give_up_late(&self, shared: &mut Shared) {
        for (&peer, newcomer) in &self.newcomers {
            if matches!(newcomer.turn, Turn::At(point) if point < self.safe.released) {
                shared.condemn(peer, EvictReason::UnitTorn);
            }
        }
    }
}
