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
    /// Whether partial sums cannot travel: integers are averaged, or contributions are encoded or
    /// have weights.
    pub is_added_at_once: bool,
}

/// The algorithm for a collective of this kind and extent: never `Auto`.
///
/// `called` is what the caller asked for. Only all-reduce has several; other kinds go straight to
/// owners and back whatever was asked for. What is small enough to go with the posts takes two hops
/// at most whatever the world, so `Auto` never sends it around. The sum of an average of integers
/// does not fit the elements that travel around a ring, nor does one of encoded or weighted
/// contributions, so it is made in one place: two-shot, even if ring was asked for.
#[must_use]
pub fn choose_algorithm(
    kind: Kind,
    called: Algorithm,
    extent: Extent,
    costs: &CostTable,
) -> Algorithm {
    match called {
        _ if kind != Kind::AllReduce => Algorithm::TwoShot,
        Algorithm::Auto => cheapest(extent, costs),
        Algorithm::Ring if extent.is_added_at_once => Algorithm::TwoShot,
        called => called,
    }
}

/// The algorithm that takes the least time: what its hops cost, and the bytes that a member sends.
fn cheapest(extent: Extent, costs: &CostTable) -> Algorithm {
    let members = extent.world_size.max(1) as u128;
    let (hop, bytes) = (u128::from(costs.hop_bytes), extent.bytes as u128);
    let direct = |bytes: u128| bytes * u128::from(costs.direct_percent) / 100;
    let to_owners = 2 * (members - 1) * bytes / members;
    let one_shot = hop + direct((members - 1) * bytes);
    let two_shot = 2 * hop + direct(to_owners);
    let ring = 2 * (members - 1) * hop + to_owners;
    let is_small = extent.bytes <= limits::EAGER_BYTES_MAX;
    let is_wide = extent.world_size > costs.direct_world_max as usize;
    let goes_around = !is_small && (is_wide || ring < one_shot.min(two_shot));
    if goes_around && !extent.is_added_at_once {
        return Algorithm::Ring;
    }
    match one_shot <= two_shot {
        true => Algorithm::OneShot,
        false => Algorithm::TwoShot,
    }
}

const _: () = assert!(limits::WORLD_SIZE_MAX <= AVERAGE_INPUTS_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn choose(called: Algorithm, world_size: usize, bytes: usize, costs: &CostTable) -> Algorithm {
        let extent = Extent {
            world_size,
            bytes,
            is_added_at_once: false,
        };
        choose_algorithm(Kind::AllReduce, called, extent, costs)
    }

    #[test]
    fn the_fewest_hops_win_where_latency_counts_and_the_fewest_bytes_elsewhere() {
        let auto = |n, bytes| choose(Algorithm::Auto, n, bytes, &CostTable::default());
        assert_eq!(auto(2, 4), Algorithm::OneShot);
        assert_eq!(auto(2, 1024 * MIB), Algorithm::OneShot, "it moves as much");
        assert_eq!(auto(4, MIB), Algorithm::OneShot);
        assert_eq!(auto(4, 4 * MIB), Algorithm::TwoShot);
        assert_eq!(auto(16, MIB), Algorithm::TwoShot);
        assert_eq!(auto(64, 1024 * MIB), Algorithm::TwoShot);
        assert_eq!(auto(65, 1024 * MIB), Algorithm::Ring);
    }

    #[test]
    fn on_one_host_large_buffers_go_around_the_ring() {
        let auto = |n, bytes| choose(Algorithm::Auto, n, bytes, &CostTable::ONE_HOST);
        assert_eq!(auto(2, 4), Algorithm::OneShot);
        assert_eq!(auto(4, 64 << 10), Algorithm::TwoShot);
        assert_eq!(auto(8, 64 << 10), Algorithm::TwoShot);
        for n in [2, 4, 8] {
            assert_eq!(auto(n, MIB), Algorithm::Ring);
            assert_eq!(auto(n, 256 * MIB), Algorithm::Ring);
        }
    }

    #[test]
    fn what_was_asked_for_is_done() {
        for called in [Algorithm::OneShot, Algorithm::TwoShot, Algorithm::Ring] {
            for n in [1, 2, 9, 100] {
                assert_eq!(choose(called, n, MIB, &CostTable::default()), called);
            }
        }
    }

    #[test]
    fn small_operations_never_go_around_unasked() {
        let small = limits::EAGER_BYTES_MAX;
        for n in [2, 8, 100, 256] {
            let chosen = choose(Algorithm::Auto, n, small, &CostTable::ONE_HOST);
            assert_ne!(chosen, Algorithm::Ring);
        }
    }

    #[test]
    fn only_all_reduce_has_a_choice() {
        let extent = Extent {
            world_size: 9,
            bytes: MIB,
            is_added_at_once: false,
        };
        for kind in [
            Kind::ReduceScatter,
            Kind::AllGather,
            Kind::Broadcast,
            Kind::Barrier,
        ] {
            for called in [Algorithm::Auto, Algorithm::OneShot, Algorithm::Ring] {
                let chosen = choose_algorithm(kind, called, extent, &CostTable::default());
                assert_eq!(chosen, Algorithm::TwoShot);
            }
        }
    }

    #[test]
    fn averages_of_integers_never_go_around_the_ring() {
        let extent = Extent {
            world_size: 9,
            bytes: MIB,
            is_added_at_once: true,
        };
        for called in [
            Algorithm::Auto,
            Algorithm::Ring,
            Algorithm::TwoShot,
            Algorithm::OneShot,
        ] {
            let costs = CostTable {
                direct_world_max: 4,
                ..CostTable::default()
            };
            let chosen = choose_algorithm(Kind::AllReduce, called, extent, &costs);
            assert_ne!(chosen, Algorithm::Ring);
        }
    }
}
