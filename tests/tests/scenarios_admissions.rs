//! Safe points and the newcomers that they admit, with peers that die, hang or are late.

use std::time::Duration;

use ccl_core::peer::End;
use ccl_core::wire::control::EvictReason;
use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::hooks::{Act, Hook, Point};
use ccl_tests::sim::messages::{AT_SAFE_POINT, INSTALL};
use ccl_tests::sim::scenario::{LOSE_ALL, Scenario, is_cancelled, is_committed, is_evicted, size};
use ccl_tests::sim::workload::Ending;

const A: HostId = HostId(0);
const B: HostId = HostId(1);
const C: HostId = HostId(2);
const LONG: Duration = Duration::from_secs(3600);

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

/// The answer belongs to the number of the safe point, not to the time of the call.
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

/// An operation that is open across an admission keeps its members. When it is aborted, the
/// newcomer's first call with that tag has the same number as the others' next call.
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

/// A call that waits for the end of a change is posted before a safe point that was called later:
/// the peers that the safe point admits are not members of the call.
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

/// A carried operation commits after the admission; its late member posts it in the new view.
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

/// A newcomer that learns late of the view that admitted it counts its safe points and calls from
/// that view. Otherwise it would wait one safe point ahead of the others, and they for its call.
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

/// If the others are in another view by then, the newcomer starts over.
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

/// The wait succeeds, with or without the newcomer, whose links to the dead are broken for a
/// moment.
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

/// Its heartbeats continue, and the others wait for it in no operation.
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
