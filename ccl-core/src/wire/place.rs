//! The fixed members of a closed group, as peers announce them (docs/protocol.md, R21).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::Rank;

/// Which list of members a peer was given, and its own place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Digest of the list. Peers with another digest do not form a group with this one.
    pub roster: u128,
    /// Number of members on the list.
    pub size: u32,
    /// This peer's index in it, which is its rank in the group's first view.
    pub rank: Rank,
}

impl Place {
    /// Whether two peers were given the same list.
    #[must_use]
    pub fn has_same_list(&self, other: &Self) -> bool {
        (self.roster, self.size) == (other.roster, other.size)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { roster, size, rank } = self;
        let short = *roster as u32;
        write!(f, "rank {rank} of {size}, list {short:08x}")
    }
}
