//! The census: the world size of every group, sent to each peer in heartbeat replies.
//!
//! Nothing is decided by it. It is recounted after each input, so groups need not know each other,
//! and sent in full with each reply, so the master need not remember what it sent to whom.

use std::collections::BTreeMap;

use crate::ids::{GroupId, PeerId};
use crate::limits::PEERS_MAX;
use crate::master::Master;
use crate::master::group::Group;
use crate::wire::control::OtherGroups;

/// The groups that have members.
#[derive(Debug, Default)]
pub struct Census {
    sizes: BTreeMap<GroupId, u32>,
    /// How many groups there are of each size.
    of_size: BTreeMap<u32, u32>,
    members: u32,
}

impl Census {
    /// Sets the number of members of a group.
    pub fn set(&mut self, group: GroupId, size: u32) {
        let before = match size {
            0 => self.sizes.remove(&group),
            _ => self.sizes.insert(group, size),
        };
        if let Some(before) = before {
            self.members -= before;
            let count = self
                .of_size
                .get_mut(&before)
                .expect("each group is counted under its size");
            *count -= 1;
            if *count == 0 {
                self.of_size.remove(&before);
            }
        }
        if size > 0 {
            self.members += size;
            *self.of_size.entry(size).or_default() += 1;
        }
    }

    /// What a member of a group learns about the other groups.
    pub fn beside(&self, group: GroupId) -> OtherGroups {
        let own = self.sizes.get(&group).copied();
        let is_other = |&(&size, &count): &(&u32, &u32)| count > 1 || Some(size) != own;
        let largest = self.of_size.iter().rev().find(is_other);
        // While several groups are rebuilt, members that have not attached yet are counted.
        let most = u32::try_from(PEERS_MAX).expect("it is far below 2^32");
        let groups = self.sizes.len() - usize::from(own.is_some());
        OtherGroups {
            members: (self.members - own.unwrap_or(0)).min(most),
            groups: u32::try_from(groups).expect("at most GROUPS_MAX"),
            largest: largest.map_or(0, |(&size, _)| size),
        }
    }
}

impl Master {
    /// Recounts a group.
    pub fn count(&mut self, id: GroupId) {
        let group = self.groups.get(&id);
        let size = group.map_or(0, Group::population);
        let size = u32::try_from(size).expect("at most WORLD_SIZE_MAX");
        self.census.set(id, size);
    }

    /// What a session learns about the other groups.
    pub fn others(&self, peer: PeerId) -> OtherGroups {
        self.census.beside(self.group_of(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(sizes: &[(u64, u32)], group: u64) -> (u32, u32, u32) {
        let mut census = Census::default();
        for &(group, size) in sizes {
            census.set(GroupId(group), size);
        }
        let others = census.beside(GroupId(group));
        (others.members, others.groups, others.largest)
    }

    #[test]
    fn the_own_group_is_left_out_even_if_another_is_as_large() {
        assert_eq!(counted(&[], 0), (0, 0, 0));
        assert_eq!(counted(&[(0, 3)], 0), (0, 0, 0));
        assert_eq!(counted(&[(0, 3)], 1), (3, 1, 3));
        assert_eq!(counted(&[(0, 3), (1, 3), (2, 1)], 0), (4, 2, 3));
        assert_eq!(counted(&[(0, 5), (1, 3), (2, 1)], 0), (4, 2, 3));
    }

    #[test]
    fn groups_that_shrink_or_end_are_counted_anew() {
        assert_eq!(counted(&[(0, 9), (0, 2), (1, 1)], 1), (2, 1, 2));
        assert_eq!(counted(&[(0, 2), (1, 1), (0, 0), (0, 0)], 1), (0, 0, 0));
    }

    #[test]
    fn more_than_a_master_serves_are_never_told() {
        let claimed: Vec<_> = (1..9).map(|group| (group, 256)).collect();
        assert_eq!(counted(&claimed, 0), (PEERS_MAX as u32, 8, 256));
    }
}
