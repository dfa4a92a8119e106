//! How many peers the run has outside this peer's own group.

use crate::communicator::Communicator;

/// Members of a run over all its groups. Newcomers do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Members of all groups together.
    pub global_world_size: u32,
    /// Groups that have members, the own one included.
    pub groups: u32,
    /// Members of the largest group.
    pub largest_group: u32,
}

impl Communicator {
    /// How many members and groups the run has. Of the own group this is its `world_size`. The rest
    /// is for information: the master tells it with its signs of life, so it is as old as one
    /// `heartbeat_interval`, older while there is no master, and members may have different
    /// figures. Nothing that all members must do alike may depend on it. Does not block.
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
