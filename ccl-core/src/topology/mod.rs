//! The order in which a view's members form the ring.
//!
//! Pure, and decided by the master alone: the order travels in `Install`, so that all members use
//! the same one. It is rank order as long as the master knows nothing about the links between
//! members.

use crate::ids::Rank;
use crate::wire::control::Member;

/// The ring through these members, which are in rank order: each rank is followed by its next, the
/// last one by the first.
#[must_use]
pub fn ring_order(members: &[Member]) -> Vec<Rank> {
    (0u32..)
        .zip(members)
        .map(|(index, _)| Rank(index))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LinkKey, MemberNumber, PeerId, UnitId};

    fn member(peer: u64) -> Member {
        Member {
            peer: PeerId(peer),
            number: MemberNumber(peer),
            unit: UnitId(peer),
            addresses: Vec::new(),
            key: LinkKey(0),
            name: String::new(),
        }
    }

    #[test]
    fn ring_names_each_rank_once() {
        assert_eq!(ring_order(&[]), []);
        assert_eq!(ring_order(&[member(4)]), [Rank(0)]);
        let members = [member(4), member(7), member(9)];
        assert_eq!(ring_order(&members), [Rank(0), Rank(1), Rank(2)]);
    }
}
