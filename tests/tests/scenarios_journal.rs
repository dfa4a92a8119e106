//! The master starts with a journal that is not what it was: an older copy, a shortened one, one
//! without its marker (R11).

use ccl_core::Kind;
use ccl_core::ids::CallId;
use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::links::{Direction, LinkKey};
use ccl_tests::sim::scenario::{Scenario, is_lost, is_unknown};
use ccl_tests::sim::swarm::Disk;

const A: HostId = HostId(0);
const B: HostId = HostId(1);
const C: HostId = HostId(2);

/// C holds a barrier, and is evicted; the others are told that it was aborted. Then the master
/// dies, and hears C alone when it is back.
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
        // C has heard the others, and is heard by nobody.
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

    /// The master starts. C must not be told that the barrier committed, and the others are taken
    /// up when they are heard.
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

/// An older copy on another machine: there is no marker that could tell.
#[test]
fn older_copy_without_a_marker_contradicts_nobody() {
    let mut split = Split::new();
    split.s.world.master.disk.restore();
    split.s.world.master.disk.lose_marker();
    split.goes_on_with_the_others();
}

/// An older copy, and the master dies again before it has heard enough.
#[test]
fn doubt_outlives_the_master() {
    let mut split = Split::new();
    split.s.world.master.disk.restore();
    split.s.world.master_start();
    split.s.pass_ms(1000);
    split.s.world.master_crash(false, Some(1000));
    split.goes_on_with_the_others();
}
