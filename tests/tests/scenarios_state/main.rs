//! Shared state: sources and receivers that die, elections that are missed, and states that are
//! lost (docs/protocol.md, R18). The checkers compare the contents of all members that succeed.

mod strays;

use std::time::Duration;

use ccl_core::ids::{CallId, Revision, Tag};
use ccl_core::wire::control::{AbortReason, EvictReason, Kind, StateId, SyncFault, SyncStrategy};
use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::hooks::{Act, Point};
use ccl_tests::sim::messages::{ATTACH, COMMIT, DONE, ELECTED, HERE, SUSPEND};
use ccl_tests::sim::network::Break;
use ccl_tests::sim::program::{Logical, Twist};
use ccl_tests::sim::scenario::{
    LOSE_ALL, Scenario, abort_of, is_cancelled, is_committed, is_evicted, is_lost, size,
};
use ccl_tests::sim::swarm::Disk;
use ccl_tests::sim::sync::root;
use ccl_tests::sim::workload::Ending;

const A: HostId = HostId(0);
const B: HostId = HostId(1);
const C: HostId = HostId(2);
const DISKS: [Disk; 3] = [Disk::Full, Disk::LazyLost, Disk::None];

fn content(revision: u64, number: u64) -> StateId {
    StateId {
        revision: Revision(revision),
        root: root(number),
    }
}

/// Gives this content to these hosts.
fn has(s: &mut Scenario, hosts: &[HostId], content: StateId) {
    for host in hosts {
        s.world.hosts[host.0].app.possession.content = content;
    }
}

/// These hosts vote to restore, and no others.
fn votes(s: &mut Scenario, willing: &[HostId]) {
    for (index, host) in s.world.hosts.iter_mut().enumerate() {
        host.app.possession.restore = willing.contains(&HostId(index));
    }
}

fn sync(s: &mut Scenario) -> Logical {
    s.call_of(Kind::SharedState, Tag::SHARED_STATE.0, 0)
}

/// All of these hosts sync.
fn begin(s: &mut Scenario, hosts: &[HostId]) -> Vec<CallId> {
    let call = sync(s);
    s.post_all(hosts, &call)
}

/// All of these hosts sync, and then have this content.
fn agree(s: &mut Scenario, hosts: &[HostId], content: StateId) {
    let calls = begin(s, hosts);
    for ending in s.ends(hosts, &calls) {
        assert!(is_committed(&ending), "{ending:?}");
    }
    for host in hosts {
        assert_eq!(s.world.hosts[host.0].app.possession.content, content);
    }
}

fn fault_of(ending: &Ending) -> &SyncFault {
    match abort_of(ending) {
        Some(AbortReason::State(fault)) => fault,
        _ => panic!("{ending:?}"),
    }
}

#[test]
fn newcomer_and_stray_get_what_the_others_have() {
    let mut s = Scenario::with_members(2);
    has(&mut s, &[A, B], content(4, 1));
    agree(&mut s, &[A, B], content(4, 1));
    let newcomer = s.join();
    s.admit(&[A, B], newcomer);
    has(&mut s, &[B], content(4, 9));
    agree(&mut s, &[A, B, newcomer], content(4, 1));
    has(&mut s, &[A], content(5, 1));
    agree(&mut s, &[A, B, newcomer], content(5, 1));
}

/// The attempt is aborted, and the retry takes the content of the remaining source.
#[test]
fn source_that_dies_half_way_is_replaced_by_another() {
    for (act, words) in [(ELECTED, 0), (ELECTED, 1000), (DONE, 0)] {
        let mut s = Scenario::with_members(3);
        has(&mut s, &[A, B], content(4, 1));
        let point = if act == DONE {
            Point::HostSends
        } else {
            Point::AtHost
        };
        s.when((point, act), Some(A), Act::Crash { host: A, words });
        let calls = begin(&mut s, &[A, B, C]);
        let endings = s.ends(&[B, C], &calls[1..]);
        assert!(endings.iter().all(is_lost), "{endings:?}");
        agree(&mut s, &[B, C], content(4, 1));
    }
}

/// A receiver that hangs keeps the others waiting only until it is evicted.
#[test]
fn receiver_that_hangs_half_way_is_lost_and_the_others_go_on() {
    let mut s = Scenario::with_members(3);
    has(&mut s, &[A, B], content(4, 1));
    let length = Duration::from_secs(60);
    s.when(
        (Point::AtHost, ELECTED),
        Some(C),
        Act::Freeze { host: C, length },
    );
    let calls = begin(&mut s, &[A, B, C]);
    let endings = s.ends(&[A, B], &calls[..2]);
    let committed = endings.iter().filter(|ending| is_committed(ending)).count();
    assert!(committed == 2, "all survivors hold it: {endings:?}");
    agree(&mut s, &[A, B], content(4, 1));
}

/// C is left with a mixture, and can only receive until it has a complete state.
#[test]
fn half_a_state_is_never_a_source() {
    let mut s = Scenario::with_members(4);
    let d = HostId(3);
    has(&mut s, &[A, d], content(4, 1));
    has(&mut s, &[C], content(3, 3));
    for host in [A, d] {
        s.when(
            (Point::AtHost, ELECTED),
            Some(C),
            Act::Crash { host, words: 0 },
        );
    }
    let calls = begin(&mut s, &[A, B, C, d]);
    let endings = s.ends(&[B, C], &calls[1..3]);
    assert!(endings.iter().all(is_lost), "{endings:?}");
    assert!(!s.world.hosts[C.0].app.possession.is_usable);
    s.view_of(&[B, C]);
    s.world.hosts[B.0].app.possession.is_usable = true;
    agree(&mut s, &[B, C], content(0, 0));
    assert!(s.world.hosts[C.0].app.possession.is_usable);
}

/// Only A is ahead, and it dies while B and a newcomer fetch its content. B then offers its earlier
/// content, which was sealed before.
#[test]
fn only_source_that_dies_half_way_leaves_what_was_sealed_before() {
    for (act, words) in [(ELECTED, 0), (ELECTED, 1000), (DONE, 0)] {
        let mut s = Scenario::with_members(2);
        has(&mut s, &[A, B], content(4, 1));
        agree(&mut s, &[A, B], content(4, 1));
        s.join();
        s.admit(&[A, B], C);
        has(&mut s, &[A], content(5, 1));
        let (point, of) = match act {
            DONE => (Point::HostSends, A),
            _ => (Point::AtHost, B),
        };
        s.when((point, act), Some(of), Act::Crash { host: A, words });
        let calls = begin(&mut s, &[A, B, C]);
        let endings = s.ends(&[B, C], &calls[1..]);
        assert!(endings.iter().all(is_lost), "{endings:?}");
        agree(&mut s, &[B, C], content(4, 1));
    }
}

#[test]
fn lost_revision_comes_back_by_the_vote_of_all() {
    for disk in DISKS {
        let mut s = Scenario::with(3, disk);
        has(&mut s, &[A, B, C], content(4, 1));
        agree(&mut s, &[A, B, C], content(4, 1));
        // Two members restart from an old checkpoint, and the third dies.
        has(&mut s, &[A, B], content(2, 7));
        s.world.crash(C, Some(1000));
        s.view_of(&[A, B]);
        s.restart_master(100);
        for willing in [&[][..], &[A]] {
            votes(&mut s, willing);
            let calls = begin(&mut s, &[A, B]);
            for ending in s.ends(&[A, B], &calls) {
                let SyncFault::RevisionLost { sealed, best, .. } = fault_of(&ending) else {
                    panic!("{ending:?}");
                };
                assert_eq!((*sealed, *best), (content(4, 1), content(2, 7)));
            }
        }
        votes(&mut s, &[A, B]);
        agree(&mut s, &[A, B], content(2, 7));
        // The run goes on from there.
        s.restart_master(100);
        has(&mut s, &[B], content(3, 1));
        agree(&mut s, &[A, B], content(3, 1));
    }
}

#[test]
fn fault_is_told_to_all_and_evicts_nobody() {
    let mut s = Scenario::with_members(3);
    s.world.hosts[B.0].app.possession.strategy = SyncStrategy::SendOnly;
    let calls = begin(&mut s, &[A, B, C]);
    for ending in s.ends(&[A, B, C], &calls) {
        assert!(matches!(fault_of(&ending), SyncFault::Strategies { .. }));
    }
    assert_eq!(size(&s.world, A), 3);
    s.works(&[A, B, C], 0);
    s.world.hosts[B.0].app.possession.strategy = SyncStrategy::EnforcePopular;
    agree(&mut s, &[A, B, C], content(0, 0));
}

/// B loses its connection together with the election. It learns of the election after the reply to
/// its `Attach`, in a view that continues or ends.
#[test]
fn election_that_was_missed_is_said_again() {
    for suspends in [false, true] {
        let mut s = Scenario::with_members(3);
        has(&mut s, &[A], content(4, 1));
        let how = Break {
            up_kept: 1000,
            down_kept: 0,
            host_notices: Some(Duration::from_millis(3)),
            master_notices: Some(Duration::from_millis(3)),
        };
        s.when(
            (Point::MasterSends, ELECTED),
            Some(B),
            Act::Break { host: B, how },
        );
        if suspends {
            s.when((Point::HostSends, HERE), Some(B), Act::Cancel { host: C });
        }
        let other = s.call(0, 10);
        let cancelled = suspends.then(|| s.post(C, &other));
        let calls = begin(&mut s, &[A, B, C]);
        for ending in s.ends(&[A, B, C], &calls) {
            assert!(is_committed(&ending), "{ending:?}");
        }
        if let Some(call) = cancelled {
            assert!(is_cancelled(&s.end_of(C, call)));
        }
        let state = if suspends { "Suspended" } else { "Steady" };
        let visited = s.world.hosts[B.0].peer.visited();
        assert!(visited.contains(&(state, "Elected")), "{visited:?}");
    }
}

/// Members save the result of a sync, and then the whole site loses power: only the part of the
/// journal that was certainly on the disk remains. The content with which they return was sealed.
#[test]
fn checkpoints_of_a_site_are_not_ahead_of_a_journal_that_lost_its_end() {
    let mut s = Scenario::with(2, Disk::LazyLost);
    has(&mut s, &[A, B], content(4, 1));
    agree(&mut s, &[A, B], content(4, 1));
    s.join();
    s.admit(&[A, B], C);
    for revision in [5, 6] {
        has(&mut s, &[A], content(revision, 1));
        agree(&mut s, &[A, B, C], content(revision, 1));
    }
    let [first, second] = black_out(&mut s, &[A, B, C]);
    has(&mut s, &[first, second], content(6, 1));
    agree(&mut s, &[first, second], content(6, 1));
    has(&mut s, &[second], content(7, 1));
    agree(&mut s, &[first, second], content(7, 1));
}

/// The checkpoints of a site are newer than what was sealed according to its journal. The members
/// cannot go on from them, unless all vote to restore.
#[test]
fn checkpoints_that_are_ahead_of_the_journal_come_back_by_the_vote_of_all() {
    let mut s = Scenario::with_members(2);
    has(&mut s, &[A, B], content(4, 1));
    agree(&mut s, &[A, B], content(4, 1));
    let [first, second] = black_out(&mut s, &[A, B]);
    for willing in [&[][..], &[first]] {
        has(&mut s, &[first], content(6, 1));
        has(&mut s, &[second], content(7, 1));
        votes(&mut s, willing);
        let calls = begin(&mut s, &[first, second]);
        for ending in s.ends(&[first, second], &calls) {
            let fault = fault_of(&ending);
            assert!(matches!(fault, SyncFault::RevisionAhead { .. }), "{fault}");
        }
    }
    has(&mut s, &[first], content(6, 1));
    has(&mut s, &[second], content(7, 1));
    votes(&mut s, &[first, second]);
    agree(&mut s, &[first, second], content(7, 1));
    votes(&mut s, &[]);
    has(&mut s, &[first], content(8, 1));
    agree(&mut s, &[first, second], content(8, 1));
}

/// All members and the master lose power, and the part of the journal that was not certainly on the
/// disk is lost. Two processes replace them once no earlier session can be alive.
fn black_out(s: &mut Scenario, members: &[HostId]) -> [HostId; 2] {
    for &member in members {
        s.world.die(member, Some(0), true);
    }
    s.world.master_crash(true, Some(0));
    let disk = &mut s.world.master.disk;
    disk.lose(disk.unsynced());
    assert!(disk.is_whole(), "nothing of it was told");
    s.world.swarm.min_worlds[0] = 2;
    s.world.master_start();
    let newcomers = [s.join(), s.join()];
    s.view_of(&newcomers);
    newcomers
}

/// Some members know the result of the election and some do not; the next master tells all the
/// same.
#[test]
fn master_that_dies_around_an_election_changes_nothing() {
    for disk in DISKS {
        for words in [0, 300, 600, 1000] {
            for (point, kind) in [
                (Point::MasterSends, ELECTED),
                (Point::AtHost, ELECTED),
                (Point::AtMaster, DONE),
                (Point::MasterSends, COMMIT),
                (Point::AtHost, COMMIT),
            ] {
                let mut s = Scenario::with(3, disk);
                has(&mut s, &[A, B, C], content(1, 1));
                agree(&mut s, &[A, B, C], content(1, 1));
                has(&mut s, &[A], content(2, 2));
                let restart = Duration::from_millis(200);
                s.when((point, kind), None, Act::CrashMaster { words, restart });
                agree(&mut s, &[A, B, C], content(2, 2));
                has(&mut s, &[B], content(2, 3));
                agree(&mut s, &[A, B, C], content(2, 2));
            }
        }
    }
}

/// The view changes because of another call while a sync waits for its last member.
#[test]
fn sync_that_is_carried_is_elected_when_the_last_member_comes() {
    let mut s = Scenario::with_members(3);
    has(&mut s, &[C], content(4, 1));
    let other = s.call(0, 10);
    let call = sync(&mut s);
    let mut calls = vec![s.post(A, &call), s.post(B, &call)];
    let cancelled = s.post_twisted(A, &other, Twist::Cancel(Duration::from_millis(20)));
    assert!(is_cancelled(&s.end_of(A, cancelled)));
    assert!(s.ending(A, calls[0]).is_none());
    calls.push(s.post(C, &call));
    for ending in s.ends(&[A, B, C], &calls) {
        assert!(is_committed(&ending), "{ending:?}");
    }
    let possession = &s.world.hosts[A.0].app.possession;
    assert_eq!(possession.content, content(4, 1));
}

/// A newcomer joins behind a sync that goes on without it, and does not know what that sealed. The
/// only survivor of the others does, whatever the master forgets.
#[test]
fn newcomer_behind_a_carried_sync_is_held_to_what_that_sealed() {
    for disk in DISKS {
        let mut s = Scenario::with(2, disk);
        has(&mut s, &[A, B], content(4, 1));
        let call = sync(&mut s);
        let first = s.post(A, &call);
        s.join();
        s.admit(&[A, B], C);
        let second = s.post(B, &call);
        for ending in s.ends(&[A, B], &[first, second]) {
            assert!(is_committed(&ending), "{ending:?}");
        }
        s.world.crash(A, Some(1000));
        s.view_of(&[B, C]);
        s.restart_master(100);
        has(&mut s, &[B], content(4, 8));
        let calls = begin(&mut s, &[B, C]);
        for ending in s.ends(&[B, C], &calls) {
            let SyncFault::RevisionLost { sealed, best, .. } = fault_of(&ending) else {
                panic!("{ending:?}");
            };
            assert_eq!((*sealed, *best), (content(4, 1), content(4, 8)));
        }
    }
}

/// Goal: what a member comes to hold while it attaches is in the report that follows. Nobody else
/// says it: the verdict on a sync is the master's, so members tell each other nothing (R5, R19).
///
/// 1. A is elected as the source and stops for a second; B, which fetches from it, loses its
///    connection, and attaches.
/// 2. The reply is held back until A has gone on, and B has all.
#[test]
fn content_that_arrives_while_a_member_attaches_counts() {
    let mut s = Scenario::with_members(2);
    has(&mut s, &[A], content(4, 1));
    let length = Duration::from_secs(1);
    let stop = Act::Freeze { host: A, length };
    s.when((Point::AtHost, ELECTED), Some(A), stop);
    let how = LOSE_ALL;
    s.when(
        (Point::AtHost, ELECTED),
        Some(B),
        Act::Break { host: B, how },
    );
    let (up, down) = (false, true);
    let mute = Act::Block { host: B, up, down };
    s.when((Point::HostSends, ATTACH), Some(B), mute);
    let calls = begin(&mut s, &[A, B]);
    s.pass_ms(1500);
    assert_eq!(s.world.hosts[B.0].app.possession.content, content(4, 1));
    assert!(s.ending(B, calls[1]).is_none());
    s.world.block_control(B, None, Some(false));
    let endings = s.ends(&[A, B], &calls);
    assert!(endings.iter().all(is_committed), "{endings:?}");
}

/// Random seeds hardly ever lose all members and the end of the journal between two syncs, or have
/// a sync whose last content arrives in the instant in which its member attaches.
#[cfg(ccl_mutations)]
#[test]
fn a_seal_told_too_early_and_a_fact_never_told_are_noticed() {
    use ccl_core::mutation::{Mutation, activate};

    let scripts: [(Mutation, fn()); 2] = [
        (
            Mutation::SealedStateLazy,
            checkpoints_of_a_site_are_not_ahead_of_a_journal_that_lost_its_end,
        ),
        (
            Mutation::InstalledWithoutFacts,
            content_that_arrives_while_a_member_attaches_counts,
        ),
    ];
    assert_eq!(
        scripts.map(|(mutation, _)| mutation),
        ccl_tests::sim::mutations::SCRIPTED[2..4]
    );
    for (mutation, script) in scripts {
        activate(Some(mutation));
        let noticed = std::panic::catch_unwind(script).is_err();
        activate(None);
        assert!(noticed, "{mutation:?}");
    }
}
