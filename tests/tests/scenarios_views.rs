//! Members come, go, fall silent and are cut off, and what becomes of their open operations.

use std::time::Duration;

use ccl_core::Kind;
use ccl_core::peer::{End, SessionEnd};
use ccl_core::wire::control::EvictReason;
use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::hooks::{Act, Point};
use ccl_tests::sim::links::{Direction, LinkKey};
use ccl_tests::sim::messages::{COMMIT, DONE, FLUSH, INSTALL, INSTALLED, SUSPEND};
use ccl_tests::sim::scenario::{
    Scenario, is_cancelled, is_committed, is_evicted, is_lost, is_unknown, size,
};
use ccl_tests::sim::workload::Ending;

const A: HostId = HostId(0);
const B: HostId = HostId(1);
const C: HostId = HostId(2);
const D: HostId = HostId(3);
const LONG: Duration = Duration::from_secs(3600);

fn cut(scenario: &mut Scenario, one: HostId, other: HostId) {
    for way in [Direction::Up, Direction::Down] {
        scenario
            .world
            .block_link(LinkKey::new(one, other), way, true);
    }
}

#[test]
fn death_of_a_member_aborts_and_the_rest_go_on() {
    let mut s = Scenario::with_members(3);
    let call = s.call(0, 500);
    let calls = s.post_all(&[A, B], &call);
    s.pass_ms(20);
    s.world.crash(C, Some(1000));
    for ending in s.ends(&[A, B], &calls) {
        assert!(is_lost(&ending), "{ending:?}");
    }
    s.view_of(&[A, B]);
    s.works(&[A, B], 0);
}

/// A dead process differs from a broken control connection: its data connections end too.
#[test]
fn death_is_noticed_at_once_and_a_broken_connection_is_forgiven() {
    let mut s = Scenario::with_members(3);
    s.break_control(B);
    s.pass_ms(900);
    assert_eq!(
        size(&s.world, A),
        3,
        "the connection came back within its grace"
    );
    let before = s.world.now;
    s.world.crash(C, Some(1000));
    s.view_of(&[A, B]);
    assert!(s.world.now - before < Duration::from_millis(300));
}

/// A member that is cut off knows what all held. Of anything else an eviction says nothing.
#[test]
fn evicted_member_is_told_unknown_of_what_not_all_held() {
    let mut s = Scenario::with_members(3);
    let call = s.call(0, 100);
    s.world.block_control(A, Some(true), Some(true));
    let calls = s.post_all(&[A, B, C], &call);
    for ending in s.ends(&[A, B, C], &calls) {
        assert!(is_committed(&ending), "{ending:?}");
    }
    let call = s.call(0, 100);
    let last = s.post(A, &call);
    s.view_of(&[B, C]);
    s.works(&[B, C], 1);
    s.world.block_control(A, Some(false), Some(false));
    let ending = s.end_of(A, last);
    assert!(is_unknown(&ending), "{ending:?}");
    assert!(is_evicted(&s.session_end(A), |_| true));
    s.works(&[B, C], 0);
}

#[test]
fn hung_member_is_evicted_in_time_and_learns_it_when_it_wakes() {
    let mut s = Scenario::with_members(3);
    let call = s.call(0, 500);
    let calls = s.post_all(&[A, B], &call);
    s.world.freeze(C, Duration::from_secs(6));
    let before = s.world.now;
    for ending in s.ends(&[A, B], &calls) {
        assert!(is_lost(&ending), "{ending:?}");
    }
    let peer_timeout = s.world.swarm.timers.peer_timeout;
    assert!(s.world.now - before < peer_timeout + Duration::from_millis(600));
    s.works(&[A, B], 0);
    let end = s.session_end(C);
    assert!(is_evicted(&end, |_| true), "{end:?}");
}

#[test]
fn two_deaths_in_one_flush_end_in_one_view() {
    let mut s = Scenario::with_members(4);
    let call = s.call(0, 500);
    let calls = s.post_all(&[A, B, C], &call);
    s.pass_ms(20);
    s.when(
        (Point::HostSends, FLUSH),
        Some(C),
        Act::Crash { host: C, words: 0 },
    );
    s.world.crash(D, Some(1000));
    for ending in s.ends(&[A, B], &calls) {
        assert!(is_lost(&ending), "{ending:?}");
    }
    s.view_of(&[A, B]);
    s.works(&[A, B], 0);
}

/// What was decided at the first view change is not decided again at the second.
#[test]
fn second_death_after_the_decision_does_not_decide_again() {
    let mut s = Scenario::with_members(4);
    let call = s.call(0, 500);
    let calls = s.post_all(&[A, B, C], &call);
    s.pass_ms(20);
    s.when(
        (Point::AtHost, INSTALL),
        Some(C),
        Act::Crash { host: C, words: 0 },
    );
    s.world.crash(D, Some(1000));
    for ending in s.ends(&[A, B], &calls) {
        assert!(is_lost(&ending), "{ending:?}");
    }
    s.view_of(&[A, B]);
    s.works(&[A, B], 0);
}

#[test]
fn last_words_of_the_dead_count() {
    let mut s = Scenario::with_members(3);
    let call = s.call(0, 100);
    s.when(
        (Point::HostSends, DONE),
        Some(C),
        Act::Crash {
            host: C,
            words: 1000,
        },
    );
    // Its own data has arrived before the others call: they need nothing more from it.
    s.post_all(&[C], &call);
    s.pass_ms(20);
    let calls = s.post_all(&[A, B], &call);
    for ending in s.ends(&[A, B], &calls) {
        assert!(is_committed(&ending), "C had said Done: {ending:?}");
    }
    s.view_of(&[A, B]);
    s.works(&[A, B], 0);
}

/// All survivors hold the result: it counts, including the dead member's data.
#[test]
fn operation_that_every_survivor_holds_commits_although_a_member_died() {
    let mut s = Scenario::with_members(3);
    let call = s.call(0, 100);
    s.world.block_control(C, Some(true), Some(true));
    let calls = s.post_all(&[A, B, C], &call);
    s.pass_ms(200);
    s.world.crash(C, Some(0));
    for ending in s.ends(&[A, B], &calls) {
        let Ending::End(End::Committed { contributors, .. }) = &ending else {
            panic!("{ending:?}");
        };
        assert_eq!(contributors.len(), 3);
    }
}

#[test]
fn barrier_names_only_those_who_called() {
    let mut s = Scenario::with_members(3);
    let call = s.call_of(Kind::Barrier, 0, 0);
    let calls = s.post_all(&[A, B], &call);
    s.pass_ms(50);
    s.world.crash(C, Some(1000));
    for ending in s.ends(&[A, B], &calls) {
        if let Ending::End(End::Committed { contributors, .. }) = &ending {
            assert_eq!(contributors.len(), 2, "C never called");
        } else {
            assert!(is_lost(&ending), "{ending:?}");
        }
    }
    s.works(&[A, B], 0);
}

/// A cancel ends with its operation if no remaining member had called that.
#[test]
fn cancel_of_an_operation_whose_only_caller_died_is_forgotten() {
    let mut s = Scenario::with_members(3);
    let call = s.call(0, 100);
    s.post(A, &call);
    s.pass_ms(50);
    s.when(
        (Point::HostSends, FLUSH),
        Some(A),
        Act::Crash { host: A, words: 0 },
    );
    s.world.app_cancel(A);
    s.view_of(&[B, C]);
    s.pass_ms(500);
    let views = s.world.checkers.views_in_calm;
    s.pass_ms(3000);
    assert_eq!(
        s.world.checkers.views_in_calm, views,
        "no change follows the other"
    );
    s.works(&[B, C], 0);
}

#[test]
fn one_dead_link_costs_one_member() {
    for members in 2..=4 {
        let mut s = Scenario::with_members(members);
        let hosts: Vec<HostId> = (0..members).map(HostId).collect();
        let call = s.call(0, 2000);
        cut(&mut s, A, B);
        let calls = s.post_all(&hosts, &call);
        s.pass(Duration::from_secs(4));
        let left = s.world.live_hosts(ccl_core::GroupId(0)).count();
        assert_eq!(left, members - 1, "of {members}");
        let survivors: Vec<HostId> = s.world.live_hosts(ccl_core::GroupId(0)).collect();
        for host in &survivors {
            let ending = s.end_of(*host, calls[host.0]);
            assert!(is_lost(&ending), "{ending:?}");
        }
        s.works(&survivors, 0);
    }
}

#[test]
fn member_cut_off_from_all_is_the_one_to_go() {
    for victim in [A, B, D] {
        let mut s = Scenario::with_members(4);
        s.world.isolate_data(victim, true);
        let end = s.session_end(victim);
        let cut_off = is_evicted(&end, |why| matches!(why, EvictReason::Unreachable { .. }));
        assert!(cut_off, "{end:?}");
        let rest: Vec<HostId> = [A, B, C, D].into_iter().filter(|h| *h != victim).collect();
        s.view_of(&rest);
        s.works(&rest, 0);
    }
}

#[test]
fn group_goes_on_while_another_waits_for_the_dead() {
    let mut s = Scenario::with_members(2);
    let others = [s.join_group(1), s.join_group(1)];
    s.until("the other group", |world| {
        others.iter().any(|host| size(world, *host) > 0)
    });
    s.world.freeze(others[0], LONG);
    s.world.freeze(others[1], LONG);
    let newcomer = s.join();
    s.pass_ms(200);
    let before = s.world.now;
    s.safe_point(A);
    s.safe_point(B);
    s.view_of(&[A, B, newcomer]);
    s.works(&[A, B, newcomer], 0);
    assert!(s.world.now - before < Duration::from_millis(500));
}

#[test]
fn world_shrinks_to_one_and_grows_again() {
    let mut s = Scenario::with_members(3);
    s.world.crash(B, Some(1000));
    s.world.crash(C, Some(1000));
    s.view_of(&[A]);
    s.works(&[A], 0);
    let newcomers = [s.join(), s.join()];
    s.pass_ms(500);
    s.safe_point(A);
    s.view_of(&[A, newcomers[0], newcomers[1]]);
    s.works(&[A, newcomers[0], newcomers[1]], 0);
}

#[test]
fn group_whose_last_member_died_is_founded_again_with_its_numbers() {
    let mut s = Scenario::with_members(1);
    s.works(&[A], 3);
    s.world.crash(A, Some(1000));
    let newcomer = s.join();
    s.view_of(&[newcomer]);
    s.works(&[newcomer], 3);
}

#[test]
fn leaving_with_operations_open_aborts_them_for_all() {
    let mut s = Scenario::with_members(3);
    let call = s.call(0, 500);
    let calls = s.post_all(&[A, C], &call);
    s.pass_ms(30);
    s.world.app_leave(C);
    assert_eq!(s.session_end(C), SessionEnd::Left);
    s.view_of(&[A, B]);
    let ending = s.end_of(A, calls[0]);
    assert!(is_lost(&ending) || is_cancelled(&ending), "{ending:?}");
    let late = s.post(B, &call);
    let ending = s.end_of(B, late);
    assert!(is_lost(&ending) || is_cancelled(&ending), "{ending:?}");
    s.works(&[A, B], 0);
}

#[test]
fn leaving_at_every_step_of_a_change_ends_it_in_good_order() {
    let steps = [
        (Point::AtHost, SUSPEND),
        (Point::HostSends, FLUSH),
        (Point::AtHost, INSTALL),
        (Point::HostSends, INSTALLED),
        (Point::AtMaster, FLUSH),
        (Point::AtMaster, INSTALLED),
    ];
    for step in steps {
        let mut s = Scenario::with_members(4);
        let call = s.call(0, 500);
        let calls = s.post_all(&[A, B, C], &call);
        s.pass_ms(20);
        s.when(step, Some(C), Act::Leave { host: C });
        s.world.crash(D, Some(1000));
        assert_eq!(s.session_end(C), SessionEnd::Left, "{step:?}");
        s.view_of(&[A, B]);
        for ending in s.ends(&[A, B], &calls) {
            assert!(
                is_lost(&ending) || is_cancelled(&ending),
                "{step:?}: {ending:?}"
            );
        }
        s.works(&[A, B], 0);
    }
}

#[test]
fn member_that_never_calls_is_evicted_by_name() {
    let mut s = Scenario::with_members(3);
    let call = s.call(5, 100);
    let calls = s.post_all(&[A, B], &call);
    let end = s.session_end(C);
    let named = is_evicted(
        &end,
        |why| matches!(why, EvictReason::NotPosted { tag, n } if tag.0 == 5 && n.0 == 0),
    );
    assert!(named, "{end:?}");
    for ending in s.ends(&[A, B], &calls) {
        assert!(is_lost(&ending), "{ending:?}");
    }
    s.works(&[A, B], 5);
}

/// A member that is three aborted attempts behind gets all three aborts at once, in order.
#[test]
fn member_three_aborted_attempts_behind_catches_up() {
    let mut s = Scenario::with_members(3);
    let attempts: Vec<_> = (0..3).map(|_| s.call(0, 100)).collect();
    for call in &attempts {
        let calls = s.post_all(&[A, B], call);
        s.pass_ms(20);
        s.world.app_cancel(A);
        for ending in s.ends(&[A, B], &calls) {
            assert!(is_cancelled(&ending), "{ending:?}");
        }
    }
    for call in &attempts {
        let late = s.post(C, call);
        let ending = s.end_of(C, late);
        assert!(is_cancelled(&ending), "{ending:?}");
    }
    s.works(&[A, B, C], 0);
}

/// The commit is on its way when the member is suspended for another reason.
#[test]
fn commit_that_crosses_a_suspend_is_told() {
    let mut s = Scenario::with_members(3);
    let call = s.call(0, 100);
    let calls = s.post_all(&[A, B, C], &call);
    s.when(
        (Point::MasterSends, COMMIT),
        None,
        Act::Crash { host: C, words: 0 },
    );
    for ending in s.ends(&[A, B], &calls) {
        assert!(is_committed(&ending), "{ending:?}");
    }
    s.view_of(&[A, B]);
    s.works(&[A, B], 0);
}
