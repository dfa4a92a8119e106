//! Which algorithm an operation uses when its caller leaves the choice to the library.
//!
//! A pure function of what all members of a view share, so that all choose the same (R12).

use crate::wire::control::{Algorithm, CostTable, Kind};

/// The algorithm for a collective of this kind in a view of `world_size` members.
///
/// `forced` is the caller's choice. Ring exists for all-reduce only; other kinds use direct even if
/// ring was asked for. A ring of one or two members moves the same bytes as direct in more hops,
/// but is kept when forced, so that its bits stay those of the ring.
#[must_use]
pub fn choose_algorithm(
    kind: Kind,
    forced: Option<Algorithm>,
    world_size: usize,
    costs: &CostTable,
) -> Algorithm {
    if kind != Kind::AllReduce {
        return Algorithm::Direct;
    }
    match forced {
        Some(algorithm) => algorithm,
        None if world_size <= costs.direct_world_max as usize => Algorithm::Direct,
        None => Algorithm::Ring,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_worlds_go_direct_and_large_ones_around_the_ring() {
        let costs = CostTable {
            direct_world_max: 4,
        };
        let choose = |forced, n| choose_algorithm(Kind::AllReduce, forced, n, &costs);
        assert_eq!(choose(None, 4), Algorithm::Direct);
        assert_eq!(choose(None, 5), Algorithm::Ring);
        assert_eq!(choose(Some(Algorithm::Direct), 5), Algorithm::Direct);
        assert_eq!(choose(Some(Algorithm::Ring), 2), Algorithm::Ring);
    }

    #[test]
    fn only_all_reduce_goes_around_the_ring() {
        let costs = CostTable {
            direct_world_max: 1,
        };
        for kind in [
            Kind::ReduceScatter,
            Kind::AllGather,
            Kind::Broadcast,
            Kind::Barrier,
        ] {
            let forced = Some(Algorithm::Ring);
            assert_eq!(choose_algorithm(kind, forced, 9, &costs), Algorithm::Direct);
        }
    }
}
