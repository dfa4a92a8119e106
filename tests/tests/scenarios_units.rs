//! Hosts with a peer in each of two groups, which join and fail as one (docs/protocol.md, R9).
//!
//! The peers of a host move in lockstep: none goes on before the others of its host have done the
//! same. So a host that is a member of one group only would stop everybody.

use std::time::Duration;

use ccl_core::peer::SessionEnd;
use ccl_core::wire::control::EvictReason;
use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::links::{Direction, LinkKey};
use ccl_tests::sim::scenario::{Scenario, is_evicted, size, swarm};
use ccl_tests::sim::swarm::Disk;

/// The peers of a host: one in each group.
type Site = [HostId; 2];

const X: Site = [HostId(0), HostId(1)];
const Y: Site = [HostId(2), HostId(3)];
const Z: Site = [HostId(4), HostId(5)];
const DISKS: [Disk; 3] = [Disk::Full, Disk::LazyLost, Disk::None];

/// Two hosts that are members of both groups.
fn two_sites(disk: Disk) -> Scenario {
    let mut swarm = swarm(disk, 2);
    swarm.min_worlds = vec![2, 2];
    (swarm.unit, swarm.unit_size) = (2, Some(2));
    let mut scenario = Scenario::empty(swarm);
    for site in [X, Y] {
        assert_eq!(join(&mut scenario), site);
    }
    scenario.until("the first views", |world| {
        [X, Y].iter().flatten().all(|host| size(world, *host) == 2)
    });
    scenario.world.swarm.min_worlds = vec![1, 1];
    scenario
}

fn join(s: &mut Scenario) -> Site {
    [0, 1].map(|group| s.join_group(group))
}

fn block(s: &mut Scenario, (one, other): (HostId, HostId), is_blocked: bool) {
    for way in [Direction::Up, Direction::Down] {
        let link = LinkKey::new(one, other);
        s.world.block_link(link, way, is_blocked);
    }
}

fn of(sites: &[Site], group: usize) -> Vec<HostId> {
    sites.iter().map(|site| site[group]).collect()
}

/// A step of the lockstep: a safe point in one group, then in the other, then a call in each, which
/// the members of the view make. A host makes calls once all its peers are members.
fn step(s: &mut Scenario, sites: &[Site]) {
    for group in [0, 1] {
        let hosts = of(sites, group);
        let calls: Vec<_> = hosts.iter().map(|host| s.safe_point(*host)).collect();
        s.ends(&hosts, &calls);
    }
    s.pass_ms(50);
    let joined = Z.map(|host| s.world.hosts.len() > host.0 && size(&s.world, host) > 0);
    assert_eq!(joined[0], joined[1], "a host is a member of one group only");
    let mut members = sites.to_vec();
    if joined[0] && !sites.contains(&Z) {
        members.push(Z);
    }
    for group in [0, 1] {
        s.works(&of(&members, group), 0);
    }
}

#[test]
fn host_of_which_one_peer_is_late_enters_both_groups_together() {
    for first in [0, 1] {
        let mut s = two_sites(Disk::Full);
        // The later peer cannot reach one member.
        let late = 1 - first;
        let link = (Z[late], X[late]);
        assert_eq!(join(&mut s), Z);
        block(&mut s, link, true);
        s.pass_ms(600);
        step(&mut s, &[X, Y]);
        assert_eq!(size(&s.world, Z[first]), 0, "it waits for the other");
        // Safe points may be in any state when the host gets whole: here one group has called the
        // next one.
        let early = s.safe_point(X[0]);
        s.end_of(X[0], early);
        block(&mut s, link, false);
        s.pass(Duration::from_secs(3));
        let others = [s.safe_point(Y[0]), s.safe_point(X[1]), s.safe_point(Y[1])];
        s.ends(&[Y[0], X[1], Y[1]], &others);
        assert_eq!(
            Z.map(|host| size(&s.world, host)),
            [0, 0],
            "one group had passed it"
        );
        step(&mut s, &[X, Y]);
        assert_eq!(Z.map(|host| size(&s.world, host)), [3, 3]);
        step(&mut s, &[X, Y, Z]);
    }
}

#[test]
fn host_that_loses_a_peer_before_it_enters_stops_nobody() {
    let mut s = two_sites(Disk::Full);
    assert_eq!(join(&mut s), Z);
    s.pass_ms(600);
    s.world.crash(Z[1], Some(1000));
    let end = s.session_end(Z[0]);
    assert!(
        is_evicted(&end, |why| matches!(why, EvictReason::Unit(_))),
        "{end:?}"
    );
    step(&mut s, &[X, Y]);
}

#[test]
fn host_that_loses_a_peer_between_its_admissions_stops_nobody() {
    let mut s = two_sites(Disk::Full);
    assert_eq!(join(&mut s), Z);
    s.pass_ms(600);
    let hosts = of(&[X, Y], 0);
    let calls: Vec<_> = hosts.iter().map(|host| s.safe_point(*host)).collect();
    s.ends(&hosts, &calls);
    s.view_of(&of(&[X, Y, Z], 0));
    s.world.crash(Z[1], Some(1000));
    let end: SessionEnd = s.session_end(Z[0]);
    assert!(
        is_evicted(&end, |why| matches!(why, EvictReason::Unit(_))),
        "{end:?}"
    );
    s.view_of(&of(&[X, Y], 0));
    let hosts = of(&[X, Y], 1);
    let calls: Vec<_> = hosts.iter().map(|host| s.safe_point(*host)).collect();
    s.ends(&hosts, &calls);
    for group in [0, 1] {
        s.works(&of(&[X, Y], group), 0);
    }
}

/// The master dies when the host is whole, and when it is a member of one group: whatever it finds,
/// the host is in both groups or in none.
#[test]
fn restart_of_the_master_lets_no_half_of_a_host_in() {
    for disk in DISKS {
        for is_half_in in [false, true] {
            let mut s = two_sites(disk);
            assert_eq!(join(&mut s), Z);
            s.pass_ms(600);
            if is_half_in {
                let hosts = of(&[X, Y], 0);
                let calls: Vec<_> = hosts.iter().map(|host| s.safe_point(*host)).collect();
                s.ends(&hosts, &calls);
                s.view_of(&of(&[X, Y, Z], 0));
            }
            s.restart_master(300);
            s.pass(Duration::from_secs(10));
            if is_half_in {
                let hosts = of(&[X, Y], 1);
                let calls: Vec<_> = hosts.iter().map(|host| s.safe_point(*host)).collect();
                s.ends(&hosts, &calls);
            } else {
                step(&mut s, &[X, Y]);
            }
            let sizes =
                Z.map(|host| s.world.hosts[host.0].ended.is_none() && size(&s.world, host) > 0);
            assert_eq!(sizes[0], sizes[1], "{disk:?}, {is_half_in}");
            for group in [0, 1] {
                let sites: &[Site] = if sizes[0] { &[X, Y, Z] } else { &[X, Y] };
                s.works(&of(sites, group), 0);
            }
        }
    }
}
