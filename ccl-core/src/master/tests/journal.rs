//! Journals that were lost, kept again, or are older than the run (R11).
//!
//! Goal: what a master cannot know from its journal, it does not decide from it.
//!
//! 1. A run taken over from its members is completely in the journal: units, groups not heard yet,
//!    ids.
//! 2. An older copy is detected by reports of peers, or by the driver, and then counts no more than
//!    the claim of one member.

use super::generations::{admitted, at_one, evictions, taken_over};
use super::units::{Site, UNIT};
use super::*;
use crate::ids::Term;
use crate::limits;
use crate::wire::control::AbortReason;

/// With a journal from now on, after the one before was lost.
fn kept_again() -> Setup {
    Setup {
        new_run: false,
        ..setup()
    }
}

/// A master whose driver knows that its journal is older than the run.
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
        // Claims are still made from the real history.
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

    fn confirm_all(&mut self, puppets: &[Puppet], group: u64, safe_called: u64) {
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
        stage.confirm_all(&members, group as u64, 1);
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
    // A newcomer comes first: its group and id are not those of a member not heard yet.
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

/// H46: C holds X and is cut off; the others are told that X was aborted. Then an older copy of the
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

/// The same, detected by a member of another group that knows a newer view.
#[test]
fn newer_view_of_one_group_casts_doubt_on_all() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    let (mut others, old) = stage.founded(1, 2);
    let copied = stage.journal.len();
    abort_without_the_last(&mut stage, &peers, vid);
    let newer = self::vid(old.term.0, old.epoch.0 + 1);
    let whole = stage.journal.len();
    let mut stage = stage.restart_from(copied, kept_again());
    stage.attach(&mut others[0], report(newer));
    assert!(stage.events.contains(&Event::JournalOutdated));
    stage.attach(&mut peers[2], report_open(vid, op(0, vid), true));
    stage.window(&[peers[2], others[0]]);
    assert_eq!(stage.told(peers[2]), [], "one of three may not decide");
    // It stays so over a restart before any other peer was heard.
    let written = [&stage.journal[..copied], &stage.journal[whole..]].concat();
    let before = std::mem::replace(&mut stage, Stage::with(kept_again(), &written));
    (stage.journal, stage.next_connection) = (before.journal, before.next_connection);
    stage.attach(&mut peers[2], report_open(vid, op(0, vid), true));
    stage.window(&peers[2..]);
    assert_eq!(stage.told(peers[2]), [], "one of three may not decide");
    for peer in &mut peers[..2] {
        stage.attach(peer, report(self::vid(vid.term.0, vid.epoch.0 + 1)));
    }
    let reason = EvictReason::NotAMember;
    assert_eq!(stage.told(peers[2]), [MasterToPeer::Evicted { reason }]);
}

/// Group 0 was taken up, and one of its members is away for a moment when a member of group 1
/// reveals the age of the journal: it has been heard, so it does not lose its session.
#[test]
fn member_that_is_away_when_its_journal_is_doubted_comes_back() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let (mut others, old) = stage.founded(1, 2);
    let copied = stage.journal.len();
    let mut stage = stage.restart_from(copied, kept_again());
    for peer in &mut peers {
        stage.attach(peer, report(vid));
    }
    stage.confirm_all(&peers, 0, 0);
    stage.close(peers[1]);
    stage.attach(
        &mut others[0],
        report(self::vid(old.term.0, old.epoch.0 + 1)),
    );
    assert!(stage.events.contains(&Event::JournalOutdated));
    let (vid, members) = stage.view(0);
    stage.attach(&mut peers[1], report(vid));
    assert_eq!(stage.installed(peers[1]).vid, vid);
    assert_eq!(members, [peers[0].peer, peers[1].peer]);
    assert_eq!(evictions(&stage), []);
}

/// H48: a host is evicted, and comes back under its unit. An older copy of the journal is put in
/// place that names its new processes, and an old one, cut off until now, attaches. Its session is
/// no longer known to have ended; taken over, it would drag its successor along.
#[test]
fn session_that_an_older_copy_does_not_name_is_not_taken_over() {
    let mut site = admitted();
    let mut old = site.unit;
    let peer_timeout = Timers::default().peer_timeout;
    site.stage.pass(peer_timeout, &site.groups.concat());
    site.unit = [0, 1].map(|group| site.stage.join_unit(group, UNIT, 2));
    site.stage.sent.clear();
    for group in [0, 1] {
        site.change(group, 1);
        site.ready(group);
    }
    for group in [0, 1] {
        assert!(!site.pass(group, 1));
        site.change(group, 2);
    }
    let copied = site.stage.journal.len();
    let (vid, members) = site.stage.view(0);
    let mut stage = site.stage.restart_from(copied, outdated());
    let mut report = at_one(vid);
    (report.safe_called, report.safe_released) = (2, 2);
    let [first, second] = &mut site.groups[0][..] else {
        panic!("two were there before the host")
    };
    stage.attach(&mut site.unit[0], report.clone());
    stage.attach(first, report.clone());
    stage.attach(&mut old[0], at_one(vid));
    let reason = EvictReason::NotAMember;
    assert_eq!(stage.told(old[0]), [MasterToPeer::Evicted { reason }]);
    stage.attach(second, report);
    assert_eq!(evictions(&stage), []);
    assert_eq!(stage.view(0).1, members);
}

/// C leaves, and only B hears of the view without it. An older copy of the journal takes C for a
/// member, so A's word that its link to C is down is kept, until B reveals the age of the journal.
/// Of the two ends of that link A alone is left: it must not be blamed.
#[test]
fn link_to_a_member_of_an_outdated_view_is_nobody_s_fault() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    let copied = stage.journal.len();
    stage.say(peers[2], PeerToMaster::Leave);
    stage.flush(peers[0], vid, report(vid));
    stage.flush(peers[1], vid, report(vid));
    let newer = stage.installed(peers[1]).vid;
    let mut stage = stage.restart_from(copied, kept_again());
    stage.attach(&mut peers[0], report(vid));
    let down = PeerToMaster::LinkDown {
        vid,
        peer: peers[2].peer,
        fault: crate::wire::control::LinkFault::TimedOut,
        gave_up: true,
    };
    stage.say(peers[0], down);
    stage.attach(&mut peers[1], report(newer));
    assert!(stage.events.contains(&Event::JournalOutdated));
    let left = [peers[0].peer, peers[1].peer];
    assert_eq!(stage.view(0).1, left);
    stage.confirm_all(&peers[..2], 0, 0);
    stage.pass(Timers::default().blame_window, &peers[..2]);
    assert_eq!(evictions(&stage), []);
    assert_eq!(stage.state(0), "Steady");
}

/// Records that are durable before they are sent reveal a journal without them; a commit does not.
#[test]
fn what_was_told_and_is_not_in_the_journal_reveals_its_age() {
    let is_doubted = |reveal: &dyn Fn(&mut Stage, &mut Puppet, Vid)| {
        let mut stage = Stage::new();
        let (mut peers, vid) = stage.founded(0, 3);
        let copied = stage.journal.len();
        let mut stage = stage.restart_from(copied, kept_again());
        reveal(&mut stage, &mut peers[0], vid);
        stage.events.contains(&Event::JournalOutdated)
    };
    assert!(is_doubted(&|stage, peer, vid| {
        stage.attach(peer, report(self::vid(vid.term.0, vid.epoch.0 + 1)));
    }));
    assert!(!is_doubted(&|stage, peer, vid| {
        // Members may have agreed on it.
        let mut report = report(vid);
        (report.safe_called, report.safe_released) = (1, 1);
        stage.attach(peer, report);
    }));
    assert!(is_doubted(&|stage, peer, _| {
        // A newcomer that was registered after the copy.
        (peer.peer, peer.session) = (PeerId(peer.peer.0 + 3), SessionId(99));
        stage.attach(peer, Report::default());
    }));
    assert!(is_doubted(&|stage, peer, vid| {
        // A member of a group that was founded after the copy.
        (peer.peer, peer.session) = (PeerId(peer.peer.0 + 3), SessionId(99));
        peer.connection = stage.connection();
        let claim = Claim {
            peer: peer.peer,
            group: GroupId(5),
            members: vec![member(peer.peer.0)],
            ..Claim::default()
        };
        let message = PeerToMaster::Attach {
            run_id: peer.run_id,
            session: peer.session,
            attach: 2,
            claim,
            report: report(vid),
        };
        stage.say(*peer, message);
        assert_eq!(stage.view(5).1, [peer.peer], "its group is taken over");
    }));
    assert!(!is_doubted(&|stage, peer, vid| {
        let mut report = report_open(vid, op(3, vid), true);
        report.tags[0].last_committed = Some(OpNumber(2));
        stage.attach(peer, report);
    }));
    assert!(!is_doubted(&|stage, _, _| {
        let mut newcomer = stage.join_group(0);
        stage.attach(&mut newcomer, Report::default());
    }));
}

/// No member of a doubted view is left: it is given up when no session can be alive.
#[test]
fn doubted_view_that_nobody_is_left_of_is_given_up_in_the_end() {
    let mut stage = Stage::new();
    let (_, vid) = stage.founded(0, 2);
    let copied = stage.journal.len();
    let mut setup = outdated();
    setup.start_number = 7;
    let mut stage = stage.restart_from(copied, setup);
    let newcomer = stage.join_group(0);
    assert_eq!(newcomer.peer, PeerId(7 * limits::PEER_ID_GAP));
    stage.window(&[newcomer]);
    assert_eq!(stage.state(0), "Rebuild");
    stage.pass(Timers::default().detach_timeout, &[newcomer]);
    assert_eq!(stage.state(0), "Founding");
    stage.ready(newcomer, &[]);
    let next = stage.installed(newcomer).vid;
    assert!(next > vid && next.term == Term(7), "{next}");
}

/// C hangs; A and B learn that X was aborted for that.
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
