//! Heartbeats are sent in time, however much data a peer has to move.

use std::time::Duration;

use ccl_tests::heartbeats::{Load, measure};

/// Goal: the machine's lock is not held during long copies. A single peer reduces in place: its
/// input is copied to a buffer and back after the commit, hundreds of milliseconds each.
///
/// 1. Its heartbeats are timed on their way to the master.
/// 2. None is late by a quarter of the call. Under the lock each copy would delay one by nearly
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
