//! The master starts with a doubtful journal: an older copy, a truncated one, or one without its
//! marker (R11).

use std::time::Duration;

use ccl_core::Kind;
use ccl_core::ids::{CallId, Term};
use ccl_core::master::Record;
use ccl_core::time::Instant;
use ccl_core::wire::control::EvictReason;
use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::disk::JournalDisk;
use ccl_tests::sim::links::{Direction, LinkKey};
use ccl_tests::sim::scenario::{Scenario, is_evicted, is_lost, is_unknown, size};
use ccl_tests::sim::swarm::Disk;

const A: HostId = HostId(0);
const B: HostId = HostId(1);
const C: HostId = HostId(2);

/// C holds the result of a barrier, and is evicted; the others learn that the barrier was aborted.
/// Then the master dies, and after its restart only C returns.
struct Split {
    s: Scenario,
    at_c: CallId,
    /// Records in the journal when all three were members.
    before: usize,
}

impl Split {
    fn new() -> Self {
        let mut s = Scenario::with(3, Disk::Full);
        s.works(&[A, B, C], 0);
        s.world.master.disk.copy();
        let before = s.world.master.journal().len();
        let call = s.call_of(Kind::Barrier, 0, 0);
        let calls = s.post_all(&[A, B], &call);
        s.pass_ms(50);
        // C has received from the others, but none receives from C.
        for other in [A, B] {
            let link = LinkKey::new(other, C);
            s.world.block_link(link, Direction::Down, true);
        }
        s.world.block_control(C, Some(true), Some(true));
        s.break_control(C);
        let at_c = s.post(C, &call);
        for ending in s.ends(&[A, B], &calls) {
            assert!(is_lost(&ending), "{ending:?}");
        }
        assert!(s.ending(C, at_c).is_none());
        let held = s.world.hosts[C.0].told.held.len();
        assert!(held > 1, "C holds the barrier: {held}");
        s.world.master_crash(false, Some(0));
        for other in [A, B] {
            s.world.block_control(other, Some(true), Some(true));
        }
        s.world.block_control(C, Some(false), Some(false));
        Self { s, at_c, before }
    }

    /// The master starts. It must not report a commit of the barrier to C, and resumes the others
    /// when they return.
    fn goes_on_with_the_others(mut self) {
        let s = &mut self.s;
        s.world.master_start();
        s.pass_ms(5000);
        let early = s.ending(C, self.at_c);
        assert!(early.is_none(), "one of three may not decide: {early:?}");
        for other in [A, B] {
            s.world.block_control(other, Some(false), Some(false));
        }
        let ending = s.end_of(C, self.at_c);
        assert!(is_unknown(&ending), "{ending:?}");
        s.works(&[A, B], 0);
    }
}

#[test]
fn older_copy_of_the_journal_contradicts_nobody() {
    let mut split = Split::new();
    assert!(split.s.world.master.disk.restore(), "it is older");
    split.goes_on_with_the_others();
}

#[test]
fn journal_that_was_cut_at_a_record_contradicts_nobody() {
    let mut split = Split::new();
    let disk = &mut split.s.world.master.disk;
    let cut = disk.records().len() - split.before;
    disk.lose(cut);
    split.goes_on_with_the_others();
}

/// An older copy on another machine, without a marker that could reveal it.
#[test]
fn older_copy_without_a_marker_contradicts_nobody() {
    let mut split = Split::new();
    split.s.world.master.disk.restore();
    split.s.world.master.disk.lose_marker();
    split.goes_on_with_the_others();
}

/// An older copy, and the master dies again before enough members have returned.
#[test]
fn doubt_outlives_the_master() {
    let mut split = Split::new();
    split.s.world.master.disk.restore();
    split.s.world.master_start();
    split.s.pass_ms(1000);
    split.s.world.master_crash(false, Some(1000));
    split.goes_on_with_the_others();
}

/// Whether a journal is outdated depends on what was sent to peers, not on its length.
#[test]
fn disk_says_that_a_journal_is_whole_if_it_holds_what_was_told() {
    let record = |term| Record::TermBegan { term: Term(term) };
    let at = Instant;
    let mut disk = JournalDisk::default();
    for (term, time) in [(1, 1), (2, 2), (3, 5)] {
        disk.append(record(term));
        disk.sync_at(at(time));
    }
    // The third is on its way to the disk, and no peer has learned of it.
    disk.settle(at(3));
    assert_eq!((disk.length(), disk.unsynced()), (3, 1));
    disk.lose(1);
    assert!(disk.is_whole(), "it holds what was told");
    disk.lose(1);
    assert!(!disk.is_whole(), "the second was told");
    // It grows again. Truncated before the doubt is sealed, it would be taken for the newest.
    disk.append(record(8));
    disk.append(record(9));
    disk.shorten();
    assert_eq!((disk.length(), disk.is_whole()), (3, false));
    disk.sync_at(at(9));
    disk.settle(at(9));
    assert!(disk.is_whole(), "what was done about it is sealed");
    disk.shorten();
    assert!(disk.is_whole());
}

/// The journal loses its end, and masters die before their remedy is on the disk. The one that
/// survives issues peer ids that are not in use.
#[test]
fn names_that_the_journal_lost_are_not_given_again() {
    let mut s = Scenario::with(2, Disk::Full);
    let newcomer = s.join();
    s.pass_ms(1000);
    let lost = s.world.hosts[newcomer.0].peer.peer();
    assert!(lost.is_some(), "it is registered");
    s.world.master_crash(true, Some(0));
    let cut = s.world.master.disk.length() - 1;
    s.world.master.disk.lose(cut);
    s.world.swarm.fsync = Duration::from_millis(500);
    for _ in 0..2 {
        s.world.master_start();
        s.world.master_crash(true, Some(0));
        s.world.master.disk.shorten();
    }
    s.world.master_start();
    let other = s.join();
    s.until("another newcomer is registered", |world| {
        world.hosts[other.0].peer.peer().is_some()
    });
    assert_ne!(s.world.hosts[other.0].peer.peer(), lost);
    s.check();
}

/// An older copy of both journal and marker. Only a member can reveal that, and does so before the
/// master gives a newcomer the id of C, which has not returned yet.
#[test]
fn older_copy_with_its_marker_is_betrayed_by_a_report() {
    let mut s = Scenario::with(2, Disk::Full);
    s.works(&[A, B], 0);
    s.world.master.disk.copy();
    assert_eq!(s.join(), C);
    s.admit(&[A, B], C);
    s.works(&[A, B, C], 0);
    s.world.master_crash(false, Some(0));
    let disk = &mut s.world.master.disk;
    assert!(disk.restore(), "it is older");
    disk.restore_marker();
    assert!(disk.is_whole(), "the two fit");
    s.world.block_control(C, Some(true), Some(true));
    s.world.master_start();
    s.pass_ms(500);
    let newcomer = s.join();
    s.until("the newcomer is registered", |world| {
        world.hosts[newcomer.0].peer.peer().is_some()
    });
    s.world.block_control(C, Some(false), Some(false));
    s.works(&[A, B, C], 0);
    s.admit(&[A, B, C], newcomer);
}

/// The next master has shorter timeouts. Members keep the timeouts that they were sent.
fn shorter(s: &mut Scenario, peer_timeout: Duration) {
    let timers = &mut s.world.swarm.timers;
    timers.heartbeat_interval = peer_timeout / 5;
    timers.peer_timeout = peer_timeout;
    timers.reattach_grace = peer_timeout;
    timers.rebuild_window = peer_timeout;
    timers.detach_timeout = peer_timeout * 2;
}

#[test]
fn members_are_waited_for_as_long_as_they_were_told_to_go_on() {
    let mut s = Scenario::with(1, Disk::Full);
    s.works(&[A], 0);
    s.world.master_crash(false, Some(0));
    s.world.block_control(A, Some(true), Some(true));
    shorter(&mut s, Duration::from_millis(500));
    s.world.master_start();
    let newcomer = s.join();
    s.pass_ms(8000);
    assert_eq!(size(&s.world, newcomer), 0, "a member of before is alive");
    s.world.block_control(A, Some(false), Some(false));
    s.works(&[A], 0);
    s.admit(&[A], newcomer);
}

/// A truncated journal reveals that too.
#[test]
fn members_are_judged_by_the_times_that_they_were_told() {
    for shortened in [false, true] {
        let mut s = Scenario::with(2, Disk::Full);
        s.works(&[A, B], 0);
        s.world.master_crash(false, Some(1000));
        if shortened {
            s.world.master.disk.shorten();
        }
        shorter(&mut s, Duration::from_millis(160));
        s.world.master_start();
        s.works(&[A, B], 0);
        // Wherever the one's heartbeats fall between two heartbeats of the other.
        for _ in 0..5 {
            s.pass_ms(1040);
            s.break_control(A);
        }
        s.pass_ms(1000);
        s.works(&[A, B], 0);
    }
}

/// C is evicted while it is unreachable, and the master dies. The next master knows the reason,
/// whether the journal was truncated since or not.
#[test]
fn restarted_master_says_why_a_session_ended() {
    for shortened in [false, true] {
        let mut s = Scenario::with(3, Disk::Full);
        s.works(&[A, B, C], 0);
        s.world.block_control(C, Some(true), Some(true));
        s.view_of(&[A, B]);
        s.world.master_crash(false, Some(1000));
        if shortened {
            s.world.master.disk.shorten();
        }
        s.world.master_start();
        s.works(&[A, B], 0);
        s.world.block_control(C, Some(false), Some(false));
        let end = s.session_end(C);
        let is_told = is_evicted(&end, |why| matches!(why, EvictReason::Silent { .. }));
        assert!(is_told, "{end:?}");
    }
}

/// Bugs that only scripted scenarios notice. Seeds have no old copy of a journal that fits its
/// marker, since that gives up the checked guarantees, and hardly ever two crashes around one
/// doubt.
#[cfg(ccl_mutations)]
#[test]
fn bugs_that_seeds_do_not_notice_are_noticed() {
    use ccl_core::mutation::{Mutation, activate};

    let scripts: [(Mutation, fn()); 2] = [
        (
            Mutation::NewerReportIgnored,
            older_copy_with_its_marker_is_betrayed_by_a_report,
        ),
        (Mutation::DoubtForgotten, doubt_outlives_the_master),
    ];
    assert_eq!(
        scripts.map(|(mutation, _)| mutation),
        ccl_tests::sim::mutations::SCRIPTED[..2]
    );
    for (mutation, script) in scripts {
        activate(Some(mutation));
        let noticed = std::panic::catch_unwind(script).is_err();
        activate(None);
        assert!(noticed, "{mutation:?}");
    }
}
