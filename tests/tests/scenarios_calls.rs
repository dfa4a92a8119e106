//! Calls that are cancelled, late, mismatched, invalid or crowded, and what becomes of their data.

use std::time::Duration;

use ccl_core::ids::Tag;
use ccl_core::names::Names;
use ccl_core::peer::SessionEnd;
use ccl_core::wire::control::{AbortReason, CancelReason, EvictReason};
use ccl_core::{Algorithm, Kind};
use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::hooks::{Act, Point};
use ccl_tests::sim::links::LinkKey;
use ccl_tests::sim::messages::DONE;
use ccl_tests::sim::program::{Logical, Twist, describe};
use ccl_tests::sim::scenario::{
    Scenario, abort_of, is_cancelled, is_committed, is_evicted, is_lost,
};
use ccl_tests::sim::workload::Ending;

const A: HostId = HostId(0);
const B: HostId = HostId(1);
const C: HostId = HostId(2);
const D: HostId = HostId(3);

fn mismatch_field(ending: &Ending) -> Option<String> {
    match abort_of(ending)? {
        AbortReason::Cancelled {
            reason: CancelReason::Mismatch { field, .. },
            ..
        } => Some(field.clone()),
        _ => None,
    }
}

/// A cancel is a request: all members get the same verdict, which may be success.
#[test]
fn cancel_that_races_the_last_done_ends_the_same_for_all() {
    for delay_us in (0..12_000).step_by(250) {
        let mut s = Scenario::with_members(3);
        let call = s.call(0, 60);
        let calls = s.post_all(&[A, B, C], &call);
        s.pass(Duration::from_micros(delay_us));
        s.world.app_cancel_call(A, calls[0]);
        let endings = s.ends(&[A, B, C], &calls);
        let committed = endings.iter().filter(|ending| is_committed(ending)).count();
        assert!(
            committed == 0 || committed == 3,
            "after {delay_us}: {endings:?}"
        );
        s.works(&[A, B, C], 0);
    }
}

#[test]
fn cancel_reaches_members_that_have_not_called() {
    let mut s = Scenario::with_members(3);
    let call = s.call(0, 100);
    let at_a = s.post(A, &call);
    s.pass_ms(20);
    s.world.app_cancel(A);
    assert!(is_cancelled(&s.end_of(A, at_a)));
    for host in [B, C] {
        let late = s.post(host, &call);
        assert!(is_cancelled(&s.end_of(host, late)));
    }
    s.works(&[A, B, C], 0);
}

/// One member's deadline is final for all: no member retries the call and waits for the other.
#[test]
fn deadline_of_one_member_is_final_for_all_although_they_would_retry() {
    let mut s = Scenario::with_members(3);
    let mut call = s.call(0, 100);
    call.fingerprint.attempts = 5;
    let at_a = s.post_twisted(A, &call, Twist::Deadline(Duration::from_millis(50)));
    let at_b = s.post(B, &call);
    for (host, at) in [(A, at_a), (B, at_b)] {
        let ending = s.end_of(host, at);
        let late = match abort_of(&ending) {
            Some(AbortReason::Cancelled {
                reason: CancelReason::Deadline { late },
                ..
            }) => late.as_ref(),
            _ => panic!("{ending:?}"),
        };
        let waited_for = late.map(|late| late.words(&Names::default()));
        let slow = s.world.hosts[C.0].peer.peer().unwrap();
        let expected = format!("peer {slow} had not called it");
        assert_eq!(waited_for, Some(expected));
    }
    let late = s.post(C, &call);
    assert!(is_cancelled(&s.end_of(C, late)));
    s.works(&[A, B, C], 0);
}

#[test]
fn every_difference_of_a_call_is_named_to_all() {
    let cases = [
        (Twist::Count, 1000, "count"),
        (Twist::Count, 0, "count"),
        (Twist::Count, 2, "count"),
        (Twist::Dtype, 10, "dtype"),
        (Twist::Op, 10, "operator"),
        (Twist::Caller, 10, "call"),
        (Twist::Caller, 0, "call"),
    ];
    for (twist, count, field) in cases {
        for odd in [A, B, C, D] {
            let mut s = Scenario::with_members(4);
            let call = s.call(0, count);
            let hosts = [A, B, C, D];
            let calls: Vec<_> = hosts
                .iter()
                .map(|host| match *host == odd {
                    true => s.post_twisted(*host, &call, twist),
                    false => s.post(*host, &call),
                })
                .collect();
            for ending in s.ends(&hosts, &calls) {
                let named = mismatch_field(&ending);
                assert_eq!(
                    named.as_deref(),
                    Some(field),
                    "{twist:?} {count}: {ending:?}"
                );
            }
            s.works(&hosts, 0);
        }
    }
}

/// No elements on one member and a thousand on another: without a check no data would ever move.
#[test]
fn mismatch_of_an_empty_call_is_seen_by_one_that_is_done() {
    let mut s = Scenario::with_members(2);
    let empty = s.call(0, 0);
    let mut full = empty.clone();
    full.parts[0].count = 1000;
    describe(&mut full.fingerprint, &full.parts);
    let at_a = s.post(A, &empty);
    s.pass_ms(200);
    let at_b = s.post(B, &full);
    for ending in s.ends(&[A, B], &[at_a, at_b]) {
        assert_eq!(
            mismatch_field(&ending).as_deref(),
            Some("count"),
            "{ending:?}"
        );
    }
    s.works(&[A, B], 0);
}

#[test]
fn members_that_would_retry_differently_do_not_agree() {
    let mut s = Scenario::with_members(2);
    let call = s.call(0, 10);
    let mut retried = call.clone();
    retried.fingerprint.attempts = 3;
    let at_a = s.post(A, &call);
    let at_b = s.post(B, &retried);
    for ending in s.ends(&[A, B], &[at_a, at_b]) {
        assert_eq!(
            mismatch_field(&ending).as_deref(),
            Some("attempts"),
            "{ending:?}"
        );
    }
}

#[test]
fn invalid_call_takes_no_number() {
    let mut s = Scenario::with_members(2);
    let first = s.call(0, 10);
    let at_a = s.post(A, &first);
    let second = s.call(0, 10);
    let refused = s.post(A, &second);
    let ending = s.end_of(A, refused);
    assert!(matches!(ending, Ending::Rejected(_)), "{ending:?}");
    let at_b = s.post(B, &first);
    for ending in s.ends(&[A, B], &[at_a, at_b]) {
        assert!(is_committed(&ending), "{ending:?}");
    }
    s.works(&[A, B], 0);
}

/// Each member calls in a different order, and each call is larger than all scratch memory.
#[test]
fn calls_in_opposite_orders_never_wait_for_each_other() {
    for seed in 0..20 {
        let mut s = Scenario::with_members(3);
        let calls: Vec<_> = (0..4).map(|tag| s.call(tag, 3000)).collect();
        let mut made = Vec::new();
        for (index, host) in [A, B, C].into_iter().enumerate() {
            for turn in 0..calls.len() {
                let at = (turn * (index + 1) + seed) % calls.len();
                if made
                    .iter()
                    .any(|(who, which, _)| *who == host && *which == at)
                {
                    continue;
                }
                made.push((host, at, s.post(host, &calls[at])));
                s.pass(Duration::from_micros(300 * seed as u64));
            }
            for (at, call) in calls.iter().enumerate() {
                if !made
                    .iter()
                    .any(|(who, which, _)| *who == host && *which == at)
                {
                    made.push((host, at, s.post(host, call)));
                }
            }
        }
        for (host, at, id) in made {
            let ending = s.end_of(host, id);
            assert!(is_committed(&ending), "tag {at}: {ending:?}");
        }
    }
}

/// Contributions that are sent again after results have arrived still come from the input.
#[test]
fn lane_reset_in_the_middle_changes_no_bit() {
    for algorithm in [Algorithm::OneShot, Algorithm::TwoShot, Algorithm::Ring] {
        for at_us in (500..14_000).step_by(700) {
            let mut s = Scenario::with_members(3);
            let mut call = s.call(0, 1500);
            call.fingerprint.algorithm = algorithm;
            let calls = s.post_all(&[A, B, C], &call);
            s.pass(Duration::from_micros(at_us));
            for (one, other) in [(A, B), (B, C), (A, C)] {
                let length = Duration::from_millis(30);
                s.world
                    .reset_link(LinkKey::new(one, other), length, at_us % 1400 == 500);
            }
            for ending in s.ends(&[A, B, C], &calls) {
                assert!(is_committed(&ending), "{ending:?}");
            }
        }
    }
}

/// An abort in the middle of the data leaves every input as it was; the checkers compare it.
#[test]
fn abort_in_the_middle_of_the_data_leaves_the_inputs() {
    for at_us in (500..12_000).step_by(500) {
        let mut s = Scenario::with_members(3);
        let call = s.call(0, 1500);
        let calls = s.post_all(&[A, B, C], &call);
        s.pass(Duration::from_micros(at_us));
        s.world.crash(C, None);
        for ending in s.ends(&[A, B], &calls) {
            assert!(is_lost(&ending) || is_committed(&ending), "{ending:?}");
        }
        s.view_of(&[A, B]);
        s.works(&[A, B], 0);
    }
}

/// The peer dies after its last segment and before the commit.
#[test]
fn death_between_the_last_segment_and_the_commit() {
    let mut s = Scenario::with_members(3);
    let call = s.call(0, 800);
    s.when(
        (Point::HostSends, DONE),
        Some(C),
        Act::Crash { host: C, words: 0 },
    );
    let calls = s.post_all(&[A, B, C], &call);
    let endings = s.ends(&[A, B], &calls);
    assert_eq!(
        is_committed(&endings[0]),
        is_committed(&endings[1]),
        "{endings:?}"
    );
    s.view_of(&[A, B]);
    s.works(&[A, B], 0);
}

#[test]
fn every_kind_works_at_every_edge_of_its_count() {
    let kinds = [
        Kind::AllReduce,
        Kind::Broadcast,
        Kind::AllGather,
        Kind::ReduceScatter,
    ];
    for members in [1, 2, 5] {
        let mut s = Scenario::with_members(members);
        let hosts: Vec<HostId> = (0..members).map(HostId).collect();
        for kind in kinds {
            for count in [0, 1, 3, 63, 64, 65, 1023] {
                let mut call = s.call_of(kind, 0, count);
                call.in_place = matches!(kind, Kind::AllReduce | Kind::Broadcast);
                let calls = s.post_all(&hosts, &call);
                for ending in s.ends(&hosts, &calls) {
                    assert!(is_committed(&ending), "{kind:?} {count}: {ending:?}");
                }
            }
        }
    }
}

/// A member that is a hundred times slower than the others does not block them forever.
#[test]
fn slow_member_is_waited_for() {
    let mut s = Scenario::with_members(3);
    s.world.hosts[C.0].slowness = 100;
    for _ in 0..3 {
        s.works(&[A, B, C], 0);
    }
}

/// Frames of an older birth are dropped.
#[test]
fn frames_of_an_earlier_life_change_nothing() {
    let mut s = Scenario::with_members(3);
    for turn in 0..20 {
        let call = s.call(0, 600);
        let calls = s.post_all(&[A, B, C], &call);
        for _ in 0..20 {
            s.pass(Duration::from_micros(300 + 40 * turn));
            for host in [A, B, C] {
                s.world.inject_stale_frames(host);
            }
        }
        for ending in s.ends(&[A, B, C], &calls) {
            assert!(is_committed(&ending), "{ending:?}");
        }
    }
}

fn sync(s: &mut Scenario) -> Logical {
    s.call_of(Kind::SharedState, Tag::SHARED_STATE.0, 0)
}

fn why_evicted(end: &SessionEnd) -> String {
    match end {
        SessionEnd::Evicted(eviction) => eviction.reason.words(&Names::default()),
        end => panic!("{end:?}"),
    }
}

fn crossed_words(ending: &Ending) -> String {
    match abort_of(ending) {
        Some(AbortReason::Cancelled {
            reason: CancelReason::Crossed(crossed),
            ..
        }) => crossed.words(&Names::default()),
        _ => panic!("{ending:?}"),
    }
}

/// These peers, in the order of their ids.
fn peers(s: &Scenario, hosts: &[HostId]) -> String {
    let peers = hosts
        .iter()
        .filter_map(|host| s.world.hosts[host.0].peer.peer());
    let mut peers: Vec<_> = peers.collect();
    peers.sort_unstable();
    Names::default().list(&peers).to_string()
}

/// Three reduce and one syncs: each waits for the others, in whatever order they call.
#[test]
fn few_that_are_in_another_call_are_evicted_and_told_of_both() {
    for odd in [A, B, C, D] {
        let mut s = Scenario::with_members(4);
        let (reduce, sync) = (s.call(0, 100), sync(&mut s));
        let right: Vec<_> = [A, B, C, D].into_iter().filter(|it| *it != odd).collect();
        let mut calls = s.post_all(&right[..2], &reduce);
        s.pass_ms(1000);
        s.post(odd, &sync);
        s.pass_ms(1000);
        calls.push(s.post(right[2], &reduce));
        assert_eq!(
            why_evicted(&s.session_end(odd)),
            "it was in sync (call 0) while the others had called all_reduce (tag 0, call 0)"
        );
        for ending in s.ends(&right, &calls) {
            assert!(is_lost(&ending), "{ending:?}");
        }
        s.works(&right, 0);
    }
}

/// There is no majority: no peer is evicted, and no peer waits forever.
#[test]
fn two_against_two_in_different_calls_are_told_of_both_and_go_on() {
    let mut s = Scenario::with_members(4);
    let (reduce, sync) = (s.call(0, 100), sync(&mut s));
    let mut calls = s.post_all(&[A, B], &reduce);
    calls.extend(s.post_all(&[C, D], &sync));
    for (index, ending) in s.ends(&[A, B, C, D], &calls).into_iter().enumerate() {
        let both = ["all_reduce (tag 0, call 0)", "sync (call 0)"];
        let sides = [peers(&s, &[A, B]), peers(&s, &[C, D])];
        let (here, there) = (&sides[index / 2], &sides[1 - index / 2]);
        let other = both[1 - index / 2];
        let words = crossed_words(&ending);
        assert_eq!(
            words,
            format!("{here} waited in it, and {there} in {other}")
        );
    }
    s.works(&[A, B, C, D], 1);
}

/// A waits for B, B for C, and C for A.
#[test]
fn circle_of_calls_ends_for_all() {
    let mut s = Scenario::with_members(3);
    let hosts = [A, B, C];
    let calls = [0, 1, 2].map(|tag| s.call(tag, 100));
    let calls: Vec<_> = hosts
        .iter()
        .zip(&calls)
        .map(|(host, it)| s.post(*host, it))
        .collect();
    for ending in s.ends(&hosts, &calls) {
        crossed_words(&ending);
    }
    s.works(&hosts, 3);
}

/// A thread that hangs is detected although calls of another thread keep ending.
#[test]
fn member_that_makes_other_calls_is_still_missed() {
    let mut s = Scenario::with_members(3);
    let call = s.call(0, 100);
    s.post_all(&[A, B], &call);
    let since = s.world.now;
    while s.world.hosts[C.0].ended.is_none() {
        let other = s.call(1, 20);
        s.post_all(&[A, B, C], &other);
        s.pass_ms(500);
        assert!(s.world.now.saturating_since(since) < Duration::from_secs(10));
    }
    let end = s.session_end(C);
    let is_absent = |why: &EvictReason| matches!(why, EvictReason::NotPosted { .. });
    assert!(is_evicted(&end, is_absent), "{end:?}");
}

/// Asynchronous calls may cross. A member that is late because of another call gets its full time.
#[test]
fn calls_that_cross_rightly_evict_nobody() {
    let mut s = Scenario::with_members(2);
    let nearly = s.world.swarm.timers.post_timeout.unwrap() * 9 / 10;
    let (one, other) = (s.call(0, 100), s.call(1, 100));
    let at_a = s.post(A, &one);
    let at_b = s.post(B, &other);
    s.pass(nearly);
    let next_at_a = s.post(A, &other);
    s.pass(nearly);
    let next_at_b = s.post(B, &one);
    let calls = [at_a, at_b, next_at_a, next_at_b];
    for ending in s.ends(&[A, B, A, B], &calls) {
        assert!(is_committed(&ending), "{ending:?}");
    }
}

/// A member that is in no call at all is evicted first: the others may agree then.
#[test]
fn one_that_hangs_is_evicted_before_calls_are_compared() {
    let mut s = Scenario::with_members(4);
    let (reduce, sync) = (s.call(0, 100), sync(&mut s));
    let mut calls = s.post_all(&[A, B], &reduce);
    calls.push(s.post(C, &sync));
    let end = s.session_end(D);
    let is_absent = |why: &EvictReason| matches!(why, EvictReason::NotPosted { .. });
    assert!(is_evicted(&end, is_absent), "{end:?}");
    for ending in s.ends(&[A, B, C], &calls) {
        assert!(is_lost(&ending), "{ending:?}");
    }
    s.works(&[A, B, C], 1);
}

/// A safe point that waits for a newcomer's admission is a call like any other.
#[test]
fn one_in_a_call_while_the_others_are_at_a_safe_point_is_evicted() {
    let mut s = Scenario::with_members(4);
    let newcomer = s.join();
    s.pass_ms(300);
    let reduce = s.call(0, 100);
    s.post(D, &reduce);
    let points = [A, B, C].map(|host| s.safe_point(host));
    assert_eq!(
        why_evicted(&s.session_end(D)),
        "it was in all_reduce (tag 0, call 0) while the others had called update_topology (safe \
         point 0)"
    );
    s.ends(&[A, B, C], &points);
    s.view_of(&[A, B, C, newcomer]);
    s.works(&[A, B, C, newcomer], 0);
}

#[test]
fn one_at_a_safe_point_while_the_others_are_in_a_call_is_evicted() {
    let mut s = Scenario::with_members(4);
    s.join();
    s.pass_ms(300);
    let reduce = s.call(0, 100);
    s.safe_point(D);
    let calls = s.post_all(&[A, B, C], &reduce);
    assert_eq!(
        why_evicted(&s.session_end(D)),
        "it was in update_topology (safe point 0) while the others had called all_reduce (tag 0, \
         call 0)"
    );
    for ending in s.ends(&[A, B, C], &calls) {
        assert!(is_lost(&ending), "{ending:?}");
    }
    s.works(&[A, B, C], 0);
}

#[test]
fn as_many_at_a_safe_point_as_in_a_call_evict_nobody() {
    let mut s = Scenario::with_members(2);
    let newcomer = s.join();
    s.pass_ms(300);
    let reduce = s.call(0, 100);
    let at_a = s.post(A, &reduce);
    let at_b = s.safe_point(B);
    let ending = s.end_of(A, at_a);
    let [here, there] = [peers(&s, &[A]), peers(&s, &[B])];
    assert_eq!(
        crossed_words(&ending),
        format!("{here} waited in it, and {there} in update_topology (safe point 0)")
    );
    let point = s.safe_point(A);
    s.ends(&[A, B], &[point, at_b]);
    s.view_of(&[A, B, newcomer]);
}
