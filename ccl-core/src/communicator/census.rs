//! How many peers the run has outside this peer's own group.

use crate::communicator::Communicator;

/// Member counts of the whole run. Newcomers do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Members of all groups together.
    pub global_world_size: u32,
    /// Groups that have members, including this peer's.
    pub groups: u32,
    /// Members of the largest group.
    pub largest_group: u32,
}

impl Communicator {
    /// How many members and groups the run has. For this peer's group this is its `world_size`. The
    /// rest is for information only: the master sends it in heartbeats, so it may be one
    /// `heartbeat_interval` old, or older while there is no master, and members may see different
    /// numbers. Do not base on it anything that all members must do alike. Does not block.
    #[must_use]
    pub fn census(&self) -> Census {
        let (own, others) = (self.world_size(), self.session().other_groups());
        Census {
            global_world_size: own + others.members,
            groups: 1 + others.groups,
            largest_group: own.max(others.largest),
        }
    }
}
