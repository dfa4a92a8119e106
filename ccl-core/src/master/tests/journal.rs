//! Journals that were lost, that are kept again, or that are older than the run (R11).
//!
//! Goal: what a master cannot know from its journal, it does not decide from it.
//!
//! 1. A run taken over from its members is in the journal whole: units, groups not heard yet, ids.
//! 2. An older copy is found out by what peers report, or by a word from outside, and is then worth
//!    no more than what one of its members would claim.

use super::generations::{admitted, at_one, evictions, taken_over};
use super::units::Site;
use super::*;
use crate::wire::control::AbortReason;

/// With a journal from now on, after the one before was lost.
fn kept_again() -> Setup {
    Setup {
        new_run: false,
        ..setup()
    }
}

/// Told by the driver that its journal is older than the run.
fn outdated() -> Setup {
    Setup {
        journaled: false,
        ..kept_again()
    }
}

impl Stage {
    /// The master dies, and an older copy of its journal is put in the place of the newest.
    fn restart_from(self, records: usize, setup: Setup) -> Self {
        let mut stage = Self::with(setup, &self.journal[..records]);
        // Claims are still made from what was really sealed.
        let own = stage.journal.split_off(records);
        stage.journal = self.journal;
        stage.journal.extend(own);
        stage.next_connection = self.next_connection;
        stage
    }

    /// The master dies and keeps the journal that it has written itself since it lost the other.
    fn restart_with_own(self, before: usize, setup: Setup) -> Self {
        let mut stage = Self::with(setup, &self.journal[before..]);
        let own = stage.journal.split_off(self.journal.len() - before);
        stage.journal = self.journal;
        stage.journal.extend(own);
        stage.next_connection = self.next_connection;
        stage
    }

    fn confirm_all(&mut self, puppets: &[Puppet], group: u32, safe_called: u64) {
        let vid = self.view(group).0;
        for puppet in puppets {
            let mut report = report(vid);
            (report.safe_called, report.safe_released) = (safe_called, safe_called);
            self.say(*puppet, PeerToMaster::Installed { vid, report });
        }
    }
}

/// All members of both groups attach, group by group, and confirm the view that follows.
fn take_up(stage: &mut Stage, site: &mut Site, vids: [Vid; 2]) -> Vec<Puppet> {
    let mut alive = Vec::new();
    for group in [0, 1] {
        let mut members = [site.groups[group].clone(), vec![site.unit[group]]].concat();
        for puppet in &mut members {
            stage.attach(puppet, at_one(vids[group]));
        }
        stage.confirm_all(&members, group as u32, 1);
        (site.unit[group], site.groups[group]) = (members[2], members[..2].to_vec());
        alive.extend(members);
    }
    alive
}

/// I13: the master lost its journal, took the run over and kept a journal since. After its next
/// start it must still know which peers are of one host.
#[test]
fn units_of_a_run_that_was_taken_over_survive_the_next_restart() {
    let mut site = admitted();
    let before = site.stage.journal.len();
    let vids = [0, 1].map(|group| site.stage.view(group).0);
    let mut stage = taken_over(&mut site, kept_again());
    take_up(&mut stage, &mut site, vids);
    let vids = [0, 1].map(|group| stage.view(group).0);
    let mut stage = stage.restart_with_own(before, kept_again());
    let mut alive = take_up(&mut stage, &mut site, vids);
    let [first, second] = site.unit;
    alive.retain(|puppet| ![first, second].contains(puppet));
    // One process of the host dies, and a member sees it.
    let down = PeerToMaster::LinkDown {
        vid: stage.view(0).0,
        peer: first.peer,
        fault: crate::wire::control::LinkFault::Ended,
        gave_up: false,
    };
    stage.say(alive[0], down);
    stage.close(first);
    let expected = [
        (first.peer, EvictReason::Died),
        (second.peer, EvictReason::Unit(first.peer)),
    ];
    assert_eq!(evictions(&stage), expected);
}

/// The same for what a newcomer's registration is shortened to.
#[test]
fn takeover_is_in_a_shortened_journal_too() {
    let mut site = admitted();
    let before = site.stage.journal.len();
    let vids = [0, 1].map(|group| site.stage.view(group).0);
    let mut stage = taken_over(&mut site, kept_again());
    take_up(&mut stage, &mut site, vids);
    let history = History::read(&stage.journal[before..]);
    let short = History::read(&history.records());
    assert_eq!(short, history);
    let sizes: Vec<_> = short
        .sessions
        .values()
        .map(|known| known.unit_size)
        .collect();
    assert_eq!(sizes.iter().filter(|size| **size == Some(2)).count(), 2);
}

/// The journal was lost, group 0 was taken over, and the master dies before group 1 is heard.
#[test]
fn group_that_was_not_heard_before_the_next_restart_is_taken_over_then() {
    let mut stage = Stage::new();
    let (mut first, vid) = stage.founded(0, 2);
    let (mut second, other) = stage.founded(1, 2);
    let before = stage.journal.len();
    let run_id = first[0].run_id;
    let mut stage = stage.restart_from(0, kept_again());
    for puppet in &mut first {
        stage.attach(puppet, report(vid));
    }
    let next = stage.view(0).0;
    let mut stage = stage.restart_with_own(before, kept_again());
    // A newcomer comes first: neither its group nor its id is that of somebody not heard yet.
    let newcomer = stage.join_group(1);
    assert_eq!(newcomer.run_id, run_id);
    for puppet in &mut first {
        stage.attach(puppet, report(next));
    }
    for puppet in &mut second {
        stage.attach(puppet, report(other));
    }
    assert_eq!(evictions(&stage), []);
    let members: Vec<_> = second.iter().map(|puppet| puppet.peer).collect();
    assert_eq!(stage.view(1).1, members);
    assert!(!members.contains(&newcomer.peer));
}

/// H33: C holds X and is cut off; the others are told that X was aborted. Then an older copy of the
/// journal is put in place, and C alone comes back: X must not be told committed to it.
#[test]
fn older_copy_of_a_journal_is_worth_no_more_than_a_claim() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    let copied = stage.journal.len();
    abort_without_the_last(&mut stage, &peers, vid);
    let mut stage = stage.restart_from(copied, outdated());
    stage.attach(&mut peers[2], report_open(vid, op(0, vid), true));
    stage.window(&peers[2..]);
    assert_eq!(stage.told(peers[2]), [], "one of three may not decide");
    stage.attach(&mut peers[0], report(stage_view(&stage)));
    stage.attach(&mut peers[1], report(stage_view(&stage)));
    let reason = EvictReason::NotAMember;
    assert_eq!(stage.told(peers[2]), [MasterToPeer::Evicted { reason }]);
}

/// C hangs; A and B are told that X was aborted for that.
fn abort_without_the_last(stage: &mut Stage, peers: &[Puppet], vid: Vid) {
    let x = op(0, vid);
    for peer in peers {
        stage.say(*peer, posted(x));
    }
    stage.pass(Timers::default().peer_timeout, &peers[..2]);
    for peer in &peers[..2] {
        stage.flush(*peer, vid, report_open(vid, x, false));
    }
    let install = stage.installed(peers[0]);
    let reason = &install.floors[0].reasons[0].1;
    assert!(matches!(reason, AbortReason::Lost { .. }), "{reason:?}");
    for peer in &peers[..2] {
        stage.confirm(*peer, install.vid);
    }
}

/// The newest view that was really sealed.
fn stage_view(stage: &Stage) -> Vid {
    let views = stage.journal.iter().filter_map(|record| match record {
        Record::ViewSealed(view) => Some(view.vid),
        _ => None,
    });
    views.max().expect("one was sealed")
}
