//! First views while some of the waiting peers have no link to others.

use std::time::Duration;

use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::hermit::Reach;
use ccl_tests::sim::links::{Direction, LinkKey};
use ccl_tests::sim::scenario::{Scenario, size, swarm};
use ccl_tests::sim::swarm::Disk;

/// A first view that needs three members. `reach` says which peers can reach the first peer.
fn waiting(reach: Reach) -> (Scenario, HostId, Vec<HostId>) {
    let mut s = Scenario::empty(swarm(Disk::Full, 3));
    s.world.master_start();
    s.world.plan.hermits.push(reach);
    let hermit = s.join();
    s.pass_ms(100);
    let others = vec![s.join(), s.join(), s.join()];
    (s, hermit, others)
}

/// Goal: a peer that no other peer can reach, and that came first, does not keep the others out.
///
/// 1. It waits, and three others register that are linked with each other.
/// 2. They form the first view, and operations run.
/// 3. Once it can be reached, it is admitted too.
#[test]
fn a_newcomer_that_nobody_reaches_does_not_keep_the_others_out() {
    for reach in [Reach::Nobody, Reach::Only(HostId(1))] {
        let (mut s, hermit, others) = waiting(reach);
        s.view_of(&others);
        s.works(&others, 0);
        assert_eq!(size(&s.world, hermit), 0);
        s.world.end_hermits();
        s.pass_ms(1000);
        s.admit(&others, hermit);
    }
}

/// Goal: two peers that cannot reach each other, but all others, do not keep the others out.
///
/// 1. The two that came first have no link to each other; two others register.
/// 2. The first of the two and the others form the first view.
#[test]
fn a_pair_without_a_link_does_not_keep_the_others_out() {
    let mut s = Scenario::empty(swarm(Disk::Full, 3));
    s.world.master_start();
    let first = s.join();
    s.pass(Duration::from_millis(100));
    let pair = [first, s.join()];
    for way in [Direction::Up, Direction::Down] {
        s.world
            .block_link(LinkKey::new(pair[0], pair[1]), way, true);
    }
    s.pass(Duration::from_millis(100));
    let others = [s.join(), s.join()];
    let founders = [pair[0], others[0], others[1]];
    s.view_of(&founders);
    s.works(&founders, 0);
    assert_eq!(size(&s.world, pair[1]), 0);
}
