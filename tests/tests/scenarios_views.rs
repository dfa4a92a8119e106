//! Members come, go, fall silent and are cut off: what becomes of what they have open.

use std::time::Duration;

use ccl_core::Kind;
use ccl_core::peer::{End, SessionEnd};
use ccl_core::wire::control::EvictReason;
use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::hooks::{Act, Hook, Point};
use ccl_tests::sim::links::{Direction, LinkKey};
use ccl_tests::sim::messages::{AT_SAFE_POINT, COMMIT, DONE, FLUSH, INSTALL, INSTALLED, SUSPEND};
use ccl_tests::sim::scenario::{
    LOSE_ALL, Scenario, is_cancelled, is_committed, is_evicted, is_lost, is_unknown, size,
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

/// A process that dies is told from a connection that breaks: its data connections end too.
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

/// Being evicted says nothing about the operation: the others may well have committed it.
#[test]
fn evicted_member_is_told_unknown_while_the_others_commit() {
    let mut s = Scenario::with_members(3);
    let call = s.call(0, 100);
    s.world.block_control(A, Some(true), Some(true));
    let calls = s.post_all(&[A, B, C], &call);
    for ending in s.ends(&[B, C], &calls[1..]) {
        assert!(
            is_committed(&ending),
            "B and C hold what A sent: {ending:?}"
        );
    }
    s.world.block_control(A, Some(false), Some(false));
    let ending = s.end_of(A, calls[0]);
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

/// What was decided at the first change is not decided again at the second.
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
    let calls = s.post_all(&[A, B, C], &call);
    for ending in s.ends(&[A, B], &calls) {
        assert!(is_committed(&ending), "C had said Done: {ending:?}");
    }
    s.view_of(&[A, B]);
    s.works(&[A, B], 0);
}

/// Whoever survives holds the result: it counts, with the dead one's data in it.
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

#[test]
fn newcomer_enters_at_the_safe_point_that_all_have_reached() {
    let mut s = Scenario::with_members(2);
    let newcomer = s.join();
    s.pass_ms(500);
    assert_eq!(size(&s.world, A), 2, "nobody is let in between safe points");
    let first = s.safe_point(A);
    s.pass_ms(500);
    assert!(s.ending(A, first).is_none(), "it waits for B");
    s.safe_point(B);
    s.view_of(&[A, B, newcomer]);
    s.works(&[A, B, newcomer], 0);
}

/// The answer belongs to the number of the safe point, not to the moment of the call.
#[test]
fn answer_of_a_safe_point_is_the_same_for_a_late_caller() {
    let mut s = Scenario::with_members(2);
    let first = s.safe_point(A);
    s.end_of(A, first);
    let call = s.call(0, 10);
    let at_a = s.post(A, &call);
    let newcomer = s.join();
    s.pass_ms(500);
    let late = s.safe_point(B);
    s.end_of(B, late);
    assert_eq!(size(&s.world, B), 2, "safe point 0 had changed nothing");
    let at_b = s.post(B, &call);
    for ending in s.ends(&[A, B], &[at_a, at_b]) {
        assert!(is_committed(&ending), "{ending:?}");
    }
    s.safe_point(A);
    s.safe_point(B);
    s.view_of(&[A, B, newcomer]);
}

/// An operation that is open across an admission keeps its members; when it is aborted, the
/// newcomer's first call of that tag has the number that the others' next call has.
#[test]
fn operation_open_across_an_admission_keeps_its_members() {
    let mut s = Scenario::with_members(2);
    let newcomer = s.join();
    s.pass_ms(300);
    let open = s.call(7, 10);
    let at_a = s.post(A, &open);
    s.safe_point(A);
    s.safe_point(B);
    s.view_of(&[A, B, newcomer]);
    let next = s.call(7, 10);
    let at_newcomer = s.post(newcomer, &next);
    s.pass_ms(100);
    assert!(
        s.ending(newcomer, at_newcomer).is_none(),
        "it waits behind the carried one"
    );
    s.world.app_cancel(A);
    let ending = s.end_of(A, at_a);
    assert!(is_cancelled(&ending), "{ending:?}");
    let at_b = s.post(B, &open);
    let ending = s.end_of(B, at_b);
    assert!(
        is_cancelled(&ending),
        "aborted before B called it: {ending:?}"
    );
    let calls = s.post_all(&[A, B], &next);
    for ending in s.ends(&[A, B, newcomer], &[calls[0], calls[1], at_newcomer]) {
        assert!(is_committed(&ending), "{ending:?}");
    }
}

/// A call that waits for the end of a change is posted before the safe point that was called after
/// it: those whom that lets in are no members of it.
#[test]
fn call_made_before_a_safe_point_is_posted_before_it() {
    let mut s = Scenario::with_members(2);
    let newcomer = s.join();
    s.pass_ms(300);
    let cancelled = s.call(0, 10);
    let at_a = s.post(A, &cancelled);
    s.pass_ms(20);
    s.world.hosts[B.0].slowness = 20;
    s.world.app_cancel(A);
    s.pass_ms(10);
    let open = s.call(7, 10);
    let open_at_a = s.post(A, &open);
    let points = [s.safe_point(A), s.safe_point(B)];
    assert!(is_cancelled(&s.end_of(A, at_a)));
    s.world.hosts[B.0].slowness = 1;
    s.ends(&[A, B], &points);
    let open_at_b = s.post(B, &open);
    for ending in s.ends(&[A, B], &[open_at_a, open_at_b]) {
        let Ending::End(End::Committed { contributors, .. }) = &ending else {
            panic!("{ending:?}");
        };
        assert_eq!(contributors.len(), 2, "the newcomer never heard of it");
    }
    s.view_of(&[A, B, newcomer]);
    s.works(&[A, B, newcomer], 7);
}

/// A carried operation commits after the admission, its late member posting it in the new view.
#[test]
fn carried_operation_is_posted_late_under_its_own_birth() {
    let mut s = Scenario::with_members(2);
    let newcomer = s.join();
    s.pass_ms(300);
    let open = s.call(7, 400);
    let at_a = s.post(A, &open);
    s.safe_point(A);
    s.safe_point(B);
    s.view_of(&[A, B, newcomer]);
    let at_b = s.post(B, &open);
    for ending in s.ends(&[A, B], &[at_a, at_b]) {
        assert!(is_committed(&ending), "{ending:?}");
    }
    s.works(&[A, B, newcomer], 7);
}

#[test]
fn newcomer_that_dies_before_it_confirms_holds_nobody_up() {
    let mut s = Scenario::with_members(2);
    let newcomer = s.join();
    s.pass_ms(300);
    let dies = Act::Crash {
        host: newcomer,
        words: 0,
    };
    s.when((Point::AtHost, INSTALL), Some(newcomer), dies);
    let calls = [s.safe_point(A), s.safe_point(B)];
    s.ends(&[A, B], &calls);
    s.view_of(&[A, B]);
    s.works(&[A, B], 0);
}

/// A newcomer that hears late of the view that admitted it counts its safe points, and its calls,
/// from there: else it would wait one safe point ahead of the others, and they for its call.
#[test]
fn newcomer_counts_from_the_view_that_admitted_it_however_late_it_hears_of_it() {
    let mut s = Scenario::with_members(2);
    let newcomer = s.join();
    s.pass_ms(300);
    let breaks = Act::Break {
        host: newcomer,
        how: LOSE_ALL,
    };
    s.when((Point::MasterSends, INSTALL), Some(newcomer), breaks);
    let calls = [s.safe_point(A), s.safe_point(B)];
    s.world.hosts[newcomer.0].slowness = 50;
    s.ends(&[A, B], &calls);
    let next = s.safe_point(A);
    s.end_of(A, next);
    s.view_of(&[A, B, newcomer]);
    assert_eq!(s.world.hosts[newcomer.0].safe_released, 1);
    s.world.hosts[newcomer.0].slowness = 1;
    let another = s.join();
    s.pass_ms(500);
    let late = [s.safe_point(B), s.safe_point(newcomer)];
    s.ends(&[B, newcomer], &late);
    s.admit(&[A, B, newcomer], another);
}

/// If the others are in another view by then, it begins anew.
#[test]
fn newcomer_that_missed_its_first_view_altogether_begins_anew() {
    let mut s = Scenario::with_members(3);
    let newcomer = s.join();
    s.pass_ms(300);
    let breaks = Act::Break {
        host: newcomer,
        how: LOSE_ALL,
    };
    for skip in [0, 1] {
        s.world.hooks.push(Hook {
            point: Point::MasterSends,
            kind: INSTALL,
            host: Some(newcomer),
            skip,
            act: breaks.clone(),
            done: false,
        });
    }
    s.when((Point::AtHost, INSTALL), Some(C), Act::Leave { host: C });
    let calls = [s.safe_point(A), s.safe_point(B), s.safe_point(C)];
    s.ends(&[A, B], &calls);
    s.pass_ms(1000);
    assert_eq!(size(&s.world, newcomer), 0, "it is a newcomer again");
    s.admit(&[A, B], newcomer);
    s.works(&[A, B, newcomer], 0);
}

#[test]
fn newcomer_that_hangs_does_not_hold_back_the_release() {
    let mut s = Scenario::with_members(2);
    let newcomer = s.join();
    s.pass_ms(300);
    let hangs = Act::Freeze {
        host: newcomer,
        length: LONG,
    };
    s.when((Point::MasterSends, INSTALL), Some(newcomer), hangs);
    let before = s.world.now;
    let calls = [s.safe_point(A), s.safe_point(B)];
    s.ends(&[A, B], &calls);
    assert!(s.world.now - before < Duration::from_millis(200));
    s.view_of(&[A, B]);
    s.works(&[A, B], 0);
}

#[test]
fn death_of_the_only_newcomer_releases_the_safe_point_unchanged() {
    let mut s = Scenario::with_members(2);
    let newcomer = s.join();
    s.pass_ms(300);
    let first = s.safe_point(A);
    s.pass_ms(50);
    s.world.crash(newcomer, Some(1000));
    s.end_of(A, first);
    let second = s.safe_point(B);
    s.end_of(B, second);
    s.works(&[A, B], 0);
}

/// The wait ends well, with the newcomer or without: its links to the dead are broken for a moment.
#[test]
fn loss_of_a_member_does_not_fail_the_wait_at_a_safe_point() {
    let mut s = Scenario::with_members(3);
    let newcomer = s.join();
    s.pass_ms(300);
    let first = s.safe_point(A);
    s.pass_ms(50);
    s.world.crash(C, Some(1000));
    s.view_of(&[A, B]);
    let second = s.safe_point(B);
    for (host, call) in [(A, first), (B, second)] {
        let ending = s.end_of(host, call);
        assert!(
            matches!(ending, Ending::End(End::SafePoint { .. })),
            "{ending:?}"
        );
    }
    s.admit(&[A, B], newcomer);
    s.works(&[A, B, newcomer], 0);
}

/// A cancel dies with the operation that nobody left had called.
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

/// Its heartbeats go on, and it has called nothing that the others could miss it in.
#[test]
fn a_program_that_hangs_before_a_safe_point_does_not_hold_the_others_there() {
    let mut s = Scenario::with_members(3);
    let newcomer = s.join();
    s.pass_ms(300);
    let waiting = [s.safe_point(A), s.safe_point(B)];
    let since = s.world.now;
    let end = s.session_end(C);
    let absent = |why: &EvictReason| matches!(why, EvictReason::NotAtSafePoint { k: 0 });
    assert!(is_evicted(&end, absent), "{end:?}");
    let post_timeout = s.world.swarm.timers.post_timeout.expect("scripts have one");
    let took = s.world.now.saturating_since(since);
    assert!(took < post_timeout + Duration::from_secs(1), "{took:?}");
    s.ends(&[A, B], &waiting);
    s.view_of(&[A, B, newcomer]);
    s.works(&[A, B, newcomer], 0);
}

/// A member that is three aborted attempts behind gets each of them at once, in order.
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

#[test]
fn safe_point_reached_during_a_change_counts() {
    let mut s = Scenario::with_members(3);
    let newcomer = s.join();
    s.pass_ms(300);
    s.when(
        (Point::HostSends, AT_SAFE_POINT),
        Some(A),
        Act::Crash { host: C, words: 0 },
    );
    s.admit(&[A, B], newcomer);
    s.works(&[A, B, newcomer], 0);
}
