//! Hosts with a peer in each of two groups, which join and fail as one (docs/protocol.md, R9).
//!
//! The peers of a host move in lockstep: none goes on before the others of its host have done the
//! same. So a host that is a member of only one group would block all others.

use std::time::Duration;

use ccl_core::peer::SessionEnd;
use ccl_core::wire::control::EvictReason;
use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::links::{Direction, LinkKey};
use ccl_tests::sim::scenario::{Scenario, is_committed, is_evicted, size, swarm};
use ccl_tests::sim::site::Seat;
use ccl_tests::sim::swarm::Disk;
use ccl_tests::sim::workload::App;

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
    swarm.site = vec![0, 1];
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

/// Starts a host.
fn join(s: &mut Scenario) -> Site {
    let site = s.world.add_site();
    restart(s, site)
}

/// Starts the processes of a host, whatever happened to earlier ones.
fn restart(s: &mut Scenario, site: usize) -> Site {
    [0, 1].map(|place| s.world.sit_down(Seat { site, place }, App::scripted()))
}

/// The members of these hosts reach a safe point of a group.
fn pass(s: &mut Scenario, sites: &[Site], group: usize) {
    let hosts = of(sites, group);
    let calls: Vec<_> = hosts.iter().map(|host| s.safe_point(*host)).collect();
    s.ends(&hosts, &calls);
}

fn is_in(s: &Scenario, site: Site) -> [bool; 2] {
    site.map(|host| s.world.hosts[host.0].ended.is_none() && size(&s.world, host) > 0)
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

/// One step in lockstep: a safe point in one group, then in the other, then a call in each by the
/// members of the view. A host makes calls once all its peers are members.
fn step(s: &mut Scenario, sites: &[Site]) {
    for group in [0, 1] {
        pass(s, sites, group);
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
        // Safe points may be in any state when the host becomes complete: here one group has called
        // the next one.
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

/// The remaining process does not give up: it waits for the other to restart.
#[test]
fn host_that_loses_a_peer_before_it_enters_stops_nobody() {
    let mut s = two_sites(Disk::Full);
    assert_eq!(join(&mut s), Z);
    s.pass_ms(600);
    s.world.crash(Z[1], Some(1000));
    s.pass(Duration::from_secs(3));
    step(&mut s, &[X, Y]);
    assert_eq!(is_in(&s, Z), [false, false]);
    let seat = Seat { site: 2, place: 1 };
    let late = s.world.sit_down(seat, App::scripted());
    s.pass_ms(2500);
    for group in [0, 1] {
        pass(&mut s, &[X, Y], group);
    }
    s.pass_ms(50);
    let new = [Z[0], late];
    assert_eq!(new.map(|host| size(&s.world, host)), [3, 3]);
    for group in [0, 1] {
        s.works(&of(&[X, Y, new], group), 0);
    }
}

#[test]
fn host_that_loses_a_peer_between_its_admissions_stops_nobody() {
    let mut s = two_sites(Disk::Full);
    assert_eq!(join(&mut s), Z);
    s.pass_ms(600);
    pass(&mut s, &[X, Y], 0);
    s.view_of(&of(&[X, Y, Z], 0));
    s.world.crash(Z[1], Some(1000));
    let end: SessionEnd = s.session_end(Z[0]);
    assert!(
        is_evicted(&end, |why| matches!(why, EvictReason::Unit(_))),
        "{end:?}"
    );
    s.view_of(&of(&[X, Y], 0));
    pass(&mut s, &[X, Y], 1);
    for group in [0, 1] {
        s.works(&of(&[X, Y], group), 0);
    }
}

/// The master dies when the host is complete, or when it is a member of one group: whatever the
/// next master finds, the host is in both groups or in none.
#[test]
fn restart_of_the_master_lets_no_half_of_a_host_in() {
    for disk in DISKS {
        for is_half_in in [false, true] {
            let mut s = two_sites(disk);
            assert_eq!(join(&mut s), Z);
            s.pass_ms(600);
            if is_half_in {
                pass(&mut s, &[X, Y], 0);
                s.view_of(&of(&[X, Y, Z], 0));
            }
            s.restart_master(300);
            s.pass(Duration::from_secs(10));
            if is_half_in {
                pass(&mut s, &[X, Y], 1);
            } else {
                step(&mut s, &[X, Y]);
            }
            let sizes = is_in(&s, Z);
            assert_eq!(sizes[0], sizes[1], "{disk:?}, {is_half_in}");
            for group in [0, 1] {
                let sites: &[Site] = if sizes[0] { &[X, Y, Z] } else { &[X, Y] };
                s.works(&of(sites, group), 0);
            }
        }
    }
}

/// The last members are lost when group 0 is one safe point ahead of group 1. The founders of the
/// next views would admit the next host to group 1 a step later than to group 0.
#[test]
fn groups_that_lost_all_members_at_different_safe_points_admit_the_next_host_together() {
    let mut s = two_sites(Disk::Full);
    for group in [0, 0, 1] {
        pass(&mut s, &[X, Y], group);
    }
    for host in [X, Y].concat() {
        s.world.crash(host, Some(1000));
    }
    s.pass(Duration::from_secs(4));
    s.world.swarm.min_worlds = vec![2, 2];
    let new = [join(&mut s), join(&mut s)];
    for group in [0, 1] {
        s.view_of(&of(&new, group));
    }
    s.world.swarm.min_worlds = vec![1, 1];
    let next = join(&mut s);
    s.pass_ms(600);
    for group in [0, 1] {
        pass(&mut s, &new, group);
    }
    s.pass_ms(50);
    assert_eq!(next.map(|host| size(&s.world, host)), [3, 3]);
}

/// Power returns before the master has noticed any loss: the new processes are not confused with
/// the old ones, whose loss the master then notices.
#[test]
fn host_that_restarts_at_once_is_not_lost_with_its_old_self() {
    for disk in DISKS {
        let mut s = two_sites(disk);
        assert_eq!(join(&mut s), Z);
        s.pass_ms(600);
        step(&mut s, &[X, Y]);
        assert_eq!(is_in(&s, Z), [true, true]);
        for host in Z {
            s.world.die(host, None, true);
        }
        let new = restart(&mut s, 2);
        s.pass(Duration::from_secs(5));
        for group in [0, 1] {
            s.view_of(&of(&[X, Y], group));
            pass(&mut s, &[X, Y], group);
        }
        s.pass_ms(50);
        assert_eq!(new.map(|host| size(&s.world, host)), [3, 3], "{disk:?}");
    }
}

/// Only one of the host's processes is restarted, because only one died. The other is lost with the
/// one that died, and its program starts over.
#[test]
fn process_that_is_restarted_alone_waits_for_the_rest_of_its_host() {
    let mut s = two_sites(Disk::Full);
    assert_eq!(join(&mut s), Z);
    s.pass_ms(600);
    step(&mut s, &[X, Y]);
    s.world.die(Z[0], None, true);
    let [site, place] = [2, 0];
    let first = s.world.sit_down(Seat { site, place }, App::scripted());
    let end = s.session_end(Z[1]);
    assert!(is_evicted(&end, |why| matches!(why, EvictReason::Unit(_))));
    let second = s.world.sit_down(Seat { site, place: 1 }, App::scripted());
    s.pass(Duration::from_secs(2));
    for group in [0, 1] {
        s.view_of(&of(&[X, Y], group));
        pass(&mut s, &[X, Y], group);
    }
    s.pass_ms(50);
    assert_eq!([first, second].map(|host| size(&s.world, host)), [3, 3]);
}

/// A process of the host leaves. The other finishes its call, and is evicted if it does not follow.
#[test]
fn host_leaves_as_one() {
    for follows in [true, false] {
        let mut s = two_sites(Disk::Full);
        let call = s.call(0, 20);
        s.world.app_leave(Y[0]);
        s.view_of(&[X[0]]);
        let calls = s.post_all(&[X[1], Y[1]], &call);
        for ending in s.ends(&[X[1], Y[1]], &calls) {
            assert!(is_committed(&ending), "{ending:?}");
        }
        if follows {
            s.world.app_leave(Y[1]);
            assert_eq!(s.session_end(Y[1]), SessionEnd::Left);
        } else {
            let end = s.session_end(Y[1]);
            let why = |why: &EvictReason| matches!(why, EvictReason::UnitLeft(_));
            assert!(is_evicted(&end, why), "{end:?}");
        }
        s.view_of(&[X[1]]);
        for group in [0, 1] {
            s.works(&[X[group]], 0);
        }
    }
}

/// Two hosts have the same unit number. The second is refused at once; the first is unaffected.
#[test]
fn host_with_the_unit_of_another_is_refused() {
    let mut s = two_sites(Disk::Full);
    for host in restart(&mut s, 1) {
        let end = s.session_end(host);
        let SessionEnd::Refused(why) = end else {
            panic!("{end:?}");
        };
        assert!(why.contains("unit 1 already has all its 2 peers"), "{why}");
    }
    step(&mut s, &[X, Y]);
}
