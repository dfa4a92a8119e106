//! Members that wait for each other in different calls, or are in none.

use super::*;

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
