//! The master dies, restarts with all, part or none of its journal, and receives old messages.

mod returns;

use std::time::Duration;

use ccl_core::Kind;
use ccl_core::peer::SessionEnd;
use ccl_core::wire::control::EvictReason;
use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::hooks::{Act, Point};
use ccl_tests::sim::messages::{ATTACH, COMMIT, DONE, FLUSH, INSTALL, INSTALLED, RELEASE, SUSPEND};
use ccl_tests::sim::network::Break;
use ccl_tests::sim::scenario::{
    LOSE_ALL, Scenario, is_committed, is_evicted, is_lost, is_unknown, size, swarm,
};
use ccl_tests::sim::swarm::Disk;

const A: HostId = HostId(0);
const B: HostId = HostId(1);
const C: HostId = HostId(2);
const D: HostId = HostId(3);
const DISKS: [Disk; 3] = [Disk::Full, Disk::LazyLost, Disk::None];

fn crash_master(words: u64) -> Act {
    Act::CrashMaster {
        words,
        restart: Duration::from_millis(300),
    }
}

#[test]
fn peers_that_start_before_the_master_find_it() {
    let mut s = Scenario::empty(swarm(Disk::Full, 2));
    s.world.master_start();
    s.world.master_crash(false, Some(0));
    let hosts = [s.join(), s.join()];
    s.pass_ms(5000);
    s.world.master_start();
    s.view_of(&hosts);
    s.works(&hosts, 0);
}

#[test]
fn operations_need_no_master() {
    for disk in DISKS {
        let mut s = Scenario::with(3, disk);
        s.works(&[A, B, C], 0);
        s.world.master_crash(false, Some(1000));
        s.pass_ms(100);
        let call = s.call(0, 300);
        let calls = s.post_all(&[A, B, C], &call);
        s.pass_ms(100);
        for (host, call) in [A, B, C].into_iter().zip(&calls) {
            let ending = s.ending(host, *call);
            assert!(ending.is_some_and(is_committed), "{disk:?}: {ending:?}");
        }
        s.world.master_start();
        s.works(&[A, B, C], 0);
    }
}

/// A decision is sent only when it is stable: the master decides, reaches one member, and forgets
/// everything.
#[test]
fn abort_is_told_to_nobody_before_it_is_stable() {
    for disk in DISKS {
        for reached in [A, B, C] {
            let mut s = Scenario::with(4, disk);
            let call = s.call(0, 100);
            let calls = s.post_all(&[A, B, C, D], &call);
            s.when(
                (Point::HostSends, DONE),
                Some(D),
                Act::Crash { host: D, words: 0 },
            );
            s.when((Point::AtHost, INSTALL), Some(reached), crash_master(0));
            let endings = s.ends(&[A, B, C], &calls);
            let committed = endings.iter().filter(|ending| is_committed(ending)).count();
            assert!(committed == 0 || committed == 3, "{disk:?}: {endings:?}");
            s.view_of(&[A, B, C]);
            s.works(&[A, B, C], 0);
        }
    }
}

#[test]
fn master_may_die_at_every_message_of_a_change() {
    let sends = [SUSPEND, INSTALL, RELEASE, COMMIT];
    let hears = [FLUSH, INSTALLED, DONE];
    let points = sends.map(|kind| (Point::MasterSends, kind)).into_iter();
    let points: Vec<_> = points
        .chain(hears.map(|kind| (Point::AtMaster, kind)))
        .collect();
    for disk in DISKS {
        for point in &points {
            for words in [0, 500, 1000] {
                let mut s = Scenario::with(4, disk);
                let call = s.call(0, 100);
                let other = s.call(1, 100);
                let calls = s.post_all(&[A, B, C], &call);
                let others = s.post_all(&[A, B, C, D], &other);
                s.when(*point, None, crash_master(words));
                s.pass_ms(4);
                s.world.crash(D, Some(1000));
                for ending in s.ends(&[A, B, C], &calls) {
                    assert!(is_lost(&ending), "{disk:?} {point:?}: {ending:?}");
                }
                let endings = s.ends(&[A, B, C], &others);
                let committed = endings.iter().filter(|e| is_committed(e)).count();
                assert!(committed % 3 == 0, "{disk:?} {point:?}: {endings:?}");
                s.works(&[A, B, C], 0);
            }
        }
    }
}

#[test]
fn master_may_die_again_while_it_rebuilds() {
    for disk in DISKS {
        let mut s = Scenario::with(3, disk);
        let call = s.call(0, 100);
        let calls = s.post_all(&[A, B, C], &call);
        s.when((Point::AtMaster, DONE), None, crash_master(0));
        s.when((Point::AtMaster, ATTACH), Some(B), crash_master(0));
        s.when((Point::AtMaster, ATTACH), Some(C), crash_master(0));
        for ending in s.ends(&[A, B, C], &calls) {
            assert!(is_committed(&ending), "{disk:?}: {ending:?}");
        }
        s.works(&[A, B, C], 0);
    }
}

/// A result that arrives while the master collects reports is not forgotten.
#[test]
fn facts_that_are_said_while_the_master_rebuilds_count() {
    for disk in DISKS {
        let mut s = Scenario::with(3, disk);
        s.world.hosts[C.0].slowness = 150;
        s.world.master_crash(false, Some(0));
        let call = s.call(0, 100);
        let at_a = s.post(A, &call);
        let at_b = s.post(B, &call);
        s.world.master_start();
        s.pass_ms(300);
        let at_c = s.post(C, &call);
        for ending in s.ends(&[A, B, C], &[at_a, at_b, at_c]) {
            assert!(is_committed(&ending), "{disk:?}: {ending:?}");
        }
    }
}

#[test]
fn outcome_that_was_lost_with_the_connection_comes_with_the_reply() {
    let mut s = Scenario::with_members(3);
    let call = s.call(0, 100);
    let breaks = Act::Break {
        host: A,
        how: LOSE_ALL,
    };
    s.when((Point::MasterSends, COMMIT), Some(A), breaks);
    let calls = s.post_all(&[A, B, C], &call);
    for ending in s.ends(&[A, B, C], &calls) {
        assert!(is_committed(&ending), "{ending:?}");
    }
    s.works(&[A, B, C], 0);
}

#[test]
fn control_connection_may_break_at_every_message_twice() {
    let kinds = [SUSPEND, INSTALL, RELEASE];
    for kind in kinds {
        for how in breaks() {
            let mut s = Scenario::with_members(4);
            let call = s.call(0, 200);
            let calls = s.post_all(&[A, B, C], &call);
            let act = Act::Break { host: A, how };
            s.when((Point::MasterSends, kind), Some(A), act.clone());
            s.when((Point::HostSends, ATTACH), Some(A), act);
            s.pass_ms(20);
            s.world.crash(D, Some(1000));
            for ending in s.ends(&[A, B, C], &calls) {
                assert!(
                    is_lost(&ending) || is_unknown(&ending),
                    "{kind} {how:?}: {ending:?}"
                );
            }
            s.world.hooks.clear();
            s.pass_ms(6000);
            let left: Vec<HostId> = s.world.live_hosts(ccl_core::GroupId(0)).collect();
            s.view_of(&left);
            s.works(&left, 0);
        }
    }
}

/// The break is noticed by both sides, only by the peer, only by the master, or by neither.
fn breaks() -> [Break; 4] {
    let soon = Some(Duration::from_millis(2));
    let how = |host_notices, master_notices| Break {
        up_kept: 500,
        down_kept: 500,
        host_notices,
        master_notices,
    };
    [
        how(soon, soon),
        how(soon, None),
        how(None, soon),
        how(None, None),
    ]
}

/// A reply to an attach in the middle of a change does not end the change.
#[test]
fn attach_while_suspended_stays_suspended() {
    let mut s = Scenario::with_members(4);
    let call = s.call(0, 200);
    let calls = s.post_all(&[A, B, C], &call);
    s.pass_ms(20);
    s.world.hosts[B.0].slowness = 40;
    let breaks = Act::Break {
        host: A,
        how: LOSE_ALL,
    };
    s.when((Point::HostSends, FLUSH), Some(A), breaks);
    s.world.crash(D, Some(1000));
    s.pass_ms(30);
    let next = s.call(1, 50);
    let nexts = s.post_all(&[A, B, C], &next);
    for ending in s.ends(&[A, B, C], &calls) {
        assert!(is_lost(&ending), "{ending:?}");
    }
    let endings = s.ends(&[A, B, C], &nexts);
    let committed = endings.iter().filter(|ending| is_committed(ending)).count();
    assert!(committed == 3 || endings.iter().all(is_lost), "{endings:?}");
    s.works(&[A, B, C], 1);
}

#[test]
fn attach_that_crosses_an_eviction_is_answered() {
    let mut s = Scenario::with_members(3);
    s.world.block_control(C, Some(true), Some(true));
    s.until("the eviction", |world| size(world, A) == 2);
    s.world.block_control(C, Some(false), Some(false));
    let before = s.world.now;
    let end = s.session_end(C);
    assert!(is_evicted(&end, |_| true), "{end:?}");
    assert!(s.world.now - before < Duration::from_secs(4));
}

/// A master without history that receives a newcomer first waits for peers that may know more.
#[test]
fn empty_master_takes_the_old_run_up_although_a_newcomer_comes_first() {
    let mut s = Scenario::with(3, Disk::None);
    s.works(&[A, B, C], 0);
    s.world.master_crash(true, Some(0));
    let newcomer = s.join();
    s.world.swarm.new_run = false;
    s.world.master_start();
    for host in [A, B, C] {
        s.world.block_control(host, Some(true), Some(true));
    }
    s.pass_ms(700);
    for host in [A, B, C] {
        s.world.block_control(host, Some(false), Some(false));
    }
    s.works(&[A, B, C], 0);
    assert_eq!(s.world.runs.len(), 1, "the run goes on");
    s.admit(&[A, B, C], newcomer);
}

/// A newcomer dies before the run is founded. A copy of its hello does not make it a newcomer
/// again: the others would be linked with a peer that never answers.
#[test]
fn copied_hello_before_the_run_is_founded_makes_no_newcomer() {
    let mut swarm = swarm(Disk::Full, 2);
    swarm.new_run = false;
    let mut s = Scenario::empty(swarm);
    s.world.master_start();
    let [dead, first, second] = [0, 1, 2].map(|_| s.join());
    s.pass_ms(500);
    let hello = s.world.hosts[dead.0].hellos[0].clone();
    s.world.crash(dead, Some(1000));
    s.pass_ms(500);
    s.world.replay(dead, hello.clone());
    s.view_of(&[first, second]);
    s.world.replay(dead, hello);
    s.works(&[first, second], 0);
}

#[test]
fn every_master_has_a_term_of_its_own() {
    for disk in DISKS {
        let mut s = Scenario::with(3, disk);
        for term in 2..5 {
            s.restart_master(200);
            s.works(&[A, B, C], 0);
            s.until(&format!("a view of term {term}, {disk:?}"), |world| {
                world.hosts[A.0].vid().term.0 == term
            });
        }
    }
}

/// Without a journal a minority must not decide: the other part may have decided already.
#[test]
fn minority_without_a_journal_waits_for_the_operator() {
    let mut s = Scenario::with(4, Disk::None);
    let call = s.call(0, 100);
    let calls = s.post_all(&[A, B], &call);
    s.world.master_crash(false, Some(0));
    for host in [C, D] {
        s.world.block_control(host, Some(true), Some(true));
    }
    s.world.master_start();
    s.pass_ms(6000);
    assert!(
        s.ending(A, calls[0]).is_none(),
        "two of four are no majority"
    );
    for host in [C, D] {
        s.world.block_control(host, Some(false), Some(false));
    }
    let hosts = [A, B, C, D];
    let calls = [calls, s.post_all(&[C, D], &call)].concat();
    for ending in s.ends(&hosts, &calls) {
        assert!(is_committed(&ending), "{ending:?}");
    }
    s.works(&hosts, 1);
}

/// A member that has forgotten a result, and so does not list it in its report, still counts as
/// holding it.
#[test]
fn commit_that_one_member_got_counts_for_the_others() {
    for disk in DISKS {
        let mut s = Scenario::with(3, disk);
        let call = s.call(0, 100);
        s.when((Point::AtHost, COMMIT), Some(A), crash_master(0));
        for host in [B, C] {
            let breaks = Act::Break {
                host,
                how: LOSE_ALL,
            };
            s.when((Point::MasterSends, COMMIT), Some(host), breaks);
        }
        let calls = s.post_all(&[A, B, C], &call);
        for ending in s.ends(&[A, B, C], &calls) {
            assert!(is_committed(&ending), "{disk:?}: {ending:?}");
        }
        s.works(&[A, B, C], 0);
    }
}

#[test]
fn peer_without_a_master_ends_its_calls_as_unknown_in_time() {
    let mut s = Scenario::with_members(2);
    let call = s.call(0, 100);
    let at_a = s.post(A, &call);
    s.world.master_crash(true, Some(0));
    let before = s.world.now;
    let ending = s.end_of(A, at_a);
    assert!(is_unknown(&ending), "{ending:?}");
    assert_eq!(s.session_end(A), SessionEnd::Detached);
    let timers = s.world.swarm.timers;
    let bound = timers.detach_timeout + timers.peer_timeout + Duration::from_secs(1);
    assert!(s.world.now - before < bound);
}

#[test]
fn hello_that_comes_twice_costs_nothing() {
    let mut s = Scenario::with_members(2);
    let newcomer = s.join();
    s.pass_ms(20);
    s.world.inject_replay(newcomer);
    s.world.inject_replay(newcomer);
    s.pass_ms(300);
    s.admit(&[A, B], newcomer);
    s.works(&[A, B, newcomer], 0);
}

#[test]
fn attach_with_an_old_counter_is_not_heard() {
    let mut s = Scenario::with_members(2);
    for _ in 0..3 {
        s.break_control(A);
        s.pass_ms(300);
        s.world.inject_replay(A);
        s.pass_ms(100);
        s.works(&[A, B], 0);
    }
    assert!(s.world.hosts[A.0].ended.is_none());
}
