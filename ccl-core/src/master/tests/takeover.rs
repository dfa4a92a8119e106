//! A master that takes over a run without the journal of the one before (R11).

use super::*;
use crate::ids::Term;
use crate::limits;
use crate::wire::control::{AbortReason, Wait};

/// A restart without a journal that waits for an earlier run.
pub(super) fn without_journal() -> Setup {
    Setup {
        new_run: false,
        journaled: false,
        entropy: [5, 6, 7, 8],
        ..setup()
    }
}

impl Stage {
    /// The master dies with its journal. Claims are still made from the old one.
    fn restart_empty(self, setup: Setup) -> Self {
        let mut stage = Self::with(setup, &[]);
        stage.journal = self.journal;
        stage.next_connection = self.next_connection;
        stage
    }
}

#[test]
fn without_a_journal_a_majority_rebuilds_the_run() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    let x = op(0, vid);
    let mut stage = stage.restart_empty(without_journal());
    stage.attach(&mut peers[0], report_open(vid, x, true));
    stage.attach(&mut peers[2], report_open(vid, x, true));
    stage.window(&[peers[0], peers[2]]);
    let install = stage.installed(peers[0]);
    assert_eq!(install.vid, self::vid(2, vid.epoch.0 + 1));
    assert_eq!(install.members.len(), 2);
    assert_eq!(install.floors[0].last_committed, Some(OpNumber(0)));
    let newcomer = stage.join_group(0);
    assert_eq!(newcomer.run_id, peers[0].run_id);
    assert!(newcomer.peer.0 >= limits::PEER_ID_GAP);
}

#[test]
fn without_a_journal_half_of_the_view_is_not_enough() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let mut stage = stage.restart_empty(without_journal());
    stage.attach(&mut peers[0], report(vid));
    stage.pass(Timers::default().detach_timeout * 2, &peers[..1]);
    assert_eq!(stage.state(0), "Rebuild");
    let stalled = Event::RebuildStalled {
        group: GroupId(0),
        heard: 1,
        members: 2,
    };
    assert_eq!(
        stage
            .events
            .iter()
            .filter(|event| **event == stalled)
            .count(),
        1
    );
    stage.attach(&mut peers[1], report(vid));
    assert_eq!(stage.state(0), "Installing");
}

/// The operator can do something about it, so not a turn later.
#[test]
fn operator_hears_that_too_few_came_at_the_end_of_the_window() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let mut stage = stage.restart_empty(without_journal());
    stage.attach(&mut peers[0], report(vid));
    let is_stalled = |event: &Event| matches!(event, Event::RebuildStalled { .. });
    let moment = Duration::from_millis(1);
    stage.pass(Timers::default().rebuild_window - moment, &peers[..1]);
    assert!(!stage.events.iter().any(is_stalled), "members may come");
    stage.pass(moment, &peers[..1]);
    assert!(stage.events.iter().any(is_stalled));
}

#[test]
fn operators_word_stands_for_a_majority() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let mut setup = without_journal();
    setup.force_rebuild = true;
    let mut stage = stage.restart_empty(setup);
    stage.attach(&mut peers[0], report(vid));
    stage.window(&peers[..1]);
    assert_eq!(stage.installed(peers[0]).members.len(), 1);
}

/// H6: a newcomer is the first that a restarted master without a journal meets.
#[test]
fn newcomer_joins_the_earlier_run_whose_members_come_later() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let run_id = peers[0].run_id;
    let mut stage = stage.restart_empty(without_journal());
    let connection = stage.connection();
    stage.say_at(connection, stage.hello(0, 77));
    for peer in &mut peers {
        stage.attach(peer, report(vid));
    }
    let told = stage.told_at(connection);
    assert!(
        matches!(&told[0], MasterToPeer::Welcome { run_id: of, .. } if *of == run_id),
        "{told:?}"
    );
    assert!(
        stage
            .journal
            .iter()
            .any(|r| matches!(r, Record::RunFounded { .. }))
    );
}

/// A newcomer that alone made the master found a run would do so beside the members of an earlier
/// one.
#[test]
fn newcomer_is_told_which_members_of_an_earlier_run_are_missing() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    let mut stage = stage.restart_empty(without_journal());
    let connection = stage.connection();
    stage.say_at(connection, stage.hello(0, 77));
    stage.attach(&mut peers[0], report(vid));
    stage.say_at(connection, PeerToMaster::Ping);
    let told = stage.told_at(connection);
    let [MasterToPeer::Pong { waits, .. }] = &told[..] else {
        panic!("{told:?}");
    };
    let Some(Wait::Rebuild { heard, members, .. }) = waits else {
        panic!("{waits:?}");
    };
    assert_eq!((*heard, *members), (1, 3));
}

#[test]
fn zombie_of_an_earlier_run_does_not_hold_up_a_new_one() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let mut stage = stage.restart_empty(without_journal());
    stage.attach(&mut peers[0], report(vid));
    let connection = stage.connection();
    stage.say_at(connection, stage.hello(0, 77));
    stage.window(&peers[..1]);
    assert_eq!(stage.told_at(connection), []);
    stage.close(peers[0]);
    stage.window(&[]);
    assert!(matches!(
        stage.told_at(connection)[0],
        MasterToPeer::Welcome { .. }
    ));
}

/// Only when it cannot be alive any more: until then it is more likely that the master is cut off.
#[test]
fn zombie_that_falls_silent_is_given_up_too() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let mut stage = stage.restart_empty(without_journal());
    stage.attach(&mut peers[0], report(vid));
    let timers = Timers::default();
    stage.pass(timers.detach_timeout + timers.peer_timeout, &[]);
    let connection = stage.connection();
    stage.say_at(connection, stage.hello(0, 77));
    stage.window(&[]);
    assert!(matches!(
        stage.told_at(connection)[0],
        MasterToPeer::Welcome { .. }
    ));
}

/// A learned of an abort by a view that B never got, and holds the reason back. Both must end
/// alike: whether a call is retried depends on the reason.
#[test]
fn reason_that_only_one_member_knows_reaches_the_others() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let x = op(0, vid);
    let mut stage = stage.restart_empty(without_journal());
    let newer = self::vid(1, vid.epoch.0 + 1);
    let reason = AbortReason::Lost {
        peer: PeerId(9),
        reason: EvictReason::Left,
    };
    let mut knows = report_open(newer, op(1, newer), false);
    knows.tags[0].open = None;
    knows.tags[0].last_committed = None;
    knows.tags[0].aborted = Some(reason.clone());
    stage.attach(&mut peers[0], knows);
    stage.attach(&mut peers[1], report_open(vid, x, true));
    let floor = stage.installed(peers[1]).floors.remove(0);
    assert_eq!((floor.floor, floor.last_committed), (OpNumber(1), None));
    assert_eq!(floor.reasons, [(OpNumber(0), reason)]);
}

/// The last zombie leaves after the window: its run must not go on under its name from nothing.
#[test]
fn run_of_a_zombie_that_leaves_is_not_founded_again() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let mut stage = stage.restart_empty(without_journal());
    stage.attach(&mut peers[0], report(vid));
    let connection = stage.connection();
    stage.say_at(connection, stage.hello(0, 77));
    stage.window(&peers[..1]);
    stage.say(peers[0], PeerToMaster::Leave);
    stage.window(&[]);
    let told = stage.told_at(connection);
    let MasterToPeer::Welcome { run_id, .. } = &told[0] else {
        panic!("{told:?}");
    };
    assert_ne!(*run_id, peers[0].run_id);
}

/// One group's only witness leaves while another's stays: its view is remembered.
#[test]
fn view_that_a_leaver_claimed_still_needs_its_majority() {
    let mut stage = Stage::new();
    let (mut first, vid) = stage.founded(0, 2);
    let (mut second, other) = stage.founded(1, 2);
    let mut stage = stage.restart_empty(without_journal());
    stage.attach(&mut first[0], report(vid));
    stage.attach(&mut second[0], report(other));
    stage.say(first[0], PeerToMaster::Leave);
    stage.window(&second[..1]);
    assert_eq!((stage.state(0), stage.state(1)), ("Rebuild", "Rebuild"));
    stage.attach(&mut second[1], report(other));
    assert_eq!((stage.state(0), stage.state(1)), ("Rebuild", "Installing"));
}

/// H7: views of two masters that know nothing of each other have different names.
#[test]
fn newest_view_by_term_and_epoch_wins() {
    let mut stage = Stage::new();
    let (mut peers, old) = stage.founded(0, 3);
    let newer = vid(5, old.epoch.0);
    let mut stage = stage.restart_empty(without_journal());
    stage.attach(&mut peers[0], report(old));
    let members = stage.claim(peers[1]).members[1..].to_vec();
    for peer in &mut peers[1..] {
        peer.attach += 1;
        peer.connection = stage.connection();
        let claim = Claim {
            members: members.clone(),
            ..stage.claim(*peer)
        };
        let message = PeerToMaster::Attach {
            run_id: peer.run_id,
            session: peer.session,
            attach: peer.attach,
            claim,
            report: report(newer),
        };
        stage.say(*peer, message);
    }
    let install = stage.installed(peers[1]);
    assert_eq!(install.vid, vid(6, newer.epoch.0 + 1));
    assert_eq!(install.members.len(), 2);
    let reason = EvictReason::NotAMember;
    assert_eq!(stage.told(peers[0]), [MasterToPeer::Evicted { reason }]);
}

#[test]
fn groups_are_rebuilt_each_on_its_own() {
    let mut stage = Stage::new();
    let (mut first, vid) = stage.founded(0, 2);
    let (mut second, other) = stage.founded(1, 2);
    let mut stage = stage.restart_empty(without_journal());
    stage.attach(&mut second[0], report(other));
    for peer in &mut first {
        stage.attach(peer, report(vid));
    }
    assert_eq!((stage.state(0), stage.state(1)), ("Installing", "Rebuild"));
    stage.attach(&mut second[1], report(other));
    assert_eq!(stage.state(1), "Installing");
}

#[test]
fn implausible_claims_are_turned_away() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let mut stage = stage.restart_empty(without_journal());
    let good = stage.claim(peers[0]);
    let mut reversed = good.clone();
    reversed.members.reverse();
    let mut foreign = good.clone();
    foreign.peer = PeerId(99);
    let mut twice = good;
    twice.members[1].peer = twice.members[0].peer;
    for claim in [reversed, foreign, twice, Claim::default()] {
        peers[0].connection = stage.connection();
        let message = PeerToMaster::Attach {
            run_id: peers[0].run_id,
            session: peers[0].session,
            attach: 2,
            claim,
            report: report(vid),
        };
        stage.say(peers[0], message);
        let reason = EvictReason::NotAMember;
        assert_eq!(stage.told(peers[0]), [MasterToPeer::Evicted { reason }]);
    }
}

/// Of two masters in a row, the second may hear no peer that knows the first one's term.
#[test]
fn names_begin_above_the_number_of_the_start() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let mut setup = without_journal();
    setup.start_number = 40;
    let mut stage = stage.restart_empty(setup);
    let connection = stage.connection();
    stage.say_at(connection, stage.hello(0, 77));
    for peer in &mut peers {
        stage.attach(peer, report(vid));
    }
    assert_eq!(stage.installed(peers[0]).vid.term, Term(40));
    let told = stage.told_at(connection);
    let MasterToPeer::Welcome { peer, term, .. } = &told[0] else {
        panic!("{told:?}");
    };
    assert_eq!((*term, *peer), (Term(40), PeerId(40 * limits::PEER_ID_GAP)));
}
