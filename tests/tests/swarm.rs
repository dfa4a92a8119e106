//! Seeds of the simulator that run with every build; `simulate` runs any number of them.

use std::time::Duration;

use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::report::Stats;
use ccl_tests::sim::run::come_to_rest;
use ccl_tests::sim::run_seed;
use ccl_tests::sim::scenario::{Scenario, swarm};
use ccl_tests::sim::swarm::Disk;

/// Each seed has enough operations and faults, and no checker finds a violation.
#[test]
fn two_hundred_seeds_find_nothing() {
    let mut total = Stats::default();
    for seed in 0..200 {
        match run_seed(seed) {
            Ok(outcome) => {
                let (operations, faults) = outcome.stats.totals();
                assert!(
                    operations >= 20 && faults >= 3,
                    "seed {seed} did too little"
                );
                total.merge(&outcome.stats);
            }
            Err(failure) => {
                for line in &failure.lines {
                    println!("{line}");
                }
                panic!(
                    "seed {seed}: {}\nreplay: cargo run --release -p ccl-tests --bin simulate -- \
                     --seed {seed} --verbose",
                    failure.what
                );
            }
        }
    }
    println!("{total}\n{}", total.coverage());
    assert!(
        total.committed > 10_000,
        "a run in which little succeeds shows little"
    );
    assert!(total.aborted > 100 && total.unknown > 10);
    assert!(
        total.units > 100,
        "{} hosts with several processes admitted",
        total.units
    );
    assert!(
        total.returns > 10_000,
        "{} tags begun anew, by host",
        total.returns
    );
    let ends = [
        "committed",
        "restored",
        "keys",
        "strategies",
        "no source",
        "ahead",
        "lost",
        "sender",
    ];
    for end in ends {
        let told = total.syncs.get(end).copied().unwrap_or_default();
        assert!(told > 100, "syncs ended as {end} {told} times only");
    }
    let unchecked = total.syncs.get("unchecked").copied().unwrap_or_default();
    assert!(
        unchecked * 50 < total.syncs["committed"],
        "{unchecked} elections could not be checked"
    );
}

/// Goal: all members of a group are evicted while the world comes to rest. It rests when others
/// have waited for the ends of their leases (R19), and those of other groups know of them.
#[test]
fn a_world_rests_only_when_lost_groups_are_founded_anew() {
    let mut swarm = swarm(Disk::Full, 2);
    swarm.fsync = Duration::from_millis(100);
    let mut s = Scenario::empty(swarm);
    s.found(2);
    let other = s.join_group(1);
    s.view_of(&[other]);
    let members = [HostId(0), HostId(1)];
    for host in members {
        s.world.block_control(host, Some(true), Some(true));
    }
    s.join();
    s.until("the evictions", |world| {
        members.iter().all(|host| {
            let host = &world.hosts[host.0];
            let peer = host.peer.peer().expect("it is a member");
            world.checkers.is_evicted(host.run, peer)
        })
    });
    come_to_rest(&mut s.world);
    s.check();
}
