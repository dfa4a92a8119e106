//! Closed groups: which newcomers may wait for one. Once it has formed, none may (R21).

use crate::master::Master;
use crate::master::group::Group;
use crate::master::group::admission::Newcomer;
use crate::master::group::phase::Phase;
use crate::master::run::Hello;
use crate::master::shared::Shared;
use crate::mutation::{Mutation, is_active};
use crate::wire::control::{EvictReason, Place, group_taken};

impl Master {
    /// Why this newcomer cannot wait for its group, if it cannot: the group has formed, or others
    /// wait for it with another list.
    pub fn roster_objection(&self, hello: &Hello) -> Option<String> {
        if let Some(place) = hello.place {
            if hello.unit_size.is_some() {
                return Some("unit_size cannot be combined with a closed group".into());
            }
            if hello.min_world != place.size {
                return Some(format!(
                    "min_world of a closed group is its size, {}",
                    place.size
                ));
            }
        }
        let id = hello.group;
        if self.used.contains(id) {
            return Some(group_taken(id));
        }
        let group = self.groups.get(&id)?;
        if group.excludes(hello.place) {
            return Some(group_taken(id));
        }
        let first = group.newcomers.values().next()?;
        (!wait_together(first.place, hello.place)).then(|| {
            let describe = |place: Option<Place>| {
                place.map_or("an open group".into(), |place| place.to_string())
            };
            format!(
                "group {id} is being formed by others, with another list of members (this peer: \
                 {}; the first of them: {}): give all of its members the same list, and each \
                 group an id of its own",
                describe(hello.place),
                describe(first.place)
            )
        })
    }

    /// Evicts the newcomer that had this place before: it has ended without the master's notice,
    /// or is one process too many.
    pub fn take_place(&mut self, hello: &Hello) {
        let (Some(place), Some(group)) = (hello.place, self.groups.get(&hello.group)) else {
            return;
        };
        let has_place =
            |newcomer: &Newcomer| newcomer.place.is_some_and(|it| it.rank == place.rank);
        let mut newcomers = group.newcomers.iter();
        if let Some((&peer, _)) = newcomers.find(|(_, newcomer)| has_place(newcomer)) {
            let rank = place.rank;
            self.evict(peer, EvictReason::PlaceTaken { rank });
        }
    }
}

impl Group {
    /// Whether no newcomer with such a place can be admitted.
    fn excludes(&self, place: Option<Place>) -> bool {
        if is_active(Mutation::ClosedLetsIn) {
            return false;
        }
        let has_formed = self.view.vid.term.0 > 0;
        self.is_closed || place.is_some() && has_formed
    }

    /// Evicts newcomers that came too late, which may become known only once a group is rebuilt.
    pub fn refuse_outsiders(&self, shared: &mut Shared) {
        if matches!(self.phase, Phase::Rebuild(_)) {
            return;
        }
        let group = self.id;
        let outside = |newcomer: &Newcomer| self.excludes(newcomer.place);
        let outsiders = self
            .newcomers
            .iter()
            .filter(|(_, newcomer)| outside(newcomer));
        for (peer, _) in outsiders {
            shared.condemn(*peer, EvictReason::GroupTaken { group });
        }
    }
}

/// Whether two newcomers have the same list, or both want an open group.
fn wait_together(one: Option<Place>, other: Option<Place>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.has_same_list(&other),
        (None, None) => true,
        _ => false,
    }
}
