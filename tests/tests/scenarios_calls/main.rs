//! Calls that are cancelled, late, mismatched, invalid or crowded, and what becomes of their data.

mod crossed;

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
