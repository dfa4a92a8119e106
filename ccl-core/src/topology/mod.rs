//! The order in which a view's members form the ring, and what moving bytes between them costs.
//!
//! Pure, and decided by the master alone: both travel in `Install`, so that all members use the
//! same. The ring is in rank order as long as the master knows nothing about the links between
//! members.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::ids::Rank;
use crate::paths::Paths;
use crate::wire::control::{CostTable, Member};

/// What moving bytes between these members costs.
#[must_use]
pub fn costs(members: &[Member], paths: &Paths) -> CostTable {
    let mut costs = match paths.round_trip_bytes() {
        None if is_one_host(members) => CostTable::ONE_HOST,
        None => CostTable::default(),
        Some(bytes) => CostTable {
            round_trip_bytes: bytes,
            hop_bytes: bytes / 2,
            ..CostTable::default()
        },
    };
    if costs != CostTable::ONE_HOST && members.len() > 2 {
        costs.direct_percent = SHARED_ACCESS_PERCENT;
    }
    costs.reserve_bytes = paths.reserve_bytes as u64;
    costs
}

/// Whether all members have the same addresses, apart from the ports.
fn is_one_host(members: &[Member]) -> bool {
    let hosts = |member: &Member| -> BTreeSet<IpAddr> {
        let addresses = member.addresses.iter();
        addresses.map(|address| address.ip()).collect()
    };
    let first = members.first().map(hosts).unwrap_or_default();
    !first.is_empty() && members.iter().all(|member| hosts(member) == first)
}

/// The ring through these members, which are in rank order: each rank is followed by its next, the
/// last one by the first.
#[must_use]
pub fn ring_order(members: &[Member]) -> Vec<Rank> {
    (0u32..)
        .zip(members)
        .map(|(index, _)| Rank(index))
        .collect()
}

/// What a byte costs that goes over one of several links at once, in percent of one that goes to a
/// neighbour only: they share the member's access, and fill its queue before each knows its share.
const SHARED_ACCESS_PERCENT: u32 = 115;

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
    fn members_with_the_same_addresses_share_a_host() {
        let at = |peer, addresses: &[&str]| Member {
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            ..member(peer)
        };
        let here = at(1, &["10.0.0.1:1", "[fe80::1]:1"]);
        let beside = at(2, &["[fe80::1]:2", "10.0.0.1:2"]);
        let elsewhere = at(3, &["10.0.0.1:3", "10.0.0.2:3"]);
        let costs = |members: &[Member]| costs(members, &Paths::default());
        assert_eq!(costs(&[here.clone(), beside.clone()]), CostTable::ONE_HOST);
        let apart = costs(&[here.clone(), elsewhere.clone()]);
        assert_eq!(apart, CostTable::default());
        let shared = CostTable {
            direct_percent: SHARED_ACCESS_PERCENT,
            ..CostTable::default()
        };
        assert_eq!(costs(&[here, beside, elsewhere]), shared);
        assert_eq!(costs(&[member(4)]), CostTable::default());
    }

    #[test]
    fn ring_names_each_rank_once() {
        assert_eq!(ring_order(&[]), []);
        assert_eq!(ring_order(&[member(4)]), [Rank(0)]);
        let members = [member(4), member(7), member(9)];
        assert_eq!(ring_order(&members), [Rank(0), Rank(1), Rank(2)]);
    }
}
