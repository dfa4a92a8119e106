//! Ids of closed groups that have ended, which no group gets again (R21).

use std::collections::{BTreeSet, VecDeque};

use crate::ids::GroupId;
use crate::limits::USED_GROUPS_MAX;

/// The newest ids; the oldest is forgotten first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsedGroups {
    order: VecDeque<GroupId>,
    all: BTreeSet<GroupId>,
}

impl UsedGroups {
    pub fn add(&mut self, id: GroupId) {
        if !self.all.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > USED_GROUPS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }

    pub fn contains(&self, id: GroupId) -> bool {
        self.all.contains(&id)
    }

    /// The ids, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = GroupId> {
        self.order.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut used = UsedGroups::default();
        for id in 0..USED_GROUPS_MAX as u64 + 2 {
            used.add(GroupId(id));
            used.add(GroupId(id));
        }
        assert_eq!(used.iter().count(), USED_GROUPS_MAX);
        assert!(!used.contains(GroupId(1)));
        assert!(used.contains(GroupId(2)));
        assert_eq!(used.iter().next(), Some(GroupId(2)));
    }
}
