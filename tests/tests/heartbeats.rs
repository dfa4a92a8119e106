//! Signs of life leave in time whatever a peer has to move.

use std::time::Duration;

use ccl_tests::heartbeats::{Load, measure};

/// Goal: the machine's lock is not held over long copies. A lonely peer reduces in place: its input
/// is copied aside and, after the commit, copied back, which takes hundreds of milliseconds each.
///
/// 1. Its signs of life are timed on their way to the master.
/// 2. None is late by a quarter of the call; under the lock each copy would delay one by nearly
///    half.
#[test]
fn signs_of_life_go_on_while_a_large_result_is_copied() {
    let lateness = measure(Load {
        peers: 1,
        tags: 1,
        bytes: 512 << 20,
        rounds: 1,
        interval: Duration::from_millis(10),
    });
    assert!(lateness.most < lateness.total / 4, "{lateness:?}");
}
