//! Which algorithm an operation uses when its caller leaves the choice to the library.
//!
//! A pure function of what all members of a view share, so that all choose the same (R12).

use crate::wire::control::{Algorithm, CostTable, Kind};

/// The algorithm for a collective of this kind in a view of `world_size` members: never `Auto`.
///
/// `called` is what the caller asked for. Ring exists for all-reduce only; other kinds use direct
/// even if ring was asked for. A ring of two members moves the same bytes as direct in more hops,
/// but is kept when asked for, so that its bits stay those of the ring.
#[must_use]
pub fn choose_algorithm(
    kind: Kind,
    called: Algorithm,
    world_size: usize,
    costs: &CostTable,
) -> Algorithm {
    if kind != Kind::AllReduce {
        return Algorithm::Direct;
    }
    match called {
        Algorithm::Direct | Algorithm::Ring => called,
        Algorithm::Auto if world_size <= costs.direct_world_max as usize => Algorithm::Direct,
        Algorithm::Auto => Algorithm::Ring,
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
        let choose = |called, n| choose_algorithm(Kind::AllReduce, called, n, &costs);
        assert_eq!(choose(Algorithm::Auto, 4), Algorithm::Direct);
        assert_eq!(choose(Algorithm::Auto, 5), Algorithm::Ring);
        assert_eq!(choose(Algorithm::Direct, 5), Algorithm::Direct);
        assert_eq!(choose(Algorithm::Ring, 2), Algorithm::Ring);
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
            let chosen = choose_algorithm(kind, Algorithm::Ring, 9, &costs);
            assert_eq!(chosen, Algorithm::Direct);
        }
    }
}
