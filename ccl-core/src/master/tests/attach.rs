//! Sessions that continue over a new connection, in every state (R5, R7, R10).

use super::*;

fn install_of(message: &MasterToPeer) -> &Install {
    match message {
        MasterToPeer::Install(install) => install,
        other => panic!("no Install but {other:?}"),
    }
}

#[test]
fn commit_lost_with_the_connection_is_in_the_reply() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let x = op(0, vid);
    stage.say(peers[0], done(x));
    stage.close(peers[0]);
    stage.say(peers[1], done(x));
    stage.attach(&mut peers[0], report_open(vid, x, true));
    let told = stage.told(peers[0]);
    assert_eq!(told.len(), 1, "one message: {told:?}");
    let reply = install_of(&told[0]);
    assert_eq!(reply.vid, vid);
    assert_eq!(reply.floors[0].last_committed, Some(OpNumber(0)));
    assert!(reply.released && !reply.suspended);
}

#[test]
fn facts_lost_with_the_connection_are_in_the_attach() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let x = op(0, vid);
    stage.say(peers[1], done(x));
    stage.close(peers[0]);
    stage.attach(&mut peers[0], report_open(vid, x, true));
    let told = stage.told(peers[0]);
    assert_eq!(install_of(&told[0]).floors[0].last_committed, None);
    assert!(matches!(&told[1], MasterToPeer::Commit(_)));
    assert!(matches!(
        stage.told(peers[1])[..],
        [MasterToPeer::Commit(_)]
    ));
}

#[test]
fn attach_while_suspended_counts_as_flush_and_keeps_the_peer_suspended() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 4);
    let x = op(0, vid);
    stage.close(peers[0]);
    stage.say(peers[3], PeerToMaster::Leave);
    stage.flush(peers[1], vid, report(vid));
    stage.attach(&mut peers[0], report_open(vid, x, false));
    let told = stage.told(peers[0]);
    assert_eq!(
        told.len(),
        1,
        "no Suspend before or after the reply: {told:?}"
    );
    let reply = install_of(&told[0]);
    assert_eq!((reply.vid, reply.suspended), (vid, true));
    stage.say(peers[0], posted(op(0, vid)));
    assert!(
        stage.closed.contains(&peers[0].connection),
        "it posts nothing until the next view"
    );
    stage.flush(peers[2], vid, report(vid));
    assert_eq!(stage.installed(peers[1]).members.len(), 2);
}

#[test]
fn attach_as_the_last_report_decides() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    stage.close(peers[0]);
    stage.say(peers[2], PeerToMaster::Leave);
    stage.flush(peers[1], vid, report(vid));
    stage.attach(&mut peers[0], report(vid));
    let told = stage.told(peers[0]);
    assert!(install_of(&told[0]).suspended);
    assert!(install_of(&told[1]).vid > vid);
}

#[test]
fn attach_while_installing_confirms_only_the_view_it_has() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    stage.say(peers[2], PeerToMaster::Leave);
    stage.flush(peers[0], vid, report(vid));
    stage.flush(peers[1], vid, report(vid));
    let next = stage.installed(peers[0]).vid;
    stage.confirm(peers[1], next);
    stage.close(peers[0]);
    stage.attach(&mut peers[0], report(vid));
    let told = stage.told(peers[0]);
    let reply = install_of(&told[0]);
    assert_eq!(
        (reply.vid, reply.released, reply.suspended),
        (next, false, false)
    );
    assert_eq!(stage.state(0), "Installing");
    stage.close(peers[0]);
    stage.attach(&mut peers[0], report(next));
    assert_eq!(stage.state(0), "Steady");
}

#[test]
fn outcomes_of_an_unreleased_view_stay_held_back_in_the_reply() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 4);
    stage.say(peers[3], PeerToMaster::Leave);
    for &peer in &peers[..3] {
        stage.flush(peer, vid, report(vid));
    }
    let first = stage.installed(peers[0]).vid;
    stage.confirm(peers[0], first);
    stage.say(peers[2], PeerToMaster::Leave);
    stage.close(peers[0]);
    stage.attach(&mut peers[0], report(first));
    let reply = stage.installed(peers[0]);
    assert_eq!((reply.released, reply.suspended), (false, true));
}

#[test]
fn attach_of_the_evicted_is_answered_with_the_reason() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    stage.close(peers[2]);
    stage.pass(Timers::default().reattach_grace, &peers[..2]);
    assert_eq!(stage.state(0), "Suspended");
    stage.attach(&mut peers[2], report(vid));
    let reason = EvictReason::Detached;
    assert_eq!(stage.told(peers[2]), [MasterToPeer::Evicted { reason }]);
    assert!(stage.closed.contains(&peers[2].connection));
    let mut stranger = peers[0];
    stranger.session = SessionId(1);
    stage.attach(&mut stranger, report(vid));
    let reason = EvictReason::NotAMember;
    assert_eq!(stage.told(stranger), [MasterToPeer::Evicted { reason }]);
}

#[test]
fn session_of_another_run_is_refused_by_name() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 1);
    peers[0].run_id = RunId(0xabc);
    stage.attach(&mut peers[0], report(vid));
    let told = stage.told(peers[0]);
    let [MasterToPeer::Refused { reason }] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(
        reason.contains("abc") && reason.contains("\"run\""),
        "{reason}"
    );
    assert_eq!(stage.state(0), "Steady");
}

#[test]
fn newer_connection_replaces_the_older_and_a_stale_one_is_closed() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let old = peers[0];
    let mut new = old;
    stage.attach(&mut new, report(vid));
    assert!(stage.closed.contains(&old.connection));
    stage.say(old, PeerToMaster::Leave);
    assert_eq!(
        stage.state(0),
        "Steady",
        "frames of the old connection are ignored"
    );
    stage.close(old);
    let mut stale = old;
    stage.attach(&mut stale, report(vid));
    assert!(stage.closed.contains(&stale.connection));
    assert_eq!(stage.told(stale), []);
    stage.say(new, done(op(0, vid)));
    stage.say(peers[1], done(op(0, vid)));
    assert!(
        stage
            .told(new)
            .iter()
            .any(|m| matches!(m, MasterToPeer::Commit(_)))
    );
}

#[test]
fn newcomer_admitted_while_away_gets_its_view() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 1);
    let mut newcomer = stage.join_group(0);
    stage.ready(newcomer, &peers);
    stage.say(peers[0], PeerToMaster::AtSafePoint { k: 0, ahead: 0 });
    let mut at_safe_point = report(vid);
    at_safe_point.safe_called = 1;
    stage.flush(peers[0], vid, at_safe_point);
    let install = stage.installed(peers[0]);
    assert_eq!(install.members.len(), 2);
    stage.confirm(peers[0], install.vid);
    assert_eq!(stage.state(0), "Steady", "a newcomer is not waited for");
    stage.close(newcomer);
    stage.attach(&mut newcomer, Report::default());
    let reply = stage.installed(newcomer);
    assert_eq!(
        (reply.vid, reply.released, reply.safe_released),
        (install.vid, true, 1)
    );
}
