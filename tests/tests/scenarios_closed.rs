//! Closed groups: they form with exactly the listed members in order, or not at all, whatever
//! happens meanwhile (docs/protocol.md, R21).

use std::time::Duration;

use ccl_core::ids::{GroupId, Rank};
use ccl_core::peer::SessionEnd;
use ccl_core::wire::control::Place;
use ccl_tests::sim::closed::{Asker, FIRST};
use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::hooks::{Act, Point};
use ccl_tests::sim::messages::{EXPECT, HELLO, INSTALL, INSTALLED, READY, WELCOME};
use ccl_tests::sim::scenario::{Scenario, size, swarm};
use ccl_tests::sim::swarm::Disk;

/// A world with a master and no peers.
fn empty(disk: Disk) -> Scenario {
    let mut s = Scenario::empty(swarm(disk, 1));
    s.world.master_start();
    s
}

/// A rank of the list of this number.
fn place(list: u128, size: u32, rank: u32) -> Place {
    Place {
        roster: list,
        size,
        rank: Rank(rank),
    }
}

/// A process asks for a place in the group of this number.
fn ask(s: &mut Scenario, number: u64, place: Place) -> HostId {
    let asker = Asker {
        group: GroupId(FIRST + number),
        place: Some(place),
    };
    s.world.spawn_asker(asker)
}

/// All members of a list of this size ask, the last rank first. Returns them in rank order.
fn ask_all(s: &mut Scenario, number: u64, size: u32) -> Vec<HostId> {
    let ranks = (0..size).rev();
    let mut hosts: Vec<HostId> = ranks
        .map(|rank| ask(s, number, place(1, size, rank)))
        .collect();
    hosts.reverse();
    hosts
}

/// A group forms and works.
fn forms(s: &mut Scenario, number: u64, size: u32) -> Vec<HostId> {
    let hosts = ask_all(s, number, size);
    s.view_of(&hosts);
    s.works(&hosts, 1);
    hosts
}

/// Lets a process leave, if its session has not ended. How the session ended.
fn leave(s: &mut Scenario, host: HostId) -> SessionEnd {
    if s.world.hosts[host.0].is_live() {
        s.world.act(Act::Leave { host });
    }
    s.session_end(host)
}

fn is_refused(end: &SessionEnd) -> bool {
    matches!(end, SessionEnd::Refused(why) if why.contains("is already used"))
}

/// Goal: groups that overlap and each lack a member do not form, hold no process back, and leave
/// nothing behind.
///
/// 1. A asks for {A, B}, B for {B, C}, and C for {C, A}, each under an id of its own.
/// 2. None forms. All give up; each session ends as left.
/// 3. They ask for {A, B, C}, which forms in order.
#[test]
fn overlapping_views_that_lack_members_do_not_form() {
    let mut s = empty(Disk::Full);
    let hosts = [0, 1, 2].map(|number| ask(&mut s, number, place(1 + u128::from(number), 2, 0)));
    s.pass_ms(5000);
    for host in hosts {
        assert_eq!(size(&s.world, host), 0);
        assert_eq!(leave(&mut s, host), SessionEnd::Left);
    }
    s.pass_ms(500);
    assert!((0..3).all(|number| s.world.phase_of(GroupId(FIRST + number)).is_none()));
    forms(&mut s, 3, 3);
}

/// Goal: two groups form while a larger one works, and outlast it.
#[test]
fn groups_form_beside_a_larger_one() {
    let mut s = empty(Disk::Full);
    let whole = forms(&mut s, 0, 4);
    let pair = ask_all(&mut s, 1, 2);
    let others = ask_all(&mut s, 2, 2);
    s.view_of(&pair);
    s.view_of(&others);
    for host in whole {
        assert_eq!(leave(&mut s, host), SessionEnd::Left);
    }
    s.works(&pair, 1);
    s.works(&others, 1);
}

/// Goal: the group waits for a member that is late, and refuses a process once it has formed.
#[test]
fn a_late_joiner_is_waited_for_or_refused() {
    let mut s = empty(Disk::Full);
    let early = [0, 1].map(|rank| ask(&mut s, 0, place(1, 3, rank)));
    s.pass_ms(4000);
    let late = ask(&mut s, 0, place(1, 3, 2));
    s.view_of(&[early[0], early[1], late]);
    let too_late = ask(&mut s, 0, place(1, 3, 2));
    let end = s.session_end(too_late);
    assert!(is_refused(&end), "{end:?}");
    s.works(&[early[0], early[1], late], 1);
}

/// Moments while a group forms: where, and the kind of message.
const MOMENTS: [(Point, u64); 9] = [
    (Point::AtMaster, HELLO),
    (Point::MasterSends, WELCOME),
    (Point::AtHost, EXPECT),
    (Point::HostSends, READY),
    (Point::AtMaster, READY),
    (Point::MasterSends, INSTALL),
    (Point::AtHost, INSTALL),
    (Point::HostSends, INSTALLED),
    (Point::AtMaster, INSTALLED),
];

/// Goal: a member may die at any moment. The first view has all members or never is, no call of
/// the others stays open, and they form another group.
#[test]
fn a_member_dies_in_each_phase() {
    for moment in MOMENTS {
        for words in [0, 1000] {
            let mut s = empty(Disk::Full);
            let dying = HostId(1);
            let act = Act::Crash { host: dying, words };
            s.when(moment, Some(dying), act);
            let hosts = ask_all(&mut s, 0, 3);
            s.until("the death", |world| !world.hosts[dying.0].is_live());
            // The others are in a smaller view by now, or still wait for the first.
            s.pass_ms(6000);
            for host in hosts.into_iter().filter(|host| *host != dying) {
                let calls = &s.world.hosts[host.0].app.calls;
                assert!(calls.is_empty(), "{moment:?}, {words}: {calls:?}");
                leave(&mut s, host);
            }
            s.until("the end of the group", |world| {
                world.phase_of(GroupId(FIRST)).is_none()
            });
            forms(&mut s, 1, 2);
        }
    }
}

/// Goal: the master may die at any moment, with its journal or without. All members are in one
/// view, in order, or none is; with its journal the next master refuses a used id.
#[test]
fn the_master_restarts_in_each_phase() {
    for disk in [Disk::Full, Disk::LazyLost, Disk::None] {
        for moment in MOMENTS {
            let mut s = empty(disk);
            let act = Act::CrashMaster {
                words: 0,
                restart: Duration::from_millis(500),
            };
            s.when(moment, None, act);
            let hosts = ask_all(&mut s, 0, 3);
            s.until("the next master", |world| world.master.incarnation == 2);
            s.pass_ms(20_000);
            let formed = hosts
                .iter()
                .filter(|host| size(&s.world, **host) > 0)
                .count();
            let ended = hosts
                .iter()
                .filter_map(|host| s.world.hosts[host.0].ended.clone());
            // The only one that learned of the view cannot prove it without the journal.
            let is_alone = |end: &SessionEnd| disk == Disk::None && *end == SessionEnd::Detached;
            let is_over = |end: SessionEnd| is_refused(&end) || is_alone(&end);
            assert!(
                formed == 3 || ended.clone().all(is_over),
                "{disk:?}, {moment:?}: {formed} formed, {:?}",
                ended.collect::<Vec<_>>()
            );
            for host in hosts {
                leave(&mut s, host);
            }
            s.until("the end of the group", |world| {
                matches!(world.phase_of(GroupId(FIRST)), None | Some("Founding"))
            });
            forms(&mut s, 1, 2);
        }
    }
}

/// Goal: the next master refuses a used id too, whether members are left or not.
#[test]
fn a_used_id_is_refused_by_the_next_master() {
    for disk in [Disk::Full, Disk::LazyLost] {
        let mut s = empty(disk);
        let gone = forms(&mut s, 0, 2);
        let there = forms(&mut s, 1, 2);
        for host in gone {
            leave(&mut s, host);
        }
        s.pass_ms(1000);
        s.restart_master(500);
        s.works(&there, 2);
        for number in [0, 1] {
            let late = ask(&mut s, number, place(7, 1, 0));
            let end = s.session_end(late);
            assert!(is_refused(&end), "{disk:?}, {number}: {end:?}");
        }
    }
}

/// Goal: a master that restarts still knows that a group is closed, and lets no newcomer in.
///
/// 1. A closed group of two works, and the master restarts, with its journal or without.
/// 2. A process asks for the group as an open one; both members call a safe point.
/// 3. The process is refused, and the safe point changes nothing.
#[test]
fn a_closed_group_stays_closed_after_a_restart() {
    for disk in [Disk::Full, Disk::None] {
        let mut s = empty(disk);
        let hosts = forms(&mut s, 0, 2);
        s.restart_master(500);
        let group = GroupId(FIRST);
        let stranger = s.world.spawn_asker(Asker { group, place: None });
        s.works(&hosts, 2);
        for host in &hosts {
            s.safe_point(*host);
        }
        let end = s.session_end(stranger);
        assert!(is_refused(&end), "{disk:?}: {end:?}");
        s.works(&hosts, 3);
        assert_eq!(size(&s.world, hosts[0]), 2);
    }
}

/// No seed asks for a closed group as an open one just after a restarted master has rebuilt it.
#[cfg(ccl_mutations)]
#[test]
fn a_master_that_forgets_that_a_group_is_closed_is_noticed() {
    use ccl_core::mutation::{Mutation, activate};

    assert_eq!(
        [Mutation::ClosedNotSealed],
        ccl_tests::sim::mutations::SCRIPTED[4..5]
    );
    activate(Some(Mutation::ClosedNotSealed));
    let noticed = std::panic::catch_unwind(a_closed_group_stays_closed_after_a_restart).is_err();
    activate(None);
    assert!(noticed);
}
