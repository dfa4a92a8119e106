//! Chooses the algorithm of an operation whose caller leaves the choice to the library.
//!
//! A pure function of what all members of a view share, so that all choose alike (R12).

use crate::limits;
use crate::reduce::AVERAGE_INPUTS_MAX;
use crate::wire::control::{Algorithm, CostTable, Kind};

/// What of an operation the choice depends on, beside its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// World size.
    pub world_size: usize,
    /// Bytes of all its buffers together.
    pub bytes: usize,
    /// Whether integers are averaged, in any buffer.
    pub is_integer_average: bool,
}

/// The algorithm for a collective of this kind and extent: never `Auto`.
///
/// `called` is what the caller asked for. Ring exists for all-reduce only; other kinds use direct
/// even if ring was asked for. A ring of two members moves the same bytes as direct in more hops,
/// but is kept when asked for, so that its bits stay those of the ring. What is small enough to go
/// eagerly takes two hops with direct whatever the world, so `Auto` never sends it around. The sum
/// of an average of integers does not fit the elements that travel around a ring, so it is made in
/// one place: direct, even if ring was asked for.
#[must_use]
pub fn choose_algorithm(
    kind: Kind,
    called: Algorithm,
    extent: Extent,
    costs: &CostTable,
) -> Algorithm {
    let is_small = extent.bytes <= limits::EAGER_BYTES_MAX;
    let is_narrow = extent.world_size <= costs.direct_world_max as usize;
    match called {
        _ if kind != Kind::AllReduce => Algorithm::TwoShot,
        Algorithm::OneShot => Algorithm::OneShot,
        _ if extent.is_integer_average => Algorithm::TwoShot,
        Algorithm::Auto if is_small || is_narrow => Algorithm::TwoShot,
        Algorithm::Auto | Algorithm::Ring => Algorithm::Ring,
        Algorithm::TwoShot => Algorithm::TwoShot,
    }
}

const _: () = assert!(limits::WORLD_SIZE_MAX <= AVERAGE_INPUTS_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(kind: Kind, called: Algorithm, world_size: usize, bytes: usize) -> Algorithm {
        let costs = CostTable {
            direct_world_max: 4,
            ..CostTable::default()
        };
        let extent = Extent {
            world_size,
            bytes,
            is_integer_average: false,
        };
        choose_algorithm(kind, called, extent, &costs)
    }

    #[test]
    fn small_worlds_go_direct_and_large_ones_around_the_ring() {
        let choose = |called, n| choose(Kind::AllReduce, called, n, 1 << 20);
        assert_eq!(choose(Algorithm::Auto, 4), Algorithm::TwoShot);
        assert_eq!(choose(Algorithm::Auto, 5), Algorithm::Ring);
        assert_eq!(choose(Algorithm::TwoShot, 5), Algorithm::TwoShot);
        assert_eq!(choose(Algorithm::Ring, 2), Algorithm::Ring);
    }

    #[test]
    fn small_operations_go_direct_unless_told_otherwise() {
        let choose = |called, bytes| choose(Kind::AllReduce, called, 9, bytes);
        let small = limits::EAGER_BYTES_MAX;
        assert_eq!(choose(Algorithm::Auto, small), Algorithm::TwoShot);
        assert_eq!(choose(Algorithm::Auto, small + 1), Algorithm::Ring);
        assert_eq!(choose(Algorithm::Ring, small), Algorithm::Ring);
    }

    #[test]
    fn only_all_reduce_goes_around_the_ring() {
        for kind in [
            Kind::ReduceScatter,
            Kind::AllGather,
            Kind::Broadcast,
            Kind::Barrier,
        ] {
            for called in [Algorithm::Auto, Algorithm::Ring] {
                assert_eq!(choose(kind, called, 9, 1 << 20), Algorithm::TwoShot);
            }
        }
    }

    #[test]
    fn averages_of_integers_never_go_around_the_ring() {
        let costs = CostTable {
            direct_world_max: 4,
            ..CostTable::default()
        };
        let extent = Extent {
            world_size: 9,
            bytes: 1 << 20,
            is_integer_average: true,
        };
        for called in [Algorithm::Auto, Algorithm::Ring, Algorithm::TwoShot] {
            let chosen = choose_algorithm(Kind::AllReduce, called, extent, &costs);
            assert_eq!(chosen, Algorithm::TwoShot);
        }
    }
}
