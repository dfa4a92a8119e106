//! Processes that are paused and resumed: the master, all peers at once, everything, the disk.

use std::time::Duration;

use ccl_core::peer::SessionEnd;
use ccl_core::wire::control::EvictReason;
use ccl_tests::sim::cluster::{Event, HostId};
use ccl_tests::sim::hooks::{Act, Point};
use ccl_tests::sim::messages::INSTALL;
use ccl_tests::sim::scenario::{Scenario, is_committed, is_evicted, size, swarm};
use ccl_tests::sim::swarm::Disk;
use ccl_tests::sim::workload::{AppStep, Ending};

const A: HostId = HostId(0);
const B: HostId = HostId(1);
const C: HostId = HostId(2);
/// Longest time from the resumption to the next commit.
const AWAKE_MAX: Duration = Duration::from_secs(1);

/// What is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    Master,
    Peers,
    Everything,
    Disk,
}

impl Pause {
    const ALL: [Self; 4] = [Self::Master, Self::Peers, Self::Everything, Self::Disk];

    fn begin(self, s: &mut Scenario, length: Duration) {
        if matches!(self, Self::Master | Self::Everything) {
            s.world.master_freeze(length);
        }
        if matches!(self, Self::Peers | Self::Everything) {
            for host in [A, B, C] {
                s.world.freeze(host, length);
            }
        }
        if self == Self::Disk {
            s.world.master_stall(length);
            // A record that must be on the disk first; the next safe point changes nothing.
            s.safe_point(A);
        }
    }
}

fn nobody_is_gone(s: &Scenario, pause: Pause) {
    for host in [A, B, C] {
        let ended = &s.world.hosts[host.0].ended;
        assert!(ended.is_none(), "{pause:?}: {host:?} ended: {ended:?}");
        assert_eq!(size(&s.world, host), 3, "{pause:?}: {host:?}");
    }
}

/// Whatever is paused, for twice `peer_timeout` or longer, no peer is evicted for it: the same
/// members go on with the same operations at once.
#[test]
fn a_pause_of_twice_peer_timeout_costs_no_member_and_no_operation() {
    for pause in Pause::ALL {
        for extra_ms in [0, 137, 1511, 7000] {
            let mut s = Scenario::with_members(3);
            let length = s.world.swarm.timers.peer_timeout * 2 + Duration::from_millis(extra_ms);
            s.pass_ms(extra_ms % 200);
            let under_way = s.call(0, 300);
            let mut calls = s.post_all(&[A, B, C], &under_way);
            let half = s.call(1, 300);
            let first = s.post(A, &half);
            pause.begin(&mut s, length);
            let wakes = s.world.now + length;
            s.world.run_until(wakes);
            calls.push(first);
            calls.extend(s.post_all(&[B, C], &half));
            let hosts = [A, B, C, A, B, C];
            for ending in s.ends(&hosts, &calls) {
                assert!(
                    is_committed(&ending),
                    "{pause:?}, {extra_ms} ms: {ending:?}"
                );
            }
            let took = s.world.now.saturating_since(wakes);
            assert!(took <= AWAKE_MAX, "{pause:?}, {extra_ms} ms: {took:?}");
            nobody_is_gone(&s, pause);
            s.pass(s.world.swarm.timers.peer_timeout * 3);
            nobody_is_gone(&s, pause);
            s.works(&[A, B, C], 2);
        }
    }
}

/// Peers that stopped together resume one after the other: the first that is heard does not get the
/// others evicted.
#[test]
fn peers_that_wake_one_after_the_other_are_all_there() {
    let mut s = Scenario::with_members(3);
    let timeout = s.world.swarm.timers.peer_timeout;
    for (host, late_ms) in [(A, 0), (B, 300), (C, 700)] {
        s.world
            .freeze(host, timeout * 3 + Duration::from_millis(late_ms));
    }
    s.pass(timeout * 5);
    nobody_is_gone(&s, Pause::Peers);
    s.works(&[A, B, C], 0);
}

/// Pauses in a row, each shorter or longer than what is noticed at once.
#[test]
fn a_master_that_stops_again_and_again_evicts_nobody_healthy() {
    for (runs_ms, stops_ms) in [(50, 300), (100, 1900), (300, 2100), (20, 5000), (700, 900)] {
        let mut s = Scenario::with_members(3);
        for _ in 0..12 {
            s.pass_ms(runs_ms);
            s.world.master_freeze(Duration::from_millis(stops_ms));
            s.pass_ms(stops_ms);
        }
        nobody_is_gone(&s, Pause::Master);
        s.works(&[A, B, C], 0);
    }
}

/// A peer that really died while the master was paused is detected soon afterwards.
#[test]
fn a_member_lost_during_the_masters_pause_is_found_after_it() {
    let mut s = Scenario::with_members(3);
    let timers = s.world.swarm.timers;
    s.world.master_freeze(timers.peer_timeout * 2);
    s.pass_ms(100);
    s.world.die(C, Some(0), true);
    s.pass(timers.peer_timeout * 2);
    let woke = s.world.now;
    s.view_of(&[A, B]);
    let took = s.world.now.saturating_since(woke);
    let bound = timers.peer_timeout + timers.heartbeat_interval * 3;
    assert!(took <= bound, "found after {took:?}");
    s.works(&[A, B], 0);
}

/// If only one peer is paused, it is evicted as before, and learns of it.
#[test]
fn one_peer_that_stands_still_is_evicted_and_told_so() {
    let mut s = Scenario::with_members(3);
    s.world.freeze(C, s.world.swarm.timers.peer_timeout * 2);
    s.view_of(&[A, B]);
    let end = s.session_end(C);
    let silent = |why: &EvictReason| matches!(why, EvictReason::Silent { .. });
    assert!(is_evicted(&end, silent), "{end:?}");
}

/// A master that has heard no member for so long that none can be alive goes on without them.
#[test]
fn members_that_are_all_gone_in_silence_make_room_after_detach_timeout() {
    let mut s = Scenario::with_members(3);
    let timers = s.world.swarm.timers;
    for host in [A, B, C] {
        s.world.die(host, Some(0), true);
    }
    let began = s.world.now;
    let next = s.join();
    s.view_of(&[next]);
    let took = s.world.now.saturating_since(began);
    assert!(took >= timers.detach_timeout, "founded after {took:?}");
    assert!(
        took <= timers.detach_timeout + timers.peer_timeout * 2,
        "{took:?}"
    );
    s.works(&[next], 0);
}

/// An evicted peer does not count as a member that is heard, even if no view without it could be
/// sealed yet: the silence of the last member is judged when no session of a member can be alive.
#[test]
fn the_word_of_one_that_was_evicted_says_nothing_of_a_silent_member() {
    let mut s = Scenario::with_members(2);
    let timers = s.world.swarm.timers;
    s.world.die(A, Some(0), true);
    let died = s.world.now;
    s.world.block_control(B, Some(true), Some(true));
    s.break_control(B);
    s.pass(timers.reattach_grace + timers.peer_timeout);
    s.world.block_control(B, Some(false), Some(false));
    let end = s.session_end(B);
    let detached = |why: &EvictReason| matches!(why, EvictReason::Detached);
    assert!(is_evicted(&end, detached), "{end:?}");
    let told = s.world.now;
    let next = s.join();
    s.view_of(&[next]);
    let (took, after) = (s.world.now.0 - died.0, s.world.now.0 - told.0);
    let longest = timers.detach_timeout.as_nanos() as u64;
    assert!(took >= longest, "founded {took} ns after the death");
    assert!(
        after < longest,
        "founded {after} ns after the evicted one was heard"
    );
}

/// R11 relies on this: a peer that lost its master and slept beyond `detach_timeout` ends as
/// unknown.
#[test]
fn a_peer_that_sleeps_beyond_detach_timeout_without_a_master_ends_as_unknown() {
    let mut s = Scenario::with_members(2);
    s.world.master_crash(false, Some(1000));
    s.pass_ms(1000);
    s.world.freeze(A, s.world.swarm.timers.detach_timeout * 2);
    s.pass(s.world.swarm.timers.detach_timeout * 2);
    assert_eq!(s.session_end(A), SessionEnd::Detached);
}

/// Goal: a program that slept beyond `detach_timeout` makes a call before it knows of the end. The
/// call is refused, after those of before have ended as unknown.
#[test]
fn a_call_after_a_sleep_beyond_detach_timeout_is_refused() {
    let mut refused = 0;
    for members in 2..6 {
        let mut s = Scenario::with_members(members);
        s.world.master_crash(false, Some(1000));
        s.pass_ms(1000);
        let length = s.world.swarm.timers.detach_timeout;
        s.world.freeze(A, length);
        let step = AppStep::SafePoint;
        let call = Event::App { host: A, step };
        s.world.schedule(length / 2, call);
        s.pass(length);
        assert_eq!(s.session_end(A), SessionEnd::Detached);
        // A timer that comes first ends the session before the call, which is not made then.
        if let Some((_, ending)) = s.world.hosts[A.0].app.endings.first() {
            assert!(matches!(ending, Ending::Rejected(_)), "{ending:?}");
            refused += 1;
        }
    }
    assert!(refused > 0, "a timer was always first");
}

/// Goal: a newcomer is heard shortly before it becomes a member, and never again. That shows that
/// the master was not cut off, so an older member that was silent before is evicted in time.
///
/// 1. A, alone in its group, falls silent.
/// 2. B enters another group, and is silenced when its first view is sent to it.
#[test]
fn a_member_that_was_heard_as_a_newcomer_shows_that_the_master_hears() {
    let mut swarm = swarm(Disk::Full, 1);
    swarm.fsync = Duration::from_millis(10);
    let mut s = Scenario::empty(swarm);
    s.found(1);
    let timers = s.world.swarm.timers;
    s.world.block_control(A, Some(true), Some(true));
    let silent = s.world.now;
    s.pass(timers.peer_timeout / 2);
    let b = s.join_group(1);
    let silence = Act::Block {
        host: b,
        up: true,
        down: true,
    };
    s.when((Point::MasterSends, INSTALL), Some(b), silence);
    let session = (s.world.hosts[A.0].run, s.world.hosts[A.0].peer.peer());
    let (run, peer) = (session.0, session.1.expect("it is a member"));
    s.until("the eviction of A", |world| {
        world.checkers.is_evicted(run, peer)
    });
    let took = s.world.now.saturating_since(silent);
    let bound = timers.peer_timeout + timers.heartbeat_interval;
    assert!(took <= bound, "evicted after {took:?}");
}
