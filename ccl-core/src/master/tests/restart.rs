//! A master that dies and starts again with its journal (R11).

use super::*;
use crate::ids::Term;
use crate::wire::control::{AbortReason, CancelReason};

impl Stage {
    pub(super) fn window(&mut self, alive: &[Puppet]) {
        self.pass(Timers::default().rebuild_window, alive);
    }
}

#[test]
fn journal_takes_the_run_up_when_all_members_are_heard() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let x = op(0, vid);
    stage.say(peers[0], done(x));
    stage.say(peers[1], posted(x));
    let mut stage = stage.restart(setup());
    assert_eq!(stage.state(0), "Rebuild");
    stage.attach(&mut peers[0], report_open(vid, x, true));
    assert_eq!(stage.told(peers[0]), []);
    stage.attach(&mut peers[1], report_open(vid, x, false));
    let install = stage.installed(peers[0]);
    assert_eq!(install.vid.term, Term(2));
    assert_eq!(install.vid.epoch.0, vid.epoch.0 + 1);
    assert_eq!(install.carried[0].op, x);
    assert!(!install.released && !install.suspended);
    for &peer in &peers {
        stage.confirm(peer, install.vid);
    }
    assert_eq!(stage.state(0), "Steady");
    stage.say(peers[1], done(x));
    assert!(
        stage
            .told(peers[0])
            .iter()
            .any(|m| matches!(m, MasterToPeer::Commit(_)))
    );
}

#[test]
fn member_not_heard_in_the_window_is_lost() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    let x = op(0, vid);
    let mut stage = stage.restart(setup());
    stage.attach(&mut peers[0], report_open(vid, x, true));
    stage.attach(&mut peers[1], report_open(vid, x, false));
    stage.window(&peers[..2]);
    let install = stage.installed(peers[0]);
    assert_eq!(install.members.len(), 2);
    let lost = AbortReason::Lost {
        peer: peers[2].peer,
        reason: EvictReason::NotHeard,
    };
    assert_eq!(install.floors[0].reasons[0].1, lost);
    stage.attach(&mut peers[2], report(vid));
    let reason = EvictReason::NotHeard;
    assert_eq!(stage.told(peers[2]), [MasterToPeer::Evicted { reason }]);
}

/// H4: A was told of a commit whose record the journal lost, and lists nothing; B lists the
/// operation.
#[test]
fn commit_that_only_a_member_remembers_stands() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let x = op(0, vid);
    stage.say(peers[0], done(x));
    stage.say(peers[1], done(x));
    stage
        .journal
        .retain(|record| !matches!(record, Record::Committed { .. }));
    let mut stage = stage.restart(setup());
    let mut told = report_open(vid, op(1, vid), false);
    told.tags[0].open = None;
    stage.attach(&mut peers[0], told);
    stage.attach(&mut peers[1], report_open(vid, x, true));
    let floor = stage.installed(peers[1]).floors.remove(0);
    assert_eq!(
        (floor.floor, floor.last_committed),
        (OpNumber(1), Some(OpNumber(0)))
    );
}

#[test]
fn journaled_commit_is_remembered_without_the_members() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let x = op(0, vid);
    stage.say(peers[0], done(x));
    stage.say(peers[1], done(x));
    let mut stage = stage.restart(setup());
    stage.attach(&mut peers[0], report_open(vid, x, true));
    stage.attach(&mut peers[1], report_open(vid, x, true));
    let floor = stage.installed(peers[1]).floors.remove(0);
    assert_eq!(
        (floor.floor, floor.last_committed),
        (OpNumber(1), Some(OpNumber(0)))
    );
}

/// H8 across a restart: what was sealed at a view change is not decided again.
#[test]
fn sealed_decision_survives_the_master() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    let x = op(0, vid);
    for &peer in &peers {
        stage.say(peer, posted(x));
    }
    stage.say(peers[2], PeerToMaster::Leave);
    stage.flush(peers[0], vid, report_open(vid, x, false));
    stage.flush(peers[1], vid, report_open(vid, x, true));
    let sealed = stage.installed(peers[0]);
    let mut stage = stage.restart(setup());
    stage.attach(&mut peers[0], report_open(vid, x, true));
    stage.attach(&mut peers[1], report_open(vid, x, true));
    let install = stage.installed(peers[0]);
    assert!(install.vid > sealed.vid);
    assert_eq!(
        install.floors[0].last_committed, None,
        "aborted stays aborted"
    );
    assert_eq!(install.floors[0].reasons, sealed.floors[0].reasons);
}

/// H14: facts said while the master collects reports are kept.
#[test]
fn facts_said_during_the_rebuild_count() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    let (x, y) = (
        op(0, vid),
        OpName {
            tag: Tag(8),
            ..op(0, vid)
        },
    );
    let mut stage = stage.restart(setup());
    let mut facts = report_open(vid, x, false);
    facts.tags.extend(report_open(vid, y, false).tags);
    stage.attach(&mut peers[0], facts);
    stage.attach(&mut peers[1], report_open(vid, x, true));
    stage.say(peers[0], done(x));
    let reason = CancelReason::User;
    stage.say(peers[0], PeerToMaster::Cancel { op: y, reason });
    stage.say(peers[0], PeerToMaster::AtSafePoint { k: 0, ahead: 0 });
    stage.attach(&mut peers[2], report_open(vid, x, true));
    let install = stage.installed(peers[0]);
    assert_eq!(install.floors[0].last_committed, Some(OpNumber(0)));
    assert!(matches!(
        install.floors[1].reasons[0].1,
        AbortReason::Cancelled { .. }
    ));
    for &peer in &peers {
        let mut report = report(install.vid);
        report.safe_called = u64::from(peer == peers[0]);
        stage.say(
            peer,
            PeerToMaster::Installed {
                vid: install.vid,
                report,
            },
        );
    }
    let told = stage.told(peers[0]);
    assert!(
        told.iter()
            .any(|m| matches!(m, MasterToPeer::SafeReleased { k: 0, .. })),
        "{told:?}"
    );
}

#[test]
fn safe_points_and_newcomers_survive_the_master() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 1);
    stage.say(peers[0], PeerToMaster::AtSafePoint { k: 0, ahead: 0 });
    let mut newcomer = stage.join_group(0);
    let mut stage = stage.restart(setup());
    stage.attach(&mut newcomer, Report::default());
    assert_eq!(
        stage.told(newcomer),
        [],
        "it waits for the group to be rebuilt"
    );
    let mut facts = report(vid);
    (facts.safe_called, facts.safe_released) = (1, 1);
    stage.attach(&mut peers[0], facts.clone());
    let install = stage.installed(peers[0]);
    assert_eq!(install.safe_released, 1);
    facts.vid = install.vid;
    stage.say(
        peers[0],
        PeerToMaster::Installed {
            vid: install.vid,
            report: facts,
        },
    );
    let told = stage.told(newcomer);
    assert!(matches!(&told[..], [MasterToPeer::Expect { vid, .. }] if *vid == install.vid));
    stage.ready(newcomer, &peers);
    stage.say(peers[0], PeerToMaster::AtSafePoint { k: 1, ahead: 0 });
    assert_eq!(stage.state(0), "Suspended");
}

#[test]
fn journaled_view_is_not_given_up_before_its_sessions_are_over() {
    let mut stage = Stage::new();
    let (_, vid) = stage.founded(0, 2);
    let mut stage = stage.restart(setup());
    let newcomer = stage.join_group(0);
    stage.window(&[newcomer]);
    assert_eq!(stage.state(0), "Rebuild");
    stage.pass(Timers::default().detach_timeout, &[newcomer]);
    assert_eq!(stage.state(0), "Founding");
    assert!(stage.view(0).0 > vid);
    stage.ready(newcomer, &[]);
    assert_eq!(stage.installed(newcomer).members[0].number.0, 2);
}

/// The time since a member could last hear from a master counts, over any number of starts; the
/// wait ends when no member can be alive.
#[test]
fn the_wait_for_members_counts_from_when_one_could_last_hear_of_a_master() {
    let timers = Timers::default();
    let lives = timers.peer_timeout + timers.detach_timeout;
    for rest in [
        Duration::ZERO,
        Duration::from_secs(1),
        timers.rebuild_window * 2,
    ] {
        let mut stage = Stage::new();
        stage.founded(0, 2);
        let mut setup = setup();
        setup.silence = lives - rest;
        let mut stage = stage.restart(setup);
        let newcomer = stage.join_group(0);
        if !rest.is_zero() {
            stage.pass(rest - Duration::from_millis(1), &[newcomer]);
            assert_eq!(stage.state(0), "Rebuild", "{rest:?}");
        }
        stage.pass(Duration::from_millis(1), &[newcomer]);
        assert_eq!(stage.state(0), "Founding", "{rest:?}");
    }
}

#[test]
fn newcomer_and_operator_hear_for_how_long_members_are_waited_for() {
    let mut stage = Stage::new();
    stage.founded(0, 2);
    let mut stage = stage.restart(setup());
    let newcomer = stage.join_group(0);
    stage.say(newcomer, PeerToMaster::Ping);
    let told = stage.told(newcomer);
    let Some(MasterToPeer::Pong {
        waits: Some(wait), ..
    }) = told.last()
    else {
        panic!("{told:?}");
    };
    let words = wait.to_string();
    assert!(words.contains("it waits up to 65 s"), "{words}");
    stage.pass(crate::limits::LOOK_INTERVAL * 2, &[newcomer]);
    let mut events = stage.events.iter().map(ToString::to_string);
    let words = "it waits up to 6";
    assert!(
        events.any(|event| event.contains(words)),
        "{:?}",
        stage.events
    );
}

/// An operator asserts that no member is alive. One that is nevertheless counts if it attaches
/// first.
#[test]
fn members_that_an_operator_knows_to_be_gone_are_not_waited_for() {
    let gone = || Setup {
        members_gone: true,
        ..setup()
    };
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let mut first = stage.restart(gone());
    let newcomer = first.join_group(0);
    assert_eq!(first.state(0), "Founding");
    first.ready(newcomer, &[]);
    assert!(first.installed(newcomer).vid > vid);
    first.attach(&mut peers[0], report(vid));
    let reason = EvictReason::NotHeard;
    assert_eq!(first.told(peers[0]), [MasterToPeer::Evicted { reason }]);
    // Without a journal it founds a run at once.
    let mut empty = Stage::with(
        Setup {
            new_run: false,
            ..gone()
        },
        &[],
    );
    empty.pass(Duration::from_millis(1), &[]);
    empty.join_group(0);
}

#[test]
fn each_start_has_a_greater_term_and_no_id_is_given_twice() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 2);
    let mut stage = stage.restart(setup());
    let newcomer = stage.join_group(1);
    assert!(newcomer.peer > peers[1].peer);
    assert!(peers.iter().all(|peer| peer.session != newcomer.session));
    let stage = stage.restart(setup());
    assert_eq!(stage.master.shared.term, Term(3));
}

/// A report to the master before arrives late: the member knows more by now.
#[test]
fn attach_that_an_earlier_master_answered_is_stale() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 1);
    stage.attach(&mut peers[0], report(vid));
    let late = peers[0];
    let mut stage = stage.restart(setup());
    stage.attach(&mut peers[0], report(vid));
    let next = stage.installed(peers[0]).vid;
    stage.confirm(peers[0], next);
    stage.say(peers[0], posted(op(0, next)));
    let mut stage = stage.restart(setup());
    let mut stale = late;
    stage.attach(&mut stale, report(vid));
    assert_eq!(stage.told(stale), []);
    assert!(stage.closed.contains(&stale.connection));
    assert_eq!(stage.state(0), "Rebuild");
    stage.attach(&mut peers[0], report_open(next, op(0, next), false));
    assert_eq!(stage.installed(peers[0]).carried.len(), 1);
}
