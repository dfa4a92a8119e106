//! Operations that a member wants aborted, or that members call differently (R8, R12).

use super::*;
use crate::wire::control::{AbortReason, CancelReason, Elsewhere, Kind, Late, LatePeers};

#[test]
fn cancel_aborts_for_all_members_and_is_told_with_its_reason() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    let x = op(0, vid);
    start(&mut stage, &peers[..2], x, &[]);
    let reason = CancelReason::Deadline { late: None };
    stage.say(peers[1], PeerToMaster::Cancel { op: x, reason });
    assert_eq!(stage.state(0), "Suspended");
    stage.flush(peers[0], vid, report_open(vid, x, false));
    stage.flush(peers[1], vid, report_open(vid, x, false));
    stage.flush(peers[2], vid, report(vid));
    let install = stage.installed(peers[2]);
    assert_eq!(install.members.len(), 3);
    assert_eq!(install.carried, []);
    assert_eq!(install.floors[0].floor, OpNumber(1));
    let late = Late::Uncalled {
        peers: LatePeers::of(&[peers[2].peer]),
        elsewhere: Vec::new(),
    };
    assert_eq!(reason_of(&install, peers[1]), Some(late));
}

/// Which members a timeout waited for, as an `Install` reports, and that it was this peer's
/// timeout.
fn reason_of(install: &Install, timed_out: Puppet) -> Option<Late> {
    let AbortReason::Cancelled { by, reason } = &install.floors[0].reasons[0].1 else {
        panic!("{install:?}");
    };
    assert_eq!(*by, timed_out.peer);
    match reason {
        CancelReason::Deadline { late } => late.clone(),
        other => panic!("{other}"),
    }
}

#[test]
fn timeout_names_the_calls_that_those_were_in_who_had_not_made_this_one() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    let x = op(0, vid);
    let y = OpName { tag: Tag(8), ..x };
    start(&mut stage, &peers[..1], x, &[]);
    start(&mut stage, &peers[1..2], y, &[]);
    let reason = CancelReason::Deadline { late: None };
    stage.say(peers[0], PeerToMaster::Cancel { op: x, reason });
    stage.flush(peers[0], vid, report_open(vid, x, false));
    stage.flush(peers[1], vid, report_open(vid, y, false));
    stage.flush(peers[2], vid, report(vid));
    let late = Late::Uncalled {
        peers: LatePeers::of(&[peers[1].peer, peers[2].peer]),
        elsewhere: vec![Elsewhere {
            peer: peers[1].peer,
            call: Kind::AllReduce.call(y),
        }],
    };
    assert_eq!(reason_of(&stage.installed(peers[2]), peers[0]), Some(late));
}

#[test]
fn timeout_of_what_all_called_names_who_had_not_finished() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    let x = op(0, vid);
    start(&mut stage, &peers, x, &peers[..1]);
    let reason = CancelReason::Deadline { late: None };
    stage.say(peers[0], PeerToMaster::Cancel { op: x, reason });
    for (peer, held) in peers.iter().zip([true, false, true]) {
        stage.flush(*peer, vid, report_open(vid, x, held));
    }
    let late = Late::Unfinished(LatePeers::of(&[peers[1].peer]));
    assert_eq!(reason_of(&stage.installed(peers[2]), peers[0]), Some(late));
}

/// The lost member may have called it without reporting that.
#[test]
fn timeout_says_nothing_of_a_member_that_was_lost() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    let x = op(0, vid);
    start(&mut stage, &peers[..2], x, &[]);
    let reason = CancelReason::Deadline { late: None };
    stage.say(peers[0], PeerToMaster::Cancel { op: x, reason });
    stage.say(peers[2], PeerToMaster::Leave);
    for &peer in &peers[..2] {
        stage.flush(peer, vid, report_open(vid, x, false));
    }
    assert_eq!(reason_of(&stage.installed(peers[0]), peers[0]), None);
}

#[test]
fn cancel_that_meets_the_last_done_commits() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let x = op(0, vid);
    start(&mut stage, &peers, x, &peers[..1]);
    let reason = CancelReason::Deadline { late: None };
    stage.say(peers[0], PeerToMaster::Cancel { op: x, reason });
    stage.say(peers[1], done(x));
    assert_eq!(stage.told(peers[0]), [MasterToPeer::Suspend { vid }]);
    stage.flush(peers[0], vid, report_open(vid, x, true));
    stage.flush(peers[1], vid, report_open(vid, x, true));
    let floor = stage.installed(peers[0]).floors.remove(0);
    assert_eq!(
        (floor.floor, floor.last_committed),
        (OpNumber(1), Some(OpNumber(0)))
    );
}

#[test]
fn cancel_of_what_nobody_surviving_called_is_forgotten() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    let x = op(0, vid);
    start(&mut stage, &peers[2..], x, &[]);
    let reason = CancelReason::User;
    stage.say(peers[2], PeerToMaster::Cancel { op: x, reason });
    stage.say(peers[2], PeerToMaster::Leave);
    for &peer in &peers[..2] {
        stage.flush(peer, vid, report(vid));
    }
    let install = stage.installed(peers[0]);
    assert_eq!(install.floors[0].floor, OpNumber(0));
    for &peer in &peers[..2] {
        stage.confirm(peer, install.vid);
    }
    assert_eq!(stage.state(0), "Steady");
    start(&mut stage, &peers[..2], op(0, install.vid), &peers[..2]);
    assert!(
        stage
            .told(peers[0])
            .iter()
            .any(|m| matches!(m, MasterToPeer::Commit(_)))
    );
}

#[test]
fn cancel_of_what_its_sender_never_called_does_nothing() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let x = op(0, vid);
    start(&mut stage, &peers[..1], x, &[]);
    let reason = CancelReason::User;
    stage.say(peers[1], PeerToMaster::Cancel { op: x, reason });
    assert_eq!(stage.state(0), "Steady");
}

#[test]
fn difference_aborts_for_all_and_names_both_values() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let x = op(0, vid);
    stage.say(peers[0], done(x));
    let mut other = note(x);
    other.fingerprint = fingerprint(0);
    stage.say(peers[1], PeerToMaster::Posted(vec![other]));
    assert_eq!(stage.state(0), "Suspended");
    for &peer in &peers {
        stage.flush(peer, vid, report(vid));
    }
    let floor = stage.installed(peers[0]).floors.remove(0);
    let AbortReason::Cancelled { by, reason } = &floor.reasons[0].1 else {
        panic!("{floor:?}");
    };
    assert_eq!(*by, peers[1].peer);
    assert_eq!(
        reason.to_string(),
        format!("its count is 0, but that of peer {} is 10", peers[0].peer)
    );
}

/// Two collectives that a backend builds on all-reduces.
#[test]
fn calls_that_differ_only_in_what_their_callers_make_of_them_are_aborted() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let x = op(0, vid);
    let mut note = note(x);
    note.fingerprint.caller = "reduce to rank 0".into();
    stage.say(peers[0], PeerToMaster::Done(vec![note.clone()]));
    note.fingerprint.caller = "reduce to rank 1".into();
    stage.say(peers[1], PeerToMaster::Done(vec![note]));
    assert_eq!(stage.state(0), "Suspended", "and not committed");
    for &peer in &peers {
        stage.flush(peer, vid, report(vid));
    }
    let floor = stage.installed(peers[0]).floors.remove(0);
    let AbortReason::Cancelled { reason, .. } = &floor.reasons[0].1 else {
        panic!("{floor:?}");
    };
    let CancelReason::Mismatch { mine, theirs, .. } = reason else {
        panic!("{reason:?}");
    };
    assert_eq!(
        [&mine[..], theirs],
        ["reduce to rank 1", "reduce to rank 0"]
    );
}
