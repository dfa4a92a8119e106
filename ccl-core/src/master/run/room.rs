//! Makes room for a new group by dropping one without members. A closed group is dropped as soon
//! as it loses its last member.
//!
//! Dropping a group loses numbers that nobody uses any more, and the content its members sealed
//! last; groups without such content go first. View ids are not reused: later groups start above
//! them.

use crate::ids::GroupId;
use crate::limits;
use crate::master::Master;
use crate::master::group::Group;
use crate::master::history::record::Record;
use crate::mutation::{Mutation, is_active};

impl Master {
    /// Whether this group is known, or can be made.
    pub fn has_room_for(&self, id: GroupId) -> bool {
        self.groups.contains_key(&id)
            || self.groups.len() < limits::GROUPS_MAX
            || self.dispensable().is_some()
    }

    /// Gives a group back if this one is new and there is no room for it.
    pub fn make_room_for(&mut self, id: GroupId) {
        if self.groups.contains_key(&id) || self.groups.len() < limits::GROUPS_MAX {
            return;
        }
        let Some(group) = self.dispensable() else {
            return;
        };
        self.give_back(group);
        self.touched.remove(&group);
    }

    /// Forgets a group without members, except its epochs and, if it was closed, its id.
    pub fn give_back(&mut self, group: GroupId) {
        let gone = self.groups.remove(&group).expect("the caller found it");
        self.epochs = self.epochs.max(gone.view.vid.epoch);
        if gone.is_closed && !is_active(Mutation::UsedIdForgotten) {
            self.used.add(group);
        }
        let epochs = self.epochs;
        self.shared
            .outbox
            .seal_lazily(Record::GroupGivenBack { group, epochs });
    }

    /// The group to drop first: the one that has been empty longest.
    fn dispensable(&self) -> Option<GroupId> {
        let is_over = |group: &Group| group.leased_until(self.shared.real_now).is_none();
        let nobody =
            |group: &Group| group.is_founding() && group.newcomers.is_empty() && is_over(group);
        let groups = self.groups.iter().filter(|(_, group)| nobody(group));
        let rank = |group: &Group| (group.ledger.sealed_state.is_some(), group.empty_since);
        let least = groups.min_by_key(|(_, group)| rank(group));
        least.map(|(id, _)| *id)
    }
}
