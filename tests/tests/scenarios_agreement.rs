//! Verdicts that the members know without the master, and how long (docs/protocol.md, R19).

use std::time::Duration;

use ccl_core::peer::SessionEnd;
use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::hooks::{Act, Point};
use ccl_tests::sim::links::LinkKey;
use ccl_tests::sim::messages::{ATTACH, COMMIT, HERE, SUMMON};
use ccl_tests::sim::scenario::{LOSE_ALL, Scenario, is_committed, is_lost, size};
use ccl_tests::sim::swarm::Disk;

const MOMENT: Duration = Duration::from_millis(10);

/// Cuts hosts off from the master, or heals them.
fn cut(s: &mut Scenario, hosts: &[HostId], is_cut: bool) {
    for &host in hosts {
        s.world.act(Act::Block {
            host,
            up: is_cut,
            down: is_cut,
        });
    }
}

/// Goal: without a master calls commit, one after the other and on several tags, and the next
/// master learns of them.
#[test]
fn calls_go_on_while_the_master_is_dead() {
    for disk in [Disk::Full, Disk::None] {
        let mut s = Scenario::with(3, disk);
        let hosts = [HostId(0), HostId(1), HostId(2)];
        s.works(&hosts, 1);
        s.world.master_crash(false, Some(0));
        for _ in 0..20 {
            s.works(&hosts, 1);
            s.works(&hosts, 2);
        }
        s.world.master_start();
        s.works(&hosts, 1);
        let newcomer = s.join();
        s.admit(&hosts, newcomer);
        s.works(&[hosts[0], hosts[1], hosts[2], newcomer], 1);
    }
}

/// Goal: a peer dies while there is no master. The others' call ends once there is one, and they go
/// on with the survivors.
#[test]
fn a_death_without_a_master_is_decided_by_the_next_one() {
    let mut s = Scenario::with(3, Disk::Full);
    let hosts = [HostId(0), HostId(1), HostId(2)];
    s.world.master_crash(false, Some(0));
    s.works(&hosts, 1);
    s.world.crash(hosts[2], Some(0));
    let call = s.call(1, 20);
    let calls = s.post_all(&hosts[..2], &call);
    s.pass_ms(3000);
    assert!(s.ending(hosts[0], calls[0]).is_none(), "no verdict yet");
    s.world.master_start();
    let endings = s.ends(&hosts[..2], &calls);
    assert!(endings.iter().all(is_lost), "{endings:?}");
    s.works(&hosts[..2], 1);
}

/// Goal: the last `Held` of a call crosses the master's death; all members learn the same.
#[test]
fn the_master_dies_with_its_commits_unsent() {
    let mut s = Scenario::with(3, Disk::Full);
    let hosts = [HostId(0), HostId(1), HostId(2)];
    let words = 0;
    let restart = Duration::from_secs(3);
    let act = Act::CrashMaster { words, restart };
    s.when((Point::MasterSends, COMMIT), None, act);
    for _ in 0..5 {
        s.works(&hosts, 1);
    }
    s.pass_ms(6000);
    s.works(&hosts, 1);
}

/// Goal: a whole group is cut off from the master, and goes on; the master founds it anew with a
/// newcomer only once no member can be at work (H67).
#[test]
fn a_group_is_not_founded_beside_members_that_go_on() {
    for breaks in [false, true] {
        let mut s = Scenario::with(2, Disk::Full);
        let members = [HostId(0), HostId(1)];
        s.works(&members, 1);
        cut(&mut s, &members, true);
        if breaks {
            members.iter().for_each(|host| s.break_control(*host));
        }
        let newcomer = s.join();
        // peer_timeout and detach_timeout are 14 s together.
        for _ in 0..10 {
            s.works(&members, 1);
            s.pass_ms(1000);
            assert_eq!(size(&s.world, newcomer), 0);
        }
        for host in members {
            assert_eq!(s.session_end(host), SessionEnd::Detached);
        }
        s.view_of(&[newcomer]);
        s.works(&[newcomer], 1);
    }
}

/// When the master dies, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    Never,
    /// While the members of the carried operation are cut off.
    First,
    /// Once there is a view without them.
    Later,
}

/// Goal: an operation that was carried into a view may have other members than the view. As long as
/// they may commit it, the group is not founded anew, although all others have stopped (H70, H71).
///
/// 1. A calls X, C is admitted, A and B are cut off. In some runs the master dies now, or later.
/// 2. C alone has a view, and dies.
/// 3. B calls X, which commits. Only when neither A nor B can be at work is a newcomer admitted.
#[test]
fn a_carried_operation_is_leased_by_its_own_members() {
    for restart in [Restart::Never, Restart::First, Restart::Later] {
        let mut s = Scenario::with(2, Disk::Full);
        let members = [HostId(0), HostId(1)];
        let x = s.call(1, 20);
        let mut calls = vec![s.post(members[0], &x)];
        s.pass_ms(100);
        let third = s.join();
        s.admit(&members, third);
        cut(&mut s, &members, true);
        if restart == Restart::First {
            s.restart_master(100);
        }
        s.view_of(&[third]);
        if restart == Restart::Later {
            s.restart_master(100);
            s.view_of(&[third]);
            s.works(&[third], 2);
        }
        s.world.crash(third, Some(0));
        let newcomer = s.join();
        s.pass_ms(2000);
        calls.push(s.post(members[1], &x));
        let endings = s.ends(&members, &calls);
        assert!(endings.iter().all(is_committed), "{restart:?}: {endings:?}");
        assert_eq!(size(&s.world, newcomer), 0, "{restart:?}");
        for host in members {
            assert_eq!(s.session_end(host), SessionEnd::Detached);
        }
        s.view_of(&[newcomer]);
        s.works(&[newcomer], 1);
    }
}

/// Goal: as long as one member is heard, its report stops all others, and nobody waits for their
/// leases.
#[test]
fn one_member_that_is_heard_stops_the_others() {
    let mut s = Scenario::with(3, Disk::Full);
    let hosts = [HostId(0), HostId(1), HostId(2)];
    cut(&mut s, &hosts[..2], true);
    let call = s.call(1, 20);
    let newcomer = s.join();
    s.until("a view of one", |world| size(world, hosts[2]) == 1);
    let calls = s.post_all(&hosts[..2], &call);
    s.admit(&hosts[2..], newcomer);
    s.works(&[hosts[2], newcomer], 2);
    assert!(s.ending(hosts[0], calls[0]).is_none(), "it cannot commit");
}

/// Goal: a group whose members are seen to die is founded anew at once.
#[test]
fn a_group_whose_members_died_is_founded_at_once() {
    let mut s = Scenario::with(2, Disk::Full);
    s.world.crash(HostId(0), Some(0));
    s.pass_ms(100);
    s.world.crash(HostId(1), Some(0));
    let newcomer = s.join();
    s.pass_ms(3000);
    assert_eq!(size(&s.world, newcomer), 1);
}

/// Goal: members that stood still, together, for longer than they may go on, do not commit among
/// themselves when they resume, whatever waits in their sockets.
#[test]
fn members_that_slept_too_long_do_not_go_on() {
    let mut s = Scenario::with(2, Disk::Full);
    let members = [HostId(0), HostId(1)];
    s.works(&members, 1);
    let length = Duration::from_secs(16);
    for host in members {
        s.world.act(Act::Freeze { host, length });
    }
    // That they are evicted does not reach them.
    cut(&mut s, &members, true);
    let newcomer = s.join();
    s.pass_ms(15_500);
    assert_eq!(size(&s.world, newcomer), 1, "it was founded anew");
    s.pass_ms(1000);
    let call = s.call(1, 20);
    let calls = s.post_all(&members, &call);
    s.pass_ms(1000);
    for (host, call) in members.into_iter().zip(calls) {
        assert!(!s.ending(host, call).is_some_and(is_committed));
    }
}

/// Goal: a master that hears too few members stops none of them, nor does one that hears nobody
/// else for a while: calls go on until it asks for reports.
#[test]
fn a_restarted_master_stops_nobody_before_enough_are_back() {
    let mut s = Scenario::with(3, Disk::None);
    let hosts = [HostId(0), HostId(1), HostId(2)];
    cut(&mut s, &hosts[1..], true);
    s.restart_master(100);
    // One of three is back: no majority, however long it takes.
    for _ in 0..6 {
        s.works(&hosts, 1);
        s.pass_ms(1000);
    }
    cut(&mut s, &hosts, false);
    s.view_of(&hosts);
    s.works(&hosts, 1);
}

/// Goal: a member dies, or its connection breaks, at each step of its way back; the others are not
/// held up for longer than a lost member may.
#[test]
fn a_member_is_lost_between_here_and_attach() {
    for moment in [
        (Point::HostSends, HERE),
        (Point::AtMaster, HERE),
        (Point::MasterSends, SUMMON),
        (Point::AtHost, SUMMON),
        (Point::HostSends, ATTACH),
        (Point::AtMaster, ATTACH),
    ] {
        for dies in [false, true] {
            let mut s = Scenario::with(3, Disk::Full);
            let hosts = [HostId(0), HostId(1), HostId(2)];
            let host = hosts[1];
            let act = match dies {
                true => Act::Crash { host, words: 0 },
                false => Act::Break {
                    host,
                    how: LOSE_ALL,
                },
            };
            s.when(moment, Some(host), act);
            s.restart_master(100);
            let rest: Vec<HostId> = hosts
                .into_iter()
                .filter(|host| !dies || *host != hosts[1])
                .collect();
            s.view_of(&rest);
            s.works(&rest, 1);
        }
    }
}

/// Goal: a member is told that a safe point changes nothing, and is lost. Those that have told it
/// that they wait there do not admit anybody at this safe point (H69).
///
/// 1. The master hears neither A nor B. B tells A that it is at safe point 0.
/// 2. A comes to it, is told that it changes nothing, and is lost with its own word. A newcomer
///    waits.
/// 3. The report of B for the end of the view arrives: its safe point changes nothing either, and
///    the next one admits the newcomer.
#[test]
fn nobody_is_admitted_at_a_safe_point_that_one_was_told_of() {
    let mut s = Scenario::with_members(2);
    let [a, b] = [HostId(0), HostId(1)];
    for host in [a, b] {
        s.world.block_control(host, Some(true), None);
    }
    let waits = s.safe_point(b);
    s.pass(MOMENT);
    let told = s.safe_point(a);
    assert!(s.ending(a, told).is_some(), "b has said that it is there");
    s.world.reset_link(LinkKey(a, b), MOMENT, false);
    s.break_control(a);
    s.world.die(a, Some(0), true);
    let newcomer = s.join();
    s.pass(s.world.swarm.timers.reattach_grace + MOMENT * 5);
    assert!(s.ending(b, waits).is_none(), "a has not");
    s.world.block_control(b, Some(false), None);
    s.end_of(b, waits);
    assert_eq!((size(&s.world, b), size(&s.world, newcomer)), (1, 0));
    s.admit(&[b], newcomer);
    s.works(&[b, newcomer], 1);
}

/// No seed has all members of a group asleep for so long, and their next call before the news; nor
/// does any check that calls go on in time while a master waits for members, or lose one of the
/// words of a safe point while a newcomer gets ready.
#[cfg(ccl_mutations)]
#[test]
fn bugs_that_seeds_do_not_notice_are_noticed() {
    use ccl_core::mutation::{Mutation, activate};

    let scripts: [(Mutation, fn()); 3] = [
        (
            Mutation::LeaseOutlived,
            members_that_slept_too_long_do_not_go_on,
        ),
        (
            Mutation::SummonedTooEarly,
            a_restarted_master_stops_nobody_before_enough_are_back,
        ),
        (
            Mutation::SaidSafePointIgnored,
            nobody_is_admitted_at_a_safe_point_that_one_was_told_of,
        ),
    ];
    assert_eq!(
        scripts.map(|(mutation, _)| mutation),
        ccl_tests::sim::mutations::SCRIPTED[5..8]
    );
    for (mutation, script) in scripts {
        activate(Some(mutation));
        let noticed = std::panic::catch_unwind(script).is_err();
        activate(None);
        assert!(noticed, "{mutation:?}");
    }
}
