//! Who returns to a restarted master, when, and what it is told.

use super::*;

#[test]
fn members_of_another_run_are_refused_by_name() {
    let mut s = Scenario::with(2, Disk::None);
    s.world.master_crash(true, Some(0));
    for host in [A, B] {
        s.world.block_control(host, Some(true), Some(true));
    }
    s.world.master.incarnation = 0;
    s.world.master_start();
    s.pass_ms(1000);
    for host in [A, B] {
        s.world.block_control(host, Some(false), Some(false));
    }
    let end = s.session_end(A);
    assert!(
        matches!(&end, SessionEnd::Refused(why) if why.contains("run")),
        "{end:?}"
    );
}

#[test]
fn member_that_does_not_come_back_is_not_waited_for_longer_than_the_window() {
    let mut s = Scenario::with_members(3);
    let call = s.call(0, 100);
    let calls = s.post_all(&[A, B], &call);
    s.world.master_crash(false, Some(0));
    s.world.crash(C, Some(0));
    s.world.master_start();
    let before = s.world.now;
    for ending in s.ends(&[A, B], &calls) {
        assert!(is_lost(&ending), "{ending:?}");
    }
    let window = s.world.swarm.timers.rebuild_window;
    assert!(s.world.now - before < window + Duration::from_millis(500));
    let known = s.world.checkers.evicted.values();
    let not_heard = known.filter(|why| matches!(why, EvictReason::NotHeard));
    assert_eq!(not_heard.count(), 1);
}

/// A copy of a member's hello, or one that its kernel sends again over an abandoned connection,
/// says nothing about the member, whatever its connection does at the time.
#[test]
fn a_hello_that_comes_late_or_twice_changes_nothing() {
    let mut s = Scenario::with(2, Disk::Full);
    s.works(&[A, B], 0);
    let vid = s.world.hosts[A.0].vid();
    let hello = s.world.hosts[A.0].hellos[0].clone();
    let again = |s: &mut Scenario| s.world.replay(A, hello.clone());
    again(&mut s);
    s.works(&[A, B], 0);
    s.break_control(A);
    again(&mut s);
    s.pass_ms(3000);
    again(&mut s);
    s.works(&[A, B], 0);
    assert_eq!(s.world.hosts[A.0].vid(), vid, "nobody was evicted");
    // Nor does it bring the member back after it has left.
    s.world.app_leave(A);
    s.session_end(A);
    again(&mut s);
    s.pass_ms(1000);
    s.works(&[B], 0);
}

/// A master that has lost its journal does not know which peers its predecessor evicted until it
/// knows the members (R11). Then it tells those peers.
#[test]
fn one_that_was_evicted_hears_it_from_a_master_without_a_journal_once_the_group_is_taken_up() {
    let mut s = Scenario::with(5, Disk::None);
    let [a, b, c, d, evicted] = std::array::from_fn(HostId);
    s.world.block_control(evicted, Some(true), Some(true));
    s.break_control(evicted);
    s.view_of(&[a, b, c, d]);
    for host in [a, b] {
        s.world.die(host, Some(0), true);
    }
    s.world.master_crash(false, Some(0));
    s.world.block_control(evicted, Some(false), Some(false));
    s.pass_ms(100);
    s.world.master_start();
    s.pass_ms(1000);
    s.world.freeze(evicted, Duration::from_millis(100));
    // Two of four are not a majority: nothing is decided, however long it takes.
    s.pass(s.world.swarm.timers.peer_timeout * 2);
    assert_eq!(s.world.hosts[evicted.0].ended, None);
    s.world.master.force = true;
    s.restart_master(100);
    let end = s.session_end(evicted);
    assert!(is_evicted(&end, |_| true), "{end:?}");
    s.view_of(&[c, d]);
    s.works(&[c, d], 0);
}

/// H51: A has called an operation that B has not. Only B learns of the view that aborts it for the
/// loss of D. The next master has no journal. Both must get the same reason, because it decides
/// whether the call is retried.
#[test]
fn the_reason_of_an_abort_is_known_though_nobody_who_called_has_heard_it() {
    let mut s = Scenario::with(4, Disk::None);
    let [a, b, c, d] = std::array::from_fn(HostId);
    let call = s.call_of(Kind::Barrier, 0, 0);
    let at_a = s.post(a, &call);
    s.pass_ms(50);
    for host in [a, c] {
        let (up, down) = (false, true);
        s.when(
            (Point::AtHost, SUSPEND),
            Some(host),
            Act::Block { host, up, down },
        );
    }
    s.world.die(d, Some(0), false);
    s.until("the view without D at B", |world| size(world, b) == 3);
    s.pass_ms(50);
    assert_eq!(size(&s.world, a), 4, "A has not heard of it");
    s.world.master_crash(false, Some(0));
    for host in [a, c] {
        s.world.block_control(host, Some(false), Some(false));
    }
    s.world.master_start();
    let ending = s.end_of(a, at_a);
    assert!(is_lost(&ending), "{ending:?}");
    let at_b = s.post(b, &call);
    let ending = s.end_of(b, at_b);
    assert!(is_lost(&ending), "{ending:?}");
    s.works(&[a, b, c], 1);
}

/// All members were cut off, and return one by one: the first is not the only survivor.
#[test]
fn who_comes_back_after_the_window_is_not_taken_for_all_that_are_left() {
    let mut s = Scenario::with_members(4);
    let hosts = [A, B, C, HostId(3)];
    cut_off(&mut s, &hosts);
    s.world.master_start();
    s.pass(s.world.swarm.timers.rebuild_window * 2);
    comes_back(&mut s, A);
    hosts[1..].iter().for_each(|host| comes_back(&mut s, *host));
    s.view_of(&hosts);
    s.works(&hosts, 0);
}

/// The member that completes the majority is not the last to return.
#[test]
fn majority_that_comes_after_the_window_leaves_the_others_time() {
    let mut s = Scenario::with(4, Disk::None);
    let hosts = [A, B, C, HostId(3)];
    cut_off(&mut s, &hosts);
    s.world.master_start();
    comes_back(&mut s, A);
    s.pass(s.world.swarm.timers.rebuild_window * 2);
    hosts[1..].iter().for_each(|host| comes_back(&mut s, *host));
    s.view_of(&hosts);
    s.works(&hosts, 0);
}

/// A member that has not returned by the end of its own window is not waited for.
#[test]
fn window_of_the_others_after_the_first_ends() {
    let mut s = Scenario::with_members(3);
    cut_off(&mut s, &[A, B, C]);
    s.world.master_start();
    let window = s.world.swarm.timers.rebuild_window;
    s.pass(window * 2);
    comes_back(&mut s, A);
    let since = s.world.now;
    s.view_of(&[A]);
    let took = s.world.now.saturating_since(since);
    assert!(took < window + Duration::from_secs(1), "{took:?}");
    s.works(&[A], 0);
}

fn cut_off(s: &mut Scenario, hosts: &[HostId]) {
    s.world.master_crash(false, Some(0));
    for host in hosts {
        s.world.block_control(*host, Some(true), Some(true));
    }
}

/// The master receives from a member again, which takes a moment.
fn comes_back(s: &mut Scenario, host: HostId) {
    s.world.block_control(host, Some(false), Some(false));
    s.pass_ms(400);
}
